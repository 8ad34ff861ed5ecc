//! What every controller has in common, so that a controller is a type with three things: its kind, what it
//! looks at, and one function that decides. Nothing here names a kind.
//!
//! ```text
//! controller   what a controller says of itself        view      what it is shown
//! effects      what it wants done                       looks_at  what else it is shown, and what wakes it
//! worker       looks, decides, has it done              apply     does it, under the shard's fence
//! selectors    whom a change of labels concerns         mirrors   one mirror a kind, for all controllers
//! beside       what is looked at that is nobody's own   other     a kind that is looked at, by which words
//! contents     all that is in a namespace               applied  how that went
//! told         what its own say of themselves          begin    creates with the status in one
//! ```
//!
//! docs/decisions/0008-controllers-frame.md says why.

mod applied;
pub mod apply;
mod begin;
pub mod beside;
pub mod conditions;
pub mod contents;
pub mod controller;
pub mod effects;
mod everywhere;
pub mod kind_name;
pub mod looks_at;
pub mod mirrors;
pub mod other;
pub mod selectors;
pub mod shared;
pub mod sources;
mod told;
pub mod view;
pub mod worker;

#[cfg(test)]
mod tests;
