//! `CustomResourceDefinition`: what one must say, and what is known of its kind from then on.
//!
//! Not done, and refused by name: several served versions and conversion between versions, other names of lists than
//! `KindList`, and paths with `..` or slices in columns.

mod columns;
mod definition;
mod doors;
mod json_path;
mod naming;
mod served;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;

pub use columns::{Column, cells};
pub use definition::{Definition, Version, default, validate, validate_status, validate_update};
pub use doors::{Scale, Selectable};
pub use json_path::JsonPath;
pub use naming::Names;
pub use served::{FINALIZER, begin, hold, row};
