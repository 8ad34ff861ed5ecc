//! The same of kinds that nothing acts on yet: they are judged, whatever they are good for.

use super::{MANY, many};
use crate::even::is_even;
use impresario_api::admission::{
    Context, Door, RandomAllocator, ServiceRanges, admit_create, admit_update,
};
use impresario_api::catalog::find_kind;
use impresario_api::status::Status;
use serde_json::{Value, json};

/// An object of a kind, given as `group/version/Kind`, created or changed through a door.
fn judged(kind: &str, object: Value, change: Option<(Door, &Value)>) -> Result<Value, Status> {
    let mut words = kind.rsplitn(3, '/');
    let [kind, version, group] = [(); 3].map(|()| words.next().unwrap_or_default());
    let resource = find_kind(group, version, kind).expect("it is served");
    let allocator = RandomAllocator::new(ServiceRanges::default());
    let now = "2026-01-01T00:00:00Z".parse().expect("a time");
    let context = Context { namespace: "d", user: "tester", now, allocator: &allocator };
    match change {
        None => admit_create(&resource, object, &context),
        Some((door, old)) => admit_update(&resource, door, object, old, &context),
    }
}

fn named(fields: Value) -> Value {
    let mut object = fields;
    object["metadata"] = json!({"name": "a"});
    object
}

#[test]
fn a_quota_of_many_scopes_and_amounts_is_judged() {
    is_even(MANY, |count| {
        let hard: serde_json::Map<String, Value> = (1..=count)
            .map(|number| (format!("count/k{number}.example.org"), "1".into()))
            .collect();
        let scopes = many(count, |_| "Terminating".into());
        let quota = named(json!({"spec": {"hard": hard, "scopes": scopes}}));
        judged("v1/ResourceQuota", quota, None).expect("a valid quota");
    });
}

#[test]
fn a_class_of_many_tolerations_is_judged() {
    is_even(MANY, |count| {
        let toleration = |number| json!({"key": format!("k{number}"), "operator": "Exists"});
        let scheduling = json!({"tolerations": many(count, toleration)});
        let class = named(json!({"handler": "h", "scheduling": scheduling}));
        judged("node.k8s.io/v1/RuntimeClass", class, None).expect("a valid class");
    });
}

#[test]
fn a_node_of_many_drivers_is_judged_and_compared_with_those_before() {
    is_even(MANY, |count| {
        let driver = |number| json!({"name": format!("d{number}"), "nodeID": "n"});
        let node = named(json!({"spec": {"drivers": many(count, driver)}}));
        let kind = "storage.k8s.io/v1/CSINode";
        let old = judged(kind, node, None).expect("a valid node");
        judged(kind, old.clone(), Some((Door::Main, &old))).expect("no change");
    });
}

#[test]
fn many_conditions_of_a_request_are_judged_at_the_door_of_its_approval() {
    is_even(MANY, |count| {
        let condition = |number| json!({"type": format!("C{number}"), "status": "True"});
        let status = json!({"conditions": many(count, condition)});
        let old = named(json!({"spec": {}, "status": status}));
        let kind = "certificates.k8s.io/v1/CertificateSigningRequest";
        let new = judged(kind, old.clone(), Some((Door::Approval, &old))).expect("valid");
        assert_eq!(new["status"]["conditions"].as_array().map(Vec::len), Some(count));
    });
}

#[test]
fn many_rules_of_traffic_are_judged() {
    is_even(MANY, |count| {
        let port = |number| json!({"port": number});
        let peer =
            |number: usize| json!({"ipBlock": {"cidr": format!("10.{}.0.0/16", number % 256)}});
        let rule = json!({"ports": many(count, port), "from": many(count, peer)});
        let policy = named(json!({"spec": {"podSelector": {}, "ingress": [rule]}}));
        judged("networking.k8s.io/v1/NetworkPolicy", policy, None).expect("a valid policy");
        let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
        let rule = |number| {
            json!({"host": format!("h{number}.example.org"), "http": {"paths": [
            {"path": "/", "pathType": "Prefix", "backend": backend}]}})
        };
        let ingress = named(json!({"spec": {"rules": many(count, rule)}}));
        judged("networking.k8s.io/v1/Ingress", ingress, None).expect("a valid ingress");
    });
}
