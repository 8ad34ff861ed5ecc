//! ReplicationController: so many pods of a template, no more and no fewer.

use crate::cause::Cause;
use crate::context::Context;
use crate::field::{
    Causes, Path, at, default, existing_mut, get, has, map, number, object_mut, set, text,
};
use crate::resource::{Column, DeletionRule, FieldLabel, Resource, Rules, ScalePaths, Subresource};
use crate::rules::{metadata, template};
use crate::selector::LabelSelector;
use crate::status::Status;
use crate::table::{age, containers_and_images, label_list, name};
use jiff::Timestamp;
use serde_json::{Value, json};

/// The row.
pub const RESOURCE: Resource = Resource {
    short_names: &["rc"],
    categories: &["all"],
    subresources: &[Subresource::scale(), Subresource::status("ReplicationController")],
    columns: &[
        Column::name(),
        Column::integer("Desired", "How many pods there should be."),
        Column::integer("Current", "How many there are."),
        Column::integer("Ready", "How many of these are ready."),
        Column::age(),
        Column::text("Containers", "The containers of the template.").wide(),
        Column::text("Images", "Their images.").wide(),
        Column::text("Selector", "Which pods are counted.").wide(),
    ],
    cells,
    generation: true,
    rules: Rules {
        default: default_controller,
        prepare_create,
        validate,
        validate_update,
        validate_status,
        ..Rules::PLAIN
    },
    fields: &[FieldLabel { absent: "0", ..FieldLabel::new("status.replicas", "/status/replicas") }],
    scale: Some(ScalePaths {
        spec: "/spec/replicas",
        status: "/status/replicas",
        selector: "/spec/selector",
    }),
    deletion: DeletionRule::ORPHANS,
    ..Resource::named(
        "",
        "v1",
        "ReplicationController",
        "replicationcontrollers",
        "replicationcontroller",
        "api.core.v1.ReplicationController",
    )
};

fn default_controller(controller: &mut Value) {
    let spec = object_mut(controller, "spec");
    default(spec, "replicas", 1);
    if let Some(pod_template) = existing_mut(spec, "template") {
        template::default_template(pod_template);
    }
    let labels = at(spec, "template.metadata.labels").clone();
    if labels.as_object().is_some_and(|labels| !labels.is_empty()) {
        if map(spec, "selector").is_none_or(serde_json::Map::is_empty) {
            set(spec, "selector", labels.clone());
        }
        if map(controller, "metadata.labels").is_none_or(serde_json::Map::is_empty) {
            set(object_mut(controller, "metadata"), "labels", labels);
        }
    }
    let status = object_mut(controller, "status");
    default(status, "replicas", 0);
}

fn prepare_create(controller: &mut Value, _: &Context<'_>) -> Result<(), Status> {
    set(controller, "status", json!({ "replicas": 0 }));
    Ok(())
}

fn validate(controller: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let spec = get(controller, "spec");
    let path = Path::new("spec");
    causes.not_negative(&path.child("minReadySeconds"), number(spec, "minReadySeconds"));
    let selected = map(spec, "selector").is_some_and(|selector| !selector.is_empty());
    if !selected {
        causes.required(&path.child("selector"), "");
    }
    causes.not_negative(&path.child("replicas"), number(spec, "replicas"));
    let template_path = path.child("template");
    if !has(spec, "template") {
        causes.required(&template_path, "");
        return causes.into_vec();
    }
    let pod_template = get(spec, "template");
    let labels = at(pod_template, "metadata.labels");
    if selected && !LabelSelector::from_map(get(spec, "selector")).matches(labels.as_object()) {
        causes.invalid(
            &template_path.child("metadata").child("labels"),
            labels.clone(),
            "`selector` does not match template `labels`",
        );
    }
    template::validate_template(pod_template, &template_path, &mut causes);
    let pod_path = template_path.child("spec");
    let restart = text(pod_template, "spec.restartPolicy");
    if restart != "Always" {
        causes.not_supported(&pod_path.child("restartPolicy"), restart, &["Always"]);
    }
    if has(pod_template, "spec.activeDeadlineSeconds") {
        causes.forbidden(
            &pod_path.child("activeDeadlineSeconds"),
            "activeDeadlineSeconds in ReplicationController is not Supported",
        );
    }
    causes.into_vec()
}

/// It is looked at as a new one, and then as a change.
fn validate_update(new: &Value, _: &Value) -> Vec<Cause> {
    let mut causes = metadata::validate_again(new);
    causes.extend(validate(new));
    causes.extend(validate(new));
    causes
}

fn validate_status(new: &Value, _: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let status = get(new, "status");
    let path = Path::new("status");
    for field in [
        "replicas",
        "fullyLabeledReplicas",
        "readyReplicas",
        "availableReplicas",
        "observedGeneration",
    ] {
        causes.not_negative(&path.child(field), number(status, field));
    }
    let count = |field: &str| number(status, field).unwrap_or(0);
    for (field, of) in [
        ("fullyLabeledReplicas", "replicas"),
        ("readyReplicas", "replicas"),
        ("availableReplicas", "replicas"),
        ("availableReplicas", "readyReplicas"),
    ] {
        if count(field) > count(of) {
            let why = format!(
                "cannot be greater than {}",
                if of == "replicas" { "status.replicas" } else { of }
            );
            causes.invalid(&path.child(field), count(field), &why);
        }
    }
    causes.into_vec()
}

fn cells(controller: &Value, now: Timestamp) -> Vec<Value> {
    let [containers, images] = containers_and_images(controller, "spec.template.spec.containers");
    let count = |path: &str| Value::from(number(controller, path).unwrap_or(0));
    vec![
        name(controller),
        count("spec.replicas"),
        count("status.replicas"),
        count("status.readyReplicas"),
        age(controller, now),
        containers,
        images,
        label_list(controller, "spec.selector"),
    ]
}
