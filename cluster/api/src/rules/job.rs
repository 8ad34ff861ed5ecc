//! Jobs: the selector that the server makes, and what makes a job make sense.

mod policies;

use crate::cause::Cause;
use crate::context::Context;
use crate::field::{
    Causes, Path, as_map, at, default, default_text, existing_mut, flag, get, has, list, map,
    number, object_mut, same, set, text,
};
use crate::names;
use crate::rules::metadata;
use crate::rules::pod;
use crate::rules::template;
use crate::selector::LabelSelector;
use crate::status::Status;
use serde_json::{Map, Value, json};

/// The labels that tell which job a pod is of: its uid and its name, each under an old name too.
pub const UID_LABELS: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];
/// See [`UID_LABELS`].
pub const NAME_LABELS: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];
/// Most pods of an indexed job at once, and most that may fail.
const INDEXED_MAX: i64 = 100_000;
/// The same where each of more indexes than that counts its own failures.
const MANY_INDEXES_MAX: i64 = 10_000;
/// The longest name of who else manages a job.
const MANAGER_MAX: usize = 63;

/// Defaults of a job.
pub fn default_job(job: &mut Value) {
    let spec = object_mut(job, "spec");
    if !has(spec, "completions") && !has(spec, "parallelism") {
        set(spec, "completions", 1);
        set(spec, "parallelism", 1);
    }
    default(spec, "parallelism", 1);
    let per_index = has(spec, "backoffLimitPerIndex");
    default(spec, "backoffLimit", if per_index { i64::from(i32::MAX) } else { 6 });
    default_text(spec, "completionMode", "NonIndexed");
    default(spec, "suspend", false);
    default(spec, "manualSelector", false);
    let replacement = replacement_policy(spec);
    default_text(spec, "podReplacementPolicy", replacement);
    default_parts(spec);
    label_like_template(job);
    object_mut(job, "status");
}

/// What is filled in of the spec of a template of jobs: the rest is when a job is made of it.
pub fn default_template(job_template: &mut Value) {
    object_mut(job_template, "metadata");
    default_parts(object_mut(job_template, "spec"));
}

fn default_parts(spec: &mut Value) {
    if let Some(policy) = existing_mut(spec, "podFailurePolicy") {
        for rule in crate::field::list_mut(policy, "rules") {
            for pattern in crate::field::list_mut(rule, "onPodConditions") {
                default_text(pattern, "status", "True");
            }
        }
    }
    if let Some(pod_template) = existing_mut(spec, "template") {
        template::default_template(pod_template);
    }
}

/// A job without labels has those of its pods.
fn label_like_template(job: &mut Value) {
    let labels = at(job, "spec.template.metadata.labels").clone();
    let own = map(job, "metadata.labels").is_some_and(|own| !own.is_empty());
    if !own && labels.as_object().is_some_and(|labels| !labels.is_empty()) {
        set(object_mut(job, "metadata"), "labels", labels);
    }
}

/// Makes the selector, and the labels by which it finds the job's pods.
pub fn prepare_create(job: &mut Value, _: &Context<'_>) -> Result<(), Status> {
    set(job, "status", json!({}));
    if flag(job, "spec.manualSelector") {
        return Ok(());
    }
    let uid = text(job, "metadata.uid").to_owned();
    let name = text(job, "metadata.name").to_owned();
    let own_labels = map(job, "metadata.labels").cloned();
    let template_labels = map(job, "spec.template.metadata.labels").cloned();
    let shared = own_labels.is_some() && own_labels == template_labels;
    let spec = object_mut(job, "spec");
    let selector = as_map(object_mut(spec, "selector"));
    let wanted = selector.entry("matchLabels").or_insert_with(|| Value::Object(Map::new()));
    as_map(wanted).insert(UID_LABELS[0].to_owned(), uid.as_str().into());
    let pod_template = object_mut(spec, "template");
    let labels = as_map(object_mut(object_mut(pod_template, "metadata"), "labels"));
    for label in UID_LABELS {
        labels.entry(label).or_insert_with(|| uid.as_str().into());
    }
    for label in NAME_LABELS {
        labels.entry(label).or_insert_with(|| name.as_str().into());
    }
    if shared {
        let labels = labels.clone();
        set(object_mut(job, "metadata"), "labels", Value::Object(labels));
    }
    label_like_template(job);
    Ok(())
}

/// A new job.
pub fn validate_create(job: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let manual = flag(job, "spec.manualSelector");
    if !manual {
        generated_selector(job, &mut causes);
    }
    validate_spec(get(job, "spec"), &Path::new("spec"), &mut causes);
    name_fits_pods(job, &mut causes);
    causes.into_vec()
}

/// Pods of an indexed job carry their index in their host name.
fn name_fits_pods(job: &Value, causes: &mut Causes) {
    let name = text(job, "metadata.name");
    if text(job, "spec.completionMode") == "Indexed"
        && let Some(completions) = number(job, "spec.completions").filter(|count| *count > 0)
    {
        let longest = format!("{name}-{}", completions - 1);
        for why in names::dns_label(&longest) {
            let why =
                format!("will not able to create pod with invalid DNS label: {longest}: {why}");
            causes.invalid(&Path::new("metadata").child("name"), name, &why);
        }
    }
}

fn generated_selector(job: &Value, causes: &mut Causes) {
    let uid = text(job, "metadata.uid");
    let labels = map(job, "spec.template.metadata.labels");
    let label =
        |name: &str| labels.and_then(|l| l.get(name)).and_then(Value::as_str).unwrap_or_default();
    let labels_path =
        ["template", "metadata", "labels"].iter().fold(Path::new("spec"), |p, c| p.child(c));
    let name = text(job, "metadata.name");
    for key in UID_LABELS {
        if label(key) != uid {
            causes.invalid(&labels_path.key(key), label(key), &format!("must be '{uid}'"));
        }
    }
    for key in NAME_LABELS {
        if label(key) != name {
            causes.invalid(&labels_path.key(key), label(key), &format!("must be '{name}'"));
        }
    }
    let ours = json!({ "matchLabels": { UID_LABELS[0]: uid } });
    let selector = at(job, "spec.selector");
    if !same(selector, &ours) {
        causes.invalid(
            &Path::new("spec").child("selector"),
            selector.clone(),
            "`selector` not auto-generated",
        );
    }
}

fn at_most(
    causes: &mut Causes,
    path: &Path,
    field: &str,
    value: Option<i64>,
    limit: i64,
    when: &str,
) {
    if let Some(value) = value.filter(|value| *value > limit) {
        let why = format!("must be less than or equal to {limit}{when}");
        causes.invalid(&path.child(field), value, &why);
    }
}

/// A job whose pods have numbers: how many there may be depends on how they may fail.
fn indexed(spec: &Value, path: &Path, causes: &mut Causes) {
    let (parallelism, failed) = (number(spec, "parallelism"), number(spec, "maxFailedIndexes"));
    let completions = number(spec, "completions");
    if completions.is_none() {
        causes.required(&path.child("completions"), "when completion mode is Indexed");
    }
    at_most(
        causes,
        path,
        "parallelism",
        parallelism,
        INDEXED_MAX,
        " when completion mode is Indexed",
    );
    if let (Some(failed), Some(completions)) = (failed, completions)
        && failed > completions
    {
        let why = "must be less than or equal to completions";
        causes.invalid(&path.child("maxFailedIndexes"), failed, why);
    }
    at_most(causes, path, "maxFailedIndexes", failed, INDEXED_MAX, "");
    if completions.is_some_and(|count| count > INDEXED_MAX) && has(spec, "backoffLimitPerIndex") {
        let when = format!(
            " when completions are above {INDEXED_MAX} and used with backoff limit per index"
        );
        at_most(causes, path, "parallelism", parallelism, MANY_INDEXES_MAX, &when);
        at_most(causes, path, "maxFailedIndexes", failed, MANY_INDEXES_MAX, &when);
        if failed.is_none() {
            let why = format!("must be specified when completions is above {INDEXED_MAX}");
            causes.required(&path.child("maxFailedIndexes"), &why);
        }
    }
}

/// The spec of a template of jobs: what the server fills in when a job is made of it may be left out.
pub fn validate_template(spec: &Value, path: &Path, causes: &mut Causes) {
    let mut spec = spec.clone();
    default_text(&mut spec, "completionMode", "NonIndexed");
    let replacement = replacement_policy(&spec);
    default_text(&mut spec, "podReplacementPolicy", replacement);
    validate_parts(&spec, path, causes);
}

/// When a pod that ends is replaced, where nobody says.
fn replacement_policy(spec: &Value) -> &'static str {
    if has(spec, "podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" }
}

fn validate_spec(spec: &Value, path: &Path, causes: &mut Causes) {
    let selector = get(spec, "selector");
    if selector.is_null() {
        causes.required(&path.child("selector"), "");
    }
    validate_parts(spec, path, causes);
}

fn validate_parts(spec: &Value, path: &Path, causes: &mut Causes) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        causes.not_negative(&path.child(field), number(spec, field));
    }
    if has(spec, "maxFailedIndexes") && !has(spec, "backoffLimitPerIndex") {
        causes.required(&path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
    }
    let manager = text(spec, "managedBy");
    if has(spec, "managedBy") {
        causes.invalid_all(&path.child("managedBy"), manager, names::domain_prefixed(manager));
        if manager.len() > MANAGER_MAX {
            causes.too_long(&path.child("managedBy"), MANAGER_MAX);
        }
    }
    let mode = text(spec, "completionMode");
    if !["Indexed", "NonIndexed"].contains(&mode) {
        causes.not_supported(&path.child("completionMode"), mode, &["Indexed", "NonIndexed"]);
    }
    match mode {
        "Indexed" => indexed(spec, path, causes),
        "NonIndexed" => {
            for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
                if let Some(value) = number(spec, field) {
                    causes.invalid(&path.child(field), value, "requires indexed completion mode");
                }
            }
        }
        _ => {}
    }
    policies::failure(spec, path, causes);
    policies::success(spec, path, causes);
    let replacement = text(spec, "podReplacementPolicy");
    let replacement_path = path.child("podReplacementPolicy");
    if has(spec, "podFailurePolicy") {
        if replacement != "Failed" {
            causes.not_supported(&replacement_path, replacement, &["Failed"]);
        }
    } else if !["Failed", "TerminatingOrFailed"].contains(&replacement) {
        causes.not_supported(&replacement_path, replacement, &["Failed", "TerminatingOrFailed"]);
    }
    let selector = get(spec, "selector");
    let template_path = path.child("template");
    let pod_template = get(spec, "template");
    let labels = at(pod_template, "metadata.labels");
    if let Ok(selector) = LabelSelector::from_object(selector)
        && !at(spec, "selector").is_null()
        && !selector.matches(labels.as_object())
    {
        causes.invalid(
            &template_path.child("metadata").child("labels"),
            labels.clone(),
            "`selector` does not match template `labels`",
        );
    }
    template::validate_template(pod_template, &template_path, causes);
    let restart = text(pod_template, "spec.restartPolicy");
    let restart_path = template_path.child("spec").child("restartPolicy");
    match restart {
        "OnFailure" if has(spec, "podFailurePolicy") => causes.invalid(
            &restart_path,
            restart,
            "only \"Never\" is supported when podFailurePolicy is specified",
        ),
        "OnFailure" | "Never" => {}
        "Always" | "" => {
            causes.required(&restart_path, "valid values: \"OnFailure\", \"Never\"");
        }
        other => causes.not_supported(&restart_path, other, &["OnFailure", "Never"]),
    }
}

/// A change of a job (new, old): its counts and its pause may change, what it is may not.
pub fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    // It is looked at as a new one, and then as a change.
    causes.append(metadata::validate_again(new));
    causes.append(validate_create(new));
    let (new_spec, old_spec) = (get(new, "spec"), get(old, "spec"));
    let path = Path::new("spec");
    validate_spec(new_spec, &path, &mut causes);
    completions(new_spec, old_spec, &path, &mut causes);
    causes.unchanged(&path.child("selector"), get(new_spec, "selector"), get(old_spec, "selector"));
    unchanged_template(new, old, &path.child("template"), &mut causes);
    for field in
        ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"]
    {
        causes.unchanged(&path.child(field), get(new_spec, field), get(old_spec, field));
    }
    causes.into_vec()
}

/// An indexed job may grow and shrink if its parallelism does so with it.
fn completions(new: &Value, old: &Value, path: &Path, causes: &mut Causes) {
    let elastic = text(new, "completionMode") == "Indexed"
        && number(new, "completions").is_some()
        && number(old, "completions").is_some()
        && number(new, "completions") == number(new, "parallelism")
        && number(old, "completions") == number(old, "parallelism");
    if !elastic {
        let path = path.child("completions");
        causes.unchanged(&path, get(new, "completions"), get(old, "completions"));
    }
}

/// A job that is paused and has not begun may still be told where its pods should run.
fn unchanged_template(new: &Value, old: &Value, path: &Path, causes: &mut Causes) {
    let mut template = at(new, "spec.template").clone();
    let before = at(old, "spec.template");
    if flag(old, "spec.suspend") && !has(old, "status.startTime") {
        crate::field::copy(before, &mut template, "metadata");
        let old_spec = get(before, "spec");
        let spec = object_mut(&mut template, "spec");
        for field in ["nodeSelector", "tolerations", "schedulingGates"] {
            crate::field::copy(old_spec, spec, field);
        }
        if let Some(affinity) = existing_mut(spec, "affinity") {
            crate::field::copy(get(old_spec, "affinity"), affinity, "nodeAffinity");
        }
    }
    for part in ["metadata", "spec"] {
        causes.unchanged(&path.child(part), get(&template, part), get(before, part));
    }
}

/// A change of a job's status.
pub fn validate_status(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let status = get(new, "status");
    let path = Path::new("status");
    for field in ["active", "succeeded", "failed", "ready", "terminating"] {
        causes.not_negative(&path.child(field), number(status, field));
    }
    let finished = |job: &Value| {
        list(job, "status.conditions").iter().any(|condition| {
            matches!(text(condition, "type"), "Complete" | "Failed")
                && text(condition, "status") == "True"
        })
    };
    if finished(old) {
        if !finished(new) {
            causes.invalid(
                &path.child("conditions"),
                get(status, "conditions").clone(),
                "field is immutable: a finished job stays finished",
            );
        }
        let time = |job: &Value| at(job, "status.completionTime").clone();
        if has(old, "status.completionTime") && time(old) != time(new) {
            causes.invalid(&path.child("completionTime"), time(new), "field is immutable");
        }
    }
    causes.into_vec()
}

/// The pod that a template makes, without what the server draws.
pub fn pod_from_template(pod_template: &Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {},
        "spec": get(pod_template, "spec"),
    });
    for field in ["labels", "annotations", "finalizers"] {
        let from = get(pod_template, "metadata");
        crate::field::copy(from, object_mut(&mut pod, "metadata"), field);
    }
    pod::default_pod(&mut pod);
    pod
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_with_numbered_pods_has_bounds_that_depend_on_how_they_may_fail() {
        let long = format!("example.org/{}", "x".repeat(60));
        let rows = [
            (json!({"completions": 8, "backoffLimitPerIndex": 1, "maxFailedIndexes": 8}), ""),
            (
                json!({"completions": 8, "backoffLimitPerIndex": 1, "maxFailedIndexes": 9}),
                "maxFailedIndexes",
            ),
            (json!({"completions": 8, "maxFailedIndexes": 8}), "backoffLimitPerIndex"),
            (json!({"completions": 8, "parallelism": 100_001}), "parallelism"),
            (json!({"completions": 100_001, "backoffLimitPerIndex": 1}), "maxFailedIndexes"),
            (
                json!({"completions": 100_001, "backoffLimitPerIndex": 1, "maxFailedIndexes": 10_001, "parallelism": 10_001}),
                "parallelism maxFailedIndexes",
            ),
            (json!({}), "completions"),
            (json!({"completions": 1, "managedBy": "example.org/me"}), ""),
            (json!({"completions": 1, "managedBy": long}), "managedBy"),
            (json!({"completions": 1, "managedBy": "me"}), "managedBy"),
            (
                json!({"completions": 1, "completionMode": "NonIndexed", "backoffLimitPerIndex": 1, "successPolicy": {}}),
                "backoffLimitPerIndex successPolicy",
            ),
            (json!({"completions": 1, "completionMode": "Sorted"}), "completionMode"),
        ];
        for (extra, expected) in rows {
            let mut spec = json!({
                "completionMode": "Indexed", "parallelism": 1, "podReplacementPolicy": "Failed",
                "selector": {},
                "template": {"metadata": {}, "spec": {
                    "restartPolicy": "Never", "containers": [{"name": "a", "image": "i"}],
                }},
            });
            as_map(&mut spec).extend(as_map(&mut extra.clone()).clone());
            template::default_template(object_mut(&mut spec, "template"));
            let mut causes = Causes::default();
            validate_spec(&spec, &Path::new("spec"), &mut causes);
            let causes = causes.into_vec();
            let fields: Vec<&str> =
                causes.iter().map(|cause| cause.field.trim_start_matches("spec.")).collect();
            assert_eq!(fields.join(" "), expected, "{extra}");
        }
    }
}
