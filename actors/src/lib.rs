//! The cast of Impresario: one module for each kind of actor, named as users name it.
//!
//! An actor holds no truth. It reads what it needs from the registry when it starts, then follows
//! a watch; messages only hint. What is to be done is decided by plain functions beside the
//! actors, which know neither registry nor clock.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod auction;
pub mod authority;
pub mod change;
pub mod controllers;
pub mod events;
pub mod follow;
pub mod node;
pub mod parameter_server;
pub mod pod;
pub mod requests;
pub mod scheduler;
pub mod service_network;
pub mod storage;
pub mod trainer;
pub mod training;
pub mod training_job;
pub mod usage;
pub mod withheld_ports;

#[cfg(test)]
pub(crate) mod testing;
