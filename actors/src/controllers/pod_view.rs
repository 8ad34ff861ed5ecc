//! What controllers want to know of a pod, read from its object once and in one way.
//!
//! A pod *counts* while it is neither terminating nor finished; it is *ready* by its `Ready`
//! condition (API reference, Pod v1, `status.conditions`).

use super::{labels, owners};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::jiff::Timestamp;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Questions that controllers ask of a pod.
pub trait PodView {
    /// The object's name; empty only for an object that was never stored.
    fn name(&self) -> &str;
    /// The object's uid.
    fn uid(&self) -> &str;
    /// Deletion was asked for, the node has not yet said that the pod is gone.
    fn terminating(&self) -> bool;
    /// All containers ended and none will be started again.
    fn finished(&self) -> bool;
    /// `Succeeded`: finished, and every container with exit code 0.
    fn succeeded(&self) -> bool;
    /// The `Ready` condition is true.
    fn ready(&self) -> bool;
    /// A node was chosen.
    fn bound(&self) -> bool;
    /// When the object was created; the epoch for an object that was never stored.
    fn created(&self) -> Timestamp;
    /// When the last container ended, for a finished pod.
    fn ended(&self) -> Option<Timestamp>;
    /// Since when the pod is ready, if it is and somebody wrote down when.
    fn ready_since(&self) -> Option<Timestamp>;
    /// How often its containers were started again, those that come first among them.
    fn restarts(&self) -> i32;
    /// The owner that manages this pod, if any.
    fn controller(&self) -> Option<&OwnerReference>;
    /// The pod's labels.
    fn labels(&self) -> &BTreeMap<String, String>;
}

impl PodView for Pod {
    fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    fn terminating(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    fn finished(&self) -> bool {
        matches!(phase(self), "Succeeded" | "Failed")
    }

    fn succeeded(&self) -> bool {
        phase(self) == "Succeeded"
    }

    fn ready(&self) -> bool {
        let conditions = self.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
    }

    fn ready_since(&self) -> Option<Timestamp> {
        let conditions = self.status.as_ref()?.conditions.as_ref()?;
        let ready = conditions.iter().find(|c| c.type_ == "Ready" && c.status == "True")?;
        ready.last_transition_time.as_ref().map(|time| time.0)
    }

    fn restarts(&self) -> i32 {
        let Some(status) = self.status.as_ref() else { return 0 };
        let all = status.container_statuses.iter().chain(&status.init_container_statuses);
        all.flatten().fold(0, |sum: i32, container| sum.saturating_add(container.restart_count))
    }

    fn bound(&self) -> bool {
        self.spec
            .as_ref()
            .and_then(|spec| spec.node_name.as_deref())
            .is_some_and(|node| !node.is_empty())
    }

    fn created(&self) -> Timestamp {
        self.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0)
    }

    fn ended(&self) -> Option<Timestamp> {
        let status = self.status.as_ref()?;
        status
            .container_statuses
            .iter()
            .flatten()
            .filter_map(|c| c.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref())
            .map(|time| time.0)
            .max()
    }

    fn controller(&self) -> Option<&OwnerReference> {
        owners::controller(&self.metadata)
    }

    fn labels(&self) -> &BTreeMap<String, String> {
        labels::of(&self.metadata)
    }
}

/// How little is lost with a pod: the least goes first. Without a node, not running, not ready; then
/// by `among_equals`; then ready for the shortest time, started again most often, the youngest.
/// (Kubernetes documentation, "ReplicaSet", "Pod deletion cost" and the order before it.)
pub fn loss<T: Ord>(pod: &Pod, among_equals: T) -> impl Ord + use<T> {
    (
        (pod.bound(), phase(pod) == "Running", pod.ready()),
        among_equals,
        Reverse(pod.ready_since()),
        Reverse(pod.restarts()),
        Reverse(pod.created()),
    )
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}
