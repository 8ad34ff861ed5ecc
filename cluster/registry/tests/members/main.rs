//! Control members in one process, over the runtime's own transport: alone, in threes, stopped, wiped and damaged.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod alone;
mod copies;
mod group;
mod guard;
mod harness;
mod membership;
mod room;
mod slow;
mod starts;
mod three;
mod unsynced;
