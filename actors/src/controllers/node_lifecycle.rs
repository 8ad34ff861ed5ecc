//! Notices lost nodes, says so in their objects, and has their pods replaced.

pub mod plan;

use super::control::{Look, LookError, Next};
use super::mirror::Seen;
use super::owned;
use super::view::{CATCH_UP, View, served};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use impresario_objects::{DeleteOptions, WriteOptions};
use impresario_registry_api::{Fence, Remedy, Transaction};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use plan::{Action, UNREACHABLE};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// How often the heartbeats are looked at: they live in the leader's memory, where no watch shows
/// them.
const INTERVAL: SignedDuration = SignedDuration::from_secs(1);

/// When the leader last heard the nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    /// How long it has been leading: who is missing below has been silent for this long at most.
    pub leading_for: Duration,
    /// How long ago each node was heard.
    pub ages: HashMap<String, Duration>,
}

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
}

impl NodeLifecycleLook {
    /// A look at all nodes.
    #[must_use]
    pub fn new(view: View, fence: Fence, silence: Arc<dyn Silence>) -> Self {
        Self { view, fence, silence }
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
        let Heard { leading_for, mut ages } = self.silence.heard().await?;
        let seen = view.nodes.all();
        for node in &seen {
            // A new leader gives everyone the time that it has been leading, as grace.
            ages.entry(node.entry.key.name.clone()).or_insert(leading_for);
        }
        let nodes: Vec<_> = seen.iter().map(|node| node.object.clone()).collect();
        let now = Timestamp::now();
        let well: HashSet<&str> = seen
            .iter()
            .map(|node| (node.entry.key.name.as_str(), node))
            .filter(|(name, node)| !plan::is_lost(&node.object, ages[*name], now))
            .map(|(name, _)| name)
            .collect();
        // Nothing is asked of the pods of nodes that are well, which are nearly all.
        let pods = view.pods.picked(|pod| {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
            node.is_some_and(|node| !node.is_empty() && !well.contains(node))
        });
        let pods: Vec<_> = pods.into_iter().map(|pod| pod.object).collect();
        let (actions, _) = plan::reconcile(&nodes, &pods, &ages, now);
        for action in actions {
            match action {
                Action::Lose { node } => {
                    if let Some(seen) = seen.iter().find(|seen| seen.entry.key.name == node) {
                        self.change(seen, |object| lose(object, now)).await?;
                        let message = format!("Node {node} status is now: NodeNotReady");
                        view.normal(seen, "NodeNotReady", &message);
                        tracing::warn!(node, "node is lost: no heartbeat");
                    }
                }
                Action::Welcome { node } => {
                    if let Some(seen) = seen.iter().find(|seen| seen.entry.key.name == node) {
                        self.change(seen, welcome).await?;
                        tracing::info!(node, "node is back");
                    }
                }
                Action::Unready { pod } => self.make_unready(&pod, now).await?,
                Action::Evict { pod } => self.delete(pod, None).await?,
                Action::Remove { pod } => self.delete(pod, Some(0)).await?,
            }
        }
        Ok(Next::At(now + INTERVAL))
    }

    async fn change(
        &self,
        node: &Seen<Node>,
        change: impl FnOnce(&mut Value),
    ) -> Result<(), LookError> {
        let (compare, operation) = owned::change(node, change)?;
        let transaction = Transaction {
            compares: vec![compare],
            operations: vec![operation],
            fence: Some(self.fence),
            ..Transaction::default()
        };
        self.view.registry().transact(transaction).await?;
        Ok(())
    }

    /// Writes that a pod of a lost node is not ready. Its node says so again when it is back.
    async fn make_unready(
        &self,
        (namespace, name, uid): &(String, String, String),
        now: Timestamp,
    ) -> Result<(), LookError> {
        let Some(seen) = self.view.pods.get(namespace, name) else { return Ok(()) };
        if seen.object.metadata.uid.as_ref() != Some(uid) {
            return Ok(());
        }
        let (compare, operation) = owned::change(&seen, |object| unready(object, now))?;
        let transaction = Transaction {
            compares: vec![compare],
            operations: vec![operation],
            fence: Some(self.fence),
            ..Transaction::default()
        };
        match self.view.registry().transact(transaction).await {
            Ok(_) => self.view.warning(&seen, "NodeNotReady", "Node is not ready"),
            // It changed meanwhile: seen again with the next look.
            Err(error) if error.remedy() == Remedy::ReadAgain => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    async fn delete(
        &self,
        (namespace, name, uid): (String, String, String),
        grace: Option<i64>,
    ) -> Result<(), LookError> {
        let options = DeleteOptions {
            grace_period_seconds: grace,
            uid: Some(uid),
            ..DeleteOptions::default()
        };
        let objects = self.view.objects.fenced(self.fence);
        match objects
            .delete(served("", "pods"), &namespace, &name, &options, &WriteOptions::default())
            .await
        {
            Ok(_) => Ok(()),
            Err(status) if matches!(status.code(), 404 | 409) => Ok(()),
            Err(status) => Err(status.into()),
        }
    }
}

impl Look for NodeLifecycleLook {
    fn look(&self) -> BoxFuture<'_, Result<Next, LookError>> {
        self.look_once().boxed()
    }
}

/// Conditions become unknown, the taint is set.
fn lose(node: &mut Value, now: Timestamp) {
    let time = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    for condition in node["status"]["conditions"].as_array_mut().into_iter().flatten() {
        condition["status"] = "Unknown".into();
        condition["reason"] = "NodeStatusUnknown".into();
        condition["message"] = "The node stopped sending heartbeats.".into();
        condition["lastTransitionTime"] = time.clone().into();
    }
    let taints = &mut node["spec"]["taints"];
    if !taints.is_array() {
        *taints = json!([]);
    }
    if let Some(taints) = taints.as_array_mut() {
        for effect in ["NoSchedule", "NoExecute"] {
            taints.push(json!({ "key": UNREACHABLE, "effect": effect, "timeAdded": time }));
        }
    }
}

/// The pod's `Ready` becomes false.
fn unready(pod: &mut Value, now: Timestamp) {
    let time = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    for condition in pod["status"]["conditions"].as_array_mut().into_iter().flatten() {
        if condition["type"] == "Ready" && condition["status"] == "True" {
            condition["status"] = "False".into();
            condition["lastTransitionTime"] = time.clone().into();
        }
    }
}

fn welcome(node: &mut Value) {
    if let Some(spec) = node["spec"].as_object_mut()
        && let Some(taints) = spec.get_mut("taints").and_then(Value::as_array_mut)
    {
        taints.retain(|taint| taint["key"] != UNREACHABLE);
        if taints.is_empty() {
            spec.remove("taints");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_welcome_again_looks_as_before_but_for_its_conditions() {
        let before = json!({"spec": {"podCIDR": "127.1.0.0/24"}, "status": {"conditions": []}});
        let mut node = before.clone();
        lose(&mut node, Timestamp::UNIX_EPOCH);
        assert_eq!(node["spec"]["taints"].as_array().unwrap().len(), 2);
        welcome(&mut node);
        assert_eq!(node, before);
    }
}
