//! What a template was: one `ControllerRevision` each, by which there is a way back. What daemon sets and stateful sets
//! share.

use super::engine::effects::Effects;
use super::engine::view::View;
use super::mirror::Mirrored;
use super::template_hash::{Drawn, drawn};
use impresario_api::field::same;
use impresario_api::kinds::daemonsets::REVISION_HASH;
use impresario_api::patch::LAST_APPLIED;
use k8s_openapi::api::apps::v1::ControllerRevision;
use serde_json::{Value, json};

/// The revision that the template of an object is now, and the others.
#[derive(Debug)]
pub(super) struct Found<'a> {
    /// None as long as it is not written down.
    pub(super) new: Option<&'a ControllerRevision>,
    /// All others.
    pub(super) old: Vec<&'a ControllerRevision>,
    /// How often a name had to be drawn anew.
    pub(super) collisions: Option<i32>,
}

/// Writes down the template that an object has now where that is not so, by a name that begins with this, and gives it
/// the highest number.
pub(super) fn keep<'a, K: Mirrored>(
    view: &View<'_, K>,
    name: &str,
    mut collisions: Option<i32>,
    revisions: &[&'a ControllerRevision],
    effects: &mut Effects,
) -> Found<'a> {
    let data = data(&view.stored["spec"]["template"]);
    let is_new = |revision: &&&ControllerRevision| same(&revision.data.0, &data);
    let leaves = |revision: &&&ControllerRevision| revision.metadata.deletion_timestamp.is_some();
    let new = revisions.iter().filter(is_new).filter(|it| !leaves(it)).max_by_key(|it| it.revision);
    let is_old = |revision: &&&ControllerRevision| {
        new.is_none_or(|new| new.metadata.uid != revision.metadata.uid)
    };
    let old: Vec<&ControllerRevision> = revisions.iter().filter(is_old).copied().collect();
    let next = old.iter().filter_map(|it| it.revision).max().unwrap_or(0).max(0).saturating_add(1);
    match new {
        None => collisions = make(view, name, &data, next, collisions, effects),
        Some(new) if new.revision.is_none_or(|revision| revision < next) => {
            effects.change(*new, json!({ "revision": next }), None);
        }
        Some(_) => {}
    }
    Found { new: new.copied(), old, collisions }
}

/// Writes down a template. How often its name had to be drawn anew so far.
fn make<K: Mirrored>(
    view: &View<'_, K>,
    of: &str,
    data: &Value,
    number: i64,
    collisions: Option<i32>,
    effects: &mut Effects,
) -> Option<i32> {
    let template = &view.stored["spec"]["template"];
    let Drawn { name, hash, collisions } =
        drawn(of, template, collisions, |name| view.is_taken(name));
    let mut labels = template["metadata"]["labels"].clone();
    labels[REVISION_HASH] = hash.into();
    let mut annotations = view.object.metadata().annotations.clone().unwrap_or_default();
    // What `kubectl apply` notes of the object is not so of its revisions.
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

/// What is merged into the object to go back to a template.
fn data(template: &Value) -> Value {
    let mut template = template.clone();
    template["$patch"] = "replace".into();
    json!({ "spec": { "template": template } })
}

/// The template that a revision holds.
pub(super) fn template_of(revision: &ControllerRevision) -> Value {
    let mut template = revision.data.0["spec"]["template"].clone();
    if let Some(fields) = template.as_object_mut() {
        fields.remove("$patch");
    }
    template
}

/// Deletes the old revisions of the lowest numbers that nobody is of, as many as there are more than are kept.
pub(super) fn surplus(
    old: &[&ControllerRevision],
    limit: Option<i32>,
    is_live: impl Fn(&ControllerRevision) -> bool,
    effects: &mut Effects,
) {
    let kept = usize::try_from(limit.unwrap_or(10)).unwrap_or(0);
    let leaves = |it: &ControllerRevision| it.metadata.deletion_timestamp.is_some();
    let mut idle: Vec<_> = old.iter().filter(|it| !is_live(it) && !leaves(it)).collect();
    idle.sort_by_key(|it| it.revision);
    let surplus = idle.len().saturating_sub(kept);
    for revision in idle.into_iter().take(surplus) {
        effects.delete(*revision);
    }
}
