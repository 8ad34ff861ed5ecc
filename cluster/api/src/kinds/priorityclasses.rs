//! PriorityClass: a name for how much a pod matters.

use crate::cause::Cause;
use crate::field::{Causes, Path, default_text, flag, get, number, text};
use crate::policy::priority::{HIGHEST_OF_USERS, SYSTEM_CLASSES, SYSTEM_PREFIX};
use crate::resource::{Column, Effect, Resource, Rules, words};
use crate::rules::metadata;
use crate::table::{age, name};
use serde_json::Value;
use std::sync::Arc;

/// The row.
pub fn resource() -> Resource {
    Resource {
        short_names: words(["pc"]),
        namespaced: false,
        columns: vec![
            Column::name(),
            Column::integer("Value", "How much a pod of the class matters: more goes first."),
            Column {
                kind: "boolean".into(),
                ..Column::text("Global-Default", "Whether pods that name no class are of this one.")
            },
            Column::age(),
            Column::text("PreemptionPolicy", "Whether a pod of the class may take others' room."),
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
        effect: Effect::by("every pod that is created, and the scheduler"),
        rules: Rules {
            default: Arc::new(|class| {
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
    let called = text(class, "metadata.name");
    let value = number(class, "value").unwrap_or(0);
    let known = SYSTEM_CLASSES.iter().find(|system| system.name == called);
    if called.starts_with(SYSTEM_PREFIX) {
        let is_as_known =
            known.is_some_and(|it| it.value == value && !flag(class, "globalDefault"));
        if !is_as_known {
            let why = match known {
                Some(known) => format!("value of {called} PriorityClass must be {}", known.value),
                None => format!("{called} is not a known system priority class"),
            };
            let why = format!(
                "priority class names with '{SYSTEM_PREFIX}' prefix are reserved for system use only. error: {why}"
            );
            causes.forbidden(&Path::new("metadata").child("name"), &why);
        }
    } else if value > HIGHEST_OF_USERS {
        let why = format!("maximum allowed value of a user defined priority is {HIGHEST_OF_USERS}");
        causes.forbidden(&Path::new("value"), &why);
    }
    let policy = text(class, "preemptionPolicy");
    causes.one_of(&Path::new("preemptionPolicy"), policy, &["PreemptLowerPriority", "Never"]);
    causes.into_vec()
}

fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    causes.append(metadata::validate_again(new));
    if number(new, "value").unwrap_or(0) != number(old, "value").unwrap_or(0) {
        causes.forbidden(&Path::new("value"), "may not be changed in an update.");
    }
    let path = Path::new("preemptionPolicy");
    causes.unchanged(&path, get(new, "preemptionPolicy"), get(old, "preemptionPolicy"));
    causes.into_vec()
}
