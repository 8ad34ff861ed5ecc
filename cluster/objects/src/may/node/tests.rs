#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::may::{Who, may as decide};
use serde_json::json;

/// `mine` is bound to n1 and names the secret `key`, `gone` was there until a moment ago; `other` is bound to n2.
struct Two;

impl Bound for Two {
    fn node_of(&self, _: &str, pod: &str) -> Option<String> {
        match pod {
            "mine" | "gone" => Some("n1".into()),
            "other" => Some("n2".into()),
            _ => None,
        }
    }

    fn names(&self, node: &str, resource: &str, _: &str, name: &str) -> bool {
        let named = [("secrets", "key"), ("persistentvolumeclaims", "data")];
        node == "n1" && named.contains(&(resource, name))
    }
}

fn node(labels: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "n1", "uid": "u", "labels": labels, "annotations": {"a": "b"}},
        "spec": {"podCIDR": "127.1.0.0/24", "taints": [{"key": "k", "effect": "NoSchedule"}]},
        "status": {}
    })
}

fn pod(name: &str, on: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default", "uid": name, "resourceVersion": "3"},
        "spec": {"nodeName": on, "serviceAccountName": "robot"},
        "status": {"phase": "Pending"}
    })
}

fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    object.pointer_mut(parent).unwrap()[field] = value;
    object
}

/// Whether n1 may make this of that.
fn changes(resource: &str, old: &Value, new: &Value) -> bool {
    let name = old["metadata"]["name"].as_str().unwrap();
    let namespace = old["metadata"]["namespace"].as_str().unwrap_or_default();
    let ask = Ask::of(Verb::Update, resource, namespace, name).change(Some(old), Some(new));
    decide(Who::Node("n1"), &ask, &Two).is_ok()
}

fn creates(resource: &str, namespace: &str, new: &Value) -> bool {
    let name = new["metadata"]["name"].as_str().unwrap();
    let ask = Ask::of(Verb::Create, resource, namespace, name).change(None, Some(new));
    decide(Who::Node("n1"), &ask, &Two).is_ok()
}

#[test]
fn a_node_describes_itself_and_leaves_to_others_what_is_theirs() {
    let old = node(json!({"zone": "a", "node-role.kubernetes.io/control-plane": ""}));
    let same =
        |pointer: &str, value: Value| changes("nodes", &old, &with(old.clone(), pointer, value));
    assert!(same("/status/phase", json!("x")));
    assert!(same("/spec/unschedulable", json!(true)));
    assert!(same("/metadata/annotations", json!({"impresario.dev/quic-address": "127.0.0.1:1"})));
    for label in [
        "zone",
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
        "node.kubernetes.io/instance-type",
        "kubelet.kubernetes.io/x",
        "impresario.dev/gpu",
    ] {
        let mut new = old.clone();
        new["metadata"]["labels"][label] = "b".into();
        assert!(changes("nodes", &old, &new), "{label}");
    }
    for label in [
        "node-role.kubernetes.io/worker",
        "node-restriction.kubernetes.io/x",
        "a.node-restriction.kubernetes.io/x",
        "kubernetes.io/role",
        "x.k8s.io/y",
    ] {
        let mut new = old.clone();
        new["metadata"]["labels"][label] = "b".into();
        assert!(!changes("nodes", &old, &new), "{label}");
    }
    // Nor does it take one away.
    assert!(!same("/metadata/labels", json!({"zone": "a"})));
    assert!(!same("/spec/taints", json!([])));
    assert!(!same("/spec/podCIDR", json!("10.0.0.0/8")));
    assert!(!same("/metadata/ownerReferences", json!([{"kind": "Pod", "name": "x", "uid": "y"}])));
    assert!(!same("/metadata/finalizers", json!(["x"])));
    assert!(!same("/metadata/uid", json!("another")));
    let mut foreign = old.clone();
    foreign["metadata"]["name"] = "n2".into();
    assert!(!changes("nodes", &foreign, &foreign));
    assert!(creates("nodes", "", &node(json!({"zone": "a"}))));
    assert!(!creates("nodes", "", &node(json!({"node-role.kubernetes.io/control-plane": ""}))));
    let owned = with(node(json!({})), "/metadata/ownerReferences", json!([{"kind": "Node"}]));
    assert!(!creates("nodes", "", &owned));
    let delete = Ask::of(Verb::Delete, "nodes", "", "n1");
    assert!(decide(Who::Node("n1"), &delete, &Two).is_err());
}

#[test]
fn a_node_writes_the_status_of_pods_that_were_bound_to_it_before() {
    let (mine, other, nobodys) = (pod("mine", "n1"), pod("other", "n2"), pod("free", ""));
    let running = |pod: &Value| with(pod.clone(), "/status/phase", json!("Running"));
    assert!(changes("pods", &mine, &running(&mine)));
    assert!(!changes("pods", &other, &running(&other)));
    // Stolen: the new state says that it is ours.
    assert!(!changes("pods", &other, &with(other.clone(), "/spec/nodeName", json!("n1"))));
    assert!(!changes("pods", &nobodys, &with(nobodys.clone(), "/spec/nodeName", json!("n1"))));
    assert!(!changes("pods", &mine, &with(mine.clone(), "/spec/nodeName", json!("n2"))));
    for (pointer, value) in [
        ("/spec/serviceAccountName", json!("admin")),
        ("/metadata/labels", json!({"app": "web"})),
        ("/metadata/annotations", json!({"impresario.dev/guest": "j"})),
        ("/metadata/ownerReferences", json!([{"kind": "TrainingJob", "uid": "j"}])),
        ("/metadata/finalizers", json!(["x"])),
        ("/metadata/uid", json!("another")),
        ("/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z")),
        ("/metadata/deletionGracePeriodSeconds", json!(0)),
    ] {
        assert!(!changes("pods", &mine, &with(mine.clone(), pointer, value)), "{pointer}");
    }
    let going = with(mine.clone(), "/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z"));
    assert!(changes(
        "pods",
        &going,
        &with(going.clone(), "/metadata/deletionGracePeriodSeconds", json!(0))
    ));

    let deletes = |old: &Value| {
        let ask = Ask::of(Verb::Delete, "pods", "default", "x").change(Some(old), None);
        decide(Who::Node("n1"), &ask, &Two).is_ok()
    };
    assert!(deletes(&mine));
    assert!(!deletes(&other) && !deletes(&nobodys));
    assert!(!deletes(&with(mine, "/metadata/finalizers", json!(["x"]))));
}

#[test]
fn a_node_makes_mirror_pods_of_its_own_alone() {
    let mirror = json!({
        "metadata": {
            "name": "static", "namespace": "kube-system",
            "annotations": {"kubernetes.io/config.mirror": "hash"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u", "controller": true}]
        },
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}
    });
    assert!(creates("pods", "kube-system", &mirror));
    for (pointer, value) in [
        ("/metadata/annotations", json!({})),
        ("/metadata/ownerReferences", json!([])),
        ("/spec/nodeName", json!("n2")),
        ("/spec/serviceAccountName", json!("admin")),
        ("/spec/volumes", json!([{"name": "v", "secret": {"secretName": "s"}}])),
        ("/spec/imagePullSecrets", json!([{"name": "s"}])),
    ] {
        assert!(
            !creates("pods", "kube-system", &with(mirror.clone(), pointer, value)),
            "{pointer}"
        );
    }
}

#[test]
fn a_node_reads_what_its_pods_name_and_what_is_public() {
    let reads = |verb, resource: &str, name: &str| {
        let ask = Ask::of(verb, resource, "default", name);
        decide(Who::Node("n1"), &ask, &Two).is_ok()
    };
    assert!(reads(Verb::Get, "secrets", "key"));
    assert!(!reads(Verb::Get, "secrets", "another"));
    assert!(!reads(Verb::List, "secrets", "") && !reads(Verb::Watch, "secrets", ""));
    assert!(!reads(Verb::Get, "configmaps", "key"));
    assert!(!reads(Verb::List, "configmaps", ""));
    let (namespace, name) = REVOKED_CERTIFICATES;
    let may = |verb, namespace, name| {
        decide(Who::Node("n1"), &Ask::of(verb, "configmaps", namespace, name), &Two).is_ok()
    };
    for verb in [Verb::Get, Verb::List, Verb::Watch] {
        assert!(may(verb, namespace, name), "{verb}");
        assert!(!may(verb, namespace, "") && !may(verb, "", name) && !may(verb, namespace, "a"));
    }
    assert!(!may(Verb::Update, namespace, name) && !may(Verb::Delete, namespace, name));
    for resource in PUBLIC {
        assert!(reads(Verb::List, resource, "") && reads(Verb::Watch, resource, ""), "{resource}");
    }
    for resource in ["batch/jobs", "replicationcontrollers", "impresario.dev/tokens"] {
        assert!(!reads(Verb::Get, resource, "x") && !reads(Verb::List, resource, ""), "{resource}");
    }
    let lists = |on_node| {
        let ask = Ask { on_node, ..Ask::of(Verb::Watch, "pods", "", "") };
        decide(Who::Node("n1"), &ask, &Two).is_ok()
    };
    assert!(lists(Some("n1")));
    assert!(!lists(None) && !lists(Some("n2")) && !lists(Some("")));
    let sees = |pod: &Value| {
        let ask = Ask::of(Verb::Get, "pods", "default", "x").change(Some(pod), None);
        decide(Who::Node("n1"), &ask, &Two).is_ok()
    };
    assert!(sees(&pod("mine", "n1")) && !sees(&pod("other", "n2")) && !sees(&pod("free", "")));
}

#[test]
fn a_node_tells_events_of_itself_and_its_pods_as_their_source() {
    let event = |kind: &str, name: &str, host: &str| {
        json!({
            "metadata": {"name": "e", "namespace": "default"},
            "involvedObject": {"kind": kind, "namespace": "default", "name": name},
            "source": {"component": "kubelet", "host": host}, "count": 1, "message": "m"
        })
    };
    for (kind, name, host, may) in [
        ("Pod", "mine", "n1", true),
        ("Pod", "gone", "n1", true),
        ("Pod", "free", "n1", false),
        ("Pod", "never-there", "n1", false),
        ("Pod", "other", "n1", false),
        ("Pod", "mine", "n2", false),
        ("Node", "n1", "n1", true),
        ("Node", "n2", "n1", false),
        ("Secret", "key", "n1", false),
    ] {
        assert_eq!(
            creates("events", "default", &event(kind, name, host)),
            may,
            "{kind} {name} {host}"
        );
    }
    let mine = event("Pod", "mine", "n1");
    assert!(changes("events", &mine, &with(mine.clone(), "/count", json!(2))));
    assert!(!changes("events", &mine, &with(mine.clone(), "/message", json!("lies"))));
    let foreign = event("Pod", "mine", "n2");
    assert!(!changes("events", &foreign, &with(foreign.clone(), "/count", json!(2))));
}

#[test]
fn a_node_keeps_its_own_lease() {
    let keeps = |namespace: &str, name: &str| {
        decide(Who::Node("n1"), &Ask::of(Verb::Update, LEASES, namespace, name), &Two).is_ok()
    };
    assert!(keeps("kube-node-lease", "n1"));
    assert!(!keeps("kube-node-lease", "n2") && !keeps("default", "n1"));
}

#[test]
fn a_node_reads_the_volumes_of_its_pods_and_removes_its_own_folders_when_they_are_deleted() {
    let volume = |more: &[(&str, Value)]| {
        let mut volume = json!({
            "metadata": {"name": "v", "uid": "v", "finalizers": [FOLDER_FINALIZER],
                "deletionTimestamp": "2026-03-01T00:00:00Z"},
            "spec": {"claimRef": {"namespace": "default", "name": "other"},
                "csi": {"driver": LOCAL_DRIVER, "volumeHandle": "v", "volumeAttributes": {"node": "n1"}}}
        });
        for (pointer, value) in more {
            volume = with(volume, pointer, value.clone());
        }
        volume
    };
    let may = |verb: Verb, old: Option<&Value>, new: Option<&Value>| {
        let ask = Ask::of(verb, "persistentvolumes", "", "v").change(old, new);
        decide(Who::Node("n1"), &ask, &Two).is_ok()
    };
    let its = volume(&[]);
    let elsewhere = ("/spec/csi/volumeAttributes/node", json!("n2"));
    let named = ("/spec/claimRef/name", json!("data"));
    let table = [
        (its.clone(), true, true),
        (volume(std::slice::from_ref(&elsewhere)), false, false),
        (volume(&[elsewhere, named]), true, false),
        (volume(&[("/spec/csi/driver", json!("else.example"))]), false, false),
        (volume(&[("/metadata/deletionTimestamp", Value::Null)]), true, false),
        (volume(&[("/metadata/finalizers", json!([FOLDER_FINALIZER, "a/b"]))]), true, false),
    ];
    for (volume, reads, removes) in table {
        assert_eq!(may(Verb::Get, Some(&volume), None), reads, "{volume}");
        assert_eq!(may(Verb::Delete, Some(&volume), None), removes, "{volume}");
    }
    assert!(!may(Verb::Create, None, Some(&its)));
    let made = |uid: &str| ("/metadata/annotations", json!({FOLDER_MADE: uid}));
    let policy = ("/spec/persistentVolumeReclaimPolicy", json!("Retain"));
    let more = ("/metadata/annotations", json!({FOLDER_MADE: "v", "a/b": "c"}));
    let updates = [
        (volume(&[made("v")]), true),
        (volume(&[made("w")]), false),
        (volume(&[made("v"), policy]), false),
        (volume(&[more]), false),
        (volume(&[made("v"), ("/metadata/finalizers", json!([]))]), false),
        (its.clone(), false),
    ];
    for (new, expected) in updates {
        assert_eq!(may(Verb::Update, Some(&its), Some(&new)), expected, "{new}");
    }
    let elses = volume(&[("/spec/csi/volumeAttributes/node", json!("n2"))]);
    let marked = volume(&[("/spec/csi/volumeAttributes/node", json!("n2")), made("v")]);
    assert!(!may(Verb::Update, Some(&elses), Some(&marked)));
    assert!(!may(Verb::Delete, Some(&its), Some(&its)), "it marks none");
    let list = Ask::of(Verb::List, "persistentvolumes", "", "");
    for (on_node, may) in [(None, false), (Some("n1"), true), (Some("n2"), false)] {
        let ask = Ask { on_node, ..list };
        assert_eq!(decide(Who::Node("n1"), &ask, &Two).is_ok(), may, "{on_node:?}");
    }
}
