//! What the template of a daemon set was: one `ControllerRevision` each, by which there is a way back.

use super::super::engine::effects::Effects;
use super::super::engine::view::View;
use super::super::pod_view::PodView as _;
use super::super::template_hash::{Drawn, drawn};
use super::marks::HASH;
use impresario_api::field::same;
use impresario_api::patch::LAST_APPLIED;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The revision that the template is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Revision {
    /// Its hash; none as long as it is not written down.
    pub(super) hash: Option<String>,
    /// How often a name had to be drawn anew.
    pub(super) collisions: Option<i32>,
}

/// Writes down the template that the set has now where that is not so, gives it the highest number, and takes away
/// old ones of which there are more than are kept.
pub(super) fn keep(
    view: &View<'_, DaemonSet>,
    revisions: &[&ControllerRevision],
    pods: &[&Pod],
    effects: &mut Effects,
) -> Revision {
    let set = view.object;
    let mut collisions = set.status.as_ref().and_then(|status| status.collision_count);
    let data = data(&view.stored["spec"]["template"]);
    let is_new = |revision: &&&ControllerRevision| same(&revision.data.0, &data);
    let leaves = |revision: &&&ControllerRevision| revision.metadata.deletion_timestamp.is_some();
    let new = revisions.iter().filter(is_new).filter(|it| !leaves(it)).max_by_key(|it| it.revision);
    let is_old = |revision: &&&ControllerRevision| {
        new.is_none_or(|new| new.metadata.uid != revision.metadata.uid)
    };
    let old: Vec<&ControllerRevision> = revisions.iter().filter(is_old).copied().collect();
    let next = old.iter().filter_map(|it| it.revision).max().unwrap_or(0).max(0).saturating_add(1);
    let Some(new) = new else {
        collisions = make(view, &data, next, collisions, effects);
        return Revision { hash: None, collisions };
    };
    if new.revision.is_none_or(|revision| revision < next) {
        effects.change(*new, json!({ "revision": next }), None);
    }
    let hash = hash_of(new);
    if hash.is_none() {
        label(new, effects);
    }
    surplus(set, &old, pods, hash, effects);
    Revision { hash: hash.map(str::to_owned), collisions }
}

/// Writes down a template. How often its name had to be drawn anew so far.
fn make(
    view: &View<'_, DaemonSet>,
    data: &Value,
    number: i64,
    collisions: Option<i32>,
    effects: &mut Effects,
) -> Option<i32> {
    let metadata = &view.object.metadata;
    let of = metadata.name.as_deref().unwrap_or_default();
    let template = &view.stored["spec"]["template"];
    let Drawn { name, hash, collisions } =
        drawn(of, template, collisions, |name| view.is_taken(name));
    let mut labels = template["metadata"]["labels"].clone();
    labels[HASH] = hash.into();
    let mut annotations = metadata.annotations.clone().unwrap_or_default();
    // What `kubectl apply` notes of the set is not so of its revisions.
    annotations.remove(LAST_APPLIED);
    effects.create::<ControllerRevision>(json!({
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": name,
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [view.owner().reference()],
        },
        "data": data,
        "revision": number,
    }));
    collisions
}

/// What is merged into the set to go back to a template.
fn data(template: &Value) -> Value {
    let mut template = template.clone();
    template["$patch"] = "replace".into();
    json!({ "spec": { "template": template } })
}

/// Gives a revision that has lost its label the one that its name says: the last word of it, as long as a label may be.
fn label(revision: &ControllerRevision, effects: &mut Effects) {
    let name = revision.metadata.name.as_deref().unwrap_or_default();
    let word = name.rsplit(['-', '.']).next().unwrap_or(name);
    let word = word.get(word.len().saturating_sub(63)..).unwrap_or(word);
    effects.change(revision, json!({ "metadata": { "labels": { HASH: word } } }), None);
}

fn hash_of(revision: &ControllerRevision) -> Option<&str> {
    revision.metadata.labels.as_ref()?.get(HASH).map(String::as_str)
}

/// Deletes the old revisions of the lowest numbers of which no pod is left, as many as there are too many.
fn surplus(
    set: &DaemonSet,
    old: &[&ControllerRevision],
    pods: &[&Pod],
    new: Option<&str>,
    effects: &mut Effects,
) {
    let kept = usize::try_from(set.spec.revision_history_limit.unwrap_or(10)).unwrap_or(0);
    let live: BTreeSet<&str> = pods
        .iter()
        .filter_map(|pod| pod.labels().get(HASH))
        .map(String::as_str)
        .chain(new)
        .collect();
    let is_live = |it: &ControllerRevision| hash_of(it).is_some_and(|hash| live.contains(hash));
    let leaves = |it: &ControllerRevision| it.metadata.deletion_timestamp.is_some();
    let mut idle: Vec<_> = old.iter().filter(|it| !is_live(it) && !leaves(it)).collect();
    idle.sort_by_key(|it| it.revision);
    let surplus = idle.len().saturating_sub(kept);
    for revision in idle.into_iter().take(surplus) {
        effects.delete(*revision);
    }
}
