//! What clients did and what they were told, as material for the checks.
//!
//! Clients are sequential. An operation whose outcome a client does not know stays open: it may take
//! effect at any later time, or never, and its client goes on under a new number.

use serde::Serialize;
use std::time::Duration;

/// What a client asked a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Its value.
    Read {
        /// What was answered; nothing where the register did not exist.
        seen: Option<u64>,
    },
    /// To hold this value, whatever it held.
    Write {
        /// The value.
        value: u64,
    },
    /// To hold `value` if it holds `expected`.
    Swap {
        /// What it must hold; nothing means that it must not exist.
        expected: Option<u64>,
        /// The value.
        value: u64,
    },
}

/// What a client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done.
    Ok,
    /// It was not done, and will not be: for a swap, the register held something else.
    Refused,
    /// It may have been done, or may yet be.
    Unknown,
}

/// One operation on one register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Operation {
    /// Who asked.
    pub client: u32,
    /// Which register.
    pub register: u32,
    /// What was asked, and for reads what was answered.
    pub action: Action,
    /// What was told.
    pub outcome: Outcome,
    /// When it was asked, since the start of the run.
    #[serde(serialize_with = "seconds")]
    pub called: Duration,
    /// When it was answered; meaningless for an unknown outcome.
    #[serde(serialize_with = "seconds")]
    pub returned: Duration,
}

fn seconds<S: serde::Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(span.as_secs_f64())
}
