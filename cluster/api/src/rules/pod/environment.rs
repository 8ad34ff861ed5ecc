//! Environment variables and where they come from; fields of a pod that it can read about itself.

use crate::field::{Causes, Path, get, has, list, text};
use crate::names;
use crate::quantity;
use serde_json::Value;

/// Fields that an environment variable can hold.
const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Fields that a file can hold.
pub const FILE_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.labels",
    "metadata.annotations",
    "metadata.uid",
];
/// Fields of a pod that have a name at all.
const KNOWN_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
    "status.nominatedNodeName",
];
const RESOURCE_FIELDS: &[&str] = &[
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
];
const SOURCES: &[&str] =
    &["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];

/// The `env` and `envFrom` of a container.
pub fn validate(container: &Value, path: &Path, causes: &mut Causes) {
    for (index, variable) in list(container, "env").iter().enumerate() {
        let path = path.child("env").index(index);
        let name = text(variable, "name");
        if name.is_empty() {
            causes.required(&path.child("name"), "");
        } else {
            causes.invalid_all(&path.child("name"), name, names::env_name(name));
        }
        validate_source(variable, &path.child("valueFrom"), causes);
    }
    for (index, from) in list(container, "envFrom").iter().enumerate() {
        let path = path.child("envFrom").index(index);
        let prefix = text(from, "prefix");
        if !prefix.is_empty() {
            causes.invalid_all(&path.child("prefix"), prefix, names::env_name(prefix));
        }
        let given = ["configMapRef", "secretRef"].into_iter().filter(|source| has(from, source));
        let given: Vec<&str> = given.collect();
        for source in &given {
            if text(get(from, source), "name").is_empty() {
                causes.required(&path.child(source).child("name"), "");
            }
        }
        match given.len() {
            0 => causes.invalid(&path, "", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => causes.invalid(&path, "", "may not have more than one field specified at a time"),
        }
    }
}

fn validate_source(variable: &Value, path: &Path, causes: &mut Causes) {
    let source = get(variable, "valueFrom");
    if source.is_null() {
        return;
    }
    let mut count = 0;
    for kind in SOURCES.iter().filter(|kind| has(source, kind)) {
        count += 1;
        let (source, path) = (get(source, kind), path.child(kind));
        match *kind {
            "fieldRef" => field_reference(source, &path, ENV_FIELDS, causes),
            "resourceFieldRef" => resource_reference(source, &path, false, causes),
            "fileKeyRef" => {
                for field in ["volumeName", "path", "key"] {
                    if text(source, field).is_empty() {
                        causes.required(&path.child(field), "");
                    }
                }
            }
            _ => key_reference(source, &path, causes),
        }
    }
    if !text(variable, "value").is_empty() {
        if count > 0 {
            causes.invalid(path, "", "may not be specified when `value` is not empty");
        }
    } else if count == 0 {
        causes.invalid(
            path,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        );
    } else if count > 1 {
        causes.invalid(path, "", "may not have more than one field specified at a time");
    }
}

/// A key of a config map or secret.
fn key_reference(source: &Value, path: &Path, causes: &mut Causes) {
    if text(source, "name").is_empty() {
        causes.required(&path.child("name"), "");
    }
    match text(source, "key") {
        "" => causes.required(&path.child("key"), ""),
        key => causes.invalid_all(&path.child("key"), key, names::config_key(key)),
    }
}

/// `metadata.labels['a']` as its field and its key.
fn subscript(field: &str) -> Option<(&str, &str)> {
    let inner = field.strip_suffix("']")?;
    inner.split_once("['")
}

/// A reference to a field of the pod itself.
pub fn field_reference(source: &Value, path: &Path, allowed: &[&str], causes: &mut Causes) {
    let version = text(source, "apiVersion");
    let field = text(source, "fieldPath");
    let field_path = path.child("fieldPath");
    if version.is_empty() {
        causes.required(&path.child("apiVersion"), "");
        return;
    }
    if field.is_empty() {
        causes.required(&field_path, "");
        return;
    }
    if version != "v1" {
        let why = format!("error converting fieldPath: unsupported pod version: {version}");
        causes.invalid(&field_path, field, &why);
        return;
    }
    if let Some((base, key)) = subscript(field) {
        match base {
            "metadata.annotations" => {
                causes.invalid_all(&field_path, key, names::qualified(&key.to_lowercase()));
            }
            "metadata.labels" => causes.invalid_all(&field_path, key, names::qualified(key)),
            _ => causes.invalid(&field_path, field, "does not support subscript"),
        }
    } else if !KNOWN_FIELDS.contains(&field) {
        let why = format!("error converting fieldPath: field label not supported: {field}");
        causes.invalid(&field_path, field, &why);
    } else if !allowed.contains(&field) {
        causes.not_supported(&field_path, field, allowed);
    }
}

/// A reference to an amount that a container asks for; a file must say which container.
pub fn resource_reference(source: &Value, path: &Path, in_file: bool, causes: &mut Causes) {
    let resource = text(source, "resource");
    if in_file && text(source, "containerName").is_empty() {
        causes.required(&path.child("containerName"), "");
    } else if resource.is_empty() {
        causes.required(&path.child("resource"), "");
    } else if !RESOURCE_FIELDS.contains(&resource)
        && !resource.starts_with("requests.hugepages-")
        && !resource.starts_with("limits.hugepages-")
    {
        causes.not_supported(&path.child("resource"), resource, RESOURCE_FIELDS);
    }
    let Some(divisor) = quantity::parse(get(source, "divisor")) else { return };
    let (allowed, of): (&[&str], &str) = if matches!(resource, "limits.cpu" | "requests.cpu") {
        (&["0", "1m", "1"], "cpu")
    } else {
        let bytes: &[&str] = &[
            "0", "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei",
        ];
        (bytes, resource.split_once('.').map_or("memory", |(_, name)| name))
    };
    if !allowed.contains(&divisor.to_string().as_str()) {
        let why = format!(
            "only divisor's values {} are supported with the {of} resource",
            allowed.join(", ")
        );
        causes.invalid(&path.child("divisor"), divisor.to_string(), &why);
    }
}
