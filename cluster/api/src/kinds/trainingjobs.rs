//! TrainingJob: trainers and parameter servers that grow and shrink while they learn.
//!
//! A job has a trainer role and, unless it reduces among its trainers, a parameter-server role;
//! each role says how few and how many there may be. How many there are is the auction's business
//! and is told in the status.

use crate::cause::Cause;
use crate::context::Context;
use crate::field::{
    Causes, Path, at, default, default_text, existing_mut, get, has, number, object_mut, set, text,
};
use crate::names;
use crate::resource::{Column, Effect, FieldLabel, Resource, Rules, Subresource, words};
use crate::rules::resources::{canonical_requirements, validate_requirements};
use crate::rules::template;
use crate::status::Status;
use crate::table::{age, name};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

/// How gradients come together. A mode that nobody would serve is refused here, not left waiting.
pub const MODES: &[&str] = &["async", "boundedStaleness", "sync"];
/// The fields that one mode alone has, and the least and the most of each.
const OF_MODES: [(&str, &str, std::ops::RangeInclusive<i64>); 3] = [
    ("boundedStaleness", "maxStaleness", 0..=1_000_000),
    ("sync", "backupTrainers", 0..=MOST_MEMBERS - 1),
    ("sync", "batchParts", 1..=MOST_PARTS),
];
/// The most parts of a step's batch.
const MOST_PARTS: i64 = 1_024;
/// How far apart trainers may be where a job with bounded staleness says nothing.
const STALENESS: i64 = 3;
const ROLES: [&str; 2] = ["parameterServer", "trainer"];
/// The most pods of one role: as many as fit twice over on the largest cluster that is meant, 5,000 nodes.
const MOST_MEMBERS: i64 = 10_000;
/// Seconds between checkpoints where the job says nothing.
const INTERVAL_SECONDS: i64 = 600;
/// The shortest and the longest time between them: a week.
const INTERVALS: std::ops::RangeInclusive<i64> = 1..=604_800;
/// Checkpoints that are kept where the job says nothing.
const KEEP: i64 = 3;
/// The most that are kept.
const MOST_KEPT: i64 = 1_000;

/// The row.
pub fn resource() -> Resource {
    Resource {
        short_names: words(["tj"]),
        categories: words(["all"]),
        subresources: vec![Subresource::status("TrainingJob")],
        columns: vec![
            Column::name(),
            Column::text("Status", "Where the job is on its way."),
            Column::integer("Parameter-Servers", "How many parameter servers it has."),
            Column::integer("Trainers", "How many trainers it has."),
            Column::integer("Step", "How many steps were made."),
            Column::text("Loss", "The loss at the last report."),
            Column::age(),
            Column::text("Mode", "How gradients come together.").wide(),
            Column::text("Accuracy", "The accuracy at the last report.").wide(),
            Column::integer("Saved", "The step of the newest checkpoint.").wide(),
        ],
        cells: Arc::new(cells),
        name: names::dns_label,
        generation: true,
        effect: Effect::by("the actor of the training job"),
        rules: Rules {
            default: Arc::new(default_job),
            prepare_create: Arc::new(|job: &mut Value, _: &Context<'_>| -> Result<(), Status> {
                set(job, "status", json!({ "phase": "Pending" }));
                Ok(())
            }),
            validate: Arc::new(validate),
            validate_update: Arc::new(validate_update),
            ..Rules::plain()
        },
        fields: vec![FieldLabel::new("status.phase", "/status/phase")],
        ..Resource::named(
            "training.impresario.dev",
            "v1",
            "TrainingJob",
            "trainingjobs",
            "trainingjob",
            "dev.impresario.training.v1.TrainingJob",
        )
    }
}

fn default_job(job: &mut Value) {
    let spec = object_mut(job, "spec");
    default_text(spec, "mode", "async");
    if let Some(checkpoint) = existing_mut(spec, "checkpoint") {
        default(checkpoint, "keep", KEEP);
        if !has(checkpoint, "intervalSteps") {
            default(checkpoint, "intervalSeconds", INTERVAL_SECONDS);
        }
    }
    for name in ROLES {
        let Some(role) = existing_mut(spec, name) else { continue };
        default(role, "min", 1);
        let min = number(role, "min").unwrap_or(1);
        default(role, "max", min.max(1));
        if let Some(resources) = existing_mut(role, "resources") {
            canonical_requirements(resources);
        }
        if let Some(pod_template) = existing_mut(role, "template") {
            template::default_template(pod_template);
        }
    }
    let mode = text(spec, "mode").to_owned();
    if mode == "boundedStaleness" {
        default(spec, "maxStaleness", STALENESS);
    }
    if mode == "sync" {
        default(spec, "backupTrainers", 0);
        // As many as may ever compute at a time; what a step is does not change with their number.
        let most = number(spec, "trainer.max").unwrap_or(1);
        default(spec, "batchParts", most.clamp(1, MOST_PARTS));
    }
}

fn validate(job: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let spec = get(job, "spec");
    let path = Path::new("spec");
    let mode = text(spec, "mode");
    causes.one_of(&path.child("mode"), mode, MODES);
    if !has(spec, "trainer") {
        causes.required(&path.child("trainer"), "a training job needs trainers");
    }
    if MODES.contains(&mode) && !has(spec, "parameterServer") {
        causes.required(
            &path.child("parameterServer"),
            &format!("must be given when `mode` is '{mode}'"),
        );
    }
    validate_mode(spec, mode, &path, &mut causes);
    for name in ROLES {
        if has(spec, name) {
            validate_role(get(spec, name), &path.child(name), &mut causes);
        }
    }
    validate_stop(get(spec, "stop"), &path.child("stop"), &mut causes);
    let checkpoint = get(spec, "checkpoint");
    if !checkpoint.is_null() {
        validate_checkpoint(checkpoint, &path.child("checkpoint"), &mut causes);
    }
    causes.into_vec()
}

/// What one mode alone has says something in that one, and is refused in another.
fn validate_mode(spec: &Value, mode: &str, path: &Path, causes: &mut Causes) {
    for (of, field, bounds) in OF_MODES {
        let Some(value) = number(spec, field) else { continue };
        if of != mode {
            causes
                .forbidden(&path.child(field), &format!("may only be given when `mode` is '{of}'"));
        } else if !bounds.contains(&value) {
            let rule =
                format!("must be between {} and {}, inclusive", bounds.start(), bounds.end());
            causes.invalid(&path.child(field), value, &rule);
        }
    }
    let (backup, most) = (number(spec, "backupTrainers"), number(spec, "trainer.max").unwrap_or(1));
    if let Some(backup) = backup.filter(|backup| mode == "sync" && *backup > 0 && *backup >= most) {
        let field = path.child("backupTrainers");
        causes.invalid(&field, backup, "must be less than `trainer.max`");
    }
}

fn validate_checkpoint(checkpoint: &Value, path: &Path, causes: &mut Causes) {
    at_least_one(checkpoint, "intervalSteps", path, causes);
    for (field, bounds) in [("intervalSeconds", INTERVALS), ("keep", 1..=MOST_KEPT)] {
        if let Some(value) = number(checkpoint, field).filter(|value| !bounds.contains(value)) {
            let rule =
                format!("must be between {} and {}, inclusive", bounds.start(), bounds.end());
            causes.invalid(&path.child(field), value, &rule);
        }
    }
    if text(checkpoint, "path").is_empty() {
        causes.required(&path.child("path"), "");
    }
    for field in ["path", "resumeFrom"] {
        let given = text(checkpoint, field);
        let leads_away = given.split('/').any(|part| part == "..");
        if !given.is_empty() && (!given.starts_with('/') || given == "/" || leads_away) {
            causes.invalid(
                &path.child(field),
                given,
                "must be an absolute path below '/' without '..'",
            );
        }
    }
}

fn at_least_one(object: &Value, field: &str, path: &Path, causes: &mut Causes) {
    if let Some(value) = number(object, field).filter(|value| *value < 1) {
        causes.invalid(&path.child(field), value, "must be greater than 0");
    }
}

fn validate_role(role: &Value, path: &Path, causes: &mut Causes) {
    for field in ["min", "max"] {
        let count = number(role, field).filter(|count| !(1..=MOST_MEMBERS).contains(count));
        if let Some(count) = count {
            let rule = format!("must be between 1 and {MOST_MEMBERS}, inclusive");
            causes.invalid(&path.child(field), count, &rule);
        }
    }
    let (min, max) = (number(role, "min").unwrap_or(1), number(role, "max").unwrap_or(1));
    if min >= 1 && max >= 1 && max < min {
        causes.invalid(&path.child("max"), max, "must be greater than or equal to `min`");
    }
    if has(role, "resources") {
        validate_requirements(get(role, "resources"), &path.child("resources"), causes);
    }
    let template_path = path.child("template");
    if !has(role, "template") {
        causes.required(&template_path, "");
        return;
    }
    template::validate_template(get(role, "template"), &template_path, causes);
}

fn validate_stop(stop: &Value, path: &Path, causes: &mut Causes) {
    let rules = ["targetLoss", "targetMetric", "epochs", "convergence"];
    if !rules.iter().any(|rule| has(stop, rule)) {
        causes.required(
            path,
            "must specify one of: `targetLoss`, `targetMetric`, `epochs` or `convergence`",
        );
    }
    at_least_one(stop, "epochs", path, causes);
    let convergence = get(stop, "convergence");
    if !convergence.is_null() {
        let path = path.child("convergence");
        at_least_one(convergence, "epochs", &path, causes);
        let threshold = at(convergence, "threshold");
        if threshold.as_f64().is_none_or(|threshold| threshold <= 0.0) {
            causes.invalid(&path.child("threshold"), threshold.clone(), "must be greater than 0");
        }
    }
}

/// How many there may be can change while the job trains; what they are cannot.
fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    causes.append(validate(new));
    let path = Path::new("spec");
    // Steps that were cut otherwise would make other parameters.
    for field in ["mode", "batchParts"] {
        let [new, old] = [new, old].map(|job| get(get(job, "spec"), field));
        causes.unchanged(&path.child(field), new, old);
    }
    // The pods see these folders, and no others. Without a checkpoint a job may end whose folder is full.
    let checkpoint = path.child("checkpoint");
    let [new_one, old_one] = [new, old].map(|job| at(job, "spec.checkpoint"));
    if !new_one.is_null() {
        let mut unchanged = |field: &str| {
            causes.unchanged(&checkpoint.child(field), get(new_one, field), get(old_one, field));
        };
        unchanged("path");
        // One that waits for what it is to begin from may begin without.
        if !get(new_one, "resumeFrom").is_null() {
            unchanged("resumeFrom");
        }
    }
    for name in ROLES {
        let role = path.child(name);
        let [new_role, old_role] = [new, old].map(|job| get(get(job, "spec"), name));
        if new_role.is_null() != old_role.is_null() {
            causes.invalid(&role, new_role.clone(), "field is immutable");
            continue;
        }
        for field in ["template", "resources"] {
            causes.unchanged(&role.child(field), get(new_role, field), get(old_role, field));
        }
    }
    causes.into_vec()
}

fn cells(job: &Value, now: Timestamp) -> Vec<Value> {
    let status = get(job, "status");
    let count = |field: &str| Value::from(number(status, field).unwrap_or(0));
    let ratio = |field: &str| {
        Value::from(
            get(status, field).as_f64().map_or(String::new(), |value| format!("{value:.4}")),
        )
    };
    vec![
        name(job),
        text(status, "phase").into(),
        count("parameterServers"),
        count("trainers"),
        count("step"),
        ratio("loss"),
        age(job, now),
        text(job, "spec.mode").into(),
        ratio("accuracy"),
        number(status, "lastCheckpoint.step").map_or(Value::Null, Value::from),
    ]
}
