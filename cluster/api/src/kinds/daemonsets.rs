//! DaemonSet: one pod of a template on each node that it is meant for.

use crate::cause::Cause;
use crate::context::Context;
use crate::field::{
    Causes, Path, at, default, existing_mut, get, number, object_mut, same, set, text,
};
use crate::resource::{Column, Effect, Resource, Rules, Subresource, words};
use crate::rules::rollout::{Part, part};
use crate::rules::{metadata, replicas, template};
use crate::status::Status;
use crate::table::{age, containers_and_images, label_list, name};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

/// The row.
pub fn resource() -> Resource {
    Resource {
        short_names: words(["ds"]),
        categories: words(["all"]),
        subresources: vec![Subresource::status("DaemonSet")],
        columns: columns(),
        cells: Arc::new(cells),
        generation: true,
        // It stands for what in Kubernetes is a field of the spec.
        status_keeps: &["annotations/deprecated.daemonset.template.generation"],
        effect: Effect::by("the controller of daemon sets"),
        rules: Rules {
            default: Arc::new(default_set),
            prepare_create: Arc::new(prepare_create),
            prepare_update: Arc::new(prepare_update),
            validate: Arc::new(validate),
            validate_update: Arc::new(validate_update),
            validate_status: Arc::new(validate_status),
            ..Rules::plain()
        },
        ..Resource::named(
            "apps",
            "v1",
            "DaemonSet",
            "daemonsets",
            "daemonset",
            "api.apps.v1.DaemonSet",
        )
    }
}

fn columns() -> Vec<Column> {
    vec![
        Column::name(),
        Column::integer("Desired", "On how many nodes a pod should run."),
        Column::integer("Current", "On how many of these one does."),
        Column::integer("Ready", "On how many of these one is ready."),
        Column::integer("Up-to-date", "On how many of these it is of the newest template."),
        Column::integer("Available", "On how many of these it has been ready for long enough."),
        Column::text("Node Selector", "Which nodes it is meant for."),
        Column::age(),
        Column::text("Containers", "The containers of the template.").wide(),
        Column::text("Images", "Their images.").wide(),
        Column::text("Selector", "Which pods are counted.").wide(),
    ]
}

/// The annotation that counts the changes of the template, from 1. Nobody but the server writes it.
pub const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// The label of a pod and of a revision that says of which template it is.
pub const REVISION_HASH: &str = "controller-revision-hash";
/// The label of a pod that says how often the template had been changed when it was made.
pub const POD_TEMPLATE_GENERATION: &str = "pod-template-generation";
/// The labels that a set gives its pods and revisions values of its own for: no selector that speaks of them selects
/// these for long.
pub const OWN_LABELS: [&str; 2] = [REVISION_HASH, POD_TEMPLATE_GENERATION];
const NOT_SELECTED: &str =
    "may not be in the selector of a daemon set, which gives its pods values of its own";

fn default_set(set_: &mut Value) {
    let spec = object_mut(set_, "spec");
    default(spec, "revisionHistoryLimit", 10);
    let strategy = object_mut(spec, "updateStrategy");
    if text(strategy, "type").is_empty() {
        set(strategy, "type", "RollingUpdate");
    }
    if text(strategy, "type") == "RollingUpdate" {
        let rolling = object_mut(strategy, "rollingUpdate");
        default(rolling, "maxUnavailable", 1);
        default(rolling, "maxSurge", 0);
    }
    if let Some(pod_template) = existing_mut(spec, "template") {
        template::default_template(pod_template);
    }
    let status = object_mut(set_, "status");
    for count in
        ["currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"]
    {
        default(status, count, 0);
    }
}

fn prepare_create(object: &mut Value, _: &Context<'_>) -> Result<(), Status> {
    set(object, "status", json!({}));
    count_template(object, 1);
    default_set(object);
    Ok(())
}

fn prepare_update(new: &mut Value, old: &Value, _: &Context<'_>) -> Result<(), Status> {
    let was = get(at(old, "metadata.annotations"), TEMPLATE_GENERATION).as_str();
    let was = was.and_then(|was| was.parse::<i64>().ok()).unwrap_or(1);
    let changed = !same(at(new, "spec.template"), at(old, "spec.template"));
    count_template(new, was.saturating_add(i64::from(changed)));
    Ok(())
}

fn count_template(object: &mut Value, generation: i64) {
    let annotations = object_mut(object_mut(object, "metadata"), "annotations");
    set(annotations, TEMPLATE_GENERATION, generation.to_string());
}

/// A new one: its selector says nothing of the labels that its pods and revisions get values of their own for.
fn validate(object: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    causes.append(validate_spec(object));
    replicas::leaves_out(at(object, "spec.selector"), &OWN_LABELS, NOT_SELECTED, &mut causes);
    causes.into_vec()
}

fn validate_spec(object: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let spec = get(object, "spec");
    let path = Path::new("spec");
    let selector = replicas::required_selector(spec, "daemonset", &mut causes);
    replicas::validate_spec(spec, "DaemonSet", selector.as_ref(), &mut causes);
    for field in ["minReadySeconds", "revisionHistoryLimit"] {
        causes.not_negative(&path.child(field), number(spec, field));
    }
    validate_strategy(get(spec, "updateStrategy"), &path.child("updateStrategy"), &mut causes);
    causes.into_vec()
}

fn validate_strategy(strategy: &Value, path: &Path, causes: &mut Causes) {
    match text(strategy, "type") {
        "OnDelete" => {}
        "RollingUpdate" => {
            let path = path.child("rollingUpdate");
            let rolling = get(strategy, "rollingUpdate");
            let mut read = |field: &str| {
                let path = path.child(field);
                let read = part(get(rolling, field), &path, causes);
                if read == Some(Part::MoreThanAll) {
                    let given = get(rolling, field).clone();
                    causes.invalid(&path, given, "must not be greater than 100%");
                }
                read.map(|part| part != Part::Nothing)
            };
            match (read("maxUnavailable"), read("maxSurge")) {
                (Some(true), Some(true)) => causes.invalid(
                    &path.child("maxSurge"),
                    get(rolling, "maxSurge").clone(),
                    "may not be set when maxUnavailable is non-zero",
                ),
                (Some(false), Some(false)) => {
                    causes
                        .required(&path.child("maxUnavailable"), "cannot be 0 when maxSurge is 0");
                }
                _ => {}
            }
        }
        other => {
            let path = path.child("type");
            causes.not_supported(&path, other, &["OnDelete", "RollingUpdate"]);
        }
    }
}

fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    causes.append(metadata::validate_again(new));
    causes.append(validate_spec(new));
    let (new, old) = (at(new, "spec.selector"), at(old, "spec.selector"));
    causes.unchanged(&Path::new("spec").child("selector"), new, old);
    causes.into_vec()
}

fn validate_status(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let status = get(new, "status");
    let path = Path::new("status");
    for field in [
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
        "collisionCount",
    ] {
        causes.not_negative(&path.child(field), number(status, field));
    }
    replicas::not_forgotten(status, get(old, "status"), &mut causes);
    causes.into_vec()
}

fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let [containers, images] = containers_and_images(object, "spec.template.spec.containers");
    let count = |field: &str| Value::from(number(get(object, "status"), field).unwrap_or(0));
    vec![
        name(object),
        count("desiredNumberScheduled"),
        count("currentNumberScheduled"),
        count("numberReady"),
        count("updatedNumberScheduled"),
        count("numberAvailable"),
        label_list(object, "spec.template.spec.nodeSelector"),
        age(object, now),
        containers,
        images,
        replicas::selector_cell(object),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(spec: &Value) -> Value {
        let labels = json!({"app": "agent"});
        let mut object = json!({"metadata": {"name": "x"}, "spec": {
            "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
                "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
        for (key, value) in spec.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        default_set(&mut object);
        object
    }

    fn refused(spec: &Value) -> Vec<String> {
        validate(&object(spec)).into_iter().map(|cause| cause.field).collect()
    }

    #[test]
    fn either_some_pods_may_be_missing_or_some_too_many_on_the_way() {
        let missing = "spec.updateStrategy.rollingUpdate.maxUnavailable";
        let surge = "spec.updateStrategy.rollingUpdate.maxSurge";
        for (rolling, fields) in [
            (json!({}), vec![]),
            (json!({"maxUnavailable": "30%"}), vec![]),
            (json!({"maxUnavailable": 0, "maxSurge": "30%"}), vec![]),
            (json!({"maxSurge": 1}), vec![surge]),
            (json!({"maxUnavailable": "0%"}), vec![missing]),
            (json!({"maxUnavailable": "101%"}), vec![missing]),
            (json!({"maxUnavailable": 0, "maxSurge": "101%"}), vec![surge]),
            (json!({"maxUnavailable": -1}), vec![missing]),
        ] {
            let strategy = json!({"updateStrategy": {"rollingUpdate": rolling}});
            assert_eq!(refused(&strategy), fields, "{rolling}");
        }
        let one = |kind: &str| json!({"updateStrategy": {"type": kind}});
        assert_eq!(refused(&one("OnDelete")), Vec::<String>::new());
        assert_eq!(refused(&one("Recreate")), ["spec.updateStrategy.type"]);
    }

    #[test]
    fn a_change_of_the_template_is_counted_by_the_server_alone() {
        let allocator = crate::admission::RandomAllocator::default();
        let context = Context {
            namespace: "d",
            user: "u",
            now: Timestamp::UNIX_EPOCH,
            allocator: &allocator,
        };
        let counted = |object: &Value| {
            object["metadata"]["annotations"][TEMPLATE_GENERATION].as_str().unwrap().to_owned()
        };
        let mut first = object(&json!({}));
        first["metadata"]["annotations"] = json!({TEMPLATE_GENERATION: "7"});
        prepare_create(&mut first, &context).unwrap();
        assert_eq!(counted(&first), "1");
        let mut same = object(&json!({"minReadySeconds": 3}));
        prepare_update(&mut same, &first, &context).unwrap();
        assert_eq!(counted(&same), "1");
        let mut other = same.clone();
        other["spec"]["template"]["spec"]["containers"][0]["image"] = "j".into();
        prepare_update(&mut other, &same, &context).unwrap();
        assert_eq!(counted(&other), "2");
    }
}
