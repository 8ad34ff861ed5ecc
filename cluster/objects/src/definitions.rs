//! Kinds that users define by a `CustomResourceDefinition`.
//!
//! ```text
//! names   what a definition may be called           (the member that holds the shard writes it: acceptedNames)
//!   └─> follow   each member serves what was accepted  (rows of the catalog)
//!         └─> settle   says Established where it is served
//!         └─> ending   empties what goes
//! ```
//!
//! A kind is served under the names that were accepted, so that all members serve the same. Nothing is created of a kind
//! whose definition goes: each creation is on condition that the definition is as its writer saw it.

mod desk;
mod ending;
mod follow;
mod names;
mod settle;

pub use follow::{Definitions, Followed};
pub use settle::Settler;
