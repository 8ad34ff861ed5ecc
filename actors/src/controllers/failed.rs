//! When a pod that ended by itself is replaced, where another takes its very place: on a node, or under a name.
//!
//! A pod that its node refuses fails at once, and so does the one that takes its place: each that ends soon is kept twice as long
//! as the one before, for people to look at. How many have failed stands with the next one.

use super::pod_view::PodView as _;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// The shortest and the longest wait for the replacement of one that failed.
const WAIT: (SignedDuration, SignedDuration) =
    (SignedDuration::from_secs(1), SignedDuration::from_secs(300));
/// One that lived for so long has nothing to do with those that failed before.
const APART: SignedDuration = SignedDuration::from_secs(600);

/// What becomes of a pod that ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failed {
    /// It is kept until then; none where it is time for the next.
    pub(super) kept_until: Option<Timestamp>,
    /// How many have failed at its place with it, one soon after the other.
    pub(super) in_a_row: u32,
}

/// What becomes of a pod that ended. How many failed before it is said by its annotation of this name.
pub(super) fn failed(pod: &Pod, annotation: &str, now: Timestamp) -> Failed {
    let annotations = pod.metadata.annotations.as_ref();
    let said = annotations.and_then(|all| all.get(annotation)).and_then(|said| said.parse().ok());
    let ended = pod.ended().filter(|at| *at <= now).unwrap_or(pod.created()).max(pod.created());
    let soon = ended.duration_since(pod.created()) < APART;
    let before = if soon { said.unwrap_or(0_u32).min(16) } else { 0 };
    let wait = WAIT.0.saturating_mul(1 << before).min(WAIT.1);
    let kept_until = ended.checked_add(wait).ok().filter(|until| *until > now);
    Failed { kept_until, in_a_row: before + 1 }
}
