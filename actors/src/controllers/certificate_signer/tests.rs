//! Requests for certificates against a registry in memory.

use super::*;
use impresario_registry::{Epoch, Fence, MemoryRegistry, Shard};
use impresario_runtime::PeerIdentity;
use impresario_runtime::pki::KeyRequest;
use std::str::FromStr as _;

fn at(time: &str) -> Timestamp {
    Timestamp::from_str(&format!("2026-01-02T{time}Z")).unwrap()
}

/// A request that was created at noon, with these conditions at one.
fn request(
    signer: &str,
    conditions: &[&str],
    certificate: Option<&str>,
) -> CertificateSigningRequest {
    let conditions: Vec<Value> = conditions
        .iter()
        .map(|kind| json!({"type": kind, "status": "True", "lastUpdateTime": "2026-01-02T13:00:00Z"}))
        .collect();
    let object = json!({
        "metadata": {"name": "a", "uid": "u", "creationTimestamp": "2026-01-02T12:00:00Z"},
        "spec": {"request": "", "signerName": signer, "usages": ["client auth"]},
        "status": {"conditions": conditions, "certificate": certificate},
    });
    serde_json::from_value(object).unwrap()
}

#[test]
fn what_is_approved_is_signed_and_what_is_over_goes() {
    let later = at("12:00:00") + PENDING;
    for (signer, conditions, certificate, now, expected) in [
        (API_CLIENT, &[][..], None, at("13:00:00"), Decision::Wait(later)),
        (API_CLIENT, &[], None, later, Decision::Forget),
        (API_CLIENT, &["Approved"], None, at("13:00:00"), Decision::Sign),
        (KUBELET_CLIENT, &["Approved"], None, at("13:00:00"), Decision::Sign),
        ("example.com/s", &["Approved"], None, at("13:00:00"), Decision::Wait(later)),
        (API_CLIENT, &["Denied"], None, at("13:00:00"), Decision::Wait(at("14:00:00"))),
        (API_CLIENT, &["Denied"], None, at("14:00:00"), Decision::Forget),
        (API_CLIENT, &["Approved", "Failed"], None, at("13:30:00"), Decision::Wait(at("14:00:00"))),
        (API_CLIENT, &["Approved"], Some("YQ=="), at("13:30:00"), Decision::Wait(at("14:00:00"))),
        (API_CLIENT, &["Approved"], Some("YQ=="), at("14:00:00"), Decision::Forget),
    ] {
        let request = request(signer, conditions, certificate);
        assert_eq!(
            decide(&request, now),
            expected,
            "{signer} {conditions:?} {certificate:?} {now}"
        );
    }
}

#[test]
fn a_request_that_asks_for_what_its_signer_does_not_give_says_so() {
    let authority = ClusterAuthority::create("west").unwrap();
    // Our own machines ask for another name, which users do not get.
    let own = KeyRequest::generate().unwrap();
    let with = |usages: &[&str], body: &str| {
        let mut request = request(API_CLIENT, &["Approved"], None);
        request.spec.usages = Some(usages.iter().map(|it| (*it).to_owned()).collect());
        request.spec.request = ByteString(body.as_bytes().to_vec());
        signed(&authority, &request).unwrap_err()
    };
    assert!(with(&["client auth"], "hello").contains("signing request"));
    assert!(with(&["server auth"], own.csr_pem()).contains("client auth"));
    assert!(with(&["client auth", "cert sign"], own.csr_pem()).contains("client auth"));
    assert!(with(&["client auth"], own.csr_pem()).contains("other names"));
}

#[tokio::test]
async fn an_approved_request_has_its_certificate_or_says_why_it_has_none() {
    let registry = MemoryRegistry::default();
    let objects = Objects::new(Arc::new(registry.clone()));
    registry.assign_shards(&["test".to_owned()]);
    let row = find("certificates.k8s.io", "v1", "certificatesigningrequests").unwrap();
    let authority = Arc::new(ClusterAuthority::create("west").unwrap());
    let good = SigningRequest::generate_pem("ann", Some("dev")).unwrap().0;
    let write = WriteOptions::default();
    for (name, body) in
        [("good", good.as_str()), ("bad", KeyRequest::generate().unwrap().csr_pem())]
    {
        let body = serde_json::to_value(ByteString(body.as_bytes().to_vec())).unwrap();
        let spec = json!({"request": body, "signerName": API_CLIENT, "usages": ["client auth"],
            "expirationSeconds": 3600});
        let object = json!({"metadata": {"name": name}, "spec": spec});
        objects.create(&row, "", object, &write).await.unwrap();
        let approved = json!({"type": "Approved", "status": "True", "reason": "r"});
        let change = |old: &Value| {
            let mut new = old.clone();
            new["status"]["conditions"] = json!([approved]);
            Ok(new)
        };
        objects.modify(&row, Door::Approval, "", name, &write, change).await.unwrap();
    }
    let requests =
        Mirror::start(Arc::new(registry.clone()), "certificates.k8s.io/certificatesigningrequests");
    crate::testing::eventually("the requests are seen", async || {
        let seen = requests.picked(|it| !conditions(it).is_empty()).len();
        if seen == 2 { Ok(()) } else { Err(seen) }
    })
    .await;
    let fence = Fence { shard: Shard(0), epoch: Epoch(1) };
    let look = SignerLook { objects: objects.fenced(fence), requests, authority, row: row.clone() };
    look.look_once(clock::timestamp()).await.unwrap();
    let signed = objects.get(&row, "", "good").await.unwrap();
    let bytes: ByteString =
        serde_json::from_value(signed["status"]["certificate"].clone()).unwrap();
    let pem = String::from_utf8(bytes.0).unwrap();
    assert!(pem.starts_with("-----BEGIN CERTIFICATE-----"), "{pem}");
    assert!(PeerIdentity::from_pem(&pem).is_err(), "it is no machine's");
    let failed = objects.get(&row, "", "bad").await.unwrap();
    let conditions = failed["status"]["conditions"].as_array().unwrap();
    let kinds: Vec<_> = conditions.iter().map(|it| it["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["Approved", "Failed"]);
    assert!(failed["status"]["certificate"].is_null());
}
