//! What is made of a state of an object, once for all who are told of it.
//!
//! Many watches of one process are told of the same change, and each of them would read the same bytes and write the
//! same line. What one of them made is kept while the change is new, within a bound; who comes later makes it anew.

use super::stored::{read, readable};
use bytes::Bytes;
use impresario_api::status::Status;
use impresario_registry_api::{Entry, Revision};
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};

/// Bytes of the objects of which something is kept. Parsed they are some ten times as large.
const MOST_BYTES: usize = 1024 * 1024;
/// Objects of which something is kept.
const MOST_STATES: usize = 4_096;
/// Lines that are kept of an object: as it was added, changed and deleted, in the forms that are asked for.
const MOST_LINES: usize = 12;

/// In which form a line was written: of which revision, and a number and a time that mean something to its writer.
pub type Form = (Revision, u32, i64);

/// The newest states that watches were told of.
#[derive(Debug, Default)]
pub(super) struct States {
    kept: Mutex<Kept>,
}

/// Where the bytes of a value lie. As long as a state of it is kept they stay there, so that nothing else can be at the
/// same place.
type Place = (usize, usize);

#[derive(Debug, Default)]
struct Kept {
    states: HashMap<Place, Arc<State>>,
    order: VecDeque<Place>,
    bytes: usize,
}

/// One state of an object.
#[derive(Debug)]
pub(super) struct State {
    /// Keeps the place from being given to another value.
    _value: Bytes,
    readable: OnceLock<Result<(), Status>>,
    object: OnceLock<Result<Value, Status>>,
    lines: Mutex<Vec<(Form, Bytes)>>,
}

impl States {
    /// The state that an entry shows.
    pub(super) fn of(&self, value: &Bytes) -> Arc<State> {
        let place = (value.as_ptr() as usize, value.len());
        let mut kept = self.kept.lock();
        if let Some(state) = kept.states.get(&place) {
            return state.clone();
        }
        let state = Arc::new(State::new(value.clone()));
        kept.states.insert(place, state.clone());
        kept.order.push_back(place);
        kept.bytes += value.len();
        while kept.bytes > MOST_BYTES || kept.order.len() > MOST_STATES {
            let Some(oldest) = kept.order.pop_front() else { break };
            kept.bytes -= oldest.1;
            kept.states.remove(&oldest);
        }
        state
    }
}

impl State {
    fn new(value: Bytes) -> Self {
        let (readable, object) = (OnceLock::new(), OnceLock::new());
        Self { _value: value, readable, object, lines: Mutex::default() }
    }

    /// Whether the object can be read.
    pub(super) fn readable(&self, entry: &Entry) -> Result<(), Status> {
        match self.object.get() {
            Some(Ok(_)) => Ok(()),
            Some(Err(status)) => Err(status.clone()),
            None => self.readable.get_or_init(|| readable(entry)).clone(),
        }
    }

    /// The object, without a resourceVersion.
    pub(super) fn object(&self, entry: &Entry) -> Result<&Value, Status> {
        self.object.get_or_init(|| read(entry)).as_ref().map_err(Clone::clone)
    }

    /// The object, where it was read.
    pub(super) fn looked_at(&self) -> Option<&Value> {
        self.object.get()?.as_ref().ok()
    }

    /// The line of this form, which is written by the first who asks for it; `None` where it cannot be.
    pub(super) fn line(&self, form: Form, write: impl FnOnce() -> Option<Bytes>) -> Option<Bytes> {
        // Whoever asks meanwhile waits for the line, and does not write it as well.
        let mut lines = self.lines.lock();
        if let Some((_, line)) = lines.iter().find(|(written, _)| *written == form) {
            return Some(line.clone());
        }
        let line = write()?;
        if lines.len() == MOST_LINES {
            lines.remove(0);
        }
        lines.push((form, line.clone()));
        Some(line)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use impresario_registry_api::Key;

    fn entry(value: &Bytes) -> Entry {
        let key = Key::new("pods", "d", "a");
        Entry { key, value: value.clone(), create_revision: 1, mod_revision: 1 }
    }

    #[test]
    fn what_was_made_of_the_same_bytes_is_made_once_and_of_equal_ones_anew() {
        let states = States::default();
        let value = Bytes::from(r#"{"a":1}"#.to_owned());
        let state = states.of(&value);
        assert!(Arc::ptr_eq(&state, &states.of(&value.clone())));
        assert!(!Arc::ptr_eq(&state, &states.of(&Bytes::copy_from_slice(&value))));
        let object: *const Value = state.object(&entry(&value)).unwrap();
        assert!(std::ptr::eq(object, states.of(&value).object(&entry(&value)).unwrap()));
        assert_eq!(state.readable(&entry(&value)), Ok(()));
        assert_eq!(state.line((1, 2, 3), || Some("x".into())).unwrap(), "x");
        assert_eq!(state.line((1, 2, 3), || panic!("it is there")).unwrap(), "x");
        assert_eq!(state.line((2, 2, 3), || Some("y".into())).unwrap(), "y");
        assert_eq!(state.line((3, 2, 3), || None), None);
        let broken = Bytes::from("{".to_owned());
        let state = states.of(&broken);
        assert!(state.readable(&entry(&broken)).is_err() && state.object(&entry(&broken)).is_err());
    }

    #[test]
    fn no_more_is_kept_than_the_bounds_allow() {
        let states = States::default();
        for number in 0..MOST_STATES * 2 {
            states.of(&Bytes::from(number.to_string()));
        }
        assert!(states.kept.lock().order.len() <= MOST_STATES);
        for _ in 0..4 {
            states.of(&vec![b'x'; MOST_BYTES / 2 - 1].into());
        }
        let kept = states.kept.lock();
        assert_eq!((kept.order.len(), kept.states.len()), (2, 2));
        drop(kept);
        states.of(&vec![b'x'; MOST_BYTES * 2].into());
        let kept = states.kept.lock();
        assert_eq!((kept.bytes, kept.states.len()), (0, 0), "not even alone");
        drop(kept);
        let state = states.of(&Bytes::from("{}".to_owned()));
        for form in 0..100 {
            state.line((form, 0, 0), || Some("x".into()));
        }
        assert_eq!(state.lines.lock().len(), MOST_LINES);
    }
}
