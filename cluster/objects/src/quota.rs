//! Quotas of namespaces, counted exactly.
//!
//! ```text
//! book     the quotas of a namespace as they were read, what is charged to them, on which conditions
//! desk     creates of one namespace that wait for each other: many are one transaction
//! charge   what writes ask of the two
//! recount  what is used, counted anew when something goes
//! ```
//!
//! A write that needs room carries the quotas with what is used then, on condition that they are as they were read. So
//! nothing is written for which there is no room, and what is not written is charged to nobody. Where no quota is, a
//! write is on condition that there is none: the mark of the namespace ([`mark_of`]) is written whenever a quota comes or
//! asks for something else.

mod book;
mod charge;
mod desk;
mod recount;

pub(crate) use book::mark_of;
pub(crate) use desk::Desks;
