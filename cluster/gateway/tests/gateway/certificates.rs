//! Requests for certificates: who may ask for what, and who decides.

use crate::harness::{Answer, Harness, Shows};
use base64::Engine as _;
use impresario_runtime::pki::SigningRequest;
use serde_json::{Value, json};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const JSON: (&str, &str) = ("content-type", "application/merge-patch+json");

async fn ask(server: &Harness, name: &str, group: &str) -> Answer {
    let (pem, _) = SigningRequest::generate_pem("ann", Some(group)).unwrap();
    let body = base64::engine::general_purpose::STANDARD.encode(pem);
    let signer = "kubernetes.io/kube-apiserver-client";
    let spec = json!({"request": body, "signerName": signer, "usages": ["client auth"]});
    server.ask("POST", REQUESTS, &json!({"metadata": {"name": name}, "spec": spec})).await
}

/// Gives `bob` what these rules say.
async fn give(server: &Harness, name: &str, rules: Value) {
    let role = json!({"metadata": {"name": name}, "rules": rules});
    assert_eq!(server.ask("POST", &format!("{RBAC}/clusterroles"), &role).await.code, 201);
    let binding = json!({
        "metadata": {"name": name}, "roleRef": {"kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "User", "name": "bob"}],
    });
    assert_eq!(
        server.ask("POST", &format!("{RBAC}/clusterrolebindings"), &binding).await.code,
        201
    );
}

async fn patch(server: &Harness, door: &str, status: Value) -> Answer {
    let path = format!("{REQUESTS}/one/{door}");
    let headers = [("impersonate-user", "bob"), JSON];
    let body = json!({"status": status}).to_string();
    server.send(Shows::Admin, "PATCH", &path, &headers, body).await
}

#[tokio::test]
async fn nobody_asks_to_be_an_administrator_or_one_of_the_cluster_s_own() {
    let server = Harness::start().await;
    for (name, group, code) in [
        ("masters", "system:masters", 403),
        ("admin", "impresario:admin", 403),
        ("node", "impresario:node", 403),
        ("dev", "dev", 201),
    ] {
        let answer = ask(&server, name, group).await;
        assert_eq!(answer.code, code, "{group}: {}", answer.json());
    }
}

#[tokio::test]
async fn who_decides_about_a_certificate_or_gives_it_needs_the_right_to_its_signer() {
    let server = Harness::start().await;
    assert_eq!(ask(&server, "one", "dev").await.code, 201);
    let doors = json!([{"verbs": ["*"], "apiGroups": ["certificates.k8s.io"], "resources":
        ["certificatesigningrequests", "certificatesigningrequests/approval", "certificatesigningrequests/status"]}]);
    give(&server, "doors", doors).await;
    let approved = json!({"conditions": [{"type": "Approved", "status": "True", "reason": "r"}]});
    let signed = json!({"certificate": "YQ=="});
    let refusal = |answer: Answer| answer.json()["message"].as_str().unwrap_or_default().to_owned();
    // The door opens when the role is seen; then it is the signer that is lacking.
    let mut why = refusal(patch(&server, "approval", approved.clone()).await);
    while why.contains("cannot patch") {
        tokio::task::yield_now().await;
        why = refusal(patch(&server, "approval", approved.clone()).await);
    }
    assert!(why.contains("user not permitted to approve requests with signerName"), "{why}");
    let why = refusal(patch(&server, "status", signed.clone()).await);
    assert!(why.contains("user not permitted to sign requests with signerName"), "{why}");

    let signers = json!([{"verbs": ["approve"], "apiGroups": ["certificates.k8s.io"],
        "resources": ["signers"], "resourceNames": ["kubernetes.io/*"]}]);
    give(&server, "signers", signers).await;
    let mut answer = patch(&server, "approval", approved.clone()).await;
    while answer.code == 403 {
        tokio::task::yield_now().await;
        answer = patch(&server, "approval", approved.clone()).await;
    }
    assert_eq!(answer.code, 200, "{}", answer.json());
    assert_eq!(answer.json()["status"]["conditions"][0]["type"], "Approved");
    let why = refusal(patch(&server, "status", signed).await);
    assert!(why.contains("not permitted to sign"), "who approves does not sign: {why}");
}
