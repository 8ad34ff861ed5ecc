//! What holds whatever the peer sends and whatever is done with the ends of streams.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

/// What one may have room for: all queues at their bounds, with the room that they may have beside.
fn most(limits: &Limits) -> usize {
    let queues = limits.session_bytes + INPUT + limits.session_send_bytes;
    let control = MOST_CONTROL_BYTES + limits.control_frame_bytes;
    4 * queues + 2 * control + 2 * 1024 * limits.streams
}

/// What is given at once.
const INPUT: usize = 2000;

#[derive(Clone, Debug)]
enum Step {
    Frame(Control),
    Data(u32, usize, bool),
    Bytes(Vec<u8>),
    Take,
    Read(u32, usize),
    Write(u32, usize),
    Finish(u32),
    DropReader(u32),
    DropWriter(u32),
    Send,
}

fn step() -> impl Strategy<Value = Step> {
    let id = || 0..12_u32;
    let control = (id(), 0..8_u8, any::<bool>()).prop_map(|(id, kind, fin)| {
        let headers = Headers::new();
        let id = id.max(1);
        Step::Frame(match kind {
            0..3 => {
                Control::SynStream { id: id | 1, fin, unidirectional: !fin && id == 5, headers }
            }
            3 => Control::SynReply { id, fin, headers },
            4 => Control::Reset { id, status: ResetStatus::Cancel },
            5 => Control::Ping { id },
            6 => Control::WindowUpdate { id, delta: 7 },
            _ => Control::Headers { id, fin, headers },
        })
    });
    prop_oneof![
        6 => control,
        6 => (1..12_u32, 0..INPUT, any::<bool>()).prop_map(|(id, n, fin)| Step::Data(id, n, fin)),
        1 => vec(any::<u8>(), 0..50).prop_map(Step::Bytes),
        3 => Just(Step::Take),
        3 => (id(), 0..3000_usize).prop_map(|(id, n)| Step::Read(id, n)),
        3 => (id(), 0..3000_usize).prop_map(|(id, n)| Step::Write(id, n)),
        1 => id().prop_map(Step::Finish),
        1 => id().prop_map(Step::DropReader),
        1 => id().prop_map(Step::DropWriter),
        1 => Just(Step::Send),
    ]
}

proptest! {
    /// Ends of streams are held, used and let go of as their types allow it, the peer does what it likes.
    #[test]
    fn whatever_comes_nothing_panics_and_no_bound_is_passed(steps in vec(step(), 0..150)) {
        let limits = Limits {
            streams: 4,
            stream_bytes: 1000,
            session_bytes: 2500,
            stream_send_bytes: 900,
            session_send_bytes: 2000,
            control_frame_bytes: 300,
            ..Limits::default()
        };
        let (mut connection, mut peer) = server(limits);
        let (mut readers, mut writers, mut left) = (Vec::new(), Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Frame(control) => peer.encoder.control(&control, &mut left).unwrap(),
                Step::Data(id, length, fin) => {
                    data_head(id, fin, length, &mut left);
                    left.resize(left.len() + length, 1);
                }
                Step::Bytes(bytes) => left.extend(bytes),
                Step::Take => if let Some(id) = take(&mut connection) {
                    let _ = connection.accept(id, Headers::new());
                    readers.push(id);
                    writers.push(id);
                },
                Step::Read(id, most) => if readers.contains(&id) {
                    let _ = read(&mut connection, id, most);
                },
                Step::Write(id, length) => if writers.contains(&id) {
                    let _ = connection.poll_write(id, &nobody(), &vec![0; length]);
                },
                Step::Finish(id) => if writers.contains(&id) {
                    connection.finish(id);
                },
                Step::DropReader(id) => if let Some(at) = readers.iter().position(|one| *one == id) {
                    readers.remove(at);
                    connection.drop_reader(id);
                },
                Step::DropWriter(id) => if let Some(at) = writers.iter().position(|one| *one == id) {
                    writers.remove(at);
                    connection.drop_writer(id);
                },
                Step::Send => connection.fill(&mut Vec::new()),
            }
            let mut input = &left[..];
            connection.receive(&mut input);
            left = if connection.end().is_some() { Vec::new() } else { input.to_vec() };
            prop_assert!(connection.held_bytes() <= most(&limits), "{}", connection.held_bytes());
            prop_assert!(connection.slots() <= limits.streams);
        }
        // Let go of all: nothing is left.
        readers.drain(..).for_each(|id| connection.drop_reader(id));
        writers.drain(..).for_each(|id| connection.drop_writer(id));
        connection.take_no_more();
        for _ in 0..2 {
            connection.fill(&mut Vec::new());
        }
        prop_assert_eq!((connection.slots(), connection.received_bytes, connection.full), (0, 0, 0));
        prop_assert_eq!(connection.unsent_bytes, 0);
    }
}
