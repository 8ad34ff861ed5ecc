//! Finds a volume for a `PersistentVolumeClaim`, or has one made, and keeps the two bound.
//!
//! ```text
//!  claim              volume                 what is done
//!  names none         none is its            the smallest that fits is made its: `claimRef`, with the claim's uid
//!  names none         is its, or kept        the claim names it, and is marked `bind-completed`
//!  names it, marked   is its                 nothing: it is bound
//!  names it, marked   is gone, or another's  it is lost
//! ```
//!
//! The volume is written first, if it is as it was seen: of two claims that choose one, one gets it. Whoever goes on after
//! a crash finds the uid there. What a pod uses is not let go. (Kubernetes documentation, "Persistent Volumes".)

mod provision;
mod said;

#[cfg(test)]
mod tests;

use super::engine::controller::Controller;
use super::engine::effects::{Effects, Event};
use super::engine::looks_at::LooksAt;
use super::engine::view::View;
use crate::storage::{
    Held, annotation, asked, claimed, class_of, held, satisfies, smallest, storage, volume_name,
};
use impresario_api::storage::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, CLAIM_PROTECTION, LOCAL_DRIVER, SELECTED_NODE,
    default_class,
};
use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus, Pod,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use provision::provision;
use said::{reference, wait};
use serde_json::{Value, json};
use std::sync::Arc;

/// How long it waits for what it cannot see yet.
const SOON: SignedDuration = SignedDuration::from_millis(250);

/// Decides for claims.
#[derive(Debug)]
pub enum Reconciler {}

impl Controller for Reconciler {
    type Object = PersistentVolumeClaim;

    fn looks_at() -> LooksAt<PersistentVolumeClaim> {
        LooksAt::itself()
            .concerning::<PersistentVolume, _>(may_be_its, |volume| {
                let metadata = &volume.metadata;
                let phase = volume.status.as_ref().and_then(|status| status.phase.clone());
                let is_going = metadata.deletion_timestamp.is_some();
                (volume.spec.clone(), metadata.labels.clone(), phase, is_going)
            })
            .concerning::<Pod, _>(is_used_by, |pod| {
                pod.spec.as_ref().and_then(|spec| spec.node_name.clone())
            })
            .mattering::<StorageClass, _>(StorageClass::clone, |claim, _, _| !is_marked(claim))
    }

    fn reconcile(view: &View<'_, PersistentVolumeClaim>, now: Timestamp) -> Effects {
        let (mut effects, claim) = (Effects::default(), view.object);
        if claim.metadata.deletion_timestamp.is_some() {
            let holds = claim.metadata.finalizers.iter().flatten();
            let is_held = holds.into_iter().any(|one| one == CLAIM_PROTECTION);
            if is_held && view.of::<Pod>().is_empty() {
                if view.shows_all::<Pod>() {
                    effects.unhold(CLAIM_PROTECTION);
                } else {
                    effects.look_again(now + SOON);
                }
                return effects;
            }
            if !is_marked(claim) {
                return effects; // it gets no volume any more
            }
        }
        if is_marked(claim) {
            keep(view, now, &mut effects);
        } else {
            find(view, now, &mut effects);
        }
        effects
    }
}

/// Whether both sides of its binding were written.
fn is_marked(claim: &PersistentVolumeClaim) -> bool {
    annotation(claim, BIND_COMPLETED).is_some()
}

/// Whether a volume is a claim's, or could become so.
fn may_be_its(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    match held(volume, claim) {
        Held::Its | Held::Kept => true,
        Held::Others => volume.metadata.name.as_deref() == Some(volume_name(claim)),
        Held::Free => {
            let class = volume.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
            let is_of_class = class.unwrap_or_default() == class_of(claim).unwrap_or_default();
            volume.metadata.name.as_deref() == Some(volume_name(claim))
                || (is_of_class && !is_marked(claim))
        }
    }
}

/// Whether a pod that has a node names the claim.
fn is_used_by(claim: &PersistentVolumeClaim, pod: &Pod) -> bool {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    let name = claim.metadata.name.as_deref();
    pod.metadata.namespace == claim.metadata.namespace
        && node.is_some_and(|node| !node.is_empty())
        && claimed(pod).any(|it| Some(it.claim.as_str()) == name)
}

/// The volume of this name, of those that concern the claim.
fn named<'a>(
    view: &View<'a, PersistentVolumeClaim>,
    name: &str,
) -> Option<&'a Arc<PersistentVolume>> {
    view.of::<PersistentVolume>().iter().find(|it| it.metadata.name.as_deref() == Some(name))
}

/// Keeps a claim bound whose binding is complete, or says that it is lost.
fn keep(view: &View<'_, PersistentVolumeClaim>, now: Timestamp, effects: &mut Effects) {
    let claim = view.object;
    let Some(volume) = named(view, volume_name(claim)) else {
        if view.shows_all::<PersistentVolume>() {
            let why = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
            lose(claim, effects, "ClaimLost", why);
        } else {
            effects.look_again(now + SOON);
        }
        return;
    };
    match held(volume, claim) {
        Held::Its => {
            if !grow(claim, volume, now, effects) {
                effects.report(&bound(claim, volume));
            }
        }
        Held::Free | Held::Kept => give(claim, volume, now, effects),
        Held::Others => {
            let why = "Two claims are bound to the same volume, this one is bound incorrectly";
            lose(claim, effects, "ClaimMisbound", why);
        }
    }
}

fn lose(claim: &PersistentVolumeClaim, effects: &mut Effects, reason: &str, why: &str) {
    let mut status = claim.status.clone().unwrap_or_default();
    if status.phase.as_deref() != Some("Lost") {
        effects.say(Event::warning(reason, why));
    }
    status.phase = Some("Lost".to_owned());
    (status.access_modes, status.capacity) = (None, None);
    effects.report(&status);
}

/// The status of a claim that has this volume.
fn bound(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> PersistentVolumeClaimStatus {
    let spec = volume.spec.clone().unwrap_or_default();
    PersistentVolumeClaimStatus {
        phase: Some("Bound".to_owned()),
        access_modes: spec.access_modes,
        capacity: spec.capacity,
        ..claim.status.clone().unwrap_or_default()
    }
}

/// Makes a volume larger that is a folder of a node, where its claim asks for more than it has. Whether it does.
fn grow(
    claim: &PersistentVolumeClaim,
    volume: &Arc<PersistentVolume>,
    now: Timestamp,
    effects: &mut Effects,
) -> bool {
    let spec = volume.spec.as_ref();
    let has = storage(spec.and_then(|spec| spec.capacity.as_ref()));
    let Some(wants) = asked(claim).filter(|wants| Some(*wants) > has) else { return false };
    let driver = spec.and_then(|spec| spec.csi.as_ref()).map(|csi| csi.driver.as_str());
    if driver != Some(LOCAL_DRIVER) {
        let why = "didn't find a plugin capable of expanding the volume; waiting for an external controller to \
                   process this PVC";
        effects.say(Event::normal("ExternalExpanding", why));
        return false;
    }
    let capacity = json!({"spec": {"capacity": {"storage": wants.to_string()}}});
    effects.rewrite(&**volume, capacity);
    effects.look_again(now);
    true
}

/// Makes a volume the claim's.
fn give(
    claim: &PersistentVolumeClaim,
    volume: &Arc<PersistentVolume>,
    now: Timestamp,
    effects: &mut Effects,
) {
    let mut patch = json!({"spec": {"claimRef": reference(claim)}});
    if held(volume, claim) == Held::Free {
        patch["metadata"]["annotations"] = json!({BOUND_BY_CONTROLLER: "yes"});
    }
    effects.rewrite(&**volume, patch);
    // As soon as that is seen the other side is written.
    effects.look_again(now);
}

/// Binds a claim to a volume that may be its: first the volume's side, and once that is seen the claim's.
fn bind(
    view: &View<'_, PersistentVolumeClaim>,
    volume: &Arc<PersistentVolume>,
    now: Timestamp,
    effects: &mut Effects,
) {
    let claim = view.object;
    if held(volume, claim) != Held::Its {
        return give(claim, volume, now, effects);
    }
    let mut annotations = json!({BIND_COMPLETED: "yes"});
    if volume_name(claim).is_empty() {
        annotations[BOUND_BY_CONTROLLER] = "yes".into();
    }
    effects.rewrite_itself(json!({
        "metadata": {"annotations": annotations},
        "spec": {"volumeName": volume.metadata.name},
    }));
    effects.report(&bound(claim, volume));
}

/// Finds a volume for a claim that is not bound.
fn find(view: &View<'_, PersistentVolumeClaim>, now: Timestamp, effects: &mut Effects) {
    let claim = view.object;
    let wanted = volume_name(claim);
    let volumes = view.of::<PersistentVolume>();
    if !wanted.is_empty() {
        let Some(volume) = named(view, wanted) else {
            let why = format!("volume {wanted:?} not found");
            return wait(view, effects, Event::warning("FailedBinding", why));
        };
        let spec = volume.spec.clone().unwrap_or_default();
        if volume.metadata.deletion_timestamp.is_some() {
            return wait(view, effects, goes(volume));
        }
        return match (held(volume, claim), satisfies(claim, &spec)) {
            (Held::Others, _) => {
                let why = format!("volume {wanted:?} already bound to a different claim.");
                wait(view, effects, Event::warning("FailedBinding", why));
            }
            (Held::Free, Err(why)) => {
                let why = format!("Cannot bind to requested volume {wanted:?}: {why}");
                wait(view, effects, Event::warning("VolumeMismatch", why));
            }
            _ => bind(view, volume, now, effects),
        };
    }
    // One that is its first: a crash may have come between the two writes.
    let is = |wanted: Held| volumes.iter().find(move |volume| held(volume, claim) == wanted);
    if let Some(volume) = is(Held::Its).or_else(|| is(Held::Kept)) {
        if volume.metadata.deletion_timestamp.is_some() {
            return wait(view, effects, goes(volume));
        }
        let spec = volume.spec.clone().unwrap_or_default();
        if storage(spec.capacity.as_ref()) < asked(claim) {
            let name = volume.metadata.name.as_deref().unwrap_or_default();
            let why =
                format!("Cannot bind to requested volume {name:?}: requested PV is too small");
            return wait(view, effects, Event::warning("VolumeMismatch", why));
        }
        return bind(view, volume, now, effects);
    }
    let Some(named) = class_of(claim) else {
        let classes: Vec<Value> = view
            .of::<StorageClass>()
            .iter()
            .filter_map(|class| serde_json::to_value(&**class).ok())
            .collect();
        if let Some(class) = default_class(&classes) {
            // It came before there was a class for those that name none.
            effects.rewrite_itself(json!({"spec": {"storageClassName": class}}));
            effects.look_again(now);
            return;
        }
        return static_only(view, now, effects);
    };
    if named.is_empty() {
        return static_only(view, now, effects);
    }
    let class =
        view.of::<StorageClass>().iter().find(|it| it.metadata.name.as_deref() == Some(named));
    let is_delayed = class
        .is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
    if !is_delayed && let Some(volume) = smallest_of(claim, volumes) {
        return bind(view, volume, now, effects);
    }
    let Some(class) = class else {
        let why = format!("storageclass.storage.k8s.io {named:?} not found");
        return wait(view, effects, Event::warning("ProvisioningFailed", why));
    };
    let node = annotation(claim, SELECTED_NODE);
    if is_delayed && node.is_none() {
        let why = "waiting for first consumer to be created before binding";
        return wait(view, effects, Event::normal("WaitForFirstConsumer", why));
    }
    provision(view, class, node, now, effects);
}

/// What is said of a volume that a claim would have, and that is being deleted: when it is gone it gets another.
fn goes(volume: &PersistentVolume) -> Event {
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    Event::warning("FailedBinding", format!("volume {name:?} is being deleted"))
}

/// Finds one of the volumes that are there, since nobody is to make one.
fn static_only(view: &View<'_, PersistentVolumeClaim>, now: Timestamp, effects: &mut Effects) {
    match smallest_of(view.object, view.of::<PersistentVolume>()) {
        Some(volume) => bind(view, volume, now, effects),
        None => {
            let why = "no persistent volumes available for this claim and no storage class is set";
            wait(view, effects, Event::normal("FailedBinding", why));
        }
    }
}

fn smallest_of<'a>(
    claim: &PersistentVolumeClaim,
    volumes: &'a [Arc<PersistentVolume>],
) -> Option<&'a Arc<PersistentVolume>> {
    let found = smallest(claim, volumes.iter().map(Arc::as_ref))?;
    volumes.iter().find(|volume| std::ptr::eq(volume.as_ref(), found))
}
