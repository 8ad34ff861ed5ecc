//! What Impresario's API is: resources, schemas, wire formats, patches, rules and printing.
//!
//! Everything here is a plain function of its inputs: no IO, no clock, no actors. The gateway,
//! the client library and the actors all read the same tables.

pub mod patch;
pub mod schema;
pub mod wire;
