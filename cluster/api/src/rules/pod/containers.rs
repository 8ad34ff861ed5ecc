//! Containers, init containers and the ones added to a running pod.

use super::environment;
use super::handlers::{self, Use};
use super::security;
use super::volumes::Volumes;
use crate::field::{Causes, Path, flag, get, has, list, number, text};
use crate::kinds::endpoints::PROTOCOLS;
use crate::names;
use crate::rules::resources::validate_requirements;
use serde_json::Value;
use std::collections::HashSet;

const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
const MESSAGE_POLICIES: &[&str] = &["File", "FallbackToLogsOnError"];

/// All containers of a spec.
pub fn validate(spec: &Value, path: &Path, volumes: &Volumes<'_>, causes: &mut Causes) {
    let grace = number(spec, "terminationGracePeriodSeconds").unwrap_or(30);
    let host_network = flag(spec, "hostNetwork");
    let containers = list(spec, "containers");
    let own_path = path.child("containers");
    let mut names_seen = HashSet::new();
    if containers.is_empty() {
        causes.required(&own_path, "");
    }
    for (index, container) in containers.iter().enumerate() {
        let path = own_path.index(index);
        common(container, &path, host_network, volumes, causes);
        if !names_seen.insert(text(container, "name")) && !text(container, "name").is_empty() {
            causes.duplicate(&path.child("name"), text(container, "name"));
        }
        if has(container, "restartPolicy") {
            let policy = text(container, "restartPolicy");
            causes.one_of(&path.child("restartPolicy"), policy, &["Always", "Never", "OnFailure"]);
        }
        handled(container, grace, &path, causes);
    }
    host_port_conflicts(containers, &own_path, causes);
    let init_path = path.child("initContainers");
    for (index, container) in list(spec, "initContainers").iter().enumerate() {
        let path = init_path.index(index);
        common(container, &path, host_network, volumes, causes);
        let name = text(container, "name");
        if !name.is_empty() && !names_seen.insert(name) {
            causes.duplicate(&path.child("name"), name);
        }
        let policy = text(container, "restartPolicy");
        if has(container, "restartPolicy") {
            causes.one_of(&path.child("restartPolicy"), policy, &["Always", "Never", "OnFailure"]);
        }
        if policy == "Always" {
            handled(container, grace, &path, causes);
            continue;
        }
        for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if has(container, field) {
                causes.forbidden(
                    &path.child(field),
                    "may not be set for init containers without restartPolicy=Always",
                );
            }
        }
    }
    ephemeral(spec, path, host_network, volumes, &mut names_seen, causes);
}

/// Hooks and probes.
fn handled(container: &Value, grace: i64, path: &Path, causes: &mut Causes) {
    handlers::lifecycle(get(container, "lifecycle"), grace, &path.child("lifecycle"), causes);
    for (field, purpose) in [
        ("livenessProbe", Use::Liveness),
        ("readinessProbe", Use::Readiness),
        ("startupProbe", Use::Startup),
    ] {
        handlers::probe(get(container, field), purpose, &path.child(field), causes);
    }
}

/// Containers added to a running pod for a look inside: no ports, probes, hooks or amounts.
fn ephemeral<'a>(
    spec: &'a Value,
    path: &Path,
    host_network: bool,
    volumes: &Volumes<'_>,
    names_seen: &mut HashSet<&'a str>,
    causes: &mut Causes,
) {
    let path = path.child("ephemeralContainers");
    for (index, container) in list(spec, "ephemeralContainers").iter().enumerate() {
        let path = path.index(index);
        common(container, &path, host_network, volumes, causes);
        let name = text(container, "name");
        if !name.is_empty() && !names_seen.insert(name) {
            causes.duplicate(&path.child("name"), name);
        }
        let target = text(container, "targetContainerName");
        let known = |of: &str| list(spec, of).iter().any(|c| text(c, "name") == target);
        if !target.is_empty() && !known("containers") && !known("initContainers") {
            causes.not_found(&path.child("targetContainerName"), target);
        }
        for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe", "ports"] {
            if has(container, field) {
                causes.forbidden(&path.child(field), "cannot be set for an Ephemeral Container");
            }
        }
    }
}

/// What holds of every container.
fn common(
    container: &Value,
    path: &Path,
    host_network: bool,
    volumes: &Volumes<'_>,
    causes: &mut Causes,
) {
    match text(container, "name") {
        "" => causes.required(&path.child("name"), ""),
        name => causes.invalid_all(&path.child("name"), name, names::dns_label(name)),
    }
    match text(container, "image") {
        "" => causes.required(&path.child("image"), ""),
        image if image.trim() != image => causes.invalid(
            &path.child("image"),
            image,
            "must not have leading or trailing whitespace",
        ),
        _ => {}
    }
    causes.one_of(
        &path.child("terminationMessagePolicy"),
        text(container, "terminationMessagePolicy"),
        MESSAGE_POLICIES,
    );
    ports(container, path, host_network, causes);
    environment::validate(container, path, causes);
    mounts(container, path, volumes, causes);
    causes.one_of(
        &path.child("imagePullPolicy"),
        text(container, "imagePullPolicy"),
        PULL_POLICIES,
    );
    validate_requirements(get(container, "resources"), &path.child("resources"), causes);
    let mut resized = HashSet::new();
    for (index, policy) in list(container, "resizePolicy").iter().enumerate() {
        let path = path.child("resizePolicy").index(index);
        let resource = text(policy, "resourceName");
        if !resized.insert(resource) {
            causes.duplicate(&path, resource);
        }
        causes.one_of(&path, resource, &["cpu", "memory"]);
        causes.one_of(&path, text(policy, "restartPolicy"), &["NotRequired", "RestartContainer"]);
    }
    security::validate_container(
        get(container, "securityContext"),
        &path.child("securityContext"),
        causes,
    );
}

fn ports(container: &Value, path: &Path, host_network: bool, causes: &mut Causes) {
    let mut seen = HashSet::new();
    for (index, port) in list(container, "ports").iter().enumerate() {
        let path = path.child("ports").index(index);
        let name = text(port, "name");
        if !name.is_empty() {
            let wrong = names::port_name(name);
            if !wrong.is_empty() {
                causes.invalid_all(&path.child("name"), name, wrong);
            } else if !seen.insert(name) {
                causes.duplicate(&path.child("name"), name);
            }
        }
        let own = number(port, "containerPort").unwrap_or(0);
        if own == 0 {
            causes.required(&path.child("containerPort"), "");
        } else if let Some(why) = names::port_number(own) {
            causes.invalid(&path.child("containerPort"), own, why);
        }
        let host = number(port, "hostPort").unwrap_or(0);
        if host != 0 {
            if let Some(why) = names::port_number(host) {
                causes.invalid(&path.child("hostPort"), host, why);
            } else if host_network && host != own {
                causes.invalid(
                    &path.child("hostPort"),
                    host,
                    "must match `containerPort` when `hostNetwork` is true",
                );
            }
        }
        let host_ip = text(port, "hostIP");
        if !host_ip.is_empty() {
            causes.invalid_all(&path.child("hostIP"), host_ip, names::ip(host_ip));
        }
        causes.one_of(&path.child("protocol"), text(port, "protocol"), PROTOCOLS);
    }
}

/// Two containers of a pod cannot have the same port of the host.
fn host_port_conflicts(containers: &[Value], path: &Path, causes: &mut Causes) {
    let mut taken = HashSet::new();
    for (index, container) in containers.iter().enumerate() {
        for (port_index, port) in list(container, "ports").iter().enumerate() {
            let host = number(port, "hostPort").unwrap_or(0);
            let (ip, protocol) = (text(port, "hostIP"), text(port, "protocol"));
            if host > 0 && !taken.insert((protocol, ip, host)) {
                let path = path.index(index).child("ports").index(port_index).child("hostPort");
                causes.duplicate(&path, format!("{ip}/{host}/{protocol}"));
            }
        }
    }
}

/// A path within a volume must stay within it.
pub fn inside(path: &Path, value: &str, causes: &mut Causes) {
    if value.starts_with('/') {
        causes.invalid(path, value, "must be a relative path");
    }
    no_backsteps(path, value, causes);
}

/// No part of a path may be `..`.
pub fn no_backsteps(path: &Path, value: &str, causes: &mut Causes) {
    if value.split('/').any(|part| part == "..") {
        causes.invalid(path, value, "must not contain '..'");
    }
}

fn mounts(container: &Value, path: &Path, volumes: &Volumes<'_>, causes: &mut Causes) {
    let all_path = path.child("volumeMounts");
    let mut seen = HashSet::new();
    for (index, mount) in list(container, "volumeMounts").iter().enumerate() {
        let path = all_path.index(index);
        match text(mount, "name") {
            "" => causes.required(&path.child("name"), ""),
            name if !volumes.contains_key(name) => causes.not_found(&path.child("name"), name),
            _ => {}
        }
        let place = text(mount, "mountPath");
        if place.is_empty() {
            causes.required(&path.child("mountPath"), "");
        }
        if !seen.insert(place) {
            causes.invalid(&path.child("mountPath"), place, "must be unique");
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
        if has(mount, "mountPropagation") {
            let propagation = text(mount, "mountPropagation");
            let path = path.child("mountPropagation");
            causes.one_of(&path, propagation, &["Bidirectional", "HostToContainer", "None"]);
            if propagation == "Bidirectional" && !flag(container, "securityContext.privileged") {
                causes.forbidden(
                    &path,
                    "Bidirectional mount propagation is available only to privileged containers",
                );
            }
        }
        if has(mount, "recursiveReadOnly") {
            let recursive = text(mount, "recursiveReadOnly");
            let path = path.child("recursiveReadOnly");
            causes.one_of(&path, recursive, &["Disabled", "Enabled", "IfPossible"]);
            if recursive != "Disabled" && !flag(mount, "readOnly") {
                causes.forbidden(&path, "may only be specified when readOnly is true");
            }
        }
    }
    let mut device_names = HashSet::new();
    for (index, device) in list(container, "volumeDevices").iter().enumerate() {
        let path = path.child("volumeDevices").index(index);
        let (name, place) = (text(device, "name"), text(device, "devicePath"));
        match name {
            "" => causes.required(&path.child("name"), ""),
            name if !volumes.contains_key(name) => causes.not_found(&path.child("name"), name),
            name if !volumes[name].block_capable() => {
                causes.not_found(&path.child("name"), "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode");
            }
            _ => {}
        }
        if !name.is_empty() && !device_names.insert(name) {
            causes.invalid(&path.child("name"), name, "must be unique");
        }
        if place.is_empty() {
            causes.required(&path.child("devicePath"), "");
        } else if seen.contains(place) {
            causes.invalid(
                &path.child("devicePath"),
                place,
                "must not already exist in volumeMounts",
            );
        } else {
            no_backsteps(&path.child("devicePath"), place, causes);
        }
    }
}
