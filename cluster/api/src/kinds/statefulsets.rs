//! StatefulSet: pods with names, an order and claims of their own.

use crate::cause::Cause;
use crate::context::Context;
use crate::field::{
    Causes, Path, as_map, default, default_text, existing_mut, get, has, list, list_mut, number,
    object_mut, same, set, text,
};
use crate::kinds::daemonsets::REVISION_HASH;
use crate::names;
use crate::resource::{Column, Effect, Resource, Rules, Subresource, words};
use crate::rules::rollout::{Part, part};
use crate::rules::{metadata, replicas, template};
use crate::status::Status;
use crate::table::{age, containers_and_images, name};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

/// The label of a pod that is its name.
pub const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
/// The label of a pod that is its number.
pub const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The labels that a set gives its pods values of its own for: no selector that speaks of them selects these for long.
const OWN_LABELS: [&str; 3] = [REVISION_HASH, POD_NAME, POD_INDEX];
const NOT_SELECTED: &str =
    "may not be in the selector of a stateful set, which gives its pods values of its own";

/// The row.
pub fn resource() -> Resource {
    Resource {
        short_names: words(["sts"]),
        categories: words(["all"]),
        subresources: vec![Subresource::scale(), Subresource::status("StatefulSet")],
        columns: columns(),
        cells: Arc::new(cells),
        generation: true,
        effect: Effect::by("the controller of stateful sets"),
        rules: Rules {
            default: Arc::new(default_set),
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
            "StatefulSet",
            "statefulsets",
            "statefulset",
            "api.apps.v1.StatefulSet",
        )
    }
}

fn columns() -> Vec<Column> {
    vec![
        Column::name(),
        Column::text("Ready", "How many pods are ready, of how many there should be."),
        Column::age(),
        Column::text("Containers", "The containers of the template.").wide(),
        Column::text("Images", "Their images.").wide(),
    ]
}

fn default_set(object: &mut Value) {
    let spec = object_mut(object, "spec");
    default(spec, "replicas", 1);
    default(spec, "revisionHistoryLimit", 10);
    default_text(spec, "podManagementPolicy", "OrderedReady");
    let strategy = object_mut(spec, "updateStrategy");
    if text(strategy, "type").is_empty() {
        set(strategy, "type", "RollingUpdate");
        object_mut(strategy, "rollingUpdate");
    }
    if text(strategy, "type") == "RollingUpdate"
        && let Some(rolling) = existing_mut(strategy, "rollingUpdate")
    {
        default(rolling, "partition", 0);
    }
    let retention = object_mut(spec, "persistentVolumeClaimRetentionPolicy");
    default_text(retention, "whenDeleted", "Retain");
    default_text(retention, "whenScaled", "Retain");
    for claim in list_mut(spec, "volumeClaimTemplates") {
        set(claim, "apiVersion", "v1");
        set(claim, "kind", "PersistentVolumeClaim");
        default_text(object_mut(claim, "spec"), "volumeMode", "Filesystem");
        default_text(object_mut(claim, "status"), "phase", "Pending");
    }
    if let Some(pod_template) = existing_mut(spec, "template") {
        template::default_template(pod_template);
    }
    let status = object_mut(object, "status");
    default(status, "replicas", 0);
    default(status, "availableReplicas", 0);
}

fn prepare_create(object: &mut Value, _: &Context<'_>) -> Result<(), Status> {
    set(object, "status", json!({ "replicas": 0, "availableReplicas": 0 }));
    Ok(())
}

/// A new one: its selector says nothing of the labels that its pods get values of their own for.
fn validate(object: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    causes.append(validate_spec(object));
    let selector = get(get(object, "spec"), "selector");
    replicas::leaves_out(selector, &OWN_LABELS, NOT_SELECTED, &mut causes);
    causes.into_vec()
}

fn validate_spec(object: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let (spec, path) = (get(object, "spec"), Path::new("spec"));
    let selector = replicas::required_selector(spec, "statefulset", &mut causes);
    replicas::validate_spec(&with_claims(spec), "StatefulSet", selector.as_ref(), &mut causes);
    for field in ["minReadySeconds", "revisionHistoryLimit"] {
        causes.not_negative(&path.child(field), number(spec, field));
    }
    causes.not_negative(&path.child("ordinals").child("start"), number(spec, "ordinals.start"));
    let policy = text(spec, "podManagementPolicy");
    let policy_path = path.child("podManagementPolicy");
    match policy {
        "OrderedReady" | "Parallel" => {}
        "" => causes.required(&policy_path, ""),
        _ => causes.invalid(&policy_path, policy, "must be 'OrderedReady' or 'Parallel'"),
    }
    strategy(spec, &path.child("updateStrategy"), &mut causes);
    let retention = path.child("persistentVolumeClaimRetentionPolicy");
    for field in ["whenDeleted", "whenScaled"] {
        let given = text(get(spec, "persistentVolumeClaimRetentionPolicy"), field);
        if !["Retain", "Delete"].contains(&given) {
            causes.not_supported(&retention.child(field), given, &["Retain", "Delete"]);
        }
    }
    let service = text(spec, "serviceName");
    if !service.is_empty() {
        causes.invalid_all(&path.child("serviceName"), service, names::dns_subdomain(service));
    }
    claims(spec, &path.child("volumeClaimTemplates"), &mut causes);
    causes.into_vec()
}

/// The spec with the volumes that the claims of a pod are in it.
fn with_claims(spec: &Value) -> Value {
    let mut spec = spec.clone();
    let claims = list(&spec, "volumeClaimTemplates").to_vec();
    if let Some(pod) = existing_mut(&mut spec, "template").and_then(|it| existing_mut(it, "spec")) {
        let own: Vec<Value> = list(pod, "volumes").to_vec();
        let is_own = |name: &str| own.iter().any(|volume| text(volume, "name") == name);
        let more = claims.iter().map(|claim| text(claim, "metadata.name"));
        let more = more
            .filter(|name| !name.is_empty() && !is_own(name))
            .map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}}));
        let all: Vec<Value> = own.iter().cloned().chain(more).collect();
        if !all.is_empty() {
            set(pod, "volumes", all);
        }
    }
    spec
}

/// Each claim has a name of its own, with which that of a pod and of the claim's volume are made.
fn claims(spec: &Value, path: &Path, causes: &mut Causes) {
    let all = list(spec, "volumeClaimTemplates");
    for (index, claim) in all.iter().enumerate() {
        if causes.is_full() {
            return;
        }
        let path = path.index(index).child("metadata").child("name");
        let name = text(claim, "metadata.name");
        if name.is_empty() {
            causes.required(&path, "");
        } else {
            causes.invalid_all(&path, name, names::dns_label(name));
            if all[..index].iter().any(|other| text(other, "metadata.name") == name) {
                causes.duplicate(&path, name);
            }
        }
    }
}

fn strategy(spec: &Value, path: &Path, causes: &mut Causes) {
    let strategy = get(spec, "updateStrategy");
    let rolling = get(strategy, "rollingUpdate");
    let rolling_path = path.child("rollingUpdate");
    match text(strategy, "type") {
        "OnDelete" if rolling.is_null() => {}
        "OnDelete" => {
            let why = "only allowed for updateStrategy 'RollingUpdate'";
            causes.invalid(&rolling_path, rolling.clone(), why);
        }
        "RollingUpdate" => {
            causes.not_negative(&rolling_path.child("partition"), number(rolling, "partition"));
            if has(rolling, "maxUnavailable") {
                let path = rolling_path.child("maxUnavailable");
                let given = get(rolling, "maxUnavailable");
                match part(given, &path, causes) {
                    Some(Part::Nothing) => causes.invalid(&path, given.clone(), "cannot be 0"),
                    Some(Part::MoreThanAll) => {
                        causes.invalid(&path, given.clone(), "must not be greater than 100%");
                    }
                    Some(Part::Some) | None => {}
                }
            }
        }
        _ => causes.invalid(path, strategy.clone(), "must be 'RollingUpdate' or 'OnDelete'"),
    }
}

/// What may change of a spec.
const CHANGES: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    causes.append(metadata::validate_again(new));
    causes.append(validate_spec(new));
    let fixed = |object: &Value| {
        let mut spec = get(object, "spec").clone();
        as_map(&mut spec).retain(|field, _| !CHANGES.contains(&field.as_str()));
        spec
    };
    if !same(&fixed(new), &fixed(old)) {
        let why = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
            'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
            'minReadySeconds' are forbidden";
        causes.forbidden(&Path::new("spec"), why);
    }
    causes.into_vec()
}

fn validate_status(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let status = get(new, "status");
    let path = Path::new("status");
    let counted = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
    for field in ["replicas", "observedGeneration", "collisionCount"].iter().chain(&counted) {
        causes.not_negative(&path.child(field), number(status, field));
    }
    replicas::no_more_than_there_are(status, &counted, &mut causes);
    replicas::not_forgotten(status, get(old, "status"), &mut causes);
    causes.into_vec()
}

fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let [containers, images] = containers_and_images(object, "spec.template.spec.containers");
    let count = |path: &str| number(object, path).unwrap_or(0);
    vec![
        name(object),
        format!("{}/{}", count("status.readyReplicas"), count("spec.replicas")).into(),
        age(object, now),
        containers,
        images,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(spec: &Value) -> Value {
        let labels = json!({"app": "db"});
        let mut object = json!({"metadata": {"name": "db"}, "spec": {"serviceName": "db",
            "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
                "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
        for (key, value) in spec.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        default_set(&mut object);
        object
    }

    fn fields(causes: Vec<Cause>) -> Vec<String> {
        causes.into_iter().map(|cause| cause.field).collect()
    }

    #[test]
    fn a_container_may_mount_what_its_pod_has_a_claim_for_and_nothing_else() {
        let mounts = |name: &str| {
            json!({"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}],
                "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{
                    "name": "c", "image": "i",
                    "volumeMounts": [{"name": name, "mountPath": "/data"}]}]}}})
        };
        assert_eq!(fields(validate(&object(&mounts("data")))), Vec::<String>::new());
        let wrong = fields(validate(&object(&mounts("other"))));
        assert_eq!(wrong, ["spec.template.spec.containers[0].volumeMounts[0].name"]);
        let twice = json!({"volumeClaimTemplates": [{"metadata": {"name": "a"}},
            {"metadata": {"name": "a"}}, {"metadata": {"name": "A"}}, {"metadata": {}}]});
        let path = |at: usize| format!("spec.volumeClaimTemplates[{at}].metadata.name");
        let wrong: Vec<String> = fields(validate(&object(&twice)));
        assert_eq!(
            wrong.into_iter().filter(|it| it.contains("Claim")).collect::<Vec<_>>(),
            [path(1), path(2), path(3)]
        );
    }

    #[test]
    fn how_pods_are_replaced_must_make_sense() {
        let path = "spec.updateStrategy";
        for (strategy, wrong) in [
            (json!({"type": "OnDelete"}), vec![]),
            (json!({"rollingUpdate": {"partition": 2, "maxUnavailable": "30%"}}), vec![]),
            (
                json!({"type": "OnDelete", "rollingUpdate": {"partition": 1}}),
                vec![format!("{path}.rollingUpdate")],
            ),
            (json!({"type": "Recreate"}), vec![path.to_owned()]),
            (
                json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0}}),
                vec![format!("{path}.rollingUpdate.maxUnavailable")],
            ),
            (
                json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "101%"}}),
                vec![format!("{path}.rollingUpdate.maxUnavailable")],
            ),
        ] {
            let given = json!({ "updateStrategy": strategy });
            assert_eq!(fields(validate(&object(&given))), wrong, "{strategy}");
        }
    }

    #[test]
    fn what_a_set_is_does_not_change_and_how_many_pods_it_has_does() {
        let old = object(&json!({}));
        for (more, wrong) in [
            (json!({"replicas": 5, "ordinals": {"start": 1}, "minReadySeconds": 1}), vec![]),
            (json!({"serviceName": "other"}), vec!["spec"]),
            (json!({"podManagementPolicy": "Parallel"}), vec!["spec"]),
            (json!({"volumeClaimTemplates": [{"metadata": {"name": "a"}}]}), vec!["spec"]),
        ] {
            assert_eq!(fields(validate_update(&object(&more), &old)), wrong, "{more}");
        }
    }
}
