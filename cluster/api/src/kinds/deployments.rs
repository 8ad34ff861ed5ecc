//! Deployment: pods of a template, moved to the next template bit by bit.

use crate::cause::Cause;
use crate::context::Context;
use crate::field::{Causes, Path, at, default, existing_mut, get, number, object_mut, set, text};
use crate::resource::{Column, Effect, Resource, Rules, Subresource, words};
use crate::rules::rollout::{Part, part};
use crate::rules::{metadata, replicas, template};
use crate::status::Status;
use crate::table::{age, containers_and_images, name};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

/// The row.
pub fn resource() -> Resource {
    Resource {
        short_names: words(["deploy"]),
        categories: words(["all"]),
        subresources: vec![Subresource::scale(), Subresource::status("Deployment")],
        columns: columns(),
        cells: Arc::new(cells),
        generation: true,
        generation_of_annotations: true,
        status_keeps: &["labels"],
        effect: Effect::by("the controller of deployments"),
        rules: Rules {
            default: Arc::new(default_deployment),
            prepare_create: Arc::new(prepare_create),
            validate: Arc::new(validate),
            validate_update: Arc::new(validate_update),
            validate_status: Arc::new(validate_status),
            ..Rules::plain()
        },
        scale: Some(replicas::SCALE),
        ..Resource::named(
            "apps",
            "v1",
            "Deployment",
            "deployments",
            "deployment",
            "api.apps.v1.Deployment",
        )
    }
}

fn columns() -> Vec<Column> {
    vec![
        Column::name(),
        Column::text("Ready", "How many pods are ready, of how many there should be."),
        Column::text("Up-to-date", "How many are of the newest template."),
        Column::text("Available", "How many have been ready for long enough."),
        Column::age(),
        Column::text("Containers", "The containers of the template.").wide(),
        Column::text("Images", "Their images.").wide(),
        Column::text("Selector", "Which pods are counted.").wide(),
    ]
}

/// The label by which the pods of one replica set of a deployment are told from those of another.
pub const TEMPLATE_HASH: &str = "pod-template-hash";

/// What may be missing or too many on the way, where nobody says.
const QUARTER: &str = "25%";

fn default_deployment(deployment: &mut Value) {
    let spec = object_mut(deployment, "spec");
    default(spec, "replicas", 1);
    default(spec, "revisionHistoryLimit", 10);
    default(spec, "progressDeadlineSeconds", 600);
    let strategy = object_mut(spec, "strategy");
    if text(strategy, "type").is_empty() {
        set(strategy, "type", "RollingUpdate");
    }
    if text(strategy, "type") == "RollingUpdate" {
        let rolling = object_mut(strategy, "rollingUpdate");
        default(rolling, "maxUnavailable", QUARTER);
        default(rolling, "maxSurge", QUARTER);
    }
    if let Some(pod_template) = existing_mut(spec, "template") {
        template::default_template(pod_template);
    }
    object_mut(deployment, "status");
}

fn prepare_create(object: &mut Value, _: &Context<'_>) -> Result<(), Status> {
    set(object, "status", json!({}));
    Ok(())
}

/// A new one: its selector says nothing of the label that each of its sets gets a value of its own for, since
/// it could select none of them.
fn validate(deployment: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    causes.append(validate_spec(deployment));
    let why = "may not be in the selector of a deployment, which gives each of its replica sets a value of its own";
    replicas::leaves_out(at(deployment, "spec.selector"), &[TEMPLATE_HASH], why, &mut causes);
    causes.into_vec()
}

fn validate_spec(deployment: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let spec = get(deployment, "spec");
    let path = Path::new("spec");
    let selector = replicas::required_selector(spec, "deployment", &mut causes);
    replicas::validate_spec(spec, "ReplicaSet", selector.as_ref(), &mut causes);
    validate_strategy(get(spec, "strategy"), &path.child("strategy"), &mut causes);
    for field in ["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        causes.not_negative(&path.child(field), number(spec, field));
    }
    let deadline = number(spec, "progressDeadlineSeconds");
    if let Some(deadline) =
        deadline.filter(|it| *it <= number(spec, "minReadySeconds").unwrap_or(0))
    {
        let path = path.child("progressDeadlineSeconds");
        causes.invalid(&path, deadline, "must be greater than minReadySeconds");
    }
    causes.into_vec()
}

fn validate_strategy(strategy: &Value, path: &Path, causes: &mut Causes) {
    let rolling = get(strategy, "rollingUpdate");
    let rolling_path = path.child("rollingUpdate");
    match text(strategy, "type") {
        "Recreate" if !rolling.is_null() => causes
            .forbidden(&rolling_path, "may not be specified when strategy `type` is 'Recreate'"),
        "Recreate" => {}
        "RollingUpdate" => {
            let missing_path = rolling_path.child("maxUnavailable");
            let missing = part(get(rolling, "maxUnavailable"), &missing_path, causes);
            let surge = part(get(rolling, "maxSurge"), &rolling_path.child("maxSurge"), causes);
            if missing == Some(Part::Nothing) && surge == Some(Part::Nothing) {
                let given = get(rolling, "maxUnavailable").clone();
                causes.invalid(&missing_path, given, "may not be 0 when `maxSurge` is 0");
            }
            if missing == Some(Part::MoreThanAll) {
                let given = get(rolling, "maxUnavailable").clone();
                causes.invalid(&missing_path, given, "must not be greater than 100%");
            }
        }
        _ => {
            let supported = ["Recreate", "RollingUpdate"];
            causes.not_supported(path, strategy.clone(), &supported);
        }
    }
}

fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    causes.append(metadata::validate_again(new));
    causes.append(validate_spec(new));
    let selector = |deployment| get(get(deployment, "spec"), "selector");
    causes.unchanged(&Path::new("spec").child("selector"), selector(new), selector(old));
    causes.into_vec()
}

fn validate_status(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let status = get(new, "status");
    let path = Path::new("status");
    for field in [
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "terminatingReplicas",
        "collisionCount",
    ] {
        causes.not_negative(&path.child(field), number(status, field));
    }
    let counted = ["updatedReplicas", "readyReplicas", "availableReplicas"];
    replicas::no_more_than_there_are(status, &counted, &mut causes);
    replicas::not_forgotten(status, get(old, "status"), &mut causes);
    causes.into_vec()
}

fn cells(deployment: &Value, now: Timestamp) -> Vec<Value> {
    let [containers, images] = containers_and_images(deployment, "spec.template.spec.containers");
    let count = |path: &str| number(deployment, path).unwrap_or(0);
    vec![
        name(deployment),
        format!("{}/{}", count("status.readyReplicas"), count("spec.replicas")).into(),
        count("status.updatedReplicas").into(),
        count("status.availableReplicas").into(),
        age(deployment, now),
        containers,
        images,
        replicas::selector_cell(deployment),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(spec: &Value) -> Vec<String> {
        let labels = json!({"app": "web"});
        let mut deployment = json!({"spec": {"selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
        for (key, value) in spec.as_object().unwrap() {
            deployment["spec"][key] = value.clone();
        }
        default_deployment(&mut deployment);
        validate(&deployment).into_iter().map(|cause| cause.field).collect()
    }

    #[test]
    fn what_may_be_missing_or_too_many_is_a_number_or_a_percentage_and_not_nothing_of_both() {
        let missing = "spec.strategy.rollingUpdate.maxUnavailable";
        let surge = "spec.strategy.rollingUpdate.maxSurge";
        for (rolling, fields) in [
            (json!({}), vec![]),
            (json!({"maxSurge": 0}), vec![]),
            (json!({"maxSurge": 1, "maxUnavailable": 0}), vec![]),
            (json!({"maxSurge": "300%", "maxUnavailable": "100%"}), vec![]),
            (json!({"maxSurge": "0%", "maxUnavailable": 0}), vec![missing]),
            (json!({"maxSurge": "00%", "maxUnavailable": "101%"}), vec![missing]),
            (json!({"maxUnavailable": "99999999999999999999%"}), vec![missing]),
            (json!({"maxSurge": -1}), vec![surge]),
            (json!({"maxSurge": "1"}), vec![surge]),
            (json!({"maxSurge": "+1%"}), vec![surge]),
            (json!({"maxSurge": "%"}), vec![surge]),
        ] {
            assert_eq!(
                refused(&json!({"strategy": {"rollingUpdate": rolling}})),
                fields,
                "{rolling}"
            );
        }
    }

    #[test]
    fn a_deadline_ends_after_the_time_in_which_a_pod_must_stay_ready() {
        let deadline = "spec.progressDeadlineSeconds";
        let both = |deadline: i64, patience: i64| json!({"progressDeadlineSeconds": deadline, "minReadySeconds": patience});
        assert_eq!(refused(&both(31, 30)), Vec::<String>::new());
        assert_eq!(refused(&both(30, 30)), [deadline]);
        assert_eq!(refused(&both(-1, 0)), [deadline, deadline]);
        assert_eq!(refused(&json!({"minReadySeconds": 600})), [deadline]);
    }

    #[test]
    fn the_label_that_each_set_gets_is_not_in_the_selector_of_a_new_deployment() {
        let hash = TEMPLATE_HASH;
        let labels = json!({"app": "web", hash: "abc"});
        let template = json!({"metadata": {"labels": labels},
            "spec": {"containers": [{"name": "c", "image": "i"}]}});
        let deployment = |selector: Value| {
            let mut deployment =
                json!({"spec": {"selector": selector, "template": template.clone()}});
            default_deployment(&mut deployment);
            deployment
        };
        let named = json!({"matchLabels": labels});
        let one = json!({"key": hash, "operator": "Exists"});
        let expressed = json!({"matchLabels": {"app": "web"}, "matchExpressions": [one]});
        for (selector, field) in [
            (named, "spec.selector.matchLabels[pod-template-hash]"),
            (expressed, "spec.selector.matchExpressions[0].key"),
        ] {
            let there = deployment(selector);
            let fields: Vec<_> = validate(&there).into_iter().map(|cause| cause.field).collect();
            assert_eq!(fields, [field]);
            assert_eq!(validate_update(&there, &there), [], "one that is there can be changed");
        }
        let free = deployment(json!({"matchLabels": {"app": "web"}}));
        assert_eq!(validate(&free), [], "what the template says of it is overwritten");
    }
}
