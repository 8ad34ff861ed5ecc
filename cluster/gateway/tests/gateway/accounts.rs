//! Tokens of service accounts: asked for, shown, reviewed, and refused when what they stand on is gone.

use crate::harness::{Answer, Harness, Shows, TOKEN};
use impresario_objects::accounts::{Accounts, ISSUER, Wanted};
use impresario_registry_api::{Key, Transaction};
use impresario_runtime::PeerRole;
use serde_json::{Value, json};
use std::time::Duration;

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

async fn make(server: &Harness, plural: &str, object: Value) -> Value {
    let path = match plural {
        "nodes" => "/api/v1/nodes".to_owned(),
        plural => format!("/api/v1/namespaces/default/{plural}"),
    };
    let answer = server.ask("POST", &path, &object).await;
    assert_eq!(answer.code, 201, "{}", answer.json());
    answer.json()
}

async fn furnished() -> Harness {
    let server = Harness::start().await;
    make(&server, "serviceaccounts", json!({"metadata": {"name": "robot"}})).await;
    server
}

async fn ask_token(server: &Harness, spec: Value) -> Answer {
    let path = format!("{ACCOUNTS}/robot/token");
    let body =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
    server.ask("POST", &path, &body).await
}

async fn token(server: &Harness, spec: Value) -> String {
    let answer = ask_token(server, spec).await;
    assert_eq!(answer.code, 201, "{}", answer.json());
    answer.json()["status"]["token"].as_str().unwrap().to_owned()
}

async fn who(server: &Harness, token: &str) -> Result<Value, u16> {
    let body = r#"{"kind":"SelfSubjectReview","apiVersion":"authentication.k8s.io/v1"}"#;
    let answer = server.send(Shows::Token(token), "POST", WHO, &JSON, body).await;
    if answer.code == 201 {
        Ok(answer.json()["status"]["userInfo"].clone())
    } else {
        Err(answer.code)
    }
}

async fn review(server: &Harness, token: &str, audiences: &[&str]) -> Value {
    let spec = json!({"token": token, "audiences": audiences});
    let body =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec});
    let answer = server.ask("POST", REVIEWS, &body).await;
    assert_eq!(answer.code, 201, "{}", answer.json());
    answer.json()["status"].clone()
}

#[tokio::test]
async fn a_token_stands_for_its_account_in_the_groups_of_all_accounts() {
    let server = furnished().await;
    let answer = ask_token(&server, json!({})).await.json();
    assert_eq!(answer["spec"], json!({"audiences": [ISSUER], "expirationSeconds": 3600}));
    let ends: jiff::Timestamp =
        answer["status"]["expirationTimestamp"].as_str().unwrap().parse().unwrap();
    let left = ends.as_second() - jiff::Timestamp::now().as_second();
    assert!((3500..=3600).contains(&left), "{left}");
    let user = who(&server, answer["status"]["token"].as_str().unwrap()).await.unwrap();
    assert_eq!(user["username"], "system:serviceaccount:default:robot");
    let groups =
        ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"];
    assert_eq!(user["groups"], json!(groups));
    let account = server.ask("GET", &format!("{ACCOUNTS}/robot"), &Value::Null).await.json();
    assert_eq!(user["uid"], account["metadata"]["uid"]);
    let id = user["extra"]["authentication.kubernetes.io/credential-id"][0].as_str().unwrap();
    assert!(id.starts_with("JTI="), "{id}");
}

#[tokio::test]
async fn a_token_ends_with_its_account_and_another_of_that_name_does_not_revive_it() {
    let server = furnished().await;
    let token = token(&server, json!({})).await;
    assert!(who(&server, &token).await.is_ok());
    let path = format!("{ACCOUNTS}/robot");
    assert_eq!(server.ask("DELETE", &path, &Value::Null).await.code, 200);
    assert_eq!(who(&server, &token).await, Err(401));
    make(&server, "serviceaccounts", json!({"metadata": {"name": "robot"}})).await;
    assert_eq!(who(&server, &token).await, Err(401));
}

#[tokio::test]
async fn a_token_ends_with_the_object_that_it_is_bound_to() {
    let server = furnished().await;
    let pod = json!({"metadata": {"name": "it"}, "spec": {
        "serviceAccountName": "robot", "containers": [{"name": "c", "image": "i"}]}});
    for (kind, plural, object) in [
        ("Pod", "pods", pod.clone()),
        ("Secret", "secrets", json!({"metadata": {"name": "it"}})),
        ("Node", "nodes", json!({"metadata": {"name": "it"}})),
    ] {
        let made = make(&server, plural, object).await;
        let uid = &made["metadata"]["uid"];
        let to = json!({"kind": kind, "apiVersion": "v1", "name": "it", "uid": uid});
        let bound = token(&server, json!({"boundObjectRef": to})).await;
        let user = who(&server, &bound).await.unwrap();
        let extra = &user["extra"];
        match kind {
            "Pod" => {
                assert_eq!(extra["authentication.kubernetes.io/pod-name"], json!(["it"]));
                assert_eq!(extra["authentication.kubernetes.io/pod-uid"], json!([uid]));
            }
            "Node" => assert_eq!(extra["authentication.kubernetes.io/node-name"], json!(["it"])),
            _ => {}
        }
        let namespace = if kind == "Node" { "" } else { "default" };
        let gone = Transaction::default().delete(Key::new(plural, namespace, "it"));
        server.registry.transact(gone).await.unwrap();
        assert_eq!(who(&server, &bound).await, Err(401), "{kind}");
        if kind != "Pod" {
            continue;
        }
        make(&server, plural, pod.clone()).await;
        assert_eq!(who(&server, &bound).await, Err(401), "another pod of that name");
        let refused = ask_token(&server, json!({"boundObjectRef": to})).await;
        assert_eq!(refused.code, 409, "{}", refused.json());
    }
}

#[tokio::test]
async fn what_cannot_be_asked_for_is_refused_as_in_kubernetes() {
    let server = furnished().await;
    let pod =
        json!({"metadata": {"name": "it"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    make(&server, "pods", pod).await;
    let bound = |kind: &str, name: &str| json!({"boundObjectRef": {"kind": kind, "apiVersion": "v1", "name": name}});
    for (spec, code) in [
        (json!({"expirationSeconds": 599}), 422),
        (json!({"expirationSeconds": 600}), 201),
        (json!({"expirationSeconds": 1_i64 << 32}), 201),
        (json!({"expirationSeconds": (1_i64 << 32) + 1}), 422),
        (bound("Pod", "none"), 404),
        (bound("Pod", "it"), 400),
        (bound("ConfigMap", "it"), 400),
        (bound("Pod", ""), 422),
    ] {
        let answer = ask_token(&server, spec.clone()).await;
        assert_eq!(answer.code, code, "{spec}: {}", answer.json());
    }
    let none = format!("{ACCOUNTS}/none/token");
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"});
    assert_eq!(server.ask("POST", &none, &body).await.code, 404);
    let path = format!("{ACCOUNTS}/robot/token");
    let answer = server.send(Shows::Token(TOKEN), "POST", &path, &JSON, body.to_string()).await;
    assert_eq!(answer.code, 403, "a viewer makes no tokens");
    let node = server.issue_as("n1", PeerRole::Node, Duration::from_hours(1));
    let answer =
        server.send(Shows::Certificate(&node), "POST", &path, &JSON, body.to_string()).await;
    assert_eq!(answer.code, 403, "a node asks the authority, for its own pods");
}

#[tokio::test]
async fn a_token_for_another_audience_is_none_for_the_api() {
    let server = furnished().await;
    let vault = token(&server, json!({"audiences": ["vault"]})).await;
    assert_eq!(who(&server, &vault).await, Err(401));
    let both = token(&server, json!({"audiences": ["vault", ISSUER]})).await;
    assert!(who(&server, &both).await.is_ok());

    let good = review(&server, &vault, &["vault", "other"]).await;
    assert_eq!(good["authenticated"], true, "{good}");
    assert_eq!(good["audiences"], json!(["vault"]));
    assert_eq!(good["user"]["username"], "system:serviceaccount:default:robot");
    let bad = review(&server, &vault, &[]).await;
    assert!(bad["authenticated"] != true && bad["user"].is_null(), "{bad}");
    assert_eq!(review(&server, &both, &[]).await["audiences"], json!([ISSUER]));
    // Tokens that say nothing of audiences are for the API.
    assert_eq!(review(&server, TOKEN, &[]).await["user"]["username"], "eve");
    assert!(review(&server, TOKEN, &["vault"]).await["authenticated"] != true);
    assert!(review(&server, "made up", &[]).await["error"].is_string());
    let empty = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": ""}});
    assert_eq!(server.ask("POST", REVIEWS, &empty).await.code, 400);
}

#[tokio::test]
async fn a_token_that_another_cluster_signed_or_nobody_did_is_refused() {
    let server = furnished().await;
    let foreign = Accounts::new(server.registry.clone(), &[9; 32]).unwrap();
    let wanted = Wanted { seconds: 3600, ..Wanted::default() };
    let foreign = foreign.issue("default", "robot", wanted).await.unwrap().token;
    assert_eq!(who(&server, &foreign).await, Err(401));
    let own = token(&server, json!({})).await;
    let (body, signature) = own.rsplit_once('.').unwrap();
    let (_, other) = foreign.rsplit_once('.').unwrap();
    for forged in [format!("{body}."), format!("{body}.{other}"), format!("{body}x.{signature}")] {
        assert_eq!(who(&server, &forged).await, Err(401), "{forged}");
    }
    assert!(who(&server, &own).await.is_ok());
}

#[tokio::test]
async fn who_signs_and_with_what_is_told_to_service_accounts_alone() {
    let server = furnished().await;
    let token = token(&server, json!({})).await;
    let get = async |shows, path: &str| server.send(shows, "GET", path, &[], "").await;
    let configuration = "/.well-known/openid-configuration";
    // The roles are followed: seen a moment later.
    let mut told = get(Shows::Token(&token), configuration).await;
    while told.code == 403 {
        tokio::task::yield_now().await;
        told = get(Shows::Token(&token), configuration).await;
    }
    let told = told.json();
    assert_eq!(told["issuer"], ISSUER);
    assert_eq!(told["jwks_uri"], format!("{ISSUER}/openid/v1/jwks"));
    let keys = get(Shows::Token(&token), "/openid/v1/jwks").await;
    assert_eq!(keys.header("content-type"), "application/jwk-set+json");
    let keys = keys.json();
    assert_eq!(keys["keys"].as_array().unwrap().len(), 1, "{keys}");
    assert_eq!(keys["keys"][0]["alg"], "ES256");
    assert!(!keys.to_string().contains("\"d\""), "the private half is nobody's business");
    for path in [configuration, "/openid/v1/jwks"] {
        assert_eq!(get(Shows::Nothing, path).await.code, 403);
    }
}
