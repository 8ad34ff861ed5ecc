//! Pods of a controller that failed for good: how long their replacements wait, and how many are kept.
//!
//! A pod that its node refuses, or that is evicted as soon as it is there, fails at once, and so does the one
//! that takes its place. Each round of failures that comes soon after the one before waits twice as long as
//! that one took. The rounds are read off the failed pods themselves, so that whoever takes over goes on: off
//! the times at which they were created, which no node writes. What is still to come has not been. A pod whose containers fail never comes here: they are started again where they are.

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
pub(super) fn failures(mut failed: Vec<&Pod>, wanted: usize, now: Timestamp) -> Failures<'_> {
    let round = wanted.max(1);
    let mut created: Vec<_> =
        failed.iter().map(|pod| pod.created()).filter(|at| *at <= now).collect();
    created.sort_unstable_by_key(|at| std::cmp::Reverse(*at));
    let wait_until = created.first().zip(created.get(round)).and_then(|(last, before)| {
        let took = last.duration_since(*before);
        let wait = took.saturating_mul(2).clamp(WAIT.0, WAIT.1);
        last.checked_add(wait).ok().filter(|_| took < APART)
    });
    let failed_at = |pod: &Pod| pod.ended().filter(|at| *at <= now).max(Some(pod.created()));
    failed.sort_by_cached_key(|pod| std::cmp::Reverse((failed_at(pod), pod.uid().to_owned())));
    let surplus = failed.split_off(failed.len().min(KEPT.max(round + 1)));
    Failures { wait_until, surplus }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

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
            let wait = failures(pods.iter().collect(), 2, at(now)).wait_until;
            let until = wait.map_or(now, Timestamp::as_second);
            waits.push(until - now);
            now = until;
        }
        assert_eq!(waits, [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300]);
    }

    #[test]
    fn who_fails_now_and_then_is_replaced_at_once() {
        let pods: Vec<_> = (0..30).map(|number| pod(number, number * 1_000)).collect();
        assert_eq!(failures(pods.iter().collect(), 1, at(29_000)).wait_until, None);
        assert_eq!(failures(Vec::new(), 3, at(0)), Failures::default());
    }

    #[test]
    fn no_clock_and_no_word_of_a_node_keeps_a_controller_from_making_pods() {
        let now = 1_000_000;
        let said = |mut pod: Pod, ended: &str| {
            pod.status.as_mut().unwrap().container_statuses = serde_json::from_value(json!([
                {"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"terminated": {"exitCode": 1, "finishedAt": ended}}}
            ]))
            .unwrap();
            pod
        };
        for ended in ["9999-12-30T21:00:00Z", "1970-01-12T14:00:00Z", "1970-01-12T13:46:39Z"] {
            let pods = [said(pod(1, now - 20), ended), said(pod(2, now - 18), ended)];
            let until = failures(pods.iter().collect(), 1, at(now)).wait_until;
            assert_eq!(until.map(Timestamp::as_second), Some(now - 14), "{ended}");
        }
        // The clock of a control member went back by an hour after two had failed; then one more fails.
        let mut pods = vec![pod(1, now + 3_600), pod(2, now + 3_601), pod(3, now - 1)];
        assert_eq!(failures(pods.iter().collect(), 1, at(now)).wait_until, None);
        pods.push(pod(4, now));
        let until = failures(pods.iter().collect(), 1, at(now)).wait_until;
        assert_eq!(until.map(Timestamp::as_second), Some(now + 2));
    }

    #[test]
    fn the_newest_failures_are_kept() {
        let pods: Vec<_> = (0..50).map(|number| pod(number, number)).collect();
        let surplus = failures(pods.iter().collect(), 3, at(50)).surplus;
        let mut names: Vec<_> = surplus.iter().map(|pod| pod.name()).collect();
        names.sort_unstable();
        assert_eq!(
            (names.len(), names[0], failures(pods.iter().collect(), 40, at(50)).surplus.len()),
            (30, "p0", 9)
        );
    }
}
