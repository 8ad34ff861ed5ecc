//! Which volume a claim can have, and which claims a pod has: plain functions, for the controllers of both and the scheduler.
//!
//! (Kubernetes documentation, "Persistent Volumes", "Binding".)

use crate::controllers::labels;
use impresario_api::quantity::Quantity;
use impresario_api::storage::CLASS_BETA;
use k8s_openapi::api::core::v1::{
    ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, Pod,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use std::collections::BTreeMap;

/// A claim that a pod names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed<'a> {
    /// The volume of the pod.
    pub volume: &'a str,
    /// The claim's name.
    pub claim: String,
    /// Whether it is to be the pod's own: made for it, and no other of that name.
    pub is_own: bool,
    /// Whether the pod may only read there.
    pub is_read_only: bool,
}

/// The claims of a pod, by its volumes.
pub fn claimed(pod: &Pod) -> impl Iterator<Item = Claimed<'_>> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(move |volume| {
        if let Some(source) = &volume.persistent_volume_claim {
            let claim = source.claim_name.clone();
            let is_read_only = source.read_only == Some(true);
            return Some(Claimed { volume: &volume.name, claim, is_own: false, is_read_only });
        }
        volume.ephemeral.as_ref()?;
        let claim = own_claim(name, &volume.name);
        Some(Claimed { volume: &volume.name, claim, is_own: true, is_read_only: false })
    })
}

/// The name of the claim that is made for an `ephemeral` volume of a pod.
#[must_use]
pub fn own_claim(pod: &str, volume: &str) -> String {
    format!("{pod}-{volume}")
}

/// Whether a claim is the pod's own.
#[must_use]
pub fn is_of_pod(claim: &PersistentVolumeClaim, pod_uid: &str) -> bool {
    let owners = claim.metadata.owner_references.iter().flatten();
    owners.into_iter().any(|it| it.controller == Some(true) && it.uid == pod_uid)
}

/// The class that a claim names: `None` where it names none, which is another thing than the empty one.
#[must_use]
pub fn class_of(claim: &PersistentVolumeClaim) -> Option<&str> {
    let beta = claim.metadata.annotations.as_ref().and_then(|all| all.get(CLASS_BETA));
    let named = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_ref());
    beta.or(named).map(String::as_str)
}

/// An annotation of a claim.
#[must_use]
pub fn annotation<'a>(claim: &'a PersistentVolumeClaim, key: &str) -> Option<&'a str> {
    claim.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The volume that a claim has or wants by name; empty for any.
#[must_use]
pub fn volume_name(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default()
}

/// How whose a volume is and a claim stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// It is nobody's.
    Free,
    /// It is kept for a claim of this name, whichever that is.
    Kept,
    /// It is this claim's.
    Its,
    /// It is another's.
    Others,
}

/// Whose a volume is, as a claim sees it.
#[must_use]
pub fn held(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Held {
    let Some(reference) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else {
        return Held::Free;
    };
    if !refers_to(reference, claim) {
        return Held::Others;
    }
    match reference.uid.as_deref().unwrap_or_default() {
        "" => Held::Kept,
        uid if Some(uid) == claim.metadata.uid.as_deref() => Held::Its,
        _ => Held::Others,
    }
}

/// Whether a reference has the namespace and the name of a claim.
#[must_use]
pub fn refers_to(reference: &ObjectReference, claim: &PersistentVolumeClaim) -> bool {
    reference.namespace == claim.metadata.namespace && reference.name == claim.metadata.name
}

/// How much a claim asks for.
#[must_use]
pub fn asked(claim: &PersistentVolumeClaim) -> Option<Quantity> {
    let resources = claim.spec.as_ref()?.resources.as_ref()?;
    storage(resources.requests.as_ref())
}

/// How much storage these amounts are.
#[must_use]
pub fn storage(amounts: Option<&BTreeMap<String, Amount>>) -> Option<Quantity> {
    amounts?.get("storage")?.0.parse().ok()
}

fn mode(mode: Option<&String>) -> &str {
    mode.map_or("Filesystem", String::as_str)
}

/// Why a volume is not one that the claim could have: too small, of another class, not to be mounted so.
pub fn satisfies(
    claim: &PersistentVolumeClaim,
    volume: &PersistentVolumeSpec,
) -> Result<(), &'static str> {
    let wanted = claim.spec.clone().unwrap_or_default();
    if storage(volume.capacity.as_ref()) < asked(claim) {
        return Err("requested PV is too small");
    }
    if volume.storage_class_name.as_deref().unwrap_or_default()
        != class_of(claim).unwrap_or_default()
    {
        return Err("storageClassName does not match");
    }
    if volume.volume_attributes_class_name.as_deref().unwrap_or_default()
        != wanted.volume_attributes_class_name.as_deref().unwrap_or_default()
    {
        return Err("volumeAttributesClassName does not match");
    }
    if mode(volume.volume_mode.as_ref()) != mode(wanted.volume_mode.as_ref()) {
        return Err("incompatible volumeMode");
    }
    let offered = volume.access_modes.as_deref().unwrap_or_default();
    if !wanted.access_modes.iter().flatten().all(|mode| offered.contains(mode)) {
        return Err("incompatible accessMode");
    }
    Ok(())
}

/// Whether a claim that asks for no volume by name may take this one, which is nobody's.
#[must_use]
pub fn can_take(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let Some(spec) = &volume.spec else { return false };
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    let selector = claim.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let is_selected = selector.is_none_or(|selector| {
        let asks = selector.match_labels.as_ref().is_some_and(|all| !all.is_empty())
            || selector.match_expressions.as_ref().is_some_and(|all| !all.is_empty());
        !asks || labels::selects(selector, labels::of(&volume.metadata))
    });
    held(volume, claim) == Held::Free
        && volume.metadata.deletion_timestamp.is_none()
        && phase == Some("Available")
        && is_selected
        && satisfies(claim, spec).is_ok()
}

/// The smallest of these that the claim may take; of equals the first.
pub fn smallest<'a>(
    claim: &PersistentVolumeClaim,
    volumes: impl IntoIterator<Item = &'a PersistentVolume>,
) -> Option<&'a PersistentVolume> {
    let size = |volume: &PersistentVolume| {
        storage(volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()))
    };
    volumes
        .into_iter()
        .filter(|volume| can_take(claim, volume))
        .reduce(|best, other| if size(other) < size(best) { other } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn claim(spec: &Value) -> PersistentVolumeClaim {
        let mut claim = json!({"metadata": {"name": "c", "namespace": "ns", "uid": "u"},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "x",
                "resources": {"requests": {"storage": "5Gi"}}}});
        for (key, value) in spec.as_object().unwrap() {
            claim["spec"][key] = value.clone();
        }
        serde_json::from_value(claim).unwrap()
    }

    fn volume(name: &str, spec: &Value) -> PersistentVolume {
        let mut volume = json!({"metadata": {"name": name, "labels": {"disk": "fast"}},
            "spec": {"accessModes": ["ReadWriteOnce", "ReadOnlyMany"], "storageClassName": "x",
                "capacity": {"storage": "5Gi"}, "volumeMode": "Filesystem"},
            "status": {"phase": "Available"}});
        for (key, value) in spec.as_object().unwrap() {
            volume["spec"][key] = value.clone();
        }
        serde_json::from_value(volume).unwrap()
    }

    #[test]
    fn a_claim_takes_what_is_large_enough_of_its_class_and_can_be_mounted_so() {
        let rows = [
            (json!({}), json!({}), true),
            (json!({}), json!({"capacity": {"storage": "5000Mi"}}), false),
            (json!({}), json!({"capacity": {"storage": "6Gi"}}), true),
            (json!({}), json!({"storageClassName": "y"}), false),
            (json!({"storageClassName": ""}), json!({"storageClassName": null}), true),
            (json!({"storageClassName": null}), json!({"storageClassName": null}), true),
            (json!({"volumeMode": "Block"}), json!({}), false),
            (json!({"volumeMode": "Filesystem"}), json!({"volumeMode": null}), true),
            (json!({"accessModes": ["ReadOnlyMany"]}), json!({}), true),
            (json!({"accessModes": ["ReadWriteMany"]}), json!({}), false),
            (json!({"accessModes": ["ReadWriteOncePod"]}), json!({}), false),
            (json!({"selector": {"matchLabels": {"disk": "fast"}}}), json!({}), true),
            (json!({"selector": {"matchLabels": {"disk": "slow"}}}), json!({}), false),
            (json!({"selector": {}}), json!({}), true),
            (json!({}), json!({"claimRef": {"namespace": "ns", "name": "other"}}), false),
            (json!({"volumeAttributesClassName": "gold"}), json!({}), false),
        ];
        for (wanted, offered, expected) in rows {
            let (claim, volume) = (claim(&wanted), volume("v", &offered));
            assert_eq!(can_take(&claim, &volume), expected, "{wanted} {offered}");
        }
        let mut volume = volume("v", &json!({}));
        volume.status.as_mut().unwrap().phase = Some("Released".into());
        assert!(!can_take(&claim(&json!({})), &volume), "it holds what another has left");
    }

    #[test]
    fn a_volume_is_kept_for_a_name_until_it_is_a_certain_claims() {
        let of = |reference: Value| {
            held(&volume("v", &json!({"claimRef": reference})), &claim(&json!({})))
        };
        assert_eq!(of(Value::Null), Held::Free);
        assert_eq!(of(json!({"namespace": "ns", "name": "c"})), Held::Kept);
        assert_eq!(of(json!({"namespace": "ns", "name": "c", "uid": "u"})), Held::Its);
        assert_eq!(of(json!({"namespace": "ns", "name": "c", "uid": "before"})), Held::Others);
        assert_eq!(of(json!({"namespace": "else", "name": "c"})), Held::Others);
    }

    #[test]
    fn a_pod_has_the_claims_that_it_names_and_those_that_are_made_for_it() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {
            "containers": [], "volumes": [
                {"name": "a", "persistentVolumeClaim": {"claimName": "data"}},
                {"name": "b", "emptyDir": {}},
                {"name": "c", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}]}}))
        .unwrap();
        let all: Vec<_> = claimed(&pod).map(|it| (it.volume, it.claim, it.is_own)).collect();
        assert_eq!(all, [("a", "data".to_owned(), false), ("c", "p-c".to_owned(), true)]);
    }

    proptest! {
        #[test]
        fn no_smaller_volume_would_have_done(
            sizes in proptest::collection::vec(1..12u32, 0..12), asks in 1..12u32
        ) {
            let volumes: Vec<_> = sizes
                .iter()
                .enumerate()
                .map(|(n, size)| volume(&format!("v{n}"), &json!({"capacity": {"storage": format!("{size}Gi")}})))
                .collect();
            let wants = claim(&json!({"resources": {"requests": {"storage": format!("{asks}Gi")}}}));
            let found = smallest(&wants, &volumes).map(|volume| {
                volume.metadata.name.as_deref().unwrap()[1..].parse::<usize>().unwrap()
            });
            let least = sizes.iter().filter(|size| **size >= asks).min();
            prop_assert_eq!(found.map(|index| &sizes[index]), least);
        }
    }
}
