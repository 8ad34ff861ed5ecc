//! Why a patch was not applied.

use thiserror::Error;

/// Why a patch was not applied. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PatchError {
    /// The body is no patch of its form.
    #[error("{0}")]
    BadRequest(String),

    /// The body, or what it would make of the object, is too large.
    #[error("{0}")]
    TooLarge(String),

    /// The patch does not apply to this object.
    #[error("the server rejected our request due to an error in our request: {0}")]
    DoesNotApply(String),

    /// The strategic merge patch contradicts the schema or itself.
    #[error("{0}")]
    Unmergeable(String),

    /// The kind has no merge keys.
    #[error(
        "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json"
    )]
    NoStrategicMerge,

    /// The outcome is no object of the kind; `field` is always `patch`.
    #[error(" \"\" is invalid: patch: Invalid value: {outcome:?}: {why}")]
    Outcome {
        /// The outcome, as JSON.
        outcome: String,
        /// What is wrong with it.
        why: String,
    },
}

impl PatchError {
    /// The HTTP status that says this.
    pub fn code(&self) -> u16 {
        match self {
            Self::BadRequest(_) => 400,
            Self::TooLarge(_) => 413,
            Self::NoStrategicMerge => 415,
            Self::DoesNotApply(_) | Self::Outcome { .. } => 422,
            // As Kubernetes does: it has no better word for these.
            Self::Unmergeable(_) => 500,
        }
    }
}
