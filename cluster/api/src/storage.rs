//! The words by which claims, volumes and classes of storage are tied together, and what is read of them by whoever acts on
//! them: the admission, the controllers, the scheduler and nodes.

use crate::field::{at, has, text};
use crate::quantity::{self, Quantity};
use serde_json::Value;

/// Says of a class that it is for claims that name none.
pub const IS_DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
/// The same, as it was called before.
const IS_DEFAULT_CLASS_BETA: &str = "storageclass.beta.kubernetes.io/is-default-class";
/// The class of a claim, as it was said before it had a field.
pub const CLASS_BETA: &str = "volume.beta.kubernetes.io/storage-class";
/// Says of a claim that it is bound, and its volume is bound to it.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// Says of a claim or of a volume that nobody but the controller has chosen what it is bound to.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// Who made a volume.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// Who is to make the volume of a claim.
pub const STORAGE_PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
/// The node on which the first pod of a claim will be.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// The provisioner of classes whose volumes somebody makes by hand.
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
/// The provisioner of volumes that are folders of a node.
pub const LOCAL: &str = "impresario.dev/local";
/// The driver of these: what a volume says of itself. A driver's name has no place for a slash.
pub const LOCAL_DRIVER: &str = "local.impresario.dev";
/// The class of these, which every cluster has.
pub const LOCAL_CLASS: &str = "local";
/// The attribute of such a volume that names its node.
pub const NODE_ATTRIBUTE: &str = "node";
/// Where that stands in the volume.
pub const NODE_POINTER: &str = "/spec/csi/volumeAttributes/node";
/// What holds such a volume until its node has removed the folder.
pub const FOLDER_FINALIZER: &str = "impresario.dev/local-volume";
/// The uid of such a volume, once its node has made the folder: it is not made again.
pub const FOLDER_MADE: &str = "impresario.dev/local-volume-made";
/// What holds a claim that a pod uses.
pub const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
/// What holds a volume that is bound.
pub const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";
/// The label by which nodes are told apart where volumes say where they are.
pub const HOSTNAME: &str = "kubernetes.io/hostname";

/// Whether a class is for claims that name none.
pub fn is_default_class(class: &Value) -> bool {
    let annotations = at(class, "metadata.annotations");
    [IS_DEFAULT_CLASS, IS_DEFAULT_CLASS_BETA]
        .iter()
        .any(|key| annotations.get(key).and_then(Value::as_str) == Some("true"))
}

/// The class for claims that name none: the newest of those that are for them, and the first by its name of the newest.
pub fn default_class<'a>(classes: impl IntoIterator<Item = &'a Value>) -> Option<&'a str> {
    let newest = |class: &&'a Value| {
        let (since, name) =
            (text(class, "metadata.creationTimestamp"), text(class, "metadata.name"));
        (since, std::cmp::Reverse(name))
    };
    let found = classes.into_iter().filter(|class| is_default_class(class)).max_by_key(newest)?;
    Some(text(found, "metadata.name"))
}

/// Whether a claim names no class at all; the empty one is a class of its own.
pub fn names_no_class(claim: &Value) -> bool {
    let beta = at(claim, "metadata.annotations").get(CLASS_BETA);
    !has(claim, "spec.storageClassName") && beta.is_none_or(Value::is_null)
}

/// How much a claim asks for.
pub fn asked(claim: &Value) -> Option<Quantity> {
    quantity::parse(at(claim, "spec.resources.requests.storage"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_newest_of_the_default_classes_is_the_one_and_of_equals_the_first_by_name() {
        let class = |name: &str, since: &str, says: &str| {
            json!({"metadata": {"name": name, "creationTimestamp": since,
                "annotations": {IS_DEFAULT_CLASS: says}}})
        };
        let all = [
            class("b", "2026-01-02T00:00:00Z", "true"),
            class("a", "2026-01-02T00:00:00Z", "true"),
            class("c", "2026-01-01T00:00:00Z", "true"),
            class("d", "2026-01-03T00:00:00Z", "false"),
            json!({"metadata": {"name": "e", "creationTimestamp": "2026-01-04T00:00:00Z"}}),
        ];
        assert_eq!(default_class(&all), Some("a"));
        assert_eq!(default_class(&all[2..]), Some("c"));
        assert_eq!(default_class(&all[3..]), None);
    }

    #[test]
    fn the_empty_class_is_a_class_that_a_claim_names() {
        assert!(names_no_class(&json!({"spec": {}})));
        assert!(!names_no_class(&json!({"spec": {"storageClassName": ""}})));
        let beta = json!({"metadata": {"annotations": {CLASS_BETA: "x"}}, "spec": {}});
        assert!(!names_no_class(&beta));
    }
}
