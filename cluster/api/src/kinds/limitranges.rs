//! LimitRange: what a container, a pod or a claim of a namespace asks for at least, at most, and where it says nothing.

use crate::cause::Cause;
use crate::field::{Causes, Path, as_map, at, get, list, list_mut, map, object_mut, text};
use crate::names;
use crate::quantity::{Quantity, parse};
use crate::resource::{Column, Effect, Resource, Rules, words};
use crate::rules::metadata;
use crate::rules::resources::canonical_amounts;
use crate::table::name;
use serde_json::Value;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

const TYPES: [&str; 3] = ["Container", "Pod", "PersistentVolumeClaim"];
const SIDES: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];

/// The row.
pub fn resource() -> Resource {
    Resource {
        short_names: words(["limits"]),
        columns: vec![
            Column::name(),
            Column { kind: "date".into(), ..Column::text("Created At", "When it was created.") },
        ],
        cells: Arc::new(|range, _| {
            vec![name(range), at(range, "metadata.creationTimestamp").clone()]
        }),
        effect: Effect::by("every pod and claim that is created"),
        rules: Rules {
            default: Arc::new(default_range),
            validate: Arc::new(validate),
            validate_update: Arc::new(|new, _| {
                [metadata::validate_again(new), validate(new)].concat()
            }),
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

/// What a container may use at most it is given where it says nothing, and what it is given it asks for.
fn default_range(range: &mut Value) {
    let spec = object_mut(range, "spec");
    for item in list_mut(spec, "limits") {
        for side in SIDES {
            if item.get(side).is_some_and(Value::is_object) {
                canonical_amounts(object_mut(item, side));
            }
        }
        if text(item, "type") != "Container" {
            continue;
        }
        for (from, to) in
            [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")]
        {
            let Some(amounts) = map(item, from).cloned() else { continue };
            let given = as_map(object_mut(item, to));
            for (resource, amount) in amounts {
                given.entry(resource).or_insert(amount);
            }
        }
    }
}

fn validate(range: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let path = Path::new("spec").child("limits");
    let mut seen = HashSet::new();
    for (index, item) in list(range, "spec.limits").iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let path = path.index(index);
        let kind = text(item, "type");
        causes.invalid_all(&path.child("type"), kind, names::qualified(kind));
        if !kind.contains('/') && !TYPES.contains(&kind) {
            let why = "must be a standard limit type or fully qualified";
            causes.invalid(&path.child("type"), kind, why);
        }
        if !seen.insert(kind) {
            causes.duplicate(&path.child("type"), kind);
        }
        if kind == "Pod" {
            for side in ["default", "defaultRequest"] {
                if map(item, side).is_some_and(|amounts| !amounts.is_empty()) {
                    let why = "may not be specified when `type` is 'Pod'";
                    causes.forbidden(&path.child(side), why);
                }
            }
        }
        let has_storage =
            ["min", "max"].iter().any(|side| get(item, side).get("storage").is_some());
        if kind == "PersistentVolumeClaim" && !has_storage {
            let why =
                "either minimum or maximum storage value is required, but neither was provided";
            causes.required(&path.child("limits"), why);
        }
        amounts(item, &path, &mut causes);
    }
    causes.into_vec()
}

/// How the amounts of an item are to each other.
fn amounts(item: &Value, path: &Path, causes: &mut Causes) {
    let mut resources = BTreeSet::new();
    for side in SIDES {
        for (resource, _) in crate::field::entries(item, side) {
            causes.invalid_all(
                &path.child(side).key(resource),
                resource,
                names::qualified(resource),
            );
            resources.insert(resource);
        }
    }
    for resource in resources {
        if causes.is_full() {
            break;
        }
        let of = |side: &str| get(item, side).get(resource).and_then(parse);
        // What must not be more than what, whose fault that is, and how the two are called.
        let orders = [
            ("min", "max", "min", "min value", "max value"),
            ("min", "defaultRequest", "defaultRequest", "min value", "default request value"),
            ("defaultRequest", "max", "defaultRequest", "default request value", "max value"),
            (
                "defaultRequest",
                "default",
                "defaultRequest",
                "default request value",
                "default limit value",
            ),
            ("min", "default", "default", "min value", "default value"),
            ("default", "max", "default", "default value", "max value"),
        ];
        for (less, more, field, less_called, more_called) in orders {
            if let (Some(less), Some(more)) = (of(less), of(more))
                && less > more
            {
                let why = format!("{less_called} {less} is greater than {more_called} {more}");
                let shown = of(field).unwrap_or(less).to_string();
                causes.invalid(&path.child(field).key(resource), shown, &why);
            }
        }
        let Some(ratio) = of("maxLimitRequestRatio") else { continue };
        let path = path.child("maxLimitRequestRatio").key(resource);
        if ratio < Quantity::from_units(1) {
            causes.invalid(&path, ratio.to_string(), &format!("ratio {ratio} is less than 1"));
        }
        if let (Some(min), Some(max)) = (of("min"), of("max")) {
            let most = max.millis() as f64 / min.millis() as f64;
            if ratio.millis() as f64 / 1000.0 > most {
                let why = format!("ratio {ratio} is greater than max/min = {most:.6}");
                causes.invalid(&path, ratio.to_string(), &why);
            }
        }
    }
}
