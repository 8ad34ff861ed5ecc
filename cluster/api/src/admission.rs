//! What happens to an object between a request and the registry.
//!
//! [`admit_create`], [`admit_update`] and [`admit_delete`] fill in defaults, let the kind's strategy
//! decide what is the server's to decide, and validate: an object comes out ready to be stored, or
//! a [`Status`] that names everything that is wrong. They are plain functions; whatever a server
//! draws comes from the [`Allocator`] in the [`Context`].

mod approval;
mod deletion;
mod scale;

pub use crate::allocator::{Account, Allocator, RandomAllocator, ServiceRanges};
pub use crate::context::Context;
pub use deletion::{DeleteOptions, Deletion, Propagation, admit_delete, is_finished};
pub use scale::{apply_scale, scale_of};

use crate::field::{
    at, copy, entries, existing_mut, get, number, object_mut, remove, same, set, text,
};
use crate::resource::Resource;
use crate::rules::metadata;
use crate::status::Status;
use jiff::Timestamp;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The longest `generateName` that a suffix fits behind.
const GENERATE_NAME_MAX: usize = 58;

/// Which part of an object a request may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// All but the status.
    Main,
    /// The status; of built-in kinds also labels, annotations and the rest of the metadata.
    Status,
    /// The replica count alone; the object is the whole one with the new count.
    Scale,
    /// The finalizers of a namespace's spec.
    Finalize,
    /// Whether what was asked for is approved; see `approval`.
    Approval,
}

/// A time as metadata has it: whole seconds of UTC.
pub fn metadata_time(now: Timestamp) -> String {
    metadata::time(now)
}

/// The name that an object will be stored under: its own, or a generated one.
fn settle_name(object: &mut Value, context: &Context<'_>) {
    let metadata = object_mut(object, "metadata");
    let prefix = text(metadata, "generateName").to_owned();
    if text(metadata, "name").is_empty() && !prefix.is_empty() {
        let mut end = prefix.len().min(GENERATE_NAME_MAX);
        while !prefix.is_char_boundary(end) {
            end -= 1;
        }
        let name = format!("{}{}", &prefix[..end], context.allocator.name_suffix());
        set(metadata, "name", name);
    }
}

/// The namespace of the object must be that of the path.
fn settle_namespace(object: &mut Value, namespace: &str) -> Result<(), Status> {
    let metadata = object_mut(object, "metadata");
    let given = text(metadata, "namespace");
    if namespace.is_empty() {
        remove(metadata, "namespace");
    } else if given.is_empty() {
        set(metadata, "namespace", namespace);
    } else if given != namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

fn settle_type(resource: &Resource, object: &mut Value) -> Result<(), Status> {
    if !object.is_object() {
        return Err(Status::bad_request(format!(
            "a {} is a JSON object, this is not one",
            resource.kind
        )));
    }
    set(object, "apiVersion", resource.api_version());
    set(object, "kind", resource.kind.as_ref());
    Ok(())
}

/// What a new object is before anybody decides anything of it: of its kind, in its namespace, with its defaults.
pub fn settle(resource: &Resource, object: &mut Value, namespace: &str) -> Result<(), Status> {
    settle_type(resource, object)?;
    settle_namespace(object, if resource.namespaced { namespace } else { "" })?;
    (resource.rules.default)(object);
    Ok(())
}

/// A new object, ready to be stored.
pub fn admit_create(
    resource: &Resource,
    mut object: Value,
    context: &Context<'_>,
) -> Result<Value, Status> {
    settle_type(resource, &mut object)?;
    let namespace = if resource.namespaced { context.namespace } else { "" };
    settle_namespace(&mut object, namespace)?;
    if !text(&object, "metadata.resourceVersion").is_empty() {
        return Err(Status::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    if resource.schema.message().is_none() && resource.has_status_door() {
        remove(&mut object, "status");
    }
    (resource.rules.default)(&mut object);
    let metadata = object_mut(&mut object, "metadata");
    for field in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "resourceVersion",
        "generation",
    ] {
        remove(metadata, field);
    }
    set(metadata, "uid", context.allocator.uid());
    set(metadata, "creationTimestamp", metadata_time(context.now));
    if resource.generation {
        set(metadata, "generation", 1);
    }
    settle_name(&mut object, context);
    (resource.rules.prepare_create)(&mut object, context)?;
    let mut causes = metadata::validate(resource, &object);
    causes.extend((resource.rules.validate)(&object));
    let name = text(&object, "metadata.name").to_owned();
    if !causes.is_empty() {
        return Err(Status::invalid(resource, &name, causes));
    }
    (resource.rules.allocate)(&mut object, None, context)
        .map_err(|causes| Status::invalid(resource, &name, causes))?;
    tidy(&mut object);
    Ok(object)
}

/// A changed object, ready to be stored in place of `old`.
///
/// The caller has compared resource versions; `new` may lack what only the server sets.
pub fn admit_update(
    resource: &Resource,
    door: Door,
    mut new: Value,
    old: &Value,
    context: &Context<'_>,
) -> Result<Value, Status> {
    settle_type(resource, &mut new)?;
    let name = text(old, "metadata.name").to_owned();
    let given = text(&new, "metadata.name");
    if given.is_empty() {
        set(object_mut(&mut new, "metadata"), "name", name.as_str());
    } else if given != name {
        return Err(Status::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    settle_namespace(&mut new, text(old, "metadata.namespace"))?;
    match door {
        Door::Main | Door::Scale => {
            if resource.has_status_door() {
                copy(old, &mut new, "status");
            }
        }
        Door::Status => {
            keep_all_but_status(resource, &mut new, old);
            if resource.subresource("approval").is_some() {
                approval::keep(&mut new, old);
            }
        }
        Door::Approval => approval::keep_all_but(&mut new, old, context.now),
        Door::Finalize => keep_all_but_finalizers(&mut new, old),
    }
    (resource.rules.default)(&mut new);
    metadata::carry_over(&mut new, old);
    if matches!(door, Door::Main | Door::Scale) {
        (resource.rules.prepare_update)(&mut new, old, context)?;
    }
    if resource.generation {
        let generation = number(old, "metadata.generation").unwrap_or(1);
        let changed = is_changed(resource, &new, old)
            || (resource.generation_of_annotations
                && matches!(door, Door::Main | Door::Scale)
                && annotations(&new) != annotations(old));
        let metadata = object_mut(&mut new, "metadata");
        set(metadata, "generation", generation + i64::from(changed));
    } else {
        copy(at(old, "metadata"), object_mut(&mut new, "metadata"), "generation");
    }
    let mut causes = metadata::validate_update(resource, &new, old);
    causes.extend(match door {
        Door::Main | Door::Scale => (resource.rules.validate_update)(&new, old),
        Door::Status | Door::Approval => (resource.rules.validate_status)(&new, old),
        Door::Finalize => (resource.rules.validate)(&new),
    });
    if !causes.is_empty() {
        return Err(Status::invalid(resource, &name, causes));
    }
    if matches!(door, Door::Main | Door::Scale) {
        (resource.rules.allocate)(&mut new, Some(old), context)
            .map_err(|causes| Status::invalid(resource, &name, causes))?;
    }
    tidy(&mut new);
    Ok(new)
}

/// Whether what a change is counted of has changed: the spec, and of a kind without one or with a schema of its own all
/// that is neither metadata nor what is said at the status door.
fn is_changed(resource: &Resource, new: &Value, old: &Value) -> bool {
    if resource.schema.message().is_some_and(|message| message.field("spec").is_some()) {
        return !same(get(new, "spec"), get(old, "spec"));
    }
    let counts = |name: &str| match name {
        "apiVersion" | "kind" | "metadata" => false,
        "status" => !resource.has_status_door(),
        _ => true,
    };
    let names = [new, old].into_iter().filter_map(Value::as_object).flat_map(Map::keys);
    names.filter(|name| counts(name)).any(|name| !same(get(new, name), get(old, name)))
}

/// The annotations of an object, in whatever order they came; none where it has no such field.
fn annotations(object: &Value) -> BTreeMap<&str, &Value> {
    entries(at(object, "metadata"), "annotations").collect()
}

/// The status door takes the status and, of built-in kinds, the metadata, but for what
/// the kind keeps of it. Of other kinds it takes nothing else, the managed fields aside.
fn keep_all_but_status(resource: &Resource, new: &mut Value, old: &Value) {
    let mut kept = old.clone();
    copy(new, &mut kept, "status");
    let metadata = object_mut(&mut kept, "metadata");
    if resource.is_built_in() {
        *metadata = get(new, "metadata").clone();
        for field in resource.status_keeps {
            keep(get(old, "metadata"), metadata, field);
        }
    } else {
        copy(get(new, "metadata"), metadata, "managedFields");
        for field in ["uid", "resourceVersion"] {
            let given = at(new, "metadata").get(field).cloned();
            if let Some(given) = given.filter(|value| !value.is_null()) {
                set(metadata, field, given);
            }
        }
    }
    *new = kept;
}

/// Makes a field of the metadata as it was, or one entry of it.
fn keep(old: &Value, new: &mut Value, field: &str) {
    match field.split_once('/') {
        None => copy(old, new, field),
        Some((field, entry)) => {
            let was = get(get(old, field), entry);
            if was.is_null() {
                if let Some(entries) = existing_mut(new, field) {
                    remove(entries, entry);
                }
            } else {
                set(object_mut(new, field), entry, was.clone());
            }
        }
    }
}

fn keep_all_but_finalizers(new: &mut Value, old: &Value) {
    let mut kept = old.clone();
    let finalizers = at(new, "spec.finalizers").clone();
    set(object_mut(&mut kept, "spec"), "finalizers", finalizers);
    *new = kept;
}

/// What is empty where absent means the same is left out, as Kubernetes writes it.
fn tidy(object: &mut Value) {
    let metadata = object_mut(object, "metadata");
    for field in ["labels", "annotations", "finalizers", "ownerReferences", "managedFields"] {
        let empty = match get(metadata, field) {
            Value::Null => true,
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        if empty {
            remove(metadata, field);
        }
    }
    remove(metadata, "resourceVersion");
    remove(metadata, "selfLink");
}

/// What the writer of an object should know although nothing is wrong.
pub fn warnings(resource: &Resource, object: &Value) -> Vec<String> {
    let deprecated = (!resource.deprecated.is_empty()).then(|| resource.deprecated.to_string());
    deprecated.into_iter().chain((resource.rules.warnings)(object)).collect()
}
