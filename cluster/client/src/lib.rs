//! Programs against an Impresario cluster: the messages of its actors, its objects, and who
//! connects to it.
//!
//! [`Client`] is the front door for programs; [`objects`] is the engine that the REST gateway and the
//! control actors share with it; [`events`] tells people what actors did; [`protocol`] has the
//! messages that actors of the cast understand.

mod client;
mod join;

pub mod events;
pub mod objects;
pub mod protocol;
pub mod tokens;

pub use client::{
    Api, CONTROL_LABEL, Client, ClientError, ConnectError, Event, QUIC_ADDRESS, Select, reachable,
};
