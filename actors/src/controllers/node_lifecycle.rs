//! Notices lost nodes, says so in their objects, and has their pods replaced; keeps the taints of nodes as
//! their conditions say, and drives out pods that do not tolerate those of their node.
//!
//! ```text
//! plan      what must be done          taints      which taints a node has
//! zones     how many nodes at a time   toleration  for how long a pod stays
//! written   what objects say then
//! ```
//!
//! What is due when stands in the taints (`timeAdded`), so that whoever leads next goes on where this one was. Training
//! jobs do not wait for any of it: they notice by themselves when a trainer is silent.

pub mod plan;
pub mod taints;
mod toleration;
mod written;
pub mod zones;

use super::control::{Look, LookError, Next};
use super::mirror::Seen;
use super::owned;
use super::pod_view::PodView as _;
use super::retries::Retries;
use super::view::{CATCH_UP, View, served};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use impresario_objects::{DeleteOptions, WriteOptions};
use impresario_registry_api::{Consistency, Fence, Key, Remedy, Transaction};
use impresario_runtime::clock;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
pub use plan::Heard;
use plan::{Action, PodId};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use zones::Turns;

/// Why a pod goes that does not tolerate a taint, as jobs read it.
const BY_TAINT: (&str, &str) =
    ("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint");
/// Why a pod goes whose node has no object.
const BY_LOSS: (&str, &str) = ("DeletionByPodGC", "PodGC: node no longer exists");

/// After how long a node that is lost, has its taint and says otherwise is contradicted again: it can write, so that the two
/// would write its object in turns.
const SAID_AGAIN: Duration = Duration::from_secs(60);

/// How often the heartbeats are looked at: they live in the leader's memory, where no watch shows
/// them.
const INTERVAL: SignedDuration = SignedDuration::from_secs(1);

/// Who knows when each node was last heard.
pub trait Silence: Send + Sync + 'static {
    /// Asks the leader.
    fn heard(&self) -> BoxFuture<'_, Result<Heard, LookError>>;
}

/// The node lifecycle controller of the cluster.
pub struct NodeLifecycleLook {
    view: View,
    fence: Fence,
    silence: Arc<dyn Silence>,
    /// Since when nodes that have pods have had no object.
    missing: Mutex<HashMap<String, Instant>>,
    turns: Mutex<Turns>,
    /// When it was written last of each node that it is lost; none of longer ago than [`SAID_AGAIN`].
    said_lost: Mutex<HashMap<String, Instant>>,
    retries: Retries,
}

impl NodeLifecycleLook {
    /// A look at all nodes.
    #[must_use]
    pub fn new(view: View, fence: Fence, silence: Arc<dyn Silence>) -> Self {
        let (missing, turns, said_lost, retries) = Default::default();
        Self { view, fence, silence, missing, turns, said_lost, retries }
    }

    /// The look, ready for a control actor.
    #[must_use]
    pub fn shared(self) -> Arc<dyn Look> {
        Arc::new(self)
    }

    async fn look_once(&self) -> Result<Next, LookError> {
        let view = &self.view;
        view.nodes.reached(1, CATCH_UP).await?;
        view.pods.reached(1, CATCH_UP).await?;
        let heard = self.silence.heard().await?;
        let seen = view.nodes.all();
        let nodes: Vec<_> = seen.iter().map(|node| node.object.clone()).collect();
        let (now, instant) = (clock::timestamp(), clock::now());
        let well: HashSet<&str> = seen
            .iter()
            .filter(|node| !heard.concerns_pods(&node.object, now))
            .map(|node| node.entry.key.name.as_str())
            .collect();
        // Nothing is asked of the pods of nodes that are well, which are nearly all.
        let pods = view.pods.picked(|pod| {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
            node.is_some_and(|node| !node.is_empty() && !well.contains(node))
        });
        let pods: Vec<_> = pods.into_iter().map(|pod| pod.object).collect();
        let missing = self.missing(&nodes, &pods, instant);
        let turns = {
            let mut turns = self.turns.lock();
            turns.read(nodes.iter(), now);
            turns.clone()
        };
        let (nodes, pods, heard) = (&nodes[..], &pods[..], &heard);
        let all = plan::Seen { nodes, pods, heard, missing: &missing, turns: &turns };
        let actions = plan::reconcile(all, now);
        // One that fails, however often, keeps nobody else waiting.
        for action in actions {
            let (key, what) = action.about();
            if !self.retries.may_try(&key, instant) {
                continue;
            }
            let outcome = self.act(&seen, action, now).await;
            self.retries.note(&key, what, outcome, instant)?;
        }
        // It looks again before any of them is due.
        let _ = self.retries.next(instant);
        Ok(Next::At(now + INTERVAL))
    }

    /// For how long the nodes of these pods that have no object have had none, as far as was seen.
    fn missing(
        &self,
        nodes: &[Arc<Node>],
        pods: &[Arc<Pod>],
        now: Instant,
    ) -> HashMap<String, Duration> {
        let present: HashSet<&str> =
            nodes.iter().filter_map(|node| node.metadata.name.as_deref()).collect();
        let named = pods.iter().filter_map(|pod| pod.spec.as_ref()?.node_name.as_deref());
        let without: HashSet<&str> = named.filter(|node| !present.contains(node)).collect();
        let mut missing = self.missing.lock();
        missing.retain(|node, _| without.contains(node.as_str()));
        for node in without {
            missing.entry(node.to_owned()).or_insert(now);
        }
        missing.iter().map(|(node, since)| (node.clone(), now.duration_since(*since))).collect()
    }

    async fn act(
        &self,
        seen: &[Seen<Node>],
        action: Action,
        now: Timestamp,
    ) -> Result<(), LookError> {
        let of = |name: &str| seen.iter().find(|seen| seen.entry.key.name == name);
        match action {
            Action::Lose { node, taints } => {
                let Some(seen) = of(&node) else { return Ok(()) };
                if taints == taints::of(&seen.object) && self.has_just_said(&node) {
                    return Ok(());
                }
                let lose = |object: &mut Value| {
                    written::lose(object, now);
                    written::retaint(object, &taints);
                };
                if self.change(seen, lose).await? {
                    self.said_lost.lock().insert(node.clone(), clock::now());
                    let message = format!("Node {node} status is now: NodeNotReady");
                    self.view.normal(seen, "NodeNotReady", &message);
                    tracing::warn!(node, "node is lost: no heartbeat");
                }
            }
            Action::Taint { node, taints } => {
                let Some(seen) = of(&node) else { return Ok(()) };
                let was_lost = |taints: &[_]| taints.iter().any(taints::is_trouble);
                if self.change(seen, |object| written::retaint(object, &taints)).await?
                    && was_lost(taints::of(&seen.object))
                    && !was_lost(&taints)
                {
                    tracing::info!(node, "node is back");
                }
            }
            Action::Unready { pod } => self.make_unready(&pod, now).await?,
            Action::Evict { pod } => self.evict(pod, now).await?,
            Action::Release { pod } => {
                if !self.end(&pod, None, now).await? {
                    return Ok(());
                }
                tracing::warn!(
                    namespace = pod.0,
                    pod = pod.1,
                    "pod is removed: its node is out of service"
                );
                self.delete(pod, Some(0)).await?;
            }
            Action::Remove { node, pod } => {
                // The mirror leaves out what it cannot read, and may be late.
                let key = Key::new("nodes", "", &node);
                let registry = self.view.registry();
                if registry.get(key, Consistency::Linearizable).await?.0.is_none()
                    && self.end(&pod, Some(BY_LOSS), now).await?
                {
                    tracing::warn!(
                        node,
                        namespace = pod.0,
                        pod = pod.1,
                        "pod is removed: its node has no object"
                    );
                    self.delete(pod, Some(0)).await?;
                }
            }
        }
        Ok(())
    }

    /// Whether it was just written of a node that it is lost.
    fn has_just_said(&self, node: &str) -> bool {
        let now = clock::now();
        let mut said = self.said_lost.lock();
        said.retain(|_, at| now.duration_since(*at) < SAID_AGAIN);
        said.contains_key(node)
    }

    /// Has a pod say why it goes, and then asks for its end. Where it changed meanwhile, with the next look.
    async fn evict(&self, pod: PodId, now: Timestamp) -> Result<(), LookError> {
        if !self.disrupt(&pod, BY_TAINT, now).await? {
            return Ok(());
        }
        if let Some(seen) = self.view.pods.get(&pod.0, &pod.1) {
            let message = format!("Marking for deletion Pod {}/{}", pod.0, pod.1);
            self.view.normal(&seen, "TaintManagerEviction", &message);
        }
        self.delete(pod, None).await
    }

    /// Writes into a pod why it goes. False if it changed meanwhile, or is gone.
    async fn disrupt(
        &self,
        pod: &PodId,
        why: (&str, &str),
        now: Timestamp,
    ) -> Result<bool, LookError> {
        let Some(seen) = self.pod(pod) else { return Ok(false) };
        if is_said(&seen.object, why.0) {
            return Ok(true);
        }
        self.change(&seen, |object| written::disrupt(object, why.0, why.1, now)).await
    }

    /// Writes into a pod that it has failed, where it has not ended, and why it goes, if that is new. False if it
    /// changed meanwhile, or is gone.
    async fn end(
        &self,
        pod: &PodId,
        why: Option<(&str, &str)>,
        now: Timestamp,
    ) -> Result<bool, LookError> {
        let Some(seen) = self.pod(pod) else { return Ok(false) };
        let why = why.filter(|why| !is_said(&seen.object, why.0));
        let has_ended = seen.object.finished();
        if has_ended && why.is_none() {
            return Ok(true);
        }
        // In one write: who sees the end of it goes by why it went.
        let end = |object: &mut Value| {
            if let Some((reason, message)) = why {
                written::disrupt(object, reason, message, now);
            }
            if !has_ended {
                written::fail(object);
            }
        };
        self.change(&seen, end).await
    }

    /// A pod as it is seen, if it is there.
    fn pod(&self, (namespace, name, uid): &PodId) -> Option<Seen<Pod>> {
        let seen = self.view.pods.get(namespace, name);
        seen.filter(|seen| seen.object.metadata.uid.as_ref() == Some(uid))
    }

    /// Changes an object as it was seen. False if it changed meanwhile: seen again with the next look.
    async fn change<K>(
        &self,
        seen: &Seen<K>,
        change: impl FnOnce(&mut Value),
    ) -> Result<bool, LookError> {
        let (compare, operation) = owned::change(seen, change)?;
        let transaction = Transaction {
            compares: vec![compare],
            operations: vec![operation],
            fence: Some(self.fence),
            ..Transaction::default()
        };
        match self.view.registry().transact(transaction).await {
            Ok(_) => Ok(true),
            Err(error) if error.remedy() == Remedy::ReadAgain => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes that a pod of a lost node is not ready. Its node says so again when it is back.
    async fn make_unready(&self, pod: &PodId, now: Timestamp) -> Result<(), LookError> {
        let Some(seen) = self.pod(pod) else { return Ok(()) };
        if self.change(&seen, |object| written::unready(object, now)).await? {
            self.view.warning(&seen, "NodeNotReady", "Node is not ready");
        }
        Ok(())
    }

    async fn delete(
        &self,
        (namespace, name, uid): PodId,
        grace: Option<i64>,
    ) -> Result<(), LookError> {
        let options = DeleteOptions {
            grace_period_seconds: grace,
            uid: Some(uid),
            ..DeleteOptions::default()
        };
        let objects = self.view.objects.fenced(self.fence);
        match objects
            .delete(&served("", "pods"), &namespace, &name, &options, &WriteOptions::default())
            .await
        {
            Ok(_) => Ok(()),
            Err(status) if status.is_superseded() => Ok(()),
            Err(status) => Err(status.into()),
        }
    }
}

/// Whether a pod says that it goes for this reason.
fn is_said(pod: &Pod, reason: &str) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref());
    conditions.unwrap_or_default().iter().any(|said| {
        said.type_ == "DisruptionTarget"
            && said.status == "True"
            && said.reason.as_deref() == Some(reason)
    })
}

impl Look for NodeLifecycleLook {
    fn look(&self) -> BoxFuture<'_, Result<Next, LookError>> {
        self.look_once().boxed()
    }
}

#[cfg(test)]
mod tests;
