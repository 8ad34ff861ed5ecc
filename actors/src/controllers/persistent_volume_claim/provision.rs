//! Has a volume made for a claim: by us, where its class says `impresario.dev/local`, or by somebody else.

use super::super::engine::effects::{Effects, Event};
use super::super::engine::view::View;
use super::said::{reference, wait};
use impresario_api::storage::{
    FOLDER_FINALIZER, HOSTNAME, LOCAL, LOCAL_DRIVER, NO_PROVISIONER, NODE_ATTRIBUTE,
    PROVISIONED_BY, STORAGE_PROVISIONER,
};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

/// Has a volume made by the provisioner of the claim's class.
pub(super) fn provision(
    view: &View<'_, PersistentVolumeClaim>,
    class: &StorageClass,
    node: Option<&str>,
    now: Timestamp,
    effects: &mut Effects,
) {
    let claim = view.object;
    match class.provisioner.as_str() {
        NO_PROVISIONER => {
            let why = "no persistent volumes available for this claim, and its class makes none";
            wait(view, effects, Event::normal("FailedBinding", why));
        }
        LOCAL => match local(claim, class, node) {
            Ok(volume) => {
                let name = volume["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                if view.is_taken(&name) {
                    let why = format!("there is a volume {name:?} that is not the claim's");
                    return wait(view, effects, Event::warning("ProvisioningFailed", why));
                }
                effects.create::<PersistentVolume>(volume);
                effects.look_again(now);
            }
            Err(why) => wait(view, effects, Event::warning("ProvisioningFailed", why)),
        },
        other => {
            effects.annotate(STORAGE_PROVISIONER, other);
            let why = format!(
                "Waiting for a volume to be created either by the external provisioner '{other}' or manually by the \
                 system administrator. If volume creation is delayed, please verify that the provisioner is running \
                 and correctly registered."
            );
            wait(view, effects, Event::normal("ExternalProvisioning", why));
        }
    }
}

/// A volume that is a folder of this node; why none can be made.
fn local(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    node: Option<&str>,
) -> Result<Value, String> {
    let spec = claim.spec.clone().unwrap_or_default();
    let Some(node) = node.filter(|node| !node.is_empty()) else {
        return Err(format!(
            "volumes of {LOCAL} are folders of the node on which their first pod is: give the class \
             volumeBindingMode: WaitForFirstConsumer"
        ));
    };
    let modes = spec.access_modes.unwrap_or_default();
    if let Some(other) =
        modes.iter().find(|mode| !matches!(mode.as_str(), "ReadWriteOnce" | "ReadWriteOncePod"))
    {
        return Err(format!(
            "{other}: a folder of one node is ReadWriteOnce or ReadWriteOncePod: ask for one of these"
        ));
    }
    // What is asked for and would not be so is refused, each by its name.
    let is_asked = |map: Option<bool>| map.unwrap_or(false);
    let not_done = [
        ("spec.volumeMode: Block", spec.volume_mode.as_deref() == Some("Block")),
        ("spec.selector", spec.selector.is_some()),
        ("spec.dataSource", spec.data_source.is_some() || spec.data_source_ref.is_some()),
        ("spec.volumeAttributesClassName", spec.volume_attributes_class_name.is_some()),
        (
            "mountOptions of the class",
            is_asked(class.mount_options.as_ref().map(|o| !o.is_empty())),
        ),
        ("parameters of the class", is_asked(class.parameters.as_ref().map(|p| !p.is_empty()))),
    ];
    if let Some((field, _)) = not_done.iter().find(|(_, is_asked)| *is_asked) {
        return Err(format!("{LOCAL} does not do {field}: leave it out"));
    }
    let uid = claim.metadata.uid.as_deref().unwrap_or_default();
    let name = format!("pvc-{uid}");
    let amount =
        spec.resources.and_then(|all| all.requests).and_then(|mut all| all.remove("storage"));
    Ok(json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": name,
            "annotations": { PROVISIONED_BY: LOCAL },
            "finalizers": [FOLDER_FINALIZER],
        },
        "spec": {
            "capacity": { "storage": amount },
            "accessModes": modes,
            "volumeMode": "Filesystem",
            "claimRef": reference(claim),
            "persistentVolumeReclaimPolicy": class.reclaim_policy.as_deref().unwrap_or("Delete"),
            "storageClassName": class.metadata.name,
            "csi": {
                "driver": LOCAL_DRIVER,
                "volumeHandle": name,
                "volumeAttributes": { NODE_ATTRIBUTE: node },
            },
            "nodeAffinity": { "required": { "nodeSelectorTerms": [{
                "matchExpressions": [{ "key": HOSTNAME, "operator": "In", "values": [node] }],
            }] } },
        },
    }))
}
