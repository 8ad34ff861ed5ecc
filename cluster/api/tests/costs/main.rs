//! What is asked for costs what it says: where every entry of a list is compared with every other, a longer list costs more
//! than it is longer.

#![expect(clippy::expect_used, reason = "an object that is refused fails the test")]

mod even;
mod kinds;

use even::is_even;
use impresario_api::admission::{
    Context, Door, RandomAllocator, ServiceRanges, admit_create, admit_update,
};
use impresario_api::catalog::find;
use impresario_api::status::Status;
use serde_json::{Value, json};

const MANY: usize = 60_000;

fn many(count: usize, entry: impl Fn(usize) -> Value) -> Vec<Value> {
    (1..=count).map(entry).collect()
}

fn judged(plural: &str, new: Value, old: Option<&Value>) -> Result<Value, Status> {
    let resource = &find("", "v1", plural).expect("it is served");
    let allocator = RandomAllocator::new(ServiceRanges::default());
    let now = "2026-01-01T00:00:00Z".parse().expect("a time");
    let context = Context { namespace: "d", user: "tester", now, allocator: &allocator };
    match old {
        None => admit_create(resource, new, &context),
        Some(old) => admit_update(resource, Door::Main, new, old, &context),
    }
}

fn pod(container: Value, extra: Value) -> Value {
    let mut spec = json!({"containers": [{"name": "c", "image": "i"}]});
    for (into, from) in [("/containers/0", container), ("", extra)] {
        let place = spec.pointer_mut(into).expect("it is there");
        for (key, value) in from.as_object().into_iter().flatten() {
            place[key] = value.clone();
        }
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec})
}

#[test]
fn long_lists_of_a_container_are_judged() {
    is_even(MANY, lists_of_a_container);
}

fn lists_of_a_container(count: usize) {
    let mount = |number| json!({"name": "v", "mountPath": format!("/m{number}")});
    let port =
        |number| json!({"name": format!("p{number}"), "containerPort": number, "hostPort": number});
    let env = |number| json!({"name": format!("E{number}"), "value": "v"});
    let volumes = json!({"volumes": [{"name": "v", "emptyDir": {}}]});
    let container = json!({"volumeMounts": many(count, mount), "ports": many(count, port), "env": many(count, env)});
    judged("pods", pod(container, volumes), None).expect("a valid pod");

    let device =
        |number| json!({"name": format!("d{number}"), "devicePath": format!("/d{number}")});
    let container =
        json!({"volumeMounts": many(count, mount), "volumeDevices": many(count, device)});
    let refused = judged("pods", pod(container, json!({})), None).expect_err("no such volumes");
    assert_eq!(refused.code(), 422);
}

#[test]
fn long_lists_of_a_pod_are_judged_and_compared_with_those_before() {
    is_even(MANY, lists_of_a_pod);
}

fn lists_of_a_pod(count: usize) {
    let key = |number| json!({"key": format!("k{number}"), "operator": "Exists"});
    let gate = |number| json!({"name": format!("example.org/g{number}")});
    let volume = |number| json!({"name": format!("v{number}"), "emptyDir": {}});
    let lists = json!({"tolerations": many(count, key), "schedulingGates": many(count, gate), "volumes": many(count, volume)});
    let old = judged("pods", pod(json!({}), lists), None).expect("a valid pod");
    let mut new = old.clone();
    let gates = new["spec"]["schedulingGates"].as_array_mut().expect("a list");
    assert_eq!(gates.remove(0), gate(1));
    let tolerations = new["spec"]["tolerations"].as_array_mut().expect("a list");
    tolerations.push(json!({"key": "one-more", "operator": "Exists"}));
    let new = judged("pods", new, Some(&old)).expect("a valid change");
    assert_eq!(new["spec"]["schedulingGates"].as_array().map(Vec::len), Some(count - 1));
}

#[test]
fn long_lists_of_ports_of_a_service_are_judged() {
    is_even(MANY, ports_of_a_service);
}

fn ports_of_a_service(count: usize) {
    let port = |number| json!({"name": format!("p{number}"), "port": number});
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"ports": many(count, port)}});
    let old = judged("services", service, None).expect("a valid service");
    let mut new = old.clone();
    new["spec"]["ports"][0]["targetPort"] = "http".into();
    judged("services", new, Some(&old)).expect("a valid change");
}
