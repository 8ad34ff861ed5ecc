//! What nodes and pods use, as `kubectl top` and autoscalers elsewhere ask for it.

use crate::harness::{Harness, Shows, TOKEN};
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";
const METRICS: &str = "/apis/metrics.k8s.io/v1beta1";

/// Pods `web` and `db` on the node of which something is known, and `far` on another; `begins` does not run yet.
async fn pods(server: &Harness) {
    for (name, node, phase) in [
        ("web", "n1", "Running"),
        ("db", "n1", "Running"),
        ("far", "n2", "Running"),
        ("begins", "n1", "Pending"),
    ] {
        let pod = json!({"metadata": {"name": name, "labels": {"app": name}},
            "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}});
        assert_eq!(server.ask("POST", PODS, &pod).await.code, 201);
        let status = json!({"status": {"phase": phase}});
        let path = format!("{PODS}/{name}/status");
        assert_eq!(server.ask("PATCH", &path, &status).await.code, 200);
    }
    for node in ["n1", "n2"] {
        let object = json!({"metadata": {"name": node},
            "status": {"allocatable": {"cpu": "1", "memory": "12Mi"}}});
        assert_eq!(server.ask("POST", "/api/v1/nodes", &object).await.code, 201);
        let path = format!("/api/v1/nodes/{node}/status");
        assert_eq!(server.ask("PATCH", &path, &object).await.code, 200);
    }
}

async fn names(server: &Harness, path: &str) -> Vec<String> {
    let answer = server.ask("GET", &format!("{METRICS}{path}"), &Value::Null).await;
    assert_eq!(answer.code, 200, "{path}: {}", answer.json());
    let items = answer.json()["items"].as_array().unwrap().clone();
    items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn what_is_known_of_nodes_and_pods_is_listed_by_namespace_and_selector() {
    let server = Harness::start().await;
    pods(&server).await;
    for (path, expected) in [
        ("/pods", &["db", "web"][..]),
        ("/namespaces/default/pods", &["db", "web"]),
        ("/namespaces/kube-system/pods", &[]),
        ("/pods?labelSelector=app%3Dweb", &["web"]),
        ("/pods?labelSelector=app%20in%20(web,far)", &["web"]),
        ("/pods?fieldSelector=metadata.name%3Ddb", &["db"]),
        ("/nodes", &["n1"]),
        ("/nodes?fieldSelector=metadata.name%3Dn2", &[]),
    ] {
        assert_eq!(names(&server, path).await, expected, "{path}");
    }
    let get = async |path: &str| server.ask("GET", &format!("{METRICS}{path}"), &Value::Null).await;
    let web = get("/namespaces/default/pods/web").await.json();
    assert_eq!(
        web,
        json!({"kind": "PodMetrics", "apiVersion": "metrics.k8s.io/v1beta1",
            "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web"},
                "creationTimestamp": "1970-01-01T00:00:00Z"},
            "timestamp": "1970-01-01T00:00:00Z", "window": "5s",
            "containers": [{"name": "c", "usage": {"cpu": "1000000n", "memory": "1024Ki"}}]})
    );
    let node = get("/nodes/n1").await.json();
    assert_eq!(node["kind"], "NodeMetrics");
    assert_eq!(node["usage"], json!({"cpu": "250000000n", "memory": "3072Ki"}));
    let list = get("/pods").await.json();
    assert_eq!(
        (&list["kind"], &list["apiVersion"]),
        (&json!("PodMetricsList"), &web["apiVersion"])
    );
    // Nothing is known, nothing is there, nothing can be written or watched.
    for (path, code) in [
        ("/namespaces/default/pods/far", 404),
        ("/namespaces/default/pods/none", 404),
        ("/nodes/n2", 404),
    ] {
        assert_eq!(get(path).await.code, code, "{path}");
    }
    assert_eq!(get("/pods?watch=true").await.code, 405);
    let posted = server.ask("POST", &format!("{METRICS}/namespaces/default/pods"), &web).await;
    assert_eq!(posted.code, 405);
}

#[tokio::test]
async fn the_group_is_discovered_and_its_readers_need_the_right_to_it() {
    let server = Harness::start().await;
    let group = server.ask("GET", "/apis/metrics.k8s.io", &Value::Null).await.json();
    assert_eq!(group["preferredVersion"]["groupVersion"], "metrics.k8s.io/v1beta1");
    let list = server.ask("GET", METRICS, &Value::Null).await.json();
    let found: Vec<_> = list["resources"].as_array().unwrap().iter().collect();
    let names: Vec<_> = found.iter().map(|one| (&one["name"], &one["kind"])).collect();
    assert_eq!(
        names,
        [(&json!("nodes"), &json!("NodeMetrics")), (&json!("pods"), &json!("PodMetrics"))]
    );
    assert_eq!(found[1]["verbs"], json!(["get", "list"]));

    let path = format!("{METRICS}/nodes");
    let viewer = server.send(Shows::Token(TOKEN), "GET", &path, &[], "").await;
    assert_eq!(viewer.code, 200, "{}", viewer.json());
    let stranger = [("impersonate-user", "nobody")];
    let refused = server.send(Shows::Admin, "GET", &path, &stranger, "").await;
    assert_eq!(refused.code, 403);
    let role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:aggregated-metrics-reader";
    let labels = server.ask("GET", role, &Value::Null).await.json()["metadata"]["labels"].clone();
    for whole in ["view", "edit", "admin"] {
        let label = format!("rbac.authorization.k8s.io/aggregate-to-{whole}");
        assert_eq!(labels[label], "true", "{whole}");
    }
}

#[tokio::test]
async fn kubectl_top_shows_what_is_used() {
    let server = Harness::start().await;
    pods(&server).await;
    for version in ["1.27", "1.30", "1.33"] {
        let kubectl = server.kubectl(version);
        let words = async |command: &[&str]| -> Vec<Vec<String>> {
            let shown = kubectl.good(command).await;
            let words = |line: &str| line.split_whitespace().map(ToOwned::to_owned).collect();
            shown.lines().map(words).collect()
        };
        let pods = words(&["top", "pods", "--containers", "--no-headers"]).await;
        assert_eq!(pods, [["db", "c", "1m", "1Mi"], ["web", "c", "1m", "1Mi"]], "{version}");
        let one = words(&["top", "pod", "web", "--no-headers"]).await;
        assert_eq!(one, [["web", "1m", "1Mi"]], "{version}");
        let node = words(&["top", "node", "n1", "--no-headers"]).await;
        assert_eq!(node, [["n1", "250m", "25%", "3Mi", "25%"]], "{version}");
    }
}
