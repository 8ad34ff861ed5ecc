//! A kind in several versions: it is kept in one of them, and told and taken in the others.

use super::Resource;
use serde_json::Value;

/// How the objects of a row are kept in the words of another row, which is of the same kind.
///
/// What is selected by is looked for in the object as it is kept: the pointers of the row's fields lead through that.
#[derive(Debug, Clone, Copy)]
pub struct Conversion {
    /// The group of the row that is kept.
    pub group: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Its plural.
    pub plural: &'static str,
    /// Makes what is kept of an object of this row.
    pub to_stored: fn(Value) -> Value,
    /// Makes an object of this row of what is kept. Nothing is lost on the way there and back.
    pub from_stored: fn(Value) -> Value,
}

impl Resource {
    /// An object of this row as it is kept.
    #[must_use]
    pub fn kept(&self, object: Value) -> Value {
        match self.conversion {
            Some(conversion) => (conversion.to_stored)(object),
            None => object,
        }
    }

    /// What is kept as an object of this row.
    #[must_use]
    pub fn told(&self, kept: Value) -> Value {
        match self.conversion {
            Some(conversion) => (conversion.from_stored)(kept),
            None => kept,
        }
    }

    /// Whether its objects are kept as they are told.
    pub fn is_kept(&self) -> bool {
        self.conversion.is_none()
    }
}
