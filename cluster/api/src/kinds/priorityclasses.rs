//! PriorityClass: a name for how important a pod is.

use crate::cause::Cause;
use crate::field::{Causes, Path, at, default_text, flag, get, number, text};
use crate::resource::{Column, Effect, Resource, Rules, words};
use crate::rules::declared;
use crate::table::{age, name};
use serde_json::Value;
use std::sync::Arc;

/// Classes that every cluster has, with their values. No other name may begin as theirs do.
const SYSTEM: [(&str, i64); 2] =
    [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];
const SYSTEM_PREFIX: &str = "system-";
/// The highest value of a class that is not the system's.
const HIGHEST: i64 = 1_000_000_000;

/// The row.
pub fn resource() -> Resource {
    Resource {
        short_names: words(["pc"]),
        namespaced: false,
        columns: vec![
            Column::name(),
            Column::integer("Value", "How important its pods are; higher goes first."),
            Column {
                kind: "boolean".into(),
                ..Column::text("Global-Default", "Whether pods without a class are of it.")
            },
            Column::age(),
            Column::text("PreemptionPolicy", "Whether its pods may displace others."),
        ],
        cells: Arc::new(|class, now| {
            vec![
                name(class),
                number(class, "value").unwrap_or(0).into(),
                flag(class, "globalDefault").into(),
                age(class, now),
                text(class, "preemptionPolicy").into(),
            ]
        }),
        generation: true,
        effect: Effect::missing("no pod goes before another by it, and pods cannot name it"),
        rules: Rules {
            default: Arc::new(|class| {
                // What Kubernetes always writes.
                crate::field::default(class, "value", 0);
                default_text(class, "preemptionPolicy", "PreemptLowerPriority");
            }),
            validate: Arc::new(validate),
            validate_update: Arc::new(validate_update),
            ..Rules::plain()
        },
        ..Resource::named(
            "scheduling.k8s.io",
            "v1",
            "PriorityClass",
            "priorityclasses",
            "priorityclass",
            "api.scheduling.v1.PriorityClass",
        )
    }
}

fn validate(class: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let (class_name, value) = (text(class, "metadata.name"), number(class, "value").unwrap_or(0));
    let is_system = SYSTEM.contains(&(class_name, value)) && !flag(class, "globalDefault");
    if class_name.starts_with(SYSTEM_PREFIX) && !is_system {
        let why = "priority class names with 'system-' prefix are reserved for system use only";
        causes.forbidden(&Path::new("metadata").child("name"), why);
    } else if value > HIGHEST && !is_system {
        let why = format!("maximum allowed value of a user defined priority is {HIGHEST}");
        causes.forbidden(&Path::new("value"), &why);
    }
    declared::validate("api.scheduling.v1.PriorityClass", class, &mut causes);
    causes.into_vec()
}

/// Its value is in its pods already.
fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let value = |class| number(class, "value").unwrap_or(0);
    if value(new) != value(old) {
        causes.forbidden(&Path::new("value"), "may not be changed in an update.");
    }
    let field = "preemptionPolicy";
    causes.unchanged(&Path::new(field), get(new, field), at(old, field));
    causes.into_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_systems_names_and_values_are_its_own_and_a_value_stays() {
        let class = |name: &str, value: i64| json!({"metadata": {"name": name}, "value": value});
        let told = |causes: Vec<Cause>| -> String {
            let fields: Vec<String> = causes.into_iter().map(|cause| cause.field).collect();
            fields.join(" ")
        };
        let rows = [
            ("a", HIGHEST, ""),
            ("a", -5, ""),
            ("a", HIGHEST + 1, "value"),
            ("system-node-critical", 2_000_001_000, ""),
            ("system-node-critical", 5, "metadata.name"),
            ("system-a", 5, "metadata.name"),
        ];
        for (name, value, expected) in rows {
            assert_eq!(told(validate(&class(name, value))), expected, "{name} {value}");
        }
        assert_eq!(told(validate_update(&class("a", 1), &class("a", 2))), "value");
        assert_eq!(told(validate_update(&class("a", 1), &class("a", 1))), "");
        let never = json!({"value": 1, "preemptionPolicy": "Never"});
        assert_eq!(told(validate_update(&never, &class("a", 1))), "preemptionPolicy");
        let other = json!({"metadata": {"name": "a"}, "preemptionPolicy": "Sometimes"});
        assert_eq!(told(validate(&other)), "preemptionPolicy");
    }
}
