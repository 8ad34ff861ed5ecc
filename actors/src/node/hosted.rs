//! A pod with an actor on this node.

use crate::pod::kit::Desired;
use tokio::sync::watch;

/// Through which its actor is told what is wanted of it.
pub(super) struct Hosted {
    pub(super) desired: watch::Sender<Desired>,
}
