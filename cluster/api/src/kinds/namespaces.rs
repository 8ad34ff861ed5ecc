//! Namespace: a space of names, which ends when everything in it has ended.

use crate::cause::Cause;
use crate::context::Context;
use crate::field::{Causes, Path, as_map, copy, default, get, list, object_mut, set, text};
use crate::names;
use crate::policy::security;
use crate::resource::{
    Column, DeletionRule, Effect, FieldLabel, NO_COLLECTION_DELETE, Resource, Rules, Subresource,
    Verb, words,
};
use crate::rules::metadata;
use crate::status::Status;
use crate::table::{age, name};
use serde_json::{Value, json};
use std::sync::Arc;

/// The label that every namespace carries, so that it can be selected by name.
pub const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The row.
pub fn resource() -> Resource {
    Resource {
        short_names: words(["ns"]),
        namespaced: false,
        verbs: NO_COLLECTION_DELETE,
        subresources: vec![
            Subresource::own("finalize", &[Verb::Update], "Namespace"),
            Subresource::status("Namespace"),
        ],
        columns: vec![
            Column::name(),
            Column::text("Status", "Active or Terminating."),
            Column::age(),
        ],
        cells: Arc::new(|namespace, now| {
            vec![name(namespace), text(namespace, "status.phase").into(), age(namespace, now)]
        }),
        name: names::dns_label,
        effect: Effect::by("the controller of namespaces"),
        rules: Rules {
            default: Arc::new(default_namespace),
            prepare_create: Arc::new(prepare_create),
            prepare_update: Arc::new(prepare_update),
            validate: Arc::new(|new| [validate(new), security::wrong_labels(new)].concat()),
            validate_update: Arc::new(validate_update),
            ..Rules::plain()
        },
        fields: vec![FieldLabel::new("status.phase", "/status/phase")],
        deletion: DeletionRule {
            mark: |namespace| set(object_mut(namespace, "status"), "phase", "Terminating"),
            is_held: |namespace| !list(namespace, "spec.finalizers").is_empty(),
            ..DeletionRule::ANSWERS_OBJECT
        },
        ..Resource::named("", "v1", "Namespace", "namespaces", "namespace", "api.core.v1.Namespace")
    }
}

fn default_namespace(namespace: &mut Value) {
    let name = text(namespace, "metadata.name").to_owned();
    if !name.is_empty() {
        let metadata = object_mut(namespace, "metadata");
        set(object_mut(metadata, "labels"), NAME_LABEL, name);
    }
}

fn prepare_create(namespace: &mut Value, _: &Context<'_>) -> Result<(), Status> {
    let spec = object_mut(namespace, "spec");
    let finalizers = as_map(spec).entry("finalizers").or_insert(Value::Null);
    match finalizers {
        Value::Array(all) if all.iter().any(|f| f == "kubernetes") => {}
        Value::Array(all) => all.push("kubernetes".into()),
        other => *other = json!(["kubernetes"]),
    }
    set(namespace, "status", json!({ "phase": "Active" }));
    default_namespace(namespace);
    Ok(())
}

/// The finalizers of the spec go through their own door.
fn prepare_update(new: &mut Value, old: &Value, _: &Context<'_>) -> Result<(), Status> {
    copy(get(old, "spec"), object_mut(new, "spec"), "finalizers");
    default(new, "status", get(old, "status").clone());
    Ok(())
}

/// Labels that were wrong before keep nobody from changing something else.
fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    let labels = security::wrong_labels(new);
    let are_new = security::wrong_labels(old).is_empty();
    let labels = if are_new { labels } else { Vec::new() };
    [metadata::validate_again(new), validate(new), labels].concat()
}

fn validate(namespace: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let path = Path::new("spec").child("finalizers");
    for finalizer in list(namespace, "spec.finalizers") {
        if causes.is_full() {
            break;
        }
        let finalizer = finalizer.as_str().unwrap_or_default();
        causes.invalid_all(&path, finalizer, names::qualified(finalizer));
        if !finalizer.contains('/') && !metadata::STANDARD_FINALIZERS.contains(&finalizer) {
            causes.invalid(
                &path,
                finalizer,
                "name is neither a standard finalizer name nor is it fully qualified",
            );
        }
    }
    causes.into_vec()
}
