//! When the next pod may be started after others failed.

use super::super::super::pod_view::PodView as _;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use std::sync::Arc;

/// Wait after the first failure; doubled for each further one in a row.
pub const BACKOFF: SignedDuration = SignedDuration::from_secs(10);
/// The longest wait between failures.
pub const BACKOFF_LIMIT: SignedDuration = SignedDuration::from_secs(360);

/// Until when no pod may be started, after failures in a row. Ends are written in whole seconds: a
/// failure in the second of the last success counts as one after it, since only that ends a storm.
pub(super) fn of_job(pods: &[Arc<Pod>], now: Timestamp) -> Option<Timestamp> {
    let last_success = pods.iter().filter(|pod| pod.succeeded()).map(|pod| ended(pod)).max();
    let failures: Vec<Timestamp> = pods
        .iter()
        .filter(|pod| pod.finished() && !pod.succeeded())
        .map(|pod| ended(pod))
        .filter(|end| last_success.is_none_or(|success| *end >= success))
        .collect();
    let last = *failures.iter().max()?;
    after(failures.len(), last, now)
}

/// Until when an index may not be tried again, whose last pod failed after so many failures.
pub(super) fn of_index(last: &Pod, failures: usize, now: Timestamp) -> Option<Timestamp> {
    after(failures, ended(last), now)
}

fn after(failures: usize, last: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
    let wait = (BACKOFF * 2_i32.pow(doublings)).min(BACKOFF_LIMIT);
    // An end in a far future is a clock's mistake: nobody waits for longer than from now on.
    let until = last.min(now).checked_add(wait).ok()?;
    (until > now).then_some(until)
}

fn ended(pod: &Pod) -> Timestamp {
    pod.ended().unwrap_or_else(|| pod.created())
}
