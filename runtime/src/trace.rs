//! The trace context that travels in a frame.
//!
//! Ids only, in the sizes of W3C trace context. A caller sets one for a future with [`Trace::scope`]; every tell, ask and
//! open inside carries it, and the receiving node delivers the message inside a span that names it.

use impresario_ambient::random;
use serde::{Deserialize, Serialize};
use std::{fmt, future::Future};

/// Which trace a message belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Trace {
    /// The id of the whole trace.
    pub trace: u128,
    /// The id of the span that sent the message.
    pub span: u64,
}

tokio::task_local! {
    static CURRENT: Trace;
}

impl Trace {
    /// A new trace.
    pub fn new() -> Self {
        Self { trace: random::random(), span: random::random() }
    }

    /// The trace that this task runs in.
    pub fn current() -> Option<Self> {
        CURRENT.try_with(|trace| *trace).ok()
    }

    /// Runs `future` in this trace.
    pub async fn scope<F: Future>(self, future: F) -> F::Output {
        CURRENT.scope(self, future).await
    }
}

impl Default for Trace {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}-{:016x}", self.trace, self.span)
    }
}
