//! What clients are told of the rules of a namespace: quotas in refusals, security levels in warnings.

use crate::harness::Harness;
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";
const ENFORCE: &str = "pod-security.kubernetes.io/enforce";
const WARN: &str = "pod-security.kubernetes.io/warn";

fn pod(name: &str, host: bool) -> Value {
    json!({"metadata": {"name": name}, "spec": {"hostPID": host,
        "containers": [{"name": "c", "image": "i"}]}})
}

#[tokio::test]
async fn who_writes_against_a_level_is_refused_or_warned() {
    let server = Harness::start().await;
    assert_eq!(server.ask("POST", PODS, &pod("there", true)).await.code, 201);
    let labels = json!({"metadata": {"labels": {ENFORCE: "baseline", WARN: "restricted"}}});
    let labelled = server.ask("PATCH", "/api/v1/namespaces/default", &labels).await;
    assert_eq!(labelled.code, 200, "{}", labelled.json());
    let warned = labelled.header("warning");
    assert!(warned.contains("existing pods in namespace \\\"default\\\" violate"), "{warned}");
    let refused = server.ask("POST", PODS, &pod("a", true)).await;
    assert_eq!(refused.code, 403);
    let message = refused.json()["message"].as_str().unwrap().to_owned();
    let why = "violates PodSecurity \"baseline:latest\": host namespaces (hostPID=true)";
    assert_eq!(message, format!("pods \"a\" is forbidden: {why}"));
    let made = server.ask("POST", PODS, &pod("a", false)).await;
    assert_eq!(made.code, 201, "{}", made.json());
    let warned = made.header("warning");
    assert!(warned.contains("would violate PodSecurity \\\"restricted:latest\\\""), "{warned}");
    // Nothing is said again of what stays as it is.
    let again = server.ask("PATCH", "/api/v1/namespaces/default", &labels).await;
    assert_eq!((again.code, again.header("warning")), (200, ""));
}

#[tokio::test]
async fn a_quota_that_nobody_has_counted_yet_lets_nothing_pass() {
    let server = Harness::start().await;
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "5"}}});
    let made = server.ask("POST", "/api/v1/namespaces/default/resourcequotas", &quota).await;
    assert_eq!(made.code, 201, "{}", made.json());
    let refused = server.ask("POST", PODS, &pod("a", false)).await;
    assert_eq!(
        (refused.code, &refused.json()["message"]),
        (403, &json!("pods \"a\" is forbidden: status unknown for quota: q, resources: pods"))
    );
}
