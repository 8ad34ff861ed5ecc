//! What the doors of a deployment let through, and of the replica sets that it makes.

use crate::{controller, create, update};
use impresario_api::admission::{Door, apply_scale, scale_of};
use impresario_api::catalog::find;
use impresario_api::resource::Resource;
use serde_json::{Value, json};

/// A deployment whose pods are selected by expressions.
fn deployment() -> (&'static Resource, Value) {
    create(&json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "annotations": {"note": "first"}},
        "spec": {
            "selector": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b", "c"]}]},
            "template": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
        },
    }))
}

#[test]
fn a_deployments_generation_counts_changes_of_its_annotations_as_they_are_copied_to_its_sets() {
    let (resource, old) = deployment();
    let generation = |door, metadata: Value| {
        let mut new = old.clone();
        for (field, value) in metadata.as_object().expect("fields") {
            new["metadata"][field] = value.clone();
        }
        update(resource, door, new, &old).expect("a valid change")["metadata"]["generation"].clone()
    };
    for door in [Door::Main, Door::Scale] {
        assert_eq!(generation(door, json!({"annotations": {"note": "second"}})), 2);
        assert_eq!(generation(door, json!({"annotations": {"note": "first", "empty": ""}})), 2);
        assert_eq!(generation(door, json!({"annotations": null})), 2);
        assert_eq!(generation(door, json!({"labels": {"x": "y"}})), 1);
    }
    assert_eq!(generation(Door::Status, json!({"annotations": {"note": "second"}})), 1);

    let (resource, old) = controller();
    let mut new = old.clone();
    new["metadata"]["annotations"] = json!({"note": "second"});
    let new = update(resource, Door::Main, new, &old).expect("a valid change");
    assert_eq!(new["metadata"]["generation"], 1, "of a kind that copies none");
}

#[test]
fn a_deployments_labels_stay_as_they_were_at_its_status_door_and_a_replica_sets_do_not() {
    let (resource, mut old) = deployment();
    old["metadata"]["labels"] = json!({"x": "y"});
    let mut new = old.clone();
    new["metadata"]["labels"] = json!({"x": "z"});
    new["metadata"]["annotations"]["note"] = "seen".into();
    let kept = update(resource, Door::Status, new.clone(), &old).expect("a valid status");
    assert_eq!(kept["metadata"]["labels"], json!({"x": "y"}));
    assert_eq!(kept["metadata"]["annotations"]["note"], "seen");
    new["metadata"].as_object_mut().expect("metadata").remove("labels");
    let kept = update(resource, Door::Status, new.clone(), &old).expect("a valid status");
    assert_eq!(kept["metadata"]["labels"], json!({"x": "y"}));
    // One that has none gets none.
    let (_, old) = deployment();
    new["metadata"]["labels"] = json!({"x": "z"});
    let kept = update(resource, Door::Status, new, &old).expect("a valid status");
    assert!(kept["metadata"].get("labels").is_none());

    let sets = find("apps", "v1", "replicasets").expect("replica sets");
    assert!(sets.status_keeps.is_empty(), "as Kubernetes has it");
}
