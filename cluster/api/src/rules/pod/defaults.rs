//! What a pod's spec says when it says nothing.

use crate::field::{
    as_map, default, default_text, existing_mut, flag, get, has, list_mut, number, object_mut, set,
    text,
};
use crate::quantity;
use crate::rules::resources::{canonical_amounts, canonical_requirements, requests_from_limits};
use serde_json::{Value, json};

const CONTAINER_LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];
/// Where a pod finds its service account's token.
pub const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Defaults of a pod's spec, in a pod and in a template alike.
pub fn default_spec(spec: &mut Value) {
    default_text(spec, "dnsPolicy", "ClusterFirst");
    default_text(spec, "restartPolicy", "Always");
    default_text(spec, "schedulerName", "default-scheduler");
    default(spec, "terminationGracePeriodSeconds", 30);
    object_mut(spec, "securityContext");
    // One is the old name of the other.
    let account = match (text(spec, "serviceAccountName"), text(spec, "serviceAccount")) {
        ("", old) => old.to_owned(),
        (name, _) => name.to_owned(),
    };
    if !account.is_empty() {
        set(spec, "serviceAccountName", account.as_str());
        set(spec, "serviceAccount", account);
    }
    for containers in CONTAINER_LISTS {
        for container in list_mut(spec, containers) {
            default_container(container);
        }
    }
    for volume in list_mut(spec, "volumes") {
        default_volume(volume);
    }
    if let Some(overhead) = existing_mut(spec, "overhead") {
        canonical_amounts(overhead);
    }
    if let Some(resources) = existing_mut(spec, "resources") {
        canonical_requirements(resources);
    }
}

/// Defaults that only a pod has: amounts asked for, service links, ports of the host's network.
pub fn default_pod_spec(spec: &mut Value) {
    default(spec, "enableServiceLinks", true);
    let host_network = flag(spec, "hostNetwork");
    for containers in ["containers", "initContainers"] {
        for container in list_mut(spec, containers) {
            if let Some(resources) = existing_mut(container, "resources") {
                requests_from_limits(resources);
            }
            if !host_network {
                continue;
            }
            for port in list_mut(container, "ports") {
                if number(port, "hostPort").unwrap_or(0) == 0 {
                    let own = get(port, "containerPort").clone();
                    set(port, "hostPort", own);
                }
            }
        }
    }
}

/// Without a tag, or with `latest`, an image is looked for every time. A digest stands for a tag,
/// and of a reference that no registry knows, as one in capitals, nothing is concluded.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = match image.split_once('@') {
        Some((name, _)) => (name, true),
        None => (image, false),
    };
    // What is before the first slash is a registry if it cannot be a folder of one.
    let path = match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.contains(char::is_uppercase) =>
        {
            rest
        }
        _ => name,
    };
    let (path, tag) = match path.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (path, None),
    };
    match tag {
        _ if path.contains(char::is_uppercase) => "IfNotPresent",
        Some("latest") => "Always",
        None if !digest => "Always",
        _ => "IfNotPresent",
    }
}

fn default_container(container: &mut Value) {
    let policy = pull_policy(text(container, "image"));
    default_text(container, "imagePullPolicy", policy);
    default_text(container, "terminationMessagePath", "/dev/termination-log");
    default_text(container, "terminationMessagePolicy", "File");
    canonical_requirements(object_mut(container, "resources"));
    for port in list_mut(container, "ports") {
        default_text(port, "protocol", "TCP");
    }
    for variable in list_mut(container, "env") {
        let Some(source) = existing_mut(variable, "valueFrom") else { continue };
        if let Some(field) = existing_mut(source, "fieldRef") {
            default_text(field, "apiVersion", "v1");
        }
        if let Some(resource) = existing_mut(source, "resourceFieldRef") {
            default_divisor(resource);
        }
        if let Some(file) = existing_mut(source, "fileKeyRef") {
            default(file, "optional", false);
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = existing_mut(container, probe) {
            default_probe(probe);
        }
    }
    if let Some(lifecycle) = existing_mut(container, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(hook) = existing_mut(lifecycle, hook) {
                default_http_get(hook);
            }
        }
    }
}

fn default_divisor(resource: &mut Value) {
    let divisor = quantity::canonical(get(resource, "divisor")).unwrap_or_else(|| "0".to_owned());
    set(resource, "divisor", divisor);
}

fn default_http_get(handler: &mut Value) {
    if let Some(request) = existing_mut(handler, "httpGet") {
        default_text(request, "path", "/");
        default_text(request, "scheme", "HTTP");
    }
}

fn default_probe(probe: &mut Value) {
    for (field, value) in [
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ] {
        if number(probe, field).unwrap_or(0) == 0 {
            set(probe, field, value);
        }
    }
    default_http_get(probe);
    if let Some(grpc) = existing_mut(probe, "grpc") {
        default(grpc, "service", "");
    }
}

fn default_downward_items(source: &mut Value) {
    for item in list_mut(source, "items") {
        if let Some(field) = existing_mut(item, "fieldRef") {
            default_text(field, "apiVersion", "v1");
        }
        if let Some(resource) = existing_mut(item, "resourceFieldRef") {
            default_divisor(resource);
        }
    }
}

fn default_volume(volume: &mut Value) {
    let sourced = volume
        .as_object()
        .is_some_and(|map| map.iter().any(|(key, value)| key != "name" && !value.is_null()));
    if !sourced {
        set(volume, "emptyDir", json!({}));
    }
    if let Some(dir) = existing_mut(volume, "emptyDir")
        && let Some(limit) = quantity::canonical(get(dir, "sizeLimit"))
    {
        set(dir, "sizeLimit", limit);
    }
    if let Some(path) = existing_mut(volume, "hostPath") {
        default(path, "type", "");
    }
    for source in ["configMap", "secret", "downwardAPI", "projected"] {
        if let Some(source) = existing_mut(volume, source) {
            default(source, "defaultMode", 420);
        }
    }
    if let Some(downward) = existing_mut(volume, "downwardAPI") {
        default_downward_items(downward);
    }
    if let Some(projected) = existing_mut(volume, "projected") {
        for source in list_mut(projected, "sources") {
            if let Some(token) = existing_mut(source, "serviceAccountToken") {
                default(token, "expirationSeconds", 3600);
            }
            if let Some(downward) = existing_mut(source, "downwardAPI") {
                default_downward_items(downward);
            }
        }
    }
    if let Some(iscsi) = existing_mut(volume, "iscsi") {
        default_text(iscsi, "iscsiInterface", "default");
    }
    if let Some(rbd) = existing_mut(volume, "rbd") {
        default_text(rbd, "pool", "rbd");
        default_text(rbd, "user", "admin");
        default_text(rbd, "keyring", "/etc/ceph/keyring");
    }
    if let Some(disk) = existing_mut(volume, "azureDisk") {
        default(disk, "cachingMode", "ReadWrite");
        default(disk, "kind", "Shared");
        default(disk, "fsType", "ext4");
        default(disk, "readOnly", false);
    }
    if let Some(scale_io) = existing_mut(volume, "scaleIO") {
        default_text(scale_io, "storageMode", "ThinProvisioned");
        default_text(scale_io, "fsType", "xfs");
    }
    if let Some(image) = existing_mut(volume, "image") {
        let policy = pull_policy(text(image, "reference"));
        default_text(image, "pullPolicy", policy);
    }
    if let Some(ephemeral) = existing_mut(volume, "ephemeral")
        && has(ephemeral, "volumeClaimTemplate")
    {
        let claim = object_mut(ephemeral, "volumeClaimTemplate");
        object_mut(claim, "metadata");
        let spec = object_mut(claim, "spec");
        default_text(spec, "volumeMode", "Filesystem");
        canonical_requirements(object_mut(spec, "resources"));
    }
}

/// A pod acts as a service account, and finds its token in a volume.
pub fn mount_service_account(pod: &mut Value, suffix: &str) {
    let spec = object_mut(pod, "spec");
    let volume = format!("kube-api-access-{suffix}");
    let mut mounted = false;
    for containers in ["initContainers", "containers"] {
        for container in list_mut(spec, containers) {
            let already = crate::field::list(container, "volumeMounts")
                .iter()
                .any(|mount| text(mount, "mountPath").trim_end_matches('/') == TOKEN_PATH);
            if already {
                continue;
            }
            mounted = true;
            let mount = json!({ "mountPath": TOKEN_PATH, "name": volume, "readOnly": true });
            push(container, "volumeMounts", mount);
        }
    }
    if !mounted {
        return;
    }
    let config_file = |name: &str, key: &str| json!({ "configMap": { "name": name, "items": [{ "key": key, "path": key }] } });
    let field = json!({ "apiVersion": "v1", "fieldPath": "metadata.namespace" });
    let volume = json!({
        "name": volume,
        "projected": {
            "defaultMode": 420,
            "sources": [
                { "serviceAccountToken": { "expirationSeconds": 3607, "path": "token" } },
                config_file("kube-root-ca.crt", "ca.crt"),
                { "downwardAPI": { "items": [{ "fieldRef": field, "path": "namespace" }] } },
            ],
        },
    });
    push(spec, "volumes", volume);
}

/// Appends to the list at a field, made when it is not there.
pub fn push(object: &mut Value, field: &str, entry: Value) {
    match as_map(object).entry(field).or_insert(Value::Null) {
        Value::Array(all) => all.push(entry),
        other => *other = Value::Array(vec![entry]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_whose_tag_may_move_is_looked_for_every_time() {
        let rows = [
            ("busybox", "Always"),
            ("busybox:latest", "Always"),
            ("busybox:1.36", "IfNotPresent"),
            ("registry:5000/team/app", "Always"),
            ("registry:5000/team/app:2", "IfNotPresent"),
            ("localhost/app:latest", "Always"),
            ("app@sha256:00", "IfNotPresent"),
            ("app:latest@sha256:00", "Always"),
            ("app:2@sha256:00", "IfNotPresent"),
            ("App", "IfNotPresent"),
            ("REG/app", "Always"),
        ];
        for (image, policy) in rows {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }

    #[test]
    fn a_volume_says_what_its_source_leaves_out() {
        let rows = [
            (json!({}), json!({"emptyDir": {}})),
            (
                json!({"rbd": {"user": "me"}}),
                json!({"rbd": {"pool": "rbd", "user": "me", "keyring": "/etc/ceph/keyring"}}),
            ),
            (
                json!({"azureDisk": {"kind": "Managed"}}),
                json!({"azureDisk": {"cachingMode": "ReadWrite", "kind": "Managed", "fsType": "ext4", "readOnly": false}}),
            ),
            (
                json!({"scaleIO": {}}),
                json!({"scaleIO": {"storageMode": "ThinProvisioned", "fsType": "xfs"}}),
            ),
            (
                json!({"ephemeral": {"volumeClaimTemplate": {"spec": {"resources": {"requests": {"storage": "1024Mi"}}}}}}),
                json!({"ephemeral": {"volumeClaimTemplate": {"metadata": {}, "spec": {
                    "volumeMode": "Filesystem", "resources": {"requests": {"storage": "1Gi"}},
                }}}}),
            ),
        ];
        for (mut volume, expected) in rows {
            default_volume(&mut volume);
            assert_eq!(volume, expected);
        }
    }
}
