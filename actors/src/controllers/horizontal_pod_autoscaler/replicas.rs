//! How many pods would bring what they use to what they should: plain arithmetic over pods and what is known of each.
//!
//! Of a pod of which nothing is known, the most cautious is assumed: that it uses nothing where more pods would follow, and
//! all that it asks for where fewer would. What a pod uses while it begins does not count.
//! (Kubernetes documentation, "Horizontal Pod Autoscaling", "Algorithm details".)

use super::super::pod_view::PodView as _;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// So long after its start the CPU of a pod counts only while it is ready.
const CPU_INITIALIZATION: SignedDuration = SignedDuration::from_mins(5);
/// So long after it became ready the CPU of a pod that has just started does not count: where nothing probes it, it is ready
/// at once, and what nodes tell is averaged over shorter times than a start takes.
const SETTLING: SignedDuration = SignedDuration::from_secs(15);
/// A pod that stopped being ready so soon after its start has never been ready.
const INITIAL_READINESS: SignedDuration = SignedDuration::from_secs(30);

/// What is known of a pod: CPU in thousandths, memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) value: i64,
    pub(super) taken: Timestamp,
    pub(super) window: Duration,
}

/// A pod, what it uses and what it asks for.
#[derive(Debug)]
pub(super) struct Measured<'a> {
    pub(super) pod: &'a Pod,
    pub(super) sample: Option<Sample>,
    pub(super) request: i64,
}

/// What is wanted of each pod on average.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// So many percent of what it asks for.
    Utilization(i32),
    /// So much.
    Average(i64),
}

/// How much more and how much less than wanted is left as it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tolerances {
    pub(super) up: f64,
    pub(super) down: f64,
}

impl Tolerances {
    fn hold(self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

/// How many there should be, and what is used now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Proposal {
    pub(super) replicas: i32,
    pub(super) utilization: Option<i32>,
    pub(super) average: i64,
}

/// How a pod counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counts {
    Not,
    Unready,
    Missing,
    With(i64),
}

fn counts(measured: &Measured<'_>, is_cpu: bool, now: Timestamp) -> Counts {
    let pod = measured.pod;
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
    if pod.terminating() || phase == "Failed" || phase == "Succeeded" {
        return Counts::Not;
    }
    if phase == "Pending" {
        return Counts::Unready;
    }
    let Some(sample) = measured.sample else { return Counts::Missing };
    if is_cpu && is_beginning(pod, &sample, now) {
        Counts::Unready
    } else {
        Counts::With(sample.value)
    }
}

/// Whether what a pod uses of the CPU may be for its start alone.
fn is_beginning(pod: &Pod, sample: &Sample, now: Timestamp) -> bool {
    let status = pod.status.as_ref();
    let ready: Option<&PodCondition> = status
        .and_then(|status| status.conditions.as_ref())
        .and_then(|all| all.iter().find(|condition| condition.type_ == "Ready"));
    let started = status.and_then(|status| status.start_time.as_ref()).map(|time| time.0);
    let (Some(ready), Some(started)) = (ready, started) else { return true };
    let since = ready.last_transition_time.as_ref().map_or(started, |time| time.0);
    let is_unready = ready.status == "False";
    // Nodes write these times: one that cannot be counted on from is later than all others.
    let after =
        |at: Timestamp, time: SignedDuration| at.checked_add(time).unwrap_or(Timestamp::MAX);
    if after(started, CPU_INITIALIZATION) > now {
        let window = SignedDuration::try_from(sample.window).unwrap_or(SignedDuration::MAX);
        is_unready || sample.taken < after(since, window.max(SETTLING))
    } else {
        is_unready && after(started, INITIAL_READINESS) > since
    }
}

/// Why nothing can be said.
pub(super) const NOTHING_KNOWN: &str =
    "did not receive metrics for targeted pods (pods might be unready)";

/// How many there should be of these pods, of which there are `current`.
pub(super) fn propose(
    pods: &[Measured<'_>],
    current: i32,
    target: Target,
    tolerances: Tolerances,
    is_cpu: bool,
    now: Timestamp,
) -> Result<Proposal, String> {
    let counted: Vec<(Counts, i64)> =
        pods.iter().map(|pod| (counts(pod, is_cpu, now), pod.request)).collect();
    let known: Vec<(i64, i64)> = counted
        .iter()
        .filter_map(|(counts, request)| match counts {
            Counts::With(value) => Some((*value, *request)),
            _ => None,
        })
        .collect();
    if known.is_empty() {
        return Err(NOTHING_KNOWN.to_owned());
    }
    let (ratio, utilization) = ratio_of(&known, target)?;
    let sum: i128 = known.iter().map(|(value, _)| i128::from(*value)).sum();
    let average = i64::try_from(sum / known.len() as i128).unwrap_or(i64::MAX);
    let answer = |replicas| Ok(Proposal { replicas, utilization, average });

    let is = |wanted: Counts| counted.iter().filter(move |(counts, _)| *counts == wanted);
    let is_more = ratio > 1.0;
    let with_unready = is_more && is(Counts::Unready).next().is_some();
    if !with_unready && is(Counts::Missing).next().is_none() {
        let replicas = if tolerances.hold(ratio) { current } else { times(ratio, known.len()) };
        return answer(replicas);
    }
    // The same again, with what is assumed of those of which nothing is known.
    let mut assumed = known;
    if ratio < 1.0 {
        assumed.extend(is(Counts::Missing).map(|(_, request)| match target {
            Target::Utilization(percent) => {
                (request.saturating_mul(percent.max(100).into()) / 100, *request)
            }
            Target::Average(value) => (value, *request),
        }));
    } else if is_more {
        assumed.extend(is(Counts::Missing).map(|(_, request)| (0, *request)));
    }
    if with_unready {
        assumed.extend(is(Counts::Unready).map(|(_, request)| (0, *request)));
    }
    let (again, _) = ratio_of(&assumed, target)?;
    let turned = (ratio < 1.0 && again > 1.0) || (is_more && again < 1.0);
    if tolerances.hold(again) || turned {
        return answer(current);
    }
    let replicas = times(again, assumed.len());
    let goes_back = (again < 1.0 && replicas > current) || (again > 1.0 && replicas < current);
    answer(if goes_back { current } else { replicas })
}

/// How much is used of what should be, and of what is asked for in percent.
fn ratio_of(known: &[(i64, i64)], target: Target) -> Result<(f64, Option<i32>), String> {
    let used: i128 = known.iter().map(|(value, _)| i128::from(*value)).sum();
    match target {
        Target::Utilization(percent) => {
            let asked: i128 = known.iter().map(|(_, request)| i128::from(*request)).sum();
            if asked == 0 {
                return Err("no metrics returned matched known pods".to_owned());
            }
            let utilization = i32::try_from(used * 100 / asked).unwrap_or(i32::MAX);
            Ok((f64::from(utilization) / f64::from(percent.max(1)), Some(utilization)))
        }
        Target::Average(value) => {
            let average = used / known.len() as i128;
            Ok((average as f64 / value.max(1) as f64, None))
        }
    }
}

/// So many times so many, rounded up and within what a count may be.
fn times(ratio: f64, pods: usize) -> i32 {
    (ratio * pods as f64).ceil() as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    fn now() -> Timestamp {
        Timestamp::from_second(1_000_000).unwrap()
    }

    /// `used` or `word` or `word=used`: `pending`, `missing`, `unready` (young), `dips` (old, and was ready), `never` (old,
    /// and was never ready), `new` (ready for less than a window), `settles`, `settled`
    /// (young, and ready for less and for more than that takes), `failed`, `going`. Each asks for 100.
    fn pod(words: &str) -> (Pod, Option<Sample>) {
        let (word, used) = words.split_once('=').unwrap_or(match words.parse::<i64>() {
            Ok(_) => ("", words),
            Err(_) => (words, ""),
        });
        let ago = |seconds: i64| (now() - SignedDuration::from_secs(seconds)).to_string();
        let (started, ready, since) = match word {
            "unready" => (60, "False", 55),
            "dips" => (3600, "False", 20),
            "never" => (3600, "False", 3599),
            "new" => (60, "True", 2),
            "settles" => (12, "True", 12),
            "settled" => (20, "True", 20),
            _ => (3600, "True", 3000),
        };
        let phase = match word {
            "pending" => "Pending",
            "failed" => "Failed",
            _ => "Running",
        };
        let mut pod = json!({"metadata": {"name": "p"}, "status": {"phase": phase,
            "startTime": ago(started),
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": ago(since)}]}});
        if word == "going" {
            pod["metadata"]["deletionTimestamp"] = ago(1).into();
        }
        let sample = used.parse::<i64>().ok().map(|value| Sample {
            value,
            taken: now(),
            window: Duration::from_secs(5),
        });
        (serde_json::from_value(pod).unwrap(), sample)
    }

    fn proposed(pods: &str, current: i32, target: Target, is_cpu: bool) -> String {
        let pods: Vec<_> = pods.split_whitespace().map(pod).collect();
        let measured: Vec<_> = pods
            .iter()
            .map(|(pod, sample)| Measured { pod, sample: *sample, request: 100 })
            .collect();
        let tolerances = Tolerances { up: 0.1, down: 0.1 };
        match propose(&measured, current, target, tolerances, is_cpu, now()) {
            Ok(proposal) => proposal.replicas.to_string(),
            Err(why) => why,
        }
    }

    #[test]
    fn so_many_pods_are_proposed_as_bring_the_average_to_the_target() {
        let table = "
            now | target | pods                        | then
            2   | 50%    | 50 50                       | 2
            2   | 50%    | 54 55                       | 2
            2   | 50%    | 56 56                       | 3
            2   | 50%    | 46 46                       | 2
            2   | 50%    | 44 44                       | 2
            4   | 50%    | 20 20 20 20                 | 2
            1   | 50%    | 400                         | 8
            2   | 50%    | 0 0                         | 0
            3   | 100%   | 150 150 150                 | 5
            2   | 60     | 90 90                       | 3
            4   | 60     | 30 30 30 30                 | 2
            # more: of whom nothing is known, it is assumed that nothing is used
            2   | 50%    | 80 missing                  | 2
            2   | 50%    | 200 missing                 | 4
            3   | 50%    | 80 80 pending               | 3
            3   | 50%    | 120 120 pending             | 5
            2   | 50%    | 200 unready=300             | 4
            2   | 50%    | 200 new=300                 | 4
            2   | 50%    | 200 settles=300             | 4
            2   | 50%    | 200 settled=300             | 10
            2   | 60     | 200 missing                 | 4
            # less: that all is used which is asked for
            2   | 50%    | 20 missing                  | 2
            4   | 50%    | 5 5 5 missing               | 3
            3   | 100%   | 10 10 missing               | 2
            4   | 60     | 10 10 10 missing            | 2
            # who is not ready yet does not keep the others from being fewer
            3   | 50%    | 10 10 pending               | 1
            # one that was ready and is not now counts, and one that never was does not
            2   | 50%    | 50 dips=150                 | 4
            2   | 50%    | 50 never=150                | 2
            # who goes or has failed does not count at all
            3   | 50%    | 100 going=10 failed         | 2
            2   | 50%    | pending missing             | did not receive metrics for targeted pods (pods might be unready)
            1   | 50%    |                             | did not receive metrics for targeted pods (pods might be unready)";
        for row in table.lines().skip(2).filter(|row| !row.trim().starts_with('#')) {
            let [current, target, pods, expected] = super::super::super::table::cells(row);
            let target = match target.strip_suffix('%') {
                Some(percent) => Target::Utilization(percent.parse().unwrap()),
                None => Target::Average(target.parse().unwrap()),
            };
            let found = proposed(pods, current.parse().unwrap(), target, true);
            assert_eq!(found, expected, "in row {row}");
        }
    }

    #[test]
    fn times_that_no_clock_reaches_keep_a_pod_from_counting_and_nothing_else() {
        let (mut young, sample) = pod("new=300");
        let endless = sample.map(|sample| Sample { window: Duration::MAX, ..sample });
        let measured = |pod: &Pod, sample| {
            let measured = Measured { pod, sample, request: 100 };
            counts(&measured, true, now())
        };
        assert_eq!(measured(&young, endless), Counts::Unready);
        let end = Time(Timestamp::MAX);
        young.status.as_mut().unwrap().start_time = Some(end);
        assert_eq!(measured(&young, sample), Counts::Unready);
        young.status.as_mut().unwrap().conditions.as_mut().unwrap()[0].status = "False".into();
        assert_eq!(measured(&young, sample), Counts::Unready);
    }

    #[test]
    fn memory_counts_from_the_start() {
        let half = Target::Utilization(50);
        assert_eq!(proposed("100 unready=100", 2, half, false), "4");
        assert_eq!(proposed("100 new=100", 2, half, false), "4");
        assert_eq!(proposed("100 unready=100", 2, half, true), "2");
    }

    #[test]
    fn where_nothing_is_asked_for_there_is_no_share_of_it() {
        let (pod, sample) = pod("5");
        let measured = [Measured { pod: &pod, sample, request: 0 }];
        let tolerances = Tolerances { up: 0.1, down: 0.1 };
        let found = propose(&measured, 1, Target::Utilization(50), tolerances, true, now());
        assert!(found.is_err());
        let found = propose(&measured, 1, Target::Average(1), tolerances, true, now()).unwrap();
        assert_eq!(found, Proposal { replicas: 5, utilization: None, average: 5 });
    }
}
