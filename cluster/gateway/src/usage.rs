//! Where what is used is known: [`UsageSource`] is all that the gateway knows of it.

use impresario_client::protocol::usage::{Amounts, PodUsage};
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;

/// What was measured, when, and over which time before that it is the average.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured<T> {
    /// By the clock of the node.
    pub taken: Timestamp,
    /// Of the CPU.
    pub window: Duration,
    /// How much.
    pub of: T,
}

/// Knows what is used lately, without asking anybody.
pub trait UsageSource: Send + Sync + 'static {
    /// Of a node.
    fn node(&self, node: &str) -> Option<Measured<Amounts>>;

    /// Of a pod of this uid that is bound to this node.
    fn pod(&self, node: &str, uid: &str) -> Option<Measured<Arc<PodUsage>>>;
}

/// Knows nothing: of a gateway that was given no other.
pub(crate) struct NothingKnown;

impl UsageSource for NothingKnown {
    fn node(&self, _: &str) -> Option<Measured<Amounts>> {
        None
    }

    fn pod(&self, _: &str, _: &str) -> Option<Measured<Arc<PodUsage>>> {
        None
    }
}
