//! Admission by expressions of the users.

use crate::harness::Harness;
use serde_json::{Value, json};
use std::time::Duration;

const CONFIGS: &str = "/api/v1/namespaces/default/configmaps";
const ADMISSION: &str = "/apis/admissionregistration.k8s.io/v1";

fn policy(more: &Value) -> Value {
    let mut spec = json!({
        "matchConstraints": {"resourceRules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": [""],
            "apiVersions": ["v1"], "resources": ["configmaps"]}]},
        "validations": [{"expression": "!has(object.data) || !('bad' in object.data)", "message": "no bad here"}],
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    json!({"metadata": {"name": "no-bad"}, "spec": spec})
}

async fn bind(server: &Harness, actions: &[&str], more: &Value) {
    let mut spec = json!({"policyName": "no-bad", "validationActions": actions});
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    let path = format!("{ADMISSION}/validatingadmissionpolicybindings");
    let made = server.ask("POST", &path, &json!({"metadata": {"name": "b"}, "spec": spec})).await;
    assert_eq!(made.code, 201, "{}", made.json());
}

async fn define(server: &Harness, more: &Value) {
    let path = format!("{ADMISSION}/validatingadmissionpolicies");
    let made = server.ask("POST", &path, &policy(more)).await;
    assert_eq!(made.code, 201, "{}", made.json());
}

fn bad() -> Value {
    json!({"metadata": {"name": "a"}, "data": {"bad": "x"}})
}

async fn until<F: Future<Output = bool>>(mut holds: impl FnMut() -> F) {
    let wait = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("it holds in time");
}

#[tokio::test]
async fn what_a_policy_forbids_is_refused_in_kubernetes_words_once_it_is_bound() {
    let server = Harness::start().await;
    define(&server, &json!({})).await;
    let unbound = server.ask("POST", &format!("{CONFIGS}?dryRun=All"), &bad()).await;
    assert_eq!(unbound.code, 201, "a policy without a binding forbids nothing");
    bind(&server, &["Deny"], &json!({})).await;
    let tried = format!("{CONFIGS}?dryRun=All");
    until(|| async { server.ask("POST", &tried, &bad()).await.code == 422 }).await;
    let refused = server.ask("POST", CONFIGS, &bad()).await.json();
    assert_eq!(
        refused["message"],
        "configmaps \"a\" is forbidden: ValidatingAdmissionPolicy 'no-bad' with binding 'b' denied request: no bad here"
    );
    assert_eq!(refused["reason"], "Invalid");
    let good = json!({"metadata": {"name": "a"}, "data": {"good": "x"}});
    assert_eq!(server.ask("POST", CONFIGS, &good).await.code, 201);
    let path = format!("{CONFIGS}/a");
    assert_eq!(server.ask("PATCH", &path, &json!({"data": {"bad": "x"}})).await.code, 422);
    assert_eq!(server.ask("DELETE", &path, &Value::Null).await.code, 200);
}

#[tokio::test]
async fn a_binding_that_only_warns_lets_it_pass_and_says_so() {
    let server = Harness::start().await;
    define(&server, &json!({})).await;
    bind(&server, &["Warn", "Audit"], &json!({})).await;
    let tried = format!("{CONFIGS}?dryRun=All");
    until(|| async {
        let answer = server.ask("POST", &tried, &bad()).await;
        assert_eq!(answer.code, 201);
        answer.header("warning").contains("no bad here")
    })
    .await;
}

#[tokio::test]
async fn parameters_and_selectors_say_where_and_how_a_policy_holds() {
    let server = Harness::start().await;
    let params = json!({"metadata": {"name": "limits"}, "data": {"word": "bad"}});
    assert_eq!(server.ask("POST", CONFIGS, &params).await.code, 201);
    define(
        &server,
        &json!({
            "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "validations": [{"expression": "!has(object.data) || !(params.data.word in object.data)"}],
        }),
    )
    .await;
    bind(
        &server,
        &["Deny"],
        &json!({
            "paramRef": {"name": "limits", "parameterNotFoundAction": "Deny"},
            "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}}},
        }),
    )
    .await;
    let tried = format!("{CONFIGS}?dryRun=All");
    until(|| async { server.ask("POST", &tried, &bad()).await.code == 422 }).await;
    let elsewhere = "/api/v1/namespaces/kube-public/configmaps";
    assert_eq!(server.ask("POST", elsewhere, &bad()).await.code, 201);
    assert_eq!(server.ask("DELETE", &format!("{CONFIGS}/limits"), &Value::Null).await.code, 200);
    let refused = server.ask("POST", CONFIGS, &json!({"metadata": {"name": "c"}})).await;
    assert_eq!(refused.code, 422, "without its parameters nothing passes");
}

#[tokio::test]
async fn what_one_policy_computes_is_not_taken_from_another() {
    let server = Harness::start().await;
    let policies = format!("{ADMISSION}/validatingadmissionpolicies");
    let bindings = format!("{ADMISSION}/validatingadmissionpolicybindings");
    let costly =
        "object.data.all(a, object.data.all(b, object.data.all(c, a != b || b != c || true)))";
    let mut early =
        policy(&json!({"failurePolicy": "Ignore", "validations": [{"expression": costly}]}));
    early["metadata"]["name"] = json!("early");
    let mut late = policy(&json!({"failurePolicy": "Ignore"}));
    late["metadata"]["name"] = json!("late");
    for (binding, policy) in [("a", early), ("b", late)] {
        assert_eq!(server.ask("POST", &policies, &policy).await.code, 201);
        let spec = json!({"policyName": policy["metadata"]["name"], "validationActions": ["Deny"]});
        let made = json!({"metadata": {"name": binding}, "spec": spec});
        assert_eq!(server.ask("POST", &bindings, &made).await.code, 201);
    }
    let tried = format!("{CONFIGS}?dryRun=All");
    until(|| async { server.ask("POST", &tried, &bad()).await.code == 422 }).await;
    let mut large = bad();
    for number in 0..200 {
        large["data"][format!("k{number}")] = json!("");
    }
    let refused = server.ask("POST", CONFIGS, &large).await;
    assert_eq!(refused.code, 422, "{}", refused.json());
}

#[tokio::test]
async fn so_many_bindings_may_be_about_one_write() {
    let server = Harness::start().await;
    define(&server, &json!({})).await;
    let path = format!("{ADMISSION}/validatingadmissionpolicybindings");
    for number in 0..65 {
        let spec = json!({"policyName": "no-bad", "validationActions": ["Deny"]});
        let made = json!({"metadata": {"name": format!("b{number}")}, "spec": spec});
        assert_eq!(server.ask("POST", &path, &made).await.code, 201);
    }
    let good = json!({"metadata": {"name": "a"}});
    let tried = format!("{CONFIGS}?dryRun=All");
    until(|| async { server.ask("POST", &tried, &good).await.code == 403 }).await;
    let refused = server.ask("POST", CONFIGS, &good).await.json();
    assert!(refused["message"].as_str().unwrap().contains("64 bindings"), "{refused}");
    assert_eq!(server.ask("DELETE", &format!("{path}/b0"), &Value::Null).await.code, 200);
    until(|| async { server.ask("POST", CONFIGS, &good).await.code == 201 }).await;
}
