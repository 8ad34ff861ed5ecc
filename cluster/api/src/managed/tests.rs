//! Who owns what after writes of several managers.

mod bounds;
mod shared;

use super::entries::{Entries, Managed, Owned};
use super::*;
use crate::catalog::find;
use crate::resource::Row;
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

/// An object and its writers, as a server keeps it; defaults and rules aside.
struct World {
    row: Row,
    object: Value,
    now: i64,
}

impl World {
    fn of(group: &str, plural: &str) -> Self {
        Self { row: find(group, "v1", plural).unwrap(), object: Value::Null, now: 0 }
    }

    fn writer<'a>(&mut self, manager: &'a str, subresource: &'a str) -> Writer<'a> {
        self.now += 1;
        Writer { manager, subresource, now: Timestamp::from_second(self.now).unwrap() }
    }

    fn create(mut self, manager: &str, mut object: Value) -> Self {
        object["metadata"]["name"] = "a".into();
        object["metadata"]["uid"] = "u".into();
        let writer = self.writer(manager, "");
        created(&self.row, &mut object, &writer).unwrap();
        self.object = object;
        self
    }

    fn update(&mut self, manager: &str, subresource: &str, patch: &Value) {
        let mut new = self.object.clone();
        json_patch::merge(&mut new, patch);
        let writer = self.writer(manager, subresource);
        updated(&self.row, &self.object, &mut new, &writer).unwrap();
        self.object = new;
    }

    fn apply(&mut self, manager: &str, applied: &Value, force: bool) -> Result<(), ApplyError> {
        self.apply_at(manager, "", applied, force)
    }

    fn apply_at(
        &mut self,
        manager: &str,
        door: &str,
        applied: &Value,
        force: bool,
    ) -> Result<(), ApplyError> {
        let writer = self.writer(manager, door);
        let merged = apply(&self.row, &self.object, applied, &writer, force)?;
        let mut object = merged.object.clone();
        merged.note(&self.row, &mut object);
        self.object = object;
        Ok(())
    }

    /// Each manager as `NAME OPERATION DOOR`, with its fields.
    fn told(&self) -> Vec<(String, Vec<String>)> {
        let mut object = self.object.clone();
        let bytes = told_of_bytes(&self.row, &serde_json::to_vec(&object).unwrap());
        tell(&self.row, &mut object);
        // Who has the bytes alone tells the same.
        let of_bytes: Option<Value> = bytes.map(|bytes| serde_json::from_slice(&bytes).unwrap());
        assert_eq!(of_bytes.as_ref(), object["metadata"].get("managedFields"));
        kept(&object)
            .iter()
            .map(|entry| {
                let text = |name: &str| entry[name].as_str().unwrap_or_default();
                assert_eq!(text("fieldsType"), "FieldsV1");
                assert!(!text("time").is_empty() && !text("apiVersion").is_empty(), "{entry}");
                let who =
                    format!("{} {} {}", text("manager"), text("operation"), text("subresource"));
                (who.trim().to_owned(), Fields::parse(&entry["fieldsV1"]).unwrap().paths())
            })
            .collect()
    }

    fn owns(&self, who: &str) -> Vec<String> {
        self.told()
            .into_iter()
            .find(|(name, _)| name == who)
            .map(|(_, paths)| paths)
            .unwrap_or_default()
    }

    fn is_short(&self) -> bool {
        kept(&self.object).iter().any(|entry| entry.get("fieldsV1").is_none())
    }
}

fn config(data: &Value) -> Value {
    json!({ "data": data })
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "namespace": "d", "creationTimestamp": "x", "labels": { "app": "web" } },
        "spec": {
            "containers": [{ "name": "c", "image": "i", "resources": {}, "ports": [{ "containerPort": 80, "protocol": "TCP" }] }],
            "dnsPolicy": "ClusterFirst", "securityContext": {}, "restartPolicy": "Always",
        },
        "status": { "phase": "Pending" },
    })
}

#[test]
fn who_creates_owns_all_but_what_the_server_says_and_it_is_kept_short() {
    let world = World::of("", "pods").create("run", pod());
    assert!(world.is_short() && kept(&world.object)[0].to_string().len() < 120);
    let container = r#".spec.containers[name="c"]"#;
    let mut wanted: Vec<String> = ["", ".image", ".name", ".ports", ".resources"]
        .iter()
        .map(|rest| format!("{container}{rest}"))
        .collect();
    for rest in ["", ".containerPort", ".protocol"] {
        wanted.push(format!(r#"{container}.ports[containerPort=80,protocol="TCP"]{rest}"#));
    }
    for path in [
        ".metadata.labels",
        ".metadata.labels.app",
        ".spec.dnsPolicy",
        ".spec.restartPolicy",
        ".spec.securityContext",
    ] {
        wanted.push(path.to_owned());
    }
    wanted.sort();
    let mut told = world.owns("run Update");
    told.sort();
    assert_eq!(told, wanted);
}

#[test]
fn what_others_change_is_theirs_and_the_status_is_of_who_writes_it() {
    let mut world = World::of("", "pods").create("run", pod());
    world.update("scheduler", "", &json!({ "spec": { "nodeName": "n" } }));
    let ready = json!([{ "type": "Ready", "status": "True" }]);
    world.update(
        "node",
        "status",
        &json!({ "status": { "phase": "Running", "conditions": ready } }),
    );
    world.update("set", "", &json!({ "metadata": { "labels": { "app": "other" } } }));
    assert!(world.is_short());
    assert_eq!(world.owns("scheduler Update"), [".spec.nodeName"]);
    assert_eq!(world.owns("set Update"), [".metadata.labels.app"]);
    let mine = world.owns("run Update");
    assert!(
        mine.contains(&".metadata.labels".to_owned())
            && mine.contains(&".spec.dnsPolicy".to_owned())
    );
    assert!(!mine.iter().any(|path| path.contains("nodeName")
        || path.contains("labels.app")
        || path.starts_with(".status")));
    let wanted = [
        ".status.conditions",
        r#".status.conditions[type="Ready"]"#,
        r#".status.conditions[type="Ready"].status"#,
        r#".status.conditions[type="Ready"].type"#,
        ".status.phase",
    ];
    assert_eq!(world.owns("node Update status"), wanted);
    // The spec says nothing through the door of the status, nor the status through the main one.
    let before = world.told();
    world.update("run", "", &json!({ "status": { "phase": "Failed" } }));
    world.update("node", "status", &json!({ "spec": { "dnsPolicy": "None" } }));
    assert_eq!(world.told(), before);
    world.update("run", "", &json!({ "metadata": { "labels": null } }));
    assert_eq!(world.owns("set Update"), [""; 0]);
}

#[test]
fn a_write_that_changes_nothing_leaves_the_entries_as_they_were() {
    let mut world = World::of("", "configmaps").create("a", config(&json!({ "x": "1" })));
    world.update("b", "", &json!({ "data": { "y": "2" } }));
    let before = world.object.clone();
    world.update("c", "", &json!({ "data": { "y": "2" } }));
    assert_eq!(world.object, before);
    world.apply("d", &config(&json!({ "x": "1" })), false).unwrap();
    let before = world.object.clone();
    world.apply("d", &config(&json!({ "x": "1" })), false).unwrap();
    assert_eq!(world.object, before);
}

#[test]
fn three_managers_conflict_share_and_force() {
    let mut world = World::of("", "configmaps").create("a", config(&json!({ "x": "1", "y": "1" })));
    let refused = world.apply("b", &config(&json!({ "x": "2" })), false).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "Apply failed with 1 conflict: conflict with \"a\" using v1: .data.x"
    );
    world.apply("b", &config(&json!({ "x": "1", "z": "3" })), false).unwrap();
    let refused = world.apply("c", &config(&json!({ "x": "2", "z": "4" })), false).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "Apply failed with 3 conflicts: conflicts with \"a\" using v1:\n- .data.x\nconflicts with \"b\":\n- .data.x\n- .data.z"
    );
    let status = crate::status::Status::from(refused).to_value();
    assert_eq!((&status["code"], &status["reason"]), (&json!(409), &json!("Conflict")));
    assert_eq!(
        status["details"]["causes"][0],
        json!({ "reason": "FieldManagerConflict", "message": "conflict with \"a\" using v1", "field": ".data.x" })
    );
    world.apply("c", &config(&json!({ "x": "2" })), true).unwrap();
    assert_eq!(world.object["data"], json!({ "x": "2", "y": "1", "z": "3" }));
    assert_eq!(world.owns("c Apply"), [".data.x"]);
    assert_eq!(world.owns("b Apply"), [".data.z"]);
    assert_eq!(world.owns("a Update"), [".data", ".data.y"]);
    // What nobody applies any more goes, what somebody else owns stays.
    world.apply("c", &config(&json!({})), false).unwrap();
    assert_eq!(world.object["data"], json!({ "y": "1", "z": "3" }));
    world.apply("c", &json!({}), false).unwrap();
    assert_eq!(world.owns("c Apply"), [""; 0]);
    assert!(world.told().iter().all(|(who, _)| who != "c Apply"));
}

#[test]
fn entries_of_lists_are_applied_by_their_keys_in_their_order() {
    let mut world = World::of("apps", "deployments");
    let containers = |names: &[&str]| -> Value {
        let list: Vec<_> = names.iter().map(|name| json!({ "name": name, "image": "i" })).collect();
        json!({ "spec": { "template": { "spec": { "containers": list } } } })
    };
    let names = |world: &World| -> Vec<String> {
        let list = world.object["spec"]["template"]["spec"]["containers"].as_array().unwrap();
        list.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    world.apply("a", &containers(&["x", "y", "z"]), false).unwrap();
    world.apply("b", &containers(&["side"]), false).unwrap();
    assert_eq!(names(&world), ["x", "y", "z", "side"]);
    world.apply("a", &containers(&["z", "x"]), false).unwrap();
    assert_eq!(names(&world), ["z", "side", "x"]);
    world.apply("b", &containers(&["x"]), false).unwrap();
    assert_eq!(names(&world), ["z", "x"]);
    world.apply("a", &containers(&["z"]), false).unwrap();
    assert_eq!(names(&world), ["z", "x"], "b applies it as well");
    // A list that is owned as a whole is one field.
    let with = |args: &[&str]| json!({ "spec": { "template": { "spec": { "containers": [{ "name": "z", "args": args }] } } } });
    world.apply("c", &with(&["1"]), false).unwrap();
    let refused = world.apply("d", &with(&["2"]), false).unwrap_err().to_string();
    assert!(
        refused.ends_with(r#"conflict with "c": .spec.template.spec.containers[name="z"].args"#),
        "{refused}"
    );
}

#[test]
fn parts_that_are_left_empty_go_with_what_was_in_them() {
    let mut world = World::of("apps", "deployments");
    let with = |context: &Value| json!({ "spec": { "replicas": 1, "template": { "spec": { "securityContext": context } } } });
    world.apply("a", &with(&json!({ "runAsUser": 1 })), false).unwrap();
    world.update("u", "", &json!({ "spec": { "paused": true } }));
    world.apply("a", &json!({ "spec": { "replicas": 1 } }), false).unwrap();
    assert_eq!(
        world.object["spec"],
        json!({ "replicas": 1, "paused": true, "template": { "spec": {} } })
    );
    world.apply("a", &json!({}), false).unwrap();
    assert_eq!(world.object["spec"], json!({ "paused": true, "template": { "spec": {} } }));
}

#[test]
fn objects_of_which_nothing_is_known_are_of_before_the_first_apply() {
    let mut world = World::of("", "configmaps");
    world.object = json!({ "metadata": { "name": "a", "uid": "u" }, "data": { "x": "1" } });
    world.update("quiet", "", &json!({ "data": { "y": "1" } }));
    assert!(world.told().is_empty());
    let refused = world.apply("a", &config(&json!({ "x": "2" })), false).unwrap_err().to_string();
    assert!(
        refused.contains("conflict with \"before-first-apply\" using v1: .data.x"),
        "{refused}"
    );
    world.apply("a", &config(&json!({ "x": "1" })), false).unwrap();
    assert_eq!(world.owns("before-first-apply Update"), [".data", ".data.x", ".data.y"]);
}

#[test]
fn entries_can_be_given_reset_and_are_not_lost_by_who_does_not_know_them() {
    let mut world = World::of("", "configmaps").create("a", config(&json!({ "x": "1" })));
    let kept_before = world.told();
    world.update("b", "", &json!({ "metadata": { "managedFields": null } }));
    assert_eq!(world.told(), kept_before);
    world.update("b", "", &json!({ "metadata": { "managedFields": [] } }));
    assert_eq!(world.told(), kept_before);
    let mut told = world.object.clone();
    tell(&world.row, &mut told);
    told["metadata"]["managedFields"][0]["manager"] = "kubectl".into();
    told["metadata"]["managedFields"][0]["operation"] = "Apply".into();
    let entries = told["metadata"]["managedFields"].clone();
    world.update("b", "status", &json!({ "metadata": { "managedFields": entries } }));
    assert_eq!(world.told(), kept_before, "not through another door");
    world.update("b", "", &json!({ "metadata": { "managedFields": entries } }));
    assert_eq!(world.owns("kubectl Apply"), kept_before[0].1);
    world.update("b", "", &json!({ "metadata": { "managedFields": [{}] } }));
    assert!(world.told().is_empty());
    let wrong = [
        json!([{ "manager": "a", "operation": "Dance", "fieldsType": "FieldsV1", "fieldsV1": {} }]),
        json!([{ "manager": "a", "operation": "Apply", "fieldsType": "FieldsV2", "fieldsV1": {} }]),
        json!([{ "manager": "a", "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": { "k:": {} } }]),
        json!([{ "manager": "a".repeat(200), "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": {} }]),
    ];
    for entries in wrong {
        let mut new = world.object.clone();
        new["metadata"]["managedFields"] = entries;
        let writer = world.writer("b", "");
        let error = updated(&world.row, &world.object, &mut new, &writer).unwrap_err();
        assert!(error.field().starts_with("metadata.managedFields[0]."), "{error}");
    }
}

#[test]
fn of_many_managers_that_do_not_apply_the_oldest_are_told_as_one() {
    let mut world = World::of("", "configmaps").create("first", config(&json!({ "x": "1" })));
    for number in 0..15 {
        let key = format!("k{number:02}");
        world.update(&format!("m{number:02}"), "", &json!({ "data": { key: "1" } }));
    }
    let told = world.told();
    assert_eq!(told.len(), MOST_UPDATERS);
    let ancient = world.owns("ancient-changes Update");
    assert!(ancient.contains(&".data.x".to_owned()) && ancient.contains(&".data.k05".to_owned()));
    assert_eq!(world.owns("m14 Update"), [".data.k14"]);
    let all: usize = told.iter().map(|(_, paths)| paths.len()).sum();
    assert_eq!(all, 1 + 1 + 15, "nothing is lost, and nothing is told twice");
}

#[test]
fn what_kubectl_applied_by_itself_before_is_taken_over_without_force() {
    let manifest = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" }, "data": { "x": "1", "y": "1" } });
    let noted = crate::patch::with_last_applied(&manifest);
    let mut world = World::of("", "configmaps").create("kubectl-client-side-apply", noted);
    let mut new = manifest.clone();
    new["data"]["x"] = "2".into();
    assert!(world.apply("other", &new, false).is_err());
    world.apply("kubectl", &new, false).unwrap();
    assert_eq!(world.object["data"]["x"], "2");
    let last =
        world.object["metadata"]["annotations"][crate::patch::LAST_APPLIED].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(last).unwrap(), new, "and one can go back");
    // Not what somebody has changed since.
    world.update("edit", "", &json!({ "data": { "y": "9" } }));
    let refused = world.apply("kubectl", &new, false).unwrap_err().to_string();
    assert!(refused.ends_with("conflict with \"edit\" using v1: .data.y"), "{refused}");
}

#[test]
fn a_map_stays_as_long_as_something_in_it_is_applied() {
    let mut world = World::of("", "configmaps").create("a", config(&json!({ "x": "1", "y": "1" })));
    tell(&world.row.clone(), &mut world.object);
    let mut entries = world.object["metadata"]["managedFields"].clone();
    entries[0]["operation"] = "Apply".into();
    world.update("a", "", &json!({ "metadata": { "managedFields": entries } }));
    assert_eq!(world.owns("a Apply"), [".data", ".data.x", ".data.y"]);
    world.apply("a", &config(&json!({ "x": "1" })), false).unwrap();
    assert_eq!(world.object["data"], json!({ "x": "1" }));
}

#[test]
fn the_status_is_applied_through_its_door() {
    let mut world = World::of("", "pods").create("run", pod());
    let wanted = json!({ "metadata": { "labels": { "app": "web" } }, "spec": { "dnsPolicy": "None" },
        "status": { "message": "m" } });
    world.apply_at("reporter", "status", &wanted, false).unwrap();
    assert_eq!(world.owns("reporter Apply status"), [".metadata.labels.app", ".status.message"]);
    let other = json!({ "status": { "message": "n" } });
    let refused = world.apply_at("other", "status", &other, false).unwrap_err().to_string();
    assert_eq!(
        refused,
        "Apply failed with 1 conflict: conflict with \"reporter\" with subresource \"status\": .status.message"
    );
}

fn data() -> impl Strategy<Value = serde_json::Map<String, Value>> {
    proptest::collection::btree_map("[a-e]", "[0-2]", 0..5)
        .prop_map(|map| map.into_iter().map(|(key, value)| (key, value.into())).collect())
}

#[derive(Debug, Clone)]
enum Step {
    Update(usize, serde_json::Map<String, Value>),
    Label(usize, serde_json::Map<String, Value>),
    Apply(usize, serde_json::Map<String, Value>, bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..12_usize, data()).prop_map(|(who, data)| Step::Update(who, data)),
        (0..12_usize, data()).prop_map(|(who, data)| Step::Label(who, data)),
        (0..3_usize, data(), any::<bool>())
            .prop_map(|(who, data, force)| Step::Apply(who, data, force)),
    ]
}

/// The same writes, where nothing is ever kept short.
fn spelt(world: &World) -> Value {
    let mut entries = Entries::kept(&world.row, &world.object);
    entries.spell_out(&world.row, &world.object);
    assert!(entries.iter().all(|entry: &Managed| matches!(entry.owned, Owned::Fields(_))));
    let mut object = world.object.clone();
    object["metadata"]["managedFields"] = entries.as_kept(&world.row);
    if kept(&object).is_empty() {
        object["metadata"].as_object_mut().unwrap().remove("managedFields");
    }
    object
}

proptest! {
    #[test]
    fn to_keep_entries_short_changes_nothing_that_is_told(start in data(), steps in proptest::collection::vec(step(), 0..20)) {
        let mut short = World::of("", "configmaps").create("m0", config(&start.into()));
        let mut long = World::of("", "configmaps");
        long.object = spelt(&short);
        long.now = short.now;
        for step in steps {
            for world in [&mut short, &mut long] {
                match &step {
                    Step::Update(who, data) => {
                        world.object["data"] = world.object.get("data").cloned().unwrap_or_default();
                        let mut new = world.object.clone();
                        new["data"] = data.clone().into();
                        let name = format!("m{who}");
                        let writer = world.writer(&name, "");
                        updated(&world.row, &world.object, &mut new, &writer).unwrap();
                        world.object = new;
                    }
                    Step::Label(who, labels) => {
                        world.update(&format!("m{who}"), "", &json!({ "metadata": { "labels": labels } }));
                    }
                    Step::Apply(who, data, force) => {
                        let _ = world.apply(&format!("a{who}"), &config(&data.clone().into()), *force);
                    }
                }
            }
            long.object = spelt(&long);
            prop_assert_eq!(short.told(), long.told());
            prop_assert_eq!(&spelt(&short), &long.object);
        }
    }
}
