//! PersistentVolumeClaim: what storage somebody wants, and which volume they got.

use crate::cause::Cause;
use crate::context::Context;
use crate::field::{Causes, Path, at, copy, default_text, get, has, object_mut, same, set, text};
use crate::names;
use crate::quantity;
use crate::resource::{Column, DeletionRule, Effect, Resource, Rules, Subresource, words};
use crate::rules::pod::label_selector;
use crate::rules::resources::canonical_requirements;
use crate::rules::storage::{access_modes, access_modes_cell, attributes_class_cell, class_name};
use crate::rules::{declared, metadata};
use crate::status::Status;
use crate::storage::CLAIM_PROTECTION;
use crate::table::{age, name};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

/// The row.
pub fn resource() -> Resource {
    Resource {
        short_names: words(["pvc"]),
        subresources: vec![Subresource::status("PersistentVolumeClaim")],
        columns: vec![
            Column::name(),
            Column::text("Status", "Whether it has got a volume."),
            Column::text("Volume", "Which one."),
            Column::text("Capacity", "How much that holds."),
            Column::text("Access Modes", "How it may be mounted."),
            Column::text("StorageClass", "The class that is wanted."),
            Column::text("VolumeAttributesClass", "The class of attributes that is wanted."),
            Column::age(),
            Column::text("VolumeMode", "Whether it is a device or a file system.").wide(),
        ],
        cells: Arc::new(cells),
        effect: Effect::by(
            "its controller, the scheduler and the node of its pods ([volumes.md](volumes.md))",
        ),
        rules: Rules {
            default: Arc::new(default_claim),
            prepare_create: Arc::new(prepare_create),
            validate: Arc::new(validate),
            validate_update: Arc::new(validate_update),
            validate_status: Arc::new(|new, _| validate_status(new)),
            ..Rules::plain()
        },
        // Its controller lets it go when no pod uses it.
        deletion: DeletionRule::ANSWERS_OBJECT,
        ..Resource::named(
            "",
            "v1",
            "PersistentVolumeClaim",
            "persistentvolumeclaims",
            "persistentvolumeclaim",
            "api.core.v1.PersistentVolumeClaim",
        )
    }
}

fn default_claim(claim: &mut Value) {
    let spec = object_mut(claim, "spec");
    default_text(spec, "volumeMode", "Filesystem");
    canonical_requirements(object_mut(spec, "resources"));
    // Two spellings of one thing.
    let source = get(spec, "dataSource").clone();
    if !source.is_null() && !has(spec, "dataSourceRef") {
        set(spec, "dataSourceRef", source);
    }
    let reference = get(spec, "dataSourceRef").clone();
    if !reference.is_null() && !has(spec, "dataSource") && text(&reference, "namespace").is_empty()
    {
        set(spec, "dataSource", reference);
    }
    default_text(object_mut(claim, "status"), "phase", "Pending");
}

fn prepare_create(claim: &mut Value, _: &Context<'_>) -> Result<(), Status> {
    metadata::hold(claim, CLAIM_PROTECTION);
    set(claim, "status", json!({"phase": "Pending"}));
    Ok(())
}

fn validate(claim: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    validate_spec(get(claim, "spec"), &Path::new("spec"), &mut causes);
    causes.into_vec()
}

/// The spec of a claim, or of a template of claims.
pub fn validate_spec(spec: &Value, path: &Path, causes: &mut Causes) {
    label_selector(get(spec, "selector"), &path.child("selector"), causes);
    access_modes(spec, path, causes);
    let storage = path.child("resources").key("storage");
    match quantity::parse(at(spec, "resources.requests.storage")) {
        None => causes.required(&storage, ""),
        Some(amount) if amount.sign() <= 0 => {
            causes.invalid(&storage, amount.to_string(), "must be greater than zero");
        }
        Some(_) => {}
    }
    class_name(spec, "storageClassName", path, causes);
    class_name(spec, "volumeAttributesClassName", path, causes);
    for source in ["dataSource", "dataSourceRef"] {
        let (reference, path) = (get(spec, source), path.child(source));
        let group = text(reference, "apiGroup");
        if group.is_empty()
            && has(reference, "kind")
            && text(reference, "kind") != "PersistentVolumeClaim"
        {
            causes.invalid(
                &path,
                text(reference, "kind"),
                "must be 'PersistentVolumeClaim' when referencing the default apiGroup",
            );
        }
        if !group.is_empty() {
            causes.invalid_all(&path.child("apiGroup"), group, names::dns_subdomain(group));
        }
    }
    let (source, reference) = (get(spec, "dataSource"), get(spec, "dataSourceRef"));
    let alike = ["apiGroup", "kind", "name"]
        .iter()
        .all(|field| same(get(source, field), get(reference, field)));
    if has(reference, "namespace") && !source.is_null() {
        causes.invalid(
            path,
            path.to_string(),
            "may not be specified when dataSourceRef.namespace is specified",
        );
    } else if !source.is_null() && !reference.is_null() && !alike {
        causes.invalid(path, path.to_string(), "must match dataSourceRef");
    }
    declared::validate_part("api.core.v1.PersistentVolumeClaimSpec", spec, path, causes);
}

/// What is claimed stays; of a claim that has its volume more may be asked for, and none less.
fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    causes.append(validate(new));
    let path = Path::new("spec");
    let (mut changed, old_spec) = (get(new, "spec").clone(), get(old, "spec"));
    if text(old_spec, "volumeName").is_empty() {
        copy(old_spec, &mut changed, "volumeName");
    }
    copy(old_spec, &mut changed, "volumeAttributesClassName");
    let is_bound = text(old, "status.phase") == "Bound";
    if is_bound {
        let wanted = at(old_spec, "resources.requests").clone();
        set(object_mut(&mut changed, "resources"), "requests", wanted);
    }
    if !same(&changed, old_spec) {
        causes.forbidden(
            &path,
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        );
    }
    let amount = |claim: &Value| quantity::parse(at(claim, "spec.resources.requests.storage"));
    if is_bound
        && let (Some(new), Some(old)) = (amount(new), amount(old))
        && new < old
    {
        let path = path.child("resources").child("requests").child("storage");
        causes.forbidden(&path, "field can not be less than status.capacity");
    }
    causes.into_vec()
}

fn validate_status(claim: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let path = Path::new("status");
    declared::validate_part(
        "api.core.v1.PersistentVolumeClaimStatus",
        get(claim, "status"),
        &path,
        &mut causes,
    );
    for (resource, amount) in crate::field::entries(claim, "status.capacity") {
        if causes.is_full() {
            break;
        }
        let path = path.child("capacity").key(resource);
        crate::rules::resources::quantity_value(&path, resource, amount, &mut causes);
    }
    causes.into_vec()
}

fn cells(claim: &Value, now: Timestamp) -> Vec<Value> {
    let is_deleted = has(claim, "metadata.deletionTimestamp");
    let phase = if is_deleted { "Terminating" } else { text(claim, "status.phase") };
    let has_volume = !text(claim, "spec.volumeName").is_empty();
    let [capacity, modes] = if has_volume {
        [
            text(claim, "status.capacity.storage").into(),
            access_modes_cell(claim, "status.accessModes"),
        ]
    } else {
        ["".into(), "".into()]
    };
    vec![
        name(claim),
        phase.into(),
        text(claim, "spec.volumeName").into(),
        capacity,
        modes,
        text(claim, "spec.storageClassName").into(),
        attributes_class_cell(claim),
        age(claim, now),
        text(claim, "spec.volumeMode").into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(more: &Value) -> Value {
        let mut claim = json!({"metadata": {"name": "c"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
        for (field, value) in more.as_object().unwrap() {
            claim["spec"][field] = value.clone();
        }
        default_claim(&mut claim);
        claim
    }

    fn told(causes: Vec<Cause>) -> String {
        causes.into_iter().map(|cause| cause.field).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_claim_says_how_much_it_wants_and_of_what() {
        let snapshot =
            json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s"});
        let rows = [
            (json!({}), ""),
            (json!({"accessModes": []}), "spec.accessModes"),
            (json!({"resources": {}}), "spec.resources[storage]"),
            (json!({"storageClassName": ""}), ""),
            (json!({"storageClassName": "A"}), "spec.storageClassName"),
            (json!({"volumeMode": "Tape"}), "spec.volumeMode"),
            (json!({"dataSource": snapshot}), ""),
            (
                json!({"dataSource": {"kind": "VolumeSnapshot", "name": "s"}}),
                "spec.dataSource spec.dataSourceRef",
            ),
            (
                json!({"dataSource": snapshot, "dataSourceRef": {"kind": "PersistentVolumeClaim", "name": "a"}}),
                "spec",
            ),
            (json!({"selector": {"matchLabels": {"a b": "c"}}}), "spec.selector.matchLabels"),
        ];
        for (spec, expected) in rows {
            assert_eq!(told(validate(&claim(&spec))), expected, "{spec}");
        }
    }

    #[test]
    fn what_is_claimed_stays_but_for_more_of_it_once_it_is_there() {
        let amount = |amount: &str| json!({"resources": {"requests": {"storage": amount}}});
        let (pending, more, less) =
            (claim(&json!({})), claim(&amount("2Gi")), claim(&amount("1Mi")));
        let mut bound = pending.clone();
        bound["status"]["phase"] = "Bound".into();
        assert_eq!(told(validate_update(&more, &pending)), "spec");
        assert_eq!(told(validate_update(&more, &bound)), "");
        assert_eq!(told(validate_update(&less, &bound)), "spec.resources.requests.storage");
        let named = claim(&json!({"volumeName": "v"}));
        assert_eq!(told(validate_update(&named, &pending)), "");
        assert_eq!(told(validate_update(&pending, &named)), "spec");
    }

    #[test]
    fn both_spellings_of_a_source_say_the_same() {
        let source = json!({"kind": "PersistentVolumeClaim", "name": "a"});
        let claim = claim(&json!({"dataSourceRef": source}));
        assert_eq!(claim["spec"]["dataSource"], source);
    }
}
