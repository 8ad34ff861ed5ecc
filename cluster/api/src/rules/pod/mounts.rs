//! Where a container finds its volumes: mounted at a path, or raw as a device.

use super::paths::{has_backsteps, inside};
use super::volumes::Volumes;
use crate::field::{Causes, Path, flag, has, list, text};
use serde_json::Value;
use std::collections::HashSet;

/// The `volumeMounts` and `volumeDevices` of a container.
pub fn validate(container: &Value, path: &Path, volumes: &Volumes<'_>, causes: &mut Causes) {
    mounts(container, &path.child("volumeMounts"), volumes, causes);
    devices(container, &path.child("volumeDevices"), volumes, causes);
}

/// The texts that entries of a list have at a field.
fn texts<'a>(entries: &'a [Value], field: &str) -> HashSet<&'a str> {
    entries.iter().map(|entry| text(entry, field)).collect()
}

fn mounts(container: &Value, all_path: &Path, volumes: &Volumes<'_>, causes: &mut Causes) {
    let devices = list(container, "volumeDevices");
    let (device_names, device_places) = (texts(devices, "name"), texts(devices, "devicePath"));
    let mut seen = HashSet::new();
    for (index, mount) in list(container, "volumeMounts").iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let path = all_path.index(index);
        let (name, place) = (text(mount, "name"), text(mount, "mountPath"));
        if name.is_empty() {
            causes.required(&path.child("name"), "");
        }
        if !volumes.contains_key(name) {
            causes.not_found(&path.child("name"), name);
        }
        if place.is_empty() {
            causes.required(&path.child("mountPath"), "");
        }
        if !seen.insert(place) {
            causes.invalid(&path.child("mountPath"), place, "must be unique");
        }
        if device_names.contains(name) {
            causes.invalid(&path.child("name"), name, "must not already exist in volumeDevices");
        }
        if device_places.contains(place) {
            causes.invalid(
                &path.child("mountPath"),
                place,
                "must not already exist as a path in volumeDevices",
            );
        }
        let (sub, expression) = (text(mount, "subPath"), text(mount, "subPathExpr"));
        if !sub.is_empty() {
            inside(&all_path.child("subPath"), sub, causes);
        }
        if !expression.is_empty() {
            if !sub.is_empty() {
                causes.invalid(
                    &path.child("subPathExpr"),
                    expression,
                    "subPathExpr and subPath are mutually exclusive",
                );
            }
            inside(&all_path.child("subPathExpr"), expression, causes);
        }
        propagation(mount, container, &all_path.child("mountPropagation"), causes);
        read_only(mount, &all_path.child("recursiveReadOnly"), causes);
    }
}

fn propagation(mount: &Value, container: &Value, path: &Path, causes: &mut Causes) {
    if !has(mount, "mountPropagation") {
        return;
    }
    let propagation = text(mount, "mountPropagation");
    let supported = ["Bidirectional", "HostToContainer", "None"];
    if !supported.contains(&propagation) {
        causes.not_supported(path, propagation, &supported);
    }
    if propagation == "Bidirectional" && !flag(container, "securityContext.privileged") {
        causes.forbidden(
            path,
            "Bidirectional mount propagation is available only to privileged containers",
        );
    }
}

fn read_only(mount: &Value, path: &Path, causes: &mut Causes) {
    if !has(mount, "recursiveReadOnly") {
        return;
    }
    match text(mount, "recursiveReadOnly") {
        "Disabled" => {}
        "Enabled" | "IfPossible" => {
            if !flag(mount, "readOnly") {
                causes.forbidden(path, "may only be specified when readOnly is true");
            }
            if !matches!(text(mount, "mountPropagation"), "" | "None") {
                causes.forbidden(
                    path,
                    "may only be specified when mountPropagation is None or not specified",
                );
            }
        }
        other => causes.not_supported(path, other, &["Disabled", "Enabled", "IfPossible"]),
    }
}

fn devices(container: &Value, all_path: &Path, volumes: &Volumes<'_>, causes: &mut Causes) {
    let mounts = list(container, "volumeMounts");
    let (mount_names, mount_places) = (texts(mounts, "name"), texts(mounts, "mountPath"));
    let (mut names, mut places) = (HashSet::new(), HashSet::new());
    for (index, device) in list(container, "volumeDevices").iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let path = all_path.index(index);
        let (name, place) = (text(device, "name"), text(device, "devicePath"));
        let (name_path, place_path) = (path.child("name"), path.child("devicePath"));
        if name.is_empty() {
            causes.required(&name_path, "");
        } else if !names.insert(name) {
            causes.invalid(&name_path, name, "must be unique");
        }
        match volumes.get(name) {
            None => causes.not_found(&name_path, name),
            Some(volume) if !volume.block_capable() => causes.invalid(
                &name_path,
                name,
                "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
            ),
            Some(_) => {}
        }
        if place.is_empty() {
            causes.required(&place_path, "");
        }
        if places.contains(place) {
            causes.invalid(&place_path, place, "must be unique");
        }
        if has_backsteps(place) {
            causes.invalid(&place_path, place, "can not contain backsteps ('..')");
        } else {
            places.insert(place);
        }
        if mount_names.contains(name) {
            causes.invalid(&name_path, name, "must not already exist in volumeMounts");
        }
        if mount_places.contains(place) {
            causes.invalid(&place_path, place, "must not already exist as a path in volumeMounts");
        }
    }
}
