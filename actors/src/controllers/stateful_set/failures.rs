//! Pods that ended at their places: how long each is kept, and how many ended there before, one soon after the other.
//!
//! The next pod has the name of the one that ended, which must be gone first. So how many have failed stands with the set until
//! the next pod is there and says it itself.

use super::super::engine::effects::Effects;
use super::super::failed::failed;
use super::super::pod_view::PodView as _;
use super::members::{Member, Shape};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::jiff::Timestamp;
use std::collections::BTreeMap;

/// The annotation of a pod that says how many before it failed at its place, and of a set that says it of the places at
/// which pods have failed and the next is not there yet.
pub(super) const FAILURES: &str = "impresario.dev/stateful-pod-failures";
/// Of no more places than so many it is written down: pods at others wait as if they were the first that failed.
const MOST_NOTED: usize = 2_000;

/// How many pods have failed, by the revision that they were of and by their numbers.
type Noted = BTreeMap<String, BTreeMap<i64, u32>>;

/// What is known of pods that ended.
#[derive(Debug, Default)]
pub(super) struct Failures {
    noted: Noted,
    kept: BTreeMap<i64, Timestamp>,
}

impl Failures {
    /// What the set has written down, and what the pods say that are there.
    pub(super) fn of(
        set: &StatefulSet,
        shape: &Shape,
        members: &[Member<'_>],
        now: Timestamp,
    ) -> Self {
        let said = set.metadata.annotations.as_ref().and_then(|all| all.get(FAILURES));
        let noted = said.and_then(|said| serde_json::from_str(said).ok());
        let (mut noted, mut kept): (Noted, _) = (noted.unwrap_or_default(), BTreeMap::new());
        for places in noted.values_mut() {
            places.retain(|ordinal, _| shape.has(*ordinal));
        }
        let mut room = MOST_NOTED;
        for member in members.iter().filter(|it| shape.has(it.ordinal) && !it.pod.terminating()) {
            for places in noted.values_mut() {
                places.remove(&member.ordinal);
            }
            if !member.pod.finished() {
                continue;
            }
            let failed = failed(member.pod, FAILURES, now);
            kept.extend(failed.kept_until.map(|until| (member.ordinal, until)));
            let places = noted.entry(member.revision().unwrap_or_default().to_owned()).or_default();
            places.insert(member.ordinal, failed.in_a_row);
        }
        for places in noted.values_mut() {
            let first = places.iter().take(room).map(|(ordinal, count)| (*ordinal, *count));
            *places = first.collect();
            room -= places.len();
        }
        noted.retain(|_, places| !places.is_empty());
        Self { noted, kept }
    }

    /// Until when a pod that ended is kept, if that is still to come.
    pub(super) fn kept_until(&self, ordinal: i64) -> Option<Timestamp> {
        self.kept.get(&ordinal).copied()
    }

    /// How many pods of a revision failed at a place, one soon after the other.
    pub(super) fn before(&self, ordinal: i64, revision: &str) -> u32 {
        self.noted.get(revision).and_then(|places| places.get(&ordinal)).copied().unwrap_or(0)
    }

    /// Writes down, with the set's status, what no pod will say any more.
    pub(super) fn note(&self, effects: &mut Effects) {
        if self.noted.is_empty() {
            effects.unannotate(FAILURES);
        } else if let Ok(noted) = serde_json::to_string(&self.noted) {
            effects.annotate(FAILURES, noted);
        }
    }
}
