//! Pod security levels: what a pod may do to its node (Pod Security Standards of Kubernetes 1.36).
//!
//! ```text
//! namespace labels ──[Policy::of]──> a level and a version for each mode
//! pod or template  ──[violations]──> what is against a level
//! ```
//!
//! `enforce` refuses pods, `warn` tells who writes a pod or a template, `audit` tells the log.

mod baseline;
mod findings;
mod restricted;

use crate::cause::Cause;
use crate::field::{Causes, Path, at, get, text};
use crate::resource::Resource;
use findings::Finding;
use serde_json::Value;
use std::fmt;

const PREFIX: &str = "pod-security.kubernetes.io/";
/// The version that all of a later one are read as.
const LATEST: u32 = u32::MAX;

/// How much a pod may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// All.
    Privileged,
    /// Nothing by which a pod is known to take over its node.
    Baseline,
    /// Only what a program needs that runs as a user.
    Restricted,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::Privileged, Self::Baseline, Self::Restricted]
            .into_iter()
            .find(|level| level.name() == word)
    }
}

/// A level as it was in a version of Kubernetes; printed as `restricted:v1.30`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standard {
    /// The level.
    pub level: Level,
    minor: u32,
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.minor == LATEST {
            write!(f, "{}:latest", self.level.name())
        } else {
            write!(f, "{}:v1.{}", self.level.name(), self.minor)
        }
    }
}

/// What a namespace asks of its pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Pods that are against it are refused.
    pub enforce: Standard,
    /// Who writes what is against it is told.
    pub warn: Standard,
    /// The log is told of what is against it.
    pub audit: Standard,
}

impl Policy {
    /// What the labels of a namespace say. What cannot be read is taken as the strictest.
    pub fn of(namespace: &Value) -> Self {
        let labels = at(namespace, "metadata.labels");
        let is_said = labels
            .as_object()
            .is_some_and(|labels| labels.keys().any(|label| label.starts_with(PREFIX)));
        if !is_said {
            let anything = Standard { level: Level::Privileged, minor: LATEST };
            return Self { enforce: anything, warn: anything, audit: anything };
        }
        let standard = |mode: &str| {
            let said = |key: String| get(labels, &key).as_str().map(str::to_owned);
            let level = said(format!("{PREFIX}{mode}"));
            let level = level
                .map_or(Level::Privileged, |word| Level::parse(&word).unwrap_or(Level::Restricted));
            let version = said(format!("{PREFIX}{mode}-version"));
            let minor = version.and_then(|word| version_of(&word)).unwrap_or(LATEST);
            Standard { level, minor }
        };
        Self { enforce: standard("enforce"), warn: standard("warn"), audit: standard("audit") }
    }

    /// Whether everything is allowed, and nobody is to be told of anything.
    pub fn is_silent(&self) -> bool {
        [self.enforce, self.warn, self.audit].iter().all(|it| it.level == Level::Privileged)
    }
}

/// The minor number of `v1.N`, or the latest.
fn version_of(word: &str) -> Option<u32> {
    if word == "latest" {
        return Some(LATEST);
    }
    let digits = word.strip_prefix("v1.")?;
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit())
        && (digits.len() == 1 || !digits.starts_with('0'));
    digits.parse().ok().filter(|_| is_plain)
}

/// What is wrong with the labels of a namespace.
pub fn wrong_labels(namespace: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let path = Path::new("metadata").child("labels");
    let labels = at(namespace, "metadata.labels");
    for mode in ["enforce", "audit", "warn"] {
        let key = format!("{PREFIX}{mode}");
        if let Some(word) = get(labels, &key).as_str().filter(|word| Level::parse(word).is_none()) {
            let why = "must be one of privileged, baseline, restricted";
            causes.invalid(&path.key(&key), word, why);
        }
        let key = format!("{PREFIX}{mode}-version");
        if let Some(word) = get(labels, &key).as_str().filter(|word| version_of(word).is_none()) {
            causes.invalid(&path.key(&key), word, r#"must be "latest" or "v1.x""#);
        }
    }
    causes.into_vec()
}

/// What of a pod is against a standard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violations {
    standard: Standard,
    findings: Vec<Finding>,
}

impl Violations {
    /// `would` is for who is only told: `would violate PodSecurity "restricted:latest": …`.
    pub fn told(&self, would: bool) -> String {
        let verb = if would { "would violate" } else { "violates" };
        let all: Vec<String> = self.findings.iter().map(ToString::to_string).collect();
        format!("{verb} PodSecurity \"{}\": {}", self.standard, all.join(", "))
    }

    /// What is wrong, without where: `host namespaces, privileged`.
    pub fn reasons(&self) -> String {
        let all: Vec<&str> = self.findings.iter().map(|finding| finding.reason.as_str()).collect();
        all.join(", ")
    }
}

/// What of a pod, or of a template of pods, is against a standard; nothing where all is well.
pub fn violations(pod: &Value, standard: Standard) -> Option<Violations> {
    if standard.level == Level::Privileged {
        return None;
    }
    let minor = standard.minor;
    let is_restricted = standard.level == Level::Restricted;
    let mut findings: Vec<Finding> = baseline::CONTROLS
        .iter()
        .filter(|control| control.since <= minor)
        // A restricted control that says more takes its place.
        .filter(|control| !(is_restricted && control.replaced_since.is_some_and(|it| it <= minor)))
        .filter_map(|control| (control.check)(pod, minor))
        .collect();
    if is_restricted {
        let controls = restricted::CONTROLS.iter().filter(|control| control.since <= minor);
        findings.extend(controls.filter_map(|control| (control.check)(pod, minor)));
    }
    (!findings.is_empty()).then_some(Violations { standard, findings })
}

/// The pods that an object makes, as a pod without a name; the object itself where it is one.
pub fn pod_of<'a>(resource: &Resource, object: &'a Value) -> Option<&'a Value> {
    let path = match (&*resource.group, &*resource.plural) {
        ("", "pods") => return Some(object),
        ("", "replicationcontrollers")
        | ("apps", "replicasets" | "deployments" | "statefulsets" | "daemonsets")
        | ("batch", "jobs") => "spec.template",
        ("", "podtemplates") => "template",
        ("batch", "cronjobs") => "spec.jobTemplate.spec.template",
        _ => return None,
    };
    Some(at(object, path)).filter(|template| template.is_object())
}

/// What is said when the level of a namespace that has such pods becomes stricter. Pods that are wrong in the same way
/// are told of together.
pub fn told_of_present<'a>(
    namespace: &Value,
    pods: impl Iterator<Item = &'a Value>,
    are_all: bool,
) -> Vec<String> {
    let standard = Policy::of(namespace).enforce;
    let mut wrong: Vec<(String, String, usize)> = Vec::new();
    for pod in pods {
        let Some(violations) = violations(pod, standard) else { continue };
        let (reasons, name) = (violations.reasons(), text(pod, "metadata.name"));
        match wrong.iter_mut().find(|(same, ..)| *same == reasons) {
            Some((_, first, others)) => {
                *others += 1;
                if name < first.as_str() {
                    name.clone_into(first);
                }
            }
            None => wrong.push((reasons, name.to_owned(), 0)),
        }
    }
    if wrong.is_empty() {
        return Vec::new();
    }
    wrong.sort_by(|one, other| one.1.cmp(&other.1));
    let name = text(namespace, "metadata.name");
    let mut told = vec![format!(
        "existing pods in namespace {name:?} violate the new PodSecurity enforce level \"{standard}\""
    )];
    if !are_all {
        told.push("not all of its pods were looked at: there are too many".to_owned());
    }
    told.extend(wrong.into_iter().map(|(reasons, first, others)| match others {
        0 => format!("{first}: {reasons}"),
        1 => format!("{first} (and 1 other pod): {reasons}"),
        more => format!("{first} (and {more} other pods): {reasons}"),
    }));
    told
}

#[cfg(test)]
mod tests;
