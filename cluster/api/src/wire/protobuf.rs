//! Kubernetes protobuf to JSON and back, driven by the schema tables.
//!
//! A body is `k8s\0` and a message Unknown that names the kind and holds the object's bytes.
//! Go writes every field that is not a pointer, set or not; such zeros are dropped on the way to
//! JSON, where a field marked `zero_is_absent` says so. Unknown fields are skipped, as by every
//! protobuf reader. Depth is bounded, and no length is believed before it is checked.

mod bytes;
mod read;
mod write;

use thiserror::Error;

pub(super) use read::{decode, open};
pub(super) use write::{encode, seal};

const MAGIC: &[u8; 4] = b"k8s\0";

/// The outer message around an object.
pub(super) struct Envelope<'a> {
    pub(super) api_version: &'a str,
    pub(super) kind: &'a str,
    pub(super) raw: &'a [u8],
}

/// Why bytes are not the message that they should be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum ProtobufError {
    #[error("the body does not begin with the four bytes of Kubernetes protobuf")]
    NoMagic,
    #[error("the object inside the envelope is encoded as {0:?}, which is not supported")]
    Encoded(String),
    #[error("proto: unexpected end of the message")]
    Truncated,
    #[error("proto: integer overflow")]
    Overflow,
    #[error("proto: illegal tag or wire type {0}")]
    Tag(u64),
    #[error("proto: wrong wire type {wire} for field {field}")]
    WireType { field: &'static str, wire: u8 },
    #[error("proto: field {0} is not UTF-8")]
    Text(&'static str),
    #[error("proto: field {0} holds no JSON: {1}")]
    Json(&'static str, String),
    #[error("proto: field {0} holds no time")]
    Time(&'static str),
    #[error("proto: messages nest too deep at field {0}")]
    Depth(&'static str),
    #[error("proto: too many values at field {0}")]
    Large(&'static str),
}

#[cfg(test)]
mod tests;
