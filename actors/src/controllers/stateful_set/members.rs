//! The places of a stateful set, and the pods that are at them.

use super::super::pod_view::PodView as _;
use super::super::replicas::available_at;
use impresario_api::kinds::daemonsets::REVISION_HASH;
use k8s_openapi::api::apps::v1::StatefulSetSpec;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use std::ops::Range;

/// Which places a set has.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    name: String,
    /// The numbers of its pods.
    pub(super) places: Range<i64>,
    /// For how many seconds a pod must be ready before it counts as available.
    pub(super) patience: i32,
}

/// A pod and its number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member<'a> {
    pub(super) ordinal: i64,
    pub(super) pod: &'a Pod,
}

impl Shape {
    pub(super) fn of(name: &str, spec: &StatefulSetSpec) -> Self {
        let start = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0).max(0);
        let replicas = spec.replicas.unwrap_or(1).max(0);
        Self {
            name: name.to_owned(),
            places: i64::from(start)..i64::from(start) + i64::from(replicas),
            patience: spec.min_ready_seconds.unwrap_or(0),
        }
    }

    /// How many pods there should be.
    pub(super) fn count(&self) -> usize {
        usize::try_from(self.places.end - self.places.start).unwrap_or(0)
    }

    /// The name of the pod with this number.
    pub(super) fn name_of(&self, ordinal: i64) -> String {
        format!("{}-{ordinal}", self.name)
    }

    /// The number of the pod with this name, if it is one of the set's: `web-01` is none.
    pub(super) fn ordinal_of(&self, pod: &str) -> Option<i64> {
        let ordinal = pod.strip_prefix(self.name.as_str())?.strip_prefix('-')?;
        let is_plain = ordinal.bytes().all(|byte| byte.is_ascii_digit())
            && (ordinal == "0" || !ordinal.starts_with('0'));
        ordinal.parse::<u32>().ok().filter(|_| is_plain).map(i64::from)
    }

    /// Its pods, in the order of their numbers.
    pub(super) fn members<'a>(&self, pods: &[&'a Pod]) -> Vec<Member<'a>> {
        let member =
            |pod: &'a Pod| self.ordinal_of(pod.name()).map(|ordinal| Member { ordinal, pod });
        let mut members: Vec<_> = pods.iter().copied().filter_map(member).collect();
        members.sort_by_key(|member| member.ordinal);
        members
    }

    /// Whether a number is one of its places.
    pub(super) fn has(&self, ordinal: i64) -> bool {
        self.places.contains(&ordinal)
    }
}

impl Member<'_> {
    /// The name of the revision that it was made of.
    pub(super) fn revision(&self) -> Option<&str> {
        self.pod.labels().get(REVISION_HASH).map(String::as_str)
    }

    /// Whether it is ready, and is to stay.
    pub(super) fn is_healthy(&self) -> bool {
        self.pod.ready() && !self.pod.terminating() && !self.pod.finished()
    }

    /// Whether it has been ready for long enough, and is to stay.
    pub(super) fn is_available(&self, patience: i32, now: Timestamp) -> bool {
        self.is_healthy() && available_at(self.pod, patience).is_none_or(|at| at <= now)
    }
}
