//! What each door of an object lets through, and what deleting it means.

#![expect(clippy::expect_used, reason = "an object that is refused fails the test")]

mod daemon_sets;
mod deployments;
mod training_jobs;

use impresario_api::admission::{
    Account, Context, DeleteOptions, Deletion, Door, RandomAllocator, ServiceRanges, admit_create,
    admit_delete, admit_update, apply_scale, is_finished, scale_of,
};
use impresario_api::catalog::{find, find_object};
use impresario_api::resource::{Resource, Row};
use impresario_api::status::Status;
use serde_json::{Value, json};

fn allocator() -> RandomAllocator {
    RandomAllocator::new(ServiceRanges::default())
}

fn context(allocator: &RandomAllocator) -> Context<'_> {
    let now = "2026-01-01T00:00:00Z".parse().expect("a time");
    Context { namespace: "d", user: "tester", now, allocator }
}

fn create(object: &Value) -> (Row, Value) {
    let resource = find_object(object).expect("a kind that is served");
    let allocator = allocator();
    let object = admit_create(&resource, object.clone(), &context(&allocator));
    (resource, object.expect("a valid object"))
}

fn update(resource: &Resource, door: Door, new: Value, old: &Value) -> Result<Value, Status> {
    admit_update(resource, door, new, old, &context(&allocator()))
}

fn controller() -> (Row, Value) {
    create(&json!({
        "apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "web"},
        "spec": {"template": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        }},
    }))
}

fn pod(extra: Value) -> (Row, Value) {
    let mut spec = json!({"containers": [{"name": "c", "image": "i"}]});
    for (key, value) in extra.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    create(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}))
}

#[test]
fn a_generated_name_has_five_letters_of_the_known_alphabet() {
    let (_, pod) = create(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "web-"},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }));
    let name = pod["metadata"]["name"].as_str().expect("a name");
    let suffix = name.strip_prefix("web-").expect("the prefix");
    assert_eq!(suffix.len(), 5);
    assert!(suffix.chars().all(|c| "bcdfghjklmnpqrstvwxz2456789".contains(c)), "{suffix}");
}

#[test]
fn the_main_door_ignores_status_and_counts_changes_of_the_spec() {
    let (resource, old) = controller();
    let mut new = old.clone();
    new["spec"]["replicas"] = 3.into();
    new["status"]["replicas"] = 9.into();
    let new = update(&resource, Door::Main, new, &old).expect("a valid change");
    assert_eq!(new["status"], old["status"]);
    assert_eq!(new["metadata"]["generation"], 2);

    let mut labelled = new.clone();
    labelled["metadata"]["labels"]["x"] = "y".into();
    let labelled = update(&resource, Door::Main, labelled, &new).expect("a valid change");
    assert_eq!(labelled["metadata"]["generation"], 2);
}

#[test]
fn the_status_door_takes_status_and_metadata_and_ignores_the_spec() {
    let (resource, old) = controller();
    let mut new = old.clone();
    new["spec"]["replicas"] = 3.into();
    new["metadata"]["labels"] = json!({"x": "y"});
    new["metadata"]["annotations"] = json!({"note": "seen"});
    new["status"]["replicas"] = 2.into();
    let new = update(&resource, Door::Status, new, &old).expect("a valid status");
    assert_eq!(new["spec"], old["spec"]);
    assert_eq!(new["metadata"]["labels"], json!({"x": "y"}));
    assert_eq!(new["metadata"]["annotations"], json!({"note": "seen"}));
    for kept in ["uid", "creationTimestamp", "generation", "name", "namespace"] {
        assert_eq!(new["metadata"][kept], old["metadata"][kept], "{kept}");
    }
    assert_eq!(new["status"]["replicas"], 2);

    let mut wrong = new.clone();
    wrong["status"]["readyReplicas"] = 5.into();
    let refused = update(&resource, Door::Status, wrong, &new).expect_err("more ready than there");
    assert_eq!(refused.causes[0].field, "status.readyReplicas");
}

#[test]
fn a_pods_owners_stay_as_they_were_at_its_status_door() {
    let (resource, mut old) = pod(json!({}));
    let owner = |name: &str| json!([{"apiVersion": "v1", "kind": "ReplicationController", "name": name, "uid": "u"}]);
    old["metadata"]["ownerReferences"] = owner("rc");
    let mut new = old.clone();
    new["metadata"]["ownerReferences"] = owner("other");
    new["metadata"]["annotations"] = json!({"a": "b"});
    let new = update(&resource, Door::Status, new, &old).expect("a valid status");
    assert_eq!(new["metadata"]["ownerReferences"], owner("rc"));
    assert_eq!(new["metadata"]["annotations"]["a"], "b");
}

#[test]
fn the_status_door_of_a_custom_kind_takes_the_status_alone() {
    let template = json!({"spec": {"containers": [{"name": "c", "image": "i"}]}});
    let (resource, old) = create(&json!({
        "apiVersion": "training.impresario.dev/v1", "kind": "TrainingJob", "metadata": {"name": "t"},
        "spec": {"trainer": {"template": template}, "parameterServer": {"template": template}, "stop": {"epochs": 1}},
    }));
    let mut new = old.clone();
    new["metadata"]["labels"] = json!({"x": "y"});
    new["spec"]["stop"]["epochs"] = 2.into();
    new["status"] = json!({"phase": "Running"});
    let new = update(&resource, Door::Status, new, &old).expect("a valid status");
    assert_eq!((&new["spec"], &new["metadata"]), (&old["spec"], &old["metadata"]));
    assert_eq!(new["status"]["phase"], "Running");
}

#[test]
fn the_scale_door_reads_and_writes_the_count() {
    let (resource, old) = controller();
    let mut scale = scale_of(&resource, &old).expect("a scale");
    assert_eq!(scale["spec"]["replicas"], 1);
    assert_eq!(scale["status"]["selector"], "a=b");
    scale["spec"]["replicas"] = 4.into();
    let scaled = apply_scale(&resource, &old, &scale).expect("a valid scale");
    let scaled = update(&resource, Door::Scale, scaled, &old).expect("a valid change");
    assert_eq!(
        (&scaled["spec"]["replicas"], &scaled["metadata"]["generation"]),
        (&json!(4), &json!(2))
    );
    scale["spec"]["replicas"] = (-1).into();
    assert_eq!(apply_scale(&resource, &old, &scale).expect_err("negative").code(), 422);
}

#[test]
fn what_the_server_set_cannot_be_changed_and_need_not_be_said() {
    let (resource, old) = controller();
    let mut silent = old.clone();
    for field in ["uid", "creationTimestamp", "generation"] {
        silent["metadata"].as_object_mut().expect("metadata").remove(field);
    }
    assert_eq!(update(&resource, Door::Main, silent, &old).expect("a valid change"), old);
    let mut other = old.clone();
    other["metadata"]["uid"] = "1234".into();
    let refused = update(&resource, Door::Main, other, &old).expect_err("another uid");
    let fields: Vec<&str> = refused.causes.iter().map(|cause| cause.field.as_str()).collect();
    assert_eq!(fields, ["metadata.uid", "metadata.uid"]);
}

#[test]
fn a_pod_may_not_change_where_it_was_not_meant_to() {
    let (resource, old) = pod(json!({"activeDeadlineSeconds": 60}));
    let change = |pointer: &str, value: Value| {
        let mut new = old.clone();
        *new.pointer_mut(pointer).expect("the field") = value;
        update(&resource, Door::Main, new, &old).map_err(|status| status.causes[0].field.clone())
    };
    assert!(change("/spec/containers/0/image", json!("j")).is_ok());
    assert!(change("/spec/activeDeadlineSeconds", json!(30)).is_ok());
    let later = change("/spec/activeDeadlineSeconds", json!(90));
    assert_eq!(later, Err("spec.activeDeadlineSeconds".to_owned()));
    assert_eq!(change("/spec/restartPolicy", json!("Never")), Err("spec".to_owned()));
    assert_eq!(change("/spec/containers", json!([])), Err("spec.containers".to_owned()));
    // Every pod has two tolerations of its own, which nobody takes away: so a patch may replace the list.
    let more = change("/spec/tolerations", json!([{"key": "gpu", "operator": "Exists"}]));
    let more = more.expect("an addition");
    assert_eq!(more["spec"]["tolerations"].as_array().expect("tolerations").len(), 3);
    assert_eq!(more["metadata"]["generation"], 2);
    let changed = update(&resource, Door::Main, old.clone(), &more);
    assert_eq!(changed.expect_err("one goes").causes[0].field, "spec.tolerations");
}

#[test]
fn a_token_is_mounted_unless_the_pod_or_else_its_account_says_no() {
    let mounted = |account: &Value, pod: &Value| {
        let pods = find("", "v1", "pods").expect("pods");
        let object = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
            "spec": {
                "serviceAccountName": "robot", "automountServiceAccountToken": pod,
                "containers": [{"name": "c", "image": "i"}],
            },
        });
        let account = Account::of(&json!({ "automountServiceAccountToken": account }));
        let allocator = allocator().with_account("d", "robot", account);
        let pod = admit_create(&pods, object, &context(&allocator)).expect("a valid pod");
        pod["spec"]["volumes"].is_array()
    };
    let (yes, no, unsaid) = (json!(true), json!(false), json!(null));
    for (account, pod, expected) in [
        (&unsaid, &unsaid, true),
        (&yes, &unsaid, true),
        (&no, &unsaid, false),
        (&no, &yes, true),
        (&unsaid, &no, false),
        (&yes, &no, false),
    ] {
        assert_eq!(mounted(account, pod), expected, "account {account}, pod {pod}");
    }
}

#[test]
fn the_older_field_of_a_nodes_range_has_the_last_word_and_both_are_checked() {
    let nodes = find("", "v1", "nodes").expect("nodes");
    let node = |spec: Value| {
        let object =
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "spec": spec});
        let fields = |status: Status| -> Vec<String> {
            status.causes.into_iter().map(|cause| cause.field).collect()
        };
        admit_create(&nodes, object, &context(&allocator())).map_err(fields)
    };
    let settled = node(json!({"podCIDR": "10.0.1.0/24", "podCIDRs": ["10.0.2.0/24"]}));
    let settled = settled.expect("a valid node");
    assert_eq!(settled["spec"]["podCIDRs"], json!(["10.0.1.0/24"]));
    let settled = node(json!({"podCIDRs": ["10.0.2.0/24"]})).expect("a valid node");
    assert_eq!(settled["spec"]["podCIDR"], "10.0.2.0/24");
    let wrong = node(json!({"podCIDR": "10.0.1.0"})).expect_err("no range");
    assert_eq!(wrong, ["spec.podCIDRs[0]"]);
    let wrong = node(json!({"taints": [{"key": "a b", "effect": "NoSchedule"}]}));
    assert_eq!(wrong.expect_err("no key"), ["metadata.taints[0].key"]);

    let mut moved = settled.clone();
    moved["spec"]["podCIDR"] = "10.0.3.0/24".into();
    let refused = update(&nodes, Door::Main, moved, &settled).expect_err("another range");
    assert!(refused.causes.iter().all(|cause| cause.field == "spec.podCIDRs"), "{refused}");
}

#[test]
fn a_running_pod_gets_time_to_end_and_a_second_deletion_may_only_hurry() {
    let (resource, pod) = pod(json!({"nodeName": "n1"}));
    let now = "2026-01-01T00:00:00Z".parse().expect("a time");
    let delete = |pod: &Value, grace: Option<i64>| {
        let options = DeleteOptions { grace_period_seconds: grace, ..DeleteOptions::default() };
        admit_delete(&resource, pod, "7", &options, now).expect("a valid deletion")
    };
    let Deletion::Marked(marked) = delete(&pod, None) else { panic!("it must linger") };
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(marked["metadata"]["deletionTimestamp"], "2026-01-01T00:00:30Z");
    assert!(!is_finished(&resource, &marked));
    assert_eq!(delete(&marked, Some(60)), Deletion::Unchanged);
    let Deletion::Marked(hurried) = delete(&marked, Some(5)) else { panic!("it must hurry") };
    assert_eq!(hurried["metadata"]["deletionGracePeriodSeconds"], 5);
    assert_eq!(delete(&hurried, Some(0)), Deletion::Gone);
}

#[test]
fn no_grace_period_is_too_long_to_be_told() {
    let spec = json!({"nodeName": "n1", "terminationGracePeriodSeconds": i64::MAX});
    let (resource, pod) = pod(spec);
    let now = "2026-01-01T00:00:00Z".parse().expect("a time");
    for asked in [None, Some(i64::MAX), Some(1 << 40)] {
        let options = DeleteOptions { grace_period_seconds: asked, ..DeleteOptions::default() };
        let deletion = admit_delete(&resource, &pod, "7", &options, now).expect("a valid deletion");
        let Deletion::Marked(marked) = deletion else { panic!("it must linger") };
        assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], i64::from(i32::MAX));
        assert_eq!(marked["metadata"]["deletionTimestamp"], "2094-01-19T03:14:07Z");
    }
}

#[test]
fn finalizers_hold_an_object_and_preconditions_protect_it() {
    let (resource, mut object) = create(&json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "m", "finalizers": ["example.org/f"]},
    }));
    let now = "2026-01-01T00:00:00Z".parse().expect("a time");
    let wrong = DeleteOptions { uid: Some("other".to_owned()), ..DeleteOptions::default() };
    assert_eq!(admit_delete(&resource, &object, "7", &wrong, now).expect_err("uid").code(), 409);
    let options = DeleteOptions::default();
    let held = admit_delete(&resource, &object, "7", &options, now).expect("a valid deletion");
    let Deletion::Marked(marked) = held else { panic!("it must linger") };
    let mut more = marked.clone();
    more["metadata"]["finalizers"] = json!(["example.org/f", "example.org/g"]);
    let refused = update(&resource, Door::Main, more, &marked).expect_err("a new finalizer");
    assert_eq!(refused.causes[0].field, "metadata.finalizers");
    let mut freed = marked.clone();
    freed["metadata"]["finalizers"] = json!([]);
    let freed = update(&resource, Door::Main, freed, &marked).expect("a valid change");
    assert!(is_finished(&resource, &freed));

    object["metadata"]["finalizers"] = json!([]);
    let gone = admit_delete(&resource, &object, "7", &options, now).expect("a valid deletion");
    assert_eq!(gone, Deletion::Gone);
}

#[test]
fn a_namespace_lingers_until_its_own_door_lets_it_go() {
    let (resource, namespace) =
        create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}));
    let now = "2026-01-01T00:00:00Z".parse().expect("a time");
    let options = DeleteOptions::default();
    let held = admit_delete(&resource, &namespace, "7", &options, now).expect("a valid deletion");
    let Deletion::Marked(marked) = held else { panic!("it must linger") };
    assert_eq!(marked["status"]["phase"], "Terminating");
    let mut freed = marked.clone();
    freed["spec"]["finalizers"] = json!([]);
    let main = update(&resource, Door::Main, freed.clone(), &marked).expect("a valid change");
    assert!(!is_finished(&resource, &main));
    let freed = update(&resource, Door::Finalize, freed, &marked).expect("a valid change");
    assert!(is_finished(&resource, &freed));
}

#[test]
fn addresses_and_ports_of_services_are_drawn_once_and_kept() {
    let services = find("", "v1", "services").expect("services");
    let (_, old) = create(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"type": "NodePort", "ports": [
            {"name": "a", "port": 53, "protocol": "UDP"}, {"name": "b", "port": 53},
        ]},
    }));
    let ports = |service: &Value| -> Vec<Value> {
        let ports = service["spec"]["ports"].as_array().expect("ports");
        ports.iter().map(|port| port["nodePort"].clone()).collect()
    };
    assert_eq!(ports(&old)[0], ports(&old)[1], "one number for both protocols");
    let mut new = old.clone();
    for port in new["spec"]["ports"].as_array_mut().expect("ports") {
        port.as_object_mut().expect("a port").remove("nodePort");
    }
    for field in ["clusterIP", "clusterIPs"] {
        new["spec"].as_object_mut().expect("a spec").remove(field);
    }
    let new = update(&services, Door::Main, new, &old).expect("a valid change");
    assert_eq!((ports(&new), &new["spec"]["clusterIP"]), (ports(&old), &old["spec"]["clusterIP"]));

    let address = old["spec"]["clusterIP"].as_str().expect("an address").to_owned();
    let numbers = ports(&old).iter().filter_map(|port| port.as_u64()?.try_into().ok()).collect();
    let taken = allocator().without([address].into(), numbers);
    let mut second = old.clone();
    second["metadata"] = json!({"name": "t"});
    let refused = admit_create(&services, second, &context(&taken)).expect_err("a taken address");
    let fields: Vec<&str> = refused.causes.iter().map(|cause| cause.field.as_str()).collect();
    assert_eq!(fields, ["spec.clusterIPs", "spec.ports[0].nodePort", "spec.ports[1].nodePort"]);
}

#[test]
fn a_service_gets_no_address_of_a_family_that_the_cluster_does_not_have() {
    let services = find("", "v1", "services").expect("services");
    let judged = |spec: &Value| {
        let mut service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
        for (field, value) in spec.as_object().expect("a spec") {
            service["spec"][field] = value.clone();
        }
        admit_create(&services, service, &context(&allocator()))
    };
    let both = json!(["IPv4", "IPv6"]);
    for (spec, field) in [
        (json!({"ipFamilyPolicy": "RequireDualStack"}), "spec.ipFamilyPolicy"),
        (json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": both}), "spec.ipFamilies[1]"),
        (
            json!({"ipFamilyPolicy": "PreferDualStack", "clusterIP": "127.96.0.9", "clusterIPs": ["127.96.0.9", "fd00::1"]}),
            "spec.clusterIPs[1]",
        ),
        (
            json!({"clusterIP": "None", "selector": {"a": "b"}, "ipFamilies": ["IPv6"]}),
            "spec.ipFamilies[0]",
        ),
    ] {
        let refused = judged(&spec).expect_err("nothing of it would be served");
        let fields: Vec<&str> = refused.causes.iter().map(|cause| cause.field.as_str()).collect();
        assert_eq!(fields, [field], "{spec}");
    }
    judged(&json!({"ipFamilyPolicy": "PreferDualStack"})).expect("it has what there is");
    judged(&json!({"clusterIP": "None"})).expect("nothing is given to it");

    // What stands there already keeps nobody from changing the rest.
    let mut old = judged(&json!({})).expect("a service");
    old["spec"]["ipFamilyPolicy"] = "RequireDualStack".into();
    old["spec"]["ipFamilies"] = both;
    let mut new = old.clone();
    new["metadata"]["labels"] = json!({"a": "b"});
    update(&services, Door::Main, new, &old).expect("a valid change");
}
