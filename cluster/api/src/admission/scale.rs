//! The `Scale` of an object: its replica count as a small object of its own.

use crate::field::{at, number, object_mut, set, text};
use crate::resource::Resource;
use crate::status::Status;
use serde_json::{Map, Value, json};

/// The `Scale` of an object; none when its kind has no such door.
pub fn scale_of(resource: &Resource, object: &Value) -> Option<Value> {
    let paths = resource.scale.as_ref()?;
    let selector = Some(&paths.selector).filter(|pointer| !pointer.is_empty());
    let selector = selector.and_then(|pointer| object.pointer(pointer)).unwrap_or(&Value::Null);
    let selector = if let Value::String(written) = selector {
        written.clone()
    } else if selector.get("matchLabels").is_some_and(Value::is_object)
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
    let (parents, field) = paths.spec.rsplit_once('/').unwrap_or(("", &paths.spec));
    let unescaped = |name: &str| name.replace("~1", "/").replace("~0", "~");
    let mut parent = &mut scaled;
    for name in parents.split('/').skip(1) {
        parent = object_mut(parent, &unescaped(name));
    }
    set(parent, &unescaped(field), wanted);
    Ok(scaled)
}
