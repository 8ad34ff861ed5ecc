//! How much a pod matters: its class, and what the class makes of it.

use crate::field::{flag, has, number, object_mut, set, text};
use serde_json::{Value, json};

/// The highest value that a class of a user may have.
pub const HIGHEST_OF_USERS: i64 = 1_000_000_000;
/// What the names of the cluster's own classes begin with.
pub const SYSTEM_PREFIX: &str = "system-";

/// A class that every cluster has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemClass {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: i64,
    /// What it is for.
    pub description: &'static str,
}

impl SystemClass {
    /// The object.
    pub fn object(&self) -> Value {
        json!({
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": { "name": self.name },
            "value": self.value,
            "description": self.description,
            "preemptionPolicy": PREEMPTS,
        })
    }
}

/// The classes that every cluster has.
pub const SYSTEM_CLASSES: [SystemClass; 2] = [
    SystemClass {
        name: "system-node-critical",
        value: 2_000_001_000,
        description: "Used for system critical pods that must not be moved from their current node.",
    },
    SystemClass {
        name: "system-cluster-critical",
        value: 2_000_000_000,
        description: "Used for system critical pods that must run in the cluster, but can be moved to another \
                      node if necessary.",
    },
];

const PREEMPTS: &str = "PreemptLowerPriority";

/// What a pod takes over from its class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// The name that the pod gets.
    pub name: String,
    /// Its priority.
    pub value: i64,
    /// Whether it may take others' room.
    pub preemption: String,
}

impl Class {
    /// Of pods that name none, where no class is the default.
    pub fn none() -> Self {
        Self { name: String::new(), value: 0, preemption: PREEMPTS.to_owned() }
    }

    /// Reads a `PriorityClass`.
    pub fn of(object: &Value) -> Self {
        let preemption = match text(object, "preemptionPolicy") {
            "" => PREEMPTS,
            said => said,
        };
        Self {
            name: text(object, "metadata.name").to_owned(),
            value: number(object, "value").unwrap_or(0),
            preemption: preemption.to_owned(),
        }
    }

    /// The class of the cluster's own that has this name.
    pub fn of_system(name: &str) -> Option<Self> {
        let class = SYSTEM_CLASSES.iter().find(|class| class.name == name)?;
        Some(Self::of(&class.object()))
    }
}

/// Whether a `PriorityClass` is for pods that name none.
pub fn is_default(class: &Value) -> bool {
    flag(class, "globalDefault")
}

/// Writes into a new pod what its class makes of it; `None` where there is no class of the name that it says. The
/// error is what the pod says itself and may not.
pub fn settle(pod: &mut Value, class: Option<Class>) -> Result<(), String> {
    let Some(class) = class else {
        let named = text(pod, "spec.priorityClassName");
        return Err(format!("no PriorityClass with name {named} was found"));
    };
    let spec = object_mut(pod, "spec");
    let computed = "must not be provided in pod spec; priority admission controller computed";
    if let Some(given) = number(spec, "priority").filter(|given| *given != class.value) {
        return Err(format!(
            "the integer value of priority ({given}) {computed} {} from the given PriorityClass name",
            class.value
        ));
    }
    let given = text(spec, "preemptionPolicy");
    if has(spec, "preemptionPolicy") && !given.is_empty() && given != class.preemption {
        return Err(format!(
            "the string value of PreemptionPolicy ({given}) {computed} {} from the given PriorityClass name",
            class.preemption
        ));
    }
    if !class.name.is_empty() {
        set(spec, "priorityClassName", class.name);
    }
    set(spec, "priority", class.value);
    set(spec, "preemptionPolicy", class.preemption);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_takes_over_what_its_class_says_and_may_say_no_other_itself() {
        let batch = || Some(Class { name: "batch".into(), value: 7, preemption: "Never".into() });
        let none = || Some(Class::none());
        let said = |spec: Value| json!({ "spec": spec });
        let rows = [
            (said(json!({})), none(), Ok((0, PREEMPTS, ""))),
            // The default class, where there is one, is written down.
            (said(json!({})), batch(), Ok((7, "Never", "batch"))),
            (said(json!({"priorityClassName": "batch"})), batch(), Ok((7, "Never", "batch"))),
            (said(json!({"priority": 7})), batch(), Ok((7, "Never", "batch"))),
            (
                said(json!({"priority": 8})),
                batch(),
                Err(
                    "the integer value of priority (8) must not be provided in pod spec; priority admission \
                     controller computed 7 from the given PriorityClass name",
                ),
            ),
            (
                said(json!({"preemptionPolicy": PREEMPTS})),
                batch(),
                Err(
                    "the string value of PreemptionPolicy (PreemptLowerPriority) must not be provided in pod \
                     spec; priority admission controller computed Never from the given PriorityClass name",
                ),
            ),
            (
                said(json!({"priorityClassName": "gone"})),
                None,
                Err("no PriorityClass with name gone was found"),
            ),
        ];
        for (mut pod, class, expected) in rows {
            let shown = pod.to_string();
            let settled = settle(&mut pod, class);
            let found = settled.as_ref().map_err(String::as_str).map(|()| {
                let spec = &pod["spec"];
                let name = spec["priorityClassName"].as_str().unwrap_or_default();
                (
                    spec["priority"].as_i64().unwrap(),
                    spec["preemptionPolicy"].as_str().unwrap(),
                    name,
                )
            });
            assert_eq!(found, expected, "{shown}");
        }
    }

    #[test]
    fn the_classes_of_the_system_are_known_without_an_object() {
        let found = Class::of_system("system-node-critical").unwrap();
        assert_eq!((found.value, found.preemption.as_str()), (2_000_001_000, PREEMPTS));
        assert_eq!(Class::of_system("system-other"), None);
    }
}
