//! The two specifications.

/// Which of the two specifications a document follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edition {
    V2,
    V3,
}
