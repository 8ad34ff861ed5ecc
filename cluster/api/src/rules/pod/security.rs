//! Who a pod's processes are, and what they may do.

use crate::field::{Causes, Path, at, flag, get, has, list, number, text};
use serde_json::Value;
use std::collections::HashSet;

const IDS: std::ops::RangeInclusive<i64> = 0..=(i32::MAX as i64);
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

fn profile(profile: &Value, kind: &str, path: &Path, causes: &mut Causes) {
    if profile.is_null() {
        return;
    }
    let given = text(profile, "type");
    let local = path.child("localhostProfile");
    if given == "Localhost" {
        if text(profile, "localhostProfile").is_empty() {
            causes.required(&local, &format!("must be set when {kind} type is Localhost"));
        } else {
            super::containers::inside(&local, text(profile, "localhostProfile"), causes);
        }
    } else if has(profile, "localhostProfile") {
        let why = format!("can only be set when {kind} type is Localhost");
        causes.invalid(&local, text(profile, "localhostProfile"), &why);
    }
    if given.is_empty() {
        causes.required(&path.child("type"), "type is required when seccompProfile is set");
    } else if !PROFILES.contains(&given) {
        causes.not_supported(&path.child("type"), given, PROFILES);
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
        let path = context_path.child("sysctls").index(index).child("name");
        let name = text(sysctl, "name");
        if name.is_empty() {
            causes.required(&path, "");
        } else if !is_sysctl(name) {
            causes.invalid(&path, name, "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$");
        } else if !seen.insert(name) {
            causes.duplicate(&path, name);
        }
    }
    for (field, values) in [
        ("fsGroupChangePolicy", &["Always", "OnRootMismatch"]),
        ("supplementalGroupsPolicy", &["Merge", "Strict"]),
    ] {
        if has(context, field) && !values.contains(&text(context, field)) {
            causes.not_supported(&context_path.child(field), text(context, field), values);
        }
    }
    for (field, kind) in [("seccompProfile", "seccomp"), ("appArmorProfile", "AppArmor")] {
        profile(get(context, field), kind, &context_path.child(field), causes);
    }
}

/// The security of one container; null is none.
pub fn validate_container(context: &Value, path: &Path, causes: &mut Causes) {
    for field in ["runAsUser", "runAsGroup"] {
        id(context, field, path, causes);
    }
    if has(context, "procMount") {
        causes.one_of(
            &path.child("procMount"),
            text(context, "procMount"),
            &["Default", "Unmasked"],
        );
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
    for (field, kind) in [("seccompProfile", "seccomp"), ("appArmorProfile", "AppArmor")] {
        profile(get(context, field), kind, &path.child(field), causes);
    }
}
