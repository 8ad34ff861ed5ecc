//! The `Scale` of an object: its replica count as a small object of its own.

use crate::field::{at, default, number, text};
use crate::resource::Resource;
use crate::status::Status;
use serde_json::{Map, Value, json};

/// The `Scale` of an object; none when its kind has no such door.
pub fn scale_of(resource: &Resource, object: &Value) -> Option<Value> {
    let paths = resource.scale.as_ref()?;
    let selector = object.pointer(&paths.selector).unwrap_or(&Value::Null);
    let selector = if selector.get("matchLabels").is_some_and(Value::is_object)
        || selector.get("matchExpressions").is_some_and(Value::is_array)
    {
        crate::selector::LabelSelector::from_object(selector)
            .map_or(String::new(), |s| s.to_string())
    } else {
        crate::selector::LabelSelector::from_map(selector).to_string()
    };
    let mut metadata = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = at(object, "metadata").get(field) {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    let count = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let mut scale = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": { "replicas": count(&paths.spec) },
        "status": { "replicas": count(&paths.status) },
    });
    if !selector.is_empty() {
        scale["status"]["selector"] = selector.into();
    }
    Some(scale)
}

/// The whole object with the count of a `Scale`, to be admitted through
/// [`Door::Scale`](super::Door::Scale).
pub fn apply_scale(resource: &Resource, object: &Value, scale: &Value) -> Result<Value, Status> {
    let Some(paths) = &resource.scale else {
        return Err(Status::no_such_path());
    };
    let wanted = number(scale, "spec.replicas").unwrap_or(0);
    if wanted < 0 {
        let mut causes = crate::field::Causes::default();
        let path = crate::field::Path::new("spec").child("replicas");
        causes.invalid(&path, wanted, "must be greater than or equal to 0");
        return Err(Status::invalid(resource, text(object, "metadata.name"), causes.into_vec()));
    }
    let mut scaled = object.clone();
    if let Some(slot) = scaled.pointer_mut(&paths.spec) {
        *slot = wanted.into();
    } else {
        let (parent, field) = paths.spec.rsplit_once('/').unwrap_or(("", &paths.spec));
        if let Some(parent) = scaled.pointer_mut(parent) {
            default(parent, field, wanted);
        }
    }
    Ok(scaled)
}
