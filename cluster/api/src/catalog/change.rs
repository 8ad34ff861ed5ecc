//! What happens to the kinds of a catalog, and why it does not.

use crate::resource::Row;
use thiserror::Error;

/// Most kinds that are taken at run time; each costs memory, and a part of every answer of discovery.
pub const MOST_TAKEN: usize = 2_000;

/// Why a kind is not taken, changed or dropped. The catalog is as it was.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// Another row has the name in paths.
    #[error(
        "the plural {plural:?} of group {group:?} belongs to the kind {by}: use another plural or group"
    )]
    PluralTaken {
        /// The API group.
        group: String,
        /// The plural.
        plural: String,
        /// The kind that has it.
        by: String,
    },
    /// Another row is of that kind.
    #[error("the kind {kind} of group {group:?} is served as {by:?}: use another kind or group")]
    KindTaken {
        /// The API group.
        group: String,
        /// The kind.
        kind: String,
        /// The plural under which it is served.
        by: String,
    },
    /// There is no such row.
    #[error("no resource {plural:?} of group {group:?} is served: nothing is to be done")]
    Unknown {
        /// The API group.
        group: String,
        /// The plural.
        plural: String,
    },
    /// The row is the program's own.
    #[error("{plural:?} of group {group:?} is served by the program itself, and stays as it is")]
    BuiltIn {
        /// The API group.
        group: String,
        /// The plural.
        plural: String,
    },
    /// It would be another kind.
    #[error(
        "{plural:?} of group {group:?} serves the kind {kind}, and goes on with no other: drop it first"
    )]
    OtherKind {
        /// The API group.
        group: String,
        /// The plural.
        plural: String,
        /// The kind that is served.
        kind: String,
    },
    /// There are too many.
    #[error("{MOST_TAKEN} kinds are served besides those of the program: drop one first")]
    Full,
}

/// What happened to a kind.
#[derive(Debug, Clone)]
pub enum Change {
    /// It is served from now on.
    Taken(Row),
    /// It is served by another row: the one before, and the one now.
    Replaced(Row, Row),
    /// It is not served any more.
    Dropped(Row),
}
