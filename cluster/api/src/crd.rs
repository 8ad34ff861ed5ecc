//! `CustomResourceDefinition`: what one must say, and what is known of its kind from then on.
//!
//! Not done, and refused by name: conversion by webhook (all versions of a kind have the same
//! fields, as `None` says), and paths with `..` or slices in columns.

mod columns;
mod definition;
mod doors;
mod json_path;
mod naming;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;

pub use columns::{Column, cells, definitions};
pub use definition::{Definition, Version, default, validate, validate_update};
pub use doors::{Scale, Selectable};
pub use json_path::JsonPath;
pub use naming::Names;
