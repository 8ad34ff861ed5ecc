//! What the actors of the cast can be asked: one module per role, message types only.
//!
//! A program that links this crate can address every actor without linking the actors. Each
//! message crosses nodes in a binary format that does not describe itself, so a field is never
//! skipped, flattened or guessed, and a change to a type here is a change to the wire.

pub mod actors;
pub mod authority;
pub mod control;
pub mod node;
pub mod pod;
pub mod resources;
pub mod scheduler;
pub mod session;
pub mod traffic;
pub mod training;
pub mod usage;
