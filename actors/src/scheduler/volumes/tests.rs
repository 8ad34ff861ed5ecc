use super::super::fit;
use super::super::volume_needs::Choice;
use super::*;
use impresario_registry_api::{Entry, Key};
use serde_json::{Value, json};

fn entry(object: &Value) -> Entry {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    Entry {
        key: Key::new("things", text("namespace"), text("name")),
        value: object.to_string().into(),
        create_revision: 1,
        mod_revision: 1,
    }
}

fn claim(name: &str, more: &Value) -> Value {
    let mut claim = json!({"metadata": {"name": name, "namespace": "ns", "uid": name,
            "annotations": {}},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "late",
            "resources": {"requests": {"storage": "5Gi"}}}});
    for (pointer, value) in more.as_object().unwrap() {
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        claim.pointer_mut(parent).unwrap()[field.replace("~1", "/")] = value.clone();
    }
    claim
}

/// A volume on a node.
fn volume(name: &str, size: &str, node: &str, reference: &Value) -> Value {
    json!({"metadata": {"name": name}, "status": {"phase": "Available"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "late",
            "capacity": {"storage": size}, "claimRef": reference, "nodeAffinity": {"required": {
                "nodeSelectorTerms": [{"matchExpressions": [
                    {"key": HOSTNAME, "operator": "In", "values": [node]}]}]}}}})
}

fn class(name: &str, provisioner: &str, mode: &str) -> Value {
    json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode})
}

fn known(claims: &[Value], volumes: &[Value], classes: &[Value]) -> Volumes {
    let all = |objects: &[Value]| Followed::All(objects.iter().map(entry).collect());
    let mut known = Volumes::default();
    known.claims_seen(all(claims));
    known.volumes_seen(all(volumes));
    known.classes_seen(all(classes));
    known
}

fn pod(uid: &str, claims: &[&str]) -> Pod {
    let volumes: Vec<Value> = claims
        .iter()
        .map(|claim| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}}))
        .collect();
    serde_json::from_value(json!({"metadata": {"name": uid, "namespace": "ns", "uid": uid},
        "spec": {"containers": [], "volumes": volumes}}))
    .unwrap()
}

fn on_node(node: &str) -> impl Fn(&[NodeSelectorTerm]) -> bool + '_ {
    let labels = [(HOSTNAME.to_owned(), node.to_owned())].into();
    move |terms| fit::is_chosen(&BTreeMap::new(), Some(terms), node, &labels)
}

/// The nodes that are fit, or why none is.
fn fit_on(needs: &VolumeNeeds) -> String {
    let told: Vec<_> = ["n1", "n2"].map(|node| (node, needs.unfit(on_node(node)))).into();
    let fit: Vec<_> = told.iter().filter(|(_, why)| why.is_none()).map(|(node, _)| *node).collect();
    if fit.is_empty() { told[0].1.clone().unwrap() } else { fit.join(" ") }
}

#[test]
fn a_pod_goes_where_all_of_its_claims_have_a_volume_or_can_get_one() {
    let local = "impresario.dev/local";
    let none = Value::Null;
    let mine = json!({"namespace": "ns", "name": "c", "uid": "c"});
    let bound = json!({"/spec/volumeName": "v", "/metadata/annotations/pv.kubernetes.io~1bind-completed": "yes"});
    let selected = json!({"/metadata/annotations/volume.kubernetes.io~1selected-node": "n2"});
    let at_once = json!({"/spec/storageClassName": "now"});
    let going = json!({"/metadata/deletionTimestamp": "2026-03-01T00:00:00Z"});
    let table = [
        ("bound", bound.clone(), vec![volume("v", "5Gi", "n1", &mine)], local, "n1", true),
        ("lost", bound, vec![], local, "bound to non-existent", false),
        ("coming", json!({}), vec![volume("v", "5Gi", "n1", &mine)], local, "n1", false),
        ("selected", selected, vec![], local, "n2", false),
        ("made", json!({}), vec![], local, "n1 n2", false),
        ("taken", json!({}), vec![volume("v", "5Gi", "n2", &none)], NO_PROVISIONER, "n2", false),
        (
            "small",
            json!({}),
            vec![volume("v", "1Gi", "n2", &none)],
            NO_PROVISIONER,
            "didn't find",
            false,
        ),
        ("immediate", at_once, vec![], local, "unbound immediate", false),
        ("going", going, vec![], local, "is being deleted", false),
    ];
    for (name, more, volumes, provisioner, expected, is_settled) in table {
        let classes =
            [class("late", provisioner, "WaitForFirstConsumer"), class("now", local, "Immediate")];
        let known = known(&[claim("c", &more)], &volumes, &classes);
        let needs = known.needs(&pod("p", &["c"])).unwrap();
        let told = fit_on(&needs);
        assert!(told.contains(expected), "{name}: {told}");
        let settled = needs.blocked.is_none() && needs.are_settled();
        assert_eq!(settled, is_settled, "{name}");
    }
    let known = known(&[], &[], &[]);
    assert!(known.needs(&pod("p", &[])).is_none());
    assert!(fit_on(&known.needs(&pod("p", &["c"])).unwrap()).contains("not found"));
    let unread = Volumes::default();
    assert!(unread.needs(&pod("p", &["c"])).unwrap().blocked.is_some());
}

#[test]
fn what_is_chosen_is_the_smallest_on_the_node_and_no_volume_twice() {
    let none = Value::Null;
    let volumes = [
        volume("a", "9Gi", "n1", &none),
        volume("b", "6Gi", "n1", &none),
        volume("c", "5Gi", "n2", &none),
    ];
    let claims = ["x", "y", "z"].map(|name| claim(name, &json!({})));
    let classes = [class("late", "impresario.dev/local", "WaitForFirstConsumer")];
    let known = known(&claims, &volumes, &classes);
    let needs = known.needs(&pod("p", &["x", "y", "z"])).unwrap();
    let take =
        |claim: &str, volume: &str| Choice::Take { claim: claim.into(), volume: volume.into() };
    let make = |claim: &str| Choice::Make { claim: claim.into() };
    assert_eq!(needs.choices(on_node("n1")), [take("x", "b"), take("y", "a"), make("z")]);
    assert_eq!(needs.choices(on_node("n2")), [take("x", "c"), make("y"), make("z")]);
}

#[test]
fn a_node_is_fit_where_all_claims_of_the_pod_have_a_volume_each() {
    let none = Value::Null;
    let volumes = [
        volume("a", "5Gi", "n1", &none),
        volume("b", "6Gi", "n2", &none),
        volume("c", "9Gi", "n2", &none),
    ];
    let large = json!({"/spec/resources": {"requests": {"storage": "8Gi"}}});
    let small = json!({});
    let classes = [class("late", NO_PROVISIONER, "WaitForFirstConsumer")];
    let fit = |first: &Value, second: &Value| {
        let known = known(&[claim("x", first), claim("y", second)], &volumes, &classes);
        fit_on(&known.needs(&pod("p", &["x", "y"])).unwrap())
    };
    assert_eq!(fit(&small, &small), "n2");
    assert_eq!((fit(&small, &large), fit(&large, &small)), ("n2".into(), "n2".into()));
    assert!(fit(&large, &large).contains("didn't find"));
}

#[test]
fn who_takes_the_one_that_another_needs_gets_another() {
    let open = |claim: &str, volumes: &[&str]| Need::Open {
        claim: claim.into(),
        volumes: volumes.iter().map(|name| ((*name).to_owned(), None)).collect(),
        made: None,
    };
    let needs = VolumeNeeds {
        needs: vec![open("x", &["a", "b"]), open("y", &["a"]), open("z", &["b", "c"])],
        ..VolumeNeeds::default()
    };
    let take =
        |claim: &str, volume: &str| Choice::Take { claim: claim.into(), volume: volume.into() };
    let all = |_: &[NodeSelectorTerm]| true;
    assert_eq!(needs.choices(all), [take("x", "b"), take("y", "a"), take("z", "c")]);
}

#[test]
fn a_claim_for_one_pod_alone_is_given_to_no_second_before_the_first_is_over() {
    let alone = claim("c", &json!({"/spec/accessModes": ["ReadWriteOncePod"]}));
    let classes = [class("late", "impresario.dev/local", "WaitForFirstConsumer")];
    let mut known = known(&[alone], &[], &classes);
    let is_blocked =
        |known: &Volumes| known.needs(&pod("second", &["c"])).unwrap().blocked.is_some();
    assert!(!is_blocked(&known));
    let first = pod("first", &["c"]);
    // Both are planned in one pass.
    let asked = |known: &Volumes, uid: &str| known.needs(&pod(uid, &["c"])).unwrap().alone;
    let (one, other) = (asked(&known, "first"), asked(&known, "second"));
    assert!(known.take("first", &one) && !known.take("second", &other));
    known.let_go("first");
    assert!(known.take("second", &other), "the first was refused by its node");
    assert!(!known.take("first", &one));
    known.pod_gone("second");
    assert!(known.take("first", &one));
    assert!(known.pod_bound("first", &first, false), "who waits is told of it");
    assert!(is_blocked(&known) && !known.take("second", &other));
    assert!(known.needs(&first).unwrap().blocked.is_none(), "it is its own");
    assert!(known.pod_bound("first", &first, true) && !is_blocked(&known));
}

#[test]
fn the_claim_of_an_ephemeral_volume_is_waited_for_and_must_be_the_pods_own() {
    let classes = [class("late", "impresario.dev/local", "WaitForFirstConsumer")];
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "p"}, "spec": {"containers": [],
            "volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}]}}))
    .unwrap();
    let told = |claims: &[Value]| known(claims, &[], &classes).needs(&pod).unwrap().blocked;
    assert!(told(&[]).unwrap().contains("to be made"));
    assert!(told(&[claim("p-v", &json!({}))]).unwrap().contains("not created for"));
    let owner =
        json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "p", "controller": true}]);
    assert_eq!(told(&[claim("p-v", &json!({"/metadata/ownerReferences": owner}))]), None);
}
