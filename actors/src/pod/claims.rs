//! What the claims of a pod are on this machine.
//!
//! A claim that has no volume yet is waited for; a volume that cannot be mounted here is said by its kind.

use super::kit::Kit;
use crate::change::{self, ChangeError};
use crate::scheduler::fit;
use crate::storage::{Held, annotation, claimed, held, is_of_pod, volume_name};
use impresario_api::storage::{
    BIND_COMPLETED, FOLDER_FINALIZER, FOLDER_MADE, LOCAL_DRIVER, NODE_ATTRIBUTE,
};
use impresario_registry_api::Key;
use k8s_openapi::api::core::v1::{
    HostPathVolumeSource, Node, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, Pod,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use thiserror::Error;

/// Why a claim of the pod cannot be mounted. It is tried again: the claim may get its volume.
#[derive(Debug, Error)]
pub(super) enum ClaimError {
    #[error("persistentvolumeclaim {0:?} not found")]
    Missing(String),
    #[error("persistentvolumeclaim {0:?} is not bound to a volume yet")]
    Unbound(String),
    #[error(
        "persistentvolumeclaim {0:?} is being deleted: delete the pod, or make it with another claim"
    )]
    Going(String),
    #[error(
        "persistentvolumeclaim {0:?} was not made for this pod: delete it, or call the pod another name"
    )]
    NotOwn(String),
    #[error("persistentvolume {0:?} not found, or not bound to persistentvolumeclaim {1:?}")]
    NoVolume(String, String),
    #[error("persistentvolume {0:?} is a folder of node {1:?}, and the pod is on another")]
    Elsewhere(String, String),
    #[error(
        "persistentvolume {volume:?}: its nodeAffinity does not choose node {node:?}: delete the pod, and make it without nodeName"
    )]
    NotChosen { volume: String, node: String },
    #[error(
        "persistentvolume {0:?} is being removed: delete the pod, or make it with another claim"
    )]
    VolumeGoing(String),
    #[error(
        "persistentvolume {volume:?}: this node mounts no {what}: hostPath, local and {LOCAL_DRIVER} are what it mounts, as file systems without mountOptions"
    )]
    Unsupported { volume: String, what: String },
    #[error(transparent)]
    Objects(#[from] ChangeError),
}

/// What a volume is on this machine.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Source {
    /// The folder of the volume of this name.
    Folder(String),
    /// Something that the machine has.
    Path(HostPathVolumeSource),
}

/// A volume of the pod that is a claim's.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    /// The pod's name for it.
    pub(super) volume: String,
    pub(super) source: Source,
    pub(super) read_only: bool,
    /// The uid of the volume's object.
    pub(super) uid: String,
    /// Whether it is said of it that its folder was made.
    pub(super) was_made: bool,
}

/// Reads the claims of a pod and their volumes.
pub(super) async fn of(kit: &Kit, pod: &Pod) -> Result<Vec<Found>, ClaimError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let mut all = Vec::new();
    for wanted in claimed(pod) {
        let name = wanted.claim;
        let key = Key::new("persistentvolumeclaims", namespace, &name);
        let claim: PersistentVolumeClaim = match change::get(&kit.registry, key).await? {
            Some(claim) => claim,
            None => return Err(ClaimError::Missing(name)),
        };
        if wanted.is_own && !is_of_pod(&claim, uid) {
            return Err(ClaimError::NotOwn(name));
        }
        let volume = volume_name(&claim).to_owned();
        if volume.is_empty() || annotation(&claim, BIND_COMPLETED).is_none() {
            let is_going = claim.metadata.deletion_timestamp.is_some();
            return Err(if is_going { ClaimError::Going(name) } else { ClaimError::Unbound(name) });
        }
        let key = Key::new("persistentvolumes", "", &volume);
        let found: Option<PersistentVolume> = change::get(&kit.registry, key).await?;
        let found = found.filter(|found| held(found, &claim) == Held::Its);
        let Some(PersistentVolume { metadata, spec: Some(spec), .. }) = found else {
            return Err(ClaimError::NoVolume(volume, name));
        };
        if is_being_removed(&metadata) {
            return Err(ClaimError::VolumeGoing(volume));
        }
        let node = kit.node_name();
        if is_tied(&spec) {
            let found: Option<Node> =
                change::get(&kit.registry, Key::new("nodes", "", node)).await?;
            let labels = found.and_then(|found| found.metadata.labels).unwrap_or_default();
            if !is_chosen(&spec, node, &labels) {
                return Err(ClaimError::NotChosen { volume, node: node.to_owned() });
            }
        }
        let source = source(&volume, spec, node)?;
        all.push(Found {
            volume: wanted.volume.to_owned(),
            source,
            read_only: wanted.is_read_only,
            was_made: was_made(&metadata),
            uid: metadata.uid.unwrap_or_default(),
        });
    }
    Ok(all)
}

/// Whether nothing holds a volume any more but its node, which may be removing what is in it now.
fn is_being_removed(volume: &ObjectMeta) -> bool {
    let finalizers = volume.finalizers.as_deref().unwrap_or_default();
    volume.deletion_timestamp.is_some() && finalizers == [FOLDER_FINALIZER]
}

/// Whether its node has made the folder of this volume, and not of one from which its object was copied.
fn was_made(volume: &ObjectMeta) -> bool {
    let made = volume.annotations.as_ref().and_then(|all| all.get(FOLDER_MADE));
    made.is_some() && made == volume.uid.as_ref()
}

/// Says of a volume that its folder was made.
pub(super) async fn folder_made(kit: &Kit, name: &str, uid: &str) -> Result<(), ChangeError> {
    let key = Key::new("persistentvolumes", "", name);
    let mark = |volume: &mut Value| {
        let Some(metadata) = volume["metadata"].as_object_mut() else { return };
        let all = metadata.entry("annotations").or_insert_with(|| json!({}));
        if !all.is_object() {
            *all = json!({});
        }
        all[FOLDER_MADE] = uid.into();
    };
    change::change(&kit.registry, &key, Some(uid), None, mark).await.map(drop)
}

/// Whether a volume is something that each machine has by that path, and says which nodes it means. The scheduler is passed by
/// where a pod names its node: on another one the path may be somebody else's volume.
fn is_tied(spec: &PersistentVolumeSpec) -> bool {
    (spec.host_path.is_some() || spec.local.is_some()) && spec.node_affinity.is_some()
}

/// Whether a volume can be reached from the node with this name and these labels, as it says itself.
fn is_chosen(spec: &PersistentVolumeSpec, node: &str, labels: &BTreeMap<String, String>) -> bool {
    let required = spec.node_affinity.as_ref().and_then(|affinity| affinity.required.as_ref());
    let terms = required.map(|required| required.node_selector_terms.as_slice());
    fit::is_chosen(&BTreeMap::new(), terms, node, labels)
}

/// What a volume is on the node of this name.
fn source(name: &str, spec: PersistentVolumeSpec, node: &str) -> Result<Source, ClaimError> {
    let unsupported = |what: &str| {
        Err(ClaimError::Unsupported { volume: name.to_owned(), what: what.to_owned() })
    };
    if spec.volume_mode.as_deref() == Some("Block") {
        return unsupported("volumes of volumeMode Block");
    }
    if spec.mount_options.as_ref().is_some_and(|options| !options.is_empty()) {
        return unsupported("volumes with mountOptions");
    }
    if let Some(csi) = &spec.csi {
        if csi.driver != LOCAL_DRIVER {
            return unsupported(&format!("volumes of the CSI driver {}", csi.driver));
        }
        if csi.volume_handle != name {
            return unsupported("folder of another volume: volumeHandle is to be its own name");
        }
        let attributes = csi.volume_attributes.as_ref();
        let on = attributes.and_then(|all| all.get(NODE_ATTRIBUTE)).map(String::as_str);
        return match on {
            Some(on) if on == node => Ok(Source::Folder(name.to_owned())),
            on => {
                let on = on.unwrap_or_default().to_owned();
                Err(ClaimError::Elsewhere(name.to_owned(), on))
            }
        };
    }
    if let Some(source) = spec.host_path {
        return Ok(Source::Path(source));
    }
    if let Some(local) = spec.local {
        let type_ = Some("Directory".to_owned());
        return Ok(Source::Path(HostPathVolumeSource { path: local.path, type_ }));
    }
    let fields = serde_json::to_value(&spec).unwrap_or_default();
    let known = [
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    ];
    let mut kinds = fields.as_object().into_iter().flatten().map(|(field, _)| field.as_str());
    let kind = kinds.find(|field| !known.contains(field)).unwrap_or("nothing");
    unsupported(&format!("volumes of kind {kind}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_another_node_is_not_mounted_here_whoever_has_put_the_pod_here() {
        let affinity = |node: &str| {
            json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}]}})
        };
        let table = [
            (json!({"local": {"path": "/x"}, "nodeAffinity": affinity("n1")}), true),
            (json!({"local": {"path": "/x"}, "nodeAffinity": affinity("n2")}), false),
            (json!({"hostPath": {"path": "/x"}, "nodeAffinity": affinity("n2")}), false),
            (json!({"hostPath": {"path": "/x"}}), true),
        ];
        let labels = [("kubernetes.io/hostname".to_owned(), "n1".to_owned())].into();
        for (spec, expected) in table {
            let typed = serde_json::from_value(spec.clone()).unwrap();
            assert_eq!(!is_tied(&typed) || is_chosen(&typed, "n1", &labels), expected, "{spec}");
        }
    }

    #[test]
    fn a_folder_was_made_for_the_volume_whose_uid_says_so_and_none_is_mounted_that_its_node_removes()
     {
        let of = |metadata: Value| {
            let metadata: ObjectMeta = serde_json::from_value(metadata).unwrap();
            (was_made(&metadata), is_being_removed(&metadata))
        };
        let since = "2026-03-01T00:00:00Z";
        let table = [
            (json!({"uid": "u"}), (false, false)),
            (json!({"uid": "u", "annotations": {FOLDER_MADE: "u"}}), (true, false)),
            (json!({"uid": "u", "annotations": {FOLDER_MADE: "before"}}), (false, false)),
            (json!({"finalizers": [FOLDER_FINALIZER]}), (false, false)),
            (json!({"finalizers": [FOLDER_FINALIZER], "deletionTimestamp": since}), (false, true)),
            (
                json!({"finalizers": [FOLDER_FINALIZER, "a/b"], "deletionTimestamp": since}),
                (false, false),
            ),
        ];
        for (metadata, expected) in table {
            assert_eq!(of(metadata.clone()), expected, "{metadata}");
        }
    }

    #[test]
    fn what_a_node_can_mount_is_mounted_and_the_rest_is_said_by_its_name() {
        let driver = |driver: &str, handle: &str, node: &str| {
            json!({"csi": {"driver": driver, "volumeHandle": handle,
                "volumeAttributes": {"node": node}}})
        };
        let table = [
            (json!({"hostPath": {"path": "/x", "type": ""}}), "Path"),
            (json!({"local": {"path": "/x"}}), "Directory"),
            (driver(LOCAL_DRIVER, "v", "n1"), "Folder(\"v\")"),
            (driver(LOCAL_DRIVER, "v", "n2"), "folder of node \"n2\""),
            (driver(LOCAL_DRIVER, "w", "n1"), "volumeHandle"),
            (driver("ebs.example", "v", "n1"), "ebs.example"),
            (json!({"nfs": {"server": "s", "path": "/x"}}), "kind nfs"),
            (json!({"hostPath": {"path": "/x"}, "volumeMode": "Block"}), "Block"),
            (json!({"hostPath": {"path": "/x"}, "mountOptions": ["ro"]}), "mountOptions"),
        ];
        for (mut spec, expected) in table {
            spec["capacity"] = json!({"storage": "1Gi"});
            spec["accessModes"] = json!(["ReadWriteOnce"]);
            let typed = serde_json::from_value(spec.clone()).unwrap();
            let told = match source("v", typed, "n1") {
                Ok(source) => format!("{source:?}"),
                Err(error) => error.to_string(),
            };
            assert!(told.contains(expected), "{spec}: {told}");
        }
    }
}
