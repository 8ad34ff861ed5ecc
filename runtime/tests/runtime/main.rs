//! The runtime's public face, between two and three real nodes on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_docs_in_private_items)]

mod budgets;
mod bulk;
mod cast;
mod connections;
mod death;
mod faults;
mod joining;
mod messages;
mod security;
mod supervision;
mod usage;
mod work;
