//! Every answer that a Kubernetes server was seen to give for a kind that is served here, asked for
//! again over HTTPS: the whole way through the gateway, the registry and back.
//!
//! The rows are facts, not examples of ours. A test says all rows that differ at once, so that a rule
//! can be seen behind them.

#![allow(clippy::unwrap_used, clippy::expect_used)] // what is shared by tests fails as tests do

mod created;
mod kinds;
mod patched;
mod printed;
#[path = "../../../../cluster/api/tests/recorded/rows.rs"]
mod rows;
