//! Programs against an Impresario cluster: the messages of its actors, its objects, and who
//! connects to it.
//!
//! [`Client`] is the front door for programs; [`events`] tells people what actors did; [`protocol`] has the
//! messages that actors of the cast understand.

mod client;
mod join;

pub mod events;
pub mod protocol;
pub mod tokens;

pub use impresario_objects as objects;

pub use client::{Api, Client, ClientError, ConnectError, Event, QUIC_ADDRESS, Select, reachable};
