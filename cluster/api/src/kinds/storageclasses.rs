//! StorageClass: where volumes of a sort come from.

use crate::cause::Cause;
use crate::field::{Causes, Path, at, default_text, flag, get, list, text};
use crate::names;
use crate::resource::{Column, Effect, Resource, Rules, words};
use crate::rules::{declared, storage};
use crate::table::age;
use serde_json::Value;
use std::sync::Arc;

/// The annotation of the class of claims that name none.
const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";

/// The row.
pub fn resource() -> Resource {
    Resource {
        short_names: words(["sc"]),
        namespaced: false,
        columns: vec![
            Column::name(),
            Column::text("Provisioner", "Who makes its volumes."),
            Column::text("ReclaimPolicy", "What becomes of a volume when its claim is gone."),
            Column::text("VolumeBindingMode", "When a claim gets its volume."),
            Column::text("AllowVolumeExpansion", "Whether a claim may ask for more later."),
            Column::age(),
        ],
        cells: Arc::new(|class, now| {
            let is_default = get(at(class, "metadata.annotations"), DEFAULT) == "true";
            let mark = if is_default { " (default)" } else { "" };
            let or = |field: &str, absent: &'static str| match text(class, field) {
                "" => absent.to_owned(),
                given => given.to_owned(),
            };
            vec![
                format!("{}{mark}", text(class, "metadata.name")).into(),
                text(class, "provisioner").into(),
                or("reclaimPolicy", "Delete").into(),
                or("volumeBindingMode", "Immediate").into(),
                flag(class, "allowVolumeExpansion").into(),
                age(class, now),
            ]
        }),
        effect: Effect::by("the controller of claims, and the scheduler"),
        rules: Rules {
            default: Arc::new(|class| {
                default_text(class, "reclaimPolicy", "Delete");
                default_text(class, "volumeBindingMode", "Immediate");
            }),
            validate: Arc::new(validate),
            validate_update: Arc::new(|new, old| {
                let mut causes = Causes::default();
                causes.append(validate(new));
                let fields = ["parameters", "provisioner", "reclaimPolicy"];
                storage::not_updated(new, old, &fields, &mut causes);
                let field = "volumeBindingMode";
                causes.unchanged(&Path::new(field), get(new, field), at(old, field));
                causes.into_vec()
            }),
            ..Rules::plain()
        },
        ..Resource::named(
            "storage.k8s.io",
            "v1",
            "StorageClass",
            "storageclasses",
            "storageclass",
            "api.storage.v1.StorageClass",
        )
    }
}

fn validate(class: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let provisioner = text(class, "provisioner");
    if !provisioner.is_empty() {
        let wrong = names::qualified(&provisioner.to_lowercase());
        causes.invalid_all(&Path::new("provisioner"), provisioner, wrong);
    }
    storage::parameters(class, &mut causes);
    if text(class, "reclaimPolicy") == "Recycle" {
        // The tables know the policies of volumes that nobody made by a class.
        let path = Path::new("reclaimPolicy");
        causes.not_supported(&path, "Recycle", &["Delete", "Retain"]);
    }
    for (index, term) in list(class, "allowedTopologies").iter().enumerate() {
        let path = Path::new("allowedTopologies").index(index).child("matchLabelExpressions");
        for (index, expression) in list(term, "matchLabelExpressions").iter().enumerate() {
            if causes.is_full() {
                break;
            }
            let (path, key) = (path.index(index), text(expression, "key"));
            if !key.is_empty() {
                causes.invalid_all(&path.child("key"), key, names::qualified(key));
            }
            let mut seen = std::collections::HashSet::new();
            for (index, value) in list(expression, "values").iter().enumerate() {
                let (path, value) = (path.child("values").index(index), value.as_str());
                let value = value.unwrap_or_default();
                causes.invalid_all(&path, value, names::label_value(value));
                if !seen.insert(value) {
                    causes.duplicate(&path, value);
                }
            }
        }
    }
    declared::validate("api.storage.v1.StorageClass", class, &mut causes);
    causes.into_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_class_says_who_makes_its_volumes_and_keeps_to_it() {
        let told = |causes: Vec<Cause>| -> String {
            let fields: Vec<String> = causes.into_iter().map(|cause| cause.field).collect();
            fields.join(" ")
        };
        let topology = json!([{"matchLabelExpressions": [{"key": "zone", "values": ["a", "a"]}]}]);
        let rows = [
            (json!({"provisioner": "example.com/Disk"}), ""),
            (json!({}), "provisioner"),
            (json!({"provisioner": "a b"}), "provisioner"),
            (json!({"provisioner": "a", "reclaimPolicy": "Recycle"}), "reclaimPolicy"),
            (json!({"provisioner": "a", "reclaimPolicy": "Keep"}), "reclaimPolicy"),
            (json!({"provisioner": "a", "volumeBindingMode": "Later"}), "volumeBindingMode"),
            (json!({"provisioner": "a", "parameters": {"": "x"}}), "parameters"),
            (
                json!({"provisioner": "a", "allowedTopologies": topology}),
                "allowedTopologies[0].matchLabelExpressions[0].values[1]",
            ),
            (
                json!({"provisioner": "a", "allowedTopologies": [{"matchLabelExpressions": [{"key": "z"}]}]}),
                "allowedTopologies[0].matchLabelExpressions[0].values",
            ),
        ];
        for (class, expected) in rows {
            assert_eq!(told(validate(&class)), expected, "{class}");
        }
        let update = resource().rules.validate_update;
        let old = json!({"provisioner": "a", "reclaimPolicy": "Delete"});
        assert_eq!(
            told(update(&json!({"provisioner": "a", "reclaimPolicy": "Retain"}), &old)),
            "reclaimPolicy"
        );
        let grows =
            json!({"provisioner": "a", "reclaimPolicy": "Delete", "allowVolumeExpansion": true});
        assert_eq!(told(update(&grows, &old)), "");
    }
}
