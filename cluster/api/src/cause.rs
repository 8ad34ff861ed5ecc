//! What is wrong with one field of a request.

use std::fmt;

/// What is wrong with one field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CauseReason {
    /// Something else that it names is not there.
    NotFound,
    /// It must be given.
    Required,
    /// Another entry has the same key.
    Duplicate,
    /// Its value breaks a rule.
    Invalid,
    /// Its value is not one of a closed set.
    NotSupported,
    /// It may not be given, or not changed.
    Forbidden,
    /// It is longer than allowed.
    TooLong,
    /// It has more entries than allowed.
    TooMany,
    /// It has the wrong type.
    TypeInvalid,
    /// Another manager owns it.
    Conflict,
    /// The revision asked for is not here yet.
    ResourceVersionTooLarge,
    /// The namespace is going, so that nothing new can be in it.
    NamespaceTerminating,
    /// A cause that is no field's: a disruption budget does not leave it to whoever asks.
    DisruptionBudget,
    /// A cause that is no field's: who writes by right of a shard has lost it to another member.
    ShardLost,
    /// A cause that is no field's: an unexpected answer.
    Unexpected,
}

impl CauseReason {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Conflict => "FieldManagerConflict",
            Self::ResourceVersionTooLarge => "ResourceVersionTooLarge",
            Self::NamespaceTerminating => "NamespaceTerminating",
            Self::DisruptionBudget => "DisruptionBudget",
            Self::ShardLost => "ShardLost",
            Self::Unexpected => "UnexpectedServerResponse",
        }
    }
}

/// One wrong field: where it is and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// The path, as `spec.containers[0].image`.
    pub field: String,
    /// What is wrong.
    pub reason: CauseReason,
    /// The same for people, as `Required value`.
    pub message: String,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}
