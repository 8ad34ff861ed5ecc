//! Who a pod's processes are, and what they may do.

use crate::field::{Causes, Path, at, flag, get, has, list, number, text};
use serde_json::Value;
use std::collections::HashSet;

const IDS: std::ops::RangeInclusive<i64> = 0..=(i32::MAX as i64);
/// As long as a path may be.
const LOCAL_PROFILE_MAX: usize = 4095;
const PROFILES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];

fn id(object: &Value, field: &str, path: &Path, causes: &mut Causes) {
    check_id(&path.child(field), number(object, field), causes);
}

fn check_id(path: &Path, value: Option<i64>, causes: &mut Causes) {
    if let Some(value) = value.filter(|value| !IDS.contains(value)) {
        let why = format!("must be between {} and {}, inclusive", IDS.start(), IDS.end());
        causes.invalid(path, value, &why);
    }
}

/// The profiles of a pod or a container; null is none.
fn profiles(context: &Value, path: &Path, causes: &mut Causes) {
    seccomp(get(context, "seccompProfile"), &path.child("seccompProfile"), causes);
    app_armor(get(context, "appArmorProfile"), &path.child("appArmorProfile"), causes);
}

fn profile_type(profile: &Value, field: &str, path: &Path, causes: &mut Causes) {
    match text(profile, "type") {
        "" => causes.required(path, &format!("type is required when {field} is set")),
        known if PROFILES.contains(&known) => {}
        other => causes.not_supported(path, other, PROFILES),
    }
}

fn seccomp(profile: &Value, path: &Path, causes: &mut Causes) {
    if profile.is_null() {
        return;
    }
    profile_type(profile, "seccompProfile", &path.child("type"), causes);
    let local = path.child("localhostProfile");
    match (text(profile, "type"), has(profile, "localhostProfile")) {
        ("Localhost", false) => {
            causes.required(&local, "must be set when seccomp type is Localhost");
        }
        ("Localhost", true) => {
            super::paths::inside(&local, text(profile, "localhostProfile"), causes);
        }
        (_, true) => causes.invalid(
            &local,
            profile.clone(),
            "can only be set when seccomp type is Localhost",
        ),
        (_, false) => {}
    }
}

fn app_armor(profile: &Value, path: &Path, causes: &mut Causes) {
    if profile.is_null() {
        return;
    }
    profile_type(profile, "appArmorProfile", &path.child("type"), causes);
    let local = path.child("localhostProfile");
    let name = text(profile, "localhostProfile");
    match text(profile, "type") {
        "Localhost" => {
            if name.trim() != name {
                causes.invalid(&local, name, "must not be padded with whitespace");
            } else if name.is_empty() {
                causes.required(&local, "must be set when AppArmor type is Localhost");
            }
            if name.len() > LOCAL_PROFILE_MAX {
                causes.too_long(&local, LOCAL_PROFILE_MAX);
            }
        }
        "RuntimeDefault" | "Unconfined" if has(profile, "localhostProfile") => {
            causes.invalid(&local, name, "can only be set when AppArmor type is Localhost");
        }
        _ => {}
    }
}

/// `net.ipv4.ip_forward`, or with slashes.
fn is_sysctl(name: &str) -> bool {
    let part = |part: &str| {
        let letter = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        part.as_bytes().first().copied().is_some_and(letter)
            && part.as_bytes().last().copied().is_some_and(letter)
            && part.bytes().all(|c| letter(c) || matches!(c, b'-' | b'_'))
    };
    name.len() <= 253 && name.split(['.', '/']).all(part)
}

/// The security of a pod as a whole.
pub fn validate_pod(spec: &Value, path: &Path, causes: &mut Causes) {
    let context = get(spec, "securityContext");
    let context_path = path.child("securityContext");
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        id(context, field, &context_path, causes);
    }
    for (index, group) in list(context, "supplementalGroups").iter().enumerate() {
        if causes.is_full() {
            break;
        }
        check_id(&context_path.child("supplementalGroups").index(index), group.as_i64(), causes);
    }
    if flag(spec, "shareProcessNamespace") && flag(spec, "hostPID") {
        causes.invalid(
            &context_path.child("shareProcessNamespace"),
            true,
            "ShareProcessNamespace and HostPID cannot both be enabled",
        );
    }
    let mut seen = HashSet::new();
    for (index, sysctl) in list(context, "sysctls").iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let path = context_path.child("sysctls").index(index).child("name");
        let name = text(sysctl, "name");
        if name.is_empty() {
            causes.required(&path, "");
        } else if !is_sysctl(name) {
            causes.invalid(&path, name, "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$");
        } else if seen.contains(name) {
            causes.duplicate(&path, name);
        }
        seen.insert(name);
        // Where the host's own namespace is shared, the pod may not set what holds for all of it.
        let plain = name.replace('/', ".");
        if flag(spec, "hostNetwork") && plain.starts_with("net.") {
            causes.invalid(&path, name, "may not be specified when 'hostNetwork' is true");
        } else if flag(spec, "hostIPC") && is_of_ipc(&plain) {
            causes.invalid(&path, name, "may not be specified when 'hostIPC' is true");
        }
    }
    for (field, values) in [
        ("fsGroupChangePolicy", &["Always", "OnRootMismatch"]),
        ("supplementalGroupsPolicy", &["Merge", "Strict"]),
        ("seLinuxChangePolicy", &["MountOption", "Recursive"]),
    ] {
        if has(context, field) && !values.contains(&text(context, field)) {
            causes.not_supported(&context_path.child(field), text(context, field), values);
        }
    }
    profiles(context, &context_path, causes);
    host_users(spec, path, causes);
}

/// Whether a kernel parameter is one of the namespace of shared memory and message queues.
fn is_of_ipc(name: &str) -> bool {
    name == "kernel.sem"
        || ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|start| name.starts_with(start))
}

/// A pod with users of its own shares no other namespace with the host.
fn host_users(spec: &Value, path: &Path, causes: &mut Causes) {
    if at(spec, "hostUsers") != &Value::Bool(false) {
        return;
    }
    for (field, named) in
        [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")]
    {
        if flag(spec, field) {
            causes.forbidden(&path.child(named), "when `pod.Spec.HostUsers` is false");
        }
    }
}

/// The security of one container of a pod; null is none.
pub fn validate_container(context: &Value, pod: &Value, path: &Path, causes: &mut Causes) {
    for field in ["runAsUser", "runAsGroup"] {
        id(context, field, path, causes);
    }
    if has(context, "procMount") {
        causes.one_of(
            &path.child("procMount"),
            text(context, "procMount"),
            &["Default", "Unmasked"],
        );
        let own_users = at(pod, "hostUsers") == &Value::Bool(false);
        if text(context, "procMount") == "Unmasked" && !own_users {
            causes.invalid(
                &path.child("procMount"),
                "Unmasked",
                "`hostUsers` must be false to use `Unmasked`",
            );
        }
    }
    if at(context, "allowPrivilegeEscalation") == &Value::Bool(false) {
        if flag(context, "privileged") {
            causes.invalid(
                path,
                context.clone(),
                "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
            );
        }
        if list(context, "capabilities.add").iter().any(|c| c == "CAP_SYS_ADMIN") {
            causes.invalid(
                path,
                context.clone(),
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
            );
        }
    }
    profiles(context, path, causes);
}
