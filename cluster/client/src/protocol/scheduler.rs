//! What a Scheduler actor (`scheduler/NAME`) can be asked, and what nodes tell it.

use super::control;
use super::resources::Resources;
use impresario_runtime::{message, role};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use thiserror::Error;

/// The name of the scheduler that pods get when they name none.
pub const DEFAULT_SCHEDULER: &str = "default-scheduler";

/// The actor name of the scheduler with this name; its shard is the hash of that too.
pub fn actor_name(scheduler: &str) -> String {
    format!("scheduler/{scheduler}")
}

role! {
    /// The actor that finds a node for every pod.
    pub SchedulerRole = "scheduler" {
        asks: [SummaryChanged, Status, Explain, Examine, control::Describe],
        streams: []
    }
}

/// What a node has and has left, as the node itself sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSummary {
    /// The node's name.
    pub node: String,
    /// Which life of the node speaks: a later one is a larger number.
    pub incarnation: u64,
    /// Rises with every change in one life; an older summary than the last seen is ignored.
    pub serial: u64,
    /// What pods may use in all.
    pub allocatable: Resources,
    /// What neither a pod nor a reservation holds.
    pub free: Resources,
    /// Pods that hold resources here.
    pub pods: u64,
    /// Reservations that no bound pod has taken over yet.
    pub reserved: u64,
    /// Whether the node refuses further pods.
    pub draining: bool,
}

/// A node that is followed tells that what it has left is different now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SummaryChanged {
    /// The whole picture, never a difference.
    pub summary: NodeSummary,
}
message!(SummaryChanged => (), "scheduler.SummaryChanged", impresario_runtime::Lane::Control);

/// Asks what the scheduler is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status;
message!(Status => SchedulerStatus, "scheduler.Status");

/// What the scheduler is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchedulerStatus {
    /// The scheduler's name.
    pub name: String,
    /// The policy that scores nodes.
    pub policy: String,
    /// Pods that wait for a node.
    pub pending: u64,
    /// Of these, the ones that fit nowhere at the moment.
    pub unschedulable: u64,
    /// Nodes by name, with what the scheduler believes is free on each.
    pub nodes: BTreeMap<String, Resources>,
    /// Pods bound since this activation started.
    pub bound: u64,
    /// Reservations that nodes refused since this activation started.
    pub refused: u64,
}

/// Asks why a pod is where it is, or nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explain {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
}
message!(Explain => Result<Explanation, NotWaiting>, "scheduler.Explain");

/// Why a pod waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// What the pod asks for.
    pub requests: Resources,
    /// How often a node was looked for.
    pub attempts: u32,
    /// The last answer, as in the pod's event; empty when the pod has not been looked at yet.
    pub message: String,
}

/// Asks of each node why a pod that waits may not go there, or how well it would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Examine {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
}
message!(Examine => Result<Examination, NotWaiting>, "scheduler.Examine");

/// What the nodes are to a pod that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Examination {
    /// What the pod asks for.
    pub requests: Resources,
    /// How often a node was looked for.
    pub attempts: u32,
    /// The last answer, as in the pod's event; empty when the pod has not been looked at yet.
    pub message: String,
    /// The node that others are leaving for it.
    pub nominated: Option<String>,
    /// How many nodes there are.
    pub nodes: u64,
    /// Those where it may not go, by name; [`MOST_EXAMINED`] at most.
    pub unfit: Vec<UnfitNode>,
    /// The best of those where it may go, first the very best; [`BEST_EXAMINED`] at most.
    pub best: Vec<ScoredNode>,
    /// To how many nodes it may go.
    pub fitting: u64,
}

/// So many nodes are told one by one.
pub const MOST_EXAMINED: usize = 1_000;
/// Of so many nodes the scores are told.
pub const BEST_EXAMINED: usize = 3;

/// A node to which a pod may not go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnfitNode {
    /// The node.
    pub node: String,
    /// All reasons, in the words of events.
    pub reasons: Vec<String>,
}

/// A node to which a pod may go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScoredNode {
    /// The node.
    pub node: String,
    /// The sum; more is better.
    pub score: i64,
    /// Whose it is: that of the policy, and of each wish that the pod has.
    pub parts: Vec<(String, i64)>,
}

/// There is nothing to explain.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[error(
    "pod {namespace}/{pod} does not wait for this scheduler: see spec.nodeName and \
     spec.schedulerName of the pod"
)]
pub struct NotWaiting {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
}
