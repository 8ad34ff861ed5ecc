//! Evicting over the API: as far as a pod's disruption budget allows it.

use crate::harness::Harness;
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";
const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";

fn eviction(options: &Value) -> Value {
    json!({"kind": "Eviction", "apiVersion": "policy/v1", "metadata": {"name": "p", "namespace": "default"},
        "deleteOptions": options})
}

async fn set_status(server: &Harness, path: &str, status: &Value) {
    let answer = server.ask("PATCH", &format!("{path}/status"), &json!({ "status": status })).await;
    assert_eq!(answer.code, 200, "{}", answer.json());
}

async fn allow(server: &Harness, count: i64) {
    let status = json!({"observedGeneration": 1, "expectedPods": 2, "desiredHealthy": 2,
        "currentHealthy": 2, "disruptionsAllowed": count});
    set_status(server, &format!("{BUDGETS}/b"), &status).await;
}

async fn protected(server: &Harness) -> String {
    let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p", "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}});
    assert_eq!(server.ask("POST", PODS, &pod).await.code, 201);
    let ready = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    set_status(server, &format!("{PODS}/p"), &ready).await;
    let budget = json!({"kind": "PodDisruptionBudget", "apiVersion": "policy/v1", "metadata": {"name": "b"},
        "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}}});
    assert_eq!(server.ask("POST", BUDGETS, &budget).await.code, 201);
    format!("{PODS}/p/eviction")
}

#[tokio::test]
async fn an_eviction_that_a_policy_refuses_takes_nothing_off_the_budget() {
    let server = Harness::start().await;
    let door = protected(&server).await;
    allow(&server, 3).await;
    let admission = "/apis/admissionregistration.k8s.io/v1";
    let policy = json!({"metadata": {"name": "stays"}, "spec": {
        "matchConstraints": {"resourceRules": [{"operations": ["DELETE"], "apiGroups": [""],
            "apiVersions": ["v1"], "resources": ["pods"]}]},
        "validations": [{"expression": "false", "message": "it stays"}]}});
    let path = format!("{admission}/validatingadmissionpolicies");
    assert_eq!(server.ask("POST", &path, &policy).await.code, 201);
    let binding = json!({"metadata": {"name": "b"},
        "spec": {"policyName": "stays", "validationActions": ["Deny"]}});
    let path = format!("{admission}/validatingadmissionpolicybindings");
    assert_eq!(server.ask("POST", &path, &binding).await.code, 201);
    let tried = eviction(&json!({"dryRun": ["All"]}));
    let refuses = async {
        while server.ask("POST", &door, &tried).await.code != 422 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), refuses).await.unwrap();
    let refused = server.ask("POST", &door, &eviction(&json!({}))).await;
    assert_eq!(refused.code, 422, "{}", refused.json());
    let budget = server.ask("GET", &format!("{BUDGETS}/b"), &json!(null)).await.json();
    assert_eq!(budget["status"]["disruptionsAllowed"], 3, "{budget}");
    assert!(budget["status"]["disruptedPods"].is_null(), "{budget}");
}

#[tokio::test]
async fn an_eviction_is_refused_with_what_has_to_be_waited_for_and_done_when_there_is_room() {
    let server = Harness::start().await;
    let door = protected(&server).await;
    let evict = async |options: &Value| server.ask("POST", &door, &eviction(options)).await;
    let uncounted = evict(&json!({})).await;
    let said = uncounted.json();
    assert_eq!((uncounted.code, &said["reason"]), (429, &json!("TooManyRequests")), "{said}");
    assert_eq!(said["details"]["retryAfterSeconds"], 10, "{said}");
    assert_eq!(said["details"]["causes"][0]["reason"], "DisruptionBudget", "{said}");

    allow(&server, 0).await;
    let full = evict(&json!({})).await;
    let said = full.json();
    let message = "Cannot evict pod as it would violate the pod's disruption budget.";
    assert_eq!((full.code, said["message"].as_str()), (429, Some(message)), "{said}");
    let cause = said["details"]["causes"][0]["message"].as_str().unwrap();
    assert_eq!(cause, "The disruption budget b needs 2 healthy pods and has 2 currently");

    allow(&server, 1).await;
    let tried = evict(&json!({"dryRun": ["All"]})).await;
    assert_eq!(tried.code, 201, "{}", tried.json());
    let none = json!(null);
    let there = server.ask("GET", &format!("{PODS}/p"), &none).await.json();
    assert!(there["metadata"]["deletionTimestamp"].is_null(), "{there}");
    let done = evict(&json!({"gracePeriodSeconds": 7})).await;
    assert_eq!((done.code, &done.json()["status"]), (201, &json!("Success")));
    let there = server.ask("GET", &format!("{PODS}/p"), &none).await.json();
    assert_eq!(there["metadata"]["deletionGracePeriodSeconds"], 7, "{there}");
    let budget = server.ask("GET", &format!("{BUDGETS}/b"), &none).await.json();
    assert_eq!(budget["status"]["disruptionsAllowed"], 0, "{budget}");
    assert!(budget["status"]["disruptedPods"]["p"].is_string(), "{budget}");
}
