//! Which control actors live here: those of the objects whose shards this member holds.
//!
//! ```text
//!   shard table ──┐                       ┌─ spawn KIND/UID with (shard, epoch)
//!   mirrors ──────┼──> Keeper, one task ──┼─ stop those whose shard went or whose epoch rose
//!   dead actors ──┘                       └─ tell Changed to those that a change concerns
//! ```
//!
//! A change reaches the actors that it concerns through an index: its own uid, and what each kind says that
//! its actors look at (its sources). Nothing of a kind is named here. Two members may run an actor for the
//! same object for a moment; the registry takes writes of the newest epoch only.

mod activated;
mod hints;
mod woken;

pub use activated::Activation;

use super::engine::sources::Source;
use super::held::Held;
use super::mirror::{Change, Mirror, Mirrored};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use hints::{Hint, Subject, forward};
use impresario_client::protocol::control::{Changed, ControlRole};
use impresario_registry_api::{Fence, ShardTable};
use impresario_runtime::{ActorName, ActorNode, SpawnError, TellError};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use woken::Woken;

/// Hints that wait for the keeper; when it is behind, the mirrors make their readers look anew.
const HINTS: usize = 4096;
/// How long an actor that gave up stays down.
const RESPAWN: Duration = Duration::from_secs(10);
/// How long until a name that its last holder has not left yet is tried again, and an actor that had no room for a hint.
const RETRY: Duration = Duration::from_millis(100);

/// Starts the actor of an activation on this node.
pub type Start = Arc<dyn Fn(&ActorNode, &Activation) -> Result<(), SpawnError> + Send + Sync>;

/// A kind of control actor.
#[derive(Clone)]
pub enum Kind {
    /// One actor for each object of a resource.
    Each {
        /// The objects. A look that reads the same mirror never looks before what it is told of.
        objects: Subjects,
        /// What its actors' names begin with, such as `job`.
        prefix: Cow<'static, str>,
        /// Starts one.
        start: Start,
        /// What wakes them, beside changes of their objects.
        sources: Vec<Source>,
    },
    /// One actor in the cluster.
    One {
        /// The actor's name, which also decides its shard.
        name: &'static str,
        /// Starts it.
        start: Start,
        /// What wakes it.
        sources: Vec<Source>,
    },
}

/// The objects of one kind, in a mirror of any type.
#[derive(Clone)]
pub struct Subjects {
    all: Arc<dyn Fn() -> Vec<Subject> + Send + Sync>,
    forward: Arc<dyn Fn(usize, mpsc::Sender<Hint>) -> BoxFuture<'static, ()> + Send + Sync>,
}

impl Subjects {
    /// The objects of a mirror.
    #[must_use]
    pub fn of<K: Mirrored>(mirror: &Mirror<K>) -> Self {
        let (all, source) = (mirror.clone(), mirror.clone());
        Self {
            all: Arc::new(move || all.all().iter().map(Subject::of).collect()),
            forward: Arc::new(move |number, hints| {
                forward(source.clone(), hints, move |change| match change {
                    Change::Put { now, .. } => Hint::Object(number, Subject::of(&now), true),
                    Change::Deleted { before } => Hint::Object(number, Subject::of(&before), false),
                    Change::Everything => Hint::Kind(number),
                })
                .boxed()
            }),
        }
    }
}

/// The task that keeps the control actors of this member. Ends when dropped.
pub struct Keeper {
    _task: JoinSet<()>,
}

impl Keeper {
    /// Starts to keep actors of these kinds on `node`, for the shards that `shards` gives it.
    #[must_use]
    pub fn start(node: ActorNode, shards: watch::Receiver<ShardTable>, kinds: Vec<Kind>) -> Self {
        let mut task = JoinSet::new();
        let (hints, inbox) = mpsc::channel(HINTS);
        let (told, woken) = mpsc::channel(HINTS);
        for (number, kind) in kinds.iter().enumerate() {
            if let Kind::Each { objects, .. } = kind {
                task.spawn((objects.forward)(number, hints.clone()));
            }
        }
        let named = kinds.iter().map(|kind| {
            let (Kind::Each { sources, .. } | Kind::One { sources, .. }) = kind;
            sources.as_slice()
        });
        for (source, numbers) in woken::sources(named.enumerate()) {
            task.spawn(woken::follow(source, numbers, told.clone()));
        }
        let (dead, deaths) = mpsc::channel(HINTS);
        let running = HashMap::new();
        let held = Held::new(node.name().clone(), shards);
        let untold = BTreeSet::new();
        let state = State { node, kinds, held, running, dead, serial: 0, untold };
        task.spawn(state.run(inbox, woken, deaths));
        Self { _task: task }
    }
}

struct Running {
    number: usize,
    subject: Subject,
    actor: ActorName,
    fence: Fence,
    serial: u64,
}

/// The actor of this uid, in the life of this serial number, has ended.
struct Dead {
    uid: String,
    serial: u64,
}

struct State {
    node: ActorNode,
    kinds: Vec<Kind>,
    held: Held,
    /// By uid of the object, or name of the singleton.
    running: HashMap<String, Running>,
    dead: mpsc::Sender<Dead>,
    serial: u64,
    /// Those whose actors had no room for a hint: their mailboxes are full of what others ask of them.
    untold: BTreeSet<String>,
}

impl State {
    async fn run(
        mut self,
        inbox: mpsc::Receiver<Hint>,
        woken: mpsc::Receiver<Woken>,
        deaths: mpsc::Receiver<Dead>,
    ) {
        self.sync(None);
        self.keep(inbox, woken, deaths).await;
    }

    /// Goes on with those that run.
    async fn keep(
        mut self,
        mut inbox: mpsc::Receiver<Hint>,
        mut woken: mpsc::Receiver<Woken>,
        mut deaths: mpsc::Receiver<Dead>,
    ) {
        let mut again = tokio::time::interval(RETRY);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = again.tick(), if !self.untold.is_empty() => self.tell_again(),
                changed = self.held.changed() => match changed {
                    Ok(()) => self.sync(None),
                    Err(_) => break,
                },
                hint = inbox.recv() => match hint {
                    Some(hint) => self.follow(hint),
                    None => break,
                },
                Some(woken) = woken.recv() => match woken {
                    Woken::Uids(uids) => {
                        for uid in uids {
                            self.tell(&uid);
                        }
                    }
                    Woken::Kinds(numbers) => {
                        for number in numbers {
                            self.sync(Some(number));
                        }
                    }
                },
                Some(dead) = deaths.recv() => {
                    let current = self.running.get(&dead.uid).map(|running| running.serial);
                    if current == Some(dead.serial) {
                        self.again(&dead.uid);
                    }
                }
            }
        }
    }

    /// Starts an actor that has ended again, if it should still run: one alone, it concerns no other.
    fn again(&mut self, uid: &str) {
        let Some(ended) = self.running.remove(uid) else { return };
        let kind = &self.kinds[ended.number];
        if let Some(activation) = activation(kind, &mut self.held, ended.subject) {
            self.begin(ended.number, activation);
        }
    }

    /// Starts and stops actors, of all kinds or of `only` one, until those run that should, and tells these
    /// to look.
    fn sync(&mut self, only: Option<usize>) {
        let mut wanted: BTreeMap<String, (usize, Activation)> = BTreeMap::new();
        let is_meant = |number: usize| only.is_none_or(|only| only == number);
        for (number, kind) in self.kinds.iter().enumerate().filter(|(number, _)| is_meant(*number))
        {
            let subjects = match kind {
                Kind::One { name, .. } => vec![Subject {
                    namespace: String::new(),
                    name: (*name).into(),
                    uid: (*name).into(),
                }],
                Kind::Each { objects, .. } => (objects.all)(),
            };
            for subject in subjects {
                if let Some(activation) = activation(kind, &mut self.held, subject) {
                    wanted.insert(activation.uid.clone(), (number, activation));
                }
            }
        }
        let gone: Vec<String> = self
            .running
            .iter()
            .filter(|(_, running)| is_meant(running.number))
            .filter(|(uid, running)| {
                wanted.get(*uid).is_none_or(|(_, activation)| activation.fence != running.fence)
            })
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in gone {
            self.stop(&uid);
        }
        for (uid, (number, activation)) in wanted {
            if self.running.contains_key(&uid) {
                self.tell(&uid);
            } else {
                self.begin(number, activation);
            }
        }
    }

    fn follow(&mut self, hint: Hint) {
        match hint {
            Hint::Kind(number) => self.sync(Some(number)),
            Hint::Object(number, subject, present) => {
                if !present {
                    self.stop(&subject.uid);
                } else if self.running.contains_key(&subject.uid) {
                    self.tell(&subject.uid);
                } else if let Some(activation) =
                    activation(&self.kinds[number], &mut self.held, subject)
                {
                    self.begin(number, activation);
                }
            }
        }
    }

    fn begin(&mut self, number: usize, activation: Activation) {
        let start = match &self.kinds[number] {
            Kind::Each { start, .. } | Kind::One { start, .. } => start.clone(),
        };
        self.serial += 1;
        let serial = self.serial;
        let Activation { actor, namespace, name, uid, fence, .. } = activation.clone();
        let subject = Subject { namespace, name, uid: uid.clone() };
        let started = start(&self.node, &activation);
        let path = self.node.local::<ControlRole>(actor.clone()).path().clone();
        self.running
            .insert(uid.clone(), Running { number, subject, actor: actor.clone(), fence, serial });
        let dead = self.dead.clone();
        let ended = match started {
            Ok(()) => Some(self.node.watch(path)),
            Err(error) => {
                // Its predecessor, of an older epoch, is about to leave the name.
                tracing::debug!(%actor, %error, "cannot start a control actor yet");
                None
            }
        };
        // Ends with the actor, or when the keeper is gone.
        tokio::spawn(async move {
            let wait = async {
                match ended {
                    Some(watch) => {
                        let ended = watch.terminated().await;
                        tracing::debug!(?ended, "control actor ended");
                        tokio::time::sleep(RESPAWN).await;
                    }
                    None => tokio::time::sleep(RETRY).await,
                }
            };
            tokio::select! {
                () = wait => {
                    // No keeper, nobody to tell.
                    let _ = dead.send(Dead { uid, serial }).await;
                }
                () = dead.closed() => {}
            }
        });
    }

    fn stop(&mut self, uid: &str) {
        if let Some(running) = self.running.remove(uid) {
            self.node.stop_actor(&running.actor);
        }
    }

    /// Tells the actor of this uid, if it lives here, to look; later, where it has no room now.
    fn tell(&mut self, uid: &str) {
        let Some(running) = self.running.get(uid) else { return };
        let told = self.node.local::<ControlRole>(running.actor.clone()).tell(Changed);
        // Who is not there looks when it begins.
        if let Err(TellError::Overloaded { .. }) = told {
            self.untold.insert(uid.to_owned());
        }
    }

    fn tell_again(&mut self) {
        for uid in std::mem::take(&mut self.untold) {
            self.tell(&uid);
        }
    }
}

/// What the actor of this object is made of, if this member holds its shard.
fn activation(kind: &Kind, held: &mut Held, subject: Subject) -> Option<Activation> {
    let Subject { namespace, name, uid } = subject;
    let actor = match kind {
        Kind::Each { prefix, .. } => format!("{prefix}/{uid}").into(),
        Kind::One { name, .. } => (*name).into(),
    };
    let (fence, since) = held.right(&uid).filter(|_| !uid.is_empty())?;
    Some(Activation { actor, namespace, name, uid, fence, since })
}

#[cfg(test)]
mod tests;
