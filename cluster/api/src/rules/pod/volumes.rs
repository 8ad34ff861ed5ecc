//! Volumes: each has a name of its own and exactly one source.

use super::environment::{FILE_FIELDS, field_reference, resource_reference};
use super::paths::{inside, no_backsteps};
use crate::field::{Causes, Path, get, has, list, number, text};
use crate::names;
use crate::quantity;
use serde_json::Value;
use std::collections::{HashMap, HashSet};

/// A volume in which nothing is wrong.
#[derive(Debug, Clone, Copy)]
pub struct Volume<'a>(&'a Value);

impl Volume<'_> {
    /// Whether it can be a raw device in a container.
    pub fn block_capable(self) -> bool {
        has(self.0, "persistentVolumeClaim") || has(self.0, "ephemeral")
    }
}

/// The volumes that mounts may name.
pub type Volumes<'a> = HashMap<&'a str, Volume<'a>>;

const HOST_PATH_TYPES: &[&str] = &[
    "",
    "DirectoryOrCreate",
    "Directory",
    "FileOrCreate",
    "File",
    "Socket",
    "CharDevice",
    "BlockDevice",
];
/// The kinds of sources in the order in which they are looked at: of two, the first is the one that
/// is meant. Two are misspelt where they are refused.
const SOURCES: &[(&str, &str)] = &[
    ("emptyDir", "emptyDir"),
    ("hostPath", "hostPath"),
    ("gitRepo", "gitRepo"),
    ("gcePersistentDisk", "gcePersistentDisk"),
    ("awsElasticBlockStore", "awsElasticBlockStore"),
    ("secret", "secret"),
    ("nfs", "nfs"),
    ("iscsi", "iscsi"),
    ("glusterfs", "glusterfs"),
    ("flocker", "flocker"),
    ("persistentVolumeClaim", "persistentVolumeClaim"),
    ("rbd", "rbd"),
    ("cinder", "cinder"),
    ("cephfs", "cephFS"),
    ("quobyte", "quobyte"),
    ("downwardAPI", "downwarAPI"),
    ("fc", "fc"),
    ("flexVolume", "flexVolume"),
    ("configMap", "configMap"),
    ("azureFile", "azureFile"),
    ("vsphereVolume", "vsphereVolume"),
    ("photonPersistentDisk", "photonPersistentDisk"),
    ("portworxVolume", "portworxVolume"),
    ("azureDisk", "azureDisk"),
    ("storageos", "storageos"),
    ("projected", "projected"),
    ("scaleIO", "scaleIO"),
    ("csi", "csi"),
    ("ephemeral", "ephemeral"),
    ("image", "image"),
];
const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// All volumes of a spec. What is wrong with one makes it unknown to mounts.
pub fn validate<'a>(spec: &'a Value, path: &Path, causes: &mut Causes) -> Volumes<'a> {
    let mut known = Volumes::new();
    for (index, volume) in list(spec, "volumes").iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let path = path.index(index);
        let mut wrong = Causes::default();
        source(volume, &path, &mut wrong);
        let name = text(volume, "name");
        if name.is_empty() {
            wrong.required(&path.child("name"), "");
        } else {
            wrong.invalid_all(&path.child("name"), name, names::dns_label(name));
        }
        if known.contains_key(name) {
            wrong.duplicate(&path.child("name"), name);
        }
        if wrong.is_empty() {
            known.insert(name, Volume(volume));
        } else {
            causes.append(wrong.into_vec());
        }
    }
    known
}

fn source(volume: &Value, path: &Path, causes: &mut Causes) {
    let mut given = SOURCES.iter().filter(|(kind, _)| has(volume, kind));
    let Some((kind, _)) = given.next() else {
        causes.required(path, "must specify a volume type");
        return;
    };
    one_source(kind, get(volume, kind), &path.child(kind), causes);
    for (_, refused_as) in given {
        causes.forbidden(&path.child(refused_as), "may not specify more than 1 volume type");
    }
}

fn required(source: &Value, fields: &[&str], path: &Path, causes: &mut Causes) {
    for field in fields {
        if text(source, field).is_empty() {
            causes.required(&path.child(field), "");
        }
    }
}

fn one_source(kind: &str, source: &Value, path: &Path, causes: &mut Causes) {
    match kind {
        "emptyDir" => {
            let limit = quantity::parse(get(source, "sizeLimit"));
            if limit.is_some_and(|limit| limit.sign() < 0) {
                causes.forbidden(
                    &path.child("sizeLimit"),
                    "SizeLimit field must be a valid resource quantity",
                );
            }
        }
        "hostPath" => {
            let place = text(source, "path");
            if place.is_empty() {
                causes.required(&path.child("path"), "");
                return;
            }
            no_backsteps(&path.child("path"), place, causes);
            let kind = text(source, "type");
            if !HOST_PATH_TYPES.contains(&kind) {
                causes.not_supported(&path.child("type"), kind, HOST_PATH_TYPES);
            }
        }
        "secret" | "configMap" => {
            let name = if kind == "secret" { "secretName" } else { "name" };
            required(source, &[name], path, causes);
            mode(source, "defaultMode", path, causes);
            key_items(source, path, causes);
        }
        "downwardAPI" => {
            mode(source, "defaultMode", path, causes);
            for item in list(source, "items") {
                downward_item(item, path, causes);
            }
        }
        "projected" => projected(source, path, causes),
        "persistentVolumeClaim" => required(source, &["claimName"], path, causes),
        "nfs" => {
            required(source, &["server", "path"], path, causes);
            absolute(source, path, causes);
        }
        "iscsi" => required(source, &["targetPortal", "iqn"], path, causes),
        "csi" => {
            required(source, &["driver"], path, causes);
            let driver = text(source, "driver");
            if !driver.is_empty() {
                causes.invalid_all(
                    &path.child("driver"),
                    driver,
                    names::dns_subdomain(&driver.to_lowercase()),
                );
            }
        }
        "gitRepo" => {
            required(source, &["repository"], path, causes);
            inside(&path.child("directory"), text(source, "directory"), causes);
        }
        "image" => {
            required(source, &["reference"], path, causes);
            causes.one_of(
                &path.child("pullPolicy"),
                text(source, "pullPolicy"),
                &["Always", "IfNotPresent", "Never"],
            );
        }
        "ephemeral" => ephemeral(source, path, causes),
        "cephfs" if list(source, "monitors").is_empty() => {
            causes.required(&path.child("monitors"), "");
        }
        "flexVolume" => required(source, &["driver"], path, causes),
        "glusterfs" => required(source, &["endpoints", "path"], path, causes),
        "awsElasticBlockStore" => required(source, &["volumeID"], path, causes),
        "gcePersistentDisk" => required(source, &["pdName"], path, causes),
        _ => {}
    }
}

fn absolute(source: &Value, path: &Path, causes: &mut Causes) {
    let place = text(source, "path");
    if !place.is_empty() && !place.starts_with('/') {
        causes.invalid(&path.child("path"), place, "must be an absolute path");
    }
}

fn ephemeral(source: &Value, path: &Path, causes: &mut Causes) {
    let path = path.child("volumeClaimTemplate");
    let template = get(source, "volumeClaimTemplate");
    if template.is_null() {
        causes.required(&path, "");
        return;
    }
    let path = path.child("spec");
    let spec = get(template, "spec");
    if list(spec, "accessModes").is_empty() {
        causes.required(&path.child("accessModes"), "at least 1 access mode is required");
    }
    if quantity::parse(crate::field::at(spec, "resources.requests.storage")).is_none() {
        causes.required(&path.child("resources").key("storage"), "");
    }
}

fn mode(source: &Value, field: &str, path: &Path, causes: &mut Causes) {
    if let Some(mode) = number(source, field).filter(|mode| !(0..=0o777).contains(mode)) {
        causes.invalid(&path.child(field), mode, MODE);
    }
}

/// A file's place within its volume; names that begin with `..` are the writer's own.
fn local_path(path: &Path, value: &str, causes: &mut Causes) {
    inside(path, value, causes);
    if value.starts_with("..") && !value.starts_with("../") {
        causes.invalid(path, value, "must not start with '..'");
    }
}

fn key_items(source: &Value, path: &Path, causes: &mut Causes) {
    for (index, item) in list(source, "items").iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let path = path.child("items").index(index);
        required(item, &["key", "path"], &path, causes);
        local_path(&path.child("path"), text(item, "path"), causes);
        mode(item, "mode", &path, causes);
    }
}

fn downward_item(item: &Value, path: &Path, causes: &mut Causes) {
    let place = text(item, "path");
    if place.is_empty() {
        causes.required(&path.child("path"), "");
    }
    local_path(&path.child("path"), place, causes);
    let (field, resource) = (get(item, "fieldRef"), get(item, "resourceFieldRef"));
    if !field.is_null() {
        field_reference(field, &path.child("fieldRef"), FILE_FIELDS, causes);
        if !resource.is_null() {
            causes.invalid(
                path,
                "resource",
                "fieldRef and resourceFieldRef can not be specified simultaneously",
            );
        }
    } else if resource.is_null() {
        causes.required(path, "one of fieldRef and resourceFieldRef is required");
    } else {
        resource_reference(resource, &path.child("resourceFieldRef"), true, causes);
    }
    mode(item, "mode", path, causes);
}

const TOKEN_SECONDS: std::ops::RangeInclusive<i64> = 600..=(1 << 32);

fn projected(source: &Value, path: &Path, causes: &mut Causes) {
    mode(source, "defaultMode", path, causes);
    let mut places = HashSet::new();
    let mut note = |place: &str, shown: &str, causes: &mut Causes| {
        if !place.is_empty() && !places.insert(place.to_owned()) {
            causes.invalid(path, shown, "conflicting duplicate paths");
        }
    };
    for (index, entry) in list(source, "sources").iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let entry_path = path.child("sources").index(index);
        let given: Vec<&String> = entry
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(_, v)| !v.is_null())
            .map(|(k, _)| k)
            .collect();
        if given.is_empty() {
            causes.required(
                &entry_path,
                "must specify one of: secret, downwardAPI, configMap, serviceAccountToken, clusterTrustBundle or podCertificate",
            );
        }
        for kind in ["secret", "configMap"].into_iter().filter(|kind| has(entry, kind)) {
            let (source, path) = (get(entry, kind), entry_path.child(kind));
            required(source, &["name"], &path, causes);
            key_items(source, &path, causes);
            for item in list(source, "items") {
                note(text(item, "path"), text(source, "name"), causes);
            }
        }
        for item in list(entry, "downwardAPI.items") {
            downward_item(item, &entry_path.child("downwardAPI"), causes);
            note(text(item, "path"), text(item, "path"), causes);
        }
        if has(entry, "serviceAccountToken") {
            token(get(entry, "serviceAccountToken"), &entry_path, path, causes);
        }
        if given.len() > 1 {
            causes.forbidden(&entry_path, "may not specify more than 1 volume type per source");
        }
    }
}

/// A token of the pod's account. What is wrong with its path is said of the volume's.
fn token(source: &Value, entry: &Path, volume: &Path, causes: &mut Causes) {
    let path = entry.child("serviceAccountToken").child("expirationSeconds");
    let seconds = number(source, "expirationSeconds").unwrap_or(3600);
    if seconds < *TOKEN_SECONDS.start() {
        causes.invalid(&path, seconds, "may not specify a duration less than 10 minutes");
    } else if seconds > *TOKEN_SECONDS.end() {
        causes.invalid(&path, seconds, "may not specify a duration larger than 2^32 seconds");
    }
    let path = volume.child("path");
    match text(source, "path") {
        "" => causes.required(&path, ""),
        place => local_path(&path, place, causes),
    }
}
