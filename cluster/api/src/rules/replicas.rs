//! What kinds share that keep a number of pods of a template: replication controllers and replica sets.

use crate::cause::Cause;
use crate::field::{Causes, Path, at, get, has, list, number, text};
use crate::resource::{Column, ScalePaths, Text};
use crate::rules::{pod, template};
use crate::selector::LabelSelector;
use crate::table::{age, containers_and_images, name, or_none};
use jiff::Timestamp;
use serde_json::Value;

/// The columns of both.
pub fn columns() -> Vec<Column> {
    vec![
        Column::name(),
        Column::integer("Desired", "How many pods there should be."),
        Column::integer("Current", "How many there are."),
        Column::integer("Ready", "How many of these are ready."),
        Column::age(),
        Column::text("Containers", "The containers of the template.").wide(),
        Column::text("Images", "Their images.").wide(),
        Column::text("Selector", "Which pods are counted.").wide(),
    ]
}

/// Where the scale door finds what it shows.
pub const SCALE: ScalePaths = ScalePaths {
    spec: Text::Borrowed("/spec/replicas"),
    status: Text::Borrowed("/status/replicas"),
    selector: Text::Borrowed("/spec/selector"),
};

/// The cells of one object, with its selector in words.
pub fn cells(object: &Value, selector: Value, now: Timestamp) -> Vec<Value> {
    let [containers, images] = containers_and_images(object, "spec.template.spec.containers");
    let count = |path: &str| Value::from(number(object, path).unwrap_or(0));
    vec![
        name(object),
        count("spec.replicas"),
        count("status.replicas"),
        count("status.readyReplicas"),
        age(object, now),
        containers,
        images,
        selector,
    ]
}

/// The selector of an object in words.
pub fn selector_cell(object: &Value) -> Value {
    let selector = LabelSelector::from_object(at(object, "spec.selector"));
    or_none(&selector.map_or(String::new(), |selector| selector.to_string()))
}

/// What is wrong with the counts and the template of a `kind`'s spec, whose selector is this, if it has one.
pub fn validate_spec(
    spec: &Value,
    kind: &str,
    selector: Option<&LabelSelector>,
    causes: &mut Causes,
) {
    let path = Path::new("spec");
    causes.not_negative(&path.child("replicas"), number(spec, "replicas"));
    let template_path = path.child("template");
    if !has(spec, "template") {
        causes.required(&template_path, "");
        return;
    }
    let pod_template = get(spec, "template");
    let labels = at(pod_template, "metadata.labels");
    if selector.is_some_and(|selector| !selector.matches(labels.as_object())) {
        causes.invalid(
            &template_path.child("metadata").child("labels"),
            labels.clone(),
            "`selector` does not match template `labels`",
        );
    }
    template::validate_template(pod_template, &template_path, causes);
    let pod_path = template_path.child("spec");
    let restart = text(pod_template, "spec.restartPolicy");
    if restart != "Always" {
        causes.not_supported(&pod_path.child("restartPolicy"), restart, &["Always"]);
    }
    if has(pod_template, "spec.activeDeadlineSeconds") {
        causes.forbidden(
            &pod_path.child("activeDeadlineSeconds"),
            &format!("activeDeadlineSeconds in {kind} is not Supported"),
        );
    }
}

/// The selector of the spec of a `kind`, which must have one that selects something; none where it has not.
pub fn required_selector(spec: &Value, kind: &str, causes: &mut Causes) -> Option<LabelSelector> {
    let path = Path::new("spec").child("selector");
    let given = get(spec, "selector");
    if given.is_null() {
        causes.required(&path, "");
        return None;
    }
    pod::label_selector(given, &path, causes);
    // What cannot be read has been said.
    let selector = LabelSelector::from_object(given).ok()?;
    if selector.is_everything() {
        let why = format!("empty selector is invalid for {kind}");
        causes.invalid(&path, given.clone(), &why);
        return None;
    }
    Some(selector)
}

/// Refuses a selector that says anything of these labels, to which what makes the pods gives values of its own.
pub fn leaves_out(selector: &Value, labels: &[&str], why: &str, causes: &mut Causes) {
    let path = Path::new("spec").child("selector");
    for label in labels {
        if get(selector, "matchLabels").get(label).is_some() {
            causes.forbidden(&path.child("matchLabels").key(label), why);
        }
    }
    for (index, expression) in list(selector, "matchExpressions").iter().enumerate() {
        if causes.is_full() {
            return;
        }
        if labels.contains(&text(expression, "key")) {
            causes.forbidden(&path.child("matchExpressions").index(index).child("key"), why);
        }
    }
}

/// What is wrong with the counts of a status.
pub fn validate_status(new: &Value, _: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let status = get(new, "status");
    let path = Path::new("status");
    for field in [
        "replicas",
        "fullyLabeledReplicas",
        "readyReplicas",
        "availableReplicas",
        "terminatingReplicas",
        "observedGeneration",
    ] {
        causes.not_negative(&path.child(field), number(status, field));
    }
    let counted = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
    no_more_than_there_are(status, &counted, &mut causes);
    causes.into_vec()
}

/// No more pods of a sort than there are, and no more available than are ready.
pub fn no_more_than_there_are(status: &Value, counted: &[&str], causes: &mut Causes) {
    let count = |field: &str| number(status, field).unwrap_or(0);
    let path = Path::new("status");
    let of_all = counted.iter().map(|field| (*field, "replicas", "status.replicas"));
    let of_ready = [("availableReplicas", "readyReplicas", "readyReplicas")];
    for (field, of, words) in of_all.chain(of_ready) {
        if count(field) > count(of) {
            let why = format!("cannot be greater than {words}");
            causes.invalid(&path.child(field), count(field), &why);
        }
    }
}

/// How often a name had to be drawn anew is not forgotten: the name would be drawn once more.
pub fn not_forgotten(status: &Value, was: &Value, causes: &mut Causes) {
    const COUNT: &str = "collisionCount";
    let count = |status: &Value| number(status, COUNT).unwrap_or(0);
    if has(was, COUNT) && count(status) < count(was) {
        causes.invalid(&Path::new("status").child(COUNT), count(status), "cannot be decremented");
    }
}
