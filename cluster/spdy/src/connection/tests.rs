//! What a session does about each frame, and that it keeps to its limits whatever comes.

use super::*;
use crate::encode::data_head;
use crate::error::{OpenError, StreamError, Violation};
use crate::frame::{MAX_CONCURRENT_STREAMS, Received, Setting};
use crate::headers::Headers;
use std::task::Poll;
use tokio::io::ReadBuf;

mod laws;

/// The other end of a session, frame by frame.
struct Peer {
    encoder: Encoder,
    decoder: Decoder,
}

impl Peer {
    fn new() -> Self {
        Self { encoder: Encoder::new(), decoder: Decoder::new(Limits::default()) }
    }

    fn control(&mut self, connection: &mut Connection, control: Control) {
        let mut bytes = Vec::new();
        self.encoder.control(&control, &mut bytes).unwrap();
        receive_all(connection, &bytes);
    }

    fn open(&mut self, connection: &mut Connection, id: u32) {
        let headers = Headers::new().with("streamtype", "data").unwrap();
        let control = Control::SynStream { id, fin: false, unidirectional: false, headers };
        self.control(connection, control);
    }

    /// What the session says, in words.
    fn hears(&mut self, connection: &mut Connection) -> Vec<String> {
        let mut bytes = Vec::new();
        connection.fill(&mut bytes);
        let mut input = &bytes[..];
        let mut said = Vec::new();
        while let Some(received) = self.decoder.next(&mut input).unwrap() {
            said.push(match received {
                Received::Control(Control::SynStream { id, .. }) => format!("open {id}"),
                Received::Control(Control::SynReply { id, .. }) => format!("reply {id}"),
                Received::Control(Control::Reset { id, status }) => format!("reset {id} {status}"),
                Received::Control(Control::Ping { id }) => format!("ping {id}"),
                Received::Control(Control::GoAway { last, status }) => {
                    format!("goaway {last} {}", status.code())
                }
                Received::Data { id, piece, fin } => {
                    format!("data {id} {}{}", piece.len(), if fin { " fin" } else { "" })
                }
                other => format!("{other:?}"),
            });
        }
        said
    }
}

fn receive_all(connection: &mut Connection, bytes: &[u8]) {
    let mut input = bytes;
    connection.receive(&mut input);
}

fn data(connection: &mut Connection, id: u32, bytes: &[u8], fin: bool) {
    let mut frame = Vec::new();
    data_head(id, fin, bytes.len(), &mut frame);
    frame.extend_from_slice(bytes);
    receive_all(connection, &frame);
}

fn nobody() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn server(limits: Limits) -> (Connection, Peer) {
    let mut connection = Connection::new(Role::Server, limits);
    connection.hold();
    (connection, Peer::new())
}

fn client(limits: Limits) -> (Connection, Peer) {
    let mut connection = Connection::new(Role::Client, limits);
    connection.hold();
    (connection, Peer::new())
}

fn take(connection: &mut Connection) -> Option<u32> {
    match connection.poll_take(&nobody()) {
        Poll::Ready(Some((id, _))) => Some(id),
        _ => None,
    }
}

/// What can be read of a stream now, up to so many bytes.
fn read(connection: &mut Connection, id: u32, most: usize) -> Poll<Result<usize, StreamError>> {
    let mut room = vec![0; most];
    let mut buffer = ReadBuf::new(&mut room);
    connection.poll_read(id, &nobody(), &mut buffer).map_ok(|()| buffer.filled().len())
}

fn violation(connection: &Connection) -> Option<&Violation> {
    match connection.end() {
        Some(SessionError::Violation(violation)) => Some(violation),
        _ => None,
    }
}

#[test]
fn a_stream_that_goes_back_or_has_the_wrong_parity_ends_the_session() {
    for (ids, expected) in [
        (&[3, 1][..], Violation::StreamGoesBack { id: 1, last: 3 }),
        (&[3, 3], Violation::StreamGoesBack { id: 3, last: 3 }),
        (&[2], Violation::Parity { id: 2 }),
    ] {
        let (mut connection, mut peer) = server(Limits::default());
        for id in ids {
            peer.open(&mut connection, *id);
        }
        assert_eq!(violation(&connection), Some(&expected));
        let last = ids[0] - 2 * u32::from(ids[0] % 2 == 0);
        assert_eq!(peer.hears(&mut connection), [format!("goaway {last} 1")]);
        assert!(matches!(connection.poll_take(&nobody()), Poll::Ready(None)));
    }
}

#[test]
fn frames_for_streams_that_never_were_are_reset_and_those_for_streams_that_are_gone_ignored() {
    let (mut connection, mut peer) = server(Limits::default());
    data(&mut connection, 7, b"x", false);
    data(&mut connection, 2, b"x", false);
    peer.control(&mut connection, Control::Headers { id: 9, fin: false, headers: Headers::new() });
    peer.control(&mut connection, Control::SynReply { id: 4, fin: false, headers: Headers::new() });
    peer.control(&mut connection, Control::Reset { id: 11, status: ResetStatus::Cancel });
    let strays =
        ["reset 7", "reset 2", "reset 9", "reset 4"].map(|one| format!("{one} INVALID_STREAM"));
    assert_eq!(peer.hears(&mut connection), strays);

    peer.open(&mut connection, 13);
    peer.control(&mut connection, Control::Reset { id: 13, status: ResetStatus::Cancel });
    data(&mut connection, 13, b"late", true);
    data(&mut connection, 5, b"one that was skipped", true);
    assert!(peer.hears(&mut connection).is_empty());
    assert_eq!((take(&mut connection), connection.slots()), (None, 0));
    assert!(connection.end().is_none());
}

#[test]
fn data_behind_the_end_of_a_stream_costs_that_stream_alone() {
    let (mut connection, mut peer) = server(Limits::default());
    peer.open(&mut connection, 1);
    peer.open(&mut connection, 3);
    data(&mut connection, 1, b"all", true);
    data(&mut connection, 1, b"more", false);
    assert_eq!(peer.hears(&mut connection), ["reset 1 STREAM_ALREADY_CLOSED"]);
    assert!(connection.end().is_none());
    assert_eq!((take(&mut connection), take(&mut connection)), (Some(1), Some(3)));
    // What came before is whole.
    assert!(matches!(read(&mut connection, 1, 10), Poll::Ready(Ok(3))));
    assert!(matches!(read(&mut connection, 1, 10), Poll::Ready(Ok(0))));
    assert!(matches!(read(&mut connection, 3, 10), Poll::Pending));
}

#[test]
fn streams_above_the_limit_are_refused_until_one_is_let_go_of() {
    let (mut connection, mut peer) = server(Limits { streams: 2, ..Limits::default() });
    for id in [1, 3, 5] {
        peer.open(&mut connection, id);
    }
    assert_eq!(peer.hears(&mut connection), ["reset 5 REFUSED_STREAM"]);
    // A reset stream that somebody here still holds counts: else it could be held without a bound.
    assert_eq!(take(&mut connection), Some(1));
    peer.control(&mut connection, Control::Reset { id: 1, status: ResetStatus::Cancel });
    peer.open(&mut connection, 7);
    assert_eq!(peer.hears(&mut connection), ["reset 7 REFUSED_STREAM"]);
    connection.drop_reader(1);
    connection.drop_writer(1);
    peer.open(&mut connection, 9);
    assert!(peer.hears(&mut connection).is_empty());
}

#[test]
fn pings_are_answered_and_an_answer_is_not() {
    let (mut connection, mut peer) = server(Limits::default());
    for id in [1, 2, 7] {
        peer.control(&mut connection, Control::Ping { id });
    }
    assert_eq!(peer.hears(&mut connection), ["ping 1", "ping 7"]);
}

#[test]
fn a_peer_that_pings_and_reads_no_answers_is_not_read_either() {
    let (mut connection, mut peer) = server(Limits::default());
    let mut bytes = Vec::new();
    for id in 0..10_000 {
        peer.encoder.control(&Control::Ping { id: id * 2 + 1 }, &mut bytes).unwrap();
    }
    let mut input = &bytes[..];
    connection.receive(&mut input);
    assert!(!connection.may_receive());
    let answered = bytes.len() - input.len();
    assert_eq!(answered, MOST_CONTROL_BYTES.next_multiple_of(12));
    let mut out = Vec::new();
    connection.fill(&mut out);
    assert_eq!(out, bytes[..answered]);
    assert!(connection.may_receive());
}

#[test]
fn a_stream_that_nobody_reads_stops_the_session_until_it_is_read_or_dropped() {
    let limits = Limits { stream_bytes: 10, session_bytes: 15, ..Limits::default() };
    let (mut connection, mut peer) = server(limits);
    peer.open(&mut connection, 1);
    peer.open(&mut connection, 3);
    take(&mut connection);
    take(&mut connection);
    data(&mut connection, 1, &[0; 10], false);
    assert!(!connection.may_receive(), "the stream is full");
    assert!(matches!(read(&mut connection, 1, 1), Poll::Ready(Ok(1))));
    assert!(connection.may_receive());
    data(&mut connection, 3, &[0; 6], false);
    assert!(!connection.may_receive(), "the session is full");
    connection.drop_reader(1);
    assert!(connection.may_receive(), "what nobody will read is thrown away");
    data(&mut connection, 1, &[0; 1000], false);
    assert!(connection.may_receive(), "also what comes later");
}

#[test]
fn streams_send_in_turn_and_one_cannot_send_without_bound() {
    let limits =
        Limits { stream_send_bytes: 40_000, session_send_bytes: 60_000, ..Limits::default() };
    let (mut connection, mut peer) = server(limits);
    for id in [1, 3, 5] {
        peer.open(&mut connection, id);
        assert_eq!(take(&mut connection), Some(id));
        connection.accept(id, Headers::new()).unwrap();
    }
    let bytes = vec![0; 100_000];
    let mut wrote = |id| connection.poll_write(id, &nobody(), &bytes).map(Result::unwrap);
    assert_eq!(wrote(1), Poll::Ready(40_000));
    assert_eq!(wrote(1), Poll::Pending);
    assert_eq!(wrote(3), Poll::Ready(20_000));
    assert_eq!(wrote(5), Poll::Pending);
    assert_eq!(
        peer.hears(&mut connection),
        [
            "reply 1",
            "reply 3",
            "reply 5",
            "data 1 16384",
            "data 3 16384",
            "data 1 16384",
            "data 3 3616",
            "data 1 7232"
        ]
    );
    assert!(matches!(connection.poll_write(5, &nobody(), &bytes), Poll::Ready(Ok(40_000))));
}

#[test]
fn the_end_of_a_stream_follows_its_data_and_its_other_direction_goes_on() {
    let (mut connection, mut peer) = server(Limits::default());
    peer.open(&mut connection, 1);
    take(&mut connection);
    connection.accept(1, Headers::new()).unwrap();
    assert!(connection.poll_write(1, &nobody(), b"last").is_ready());
    connection.finish(1);
    assert!(matches!(
        connection.poll_write(1, &nobody(), b"more"),
        Poll::Ready(Err(StreamError::Finished))
    ));
    assert!(connection.poll_finished(1, &nobody()).is_pending());
    assert_eq!(peer.hears(&mut connection), ["reply 1", "data 1 4 fin"]);
    assert!(connection.poll_finished(1, &nobody()).is_ready());
    data(&mut connection, 1, b"still", true);
    assert!(matches!(read(&mut connection, 1, 10), Poll::Ready(Ok(5))));
    connection.drop_writer(1);
    connection.drop_reader(1);
    assert!(peer.hears(&mut connection).is_empty());
    assert_eq!(connection.slots(), 0);
}

#[test]
fn a_stream_whose_ends_are_dropped_is_reset_where_the_peer_would_keep_it_open() {
    for (finishes, expected) in [(true, "data 1 0 fin"), (false, "reset 1 CANCEL")] {
        let (mut connection, mut peer) = server(Limits::default());
        peer.open(&mut connection, 1);
        take(&mut connection);
        if finishes {
            connection.finish(1);
        }
        connection.drop_reader(1);
        connection.drop_writer(1);
        assert_eq!(peer.hears(&mut connection), [expected]);
        let then = if finishes { vec!["reset 1 CANCEL"] } else { vec![] };
        assert_eq!(peer.hears(&mut connection), then);
        assert_eq!(connection.slots(), 0);
    }
}

#[test]
fn what_came_before_a_reset_is_read_before_it() {
    let (mut connection, mut peer) = server(Limits::default());
    peer.open(&mut connection, 1);
    take(&mut connection);
    data(&mut connection, 1, b"abc", false);
    peer.control(&mut connection, Control::Reset { id: 1, status: ResetStatus::Other(77) });
    assert!(matches!(read(&mut connection, 1, 10), Poll::Ready(Ok(3))));
    let status = ResetStatus::Other(77);
    let after = read(&mut connection, 1, 10);
    assert!(matches!(after, Poll::Ready(Err(StreamError::Reset { status: s })) if s == status));
    let write = connection.poll_write(1, &nobody(), b"x");
    assert!(matches!(write, Poll::Ready(Err(StreamError::Reset { .. }))));
}

#[test]
fn a_second_reply_resets_the_stream() {
    let (mut connection, mut peer) = client(Limits::default());
    let id = connection.open(Headers::new()).unwrap();
    for _ in 0..2 {
        peer.control(
            &mut connection,
            Control::SynReply { id, fin: false, headers: Headers::new() },
        );
    }
    assert_eq!(peer.hears(&mut connection), ["open 1", "reset 1 STREAM_IN_USE"]);
    assert!(connection.end().is_none());
}

#[test]
fn a_client_keeps_to_what_its_peer_takes_and_refuses_what_it_opens() {
    let (mut connection, mut peer) = client(Limits::default());
    let settings = vec![Setting { id: MAX_CONCURRENT_STREAMS, value: 1 }];
    peer.control(&mut connection, Control::Settings(settings));
    assert_eq!(connection.open(Headers::new()).unwrap(), 1);
    let second = connection.open(Headers::new());
    assert!(matches!(second, Err(OpenError::TooMany { open: 1 })), "{second:?}");
    peer.open(&mut connection, 2);
    assert_eq!(peer.hears(&mut connection), ["open 1", "reset 2 REFUSED_STREAM"]);
}

#[test]
fn a_peer_that_goes_away_lets_what_it_took_end_and_no_more() {
    let (mut connection, mut peer) = client(Limits::default());
    let (kept, lost) =
        (connection.open(Headers::new()).unwrap(), connection.open(Headers::new()).unwrap());
    peer.hears(&mut connection);
    let status = GoAwayStatus::Ok;
    peer.control(&mut connection, Control::GoAway { last: kept, status });
    let outcome = connection.poll_reply(lost, &nobody());
    let refused = ResetStatus::RefusedStream;
    assert!(
        matches!(outcome, Poll::Ready(Err(OpenError::Refused { status })) if status == refused)
    );
    assert!(matches!(connection.open(Headers::new()), Err(OpenError::GoingAway)));
    connection.conclude();
    assert!(connection.end().is_none(), "one is open still");
    connection.reset(kept, ResetStatus::Cancel);
    connection.conclude();
    assert!(matches!(connection.end(), Some(SessionError::Closed)));
}

#[test]
fn a_session_that_closes_says_so_after_its_last_stream() {
    let (mut connection, mut peer) = server(Limits::default());
    peer.open(&mut connection, 1);
    peer.open(&mut connection, 3);
    take(&mut connection);
    connection.accept(1, Headers::new()).unwrap();
    connection.close();
    connection.conclude();
    peer.open(&mut connection, 5);
    let said = peer.hears(&mut connection);
    assert_eq!(said, ["reply 1", "reset 3 REFUSED_STREAM", "reset 5 REFUSED_STREAM"]);
    connection.finish(1);
    data(&mut connection, 1, b"", true);
    connection.conclude();
    assert_eq!(peer.hears(&mut connection), ["data 1 0 fin"]);
    connection.conclude();
    assert_eq!(peer.hears(&mut connection), ["goaway 5 0"]);
}

#[test]
fn a_stray_data_frame_is_told_once_however_many_pieces_it_comes_in() {
    let (mut connection, mut peer) = server(Limits::default());
    let mut frame = Vec::new();
    data_head(7, false, 100, &mut frame);
    frame.extend([0; 100]);
    for piece in frame.chunks(10) {
        receive_all(&mut connection, piece);
    }
    assert_eq!(peer.hears(&mut connection), ["reset 7 INVALID_STREAM"]);
}
