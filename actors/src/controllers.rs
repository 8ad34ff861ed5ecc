//! The control actors: one per object that asks for something, on the member that holds its shard.
//!
//! Each controller is a plain `reconcile` of what was seen and the time.

#[cfg(test)]
mod table;

pub mod endpoints;
pub mod indexes;
pub mod job;
pub mod pod_view;
pub mod replication_controller;
