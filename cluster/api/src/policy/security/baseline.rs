//! The controls of the baseline level, in the order of their names in Kubernetes.

use super::findings::{Control, Finding, Setters, containers, found, named, plural, quoted, these};
use crate::field::{at, entries, flag, get, has, list, number, text};
use serde_json::Value;
use std::collections::BTreeSet;

pub(super) const CONTROLS: [Control; 12] = [
    Control { since: 0, replaced_since: None, check: app_armor },
    Control { since: 0, replaced_since: Some(22), check: capabilities },
    Control { since: 0, replaced_since: None, check: host_namespaces },
    Control { since: 0, replaced_since: Some(0), check: host_paths },
    Control { since: 0, replaced_since: None, check: host_ports },
    Control { since: 34, replaced_since: None, check: host_probes },
    Control { since: 0, replaced_since: None, check: privileged },
    Control { since: 0, replaced_since: None, check: proc_mount },
    Control { since: 0, replaced_since: None, check: se_linux },
    Control { since: 0, replaced_since: Some(19), check: seccomp },
    Control { since: 0, replaced_since: None, check: sysctls },
    Control { since: 0, replaced_since: None, check: host_process },
];

const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

fn app_armor(pod: &Value, _: u32) -> Option<Finding> {
    let mut setters = Setters::of(pod, |context| {
        let kind = text(context, "appArmorProfile.type");
        let is_wrong =
            has(context, "appArmorProfile") && !matches!(kind, "RuntimeDefault" | "Localhost");
        if is_wrong { vec![kind] } else { Vec::new() }
    });
    let is_allowed =
        |value: &str| matches!(value, "" | "runtime/default") || value.starts_with("localhost/");
    let mut annotations: Vec<String> = entries(at(pod, "metadata"), "annotations")
        .filter(|(key, _)| key.starts_with(APP_ARMOR))
        .filter_map(|(key, value)| Some((key, value.as_str()?)))
        .filter(|(_, value)| !is_allowed(value))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    annotations.sort();
    if !annotations.is_empty() {
        setters.who.push(plural("annotation", "annotations", annotations.len()).to_owned());
    }
    if setters.is_empty() {
        return None;
    }
    let values = setters.values.iter().copied().chain(annotations.iter().map(String::as_str));
    let values: Vec<&str> = values.collect();
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len());
    let detail =
        format!("{} must not set AppArmor profile type to {}", setters.told(), quoted(values));
    found(reason, detail)
}

const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// The capabilities that containers add beyond these, and which containers do.
pub(super) fn added<'a>(pod: &'a Value, allowed: &[&str]) -> (Vec<&'a str>, BTreeSet<&'a str>) {
    let beyond = |container: &'a Value| {
        let added = list(container, "securityContext.capabilities.add").iter();
        let added = added.filter_map(Value::as_str);
        added.filter(|capability| !allowed.contains(capability)).collect::<Vec<_>>()
    };
    let names = containers(pod).filter(|one| !beyond(one).is_empty());
    let names = names.map(|one| text(one, "name")).collect();
    (names, containers(pod).flat_map(beyond).collect())
}

fn capabilities(pod: &Value, _: u32) -> Option<Finding> {
    let (names, capabilities) = added(pod, &CAPABILITIES);
    if names.is_empty() {
        return None;
    }
    let detail = format!(
        "{} must not include {} in securityContext.capabilities.add",
        these(&names),
        quoted(capabilities)
    );
    found("non-default capabilities", detail)
}

fn host_namespaces(pod: &Value, _: u32) -> Option<Finding> {
    let shared: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .iter()
        .filter(|field| flag(at(pod, "spec"), field))
        .map(|field| format!("{field}=true"))
        .collect();
    if shared.is_empty() { None } else { found("host namespaces", shared.join(", ")) }
}

fn host_paths(pod: &Value, _: u32) -> Option<Finding> {
    let names: Vec<&str> = list(pod, "spec.volumes")
        .iter()
        .filter(|volume| has(volume, "hostPath"))
        .map(|volume| text(volume, "name"))
        .collect();
    if names.is_empty() {
        return None;
    }
    let what = plural("volume", "volumes", names.len());
    found("hostPath volumes", format!("{what} {}", quoted(names)))
}

fn host_ports(pod: &Value, _: u32) -> Option<Finding> {
    let of = |container: &Value| -> Vec<i64> {
        let ports = list(container, "ports").iter();
        ports.filter_map(|port| number(port, "hostPort")).filter(|port| *port != 0).collect()
    };
    let names = named(pod, |container| !of(container).is_empty());
    if names.is_empty() {
        return None;
    }
    // In the order of texts, as Kubernetes sorts them.
    let ports: BTreeSet<String> =
        containers(pod).flat_map(of).map(|port| port.to_string()).collect();
    let detail = format!(
        "{} {} {} {}",
        these(&names),
        plural("uses", "use", names.len()),
        plural("hostPort", "hostPorts", ports.len()),
        ports.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
    );
    found("hostPort", detail)
}

/// The hosts that a container's probes and hooks name.
fn hosts(container: &Value) -> Vec<&str> {
    let places = [
        "livenessProbe",
        "readinessProbe",
        "startupProbe",
        "lifecycle.postStart",
        "lifecycle.preStop",
    ];
    let handlers = places.iter().map(|place| at(container, place));
    let hosts = handlers
        .flat_map(|handler| [text(handler, "httpGet.host"), text(handler, "tcpSocket.host")]);
    hosts.filter(|host| !host.is_empty()).collect()
}

fn host_probes(pod: &Value, _: u32) -> Option<Finding> {
    let names: BTreeSet<&str> =
        named(pod, |container| !hosts(container).is_empty()).into_iter().collect();
    if names.is_empty() {
        return None;
    }
    let names: Vec<&str> = names.into_iter().collect();
    let all: BTreeSet<&str> = containers(pod).flat_map(hosts).collect();
    let detail = format!(
        "{} {} {} {}",
        these(&names),
        plural("uses", "use", names.len()),
        plural("probe or lifecycle host", "probe or lifecycle hosts", all.len()),
        quoted(all)
    );
    found("probe or lifecycle host", detail)
}

fn privileged(pod: &Value, _: u32) -> Option<Finding> {
    let names = named(pod, |container| flag(container, "securityContext.privileged"));
    if names.is_empty() {
        return None;
    }
    let detail = format!("{} must not set securityContext.privileged=true", these(&names));
    found("privileged", detail)
}

/// User namespaces, with which later versions allow other mounts, are not made by the drivers here.
fn proc_mount(pod: &Value, _: u32) -> Option<Finding> {
    let kind = |container: &Value| -> Option<String> {
        let kind = text(container, "securityContext.procMount");
        (!matches!(kind, "" | "Default")).then(|| kind.to_owned())
    };
    let names = named(pod, |container| kind(container).is_some());
    if names.is_empty() {
        return None;
    }
    let kinds: BTreeSet<String> = containers(pod).filter_map(kind).collect();
    let detail = format!(
        "{} must not set securityContext.procMount to {}",
        these(&names),
        quoted(kinds.iter().map(String::as_str))
    );
    found("procMount", detail)
}

fn se_linux(pod: &Value, minor: u32) -> Option<Finding> {
    let is_allowed = |kind: &str| {
        matches!(kind, "" | "container_t" | "container_init_t" | "container_kvm_t")
            || (kind == "container_engine_t" && minor >= 31)
    };
    let options = |context| get(context, "seLinuxOptions");
    let setters = Setters::of(pod, |context| {
        let options = options(context);
        let kind = Some(text(options, "type")).filter(|kind| !is_allowed(kind));
        // Who sets one of these is told of, whatever the value.
        let others = ["user", "role"].into_iter().filter(|field| !text(options, field).is_empty());
        kind.into_iter().chain(others.map(|_| "")).collect()
    });
    if setters.is_empty() {
        return None;
    }
    let kinds: Vec<&str> = setters.values.iter().copied().filter(|it| !it.is_empty()).collect();
    let contexts = containers(pod).map(|container| at(container, "securityContext"));
    let contexts: Vec<&Value> =
        contexts.chain([at(pod, "spec.securityContext")]).map(options).collect();
    let mut told = Vec::new();
    if !kinds.is_empty() {
        let what = plural("type", "types", kinds.len());
        told.push(format!("{what} {}", quoted(kinds)));
    }
    for field in ["user", "role"] {
        if contexts.iter().any(|options| !text(options, field).is_empty()) {
            told.push(format!("{field} may not be set"));
        }
    }
    let detail = format!(
        "{} set forbidden securityContext.seLinuxOptions: {}",
        setters.told(),
        told.join("; ")
    );
    found("seLinuxOptions", detail)
}

/// Who has set a profile of system calls that is none.
pub(super) fn seccomp_setters(pod: &Value) -> Setters<'_> {
    Setters::of(pod, |context| {
        let kind = text(context, "seccompProfile.type");
        let is_wrong =
            has(context, "seccompProfile") && !matches!(kind, "RuntimeDefault" | "Localhost");
        if is_wrong { vec![kind] } else { Vec::new() }
    })
}

/// What is told of those.
pub(super) fn seccomp_told(setters: &Setters<'_>) -> Option<Finding> {
    let detail = format!(
        "{} must not set securityContext.seccompProfile.type to {}",
        setters.told(),
        setters.values()
    );
    found("seccompProfile", detail)
}

fn seccomp(pod: &Value, _: u32) -> Option<Finding> {
    let setters = seccomp_setters(pod);
    if setters.is_empty() { None } else { seccomp_told(&setters) }
}

/// Parameters of the kernel that a pod has for itself, and since when they are known to be.
const SYSCTLS: [(&str, u32); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

fn sysctls(pod: &Value, minor: u32) -> Option<Finding> {
    let is_allowed =
        |name: &&str| SYSCTLS.iter().any(|(known, since)| known == name && *since <= minor);
    let names: Vec<&str> = list(pod, "spec.securityContext.sysctls")
        .iter()
        .map(|sysctl| text(sysctl, "name"))
        .filter(|name| !is_allowed(name))
        .collect();
    if names.is_empty() { None } else { found("forbidden sysctls", names.join(", ")) }
}

fn host_process(pod: &Value, _: u32) -> Option<Finding> {
    let setters = Setters::of(pod, |context| {
        if flag(context, "windowsOptions.hostProcess") { vec!["true"] } else { Vec::new() }
    });
    if setters.is_empty() {
        return None;
    }
    let detail =
        format!("{} must not set securityContext.windowsOptions.hostProcess=true", setters.told());
    found("hostProcess", detail)
}
