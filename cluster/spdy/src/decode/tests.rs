//! That frames come through as they were, and that nothing that comes is more than a refusal.

use super::*;
use crate::encode::{Encoder, data_head};
use proptest::collection::vec;
use proptest::prelude::*;

/// A frame of either sort, with nothing borrowed.
#[derive(Clone, Debug, PartialEq)]
enum Frame {
    Control(Control),
    Data { id: u32, bytes: Vec<u8>, fin: bool },
}

fn headers() -> impl Strategy<Value = Headers> {
    let value = prop_oneof!["[a-z0-9]{0,20}", "[^\0]{0,20}"];
    vec(("[!-@\\[-~]{1,12}", value), 0..8).prop_map(|pairs| {
        // What cannot be said, as a second value that is empty, is left out.
        pairs.into_iter().fold(Headers::new(), |headers, (name, value)| {
            headers.clone().with(&name, &value).unwrap_or(headers)
        })
    })
}

fn frame() -> impl Strategy<Value = Frame> {
    let id = || 1..=STREAM_BITS;
    let setting = (0..=0x00ff_ffff_u32, any::<u32>()).prop_map(|(id, value)| Setting { id, value });
    let syn = (id(), any::<bool>(), any::<bool>(), headers()).prop_map(
        |(id, fin, unidirectional, headers)| Control::SynStream {
            id,
            fin,
            unidirectional,
            headers,
        },
    );
    let control = prop_oneof![
        syn,
        (id(), any::<bool>(), headers()).prop_map(|(id, fin, headers)| Control::SynReply {
            id,
            fin,
            headers
        }),
        (id(), any::<bool>(), headers()).prop_map(|(id, fin, headers)| Control::Headers {
            id,
            fin,
            headers
        }),
        (id(), any::<u32>())
            .prop_map(|(id, code)| Control::Reset { id, status: ResetStatus::of_code(code) }),
        (id(), 0..20_u32)
            .prop_map(|(id, code)| Control::Reset { id, status: ResetStatus::of_code(code) }),
        vec(setting, 0..5).prop_map(Control::Settings),
        any::<u32>().prop_map(|id| Control::Ping { id }),
        (0..=STREAM_BITS, any::<u32>())
            .prop_map(|(last, code)| Control::GoAway { last, status: GoAwayStatus::of_code(code) }),
        (0..=STREAM_BITS, 0..=STREAM_BITS)
            .prop_map(|(id, delta)| Control::WindowUpdate { id, delta }),
    ];
    prop_oneof![
        3 => control.prop_map(Frame::Control),
        1 => (id(), vec(any::<u8>(), 0..300), any::<bool>())
            .prop_map(|(id, bytes, fin)| Frame::Data { id, bytes, fin }),
    ]
}

fn encoded(frames: &[Frame]) -> Vec<u8> {
    let (mut encoder, mut bytes) = (Encoder::new(), Vec::new());
    for frame in frames {
        match frame {
            Frame::Control(control) => encoder.control(control, &mut bytes).unwrap(),
            Frame::Data { id, bytes: data, fin } => {
                data_head(*id, *fin, data.len(), &mut bytes);
                bytes.extend_from_slice(data);
            }
        }
    }
    bytes
}

/// What a decoder makes of these pieces; the pieces of a data frame are put together again, and frames of unknown
/// kinds left out.
fn decoded(decoder: &mut Decoder, pieces: &[&[u8]]) -> Result<Vec<Frame>, Violation> {
    let mut frames = Vec::new();
    let mut goes_on = false;
    for piece in pieces {
        let mut input = *piece;
        while let Some(received) = decoder.next(&mut input)? {
            match received {
                Received::Control(control) => frames.push(Frame::Control(control)),
                Received::Data { id, piece, fin } => {
                    match frames.last_mut() {
                        Some(Frame::Data { bytes, fin: last, .. }) if goes_on => {
                            bytes.extend_from_slice(piece);
                            *last = fin;
                        }
                        _ => frames.push(Frame::Data { id, bytes: piece.to_vec(), fin }),
                    }
                    goes_on = !decoder.is_between_frames();
                }
                Received::Unknown => {}
            }
        }
        assert!(input.is_empty(), "all is taken that is there");
    }
    Ok(frames)
}

/// The bytes in pieces, cut at these places.
fn pieces<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let mut rest = bytes;
    for cut in cuts {
        let (piece, behind) = rest.split_at(*cut % (rest.len() + 1));
        pieces.push(piece);
        rest = behind;
    }
    pieces.push(rest);
    pieces
}

/// What a decoder with these limits may have room for: a control frame and its head, doubled as vectors grow.
fn most(limits: &Limits) -> usize {
    2 * (limits.control_frame_bytes + HEAD_BYTES)
}

proptest! {
    #[test]
    fn frames_come_through_as_they_were_however_they_are_cut(
        frames in vec(frame(), 0..12),
        cuts in vec(0..400_usize, 0..30),
    ) {
        let bytes = encoded(&frames);
        let mut decoder = Decoder::new(Limits::default());
        let again = decoded(&mut decoder, &pieces(&bytes, &cuts));
        prop_assert_eq!(again, Ok(frames));
        prop_assert!(decoder.is_between_frames());
    }

    #[test]
    fn no_bytes_are_more_than_a_refusal(
        bytes in vec(any::<u8>(), 0..2000),
        cuts in vec(0..400_usize, 0..10),
    ) {
        let limits = Limits { control_frame_bytes: 500, ..Limits::default() };
        let mut decoder = Decoder::new(limits);
        let _ = decoded(&mut decoder, &pieces(&bytes, &cuts));
        prop_assert!(decoder.held_bytes() <= most(&limits), "{}", decoder.held_bytes());
    }

    /// Closer to what is spoken than chance would come: what is well-formed, and a few bytes of it changed.
    #[test]
    fn frames_with_bytes_changed_are_no_more_than_a_refusal(
        frames in vec(frame(), 1..8),
        changes in vec((any::<usize>(), any::<u8>()), 1..6),
        cuts in vec(0..400_usize, 0..10),
    ) {
        let mut bytes = encoded(&frames);
        for (at, byte) in changes {
            let length = bytes.len();
            bytes[at % length] = byte;
        }
        let limits = Limits { control_frame_bytes: 500, header_bytes: 300, ..Limits::default() };
        let mut decoder = Decoder::new(limits);
        let _ = decoded(&mut decoder, &pieces(&bytes, &cuts));
        prop_assert!(decoder.held_bytes() <= most(&limits), "{}", decoder.held_bytes());
    }
}

#[test]
fn each_violation_of_a_frame_is_told_by_name() {
    let syn = |id: u8| [0x80, 3, 0, 1, 0, 0, 0, 10, 0, 0, 0, id, 0, 0, 0, 0, 0, 0];
    for (bytes, violation) in [
        (&[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1][..], Violation::Version { found: 2 }),
        (
            &[0x80, 3, 0, 1, 0, 0, 0x40, 1],
            Violation::ControlTooLong { length: 16_385, limit: 16_384 },
        ),
        (&[0, 0, 0, 0, 0, 0, 0, 1], Violation::ZeroStream { kind: "DATA" }),
        (&syn(0), Violation::ZeroStream { kind: "SYN_STREAM" }),
        (&[0x80, 3, 0, 1, 0, 0, 0, 1, 0], Violation::Length { kind: "SYN_STREAM", length: 1 }),
        (&[0x80, 3, 0, 6, 0, 0, 0, 3, 0, 0, 1], Violation::Length { kind: "PING", length: 3 }),
        (
            &[0x80, 3, 0, 3, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 1, 0],
            Violation::Length { kind: "RST_STREAM", length: 9 },
        ),
        (
            &[0x80, 3, 0, 4, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff],
            Violation::Length { kind: "SETTINGS", length: 4 },
        ),
        (&syn(1), Violation::Headers("they end early")),
    ] {
        let outcome = decoded(&mut Decoder::new(Limits::default()), &[bytes]);
        assert_eq!(outcome, Err(violation), "{bytes:x?}");
    }
}

#[test]
fn a_control_frame_of_an_unknown_kind_is_passed_over() {
    let mut bytes = vec![0x80, 3, 0, 10, 7, 0, 0, 3, 1, 2, 3];
    bytes.extend(encoded(&[Frame::Control(Control::Ping { id: 9 })]));
    let frames = decoded(&mut Decoder::new(Limits::default()), &[&bytes]);
    assert_eq!(frames, Ok(vec![Frame::Control(Control::Ping { id: 9 })]));
}

#[test]
fn a_data_frame_of_16_mib_holds_nothing() {
    let mut decoder = Decoder::new(Limits::default());
    let mut head = Vec::new();
    data_head(1, true, frame::MOST_LENGTH, &mut head);
    assert_eq!(decoder.next(&mut &head[..]), Ok(None));
    let piece = vec![7; 1 << 16];
    let mut left = frame::MOST_LENGTH;
    while left > 0 {
        let mut input = &piece[..left.min(piece.len())];
        left -= input.len();
        let received = decoder.next(&mut input).unwrap();
        let Some(Received::Data { id: 1, fin, .. }) = received else { panic!("{received:?}") };
        assert_eq!(fin, left == 0, "the end stands on the last piece alone");
        assert!(decoder.held_bytes() < 100, "{}", decoder.held_bytes());
    }
}
