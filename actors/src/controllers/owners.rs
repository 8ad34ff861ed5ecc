//! Who controls an object: at most one of its owners does (API reference, ObjectMeta v1, `ownerReferences`).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::Value;

/// The owner that controls an object, if one does.
#[must_use]
pub fn controller(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// The uid of the controller of an object as it is stored, if it has one.
#[must_use]
pub fn controller_of(object: &Value) -> Option<&str> {
    let mut owners = object["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    owners.find(|owner| owner["controller"] == true)?["uid"].as_str()
}
