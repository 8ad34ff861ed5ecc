//! What the restricted level asks for beyond the baseline, in the order of the names in Kubernetes.

use super::baseline::{added, seccomp_setters, seccomp_told};
use super::findings::{Control, Finding, Setters, containers, found, named, plural, quoted, these};
use crate::field::{at, has, list, number, text};
use serde_json::Value;
use std::collections::BTreeSet;

pub(super) const CONTROLS: [Control; 6] = [
    Control { since: 8, replaced_since: None, check: escalation },
    Control { since: 22, replaced_since: None, check: capabilities },
    Control { since: 0, replaced_since: None, check: volumes },
    Control { since: 0, replaced_since: None, check: non_root },
    Control { since: 23, replaced_since: None, check: user },
    Control { since: 19, replaced_since: None, check: seccomp },
];

// Kubernetes asks less of pods for Windows, which only nodes with Windows run. Nodes here have Linux: what a pod says of
// its system takes nothing from what is asked of it.

fn escalation(pod: &Value, _: u32) -> Option<Finding> {
    let names =
        named(pod, |container| at(container, "securityContext.allowPrivilegeEscalation") != false);
    if names.is_empty() {
        return None;
    }
    let detail =
        format!("{} must set securityContext.allowPrivilegeEscalation=false", these(&names));
    found("allowPrivilegeEscalation != false", detail)
}

fn capabilities(pod: &Value, _: u32) -> Option<Finding> {
    let drops_all = |container: &Value| {
        list(container, "securityContext.capabilities.drop").iter().any(|it| it == "ALL")
    };
    let missing = named(pod, |container| !drops_all(container));
    let (adding, capabilities) = added(pod, &["NET_BIND_SERVICE"]);
    let mut told = Vec::new();
    if !missing.is_empty() {
        let who = these(&missing);
        told.push(format!("{who} must set securityContext.capabilities.drop=[\"ALL\"]"));
    }
    if !adding.is_empty() {
        told.push(format!(
            "{} must not include {} in securityContext.capabilities.add",
            these(&adding),
            quoted(capabilities)
        ));
    }
    if told.is_empty() { None } else { found("unrestricted capabilities", told.join("; ")) }
}

const ALLOWED: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

fn volumes(pod: &Value, _: u32) -> Option<Finding> {
    let is_allowed = |volume: &Value| ALLOWED.iter().any(|kind| has(volume, kind));
    let bad: Vec<&Value> =
        list(pod, "spec.volumes").iter().filter(|volume| !is_allowed(volume)).collect();
    if bad.is_empty() {
        return None;
    }
    let kind = |volume: &&'_ Value| -> String {
        let mut fields = volume.as_object().into_iter().flatten();
        let found = fields.find(|(field, value)| *field != "name" && !value.is_null());
        found.map_or_else(|| "unknown".to_owned(), |(field, _)| field.clone())
    };
    let kinds: BTreeSet<String> = bad.iter().map(kind).collect();
    let detail = format!(
        "{} {} {} {} {}",
        plural("volume", "volumes", bad.len()),
        quoted(bad.iter().map(|volume| text(volume, "name"))),
        plural("uses", "use", bad.len()),
        plural("restricted volume type", "restricted volume types", kinds.len()),
        quoted(kinds.iter().map(String::as_str))
    );
    found("restricted volume types", detail)
}

fn non_root(pod: &Value, _: u32) -> Option<Finding> {
    const REASON: &str = "runAsNonRoot != true";
    const FIELD: &str = "runAsNonRoot";
    let setters =
        Setters::of(
            pod,
            |context| {
                if at(context, FIELD) == false { vec!["false"] } else { Vec::new() }
            },
        );
    if !setters.is_empty() {
        let detail = format!("{} must not set securityContext.runAsNonRoot=false", setters.told());
        return found(REASON, detail);
    }
    if at(pod, "spec.securityContext.runAsNonRoot") == true {
        return None;
    }
    let silent = named(pod, |container| !has(container, "securityContext.runAsNonRoot"));
    if silent.is_empty() {
        return None;
    }
    let who = these(&silent);
    found(REASON, format!("pod or {who} must set securityContext.runAsNonRoot=true"))
}

fn user(pod: &Value, _: u32) -> Option<Finding> {
    let setters = Setters::of(pod, |context| {
        if number(context, "runAsUser") == Some(0) { vec!["0"] } else { Vec::new() }
    });
    if setters.is_empty() {
        return None;
    }
    found("runAsUser=0", format!("{} must not set runAsUser=0", setters.told()))
}

fn seccomp(pod: &Value, _: u32) -> Option<Finding> {
    let setters = seccomp_setters(pod);
    if !setters.is_empty() {
        return seccomp_told(&setters);
    }
    if has(pod, "spec.securityContext.seccompProfile") {
        return None;
    }
    let silent: Vec<&str> = containers(pod)
        .filter(|container| !has(container, "securityContext.seccompProfile"))
        .map(|container| text(container, "name"))
        .collect();
    if silent.is_empty() {
        return None;
    }
    let detail = format!(
        "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
        these(&silent)
    );
    found("seccompProfile", detail)
}
