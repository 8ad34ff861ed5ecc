mod late;

use super::super::table::{cells, part};
use super::*;
use serde_json::{Value, json};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// A pod from `a:ready,by=web`.
fn pod(words: &str) -> Value {
    let (name, words) = words.split_once(':').unwrap();
    let words: Vec<&str> = words.split(',').collect();
    let is = |word: &str| words.contains(&word);
    let mut pod = json!({"metadata": {"name": name, "uid": format!("uid-{name}"), "labels": {"app": "web"},
        "creationTimestamp": at(100).to_string()}});
    if is("ready") {
        pod["status"] =
            json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    }
    if is("terminating") {
        pod["metadata"]["deletionTimestamp"] = at(200).to_string().into();
    }
    if is("young") {
        pod["metadata"]["creationTimestamp"] = at(990).to_string().into();
    }
    let by = words.iter().find_map(|word| word.strip_prefix("by="));
    if let Some((version, kind, name)) = by.map(|by| match by {
        "rc" => ("v1", "ReplicationController", "rc"),
        "job" => ("batch/v1", "Job", "job"),
        "sts" => ("apps/v1", "StatefulSet", "sts"),
        set => ("apps/v1", "ReplicaSet", set),
    }) {
        pod["metadata"]["ownerReferences"] = json!([{"apiVersion": version, "kind": kind, "name": name,
            "uid": name, "controller": true}]);
    }
    pod
}

fn budget(spec: &Value, status: &Value) -> Value {
    json!({"metadata": {"name": "b", "namespace": "default", "uid": "b", "generation": 4},
        "spec": spec, "status": status})
}

fn look(spec: &Value, status: &Value, pods: &[Value], now: i64) -> Effects {
    look_at(&budget(spec, status), pods, now)
}

fn look_at(budget: &Value, pods: &[Value], now: i64) -> Effects {
    let typed: PodDisruptionBudget = serde_json::from_value(budget.clone()).unwrap();
    let owned = |name: &str, replicas: i32, by: &str| {
        json!({"metadata": {"name": name, "uid": name, "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "Deployment", "name": by, "uid": by, "controller": true}]},
            "spec": {"replicas": replicas, "selector": {}}})
    };
    let of = |name: &str, replicas: i32| {
        json!({"metadata": {"name": name, "uid": name},
            "spec": {"replicas": replicas, "selector": {}, "template": {}}})
    };
    let parts = [
        part::<Pod>(pods),
        part::<ReplicationController>(&[of("rc", 5)]),
        part::<ReplicaSet>(&[owned("web-1", 3, "web"), owned("web-2", 2, "web"), of("alone", 6)]),
        part::<Deployment>(&[of("web", 4)]),
        part::<StatefulSet>(&[of("sts", 7)]),
    ];
    Reconciler::reconcile(&View::new(&typed, budget, &parts), at(now))
}

/// The status of one that nobody has counted.
fn none() -> Value {
    json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0})
}

#[test]
fn so_many_may_be_missing_as_the_budget_says_of_those_that_there_should_be() {
    let table = "
        budget   | pods                                              | expected, desired, healthy, allowed
        min 1    | a:ready b:ready                                   | 2 1 2 1
        min 1    | a:ready b                                         | 2 1 1 0
        min 3    | a:ready b:ready                                   | 2 3 2 0
        min 1    | a:ready b:ready,terminating                       | 2 1 1 0
        min 0    |                                                   | 0 0 0 0
        min 0    | a                                                 | 1 0 0 0
        min 50%  | a:ready,by=rc b:ready,by=rc c:ready,by=rc d:ready,by=rc | 5 3 4 1
        max 1    | a:ready,by=web-1 b:ready,by=web-1 c:ready,by=web-2 d:ready,by=web-2 | 4 3 4 1
        max 1    | a:ready,by=web-1 b:by=web-1 c:ready,by=web-2 d:ready,by=web-2 | 4 3 3 0
        max 30%  | a:ready,by=alone b:ready,by=alone c:ready,by=alone d:ready,by=alone e:ready,by=alone f:ready,by=alone | 6 4 6 2
        max 100% | a:ready,by=sts b:ready,by=sts                     | 7 0 2 2
        max 1    | a:ready,by=sts b:ready,by=rc                      | 12 11 2 0
        max 1    | a:ready b:ready                                   | 0 0 2 0
        nothing  | a:ready                                           | 1 0 1 1";
    for row in table.lines().skip(2) {
        let [budget, pods, expected] = cells(row);
        let mut spec = json!({"selector": {"matchLabels": {"app": "web"}}});
        if let Some((word, amount)) = budget.split_once(' ') {
            let field = if word == "min" { "minAvailable" } else { "maxUnavailable" };
            spec[field] = amount.parse::<i32>().map_or_else(|_| amount.into(), Value::from);
        }
        let words = pods
            .split_whitespace()
            .map(|it| if it.contains(':') { it.to_owned() } else { format!("{it}:") });
        let pods: Vec<Value> = words.map(|words| pod(&words)).collect();
        let status = look(&spec, &none(), &pods, 1_000).status.unwrap().unwrap();
        let counts = ["expectedPods", "desiredHealthy", "currentHealthy", "disruptionsAllowed"];
        let counts: Vec<String> = counts.iter().map(|count| status[count].to_string()).collect();
        assert_eq!(counts.join(" "), expected, "in row {row}");
        let condition = &status["conditions"][0];
        let allows = !expected.ends_with(" 0");
        assert_eq!(condition["status"], if allows { "True" } else { "False" }, "in row {row}");
        assert_eq!(condition["observedGeneration"], 4);
        assert_eq!(status["observedGeneration"], 4);
    }
}

#[test]
fn a_pod_that_was_evicted_is_missing_until_it_is_gone_or_stays_for_too_long() {
    let spec = json!({"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}});
    let pods = [pod("a:ready"), pod("b:ready"), pod("c:ready")];
    let mut status = none();
    status["disruptedPods"] = json!({"a": at(950).to_string(), "gone": at(950).to_string()});
    let effects = look(&spec, &status, &pods, 1_000);
    assert_eq!(effects.look_again, Some(at(1_070)));
    let said = effects.status.unwrap().unwrap();
    assert_eq!((&said["currentHealthy"], &said["disruptionsAllowed"]), (&json!(2), &json!(1)));
    assert_eq!(said["disruptedPods"], json!({"a": at(950).to_string()}));

    let effects = look(&spec, &status, &pods, 1_070);
    let said = effects.status.unwrap().unwrap();
    assert_eq!((said["currentHealthy"].as_i64(), effects.look_again), (Some(3), None));
    assert_eq!(said.get("disruptedPods"), None);

    // It may be that the clock of who evicted it is behind that of who made it.
    let pods = [pod("a:ready,young"), pod("b:ready")];
    for (now, healthy) in [(1_000, 1), (1_070, 2)] {
        let said = look(&spec, &status, &pods, now).status.unwrap().unwrap();
        assert_eq!(said["currentHealthy"], healthy);
    }
}

#[test]
fn a_budget_that_is_held_while_it_is_deleted_goes_on_counting() {
    let spec = json!({"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}});
    let mut budget = budget(&spec, &none());
    budget["metadata"]["deletionTimestamp"] = at(900).to_string().into();
    budget["metadata"]["finalizers"] = json!(["example.com/held"]);
    let said = look_at(&budget, &[pod("a:ready"), pod("b:ready")], 1_000).status.unwrap().unwrap();
    assert_eq!((&said["observedGeneration"], &said["disruptionsAllowed"]), (&json!(4), &json!(1)));
}

#[test]
fn where_it_cannot_be_told_nobody_may_be_missing_and_it_is_said_why() {
    let spec = json!({"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}});
    for (by, word) in [("job", "a Job"), ("nobody", "is not there")] {
        let pods = [pod(&format!("a:ready,by={by}"))];
        let mut status = none();
        status["disruptionsAllowed"] = 1.into();
        let effects = look(&spec, &status, &pods, 1_000);
        assert_eq!(effects.events[0].reason, "CalculateExpectedPodCountFailed");
        let said = effects.status.unwrap().unwrap();
        assert_eq!(said["disruptionsAllowed"], 0);
        let condition = &said["conditions"][0];
        assert_eq!(
            (&condition["reason"], &condition["status"]),
            (&json!("SyncFailed"), &json!("False"))
        );
        assert!(condition["message"].as_str().unwrap().contains(word), "{condition}");
        let again = look(&spec, &said, &pods, 2_000);
        assert_eq!((again.status.unwrap().unwrap(), again.events), (said, vec![]));
    }
}

#[test]
fn an_empty_selector_means_every_pod_and_none_means_none() {
    let of = |spec: Value| {
        selector(&serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap())
    };
    let labels = [("any".to_owned(), "thing".to_owned())].into();
    assert!(super::super::labels::selects(&of(json!({"selector": {}})).unwrap(), &labels));
    assert_eq!(of(json!({})), None);
    let named = json!({"selector": {"matchLabels": {"a": "b"}}});
    assert!(!super::super::labels::selects(&of(named).unwrap(), &labels));
}
