//! How a job knows its pods: the marks that they carry, and their names.

use super::super::super::pod_view::PodView as _;
use k8s_openapi::api::core::v1::Pod;
use std::sync::Arc;

/// The finalizer of a pod whose end is not counted yet.
pub const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// Label and annotation of a pod of an indexed job: its index.
pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Annotation of a pod whose index counts its failures: how many there were before it.
pub const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// The same for failures that the failure policy ignores.
pub const INDEX_IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// A pod by name and by the uid that was seen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodId {
    /// The pod's name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// The index of a pod of an indexed job.
pub(super) fn index(pod: &Pod) -> Option<u32> {
    pod.metadata.annotations.as_ref()?.get(INDEX)?.parse().ok()
}

/// How an action names a pod.
pub(super) fn id(pod: &Arc<Pod>) -> PodId {
    PodId { name: pod.name().into(), uid: pod.uid().into() }
}

/// A count as a status has it.
pub(super) fn to_i32(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}
