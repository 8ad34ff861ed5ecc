//! What a control finds, and how it is told.

use crate::field::{at, list, text};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt;

/// What is against a control: what, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) reason: String,
    detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.detail.is_empty() {
            f.write_str(&self.reason)
        } else {
            write!(f, "{} ({})", self.reason, self.detail)
        }
    }
}

/// One control of a level.
pub(super) struct Control {
    /// The minor version of Kubernetes that has it first.
    pub(super) since: u32,
    /// From which on a restricted control says all that it says.
    pub(super) replaced_since: Option<u32>,
    /// Looks at a pod, as it was in a minor version.
    pub(super) check: fn(&Value, u32) -> Option<Finding>,
}

/// What a control answers that has found something.
#[expect(clippy::unnecessary_wraps, reason = "the controls end with it")]
pub(super) fn found(reason: &str, detail: String) -> Option<Finding> {
    Some(Finding { reason: reason.to_owned(), detail })
}

/// All containers, in the order in which they are told of.
pub(super) fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["spec.initContainers", "spec.containers", "spec.ephemeralContainers"]
        .into_iter()
        .flat_map(|path| list(pod, path))
}

/// The names of the containers for which something is so.
pub(super) fn named(pod: &Value, is_so: impl Fn(&Value) -> bool) -> Vec<&str> {
    containers(pod).filter(|one| is_so(one)).map(|one| text(one, "name")).collect()
}

/// `"a", "b"`.
pub(super) fn quoted<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let all: Vec<String> = words.into_iter().map(|word| format!("\"{word}\"")).collect();
    all.join(", ")
}

/// One word or the other, by the number.
pub(super) fn plural(one: &'static str, many: &'static str, count: usize) -> &'static str {
    if count == 1 { one } else { many }
}

/// `container "a"`, `containers "a", "b"`.
pub(super) fn these(names: &[&str]) -> String {
    let what = plural("container", "containers", names.len());
    format!("{what} {}", quoted(names.iter().copied()))
}

/// Who has set a field of the security context to what it may not be, the pod or its containers, and to what.
#[derive(Debug, Default)]
pub(super) struct Setters<'a> {
    pub(super) who: Vec<String>,
    pub(super) values: BTreeSet<&'a str>,
}

impl<'a> Setters<'a> {
    /// Looks at the pod and at each container. `wrong` gives what of a security context is not as it may be.
    pub(super) fn of(pod: &'a Value, wrong: impl Fn(&'a Value) -> Vec<&'a str>) -> Self {
        let mut setters = Self::default();
        let of_pod = wrong(at(pod, "spec.securityContext"));
        if !of_pod.is_empty() {
            setters.who.push("pod".to_owned());
            setters.values.extend(of_pod);
        }
        let mut names = Vec::new();
        for container in containers(pod) {
            let of_container = wrong(at(container, "securityContext"));
            if !of_container.is_empty() {
                names.push(text(container, "name"));
                setters.values.extend(of_container);
            }
        }
        if !names.is_empty() {
            setters.who.push(these(&names));
        }
        setters
    }

    pub(super) fn is_empty(&self) -> bool {
        self.who.is_empty()
    }

    /// `pod and container "a"`.
    pub(super) fn told(&self) -> String {
        self.who.join(" and ")
    }

    /// `"x", "y"`.
    pub(super) fn values(&self) -> String {
        quoted(self.values.iter().copied())
    }
}
