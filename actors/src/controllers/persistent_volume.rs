//! Says of a `PersistentVolume` whether it can be claimed, and what becomes of it when its claim is gone.
//!
//! ```text
//!  claimRef                          phase       and then
//!  none, or without a uid            Available
//!  a claim that names the volume     Bound
//!  a claim that names none yet       as it is    the claim's controller goes on, unless the volume is being deleted
//!  a claim that has another          Available   it is given back
//!  a claim that is gone              Released    `Retain`: it stays so; `Delete`: it is deleted, if it is one of ours
//! ```
//!
//! Only what is certain counts: a claim that is not shown is gone where all is shown that was there when the volume became
//! as it is. What was claimed once is claimed by nobody else before somebody has looked at what is in it.

#[cfg(test)]
mod tests;

use super::engine::controller::Controller;
use super::engine::effects::{Effects, Event};
use super::engine::looks_at::LooksAt;
use super::engine::view::View;
use crate::storage::{refers_to, volume_name};
use impresario_api::storage::{BOUND_BY_CONTROLLER, LOCAL_DRIVER, VOLUME_PROTECTION};
use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, PersistentVolumeStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// How long it waits for what it cannot see yet.
const SOON: SignedDuration = SignedDuration::from_millis(250);

/// Decides for volumes.
#[derive(Debug)]
pub enum Reconciler {}

impl Controller for Reconciler {
    type Object = PersistentVolume;

    fn looks_at() -> LooksAt<PersistentVolume> {
        LooksAt::itself().concerning::<PersistentVolumeClaim, _>(is_claimed_by, |claim| {
            (claim.metadata.uid.clone(), volume_name(claim).to_owned())
        })
    }

    fn reconcile(view: &View<'_, PersistentVolume>, now: Timestamp) -> Effects {
        let (mut effects, volume) = (Effects::default(), view.object);
        let no_spec = PersistentVolumeSpec::default();
        let spec = volume.spec.as_ref().unwrap_or(&no_spec);
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        let reference = spec.claim_ref.as_ref();
        let uid = reference.and_then(|it| it.uid.as_deref()).filter(|uid| !uid.is_empty());
        let claim = view.of::<PersistentVolumeClaim>().first();
        let is_its = claim.is_some_and(|claim| claim.metadata.uid.as_deref() == uid);
        let is_going = volume.metadata.deletion_timestamp.is_some();
        let state = match (uid, claim) {
            (None, _) => State::Is("Available"),
            (Some(_), Some(claim)) if is_its => match volume_name(claim) {
                // It gets another: none is bound to a volume that goes.
                "" if is_going => State::Free,
                "" => State::AsItIs,
                its if its == name => State::Is("Bound"),
                // Made for a claim that has got another meanwhile.
                _ if is_ours(spec) => State::Free,
                _ => {
                    effects.rewrite_itself(given_back(volume));
                    State::Is("Available")
                }
            },
            _ if !view.shows_all::<PersistentVolumeClaim>() => {
                effects.look_again(now + SOON);
                return effects;
            }
            _ => State::Free,
        };
        let was = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        let (phase, why) = match state {
            State::AsItIs => (was.unwrap_or("Available"), None),
            State::Is(phase) => (phase, None),
            State::Free => match reclaimed(spec) {
                Reclaimed::Deleted => {
                    // Said first, so that who looks meanwhile is told why it goes.
                    if was == Some("Released") && !is_going {
                        effects.delete_itself = true;
                    } else if !is_going {
                        effects.look_again(now);
                    }
                    ("Released", None)
                }
                Reclaimed::Kept => ("Released", None),
                Reclaimed::Failed(why) => ("Failed", Some(why)),
            },
        };
        let finalizers = volume.metadata.finalizers.iter().flatten();
        let is_held = finalizers.into_iter().any(|one| one == VOLUME_PROTECTION);
        if is_going && is_held && phase != "Bound" && state != State::AsItIs {
            effects.unhold(VOLUME_PROTECTION);
        }
        if let Some(why) = why.filter(|_| was != Some(phase)) {
            effects.say(Event::warning("VolumeFailedDelete", why));
        }
        effects.report(&status(volume, phase, why, now));
        effects
    }
}

/// What is said of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// This phase.
    Is(&'static str),
    /// Its claim is on its way.
    AsItIs,
    /// Its claim is gone.
    Free,
}

/// What becomes of a volume whose claim is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reclaimed {
    /// It stays for somebody to look at; or whoever made it deletes it.
    Kept,
    /// It is deleted, and its node removes what is in it.
    Deleted,
    /// It is to be deleted or emptied, and nobody can.
    Failed(&'static str),
}

/// Whether it is a folder of a node that is made and removed by us, and to be removed.
fn is_ours(spec: &PersistentVolumeSpec) -> bool {
    reclaimed(spec) == Reclaimed::Deleted
}

fn reclaimed(spec: &PersistentVolumeSpec) -> Reclaimed {
    let driver = spec.csi.as_ref().map(|csi| csi.driver.as_str());
    match (spec.persistent_volume_reclaim_policy.as_deref(), driver) {
        (Some("Delete"), Some(LOCAL_DRIVER)) => Reclaimed::Deleted,
        (Some("Delete"), None) => Reclaimed::Failed(
            "no volume of this kind is deleted here: remove what is in it, and delete the PersistentVolume by hand",
        ),
        (Some("Recycle"), _) => Reclaimed::Failed(
            "Recycle is deprecated and not done here: use Retain, or a class that makes volumes and deletes them",
        ),
        _ => Reclaimed::Kept,
    }
}

/// Whether a claim has the namespace and the name that the volume says.
fn is_claimed_by(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    reference.is_some_and(|reference| refers_to(reference, claim))
}

/// The patch by which a volume is no claim's: as whoever had set it aside for one has left it.
fn given_back(volume: &PersistentVolume) -> Value {
    let annotations = volume.metadata.annotations.as_ref();
    if annotations.is_some_and(|all| all.contains_key(BOUND_BY_CONTROLLER)) {
        json!({"spec": {"claimRef": null}, "metadata": {"annotations": {BOUND_BY_CONTROLLER: null}}})
    } else {
        json!({"spec": {"claimRef": {"uid": null}}})
    }
}

fn status(
    volume: &PersistentVolume,
    phase: &str,
    why: Option<&str>,
    now: Timestamp,
) -> PersistentVolumeStatus {
    let mut status = volume.status.clone().unwrap_or_default();
    if status.phase.as_deref() != Some(phase) {
        // In whole seconds, as it is stored.
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        status.last_phase_transition_time = Some(Time(now));
    }
    status.phase = Some(phase.to_owned());
    status.message = why.map(str::to_owned);
    status.reason = why.map(|_| "VolumeFailedDelete".to_owned());
    status
}
