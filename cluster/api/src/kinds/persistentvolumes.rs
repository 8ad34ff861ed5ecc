//! PersistentVolume: storage that outlives pods.

use crate::cause::Cause;
use crate::context::Context;
use crate::field::{
    Causes, Path, at, default_text, entries, get, has, map, object_mut, same, set, text,
};
use crate::names;
use crate::quantity;
use crate::resource::{Column, DeletionRule, Effect, Resource, Rules, Subresource, words};
use crate::rules::pod::node_selector;
use crate::rules::resources::canonical_amounts;
use crate::rules::storage::{access_modes, access_modes_cell, attributes_class_cell, class_name};
use crate::rules::{declared, metadata};
use crate::schema;
use crate::status::Status;
use crate::storage::VOLUME_PROTECTION;
use crate::table::{age, name};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

const STATUS: &str = "api.core.v1.PersistentVolumeStatus";

/// The row.
pub fn resource() -> Resource {
    Resource {
        short_names: words(["pv"]),
        namespaced: false,
        subresources: vec![Subresource::status("PersistentVolume")],
        columns: vec![
            Column::name(),
            Column::text("Capacity", "How much it holds."),
            Column::text("Access Modes", "How it may be mounted."),
            Column::text("Reclaim Policy", "What becomes of it when its claim is gone."),
            Column::text("Status", "Whether it can be claimed."),
            Column::text("Claim", "Whose it is."),
            Column::text("StorageClass", "Its class."),
            Column::text("VolumeAttributesClass", "The class of its attributes."),
            Column::text("Reason", "Why it is as it is."),
            Column::age(),
            Column::text("VolumeMode", "Whether it is a device or a file system.").wide(),
        ],
        cells: Arc::new(cells),
        effect: Effect::by(
            "its controller, the scheduler and the node of its pods ([volumes.md](volumes.md))",
        ),
        rules: Rules {
            default: Arc::new(default_volume),
            prepare_create: Arc::new(prepare_create),
            validate: Arc::new(validate),
            validate_update: Arc::new(validate_update),
            validate_status: Arc::new(|new, _| {
                let mut causes = Causes::default();
                let (part, path) = (get(new, "status"), Path::new("status"));
                declared::validate_part(STATUS, part, &path, &mut causes);
                causes.into_vec()
            }),
            ..Rules::plain()
        },
        deletion: DeletionRule { mark: release, ..DeletionRule::ANSWERS_OBJECT },
        ..Resource::named(
            "",
            "v1",
            "PersistentVolume",
            "persistentvolumes",
            "persistentvolume",
            "api.core.v1.PersistentVolume",
        )
    }
}

fn default_volume(volume: &mut Value) {
    let spec = object_mut(volume, "spec");
    default_text(spec, "persistentVolumeReclaimPolicy", "Retain");
    default_text(spec, "volumeMode", "Filesystem");
    if has(spec, "capacity") {
        canonical_amounts(object_mut(spec, "capacity"));
    }
    if has(spec, "hostPath") {
        crate::field::default(object_mut(spec, "hostPath"), "type", "");
    }
    for (source, fields) in [
        ("iscsi", &[("iscsiInterface", "default")][..]),
        ("rbd", &[("pool", "rbd"), ("user", "admin"), ("keyring", "/etc/ceph/keyring")]),
        ("scaleIO", &[("storageMode", "ThinProvisioned"), ("fsType", "xfs")]),
        ("azureDisk", &[("cachingMode", "ReadWrite"), ("fsType", "ext4"), ("kind", "Shared")]),
    ] {
        if has(spec, source) {
            let source = object_mut(spec, source);
            for (field, value) in fields {
                default_text(source, field, value);
            }
        }
    }
    release(volume);
}

/// A volume that is marked and that no claim has is held by nothing of ours: in Kubernetes a controller says so a moment later.
/// Of one that a claim has that controller says it here too: the phase is written last, and the claim's pods may run by then.
fn release(volume: &mut Value) {
    let is_free =
        text(volume, "status.phase") != "Bound" && text(volume, "spec.claimRef.uid").is_empty();
    if has(volume, "metadata.deletionTimestamp") && is_free {
        metadata::let_go(volume, VOLUME_PROTECTION);
    }
}

fn prepare_create(volume: &mut Value, context: &Context<'_>) -> Result<(), Status> {
    metadata::hold(volume, VOLUME_PROTECTION);
    let since = metadata::time(context.now);
    set(volume, "status", json!({"phase": "Pending", "lastPhaseTransitionTime": since}));
    Ok(())
}

/// The sources of a volume, as the tables have them.
fn sources() -> Vec<&'static str> {
    let message = schema::message("api.core.v1.PersistentVolumeSource");
    let fields = message.map(schema::Message::json_fields).unwrap_or_default();
    fields.into_iter().map(|field| field.name).collect()
}

fn validate(volume: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    validate_spec(get(volume, "spec"), &Path::new("spec"), &mut causes);
    if has(volume, "spec.local") && !has(volume, "spec.nodeAffinity") {
        let path = Path::new("metadata").child("annotations");
        causes.required(&path, "Local volume requires node affinity");
    }
    causes.into_vec()
}

/// The spec of a volume, or of one that stands in an attachment.
pub(crate) fn validate_spec(spec: &Value, path: &Path, causes: &mut Causes) {
    access_modes(spec, path, causes);
    let capacity = path.child("capacity");
    let amounts = map(spec, "capacity").filter(|amounts| !amounts.is_empty());
    if amounts.is_none() {
        causes.required(&capacity, "");
    }
    if amounts.is_none_or(|amounts| amounts.len() > 1 || !amounts.contains_key("storage")) {
        causes.not_supported(&capacity, get(spec, "capacity").clone(), &["storage"]);
    }
    for (resource, amount) in entries(spec, "capacity") {
        if causes.is_full() {
            return;
        }
        let path = capacity.key(resource);
        causes.invalid_all(&path, resource, names::qualified(resource));
        if let Some(amount) = quantity::parse(amount).filter(|amount| amount.sign() <= 0) {
            causes.invalid(&path, amount.to_string(), "must be greater than zero");
        }
    }
    one_source(spec, path, causes);
    if text(spec, "hostPath.path") == "/"
        && text(spec, "persistentVolumeReclaimPolicy") == "Recycle"
    {
        let why = "may not be 'recycle' for a hostPath mount of '/'";
        causes.forbidden(&path.child("persistentVolumeReclaimPolicy"), why);
    }
    class_name(spec, "storageClassName", path, causes);
    class_name(spec, "volumeAttributesClassName", path, causes);
    if has(spec, "volumeAttributesClassName") && !has(spec, "csi") {
        let why = "has to be specified when using volumeAttributesClassName";
        causes.required(&path.child("csi"), why);
    }
    if has(spec, "nodeAffinity") {
        let path = path.child("nodeAffinity").child("required");
        match at(spec, "nodeAffinity.required") {
            Value::Null => causes.required(&path, "must specify required node constraints"),
            required => node_selector(required, &path, causes),
        }
    }
    // Its fields, but for those that are asked for above.
    declared::validate_part("api.core.v1.PersistentVolumeSpec", spec, path, causes);
}

fn one_source(spec: &Value, path: &Path, causes: &mut Causes) {
    let mut given = sources().into_iter().filter(|source| has(spec, source));
    if given.next().is_none() {
        causes.required(path, "must specify a volume type");
    }
    for source in given {
        causes.forbidden(&path.child(source), "may not specify more than 1 volume type");
    }
    for (source, absolute) in [("hostPath", false), ("nfs", true), ("local", false)] {
        let (place, path) = (at(spec, source), path.child(source).child("path"));
        let place = text(place, "path");
        if place.split('/').any(|part| part == "..") {
            causes.invalid(&path, place, "must not contain '..'");
        }
        if absolute && !place.is_empty() && !place.starts_with('/') {
            causes.invalid(&path, place, "must be an absolute path");
        }
    }
    if has(spec, "csi") && !text(spec, "csi.driver").is_empty() {
        let path = path.child("csi").child("driver");
        crate::rules::storage::driver_name(text(spec, "csi.driver"), &path, causes);
    }
}

/// Where a volume is does not change.
fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    causes.append(validate(new));
    let path = Path::new("spec");
    let (new, old) = (get(new, "spec"), get(old, "spec"));
    let mut changed =
        sources().into_iter().filter(|source| !same(get(new, source), get(old, source)));
    if changed.next().is_some() {
        causes.forbidden(
            &path.child("persistentvolumesource"),
            "spec.persistentvolumesource is immutable after creation",
        );
    }
    causes.unchanged(&path.child("volumeMode"), get(new, "volumeMode"), get(old, "volumeMode"));
    if has(old, "nodeAffinity") {
        let path = path.child("nodeAffinity");
        causes.unchanged(&path, get(new, "nodeAffinity"), get(old, "nodeAffinity"));
    }
    causes.into_vec()
}

fn cells(volume: &Value, now: Timestamp) -> Vec<Value> {
    let phase = if has(volume, "metadata.deletionTimestamp") {
        "Terminating"
    } else {
        text(volume, "status.phase")
    };
    let claim = if has(volume, "spec.claimRef") {
        let field = |field: &str| text(at(volume, "spec.claimRef"), field);
        format!("{}/{}", field("namespace"), field("name"))
    } else {
        String::new()
    };
    vec![
        name(volume),
        text(volume, "spec.capacity.storage").into(),
        access_modes_cell(volume, "spec.accessModes"),
        text(volume, "spec.persistentVolumeReclaimPolicy").into(),
        phase.into(),
        claim.into(),
        text(volume, "spec.storageClassName").into(),
        attributes_class_cell(volume),
        text(volume, "status.reason").into(),
        age(volume, now),
        text(volume, "spec.volumeMode").into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::{as_map, list};

    fn volume(more: &Value) -> Value {
        let mut volume = json!({"metadata": {"name": "v"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
            "hostPath": {"path": "/t"}}});
        let spec = as_map(object_mut(&mut volume, "spec"));
        for (field, value) in more.as_object().unwrap() {
            spec.insert(field.clone(), value.clone());
        }
        default_volume(&mut volume);
        volume
    }

    fn told(causes: Vec<Cause>) -> String {
        causes.into_iter().map(|cause| cause.field).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_volume_says_what_it_is_where_it_is_and_how_it_may_be_mounted() {
        let rows = [
            (json!({}), ""),
            (json!({"accessModes": []}), "spec.accessModes"),
            (json!({"accessModes": ["ReadWriteOncePod", "ReadOnlyMany"]}), "spec.accessModes"),
            (json!({"accessModes": ["Write"]}), "spec.accessModes"),
            (json!({"capacity": {"storage": "0"}}), "spec.capacity[storage]"),
            (json!({"capacity": {"storage": "1", "cpu": "1"}}), "spec.capacity"),
            (json!({"nfs": {"server": "a", "path": "/b"}}), "spec.nfs"),
            (json!({"hostPath": null, "nfs": {"server": "a", "path": "b"}}), "spec.nfs.path"),
            (json!({"hostPath": null, "nfs": {"server": "a"}}), "spec.nfs.path"),
            (json!({"hostPath": {"path": "/a/../b"}}), "spec.hostPath.path"),
            (
                json!({"persistentVolumeReclaimPolicy": "Keep"}),
                "spec.persistentVolumeReclaimPolicy",
            ),
            (json!({"volumeMode": "Tape"}), "spec.volumeMode"),
            (json!({"storageClassName": "A"}), "spec.storageClassName"),
            (json!({"nodeAffinity": {}}), "spec.nodeAffinity.required"),
            (
                json!({"nodeAffinity": {"required": {"nodeSelectorTerms": []}}}),
                "spec.nodeAffinity.required.nodeSelectorTerms",
            ),
            (json!({"hostPath": null, "local": {"path": "/d"}}), "metadata.annotations"),
            (json!({"hostPath": null, "csi": {"driver": "d"}}), "spec.csi.volumeHandle"),
        ];
        for (spec, expected) in rows {
            assert_eq!(told(validate(&volume(&spec))), expected, "{spec}");
        }
    }

    #[test]
    fn a_volume_stays_where_it_is() {
        let old = volume(&json!({}));
        let policy = volume(&json!({"persistentVolumeReclaimPolicy": "Delete"}));
        assert_eq!(told(validate_update(&policy, &old)), "");
        let moved = volume(&json!({"hostPath": {"path": "/u"}}));
        assert_eq!(told(validate_update(&moved, &old)), "spec.persistentvolumesource");
        let block = volume(&json!({"volumeMode": "Block"}));
        assert_eq!(told(validate_update(&block, &old)), "spec.volumeMode");
    }

    #[test]
    fn a_volume_that_is_deleted_is_held_for_as_long_as_a_claim_has_it() {
        let held = |phase: &str, uid: Value| {
            let mut marked = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z",
                "finalizers": [VOLUME_PROTECTION, "a/b"]}, "status": {"phase": phase},
                "spec": {"claimRef": {"namespace": "ns", "name": "c", "uid": uid}}});
            default_volume(&mut marked);
            list(&marked, "metadata.finalizers").len()
        };
        assert_eq!((held("Bound", Value::Null), held("Available", Value::Null)), (2, 1));
        // Whose phase was not written yet, and whose claim is gone: its controller lets it go.
        assert_eq!((held("Pending", "u".into()), held("Released", "u".into())), (2, 2));
    }
}
