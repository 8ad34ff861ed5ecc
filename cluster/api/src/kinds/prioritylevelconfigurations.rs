//! PriorityLevelConfiguration: how many requests of a level are answered at a time, and what becomes of the others.

use crate::cause::Cause;
use crate::context::Context;
use crate::field::{
    Causes, Path, at, default, existing_mut, get, has, number, object_mut, set, text,
};
use crate::kinds::flowschemas::validate_conditions;
use crate::resource::{Column, Effect, Resource, Rules, Subresource};
use crate::rules::declared;
use crate::status::Status;
use crate::table::{NONE, age, name};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

const QUEUES_MAX: i64 = 10_000_000;

/// The row.
pub fn resource() -> Resource {
    Resource {
        namespaced: false,
        subresources: vec![Subresource::status("PriorityLevelConfiguration")],
        columns: vec![
            Column::name(),
            Column::text("Type", "Exempt or Limited."),
            Column::text("NominalConcurrencyShares", "Its part of what is answered at a time."),
            Column::text("Queues", "How many queues there are."),
            Column::text("HandSize", "Among how many of them a flow chooses."),
            Column::text("QueueLengthLimit", "How many requests wait in one at most."),
            Column::age(),
        ],
        cells: Arc::new(cells),
        generation: true,
        effect: Effect::missing("no request waits or is refused by it"),
        rules: Rules {
            default: Arc::new(default_level),
            prepare_create: Arc::new(prepare_create),
            validate: Arc::new(validate),
            validate_update: Arc::new(|new, _| validate(new)),
            validate_status: Arc::new(|new, _| validate_conditions(new)),
            ..Rules::plain()
        },
        ..Resource::named(
            "flowcontrol.apiserver.k8s.io",
            "v1",
            "PriorityLevelConfiguration",
            "prioritylevelconfigurations",
            "prioritylevelconfiguration",
            "api.flowcontrol.v1.PriorityLevelConfiguration",
        )
    }
}

fn default_level(level: &mut Value) {
    let spec = object_mut(level, "spec");
    if let Some(limited) = existing_mut(spec, "limited") {
        default(limited, "nominalConcurrencyShares", 30);
        default(limited, "lendablePercent", 0);
        if let Some(queuing) = existing_mut(limited, "limitResponse")
            .and_then(|response| existing_mut(response, "queuing"))
        {
            for (field, value) in [("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)] {
                default(queuing, field, value);
            }
        }
    }
    if text(spec, "type") == "Exempt" {
        let exempt = object_mut(spec, "exempt");
        default(exempt, "nominalConcurrencyShares", 0);
        default(exempt, "lendablePercent", 0);
    }
    object_mut(level, "status");
}

fn prepare_create(level: &mut Value, _: &Context<'_>) -> Result<(), Status> {
    set(level, "status", json!({}));
    Ok(())
}

fn validate(level: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let (spec, path) = (get(level, "spec"), Path::new("spec"));
    let kind = text(spec, "type");
    if kind == "Exempt" && text(level, "metadata.name") != "exempt" {
        let why = "type must be 'Limited' if the name is not 'exempt'";
        causes.invalid(&path.child("type"), kind, why);
    }
    match kind {
        "Exempt" => {
            if has(spec, "limited") {
                let why = "must be nil if the type is not Limited";
                causes.forbidden(&path.child("limited"), why);
            }
            shares(get(spec, "exempt"), 0, &path.child("exempt"), &mut causes);
        }
        "Limited" => {
            if has(spec, "exempt") {
                let why = "must be nil if the type is Limited";
                causes.forbidden(&path.child("exempt"), why);
            }
            if has(spec, "limited") {
                limited(get(spec, "limited"), &path.child("limited"), &mut causes);
            } else {
                causes.required(&path.child("limited"), "must not be empty when type is Limited");
            }
        }
        "" => {}
        other => causes.not_supported(&path.child("type"), other, &["Exempt", "Limited"]),
    }
    declared::validate("api.flowcontrol.v1.PriorityLevelConfiguration", level, &mut causes);
    causes.into_vec()
}

fn shares(part: &Value, least: i64, path: &Path, causes: &mut Causes) {
    let shares = number(part, "nominalConcurrencyShares").unwrap_or(0);
    if shares < least {
        let why = format!("must be greater than or equal to {least}");
        causes.invalid(&path.child("nominalConcurrencyShares"), shares, &why);
    }
    let percent = number(part, "lendablePercent");
    if let Some(percent) = percent.filter(|percent| !(0..=100).contains(percent)) {
        let why = "must be between 0 and 100, inclusive";
        causes.invalid(&path.child("lendablePercent"), percent, why);
    }
}

fn limited(limited: &Value, path: &Path, causes: &mut Causes) {
    shares(limited, 0, path, causes);
    causes.not_negative(
        &path.child("borrowingLimitPercent"),
        number(limited, "borrowingLimitPercent"),
    );
    let (response, path) = (get(limited, "limitResponse"), path.child("limitResponse"));
    let queuing = path.child("queuing");
    match text(response, "type") {
        "Reject" => {
            if has(response, "queuing") {
                causes.forbidden(
                    &queuing,
                    "must be nil if limited.limitResponse.type is not Limited",
                );
            }
        }
        "Queue" if has(response, "queuing") => queues(get(response, "queuing"), &queuing, causes),
        "Queue" => {
            causes.required(&queuing, "must not be empty if limited.limitResponse.type is Limited");
        }
        "" if has(limited, "limitResponse") => {} // the tables require it
        "" => causes.required(&path.child("type"), ""),
        other => causes.not_supported(&path.child("type"), other, &["Queue", "Reject"]),
    }
}

fn queues(queuing: &Value, path: &Path, causes: &mut Causes) {
    let of = |field: &str| number(queuing, field).unwrap_or(0);
    for field in ["queues", "handSize", "queueLengthLimit"] {
        if of(field) <= 0 {
            causes.invalid(&path.child(field), of(field), "must be positive");
        }
    }
    if of("queues") > QUEUES_MAX {
        let why = format!("must not be greater than {QUEUES_MAX}");
        causes.invalid(&path.child("queues"), of("queues"), &why);
    } else if of("handSize") > of("queues") {
        let why = format!("should not be greater than queues ({})", of("queues"));
        causes.invalid(&path.child("handSize"), of("handSize"), &why);
    }
}

fn cells(level: &Value, now: Timestamp) -> Vec<Value> {
    let limited = at(level, "spec.limited");
    let queuing = at(limited, "limitResponse.queuing");
    let cell = |part: &Value, field: &str| {
        number(part, field).map_or_else(|| Value::from(NONE), Value::from)
    };
    vec![
        name(level),
        text(level, "spec.type").into(),
        cell(limited, "nominalConcurrencyShares"),
        cell(queuing, "queues"),
        cell(queuing, "handSize"),
        cell(queuing, "queueLengthLimit"),
        age(level, now),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_limited_in_one_way() {
        let queue = |queuing: Value| json!({"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": queuing}}});
        let response = "spec.limited.limitResponse";
        let rows = [
            (queue(json!({})), String::new()),
            (queue(json!({"queues": 1})), format!("{response}.queuing.handSize")),
            (queue(json!({"queueLengthLimit": 0})), format!("{response}.queuing.queueLengthLimit")),
            (queue(Value::Null), format!("{response}.queuing")),
            (json!({"type": "Limited"}), "spec.limited".to_owned()),
            (json!({"type": "Limited", "limited": {}}), format!("{response}.type")),
            (
                json!({"type": "Limited", "limited": {"lendablePercent": 101, "limitResponse": {"type": "Reject"}}}),
                "spec.limited.lendablePercent".to_owned(),
            ),
            (json!({"type": "Exempt"}), "spec.type".to_owned()),
            (json!({"type": "Open"}), "spec.type".to_owned()),
            (json!({}), "spec.type".to_owned()),
        ];
        for (spec, expected) in rows {
            let mut level = json!({"metadata": {"name": "l"}, "spec": spec});
            default_level(&mut level);
            let causes = validate(&level);
            let fields: Vec<&str> = causes.iter().map(|cause| cause.field.as_str()).collect();
            assert_eq!(fields.join(" "), expected, "{level}");
        }
    }
}
