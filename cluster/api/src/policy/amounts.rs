//! What a pod asks for and may use as a whole.
//!
//! Containers run beside each other and their amounts add up. Init containers run one after the other before them, so
//! that the largest counts; those that go on (`restartPolicy: Always`) add to all that come after them. What the pod
//! says as a whole counts where it is more: it takes nothing from what its containers are given.

use crate::field::{at, entries, list, text};
use crate::quantity::{self, Quantity};
use serde_json::Value;
use std::collections::BTreeMap;

/// Amounts by the name of what they are of.
pub type Amounts = BTreeMap<String, Quantity>;

/// The amounts of a map; what is no amount is left out.
pub fn read(object: &Value, path: &str) -> Amounts {
    entries(object, path)
        .filter_map(|(name, amount)| Some((name.to_owned(), quantity::parse(amount)?)))
        .collect()
}

/// The amounts as they are stored.
pub fn write(amounts: &Amounts) -> Value {
    amounts.iter().map(|(name, amount)| (name.clone(), Value::from(amount.to_string()))).collect()
}

/// Adds amounts to others.
pub fn add(to: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = to.get(name).copied().unwrap_or_else(Quantity::zero).plus(*amount);
        to.insert(name.clone(), sum);
    }
}

fn raise(to: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let most = to.get(name).copied().filter(|is| is >= amount).unwrap_or(*amount);
        to.insert(name.clone(), most);
    }
}

/// Which of the two amounts that are told of everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// What is set aside.
    Requests,
    /// What may be used at most.
    Limits,
}

impl Side {
    /// The field.
    pub fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Limits => "limits",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Requests => "resources.requests",
            Self::Limits => "resources.limits",
        }
    }
}

/// Whether a pod as a whole may say how much it asks for of this.
pub fn is_of_pod(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

/// What the containers of a pod come to, or what it says as a whole where that is more; without what its sandbox needs.
pub fn of_containers(pod: &Value, side: Side) -> Amounts {
    let (mut all, mut lasting, mut first) = (Amounts::new(), Amounts::new(), Amounts::new());
    for container in list(pod, "spec.containers") {
        add(&mut all, &read(container, side.path()));
    }
    for container in list(pod, "spec.initContainers") {
        let mut own = read(container, side.path());
        if text(container, "restartPolicy") == "Always" {
            add(&mut all, &own);
            add(&mut lasting, &own);
            own = lasting.clone();
        } else {
            add(&mut own, &lasting);
        }
        raise(&mut first, &own);
    }
    raise(&mut all, &first);
    let mut whole = read(at(pod, "spec.resources"), side.name());
    whole.retain(|name, _| is_of_pod(name));
    raise(&mut all, &whole);
    all
}

/// The same with what its sandbox needs: an overhead counts as asked for, and of what is limited as used.
pub fn of_pod(pod: &Value, side: Side) -> Amounts {
    let mut all = of_containers(pod, side);
    let overhead = read(pod, "spec.overhead");
    for (name, amount) in overhead {
        match all.get(&name) {
            Some(is) => {
                let sum = is.plus(amount);
                all.insert(name, sum);
            }
            None if side == Side::Requests => {
                all.insert(name, amount);
            }
            None => {}
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_counts_for_what_it_needs_at_its_fullest() {
        let container = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let lasting =
            |cpu: &str| json!({"restartPolicy": "Always", "resources": {"requests": {"cpu": cpu}}});
        let rows = [
            (json!({"containers": [container("1"), container("500m")]}), "1500m"),
            (json!({"containers": [container("1")], "initContainers": [container("3")]}), "3"),
            (
                json!({"containers": [container("1")], "initContainers": [lasting("1"), container("3")]}),
                "4",
            ),
            (
                json!({"containers": [container("1")], "initContainers": [container("1"), lasting("1")]}),
                "2",
            ),
            (json!({"containers": [container("1")], "overhead": {"cpu": "250m"}}), "1250m"),
            (json!({"containers": [container("1")], "resources": {"requests": {"cpu": "2"}}}), "2"),
            (
                json!({"containers": [container("64")], "resources": {"requests": {"cpu": "1m"}}}),
                "64",
            ),
        ];
        for (spec, cpu) in rows {
            let found = of_pod(&json!({ "spec": spec }), Side::Requests);
            assert_eq!(found["cpu"].to_string(), cpu, "{spec}");
        }
        let limited = json!({"spec": {"overhead": {"cpu": "1", "memory": "1Gi"},
            "containers": [{"resources": {"limits": {"cpu": "1"}}}]}});
        let found = of_pod(&limited, Side::Limits);
        assert_eq!((found["cpu"].to_string(), found.get("memory")), ("2".into(), None));
    }
}
