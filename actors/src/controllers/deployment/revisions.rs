//! Which set is which revision of a deployment, and what it carries of it.

use super::super::engine::effects::Effects;
use super::super::engine::view::View;
use super::super::labels::selects;
use super::super::template_hash::{Drawn, drawn};
use super::marks::{DESIRED, HASH, HISTORY, MAX, REVISION, number};
use super::sets::{self, Sets};
use super::sizes::Limits;
use impresario_api::patch::LAST_APPLIED;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The longest list of revisions that a set was, in bytes.
const HISTORY_MAX: usize = 2_000;

/// What the new set of a deployment is to be.
#[derive(Debug, PartialEq)]
pub(super) struct Kept {
    /// Its revision.
    pub(super) revision: i64,
    /// Whether it was another before: somebody went back to it.
    pub(super) is_back: bool,
    /// Annotations that it gets.
    pub(super) annotations: BTreeMap<String, String>,
    /// For how many seconds its pods must be ready from now on, if that is another number.
    pub(super) patience: Option<i32>,
}

/// The new set has the highest revision, and the annotations and the patience of its deployment.
pub(super) fn keep(deployment: &Deployment, new: &ReplicaSet, sets: &Sets<'_>) -> Kept {
    let none = BTreeMap::new();
    let has = new.metadata.annotations.as_ref().unwrap_or(&none);
    let mut annotations = carried(deployment);
    annotations.retain(|key, value| has.get(key) != Some(&*value));
    let next = next(sets);
    let was = number::<i64>(new, REVISION);
    let revision = was.filter(|was| *was >= next).unwrap_or(next);
    if was != Some(revision) {
        annotations.insert(REVISION.into(), revision.to_string());
        if let Some(was) = was.filter(|was| *was > 0) {
            let mut all: Vec<_> = has.get(HISTORY).map_or("", String::as_str).split(',').collect();
            all.retain(|one| !one.is_empty());
            let was = was.to_string();
            all.push(&was);
            while all.iter().map(|one| one.len() + 1).sum::<usize>() > HISTORY_MAX {
                all.remove(0);
            }
            annotations.insert(HISTORY.into(), all.join(","));
        }
    }
    let patience = deployment.spec.min_ready_seconds.unwrap_or(0);
    let patience = Some(patience).filter(|it| *it != new.spec.min_ready_seconds.unwrap_or(0));
    Kept { revision, is_back: was.is_some_and(|was| was < next), annotations, patience }
}

/// A set for the template that the deployment has now, without pods yet. How often its name had to be drawn
/// anew so far.
pub(super) fn make(
    view: &View<'_, Deployment>,
    sets: &Sets<'_>,
    limits: &Limits,
    collisions: Option<i32>,
    effects: &mut Effects,
) -> Option<i32> {
    let deployment = view.object;
    let of = deployment.metadata.name.as_deref().unwrap_or_default();
    let mut template = view.stored["spec"]["template"].clone();
    let Drawn { name, hash, collisions } =
        drawn(of, &template, collisions, |name| view.is_taken(name));
    let mut labels = labels_of(&deployment.spec.template);
    labels.insert(HASH.into(), hash.clone());
    // Its deployment would let go of it, and make the next.
    if !selects(&deployment.spec.selector, &labels) {
        let why = format!(
            "the selector says of the label {HASH} what no replica set of this deployment can have: make the \
            deployment anew without that"
        );
        effects.fall_short("SelectorNeverMatches", why);
        return collisions;
    }
    template["metadata"]["labels"] = json!(labels);
    let mut selector = view.stored["spec"]["selector"].clone();
    selector["matchLabels"][HASH] = hash.into();
    let mut annotations = json!(carried(deployment));
    annotations[REVISION] = next(sets).to_string().into();
    note(&mut annotations, limits);
    effects.create::<ReplicaSet>(json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": name,
            "labels": template["metadata"]["labels"],
            "annotations": annotations,
            "ownerReferences": [view.owner().reference()],
        },
        "spec": {
            "replicas": 0,
            "minReadySeconds": deployment.spec.min_ready_seconds.unwrap_or(0),
            "selector": selector,
            "template": template,
        },
    }));
    collisions
}

fn labels_of(template: &PodTemplateSpec) -> BTreeMap<String, String> {
    let metadata = template.metadata.as_ref();
    metadata.and_then(|metadata| metadata.labels.clone()).unwrap_or_default()
}

/// Notes in the annotations of a set for how many pods its size was made.
pub(super) fn note(annotations: &mut Value, limits: &Limits) {
    annotations[DESIRED] = limits.replicas.to_string().into();
    annotations[MAX] = limits.most().to_string().into();
}

/// The old sets without pods of which there are more than are kept: those of the lowest revisions.
pub(super) fn surplus<'a>(spec: &DeploymentSpec, sets: &Sets<'a>) -> Vec<&'a ReplicaSet> {
    let kept = spec.revision_history_limit.unwrap_or(10);
    let mut old: Vec<_> =
        sets.old().filter(|set| set.metadata.deletion_timestamp.is_none()).collect();
    let surplus = old.len().saturating_sub(usize::try_from(kept).unwrap_or(0));
    old.sort_by_key(|set| number::<i64>(set, REVISION).unwrap_or(0));
    old.truncate(surplus);
    old.retain(|set| {
        let empty = sets::status(set).is_some_and(|status| {
            status.replicas == 0 && status.observed_generation >= set.metadata.generation
        });
        empty && sets::wanted(set) == 0
    });
    old
}

/// One more than the highest revision of an old set.
fn next(sets: &Sets<'_>) -> i64 {
    let old = sets.old().filter_map(|set| number::<i64>(set, REVISION));
    old.max().unwrap_or(0).max(0).saturating_add(1)
}

/// The annotations of a deployment that its sets carry too: why it was changed is among them.
fn carried(deployment: &Deployment) -> BTreeMap<String, String> {
    let mut all = deployment.metadata.annotations.clone().unwrap_or_default();
    // What `kubectl apply` notes of the deployment is not so of its sets.
    all.retain(|key, _| ![LAST_APPLIED, REVISION, HISTORY, DESIRED, MAX].contains(&key.as_str()));
    all
}
