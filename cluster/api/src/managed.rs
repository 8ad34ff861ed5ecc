//! Who owns which fields of an object: server-side apply, and the entries of `metadata.managedFields`.
//!
//! [`Fields`] is a set of paths as `FieldsV1` writes it. [`created`] and [`updated`] note what a writer owns of what it
//! wrote, [`apply`] merges what a manager wants into an object and finds conflicts, [`tell`] writes the entries out for
//! clients. All of it is a plain function of the object, what is written and the schema of the kind.
//!
//! Entries are kept shorter than they are told (`docs/decisions/0015-managed-fields.md`): what a client reads passes
//! through [`tell`].

mod apply;
mod compare;
mod entries;
mod fields;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod laws;
mod merge;
mod owned;
mod step;
mod tell;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
mod typed;
mod update;

pub use apply::{Applied, ApplyError, Conflict, apply};
pub use entries::{EntriesError, LONGEST_MANAGER, Manager, Operation, kept};
pub use fields::{Fields, FieldsError};
pub use step::{Step, StepError};
pub use tell::{may_have_entries, tell, told_of, told_of_bytes};
pub use update::{MOST_UPDATERS, Writer, created, took, updated, updated_through};
