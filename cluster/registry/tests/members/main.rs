//! Control members in one process, over the runtime's own transport: alone, in threes, stopped, wiped and damaged.

mod alone;
mod group;
mod harness;
