//! Containers, init containers and the ones added to a running pod.

use super::environment;
use super::handlers::{self, Use};
use super::mounts;
use super::security;
use super::volumes::Volumes;
use crate::field::{Causes, Path, flag, get, has, list, number, same, text};
use crate::names;
use crate::rules::addresses::PROTOCOLS;
use crate::rules::resources::validate_requirements;
use serde_json::Value;
use std::collections::HashSet;

const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
const MESSAGE_POLICIES: &[&str] = &["File", "FallbackToLogsOnError"];

/// All containers of a spec.
pub fn validate(spec: &Value, path: &Path, volumes: &Volumes<'_>, causes: &mut Causes) {
    let grace = number(spec, "terminationGracePeriodSeconds").unwrap_or(30);
    let of = Of { pod: spec, volumes };
    let containers = list(spec, "containers");
    let own_path = path.child("containers");
    let mut names_seen = HashSet::new();
    if containers.is_empty() {
        causes.required(&own_path, "");
    }
    for (index, container) in containers.iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let path = own_path.index(index);
        common(container, &path, of, causes);
        if !names_seen.insert(text(container, "name")) {
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
        if causes.is_full() {
            break;
        }
        let path = init_path.index(index);
        common(container, &path, of, causes);
        let name = text(container, "name");
        let is_taken = names_seen.contains(name);
        if is_taken {
            causes.duplicate(&path.child("name"), name);
        } else if !name.is_empty() {
            names_seen.insert(name);
        }
        // They run one after the other; each is looked at as if it were the first.
        host_port_conflicts(std::slice::from_ref(container), &init_path, causes);
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
    ephemeral(of, path, &mut names_seen, causes);
    host_network_ports(spec, &own_path, causes);
}

/// The pod that a container is of.
#[derive(Debug, Clone, Copy)]
struct Of<'a> {
    pod: &'a Value,
    volumes: &'a Volumes<'a>,
}

/// Images as a pod must have them; a template may still have blanks around.
pub fn trimmed_images(spec: &Value, path: &Path, causes: &mut Causes) {
    for containers in ["containers", "initContainers", "ephemeralContainers"] {
        for (index, container) in list(spec, containers).iter().enumerate() {
            if causes.is_full() {
                break;
            }
            let image = text(container, "image");
            if image.trim() != image {
                causes.invalid(
                    &path.child(containers).index(index).child("image"),
                    image,
                    "must not have leading or trailing whitespace",
                );
            }
        }
    }
}

/// In the network of the host a container has no ports but those of the host.
fn host_network_ports(spec: &Value, path: &Path, causes: &mut Causes) {
    if !flag(spec, "hostNetwork") {
        return;
    }
    for (index, container) in list(spec, "containers").iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let path = path.index(index).child("ports");
        for (index, port) in list(container, "ports").iter().enumerate() {
            if causes.is_full() {
                break;
            }
            let host = number(port, "hostPort").unwrap_or(0);
            if host != 0 && host != number(port, "containerPort").unwrap_or(0) {
                causes.invalid(
                    &path.index(index).child("hostPort"),
                    host,
                    "must match `containerPort` when `hostNetwork` is true",
                );
            }
        }
    }
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
fn ephemeral<'a>(of: Of<'a>, path: &Path, names_seen: &mut HashSet<&'a str>, causes: &mut Causes) {
    let spec = of.pod;
    let path = path.child("ephemeralContainers");
    let targets: HashSet<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|of| list(spec, of))
        .map(|container| text(container, "name"))
        .collect();
    for (index, container) in list(spec, "ephemeralContainers").iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let path = path.index(index);
        common(container, &path, of, causes);
        let name = text(container, "name");
        if !names_seen.insert(name) {
            causes.duplicate(&path.child("name"), name);
        }
        let target = text(container, "targetContainerName");
        if !target.is_empty() && !targets.contains(target) {
            causes.not_found(&path.child("targetContainerName"), target);
        }
        for field in [
            "ports",
            "resources",
            "resizePolicy",
            "restartPolicy",
            "livenessProbe",
            "readinessProbe",
            "startupProbe",
            "lifecycle",
        ] {
            if !same(get(container, field), &Value::Null) {
                causes.forbidden(&path.child(field), "cannot be set for an Ephemeral Container");
            }
        }
        for (index, mount) in list(container, "volumeMounts").iter().enumerate() {
            if causes.is_full() {
                break;
            }
            for field in ["subPath", "subPathExpr"] {
                if !text(mount, field).is_empty() {
                    let path = path.child("volumeMounts").index(index).child(field);
                    causes.forbidden(&path, "cannot be set for an Ephemeral Container");
                }
            }
        }
    }
}

/// What holds of every container.
fn common(container: &Value, path: &Path, of: Of<'_>, causes: &mut Causes) {
    match text(container, "name") {
        "" => causes.required(&path.child("name"), ""),
        name => causes.invalid_all(&path.child("name"), name, names::dns_label(name)),
    }
    if text(container, "image").is_empty() {
        causes.required(&path.child("image"), "");
    }
    causes.one_of(
        &path.child("terminationMessagePolicy"),
        text(container, "terminationMessagePolicy"),
        MESSAGE_POLICIES,
    );
    ports(container, path, causes);
    environment::validate(container, path, causes);
    mounts::validate(container, path, of.volumes, causes);
    causes.one_of(
        &path.child("imagePullPolicy"),
        text(container, "imagePullPolicy"),
        PULL_POLICIES,
    );
    validate_requirements(get(container, "resources"), &path.child("resources"), causes);
    resize_policies(container, of.pod, &path.child("resizePolicy"), causes);
    security::validate_container(
        get(container, "securityContext"),
        of.pod,
        &path.child("securityContext"),
        causes,
    );
}

/// What happens to a container whose amounts change. All but a repetition is said of the list.
fn resize_policies(container: &Value, pod: &Value, path: &Path, causes: &mut Causes) {
    let mut resized = HashSet::new();
    for (index, policy) in list(container, "resizePolicy").iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let resource = text(policy, "resourceName");
        if !resized.insert(resource) {
            causes.duplicate(&path.index(index), resource);
        }
        causes.one_of(path, resource, &["cpu", "memory"]);
        let restart = text(policy, "restartPolicy");
        causes.one_of(path, restart, &["NotRequired", "RestartContainer"]);
        if text(pod, "restartPolicy") == "Never" && restart != "NotRequired" {
            causes.invalid(path, restart, "must be 'NotRequired' when `restartPolicy` is 'Never'");
        }
    }
}

fn ports(container: &Value, path: &Path, causes: &mut Causes) {
    let mut seen = HashSet::new();
    for (index, port) in list(container, "ports").iter().enumerate() {
        if causes.is_full() {
            break;
        }
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
        if host != 0
            && let Some(why) = names::port_number(host)
        {
            causes.invalid(&path.child("hostPort"), host, why);
        }
        causes.one_of(&path.child("protocol"), text(port, "protocol"), PROTOCOLS);
    }
}

/// Two containers of a pod cannot have the same port of the host.
fn host_port_conflicts(containers: &[Value], path: &Path, causes: &mut Causes) {
    let mut taken = HashSet::new();
    for (index, container) in containers.iter().enumerate() {
        if causes.is_full() {
            break;
        }
        for (port_index, port) in list(container, "ports").iter().enumerate() {
            let host = number(port, "hostPort").unwrap_or(0);
            let (ip, protocol) = (text(port, "hostIP"), text(port, "protocol"));
            if host != 0 && !taken.insert((protocol, ip, host)) {
                let path = path.index(index).child("ports").index(port_index).child("hostPort");
                causes.duplicate(&path, format!("{protocol}/{ip}/{host}"));
            }
        }
    }
}
