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
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
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
        if causes.is_full() {
            break;
        }
        let path = path.child("env").index(index);
        let name = text(variable, "name");
        if name.is_empty() {
            causes.required(&path.child("name"), "");
        } else {
            causes.invalid_all(&path.child("name"), name, names::env_name(name));
        }
        validate_source(variable, &path.child("valueFrom"), causes);
    }
    let all_path = path.child("envFrom");
    for (index, from) in list(container, "envFrom").iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let path = all_path.index(index);
        let prefix = text(from, "prefix");
        if !prefix.is_empty() {
            causes.invalid_all(&path.child("prefix"), prefix, names::env_name(prefix));
        }
        let given = ["configMapRef", "secretRef"].into_iter().filter(|source| has(from, source));
        let given: Vec<&str> = given.collect();
        for source in &given {
            let path = path.child(source).child("name");
            match text(get(from, source), "name") {
                "" => causes.required(&path, ""),
                name => causes.invalid_all(&path, name, names::dns_subdomain(name)),
            }
        }
        // How many there are is said of the list.
        match given.len() {
            0 => {
                causes.invalid(&all_path, "", "must specify one of: `configMapRef` or `secretRef`");
            }
            1 => {}
            _ => causes.invalid(
                &all_path,
                "",
                "may not have more than one field specified at a time",
            ),
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
    if count == 0 {
        causes.invalid(
            path,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        );
    } else if !text(variable, "value").is_empty() {
        causes.invalid(path, "", "may not be specified when `value` is not empty");
    } else if count > 1 {
        causes.invalid(path, "", "may not have more than one field specified at a time");
    }
}

/// A key of a config map or secret.
fn key_reference(source: &Value, path: &Path, causes: &mut Causes) {
    let name = text(source, "name");
    causes.invalid_all(&path.child("name"), name, names::dns_subdomain(name));
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
                let key = key.to_lowercase();
                causes.invalid_all(path, &key, names::qualified(&key));
            }
            "metadata.labels" => causes.invalid_all(path, key, names::qualified(key)),
            _ => {
                let why = format!(
                    "error converting fieldPath: field label does not support subscript: {field}"
                );
                causes.invalid(&field_path, field, &why);
            }
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
    divisor(resource, get(source, "divisor"), path, causes);
}

/// An amount may be told in pieces of a size that goes with it; nothing, or zero, is one piece.
fn divisor(resource: &str, divisor: &Value, path: &Path, causes: &mut Causes) {
    let Some(divisor) = quantity::parse(divisor).filter(|divisor| divisor.sign() != 0) else {
        return;
    };
    let (allowed, why): (&[&str], _) = match resource.split_once('.').map(|(_, name)| name) {
        Some("cpu") => (
            &["1m", "1"],
            "only divisor's values 1m and 1 are supported with the cpu resource".to_owned(),
        ),
        Some("memory") => (BYTES, byte_divisors("memory")),
        Some("ephemeral-storage") => (BYTES, byte_divisors("local ephemeral storage")),
        Some(name) if name.starts_with("hugepages-") => (BYTES, byte_divisors("hugepages")),
        _ => return,
    };
    if !allowed.contains(&divisor.to_string().as_str()) {
        causes.invalid(&path.child("divisor"), resource, &why);
    }
}

const BYTES: &[&str] =
    &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

fn byte_divisors(of: &str) -> String {
    format!("only divisor's values {} are supported with the {of} resource", BYTES.join(", "))
}
