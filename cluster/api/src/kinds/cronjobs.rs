//! CronJob: a job again and again, at the times of a schedule.

use crate::cause::Cause;
use crate::context::Context;
use crate::cron::{self, Schedule};
use crate::field::{
    Causes, Path, at, default, default_text, get, has, list, number, object_mut, set, text,
};
use crate::resource::{Column, Effect, Resource, Rules, Subresource, words};
use crate::rules::{job, metadata};
use crate::selector::LabelSelector;
use crate::status::Status;
use crate::table::{NONE, age, containers_and_images, name, or_none, since};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

/// The annotation of a job that says for which time it was made.
pub const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// The longest name: minutes of eleven digits and a hyphen come behind it, and a job has 63 for its name.
const LONGEST: usize = 52;
/// What may happen when it is time and the job before still runs.
const POLICIES: [&str; 3] = ["Allow", "Forbid", "Replace"];

/// The row.
pub fn resource() -> Resource {
    Resource {
        short_names: words(["cj"]),
        categories: words(["all"]),
        subresources: vec![Subresource::status("CronJob")],
        columns: columns(),
        cells: Arc::new(cells),
        generation: true,
        effect: Effect::by("the controller of cron jobs"),
        rules: Rules {
            default: Arc::new(default_cron_job),
            prepare_create: Arc::new(prepare_create),
            validate: Arc::new(validate),
            validate_update: Arc::new(validate_update),
            ..Rules::plain()
        },
        ..Resource::named("batch", "v1", "CronJob", "cronjobs", "cronjob", "api.batch.v1.CronJob")
    }
}

fn columns() -> Vec<Column> {
    let suspend = Column::text("Suspend", "Whether no job is begun for now.");
    vec![
        Column::name(),
        Column::text("Schedule", "When it comes."),
        Column::text("Timezone", "By which clocks; by those of UTC where none are named."),
        Column { kind: "boolean".into(), ..suspend },
        Column::integer("Active", "How many jobs run."),
        Column::text("Last Schedule", "The time since it came last."),
        Column::age(),
        Column::text("Containers", "The containers of the template.").wide(),
        Column::text("Images", "Their images.").wide(),
        Column::text("Selector", "Which pods are counted.").wide(),
    ]
}

fn default_cron_job(object: &mut Value) {
    let spec = object_mut(object, "spec");
    default_text(spec, "concurrencyPolicy", "Allow");
    default(spec, "suspend", false);
    default(spec, "successfulJobsHistoryLimit", 3);
    default(spec, "failedJobsHistoryLimit", 1);
    if has(spec, "jobTemplate") {
        job::default_template(object_mut(spec, "jobTemplate"));
    }
    object_mut(object, "status");
}

fn prepare_create(object: &mut Value, _: &Context<'_>) -> Result<(), Status> {
    set(object, "status", json!({}));
    Ok(())
}

fn validate(object: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let name = text(object, "metadata.name");
    if name.len() > LONGEST {
        let path = Path::new("metadata").child("name");
        causes.invalid(&path, name, &format!("must be no more than {LONGEST} characters"));
    }
    validate_spec(object, &mut causes);
    causes.into_vec()
}

fn validate_update(new: &Value, _: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    causes.append(metadata::validate_again(new));
    validate_spec(new, &mut causes);
    causes.into_vec()
}

fn validate_spec(object: &Value, causes: &mut Causes) {
    let (spec, path) = (get(object, "spec"), Path::new("spec"));
    schedule(spec, &path, causes);
    let limits = ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"];
    for field in ["startingDeadlineSeconds"].into_iter().chain(limits) {
        causes.not_negative(&path.child(field), number(spec, field));
    }
    causes.one_of(&path.child("concurrencyPolicy"), text(spec, "concurrencyPolicy"), &POLICIES);
    let path = path.child("jobTemplate");
    if has(spec, "jobTemplate") {
        job::validate_template(at(spec, "jobTemplate.spec"), &path.child("spec"), causes);
    } else {
        causes.required(&path, "");
    }
}

fn schedule(spec: &Value, path: &Path, causes: &mut Causes) {
    let (given, path_of) = (text(spec, "schedule"), path.child("schedule"));
    if given.is_empty() {
        causes.required(&path_of, "");
    } else if given.contains("TZ") {
        let why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        causes.invalid(&path_of, given, why);
    } else if let Err(error) = Schedule::parse(given) {
        causes.invalid(&path_of, given, &error.to_string());
    }
    if has(spec, "timeZone") {
        let (zone, path) = (text(spec, "timeZone"), path.child("timeZone"));
        let why = match zone {
            "" => "must be nil or non-empty string",
            zone if zone.eq_ignore_ascii_case("local") => {
                "must be an explicit time zone as defined in https://www.iana.org/time-zones"
            }
            zone if cron::zone(zone).is_none() => "unknown time zone",
            _ => return,
        };
        causes.invalid(&path, zone, why);
    }
}

fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = get(object, "spec");
    let template = "spec.jobTemplate.spec.template.spec.containers";
    let [containers, images] = containers_and_images(object, template);
    let last = text(object, "status.lastScheduleTime");
    let selector = LabelSelector::from_object(at(spec, "jobTemplate.spec.selector"));
    let selector = selector.map_or(String::new(), |selector| selector.to_string());
    let suspend = if at(spec, "suspend") == true { "True" } else { "False" };
    vec![
        name(object),
        text(spec, "schedule").into(),
        or_none(text(spec, "timeZone")),
        suspend.into(),
        list(object, "status.active").len().into(),
        if last.is_empty() { NONE.into() } else { since(last, now).into() },
        age(object, now),
        containers,
        images,
        or_none(&selector),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str, spec: &Value) -> Vec<String> {
        let pod = json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]});
        let mut object = json!({"metadata": {"name": name}, "spec": {
            "schedule": "0 3 * * *", "jobTemplate": {"spec": {"template": {"spec": pod}}}}});
        for (key, value) in spec.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        default_cron_job(&mut object);
        validate(&object).into_iter().map(|cause| cause.field).collect()
    }

    #[test]
    fn what_could_never_come_or_never_be_made_is_refused_by_its_field() {
        let none: [&str; 0] = [];
        for (spec, fields) in [
            (json!({}), &none[..]),
            (json!({"schedule": "@hourly", "timeZone": "Europe/Berlin"}), &none),
            (json!({"schedule": "0 0 31 2 *"}), &none),
            (json!({"schedule": ""}), &["spec.schedule"]),
            (json!({"schedule": "0 3 * * 7"}), &["spec.schedule"]),
            (json!({"schedule": "CRON_TZ=UTC 0 3 * * *"}), &["spec.schedule"]),
            (json!({"timeZone": ""}), &["spec.timeZone"]),
            (json!({"timeZone": "local"}), &["spec.timeZone"]),
            (json!({"timeZone": "Europe/Atlantis"}), &["spec.timeZone"]),
            (json!({"startingDeadlineSeconds": -1}), &["spec.startingDeadlineSeconds"]),
            (json!({"failedJobsHistoryLimit": -1}), &["spec.failedJobsHistoryLimit"]),
            (
                json!({"jobTemplate": {"spec": {"template": {"spec": {
                    "containers": [{"name": "c", "image": "i"}]}}}}}),
                &["spec.jobTemplate.spec.template.spec.restartPolicy"],
            ),
        ] {
            assert_eq!(refused("nightly", &spec), fields, "{spec}");
        }
        assert_eq!(refused(&"x".repeat(53), &json!({})), ["metadata.name"]);
        assert_eq!(refused(&"x".repeat(52), &json!({})), none);
    }
}
