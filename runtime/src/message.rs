//! What can be sent: a message is a type with a reply, a name and a lane.
//!
//! The wire tag is a hash of the name. Names, not type paths, are the contract between two builds: a type may move,
//! its name may not change. Two names with one tag are refused when the second is first served.

use serde::{Serialize, de::DeserializeOwned};

/// Which of a connection's ordered lanes a message takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Heartbeats, leases, votes: small, and never behind anything else.
    Control,
    /// Everything that is neither urgent nor large.
    Work,
    /// A stream of its own: snapshots, gradients. Unordered among themselves.
    Bulk,
}

/// A message that may cross nodes. Implemented by [`message!`](crate::message!).
pub trait Message:
    actix::Message<Result = <Self as Message>::Reply> + Serialize + DeserializeOwned + Send + 'static
{
    /// What `ask` brings back.
    type Reply: Serialize + DeserializeOwned + Send + 'static;
    /// The name on the wire: `role.Verb`.
    const NAME: &'static str;
    /// The lane that it takes between nodes.
    const LANE: Lane = Lane::Work;
    /// The most bytes that it may have between nodes: a larger one is refused by its sender, and by its receiver before
    /// memory is taken for it.
    const MAX_BYTES: usize = MESSAGE_BYTES;
}

/// A request that is answered by many items. Implemented by [`stream_message!`](crate::stream_message!).
pub trait StreamMessage: Serialize + DeserializeOwned + Send + 'static {
    /// One element of the answer.
    type Item: Serialize + DeserializeOwned + Send + 'static;
    /// The name on the wire: `role.Noun`.
    const NAME: &'static str;
    /// The most bytes that the request may have between nodes.
    const MAX_BYTES: usize = MESSAGE_BYTES;
}

/// The most bytes that a message may have between nodes unless its type says otherwise.
pub const MESSAGE_BYTES: usize = 256 << 10;

/// The wire tag of a message's name (64-bit FNV-1a).
pub const fn tag_of(name: &str) -> u64 {
    let bytes = name.as_bytes();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut at = 0;
    while at < bytes.len() {
        hash ^= bytes[at] as u64;
        hash = hash.wrapping_mul(0x0000_0100_0000_01b3);
        at += 1;
    }
    hash
}

/// Makes a type a [`Message`]: `message!(Reserve => Result<Reserved, Refused>, "node.Reserve")`, with a lane as an
/// optional third part, and the most bytes that it may have as a fourth.
#[macro_export]
macro_rules! message {
    ($type:ty => $reply:ty, $name:expr $(,)?) => {
        $crate::message!($type => $reply, $name, $crate::Lane::Work);
    };
    ($type:ty => $reply:ty, $name:expr, $lane:expr $(,)?) => {
        $crate::message!($type => $reply, $name, $lane, $crate::MESSAGE_BYTES);
    };
    ($type:ty => $reply:ty, $name:expr, $lane:expr, $bytes:expr $(,)?) => {
        impl $crate::macros::actix::Message for $type {
            type Result = $reply;
        }
        impl $crate::Message for $type {
            type Reply = $reply;
            const NAME: &'static str = $name;
            const LANE: $crate::Lane = $lane;
            const MAX_BYTES: usize = $bytes;
        }
    };
}

/// Makes a type a [`StreamMessage`]: `stream_message!(Logs => LogChunk, "pod.Logs")`.
#[macro_export]
macro_rules! stream_message {
    ($type:ty => $item:ty, $name:expr $(,)?) => {
        impl $crate::StreamMessage for $type {
            type Item = $item;
            const NAME: &'static str = $name;
        }
    };
}

#[cfg(test)]
mod tests {
    use super::tag_of;

    #[test]
    fn the_tag_of_a_name_never_changes() {
        assert_eq!(tag_of(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(tag_of("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(tag_of("foobar"), 0x8594_4171_f739_67e8);
    }
}
