//! LimitRange: bounds of what one pod, container or claim of a namespace may ask for, and what it asks for if it says
//! nothing.

use crate::cause::Cause;
use crate::field::{
    Causes, Path, as_map, entries, get, has, list, list_mut, map, object_mut, text,
};
use crate::names;
use crate::quantity::{self, Quantity};
use crate::resource::{Column, Effect, Resource, Rules, words};
use crate::rules::declared;
use crate::rules::resources::{
    can_overcommit, canonical_amounts, container_resource, standard_resource,
};
use crate::table::name;
use serde_json::Value;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

/// The amounts of an item, in the order in which they are looked at.
const SIDES: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];

/// The row.
pub fn resource() -> Resource {
    Resource {
        short_names: words(["limits"]),
        columns: vec![
            Column::name(),
            Column { kind: "date".into(), ..Column::text("Created At", "When it was created.") },
        ],
        cells: Arc::new(|limits, _| {
            vec![name(limits), text(limits, "metadata.creationTimestamp").into()]
        }),
        effect: Effect::missing("nothing is refused or filled in by it"),
        rules: Rules {
            default: Arc::new(default_limits),
            validate: Arc::new(validate),
            validate_update: Arc::new(|new, _| validate(new)),
            ..Rules::plain()
        },
        ..Resource::named(
            "",
            "v1",
            "LimitRange",
            "limitranges",
            "limitrange",
            "api.core.v1.LimitRange",
        )
    }
}

/// A container that says nothing gets what is allowed at most, and asks for what it gets or for the least.
fn default_limits(limits: &mut Value) {
    for item in list_mut(object_mut(limits, "spec"), "limits") {
        for side in SIDES {
            if has(item, side) {
                canonical_amounts(object_mut(item, side));
            }
        }
        if text(item, "type") != "Container" {
            continue;
        }
        for (side, from) in
            [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")]
        {
            let amounts = map(item, from).cloned().unwrap_or_default();
            let mut filled = map(item, side).cloned().unwrap_or_default();
            for (resource, amount) in amounts {
                filled.entry(resource).or_insert(amount);
            }
            if !filled.is_empty() {
                *as_map(object_mut(item, side)) = filled;
            }
        }
    }
}

fn validate(limits: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let path = Path::new("spec").child("limits");
    let mut kinds = HashSet::new();
    for (index, item) in list(limits, "spec.limits").iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let (path, kind) = (path.index(index), text(item, "type"));
        let type_path = path.child("type");
        causes.invalid_all(&type_path, kind, names::qualified(kind));
        if !kind.is_empty() && !kind.contains('/') && !KINDS.contains(&kind) {
            let why = "must be a standard limit type or fully qualified";
            causes.invalid(&type_path, kind, why);
        }
        if !kinds.insert(kind) {
            causes.duplicate(&type_path, kind);
        }
        validate_item(item, kind, &path, &mut causes);
    }
    causes.append(required_spec(limits));
    causes.into_vec()
}

const KINDS: [&str; 3] = ["Pod", "Container", "PersistentVolumeClaim"];

fn required_spec(limits: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    declared::validate("api.core.v1.LimitRange", limits, &mut causes);
    // An empty type is told with its form above.
    let is_type = |cause: &Cause| cause.field.rsplit_once('.').is_some_and(|it| it.1 == "type");
    causes.into_vec().into_iter().filter(|cause| !is_type(cause)).collect()
}

fn validate_item(item: &Value, kind: &str, path: &Path, causes: &mut Causes) {
    let mut resources = BTreeSet::new();
    for side in ["max", "min", "maxLimitRequestRatio"] {
        amounts(item, kind, side, path, &mut resources, causes);
    }
    if kind == "Pod" {
        for side in ["default", "defaultRequest"] {
            if map(item, side).is_some_and(|amounts| !amounts.is_empty()) {
                let why = "may not be specified when `type` is 'Pod'";
                causes.forbidden(&path.child(side), why);
            }
        }
    } else {
        for side in ["default", "defaultRequest"] {
            amounts(item, kind, side, path, &mut resources, causes);
        }
    }
    if kind == "PersistentVolumeClaim" {
        let given = |side: &str| get(item, side).get("storage").is_some();
        if !given("min") && !given("max") {
            causes.required(
                path,
                "either minimum or maximum storage value is required, but neither was provided",
            );
        }
    }
    for resource in resources {
        if causes.is_full() {
            return;
        }
        in_order(item, resource, path, causes);
    }
}

fn amounts<'a>(
    item: &'a Value,
    kind: &str,
    side: &str,
    path: &Path,
    seen: &mut BTreeSet<&'a str>,
    causes: &mut Causes,
) {
    for (resource, _) in entries(item, side) {
        if causes.is_full() {
            return;
        }
        let path = path.child(side).key(resource);
        if matches!(kind, "Pod" | "Container") {
            container_resource(&path, resource, causes);
        } else {
            standard_resource(&path, resource, causes);
        }
        seen.insert(resource);
    }
}

/// The least is no more than what is asked for by default, that no more than what is granted by default, and that no
/// more than the most.
fn in_order(item: &Value, resource: &str, path: &Path, causes: &mut Causes) {
    let amount = |side: &str| get(item, side).get(resource).and_then(quantity::parse);
    let [max, min, default, request, ratio] = SIDES.map(amount);
    let mut at_most =
        |side: &str, amount: Option<Quantity>, of: &str, most: Option<Quantity>, other: &str| {
            if let (Some(amount), Some(most)) = (amount, most)
                && amount > most
            {
                let why = format!("{side} value {amount} is greater than {of} value {most}");
                causes.invalid(&path.child(other).key(resource), amount.to_string(), &why);
            }
        };
    at_most("min", min, "max", max, "min");
    at_most("min", min, "default request", request, "defaultRequest");
    at_most("default request", request, "max", max, "defaultRequest");
    at_most("default request", request, "default", default, "defaultRequest");
    at_most("min", min, "default", default, "default");
    at_most("default", default, "max", max, "default");
    let ratio_path = path.child("maxLimitRequestRatio").key(resource);
    if let Some(ratio) = ratio.filter(|ratio| *ratio < Quantity::from_units(1)) {
        causes.invalid(&ratio_path, ratio.to_string(), &format!("ratio {ratio} is less than 1"));
    }
    if let (Some(ratio), Some(min), Some(max)) = (ratio, min, max)
        && min.sign() > 0
    {
        let (ratio_millis, most) = (i128::from(ratio.millis()), i128::from(max.millis()) * 1000);
        if ratio_millis * i128::from(min.millis()) > most {
            let why = format!("ratio {ratio} is greater than max/min, which are {max} and {min}");
            causes.invalid(&ratio_path, ratio.to_string(), &why);
        }
    }
    if let (Some(default), Some(request)) = (default, request)
        && default != request
        && !can_overcommit(resource)
    {
        let why = format!(
            "default value {default} must equal to defaultRequest value {request} in {resource}"
        );
        causes.invalid(&path.child("defaultRequest").key(resource), request.to_string(), &why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(item: Value) -> String {
        let mut limits = json!({"spec": {"limits": [item]}});
        default_limits(&mut limits);
        let mut fields: Vec<String> =
            validate(&limits).into_iter().map(|cause| cause.field).collect();
        for field in &mut fields {
            *field = field.replace("spec.limits[0].", ".");
        }
        fields.join(" ")
    }

    #[test]
    fn the_amounts_of_an_item_fit_each_other() {
        let rows = [
            (json!({"type": "Pod", "max": {"cpu": "1"}}), ""),
            (json!({"type": "Pod", "default": {"cpu": "1"}}), ".default"),
            (json!({"type": "", "max": {"cpu": "1"}}), ".type .type"),
            (json!({"type": "Node"}), ".type"),
            (json!({"type": "example.com/node"}), ""),
            (json!({"type": "PersistentVolumeClaim"}), "spec.limits[0]"),
            (json!({"type": "PersistentVolumeClaim", "max": {"storage": "1"}}), ""),
            (
                json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "500m"}}),
                ".maxLimitRequestRatio[cpu]",
            ),
            (
                json!({"type": "Container", "min": {"cpu": "1"}, "max": {"cpu": "2"},
                    "maxLimitRequestRatio": {"cpu": "3"}}),
                ".maxLimitRequestRatio[cpu]",
            ),
            (
                json!({"type": "Container", "default": {"example.com/gpu": "2"},
                    "defaultRequest": {"example.com/gpu": "1"}}),
                ".defaultRequest[example.com/gpu]",
            ),
        ];
        for (item, expected) in rows {
            assert_eq!(told(item.clone()), expected, "{item}");
        }
        assert!(told(json!({"type": "Container", "max": {"gpu": "1"}})).contains(".max[gpu]"));
    }

    #[test]
    fn an_item_that_is_there_twice_is_told() {
        let item = json!({"type": "Pod", "max": {"cpu": "1"}});
        let causes = validate(&json!({"spec": {"limits": [item, item]}}));
        let fields: Vec<&str> = causes.iter().map(|cause| cause.field.as_str()).collect();
        assert_eq!(fields, ["spec.limits[1].type"]);
    }
}
