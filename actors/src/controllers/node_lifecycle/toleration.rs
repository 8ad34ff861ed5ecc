//! For how long a pod stays where taints drive pods out.

use super::taints::evicts;
use crate::scheduler::fit::tolerates;
use k8s_openapi::api::core::v1::{Pod, Taint};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// When a pod has to go for these taints; `None` is never.
///
/// At once where it does not tolerate one of them. Of each that it does, the first toleration that fits counts, from
/// when the taint and the pod are both there; the earliest of these times is it. One without a time is for ever, and so
/// is one longer than the calendar.
#[must_use]
pub fn due<'a>(
    pod: &Pod,
    taints: impl Iterator<Item = &'a Taint>,
    now: Timestamp,
) -> Option<Timestamp> {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref());
    let tolerations = tolerations.unwrap_or_default();
    let mut earliest: Option<Timestamp> = None;
    for taint in taints.filter(|taint| evicts(taint)) {
        let fits = |one: &&_| tolerates(std::slice::from_ref(*one), taint);
        let Some(toleration) = tolerations.iter().find(fits) else { return Some(now) };
        let Some(seconds) = toleration.toleration_seconds else { continue };
        let added = taint.time_added.as_ref().map_or(now, |added| added.0);
        let since = came(pod).map_or(added, |came| added.max(came));
        let Ok(due) = since.checked_add(SignedDuration::from_secs(seconds.max(0))) else {
            continue;
        };
        earliest = Some(earliest.map_or(due, |earliest| earliest.min(due)));
    }
    earliest
}

/// When a pod came to its node, as its object says, so that whoever leads next knows it, too.
fn came(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let bound =
        conditions.iter().find(|said| said.type_ == "PodScheduled" && said.status == "True");
    let bound = bound.and_then(|said| said.last_transition_time.as_ref());
    let started = || status.and_then(|status| status.start_time.as_ref());
    let came = bound.or_else(started).or(pod.metadata.creation_timestamp.as_ref())?;
    Some(came.0)
}

#[cfg(test)]
mod tests {
    use super::super::super::table::cells;
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_pod_has_all_its_time_also_on_a_node_that_was_tainted_long_before_it_came() {
        let table = "
            created | started | bound      | tolerates for | goes at
            10      |         |            | 300           | 400
            200     |         |            | 300           | 500
            200     | 250     |            | 300           | 550
            200     | 250     | True@240   | 300           | 540
            200     | 250     | False@240  | 300           | 550
            200     |         | True@20    | 300           | 400
            200     |         | True@240   | 0             | 240
            200     |         | True@240   |               | never";
        let at = |seconds: &str| {
            let seconds = seconds.parse().ok()?;
            Some(Timestamp::from_second(seconds).unwrap().to_string())
        };
        let taint = json!({"key": "a", "effect": "NoExecute", "timeAdded": at("100")});
        let taint: Taint = serde_json::from_value(taint).unwrap();
        for row in table.lines().skip(2) {
            let [created, started, bound, seconds, expected] = cells(row);
            let bound = bound.split_once('@').map(|(status, since)| {
                json!({"type": "PodScheduled", "status": status, "lastTransitionTime": at(since)})
            });
            let pod = json!({
                "metadata": {"creationTimestamp": at(created)},
                "spec": {"containers": [], "tolerations": [{"operator": "Exists",
                    "tolerationSeconds": seconds.parse::<i64>().ok()}]},
                "status": {"startTime": at(started),
                    "conditions": bound.into_iter().collect::<Vec<_>>()},
            });
            let pod: Pod = serde_json::from_value(pod).unwrap();
            let now = Timestamp::from_second(1_000).unwrap();
            let found = due(&pod, [&taint].into_iter(), now).map(|due| due.as_second().to_string());
            assert_eq!(found.as_deref().unwrap_or("never"), expected, "in row {row}");
        }
    }

    #[test]
    fn a_pod_goes_by_the_earliest_of_what_it_tolerates() {
        let table = "
            taints, since when     | tolerates, for how long | goes at
                                   |                         | never
            a:NoSchedule@0         |                         | never
            a:NoExecute@0          |                         | 500
            a:NoExecute@0          | a=                      | never
            a:NoExecute@400        | a=300                   | 700
            a:NoExecute@400        | *=300                   | 700
            a:NoExecute@400        | a=0                     | 400
            a:NoExecute@400        | a=-5                    | 400
            a:NoExecute@400        | a=300 a=30              | 700
            a:NoExecute@400 b:NoExecute@450 | a=300 b=100    | 550
            a:NoExecute@400 b:NoExecute@450 | a=300 b=       | 700
            a:NoExecute@400 b:NoExecute@450 | a= b=          | never
            a:NoExecute@400 b:NoExecute@450 | a=300          | 500
            a:NoExecute@400        | a=9223372036854775807   | never
            a:NoExecute            | a=300                   | 800";
        let now = Timestamp::from_second(500).unwrap();
        for row in table.lines().skip(2) {
            let [taints, tolerations, expected] = cells(row);
            let taint = |words: &str| -> Taint {
                let (words, at) = words.split_once('@').map_or((words, None), |(w, at)| {
                    (w, Some(Timestamp::from_second(at.parse().unwrap()).unwrap().to_string()))
                });
                let (key, effect) = words.split_once(':').unwrap();
                serde_json::from_value(json!({"key": key, "effect": effect, "timeAdded": at}))
                    .unwrap()
            };
            let toleration = |words: &str| -> Value {
                let (key, seconds) = words.split_once('=').unwrap();
                let key = Some(key).filter(|key| *key != "*");
                let seconds = seconds.parse::<i64>().ok();
                json!({"key": key, "operator": "Exists", "tolerationSeconds": seconds})
            };
            let taints: Vec<Taint> = taints.split_whitespace().map(taint).collect();
            let tolerations: Vec<Value> = tolerations.split_whitespace().map(toleration).collect();
            let pod =
                json!({"metadata": {}, "spec": {"containers": [], "tolerations": tolerations}});
            let pod: Pod = serde_json::from_value(pod).unwrap();
            let found = due(&pod, taints.iter(), now).map(|due| due.as_second().to_string());
            assert_eq!(found.as_deref().unwrap_or("never"), expected, "in row {row}");
        }
    }
}
