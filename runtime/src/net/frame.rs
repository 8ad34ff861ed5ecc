//! What travels on a connection.
//!
//! ```text
//! lane:  length u32 | sequence u64 | Frame          (little endian; length counts what follows it)
//! bulk:  length u32 | Request  ->   <- length u32 | Response, once for a tell or an ask, many for a stream
//!        length u32 | Taken    ->   as the items of a stream are taken
//! ```
//!
//! A lane's sequence numbers rise over all connections between two lives of two nodes; a frame whose number is not above
//! the last is a double or was overtaken, and is dropped. A change here is a new wire version (`ALPN_NODE`), which the
//! golden test notices.

use crate::{
    codec::{self, EncodeError},
    door::Failure,
    name::{ActorName, NAME_BYTES},
    stream::StreamError,
    trace::Trace,
    watch::Reason,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Length and sequence number.
pub(crate) const LANE_HEAD_BYTES: usize = 12;
/// The length alone.
pub(crate) const BULK_HEAD_BYTES: usize = 4;
/// The largest frame on a lane; what is larger goes on a stream of its own and delays nobody.
pub(crate) const LANE_FRAME_LIMIT_BYTES: usize = 256 << 10;
/// Room for what a frame adds to a body.
pub(crate) const ENVELOPE_BYTES: usize = 1024;
/// The largest request or response on a bulk stream.
pub(crate) const BULK_FRAME_LIMIT_BYTES: usize = codec::MESSAGE_LIMIT_BYTES;

/// A message's way and body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Envelope<B = Bytes> {
    pub(crate) to: ActorName,
    pub(crate) tag: u64,
    pub(crate) trace: Option<Trace>,
    pub(crate) body: B,
}

impl<B> Envelope<B> {
    fn with<C>(self, body: impl FnOnce(B) -> C) -> Envelope<C> {
        Envelope { to: self.to, tag: self.tag, trace: self.trace, body: body(self.body) }
    }
}

/// One frame of a lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Frame {
    Tell(Envelope),
    Ask {
        id: u64,
        deadline_ms: u32,
        envelope: Envelope,
    },
    Answer {
        id: u64,
        outcome: Result<Bytes, Failure>,
    },
    Heartbeat,
    /// `life` is that which was confirmed, when the watch is said again on a new connection.
    Watch {
        id: u64,
        actor: ActorName,
        life: Option<u64>,
    },
    /// The watch is not wanted any more, or its answer has been heard.
    Unwatch {
        id: u64,
    },
    /// Said again until it has been heard.
    Terminated {
        id: u64,
        reason: Reason,
    },
    /// The watch stands, on this life of the actor.
    Watching {
        id: u64,
        life: u64,
    },
    /// The watch does not stand; the actor may live.
    NotWatched {
        id: u64,
        failure: Failure,
    },
    /// The actor's mailbox is full: hold its tells back.
    Full {
        actor: ActorName,
    },
    /// It has room again.
    Room {
        actor: ActorName,
    },
    /// So many tells of this message were not delivered, the last of them for this reason.
    Lost {
        to: ActorName,
        message: String,
        count: u64,
        failure: Failure,
    },
}

/// The first frame of a bulk stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request<B = Bytes> {
    Tell(Envelope<B>),
    Ask {
        deadline_ms: u32,
        envelope: Envelope<B>,
    },
    Open {
        deadline_ms: u32,
        envelope: Envelope<B>,
    },
    /// The answer to an ask that came on a lane, too large to go back on it.
    Answer {
        id: u64,
        reply: B,
    },
}

/// Whom a message is for, and which it is: what an [`Envelope`] begins with.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Addressed {
    pub(crate) to: ActorName,
    pub(crate) tag: u64,
}

/// What a [`Request`] begins with: enough to see whether it is wanted before the rest is read.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Beginning {
    Tell(Addressed),
    Ask { deadline_ms: u32, message: Addressed },
    Open { deadline_ms: u32, message: Addressed },
    Answer { id: u64 },
}

/// The longest [`Beginning`]: two numbers, a name and a tag.
pub(crate) const BEGINNING_BYTES: usize = NAME_BYTES + 32;

impl Request {
    /// Reads a request. A large body is a part of the frame and no copy of it.
    pub(crate) fn read(frame: &Bytes) -> Result<Self, codec::DecodeError> {
        let body = |part: &[u8]| part_of(frame, part);
        Ok(match codec::decode_borrowed::<Request<&[u8]>>(frame)? {
            Request::Tell(envelope) => Self::Tell(envelope.with(body)),
            Request::Ask { deadline_ms, envelope } => {
                Self::Ask { deadline_ms, envelope: envelope.with(body) }
            }
            Request::Open { deadline_ms, envelope } => {
                Self::Open { deadline_ms, envelope: envelope.with(body) }
            }
            Request::Answer { id, reply } => Self::Answer { id, reply: body(reply) },
        })
    }
}

/// A part of a frame: shared when it is most of it, and else copied, so that little does not keep much in memory.
fn part_of(frame: &Bytes, part: &[u8]) -> Bytes {
    const WORTH_SHARING: usize = 16 << 10;
    if part.len() >= WORTH_SHARING && part.len() * 2 >= frame.len() {
        frame.slice_ref(part)
    } else {
        Bytes::copy_from_slice(part)
    }
}

/// What the asker of a stream of items says after its request: how much more of them has been taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Taken {
    /// By the count of `bulk::flow`.
    pub(crate) bytes: u32,
}

/// The frames that come back on a bulk stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Response<B = Bytes> {
    Reply(Result<B, Failure>),
    Item(B),
    /// The stream's end; what ended it, if not the sender's will.
    End(Option<Ending>),
}

impl Response {
    /// Reads a response, as [`Request::read`] does.
    pub(crate) fn read(frame: &Bytes) -> Result<Self, codec::DecodeError> {
        Ok(match codec::decode_borrowed::<Response<&[u8]>>(frame)? {
            Response::Reply(outcome) => Self::Reply(outcome.map(|reply| part_of(frame, reply))),
            Response::Item(item) => Self::Item(part_of(frame, item)),
            Response::End(ending) => Self::End(ending),
        })
    }
}

/// A stream error as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ending {
    Refused { reason: String },
    Lost { detail: String },
    Decode { detail: String },
}

impl From<StreamError> for Ending {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Refused { reason } => Self::Refused { reason },
            StreamError::Lost { detail } => Self::Lost { detail },
            StreamError::Decode { detail } => Self::Decode { detail },
        }
    }
}

impl From<Ending> for StreamError {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Refused { reason } => Self::Refused { reason },
            Ending::Lost { detail } => Self::Lost { detail },
            Ending::Decode { detail } => Self::Decode { detail },
        }
    }
}

/// The first words of the node that dialled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) incarnation: u64,
    /// The newest connection between the two that it knows of.
    pub(crate) generation: u64,
}

/// The answer to a [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Greeting {
    Welcome {
        incarnation: u64,
        generation: u64,
    },
    /// Another connection between the two stands or is about to: use that one.
    Busy,
    /// A newer life of the node that dialled is known.
    Superseded,
}

/// A lane frame's bytes, with its head still to be filled by [`seal`].
pub(crate) fn lane_frame(frame: &Frame) -> Result<Vec<u8>, EncodeError> {
    let bytes = codec::encode_behind(frame, LANE_HEAD_BYTES)?;
    let size = bytes.len() - LANE_HEAD_BYTES;
    if size > LANE_FRAME_LIMIT_BYTES + ENVELOPE_BYTES {
        return Err(EncodeError::TooLarge { size, limit: LANE_FRAME_LIMIT_BYTES + ENVELOPE_BYTES });
    }
    Ok(bytes)
}

/// Fills in the head of a lane frame.
pub(crate) fn seal(bytes: &mut [u8], sequence: u64) {
    let length = (bytes.len() - BULK_HEAD_BYTES) as u32;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes[4..LANE_HEAD_BYTES].copy_from_slice(&sequence.to_le_bytes());
}

/// The sequence number and the frame of what a lane's reader cut out.
pub(crate) fn open_lane_frame(bytes: &[u8]) -> Result<(u64, Frame), codec::DecodeError> {
    let (sequence, frame) = bytes.split_first_chunk::<8>().ok_or_else(|| {
        codec::DecodeError::Malformed { detail: "a frame without sequence number".to_owned() }
    })?;
    Ok((u64::from_le_bytes(*sequence), codec::decode(frame)?))
}

/// A value's bytes behind their length, as bulk streams and handshakes carry them.
pub(crate) fn prefixed<T: Serialize>(value: &T) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = codec::encode_behind(value, BULK_HEAD_BYTES)?;
    let length = (bytes.len() - BULK_HEAD_BYTES) as u32;
    bytes[..BULK_HEAD_BYTES].copy_from_slice(&length.to_le_bytes());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fmt::Write;

    const NAMES: &str = "[^\\p{Cc}]{0,20}";

    fn envelope() -> impl Strategy<Value = Envelope> {
        let trace = any::<Option<(u128, u64)>>()
            .prop_map(|ids| ids.map(|(trace, span)| Trace { trace, span }));
        (NAMES, any::<u64>(), trace, prop::collection::vec(any::<u8>(), 0..64)).prop_map(
            |(to, tag, trace, body)| Envelope { to: to.into(), tag, trace, body: body.into() },
        )
    }

    fn failure() -> impl Strategy<Value = Failure> {
        prop_oneof![
            Just(Failure::NoSuchActor),
            Just(Failure::Overloaded),
            ".{0,20}".prop_map(|reason| Failure::Refused { reason }),
            Just(Failure::UnknownMessage),
            ".{0,20}".prop_map(|detail| Failure::Decode { detail }),
            Just(Failure::Stopped),
            Just(Failure::Deadline),
            any::<u64>().prop_map(|bytes| Failure::Unsent { bytes }),
        ]
    }

    fn outcome() -> impl Strategy<Value = Result<Bytes, Failure>> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..64).prop_map(|bytes| Ok(bytes.into())),
            failure().prop_map(Err)
        ]
    }

    fn frame() -> impl Strategy<Value = Frame> {
        let reason = prop::sample::select(vec![
            Reason::Stopped,
            Reason::Failed,
            Reason::NodeLost,
            Reason::NoSuchActor,
        ]);
        prop_oneof![
            envelope().prop_map(Frame::Tell),
            (any::<u64>(), any::<u32>(), envelope())
                .prop_map(|(id, deadline_ms, envelope)| Frame::Ask { id, deadline_ms, envelope }),
            (any::<u64>(), outcome()).prop_map(|(id, outcome)| Frame::Answer { id, outcome }),
            Just(Frame::Heartbeat),
            (any::<u64>(), NAMES, any::<Option<u64>>())
                .prop_map(|(id, actor, life)| Frame::Watch { id, actor: actor.into(), life }),
            any::<u64>().prop_map(|id| Frame::Unwatch { id }),
            (any::<u64>(), reason).prop_map(|(id, reason)| Frame::Terminated { id, reason }),
            (any::<u64>(), any::<u64>()).prop_map(|(id, life)| Frame::Watching { id, life }),
            (any::<u64>(), failure()).prop_map(|(id, failure)| Frame::NotWatched { id, failure }),
            NAMES.prop_map(|actor| Frame::Full { actor: actor.into() }),
            NAMES.prop_map(|actor| Frame::Room { actor: actor.into() }),
            (NAMES, ".{0,20}", any::<u64>(), failure()).prop_map(
                |(to, message, count, failure)| {
                    Frame::Lost { to: to.into(), message, count, failure }
                }
            ),
        ]
    }

    fn response() -> impl Strategy<Value = Response> {
        let ending = prop_oneof![
            ".{0,9}".prop_map(|reason| Ending::Refused { reason }),
            ".{0,9}".prop_map(|detail| Ending::Lost { detail }),
            ".{0,9}".prop_map(|detail| Ending::Decode { detail }),
        ];
        prop_oneof![
            outcome().prop_map(Response::Reply),
            prop::collection::vec(any::<u8>(), 0..64)
                .prop_map(|bytes| Response::Item(bytes.into())),
            prop::option::of(ending).prop_map(Response::End),
        ]
    }

    fn request() -> impl Strategy<Value = Request> {
        prop_oneof![
            envelope().prop_map(Request::Tell),
            (any::<u32>(), envelope())
                .prop_map(|(deadline_ms, envelope)| Request::Ask { deadline_ms, envelope }),
            (any::<u32>(), envelope())
                .prop_map(|(deadline_ms, envelope)| Request::Open { deadline_ms, envelope }),
            (any::<u64>(), prop::collection::vec(any::<u8>(), 0..64))
                .prop_map(|(id, reply)| Request::Answer { id, reply: reply.into() }),
        ]
    }

    proptest! {
        #[test]
        fn a_lane_frame_comes_out_as_it_went_in(sequence in any::<u64>(), frame in frame()) {
            let mut bytes = lane_frame(&frame).unwrap();
            seal(&mut bytes, sequence);
            let length = u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
            prop_assert_eq!(length, bytes.len() - 4);
            prop_assert_eq!(open_lane_frame(&bytes[4..]).unwrap(), (sequence, frame));
        }

        #[test]
        fn bulk_frames_come_out_as_they_went_in(request in request(), response in response()) {
            let bytes = prefixed(&request).unwrap();
            let frame = Bytes::from(bytes).slice(4..);
            let start = &frame[..frame.len().min(BEGINNING_BYTES)];
            match (codec::decode_beginning::<Beginning>(start).unwrap(), &request) {
                (Beginning::Tell(message), Request::Tell(envelope))
                | (Beginning::Ask { message, .. }, Request::Ask { envelope, .. })
                | (Beginning::Open { message, .. }, Request::Open { envelope, .. }) => {
                    prop_assert_eq!((&message.to, message.tag), (&envelope.to, envelope.tag));
                }
                (Beginning::Answer { id }, Request::Answer { id: whose, .. }) => prop_assert_eq!(id, *whose),
                other => prop_assert!(false, "{other:?}"),
            }
            prop_assert_eq!(Request::read(&frame).unwrap(), request);
            let bytes = prefixed(&response).unwrap();
            prop_assert_eq!(Response::read(&Bytes::from(bytes).slice(4..)).unwrap(), response);
        }

        #[test]
        fn arbitrary_bytes_are_a_frame_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = open_lane_frame(&bytes);
            let frame = Bytes::copy_from_slice(&bytes);
            let _ = Request::read(&frame);
            let _ = Response::read(&frame);
            let _ = codec::decode_beginning::<Beginning>(&bytes);
            let _ = codec::decode::<Taken>(&bytes);
            let _ = codec::decode::<Hello>(&bytes);
            let _ = codec::decode::<Greeting>(&bytes);
        }
    }

    fn hex(value: &impl Serialize) -> String {
        codec::encode(value).unwrap().iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
    }

    #[test]
    fn the_wire_format_is_the_one_that_other_builds_speak() {
        let envelope = Envelope {
            to: "node".into(),
            tag: 300,
            trace: Some(Trace { trace: 1, span: 2 }),
            body: Bytes::from_static(b"xy"),
        };
        let golden = [
            (hex(&Frame::Tell(envelope.clone())), "00046e6f6465fb2c01010102027879"),
            (
                hex(&Frame::Ask { id: 7, deadline_ms: 9, envelope: envelope.clone() }),
                "010709046e6f6465fb2c01010102027879",
            ),
            (hex(&Frame::Answer { id: 7, outcome: Ok(Bytes::from_static(b"z")) }), "020700017a"),
            (hex(&Frame::Answer { id: 7, outcome: Err(Failure::Deadline) }), "02070106"),
            (hex(&Frame::Heartbeat), "03"),
            (
                hex(&Frame::Answer { id: 7, outcome: Err(Failure::Unsent { bytes: 9 }) }),
                "0207010709",
            ),
            (hex(&Frame::Watch { id: 7, actor: "a".into(), life: None }), "0407016100"),
            (hex(&Frame::Watch { id: 7, actor: "a".into(), life: Some(9) }), "040701610109"),
            (hex(&Frame::Unwatch { id: 7 }), "0507"),
            (hex(&Frame::Terminated { id: 7, reason: Reason::NoSuchActor }), "060703"),
            (hex(&Frame::Watching { id: 7, life: 9 }), "070709"),
            (hex(&Frame::NotWatched { id: 7, failure: Failure::Overloaded }), "080701"),
            (hex(&Frame::Full { actor: "a".into() }), "090161"),
            (hex(&Frame::Room { actor: "a".into() }), "0a0161"),
            (
                hex(&Frame::Lost {
                    to: "a".into(),
                    message: "m".into(),
                    count: 2,
                    failure: Failure::Stopped,
                }),
                "0b0161016d0205",
            ),
            (hex(&Taken { bytes: 300 }), "fb2c01"),
            (hex(&Request::Tell(envelope.clone())), "00046e6f6465fb2c01010102027879"),
            (
                hex(&Request::Ask { deadline_ms: 9, envelope: envelope.clone() }),
                "0109046e6f6465fb2c01010102027879",
            ),
            (hex(&Request::Open { deadline_ms: 9, envelope }), "0209046e6f6465fb2c01010102027879"),
            (hex(&Request::Answer { id: 7, reply: Bytes::from_static(b"z") }), "0307017a"),
            (
                hex(&Response::<Bytes>::Reply(Err(Failure::Refused { reason: "no".into() }))),
                "000102026e6f",
            ),
            (hex(&Response::Item(Bytes::from_static(b"z"))), "01017a"),
            (hex(&Response::<Bytes>::End(Some(Ending::Lost { detail: "d".into() }))), "0201010164"),
            (hex(&Hello { incarnation: 5, generation: 6 }), "0506"),
            (hex(&Greeting::Welcome { incarnation: 5, generation: 6 }), "000506"),
            (hex(&Greeting::Busy), "01"),
            (hex(&Greeting::Superseded), "02"),
        ];
        for (index, (bytes, expected)) in golden.iter().enumerate() {
            assert_eq!(bytes, expected, "in row {index}");
        }
    }
}
