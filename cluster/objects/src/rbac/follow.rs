//! The roles and bindings as this process knows them.

use super::index::{Asked, Asker, Grant, Index, Place, rules_in};
use super::policy::PolicyRule;
use super::{GROUP, escalation};
use crate::may::MASTERS;
use futures_util::StreamExt as _;
use futures_util::stream::{BoxStream, unfold};
use impresario_api::catalog::find;
use impresario_api::status::Status;
use impresario_client::objects::stored::text;
use impresario_client::objects::{Filter, ObjectEvent, Reader, WatchQuery};
use impresario_registry_api::Consistency;
use impresario_runtime::{Backoff, random, tasks};
use parking_lot::RwLock;
use serde_json::Value;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Until a kind is followed again after its watch has ended.
const PAUSES: Backoff =
    Backoff { first: Duration::from_millis(200), most: Duration::from_secs(10) };

/// What is followed, by its plural.
const FOLLOWED: [&str; 4] = ["clusterroles", "roles", "clusterrolebindings", "rolebindings"];

/// Whether something may be done, as far as this process knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may, and why.
    Allowed(String),
    /// No rule allows it.
    Denied,
    /// The roles have not been read yet.
    Unread,
}

/// All roles and bindings of the registry, followed. Cheap to clone; ends with the last clone.
#[derive(Debug, Clone)]
pub struct Roles(Arc<Following>);

#[derive(Debug)]
struct Following {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

#[derive(Debug)]
struct Shared {
    index: RwLock<Index>,
    state: watch::Sender<State>,
}

/// How far the roles are known.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// Which of the kinds have been read, a bit each.
    read: u8,
    /// Counts what has changed since.
    changes: u64,
}

impl State {
    fn is_read(self) -> bool {
        self.read.count_ones() as usize == FOLLOWED.len()
    }
}

impl Roles {
    /// Begins to follow. Must be called within a tokio runtime.
    #[must_use]
    pub fn follow(objects: &Reader) -> Self {
        let shared = Arc::new(Shared {
            index: RwLock::default(),
            state: watch::channel(State::default()).0,
        });
        let tasks = (0..FOLLOWED.len()).map(|kind| {
            let (objects, shared) = (objects.clone(), shared.clone());
            tasks::spawn(async move {
                let mut attempt = 0;
                loop {
                    attempt =
                        if shared.follow_once(&objects, kind).await { 0 } else { attempt + 1 };
                    tokio::time::sleep(PAUSES.wait(attempt, random::random())).await;
                }
            })
        });
        let tasks = tasks.collect();
        Self(Arc::new(Following { shared, tasks }))
    }

    /// Whether all roles and bindings have been read. What was read once stays known.
    pub fn is_read(&self) -> bool {
        self.0.shared.state.borrow().is_read()
    }

    /// Waits so long until everything has been read; whether it has.
    pub async fn has_read_within(&self, limit: Duration) -> bool {
        let mut state = self.0.shared.state.subscribe();
        let read = timeout(limit, state.wait_for(|state| state.is_read())).await;
        matches!(read, Ok(Ok(_)))
    }

    /// Waits so long until the role that a binding names is known here as it is in the registry, where it may have been
    /// written a moment ago; whether it is, or there is no such role.
    pub async fn has_seen_role_within(
        &self,
        objects: &Reader,
        namespace: &str,
        binding: &Value,
        limit: Duration,
    ) -> bool {
        let (kind, name) = (text(binding, "/roleRef/kind"), text(binding, "/roleRef/name"));
        let (plural, namespace) =
            if kind == "Role" { ("roles", namespace) } else { ("clusterroles", "") };
        let Some(row) = find(GROUP, "v1", plural) else { return true };
        let waiting = async {
            let mut state = self.0.shared.state.subscribe();
            let newest = Consistency::Linearizable;
            let Ok(Some(role)) = objects.find(&row, namespace, name, newest).await else { return };
            let rules = PolicyRule::read_all(&role.object);
            let is_known = || {
                let index = self.0.shared.index.read();
                index.rules_of_role(namespace, kind, name).map(AsRef::as_ref) == Some(&*rules)
            };
            while !is_known() && state.changed().await.is_ok() {}
        };
        timeout(limit, waiting).await.is_ok()
    }

    /// Tells whenever a role or a binding changed, after what is decided did, and at once what is there now.
    #[must_use]
    pub fn changes(&self) -> BoxStream<'static, ()> {
        let mut state = self.0.shared.state.subscribe();
        state.mark_changed();
        unfold(state, |mut state| async move {
            state.changed().await.ok()?;
            state.borrow_and_update();
            Some(((), state))
        })
        .boxed()
    }

    /// Whether it may be done. Masters may do everything, whatever is bound and whether it has been read.
    pub fn may(&self, asker: Asker<'_>, asked: Asked<'_>) -> Verdict {
        self.judge(asker, asked, |_| String::new())
    }

    /// The same with the reason in words, which cost more than the answer.
    pub fn explain(&self, asker: Asker<'_>, asked: Asked<'_>) -> Verdict {
        self.judge(asker, asked, |grant| grant.map_or_else(String::new, |it| it.to_string()))
    }

    fn judge(
        &self,
        asker: Asker<'_>,
        asked: Asked<'_>,
        why: impl Fn(Option<Grant<'_>>) -> String,
    ) -> Verdict {
        let index = self.0.shared.index.read();
        if asker.is_in(MASTERS) {
            return Verdict::Allowed(why(index.allows(asker, asked)));
        }
        if !self.is_read() {
            return Verdict::Unread;
        }
        match index.allows(asker, asked) {
            Some(grant) => Verdict::Allowed(why(Some(grant))),
            None => Verdict::Denied,
        }
    }

    /// Every rule that somebody has in a namespace.
    pub fn rules_of(&self, asker: Asker<'_>, namespace: &str) -> Result<Vec<PolicyRule>, Status> {
        let is_read = self.is_read();
        let roles = self.0.shared.index.read().roles_of(asker, namespace);
        if is_read { Ok(rules_in(&roles)) } else { Err(unread()) }
    }

    /// Refuses to give away by a role or a binding what its writer does not have, unless they may `escalate` or `bind`.
    /// Other objects are not looked at.
    pub fn guard(
        &self,
        asker: Asker<'_>,
        old: Option<&Value>,
        new: Option<&Value>,
    ) -> Result<(), Status> {
        let Some(new) = new.filter(|new| escalation::concerns(new)) else { return Ok(()) };
        if asker.is_in(MASTERS) || old.is_some_and(|old| escalation::is_collectors(old, new)) {
            return Ok(());
        }
        if !self.is_read() {
            return Err(unread());
        }
        // Whoever asks anything waits for this lock: what takes time comes after it.
        let given = escalation::given(&self.0.shared.index.read(), asker, old, new)?;
        given.map_or(Ok(()), |given| given.check(asker))
    }
}

/// What is answered as long as nobody's rights are known.
pub fn unread() -> Status {
    Status::unavailable("the roles of the cluster have not been read here yet: try again", 1)
}

impl Shared {
    /// Until the watch ends; says whether it had begun. What cannot be read changes nothing: what was known stays so.
    async fn follow_once(&self, objects: &Reader, kind: usize) -> bool {
        let mut begun = false;
        let Some(row) = find(GROUP, "v1", FOLLOWED[kind]) else { return begun };
        let query = WatchQuery {
            filter: Filter::default(),
            initial_events: Some(true),
            ..WatchQuery::default()
        };
        let mut events = match objects.watch(&row, query).await {
            Ok(events) => events,
            Err(error) => {
                tracing::debug!(%error, kind = FOLLOWED[kind], "roles cannot be read yet");
                return begun;
            }
        };
        let mut present = HashSet::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(ObjectEvent::Added(object) | ObjectEvent::Modified(object)) => {
                    if !begun {
                        present.insert(place(&object));
                    }
                    self.put(kind, &object);
                }
                Ok(ObjectEvent::Deleted(object)) => self.remove(kind, &place(&object)),
                Ok(ObjectEvent::Bookmark { initial_end: true, .. }) => {
                    begun = true;
                    self.keep(kind, &std::mem::take(&mut present));
                }
                Ok(ObjectEvent::Bookmark { .. }) => continue,
                Err(error) => {
                    tracing::debug!(%error, kind = FOLLOWED[kind], "the watch of roles ended");
                    return begun;
                }
            }
            if begun {
                self.state.send_modify(|state| {
                    state.read |= 1 << kind;
                    state.changes += 1;
                });
            }
        }
        begun
    }

    fn put(&self, kind: usize, object: &Value) {
        let mut index = self.index.write();
        if is_role(kind) { index.put_role(object) } else { index.put_binding(object) }
    }

    fn remove(&self, kind: usize, place: &Place) {
        let mut index = self.index.write();
        if is_role(kind) { index.remove_role(place) } else { index.remove_binding(place) }
    }

    /// Forgets everything of a kind but what is at these places.
    fn keep(&self, kind: usize, present: &HashSet<Place>) {
        let of_cluster = FOLLOWED[kind].starts_with("cluster");
        let known = {
            let index = self.index.read();
            if is_role(kind) { index.roles(of_cluster) } else { index.bindings(of_cluster) }
        };
        for place in known.iter().filter(|place| !present.contains(place)) {
            self.remove(kind, place);
        }
    }
}

/// Whether a kind of those that are followed is one of roles.
fn is_role(kind: usize) -> bool {
    FOLLOWED[kind].ends_with("roles")
}

fn place(object: &Value) -> Place {
    let word = |pointer: &str| text(object, pointer).to_owned();
    (word("/metadata/namespace"), word("/metadata/name"))
}
