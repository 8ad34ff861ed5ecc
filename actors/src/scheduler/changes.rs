//! What a pass of the scheduler begins with.

use std::time::Instant;

/// What has come about since the last pass that pods may be waiting for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Something that may help those that fitted nowhere.
    pub(super) hopeful: bool,
    /// A node that was busy has answered, or is silent now.
    pub(super) answered: bool,
    /// A node that was silent was heard.
    pub(super) heard: bool,
}

/// A node that did not answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Silence {
    /// Until when it is left alone.
    pub(super) until: Instant,
    /// How often in a row it did not answer.
    pub(super) times: u32,
}
