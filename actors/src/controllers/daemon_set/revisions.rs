//! What the template of a daemon set was, by the words that its pods carry.

use super::super::engine::effects::Effects;
use super::super::engine::view::View;
use super::super::pod_view::PodView as _;
use super::super::revisions::{self, Found};
use super::marks::HASH;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
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
    let name = set.metadata.name.as_deref().unwrap_or_default();
    let collisions = set.status.as_ref().and_then(|status| status.collision_count);
    let Found { new, old, collisions } =
        revisions::keep(view, name, collisions, revisions, effects);
    let Some(new) = new else { return Revision { hash: None, collisions } };
    let hash = hash_of(new);
    if hash.is_none() {
        label(new, effects);
    }
    let of_pods = pods.iter().filter_map(|pod| pod.labels().get(HASH)).map(String::as_str);
    let live: BTreeSet<&str> = of_pods.chain(hash).collect();
    let is_live = |it: &ControllerRevision| hash_of(it).is_some_and(|hash| live.contains(hash));
    revisions::surplus(&old, set.spec.revision_history_limit, is_live, effects);
    Revision { hash: hash.map(str::to_owned), collisions }
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
