//! What is filed ahead of the watch, against every order in which the two can come.

use super::follow;
use super::state::State;
use super::*;
use futures_util::FutureExt as _;
use impresario_registry::{Key, MemoryRegistry};
use impresario_registry_api::WatchEvent;
use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// One thing that happens.
#[derive(Debug, Clone)]
enum Step {
    /// The registry puts the object of this number.
    Put(usize),
    /// It deletes it.
    Delete(usize),
    /// Somebody reads the object in it, and files that so many steps later.
    Read(usize, usize),
    /// The watch brings the next change.
    Watch,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..3usize).prop_map(Step::Put),
        2 => (0..3usize).prop_map(Step::Delete),
        4 => (0..3usize, 0..8usize).prop_map(|(name, later)| Step::Read(name, later)),
        4 => Just(Step::Watch),
    ];
    proptest::collection::vec(step, 0..60)
}

fn entry(name: usize, create_revision: Revision, mod_revision: Revision) -> Entry {
    let name = format!("p{name}");
    let pod =
        json!({"metadata": {"name": name, "namespace": "ns", "uid": create_revision.to_string()}});
    let value = pod.to_string().into_bytes().into();
    Entry { key: Key::new("pods", "ns", name), value, create_revision, mod_revision }
}

/// What the mirror tells of when its watch brings this.
fn brought(mirror: &Mirror<Pod>, event: WatchEvent) -> follow::Changed<Pod> {
    follow::apply(&mirror.shared, &[event]).now_or_never().expect("so few are read at once")
}

/// A mirror that nothing but the test feeds.
fn unfed() -> Mirror<Pod> {
    let registry: RegistryHandle = Arc::new(MemoryRegistry::default());
    let shared = Arc::new(Shared {
        select: Selection::all("pods"),
        registry,
        newest: Mutex::new(None),
        state: RwLock::new(State::new()),
        revision: watch::Sender::new(1),
        changes: broadcast::Sender::new(CHANGES),
        misread: broadcast::Sender::new(MISREAD),
    });
    Mirror { shared, follower: Arc::new(Follower(tokio::spawn(async {}))) }
}

/// The mirror, the registry and the watch between them.
struct World {
    mirror: Mirror<Pod>,
    revision: Revision,
    stored: BTreeMap<usize, Entry>,
    watch: VecDeque<WatchEvent>,
    /// What was read, and at which step it is filed.
    read: Vec<(usize, Entry)>,
    /// States that were told of, by when the object was made.
    told: BTreeSet<(Revision, Revision)>,
    /// The newest state that was shown of each life, and those that the mirror has seen end.
    newest: BTreeMap<Revision, Revision>,
    ended: BTreeSet<Revision>,
}

impl World {
    fn tell(&mut self, changes: impl IntoIterator<Item = Change<Pod>>) {
        for change in changes {
            match change {
                Change::Put { now, .. } => {
                    let entry = now.entry;
                    let is_news = self.told.insert((entry.create_revision, entry.mod_revision));
                    assert!(is_news, "told twice of {entry:?}");
                }
                Change::Deleted { before } => {
                    assert!(self.ended.insert(before.entry.create_revision), "deleted twice");
                }
                Change::Everything => panic!("nothing was missed"),
            }
        }
    }

    /// Nothing goes back, and nothing is shown that has ended here.
    fn hold(&mut self) {
        for seen in self.mirror.all() {
            let Entry { create_revision, mod_revision, .. } = seen.entry;
            assert!(!self.ended.contains(&create_revision), "it is shown after its end");
            let newest = self.newest.entry(create_revision).or_default();
            assert!(mod_revision >= *newest, "{} goes back", seen.entry.key);
            *newest = mod_revision;
        }
    }

    fn step(&mut self, number: usize, step: &Step) {
        match *step {
            Step::Put(name) => {
                self.revision += 1;
                let previous = self.stored.get(&name).cloned();
                let made = previous.as_ref().map_or(self.revision, |entry| entry.create_revision);
                let now = entry(name, made, self.revision);
                self.stored.insert(name, now.clone());
                self.watch.push_back(WatchEvent::Put { entry: now, previous });
            }
            Step::Delete(name) => {
                let Some(previous) = self.stored.remove(&name) else { return };
                self.revision += 1;
                let revision = self.revision;
                self.watch.push_back(WatchEvent::Delete { previous, revision });
            }
            Step::Read(name, later) => {
                let read = self.stored.get(&name).cloned();
                self.read.extend(read.map(|entry| (number + later, entry)));
            }
            Step::Watch => {
                let Some(event) = self.watch.pop_front() else { return };
                let (changes, misread) = brought(&self.mirror, event);
                assert!(misread.is_empty());
                self.tell(changes);
            }
        }
    }

    fn file_due(&mut self, number: usize) {
        let (due, rest) =
            std::mem::take(&mut self.read).into_iter().partition(|(at, _)| *at <= number);
        self.read = rest;
        let due: Vec<(usize, Entry)> = due;
        for (_, entry) in due {
            let mut changes = self.mirror.changes();
            let is_news = self.mirror.file(&entry);
            let change = changes.try_next();
            assert_eq!(change.is_some(), is_news);
            self.tell(change);
            self.hold();
        }
    }
}

proptest! {
    #[test]
    fn whatever_is_filed_when_nothing_goes_back_or_is_told_twice_and_the_end_is_the_registrys(
        steps in steps()
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _within = runtime.enter();
        let mut world = World {
            mirror: unfed(),
            revision: 1,
            stored: BTreeMap::new(),
            watch: VecDeque::new(),
            read: Vec::new(),
            told: BTreeSet::new(),
            newest: BTreeMap::new(),
            ended: BTreeSet::new(),
        };
        for (number, step) in steps.iter().enumerate() {
            world.step(number, step);
            world.hold();
            world.file_due(number);
        }
        while !world.watch.is_empty() {
            world.step(0, &Step::Watch);
            world.hold();
        }
        world.file_due(usize::MAX);
        let shown: Vec<_> = world.mirror.all().into_iter().map(|seen| seen.entry).collect();
        let stored: Vec<_> = world.stored.values().cloned().collect();
        prop_assert_eq!(shown, stored);
    }
}

#[tokio::test]
async fn what_the_watch_is_behind_with_is_shown_at_once_and_told_of_once() {
    let mirror = unfed();
    let put = |entry: &Entry| WatchEvent::Put { entry: entry.clone(), previous: None };
    let (first, second, third) = (entry(0, 5, 5), entry(0, 5, 7), entry(0, 5, 9));
    brought(&mirror, put(&first));
    let mut changes = mirror.changes();
    assert!(mirror.file(&third) && !mirror.file(&third) && !mirror.file(&second));
    assert_eq!(mirror.get("ns", "p0").map(|seen| seen.entry), Some(third.clone()));
    assert!(matches!(changes.try_next(), Some(Change::Put { now, before: Some(before) })
        if now.entry == third && before.entry == first));
    let (late, _) =
        follow::apply(&mirror.shared, &[put(&second), put(&third)]).now_or_never().unwrap();
    assert!(late.is_empty() && changes.try_next().is_none());
    assert_eq!(mirror.revision(), 1, "nobody who waits for the watch is told that it came");
}

#[tokio::test]
async fn nothing_is_filed_that_is_not_shown_or_of_another_life_or_kind_or_unreadable() {
    let mirror = unfed();
    assert!(!mirror.file(&entry(0, 5, 5)), "it may be gone");
    brought(&mirror, WatchEvent::Put { entry: entry(0, 5, 5), previous: None });
    assert!(!mirror.file(&entry(0, 8, 9)), "the one before it has not been seen to end");
    let other = Entry { key: Key::new("secrets", "ns", "p0"), ..entry(0, 5, 9) };
    let broken = Entry { value: "{\"spec\": 1}".into(), ..entry(0, 5, 9) };
    assert!(!mirror.file(&other) && !mirror.file(&broken));
    assert_eq!(mirror.get("ns", "p0").map(|seen| seen.entry.mod_revision), Some(5));
}
