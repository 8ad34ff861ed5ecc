//! Tells the controllers of a node's pods what was written of these: a hint that makes nobody wait.
//!
//! ```text
//!   Pod actors ──the last write of each──> a task ──Told──> KIND/UID, at the control member that has it
//! ```
//!
//! Where the actor lives only control members know: all of them are asked, and the one that has it is remembered. It is
//! an `ask`, since a `tell` that nobody is there for is counted as lost at both ends; the task waits for the answer, and
//! no pod does. A hint that has no place, or that nobody takes, is dropped and counted: the watch of the owner's member
//! brings what it says.

use crate::controllers::owners::controller;
use futures_util::stream::{self, FuturesUnordered, StreamExt as _};
use impresario_api::catalog::find_kind;
use impresario_client::protocol::control::{ControlRole, Told};
use impresario_registry_api::{Entry, Key};
use impresario_runtime::{ActorNode, ActorPath, NodeName, tasks};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// How many hints may wait for the task; with those that it is sending, about twice as many are kept.
const WAITING: usize = 256;
/// How many are sent at a time.
const AT_A_TIME: usize = 16;
/// How long a member has to take one: later the watch has long told what it says.
const LIMIT: Duration = Duration::from_secs(1);
/// Of how many owners it is kept where they live.
const REMEMBERED: usize = 1024;

/// The kinds whose actors are told.
const TOLD: [(&str, &str); 5] = [
    ("v1", "ReplicationController"),
    ("apps/v1", "ReplicaSet"),
    ("apps/v1", "DaemonSet"),
    ("apps/v1", "StatefulSet"),
    ("batch/v1", "Job"),
];

/// What an owner's actor is called, and what it is told.
type Hint = (String, Told);

/// The task, and the way to it. Ends when dropped.
pub struct Owners {
    node: String,
    hints: mpsc::Sender<Hint>,
    dropped: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Drop for Owners {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Owners {
    /// Tells the actors of these members, by this node. Must be called within a tokio runtime.
    pub fn start(node: ActorNode, members: watch::Receiver<Vec<NodeName>>) -> Self {
        let (hints, waiting) = mpsc::channel(WAITING);
        let dropped = Arc::new(AtomicU64::new(0));
        let name = node.name().to_string();
        let task = tasks::spawn(pass_on(node, members, waiting, dropped.clone()));
        Self { node: name, hints, dropped, task }
    }

    /// Says that a pod was written: what is stored now, and its metadata.
    pub(super) fn tell(&self, entry: &Entry, metadata: &ObjectMeta) {
        let Some(owner) = owner_of(metadata) else { return };
        let told = Told {
            node: self.node.clone(),
            key: entry.key.clone(),
            uid: metadata.uid.clone().unwrap_or_default(),
            revision: entry.mod_revision,
        };
        if self.hints.try_send((owner, told)).is_err() {
            dropped(&self.dropped);
        }
    }

    /// How many hints were dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

fn dropped(count: &AtomicU64) {
    let dropped = count.fetch_add(1, Ordering::Relaxed) + 1;
    tracing::debug!(
        dropped,
        "the owner of a pod is not told what was written: its watch brings it"
    );
}

/// The actor of the controller of a pod, if it is one that is told.
fn owner_of(metadata: &ObjectMeta) -> Option<String> {
    let owner = controller(metadata)?;
    let is_told = |told: &(&str, &str)| *told == (owner.api_version.as_str(), owner.kind.as_str());
    TOLD.iter().find(|told| is_told(told))?;
    let (group, version) = owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
    Some(format!("{}/{}", find_kind(group, version, &owner.kind)?.singular, owner.uid))
}

async fn pass_on(
    node: ActorNode,
    members: watch::Receiver<Vec<NodeName>>,
    mut waiting: mpsc::Receiver<Hint>,
    lost: Arc<AtomicU64>,
) {
    let mut some = Vec::with_capacity(WAITING);
    let mut lives_at: HashMap<String, NodeName> = HashMap::new();
    while waiting.recv_many(&mut some, WAITING).await > 0 {
        let members = members.borrow().clone();
        let sent = newest(some.drain(..)).map(|(owner, told)| {
            let known = lives_at.get(&owner).cloned();
            let found = send(&node, &members, known, owner.clone(), told);
            async move { (owner, found.await) }
        });
        let sent: Vec<_> =
            stream::iter(sent.collect::<Vec<_>>()).buffer_unordered(AT_A_TIME).collect().await;
        for (owner, found) in sent {
            if lives_at.len() >= REMEMBERED {
                lives_at.clear();
            }
            match found {
                Some(member) => drop(lives_at.insert(owner, member)),
                None => {
                    lives_at.remove(&owner);
                    dropped(&lost);
                }
            }
        }
    }
}

/// Tells an owner where it is known to live, or wherever it does. Who has it, if anybody has taken the hint.
async fn send(
    node: &ActorNode,
    members: &[NodeName],
    known: Option<NodeName>,
    owner: String,
    told: Told,
) -> Option<NodeName> {
    let ask = |member: NodeName| {
        let actor = node.actor::<ControlRole>(ActorPath::new(member.clone(), owner.as_str()));
        let answer = actor.ask(told.clone(), LIMIT);
        async move { answer.await.is_ok().then_some(member) }
    };
    if let Some(member) = known.filter(|known| members.contains(known))
        && let Some(member) = ask(member).await
    {
        return Some(member);
    }
    let mut asked: FuturesUnordered<_> = members.iter().cloned().map(ask).collect();
    while let Some(answer) = asked.next().await {
        if answer.is_some() {
            return answer;
        }
    }
    None
}

/// The last write of each pod.
fn newest(hints: impl Iterator<Item = Hint>) -> impl Iterator<Item = Hint> {
    let mut newest: BTreeMap<Key, Hint> = BTreeMap::new();
    for hint in hints {
        let is_newer = |known: &Hint| known.1.revision < hint.1.revision;
        if newest.get(&hint.1.key).is_none_or(is_newer) {
            newest.insert(hint.1.key.clone(), hint);
        }
    }
    newest.into_values()
}

#[cfg(test)]
mod tests;
