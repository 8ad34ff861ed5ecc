//! Kinds that nobody acts on yet, kinds in several versions, and doors that only some kinds have.

use crate::harness::{Answer, Harness};
use crate::lines::Lines;
use serde_json::{Value, json};

const V1: &str = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
const V2: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";

fn autoscaler(version: &str, name: &str, spec: Value) -> Value {
    let mut object = json!({"apiVersion": format!("autoscaling/{version}"),
        "kind": "HorizontalPodAutoscaler", "metadata": {"name": name}, "spec": spec});
    object["spec"]["maxReplicas"] = 3.into();
    object["spec"]["scaleTargetRef"] = json!({"kind": "Deployment", "name": "d"});
    object
}

fn good(answer: &Answer) -> Value {
    assert!([200, 201].contains(&answer.code), "{}: {}", answer.code, answer.json());
    answer.json()
}

#[tokio::test]
async fn an_object_is_told_and_taken_in_each_version_of_its_kind() {
    let server = Harness::start().await;
    let mut older = Lines::of(&server, &format!("{V1}?watch=true"), "application/json").await;
    let mut newer = Lines::of(&server, &format!("{V2}?watch=true"), "application/json").await;
    let body = autoscaler("v1", "a", json!({"targetCPUUtilizationPercentage": 50}));
    let made = good(&server.ask("POST", V1, &body).await);
    assert_eq!(
        (&made["apiVersion"], &made["spec"]["targetCPUUtilizationPercentage"]),
        (&json!("autoscaling/v1"), &json!(50))
    );
    let now = good(&server.ask("GET", &format!("{V2}/a"), &Value::Null).await);
    assert_eq!(now["apiVersion"], "autoscaling/v2");
    assert_eq!(now["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 50);
    assert_eq!(now["metadata"]["uid"], made["metadata"]["uid"]);

    // A patch of the older version leaves what it has no field for.
    let pods = json!([{"type": "Pods", "pods": {"metric": {"name": "q"},
        "target": {"type": "AverageValue", "averageValue": "10"}}}]);
    good(&server.ask("PATCH", &format!("{V2}/a"), &json!({"spec": {"metrics": pods}})).await);
    let patched =
        good(&server.ask("PATCH", &format!("{V1}/a"), &json!({"spec": {"maxReplicas": 9}})).await);
    assert!(patched["metadata"]["annotations"][METRICS].as_str().unwrap().contains("metricName"));
    let now = good(&server.ask("GET", &format!("{V2}/a"), &Value::Null).await);
    assert_eq!((&now["spec"]["maxReplicas"], &now["spec"]["metrics"]), (&json!(9), &pods));
    assert!(now["metadata"].get("annotations").is_none(), "{now}");
    // So does putting it back as it was seen.
    let seen = good(&server.ask("GET", &format!("{V1}/a"), &Value::Null).await);
    good(&server.ask("PUT", &format!("{V1}/a"), &seen).await);
    let again = good(&server.ask("GET", &format!("{V2}/a"), &Value::Null).await);
    assert_eq!(again["metadata"]["resourceVersion"], now["metadata"]["resourceVersion"]);

    let list = good(&server.ask("GET", V1, &Value::Null).await);
    assert_eq!(
        (&list["apiVersion"], &list["kind"]),
        (&json!("autoscaling/v1"), &json!("HorizontalPodAutoscalerList"))
    );
    assert!(list["items"][0]["spec"].get("metrics").is_none(), "{list}");
    assert!(server.ask("DELETE", &format!("{V1}/a"), &Value::Null).await.code == 200);
    assert_eq!(server.ask("GET", &format!("{V2}/a"), &Value::Null).await.code, 404);
    for (lines, version) in [(&mut older, "autoscaling/v1"), (&mut newer, "autoscaling/v2")] {
        for kind in ["ADDED", "MODIFIED", "MODIFIED", "DELETED"] {
            let event = lines.next().await.unwrap();
            assert_eq!(
                (&event["type"], &event["object"]["apiVersion"]),
                (&json!(kind), &json!(version))
            );
            assert_eq!(event["object"]["spec"].get("metrics").is_some(), version.ends_with("v2"));
        }
    }
}

#[tokio::test]
async fn a_table_is_the_same_in_each_version_and_carries_objects_of_the_one_that_was_asked() {
    let server = Harness::start().await;
    good(&server.ask("POST", V2, &autoscaler("v2", "a", json!({}))).await);
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let mut rows = Vec::new();
    for path in [V1, V2] {
        let path = format!("{path}?includeObject=Object");
        let shows = crate::harness::Shows::Admin;
        let table = good(&server.send(shows, "GET", &path, &accept, "").await);
        let version = &table["rows"][0]["object"]["apiVersion"];
        assert!(path.contains(version.as_str().unwrap()), "{version}");
        rows.push(table["rows"][0]["cells"].clone());
    }
    assert_eq!(rows[0], rows[1]);
    assert_eq!(rows[0][2], "cpu: <unknown>/80%");
}

#[tokio::test]
async fn discovery_tells_of_every_version_and_prefers_the_one_that_is_kept() {
    let server = Harness::start().await;
    let group = good(&server.ask("GET", "/apis/autoscaling", &Value::Null).await);
    assert_eq!(group["preferredVersion"]["version"], "v2");
    let versions: Vec<&Value> =
        group["versions"].as_array().unwrap().iter().map(|it| &it["version"]).collect();
    assert_eq!(versions, ["v2", "v1"]);
    for version in ["v1", "v2"] {
        let list =
            good(&server.ask("GET", &format!("/apis/autoscaling/{version}"), &Value::Null).await);
        assert_eq!(list["resources"][0]["name"], "horizontalpodautoscalers");
    }
}

#[tokio::test]
async fn events_of_both_groups_are_the_same_events() {
    let server = Harness::start().await;
    let [core, newer] = ["/api/v1", "/apis/events.k8s.io/v1"]
        .map(|root| format!("{root}/namespaces/default/events"));
    let event = json!({"metadata": {"name": "a"}, "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "example.org/c", "reportingInstance": "c-1", "action": "Pull",
        "reason": "Pulled", "type": "Normal", "note": "hello",
        "regarding": {"kind": "Pod", "namespace": "default", "name": "p"}});
    good(&server.ask("POST", &newer, &event).await);
    let kept = good(&server.ask("GET", &format!("{core}/a"), &Value::Null).await);
    assert_eq!((&kept["message"], &kept["involvedObject"]["name"]), (&json!("hello"), &json!("p")));
    for (selector, count) in
        [("regarding.name%3Dp", 1), ("regarding.name%3Dq", 0), ("reason%3DPulled", 1)]
    {
        let list = good(
            &server.ask("GET", &format!("{newer}?fieldSelector={selector}"), &Value::Null).await,
        );
        assert_eq!(list["items"].as_array().unwrap().len(), count, "{selector}");
    }
    let told = good(&server.ask("GET", &newer, &Value::Null).await);
    assert_eq!(told["items"][0]["note"], "hello");
    let refused =
        server.ask("POST", &newer, &json!({"metadata": {"name": "b"}, "type": "Odd"})).await;
    assert_eq!(refused.code, 422);
    assert!(refused.json()["message"].as_str().unwrap().contains("eventTime: Required value"));
}

#[tokio::test]
async fn who_writes_what_nobody_enforces_yet_is_told_and_who_reads_it_is_not() {
    let server = Harness::start().await;
    let path = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";
    let policy = json!({"metadata": {"name": "a"}, "spec": {"podSelector": {}}});
    let told = "299 - \"a NetworkPolicy is stored and not enforced yet: no traffic is kept from any pod by it\"";
    assert_eq!(
        server.ask("POST", &format!("{path}?dryRun=All"), &policy).await.header("warning"),
        told
    );
    let made = server.ask("POST", path, &policy).await;
    assert_eq!((made.code, made.header("warning")), (201, told));
    let one = format!("{path}/a");
    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    assert_eq!(server.ask("PATCH", &one, &labels).await.header("warning"), told);
    assert_eq!(server.ask("PUT", &one, &policy).await.header("warning"), told);
    for (method, path) in [("GET", path), ("GET", &one), ("DELETE", &one)] {
        let answer = server.ask(method, path, &Value::Null).await;
        assert_eq!((answer.code, answer.header("warning")), (200, ""), "{method} {path}");
    }
    let refused = server
        .ask("POST", path, &json!({"metadata": {"name": "a"}, "spec": {"policyTypes": ["x"]}}))
        .await;
    assert_eq!((refused.code, refused.header("warning")), (422, ""));
}

#[tokio::test]
async fn what_is_asked_of_a_signer_is_approved_through_a_door_of_its_own() {
    let server = Harness::start().await;
    let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let pem = "-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n";
    let request = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(pem)
    };
    let spec = json!({"request": request, "signerName": "example.com/s", "usages": ["client auth"], "username": "root"});
    let made =
        good(&server.ask("POST", path, &json!({"metadata": {"name": "a"}, "spec": spec})).await);
    assert_ne!(made["spec"]["username"], "root", "who asks is who has shown a credential");
    let one = format!("{path}/a");
    let decided = json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "r"}],
        "certificate": "YQ=="}});
    // No other door decides, and this one does nothing else.
    good(&server.ask("PATCH", &one, &decided).await);
    let by_status = good(&server.ask("PATCH", &format!("{one}/status"), &decided).await);
    assert!(by_status["status"].get("conditions").is_none(), "{by_status}");
    assert_eq!(by_status["status"]["certificate"], "YQ==");
    let other = json!({"status": {"conditions": [{"type": "Approved", "status": "True"}], "certificate": "Yg=="}});
    let approved = good(&server.ask("PATCH", &format!("{one}/approval"), &other).await);
    assert_eq!(approved["status"]["certificate"], "YQ==");
    let condition = &approved["status"]["conditions"][0];
    assert!(condition["lastUpdateTime"].is_string() && condition["lastTransitionTime"].is_string());
    let took_back = server
        .ask("PATCH", &format!("{one}/approval"), &json!({"status": {"conditions": []}}))
        .await;
    assert_eq!(took_back.code, 422);
    let kept = good(
        &server
            .ask("PATCH", &format!("{one}/status"), &json!({"status": {"conditions": null}}))
            .await,
    );
    assert_eq!(kept["status"]["conditions"], approved["status"]["conditions"]);
    let read = good(&server.ask("GET", &format!("{one}/approval"), &Value::Null).await);
    assert_eq!(read["status"], kept["status"]);
}

#[tokio::test]
async fn a_volume_and_its_claim_are_let_go_when_they_are_deleted() {
    let server = Harness::start().await;
    let spec = json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/t"}});
    let volumes = "/api/v1/persistentvolumes";
    let made =
        good(&server.ask("POST", volumes, &json!({"metadata": {"name": "v"}, "spec": spec})).await);
    assert_eq!(made["metadata"]["finalizers"], json!(["kubernetes.io/pv-protection"]));
    let bound = json!({"status": {"phase": "Bound"}});
    good(&server.ask("PATCH", &format!("{volumes}/v/status"), &bound).await);
    assert_eq!(server.ask("DELETE", &format!("{volumes}/v"), &Value::Null).await.code, 200);
    let held = good(&server.ask("GET", &format!("{volumes}/v"), &Value::Null).await);
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    let released = json!({"status": {"phase": "Released"}});
    good(&server.ask("PATCH", &format!("{volumes}/v/status"), &released).await);
    assert_eq!(server.ask("GET", &format!("{volumes}/v"), &Value::Null).await.code, 404);

    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let spec =
        json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    good(&server.ask("POST", claims, &json!({"metadata": {"name": "c"}, "spec": spec})).await);
    assert_eq!(server.ask("DELETE", &format!("{claims}/c"), &Value::Null).await.code, 200);
    // Its controller lets it go when no pod uses it.
    let held = good(&server.ask("GET", &format!("{claims}/c"), &Value::Null).await);
    assert_eq!(held["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    let unused = json!({"metadata": {"finalizers": null}});
    good(&server.ask("PATCH", &format!("{claims}/c"), &unused).await);
    assert_eq!(server.ask("GET", &format!("{claims}/c"), &Value::Null).await.code, 404);
}

#[tokio::test]
async fn there_are_no_parts_of_the_control_plane_to_tell_of() {
    let server = Harness::start().await;
    let path = "/api/v1/componentstatuses";
    let list = server.ask("GET", path, &Value::Null).await;
    assert_eq!(list.json()["items"], json!([]));
    assert!(list.header("warning").contains("deprecated"));
    assert_eq!(server.ask("POST", path, &json!({"metadata": {"name": "a"}})).await.code, 405);
}
