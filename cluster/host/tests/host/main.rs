//! The crate's public face, in one binary: drivers against one conformance suite, and the rest.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc)]

mod ask;
mod conformance;
mod docker;
mod gpus;
mod hidden;
mod hollow;
mod isolation;
mod keeper;
mod network;
mod process;
mod sessions;
