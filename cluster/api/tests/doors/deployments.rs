//! What the doors of a deployment let through, and of the replica sets that it makes.

use crate::{controller, create, update};
use impresario_api::admission::{Door, apply_scale, scale_of};
use impresario_api::catalog::find;
use impresario_api::resource::Row;
use serde_json::{Value, json};

/// A deployment whose pods are selected by expressions.
fn deployment() -> (Row, Value) {
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
        update(&resource, door, new, &old).expect("a valid change")["metadata"]["generation"]
            .clone()
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
    let new = update(&resource, Door::Main, new, &old).expect("a valid change");
    assert_eq!(new["metadata"]["generation"], 1, "of a kind that copies none");
}

#[test]
fn a_deployments_labels_stay_as_they_were_at_its_status_door_and_a_replica_sets_do_not() {
    let (resource, mut old) = deployment();
    old["metadata"]["labels"] = json!({"x": "y"});
    let mut new = old.clone();
    new["metadata"]["labels"] = json!({"x": "z"});
    new["metadata"]["annotations"]["note"] = "seen".into();
    let kept = update(&resource, Door::Status, new.clone(), &old).expect("a valid status");
    assert_eq!(kept["metadata"]["labels"], json!({"x": "y"}));
    assert_eq!(kept["metadata"]["annotations"]["note"], "seen");
    new["metadata"].as_object_mut().expect("metadata").remove("labels");
    let kept = update(&resource, Door::Status, new.clone(), &old).expect("a valid status");
    assert_eq!(kept["metadata"]["labels"], json!({"x": "y"}));
    // One that has none gets none.
    old["metadata"].as_object_mut().expect("metadata").remove("labels");
    new["metadata"]["labels"] = json!({"x": "z"});
    let kept = update(&resource, Door::Status, new, &old).expect("a valid status");
    assert!(kept["metadata"].get("labels").is_none());

    let sets = find("apps", "v1", "replicasets").expect("replica sets");
    assert!(sets.status_keeps.is_empty(), "as Kubernetes has it");
}

/// The same spec as one of each kind.
fn each() -> [(Row, Value); 2] {
    let (deployments, deployment) = deployment();
    let mut set =
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web"}});
    for field in ["selector", "template"] {
        set["spec"][field] = deployment["spec"][field].clone();
    }
    [(deployments, deployment), create(&set)]
}

#[test]
fn what_may_not_change_is_refused_by_its_field() {
    let values = "/spec/selector/matchExpressions/0/values";
    for (resource, old) in each() {
        for (pointer, value, fields) in [
            ("/spec/replicas", json!(5), vec![]),
            ("/spec/template/metadata/labels/a", json!("c"), vec![]),
            ("/spec/selector", json!({"matchLabels": {"a": "b"}}), vec!["spec.selector"]),
            (values, json!(["b"]), vec!["spec.selector"]),
            (values, json!(["c", "b"]), vec!["spec.selector"]),
            (values, json!(["d"]), vec!["spec.template.metadata.labels", "spec.selector"]),
        ] {
            let mut new = old.clone();
            *new.pointer_mut(pointer).expect("the field") = value.clone();
            let told: Vec<String> = match update(&resource, Door::Main, new, &old) {
                Ok(_) => Vec::new(),
                Err(refused) => refused.causes.into_iter().map(|cause| cause.field).collect(),
            };
            assert_eq!(told, fields, "{}: {pointer} {value}", resource.plural);
        }
    }
}

#[test]
fn a_status_that_cannot_be_is_refused_by_its_field() {
    let [(deployments, deployment), (sets, set)] = each();
    let counted = json!({
        "replicas": 4, "readyReplicas": 3, "availableReplicas": 2, "observedGeneration": 1,
    });
    let of = |old: &Value, more: Value| {
        let mut status = counted.clone();
        for (field, value) in more.as_object().expect("fields") {
            status[field] = value.clone();
        }
        let mut object = old.clone();
        object["status"] = status;
        object
    };
    let told = |resource: &Row, old: &Value, more: &Value| -> Vec<String> {
        match update(resource, Door::Status, of(old, more.clone()), old) {
            Ok(_) => Vec::new(),
            Err(refused) => refused
                .causes
                .into_iter()
                .map(|cause| cause.field.trim_start_matches("status.").to_owned())
                .collect(),
        }
    };
    for (more, fields) in [
        (json!({}), vec![]),
        (json!({"replicas": 2}), vec!["readyReplicas"]),
        (json!({"replicas": 1}), vec!["readyReplicas", "availableReplicas"]),
        (json!({"readyReplicas": 1}), vec!["availableReplicas"]),
        (json!({"availableReplicas": -1}), vec!["availableReplicas"]),
        (json!({"observedGeneration": -1}), vec!["observedGeneration"]),
        (json!({"terminatingReplicas": -1}), vec!["terminatingReplicas"]),
    ] {
        assert_eq!(told(&deployments, &deployment, &more), fields, "deployments: {more}");
        assert_eq!(told(&sets, &set, &more), fields, "replicasets: {more}");
    }
    for (more, fields) in [
        (json!({"updatedReplicas": 4, "unavailableReplicas": 9}), vec![]),
        (json!({"updatedReplicas": 5}), vec!["updatedReplicas"]),
        (json!({"unavailableReplicas": -1}), vec!["unavailableReplicas"]),
        (json!({"collisionCount": -1}), vec!["collisionCount"]),
    ] {
        assert_eq!(told(&deployments, &deployment, &more), fields, "{more}");
    }
    for (more, fields) in [
        (json!({"fullyLabeledReplicas": 4}), vec![]),
        (json!({"fullyLabeledReplicas": 5}), vec!["fullyLabeledReplicas"]),
    ] {
        assert_eq!(told(&sets, &set, &more), fields, "{more}");
    }

    // How often a name was taken is never forgotten: the next set would get that name again.
    let collided = of(&deployment, json!({"collisionCount": 2}));
    let collided = update(&deployments, Door::Status, collided, &deployment).expect("valid");
    for (more, fields) in [
        (json!({"collisionCount": 2}), vec![]),
        (json!({"collisionCount": 3}), vec![]),
        (json!({"collisionCount": 1}), vec!["collisionCount"]),
        (json!({}), vec!["collisionCount"]),
    ] {
        assert_eq!(told(&deployments, &collided, &more), fields, "{more}");
    }
}

#[test]
fn the_scale_of_what_selects_by_expressions_shows_them_in_words() {
    for (resource, old) in each() {
        let mut scale = scale_of(&resource, &old).expect("a scale");
        assert_eq!(scale["status"]["selector"], "a in (b,c)");
        scale["spec"]["replicas"] = 4.into();
        let scaled = apply_scale(&resource, &old, &scale).expect("a valid scale");
        let scaled = update(&resource, Door::Scale, scaled, &old).expect("a valid change");
        assert_eq!(scaled["spec"]["replicas"], 4);
        assert_eq!(scaled["spec"]["selector"], old["spec"]["selector"]);
    }
    let labels = json!({"x": "y"});
    let (resource, old) = create(&json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}},
    }));
    assert_eq!(scale_of(&resource, &old).expect("a scale")["status"]["selector"], "x=y");
}
