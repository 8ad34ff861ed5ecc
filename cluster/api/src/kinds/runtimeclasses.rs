//! RuntimeClass: what runs the containers of a pod.

use crate::cause::Cause;
use crate::field::{Causes, Path, at, entries, get, has, list, object_mut, text};
use crate::names;
use crate::resource::{Column, Resource, Rules};
use crate::rules::metadata;
use crate::rules::pod::tolerations;
use crate::rules::resources::{canonical_amounts, container_resource, quantity_value};
use crate::table::{age, name};
use serde_json::Value;
use std::collections::HashSet;
use std::sync::Arc;

/// The row.
pub fn resource() -> Resource {
    Resource {
        namespaced: false,
        columns: vec![
            Column::name(),
            Column::text("Handler", "What nodes call it."),
            Column::age(),
        ],
        cells: Arc::new(|class, now| {
            vec![name(class), text(class, "handler").into(), age(class, now)]
        }),
        rules: Rules {
            default: Arc::new(|class| {
                if has(class, "overhead.podFixed") {
                    canonical_amounts(object_mut(object_mut(class, "overhead"), "podFixed"));
                }
            }),
            validate: Arc::new(validate),
            validate_update: Arc::new(|new, old| {
                let mut causes = Causes::default();
                causes.unchanged(&Path::new("handler"), get(new, "handler"), at(old, "handler"));
                causes.into_vec()
            }),
            ..Rules::plain()
        },
        ..Resource::named(
            "node.k8s.io",
            "v1",
            "RuntimeClass",
            "runtimeclasses",
            "runtimeclass",
            "api.node.v1.RuntimeClass",
        )
    }
}

fn validate(class: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let handler = text(class, "handler");
    causes.invalid_all(&Path::new("handler"), handler, names::dns_label(handler));
    let overhead = Path::new("overhead").child("podFixed");
    for (resource, amount) in entries(class, "overhead.podFixed") {
        if causes.is_full() {
            break;
        }
        let path = overhead.key(resource);
        container_resource(&path, resource, &mut causes);
        quantity_value(&path, resource, amount, &mut causes);
    }
    let (scheduling, path) = (get(class, "scheduling"), Path::new("scheduling"));
    metadata::labels(scheduling, "nodeSelector", &path.child("nodeSelector"), &mut causes);
    let all = list(scheduling, "tolerations");
    tolerations(all, &path.child("tolerations"), &mut causes);
    let mut seen = HashSet::new();
    for (index, one) in all.iter().enumerate() {
        if causes.is_full() {
            break;
        }
        if !seen.insert(one.to_string()) {
            causes.duplicate(&path.child("tolerations").index(index), one.clone());
        }
    }
    causes.into_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_class_names_its_handler_and_what_it_costs() {
        let twice = json!([{"key": "a", "operator": "Exists"}, {"key": "a", "operator": "Exists"}]);
        let rows = [
            (json!({"handler": "runc"}), ""),
            (json!({}), "handler"),
            (json!({"handler": "a.b"}), "handler"),
            (
                json!({"handler": "h", "overhead": {"podFixed": {"cpu": "-1"}}}),
                "overhead.podFixed[cpu]",
            ),
            (
                json!({"handler": "h", "scheduling": {"nodeSelector": {"a b": "c"}}}),
                "scheduling.nodeSelector",
            ),
            (
                json!({"handler": "h", "scheduling": {"tolerations": twice}}),
                "scheduling.tolerations[1]",
            ),
        ];
        for (class, expected) in rows {
            let causes = validate(&class);
            let fields: Vec<&str> = causes.iter().map(|cause| cause.field.as_str()).collect();
            assert_eq!(fields.join(" "), expected, "{class}");
        }
        let update = resource().rules.validate_update;
        assert_eq!(update(&json!({"handler": "a"}), &json!({"handler": "b"})).len(), 1);
    }
}
