//! Admission by programs of the users.

use crate::harness::{Answer, Harness, Shows};
use crate::hook_server::{Behaves, HookServer};
use futures_util::future::{Either, join_all, select};
use serde_json::{Value, json};
use std::pin::pin;
use std::time::Duration;

const CONFIGS: &str = "/api/v1/namespaces/default/configmaps";
const ADMISSION: &str = "/apis/admissionregistration.k8s.io/v1";

fn config(name: &str, data: Value) -> Value {
    json!({"metadata": {"name": name}, "data": data})
}

fn configuration(kind: &str, name: &str, hook: &HookServer, more: &Value) -> Value {
    let mut webhook = json!({
        "name": format!("{name}.example.com"),
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "timeoutSeconds": 5,
        "clientConfig": {"url": hook.url(), "caBundle": hook.bundle()},
        "rules": [{"operations": ["CREATE", "UPDATE", "DELETE"], "apiGroups": [""],
            "apiVersions": ["v1"], "resources": ["configmaps"]}],
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        webhook[key] = value.clone();
    }
    json!({"kind": kind, "metadata": {"name": name}, "webhooks": [webhook]})
}

async fn install(server: &Harness, mutating: bool, name: &str, hook: &HookServer, more: &Value) {
    let kind =
        if mutating { "MutatingWebhookConfiguration" } else { "ValidatingWebhookConfiguration" };
    let path = format!("{ADMISSION}/{}s", kind.to_lowercase());
    let made = server.ask("POST", &path, &configuration(kind, name, hook, more)).await;
    assert_eq!(made.code, 201, "{}", made.json());
    // It is followed: from when it is known every write is told.
    hook.until_asked(|| async {
        let probe = config("probe", json!({}));
        server.ask("POST", &format!("{CONFIGS}?dryRun=All"), &probe).await;
    })
    .await;
}

fn message(answer: &Answer) -> String {
    answer.json()["message"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_mutating_webhook_changes_what_is_written_before_it_is_judged() {
    let server = Harness::start().await;
    let hook = HookServer::start(&server, Behaves::Sets("/data/by", "hook")).await;
    install(&server, true, "sets", &hook, &json!({})).await;

    let made = server.ask("POST", CONFIGS, &config("a", json!({"k": "1"}))).await;
    assert_eq!((made.code, &made.json()["data"]), (201, &json!({"k": "1", "by": "hook"})));
    let path = format!("{CONFIGS}/a");
    let patched = server.ask("PATCH", &path, &json!({"data": {"by": "me"}})).await;
    assert_eq!(patched.json()["data"]["by"], "hook", "an update passes it, too");
    let asked = hook.last();
    assert_eq!(asked["request"]["operation"], "UPDATE");
    assert_eq!(asked["request"]["oldObject"]["data"], json!({"k": "1", "by": "hook"}));
    assert_eq!(asked["request"]["userInfo"]["username"], "admin");
    let groups = asked["request"]["userInfo"]["groups"].as_array().unwrap();
    assert!(groups.contains(&json!("system:masters")), "{groups:?}");
    assert_eq!(server.ask("DELETE", &path, &Value::Null).await.code, 500, "no object to patch");
}

#[tokio::test]
async fn a_validating_webhook_refuses_in_its_own_words_and_nothing_is_written() {
    let server = Harness::start().await;
    let hook = HookServer::start(&server, Behaves::Refuses("/data/bad")).await;
    install(&server, false, "refuses", &hook, &json!({})).await;

    let refused = server.ask("POST", CONFIGS, &config("a", json!({"bad": "x"}))).await;
    assert_eq!(refused.code, 403);
    assert_eq!(
        message(&refused),
        "admission webhook \"refuses.example.com\" denied the request: no bad here"
    );
    assert_eq!(server.ask("GET", &format!("{CONFIGS}/a"), &Value::Null).await.code, 404);
    let good = server.ask("POST", CONFIGS, &config("a", json!({"good": "x"}))).await;
    assert_eq!(good.code, 201);
    assert!(good.header("warning").contains("looked at"), "{:?}", good.headers);
    let patched =
        server.ask("PATCH", &format!("{CONFIGS}/a"), &json!({"data": {"bad": "x"}})).await;
    assert_eq!(patched.code, 403);
    assert_eq!(server.ask("DELETE", &format!("{CONFIGS}/a"), &Value::Null).await.code, 200);
    assert_eq!(hook.last()["request"]["operation"], "DELETE");
    assert_eq!(hook.last()["request"]["object"], Value::Null);
    assert_eq!(hook.last()["request"]["oldObject"]["data"]["good"], "x");
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused_or_passed_over_as_its_policy_says() {
    for behaves in
        [Behaves::Hangs, Behaves::Lies, Behaves::Redirects, Behaves::Breaks, Behaves::Floods]
    {
        let server = Harness::start().await;
        let hook = HookServer::start(&server, behaves).await;
        let brief = json!({"timeoutSeconds": 1});
        install(&server, true, "broken", &hook, &brief).await;
        let refused = server.ask("POST", CONFIGS, &config("a", json!({}))).await;
        assert_eq!(refused.code, 500, "{behaves:?} {}", refused.json());
        let told = message(&refused);
        assert!(told.contains("broken.example.com"), "{behaves:?} {told}");

        let path = format!("{ADMISSION}/mutatingwebhookconfigurations/broken");
        let open = json!({"webhooks": [{"name": "broken.example.com", "failurePolicy": "Ignore"}]});
        let kind = [("content-type", "application/strategic-merge-patch+json")];
        let patched = server.send(Shows::Admin, "PATCH", &path, &kind, open.to_string()).await;
        assert_eq!(patched.code, 200, "a broken webhook can be mended");
        if behaves != Behaves::Breaks {
            until(|| async {
                server.ask("POST", CONFIGS, &config("a", json!({}))).await.code == 201
            })
            .await;
        }
    }
}

async fn until<F: Future<Output = bool>>(mut holds: impl FnMut() -> F) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("it holds in time");
}

#[tokio::test]
async fn a_webhook_is_told_only_of_what_it_asks_for() {
    let server = Harness::start().await;
    let hook = HookServer::start(&server, Behaves::Refuses("/data/bad")).await;
    let more = json!({
        "objectSelector": {"matchLabels": {"seen": "yes"}},
        "matchConditions": [{"name": "c", "expression": "request.name != 'spared'"}],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}},
    });
    let kind = "ValidatingWebhookConfiguration";
    let path = format!("{ADMISSION}/validatingwebhookconfigurations");
    let made = server.ask("POST", &path, &configuration(kind, "some", &hook, &more)).await;
    assert_eq!(made.code, 201, "{}", made.json());
    let labelled = |name: &str| json!({"metadata": {"name": name, "labels": {"seen": "yes"}}, "data": {"bad": "x"}});
    until(|| async { server.ask("POST", CONFIGS, &labelled("a")).await.code == 403 }).await;
    let asked = hook.count();
    assert_eq!(server.ask("POST", CONFIGS, &config("b", json!({"bad": "x"}))).await.code, 201);
    assert_eq!(server.ask("POST", CONFIGS, &labelled("spared")).await.code, 201);
    let elsewhere = "/api/v1/namespaces/kube-public/configmaps";
    assert_eq!(server.ask("POST", elsewhere, &labelled("a")).await.code, 201);
    assert_eq!(hook.count(), asked);
}

#[tokio::test]
async fn a_webhook_that_cannot_be_reached_refuses_only_what_it_is_about() {
    let server = Harness::start().await;
    let hook = HookServer::start(&server, Behaves::Refuses("/data/bad")).await;
    let more = json!({
        // A newline in place of the authority that somebody is still to put there.
        "clientConfig": {"url": hook.url(), "caBundle": "Cg=="},
        "objectSelector": {"matchLabels": {"seen": "yes"}},
        "matchConditions": [{"name": "c", "expression": "request.name != 'spared'"}],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}},
    });
    let kind = "ValidatingWebhookConfiguration";
    let path = format!("{ADMISSION}/validatingwebhookconfigurations");
    let made = server.ask("POST", &path, &configuration(kind, "placed", &hook, &more)).await;
    assert_eq!(made.code, 201, "{}", made.json());
    let labelled = |name: &str| json!({"metadata": {"name": name, "labels": {"seen": "yes"}}});
    let tried = format!("{CONFIGS}?dryRun=All");
    until(|| async { server.ask("POST", &tried, &labelled("a")).await.code == 500 }).await;
    let refused = server.ask("POST", CONFIGS, &labelled("a")).await;
    assert!(message(&refused).contains("caBundle"), "{}", message(&refused));
    assert_eq!(server.ask("POST", CONFIGS, &config("b", json!({}))).await.code, 201);
    assert_eq!(server.ask("POST", CONFIGS, &labelled("spared")).await.code, 201);
    let elsewhere = "/api/v1/namespaces/kube-public/configmaps";
    assert_eq!(server.ask("POST", elsewhere, &labelled("a")).await.code, 201);
}

/// A webhook that has something to say of every write of these, at every door.
async fn talkative(server: &Harness, resources: &[&str], probe: (&str, Value)) -> HookServer {
    let hook = HookServer::start(server, Behaves::Refuses("/data/bad")).await;
    let more = json!({"rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"],
        "resources": resources}]});
    let kind = "ValidatingWebhookConfiguration";
    let path = format!("{ADMISSION}/validatingwebhookconfigurations");
    let made = server.ask("POST", &path, &configuration(kind, "says", &hook, &more)).await;
    assert_eq!(made.code, 201, "{}", made.json());
    hook.until_asked(|| async {
        server.ask("POST", &format!("{}?dryRun=All", probe.0), &probe.1).await;
    })
    .await;
    hook
}

#[tokio::test]
async fn what_a_webhook_warns_of_is_told_at_every_door() {
    let server = Harness::start().await;
    let probe = (CONFIGS, config("probe", json!({})));
    let resources = ["configmaps", "deployments/scale", "namespaces/finalize", "pods"];
    let _hook = talkative(&server, &resources, probe).await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    assert_eq!(server.ask("POST", deployments, &deployment).await.code, 201);
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let pods = "/api/v1/namespaces/default/pods";
    assert_eq!(server.ask("POST", pods, &pod).await.code, 201);
    let space = json!({"metadata": {"name": "other"}});
    assert_eq!(server.ask("POST", "/api/v1/namespaces", &space).await.code, 201);
    for name in ["a", "b"] {
        assert_eq!(server.ask("POST", CONFIGS, &config(name, json!({}))).await.code, 201);
    }
    let scale = json!({"metadata": {"name": "d"}, "spec": {"replicas": 2}});
    let eviction =
        json!({"kind": "Eviction", "apiVersion": "policy/v1", "metadata": {"name": "p"}});
    let space = json!({"metadata": {"name": "other"}, "spec": {"finalizers": ["kubernetes"]}});
    for (method, path, body) in [
        ("PATCH", format!("{CONFIGS}/a"), json!({"data": {"k": "2"}})),
        ("PUT", format!("{deployments}/d/scale"), scale),
        ("PATCH", format!("{deployments}/d/scale"), json!({"spec": {"replicas": 3}})),
        ("PUT", "/api/v1/namespaces/other/finalize".to_owned(), space),
        ("POST", format!("{pods}/p/eviction"), eviction),
        ("DELETE", format!("{CONFIGS}/a"), Value::Null),
        ("DELETE", CONFIGS.to_owned(), Value::Null),
    ] {
        let answer = server.ask(method, &path, &body).await;
        assert!(answer.code < 300, "{method} {path}: {}", answer.json());
        let told = answer.header("warning");
        assert!(told.contains("looked at"), "{method} {path}: {told}");
    }
}

#[tokio::test]
async fn a_webhook_that_must_not_try_is_not_told_of_what_is_only_tried() {
    let server = Harness::start().await;
    let hook = HookServer::start(&server, Behaves::Refuses("/data/bad")).await;
    install(&server, false, "tries", &hook, &json!({"sideEffects": "NoneOnDryRun"})).await;
    let tried = server.ask("POST", &format!("{CONFIGS}?dryRun=All"), &config("a", json!({}))).await;
    assert_eq!(tried.code, 201);
    assert_eq!(hook.last()["request"]["dryRun"], true);
}

#[tokio::test]
async fn a_later_webhook_s_change_is_told_to_who_asks_to_be_told_again() {
    let server = Harness::start().await;
    let first = HookServer::start(&server, Behaves::Copies("/data/second", "/data/first")).await;
    install(&server, true, "a-first", &first, &json!({"reinvocationPolicy": "IfNeeded"})).await;
    let second = HookServer::start(&server, Behaves::Sets("/data/second", "x")).await;
    install(&server, true, "b-second", &second, &json!({})).await;
    let made = server.ask("POST", CONFIGS, &config("a", json!({"k": "1"}))).await;
    assert_eq!(made.json()["data"], json!({"k": "1", "first": "x", "second": "x"}));
}

#[tokio::test]
async fn a_webhook_that_hangs_holds_up_nobody_else_s_writes_nor_webhooks() {
    let server = Harness::start().await;
    let healthy = HookServer::start(&server, Behaves::Refuses("/data/bad")).await;
    let hangs = HookServer::start(&server, Behaves::Hangs).await;
    let of = |resource: &str| {
        json!({"failurePolicy": "Ignore", "timeoutSeconds": 30, "rules": [{"operations": ["CREATE"],
            "apiGroups": [""], "apiVersions": ["v1"], "resources": [resource]}]})
    };
    let secrets = "/api/v1/namespaces/default/secrets";
    let bad = json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "s"}, "data": {"bad": ""}});
    let kind = "ValidatingWebhookConfiguration";
    let path = format!("{ADMISSION}/validatingwebhookconfigurations");
    for (name, hook, resource) in
        [("healthy", &healthy, "secrets"), ("hangs", &hangs, "configmaps")]
    {
        let made = configuration(kind, name, hook, &of(resource));
        assert_eq!(server.ask("POST", &path, &made).await.code, 201);
    }
    let tried = format!("{secrets}?dryRun=All");
    until(|| async { server.ask("POST", &tried, &bad).await.code == 403 }).await;
    let has_asked = async |count: usize| {
        while hangs.count() < count {
            tokio::task::yield_now().await;
        }
    };
    let (tried, probe) = (format!("{CONFIGS}?dryRun=All"), config("probe", json!({})));
    until(|| async {
        let (ask, asked) = (pin!(server.ask("POST", &tried, &probe)), pin!(has_asked(1)));
        matches!(select(ask, asked).await, Either::Right(_))
    })
    .await;

    // YAML, as all who apply send it.
    let apply = async |path: String, object: Value| {
        let kind = [("content-type", "application/apply-patch+yaml")];
        let path = format!("{path}?fieldManager=m");
        server.send(Shows::Admin, "PATCH", &path, &kind, object.to_string()).await
    };
    let waiting = (0..12).map(|number| {
        let name = format!("c{number}");
        let object = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}});
        apply(format!("{CONFIGS}/{name}"), object)
    });
    let another = async {
        has_asked(12).await;
        let refused = apply(format!("{secrets}/s"), bad.clone()).await;
        assert_eq!(refused.code, 403, "{}", refused.json());
        let good = json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "s"}});
        assert_eq!(apply(format!("{secrets}/s"), good).await.code, 201);
    };
    let (another, waiting) = (pin!(another), pin!(join_all(waiting)));
    let is_first = matches!(select(another, waiting).await, Either::Left(_));
    assert!(is_first, "those that wait hold it up");
}
