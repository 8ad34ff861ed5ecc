//! What every object's metadata must be, new and changed.

use crate::cause::Cause;
use crate::field::{
    Causes, Path, at, copy, entries, flag, get, has, list, number, object_mut, same, set, text,
};
use crate::names;
use crate::resource::Resource;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::HashSet;

/// Most bytes of all annotations together.
const ANNOTATIONS_MAX: usize = 256 * 1024;

/// The metadata of a new object.
pub fn validate(resource: &Resource, object: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let metadata = get(object, "metadata");
    let path = Path::new("metadata");
    let prefix = text(metadata, "generateName");
    if !prefix.is_empty() {
        // A name may not end with a dash; a prefix may, since more follows.
        let masked = match prefix.strip_suffix('-') {
            Some(rest) => format!("{rest}a"),
            None => prefix.to_owned(),
        };
        for why in (resource.name)(&masked) {
            causes.invalid(&path.child("generateName"), prefix, &why);
        }
    }
    let name = text(metadata, "name");
    if name.is_empty() {
        causes.required(&path.child("name"), "name or generateName is required");
    } else {
        let mut wrong = (resource.name)(name);
        if wrong.is_empty() {
            wrong = names::path_segment(name);
        }
        causes.invalid_all(&path.child("name"), name, wrong);
    }
    let namespace = text(metadata, "namespace");
    if resource.namespaced {
        if namespace.is_empty() {
            causes.required(&path.child("namespace"), "");
        } else {
            causes.invalid_all(&path.child("namespace"), namespace, names::dns_label(namespace));
        }
    }
    if let Some(generation) = number(metadata, "generation").filter(|number| *number < 0) {
        causes.invalid(&path.child("generation"), generation, "must be greater than or equal to 0");
    }
    common(metadata, &path, &mut causes);
    finalizers(metadata, &path.child("finalizers"), &mut causes);
    if resource.schema.message().is_some() {
        known_finalizers(metadata, &path.child("finalizers"), &mut causes);
    }
    causes.into_vec()
}

fn common(metadata: &Value, path: &Path, causes: &mut Causes) {
    labels(metadata, "labels", &path.child("labels"), causes);
    annotations(metadata, &path.child("annotations"), causes);
    owners(metadata, &path.child("ownerReferences"), causes);
}

/// The rules of new metadata, for the kinds that look at a changed object as at a new one.
pub fn validate_again(object: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let (metadata, path) = (get(object, "metadata"), Path::new("metadata"));
    common(metadata, &path, &mut causes);
    finalizers(metadata, &path.child("finalizers"), &mut causes);
    known_finalizers(metadata, &path.child("finalizers"), &mut causes);
    causes.into_vec()
}

/// The labels at a field: keys are qualified names, values label values.
pub fn labels(object: &Value, field: &str, path: &Path, causes: &mut Causes) {
    for (key, value) in entries(object, field) {
        if causes.is_full() {
            break;
        }
        let value = value.as_str().unwrap_or_default();
        causes.invalid_all(path, key, names::qualified(key));
        causes.invalid_all(path, value, names::label_value(value));
    }
}

/// The annotations: keys are qualified names in any case, and all of them have a limit.
pub fn annotations(metadata: &Value, path: &Path, causes: &mut Causes) {
    let mut size = 0;
    for (key, value) in entries(metadata, "annotations") {
        if causes.is_full() {
            break;
        }
        causes.invalid_all(path, key, names::qualified(&key.to_lowercase()));
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS_MAX {
        causes.too_long(path, ANNOTATIONS_MAX);
    }
}

fn owners(metadata: &Value, path: &Path, causes: &mut Causes) {
    let mut controllers: Vec<&str> = Vec::new();
    for owner in list(metadata, "ownerReferences") {
        if causes.is_full() {
            break;
        }
        let group_version = text(owner, "apiVersion");
        let version = group_version.rsplit('/').next().unwrap_or_default();
        if version.is_empty() {
            causes.invalid(&path.child("apiVersion"), group_version, "version must not be empty");
        }
        for field in ["kind", "name", "uid"] {
            if text(owner, field).is_empty() {
                causes.invalid(&path.child(field), "", &format!("{field} must not be empty"));
            }
        }
        if text(owner, "kind") == "Event" {
            causes.invalid(path, owner.clone(), "is disallowed from being an owner");
        }
        if flag(owner, "controller") {
            controllers.push(text(owner, "kind"));
        }
    }
    if controllers.len() > 1 {
        let why = format!(
            "Only one reference can have Controller set to true. Found \"true\" in references for {} and {}",
            controllers[0], controllers[1]
        );
        causes.invalid(path, get(metadata, "ownerReferences").clone(), &why);
    }
}

/// A time as metadata has it: whole seconds of UTC.
pub fn time(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Adds a finalizer that an object has not.
pub fn hold(object: &mut Value, finalizer: &str) {
    let metadata = object_mut(object, "metadata");
    if !list(metadata, "finalizers").iter().any(|one| one == finalizer) {
        let mut all = list(metadata, "finalizers").to_vec();
        all.push(finalizer.into());
        set(metadata, "finalizers", all);
    }
}

/// Takes a finalizer away.
pub fn let_go(object: &mut Value, finalizer: &str) {
    let all = object.pointer_mut("/metadata/finalizers").and_then(Value::as_array_mut);
    if let Some(all) = all {
        all.retain(|one| one != finalizer);
    }
}

/// Finalizers that the server itself works on.
pub const STANDARD_FINALIZERS: &[&str] =
    &["kubernetes", "orphan", "foregroundDeletion", "customresourcecleanup.apiextensions.k8s.io"];

fn finalizers(metadata: &Value, path: &Path, causes: &mut Causes) {
    let all = list(metadata, "finalizers");
    for finalizer in all.iter().filter_map(Value::as_str) {
        if causes.is_full() {
            break;
        }
        causes.invalid_all(path, finalizer, names::qualified(finalizer));
    }
    let has = |name: &str| all.iter().any(|finalizer| finalizer == name);
    if has("orphan") && has("foregroundDeletion") {
        causes.invalid(
            path,
            get(metadata, "finalizers").clone(),
            "finalizers orphan and foregroundDeletion cannot be both set",
        );
    }
}

/// A finalizer is one that the server itself works on, or has the domain of who does; kinds that come at run time are
/// not asked.
fn known_finalizers(metadata: &Value, path: &Path, causes: &mut Causes) {
    let all = list(metadata, "finalizers").iter().filter_map(Value::as_str);
    for (index, finalizer) in all.enumerate() {
        if causes.is_full() {
            break;
        }
        if !finalizer.contains('/') && !STANDARD_FINALIZERS.contains(&finalizer) {
            causes.invalid(
                &path.index(index),
                finalizer,
                "name is neither a standard finalizer name nor is it fully qualified",
            );
        }
    }
}

/// What only the server sets is as it was, given or not; a uid that is given must be the same.
pub fn carry_over(new: &mut Value, old: &Value) {
    let old = get(old, "metadata");
    let metadata = object_mut(new, "metadata");
    for field in ["uid", "creationTimestamp"] {
        if text(metadata, field).is_empty() {
            copy(old, metadata, field);
        }
    }
    // A deletion once said cannot be taken back.
    if has(old, "deletionTimestamp") {
        set(metadata, "deletionTimestamp", get(old, "deletionTimestamp").clone());
        if !has(metadata, "deletionGracePeriodSeconds") {
            copy(old, metadata, "deletionGracePeriodSeconds");
        }
    }
    if text(metadata, "generateName").is_empty() {
        copy(old, metadata, "generateName");
    }
}

/// The metadata of a changed object.
pub fn validate_update(resource: &Resource, new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    // Both the common path and the kind's own look at this.
    causes.append(compare(new, old));
    causes.append(compare(new, old));
    if resource.schema.message().is_some() {
        let path = Path::new("metadata").child("finalizers");
        known_finalizers(get(new, "metadata"), &path, &mut causes);
    }
    causes.into_vec()
}

fn compare(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let path = Path::new("metadata");
    let (new, old) = (get(new, "metadata"), get(old, "metadata"));
    let deleted = has(old, "deletionTimestamp");
    if deleted {
        let before: HashSet<&str> =
            list(old, "finalizers").iter().filter_map(Value::as_str).collect();
        for finalizer in list(new, "finalizers") {
            if causes.is_full() {
                break;
            }
            if finalizer.as_str().is_none_or(|finalizer| !before.contains(finalizer)) {
                causes.forbidden(
                    &path.child("finalizers"),
                    &format!("no new finalizers can be added if the object is being deleted, found new finalizers []string{{{finalizer}}}"),
                );
            }
        }
    }
    for field in ["name", "namespace", "uid", "creationTimestamp"] {
        causes.unchanged(&path.child(field), get(new, field), get(old, field));
    }
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
        if !same(at(new, field), at(old, field)) {
            causes.invalid(&path.child(field), get(new, field).clone(), "field is immutable");
        }
    }
    common(new, &path, &mut causes);
    causes.into_vec()
}
