//! Pods of a controller that failed for good: how long their replacements wait, and how many are kept.
//!
//! A pod that its node refuses, or that is evicted as soon as it is there, fails at once, and so does the one
//! that takes its place. Each round of failures that comes soon after the one before waits twice as long as
//! that one took. The rounds are read off the failed pods themselves, so that whoever takes over goes on. A
//! pod whose containers fail never comes here: they are started again where they are.

use super::super::pod_view::PodView;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// The shortest and the longest wait for replacements.
const WAIT: (SignedDuration, SignedDuration) =
    (SignedDuration::from_secs(1), SignedDuration::from_secs(300));
/// Rounds that are so far apart have nothing to do with each other.
const APART: SignedDuration = SignedDuration::from_secs(600);
/// So many failed pods are kept for people to look at; more where a round has more.
const KEPT: usize = 20;

/// What follows from the failed pods of a controller.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Failures<'a> {
    /// No pod is created before.
    pub(super) wait_until: Option<Timestamp>,
    /// Those that are not kept: the oldest.
    pub(super) surplus: Vec<&'a Pod>,
}

/// What follows from these failed pods of a controller that wants so many.
pub(super) fn failures(mut failed: Vec<&Pod>, wanted: usize) -> Failures<'_> {
    let at = |pod: &Pod| pod.ended().unwrap_or_default().max(pod.created());
    failed.sort_by_cached_key(|pod| std::cmp::Reverse((at(pod), pod.uid().to_owned())));
    let round = wanted.max(1);
    let wait_until = failed.first().zip(failed.get(round)).and_then(|(last, before)| {
        let took = at(last).duration_since(at(before));
        let wait = took.saturating_mul(2).clamp(WAIT.0, WAIT.1);
        at(last).checked_add(wait).ok().filter(|_| took < APART)
    });
    let surplus = failed.split_off(failed.len().min(KEPT.max(round + 1)));
    Failures { wait_until, surplus }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(number: i64, at: i64) -> Pod {
        let created = Timestamp::from_second(at).unwrap().to_string();
        serde_json::from_value(json!({
            "metadata": {"name": format!("p{number}"), "uid": format!("{number:09}"),
                "creationTimestamp": created},
            "status": {"phase": "Failed"}}))
        .unwrap()
    }

    #[test]
    fn pods_that_fail_at_once_are_replaced_ever_more_slowly() {
        let (mut pods, mut now, mut waits) = (Vec::new(), 1_000_000, Vec::new());
        for round in 0..14 {
            pods.extend([pod(2 * round, now), pod(2 * round + 1, now)]);
            let wait = failures(pods.iter().collect(), 2).wait_until;
            let until = wait.map_or(now, Timestamp::as_second);
            waits.push(until - now);
            now = until;
        }
        assert_eq!(waits, [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300]);
    }

    #[test]
    fn who_fails_now_and_then_is_replaced_at_once() {
        let pods: Vec<_> = (0..30).map(|number| pod(number, number * 1_000)).collect();
        assert_eq!(failures(pods.iter().collect(), 1).wait_until, None);
        assert_eq!(failures(Vec::new(), 3), Failures::default());
    }

    #[test]
    fn the_newest_failures_are_kept() {
        let pods: Vec<_> = (0..50).map(|number| pod(number, number)).collect();
        let surplus = failures(pods.iter().collect(), 3).surplus;
        let mut names: Vec<_> = surplus.iter().map(|pod| pod.name()).collect();
        names.sort_unstable();
        assert_eq!(
            (names.len(), names[0], failures(pods.iter().collect(), 40).surplus.len()),
            (30, "p0", 9)
        );
    }
}
