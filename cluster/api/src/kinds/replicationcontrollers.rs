//! ReplicationController: so many pods of a template, no more and no fewer.

use crate::cause::Cause;
use crate::context::Context;
use crate::field::{Causes, Path, at, default, existing_mut, get, map, number, object_mut, set};
use crate::resource::{DeletionRule, Effect, FieldLabel, Resource, Rules, Subresource, words};
use crate::rules::{metadata, replicas, template};
use crate::selector::LabelSelector;
use crate::status::Status;
use crate::table::label_list;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

/// The row.
pub fn resource() -> Resource {
    Resource {
        short_names: words(["rc"]),
        categories: words(["all"]),
        subresources: vec![Subresource::scale(), Subresource::status("ReplicationController")],
        columns: replicas::columns(),
        cells: Arc::new(cells),
        generation: true,
        effect: Effect::by("the controller of replication controllers"),
        rules: Rules {
            default: Arc::new(default_controller),
            prepare_create: Arc::new(prepare_create),
            validate: Arc::new(validate),
            validate_update: Arc::new(validate_update),
            validate_status: Arc::new(replicas::validate_status),
            ..Rules::plain()
        },
        fields: vec![FieldLabel {
            absent: "0".into(),
            ..FieldLabel::new("status.replicas", "/status/replicas")
        }],
        scale: Some(replicas::SCALE),
        deletion: DeletionRule::ORPHANS,
        ..Resource::named(
            "",
            "v1",
            "ReplicationController",
            "replicationcontrollers",
            "replicationcontroller",
            "api.core.v1.ReplicationController",
        )
    }
}

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
    let selector = LabelSelector::from_map(get(spec, "selector"));
    let asked = selected.then_some(&selector);
    replicas::validate_spec(spec, "ReplicationController", asked, &mut causes);
    causes.into_vec()
}

/// It is looked at as a new one, and then as a change.
fn validate_update(new: &Value, _: &Value) -> Vec<Cause> {
    let mut causes = metadata::validate_again(new);
    causes.extend(validate(new));
    causes.extend(validate(new));
    causes
}

fn cells(controller: &Value, now: Timestamp) -> Vec<Value> {
    replicas::cells(controller, label_list(controller, "spec.selector"), now)
}
