//! ReplicaSet: so many pods of a template, told by a selector with expressions.

use crate::cause::Cause;
use crate::context::Context;
use crate::field::{Causes, Path, default, existing_mut, get, number, object_mut, set};
use crate::resource::{Effect, Resource, Rules, Subresource, words};
use crate::rules::{metadata, replicas, template};
use crate::status::Status;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

/// The row.
pub fn resource() -> Resource {
    Resource {
        short_names: words(["rs"]),
        categories: words(["all"]),
        subresources: vec![Subresource::scale(), Subresource::status("ReplicaSet")],
        columns: replicas::columns(),
        cells: Arc::new(cells),
        generation: true,
        effect: Effect::by("the controller of replica sets"),
        rules: Rules {
            default: Arc::new(default_set),
            prepare_create: Arc::new(prepare_create),
            validate: Arc::new(validate),
            validate_update: Arc::new(validate_update),
            validate_status: Arc::new(replicas::validate_status),
            ..Rules::plain()
        },
        scale: Some(replicas::SCALE),
        ..Resource::named(
            "apps",
            "v1",
            "ReplicaSet",
            "replicasets",
            "replicaset",
            "api.apps.v1.ReplicaSet",
        )
    }
}

fn default_set(set: &mut Value) {
    let spec = object_mut(set, "spec");
    default(spec, "replicas", 1);
    if let Some(pod_template) = existing_mut(spec, "template") {
        template::default_template(pod_template);
    }
    default(object_mut(set, "status"), "replicas", 0);
}

fn prepare_create(object: &mut Value, _: &Context<'_>) -> Result<(), Status> {
    set(object, "status", json!({ "replicas": 0 }));
    Ok(())
}

fn validate(set: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let spec = get(set, "spec");
    let path = Path::new("spec");
    causes.not_negative(&path.child("minReadySeconds"), number(spec, "minReadySeconds"));
    let selector = replicas::required_selector(spec, "deployment", &mut causes);
    replicas::validate_spec(spec, "ReplicaSet", selector.as_ref(), &mut causes);
    causes.into_vec()
}

fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    causes.append(metadata::validate_again(new));
    causes.append(validate(new));
    let selector = |set| get(get(set, "spec"), "selector");
    causes.unchanged(&Path::new("spec").child("selector"), selector(new), selector(old));
    causes.into_vec()
}

fn cells(set: &Value, now: Timestamp) -> Vec<Value> {
    replicas::cells(set, replicas::selector_cell(set), now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(selector: &Value) -> Vec<String> {
        let mut set = json!({"spec": {"selector": selector, "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
        default_set(&mut set);
        validate(&set).into_iter().map(|cause| cause.field).collect()
    }

    #[test]
    fn a_selector_that_says_nothing_or_what_nobody_understands_is_refused_by_its_field() {
        let one = |expression: Value| json!({"matchExpressions": [expression]});
        for (selector, fields) in [
            (json!({"matchLabels": {"app": "web"}}), vec![]),
            (one(json!({"key": "app", "operator": "In", "values": ["web", "shop"]})), vec![]),
            (Value::Null, vec!["spec.selector"]),
            (json!({}), vec!["spec.selector"]),
            (json!({"matchLabels": {"app": "shop"}}), vec!["spec.template.metadata.labels"]),
            (
                one(json!({"key": "app", "operator": "In"})),
                vec!["spec.selector.matchExpressions[0].values", "spec.template.metadata.labels"],
            ),
            (
                one(json!({"key": "app", "operator": "Exists", "values": ["web"]})),
                vec!["spec.selector.matchExpressions[0].values"],
            ),
            (
                one(json!({"key": "app", "operator": "Like", "values": ["web"]})),
                vec!["spec.selector.matchExpressions[0].operator"],
            ),
            (
                one(json!({"key": "-", "operator": "DoesNotExist"})),
                vec!["spec.selector.matchExpressions[0].key"],
            ),
        ] {
            assert_eq!(refused(&selector), fields, "{selector}");
        }
    }

    #[test]
    fn the_selector_of_a_set_does_not_change() {
        let set = |app: &str| {
            let labels = json!({"app": app});
            let mut set = json!({"spec": {"selector": {"matchLabels": labels}, "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
            default_set(&mut set);
            set
        };
        assert_eq!(validate_update(&set("web"), &set("web")), []);
        let causes = validate_update(&set("shop"), &set("web"));
        let fields: Vec<_> = causes.iter().map(|cause| cause.field.as_str()).collect();
        assert_eq!(fields, ["spec.selector"]);
    }
}
