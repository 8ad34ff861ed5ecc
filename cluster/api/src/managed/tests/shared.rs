//! What several managers own, and what becomes of it when one of them does not want it any more.

use super::*;

#[test]
fn what_a_manager_applies_no_more_stays_where_one_that_does_not_apply_owns_it_too() {
    let spec = |replicas: &Value| json!({ "spec": { "replicas": replicas, "paused": true } });
    let mut world = World::of("apps", "deployments").create("kubectl-create", spec(&json!(3)));
    world.apply("ci", &spec(&json!(3)), false).unwrap();
    world.apply("ci", &json!({ "spec": { "paused": true } }), false).unwrap();
    assert_eq!(world.object["spec"]["replicas"], 3);
    assert_eq!(world.owns("ci Apply"), [".spec.paused"]);
    assert!(world.owns("kubectl-create Update").contains(&".spec.replicas".to_owned()));
}

#[test]
fn an_entry_stays_with_its_key_where_somebody_else_has_put_something_in_it() {
    let with = |containers: &Value| json!({ "spec": { "template": { "spec": { "containers": containers } } } });
    let mut world = World::of("apps", "deployments");
    world
        .apply("a", &with(&json!([{ "name": "x" }, { "name": "y", "image": "i" }])), false)
        .unwrap();
    let set = json!([{ "name": "x" }, { "name": "y", "image": "i", "env": [{ "name": "E", "value": "1" }] }]);
    world.update("set-env", "", &with(&set));
    world.apply("a", &with(&json!([{ "name": "x" }])), false).unwrap();
    assert_eq!(
        world.object["spec"]["template"]["spec"]["containers"],
        json!([{ "name": "x" }, { "name": "y", "env": [{ "name": "E", "value": "1" }] }])
    );
}

#[test]
fn to_send_back_what_was_read_changes_nothing() {
    let mut world = World::of("", "configmaps").create("a", config(&json!({ "x": "1", "y": "1" })));
    let before = world.object.clone();
    let mut told = before.clone();
    tell(&world.row, &mut told);
    assert_ne!(told, before);
    world.update("b", "", &told);
    assert_eq!(world.object, before);
}

#[test]
fn each_part_of_an_object_of_which_nothing_is_known_is_of_before_the_first_apply() {
    let mut world = World::of("apps", "deployments");
    let (spec, status) = (json!({ "paused": true }), json!({ "replicas": 1 }));
    world.object =
        json!({ "metadata": { "name": "a", "uid": "u" }, "spec": spec, "status": status });
    let refused = world.apply_at("op", "status", &json!({ "status": { "replicas": 2 } }), false);
    assert!(refused.unwrap_err().to_string().contains("before-first-apply"));
    world.apply_at("op", "status", &json!({ "status": { "readyReplicas": 1 } }), false).unwrap();
    assert_eq!(world.owns("before-first-apply Update"), [".spec.paused"]);
    assert_eq!(world.owns("before-first-apply Update status"), [".status.replicas"]);
    let refused = world.apply("op", &json!({ "spec": { "paused": false } }), false).unwrap_err();
    assert!(refused.to_string().contains(".spec.paused"), "{refused}");
}

#[test]
fn what_was_owned_in_parts_and_is_one_field_by_now_conflicts_and_goes_as_one() {
    let mut world = World::of("apps", "deployments");
    let with = |args: &Value| json!({ "spec": { "template": { "spec": { "containers": [{ "name": "c", "args": args }] } } } });
    world.apply("a", &with(&json!(["1"])), false).unwrap();
    // As if `args` had been a set when it was applied.
    for entry in world.object["metadata"]["managedFields"].as_array_mut().unwrap() {
        let args = "/fieldsV1/f:spec/f:template/f:spec/f:containers/k:{\"name\":\"c\"}/f:args";
        *entry.pointer_mut(args).unwrap() = json!({ "v:\"1\"": {} });
    }
    let refused = world.apply("b", &with(&json!(["2"])), false).unwrap_err().to_string();
    assert!(
        refused.ends_with(r#"conflict with "a": .spec.template.spec.containers[name="c"].args"#),
        "{refused}"
    );
    let without =
        json!({ "spec": { "template": { "spec": { "containers": [{ "name": "c" }] } } } });
    world.apply("a", &without, false).unwrap();
    assert_eq!(world.object["spec"], without["spec"]);
}

#[test]
fn what_lies_below_a_place_that_changes_as_one_is_a_conflict_and_is_taken_over_with_it() {
    let fields = |value: Value| Fields::parse(&value).unwrap();
    let theirs = fields(json!({ "f:free": { ".": {}, "f:b": {} }, "f:other": {} }));
    let as_one = fields(json!({ "f:free": {} }));
    assert_eq!(theirs.touched(&as_one).paths(), [".free", ".free.b"]);
    let in_parts = fields(json!({ "f:free": { "f:a": {} } }));
    assert!(theirs.touched(&in_parts).is_empty());
}
