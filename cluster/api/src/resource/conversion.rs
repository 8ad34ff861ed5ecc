//! A kind in several versions: it is kept in one of them, and told and taken in the others.

use crate::cause::Cause;
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
    /// What is wrong with a new object in the words of this row, besides what is wrong with what is kept.
    pub validate_create: fn(&Value) -> Vec<Cause>,
    /// Makes what is kept of an object of this row.
    pub to_stored: fn(Value) -> Value,
    /// Makes an object of this row of what is kept. Nothing is lost on the way there and back.
    pub from_stored: fn(Value) -> Value,
}
