//! Programs against an Impresario cluster: the messages of its actors, its objects, and who
//! connects to it.
//!
//! [`Client`] is the front door for programs; [`objects`] reads and writes through control members; [`protocol`]
//! has the messages that actors of the cast understand. No rule is decided here.

mod address;
mod asked;
mod client;
mod join;
mod keeper;

pub mod objects;
pub mod protocol;
pub mod tokens;

pub use address::{QUIC_ADDRESS, reachable};
pub use asked::{AskedError, actor_of};
pub use client::{Api, Client, ClientError, ConnectError, Event, Select};
