//! Job: pods that run to their end, until enough of them have succeeded.
//!
//! The columns and cells are here; defaults and rules are in [`crate::rules::job`].

use crate::field::{at, has, list, map, number, text};
use crate::resource::{
    Column, DeletionRule, Effect, FieldLabel, Resource, Rules, Subresource, words,
};
use crate::rules::job;
use crate::selector::LabelSelector;
use crate::table::{age, containers_and_images, human_duration, name, or_none};
use jiff::Timestamp;
use serde_json::Value;
use std::sync::Arc;

/// The row.
pub fn resource() -> Resource {
    Resource {
        categories: words(["all"]),
        subresources: vec![Subresource::status("Job")],
        columns: vec![
            Column::name(),
            Column::text("Status", "Running, Complete, Failed, Suspended or on its way there."),
            Column::text("Completions", "How many pods have succeeded, of how many."),
            Column::text("Duration", "How long it ran."),
            Column::age(),
            Column::text("Containers", "The containers of the template.").wide(),
            Column::text("Images", "Their images.").wide(),
            Column::text("Selector", "Which pods are counted.").wide(),
        ],
        cells: Arc::new(cells),
        generation: true,
        effect: Effect::by("the controller of jobs"),
        rules: Rules {
            default: Arc::new(job::default_job),
            prepare_create: Arc::new(job::prepare_create),
            validate: Arc::new(job::validate_create),
            validate_update: Arc::new(job::validate_update),
            validate_status: Arc::new(job::validate_status),
            ..Rules::plain()
        },
        fields: vec![FieldLabel {
            absent: "0".into(),
            ..FieldLabel::new("status.successful", "/status/succeeded")
        }],
        deletion: DeletionRule::ORPHANS,
        ..Resource::named("batch", "v1", "Job", "jobs", "job", "api.batch.v1.Job")
    }
}

/// The word in the STATUS column.
pub fn status_word(job: &Value) -> &'static str {
    let holds = |kind: &str| {
        list(job, "status.conditions")
            .iter()
            .any(|condition| text(condition, "type") == kind && text(condition, "status") == "True")
    };
    if holds("Complete") {
        "Complete"
    } else if holds("Failed") {
        "Failed"
    } else if has(job, "metadata.deletionTimestamp") {
        "Terminating"
    } else if holds("Suspended") {
        "Suspended"
    } else if holds("FailureTarget") {
        "FailureTarget"
    } else if holds("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn cells(job: &Value, now: Timestamp) -> Vec<Value> {
    let succeeded = number(job, "status.succeeded").unwrap_or(0);
    let completions = match (number(job, "spec.completions"), number(job, "spec.parallelism")) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, Some(parallelism)) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        _ => format!("{succeeded}/1"),
    };
    let time = |path: &str| text(job, path).parse::<Timestamp>().ok();
    let duration = match (time("status.startTime"), time("status.completionTime")) {
        (None, _) => String::new(),
        (Some(start), end) => human_duration(end.unwrap_or(now).as_second() - start.as_second()),
    };
    let [containers, images] = containers_and_images(job, "spec.template.spec.containers");
    let selector = at(job, "spec.selector");
    let shown = match LabelSelector::from_object(selector) {
        Ok(selector) => selector.to_string(),
        Err(_) => map(selector, "matchLabels")
            .map_or(String::new(), |labels| labels.keys().cloned().collect::<Vec<_>>().join(",")),
    };
    vec![
        name(job),
        status_word(job).into(),
        completions.into(),
        duration.into(),
        age(job, now),
        containers,
        images,
        or_none(&shown),
    ]
}
