//! What the scheduler knows of claims, volumes and classes, and what the claims of a pod ask of its node by that. No IO.
//!
//! A claim whose class says `WaitForFirstConsumer` gets its volume where its pod will be: the scheduler chooses a node on which
//! every claim of the pod has a volume or can get one, writes down which, and binds the pod when all claims are bound.
//! (Kubernetes documentation, "Storage Classes", "Volume Binding Mode".)

use super::volume_needs::{Need, Terms, VolumeNeeds};
use crate::change;
use crate::follow::Followed;
use crate::storage::{
    Held, annotation, can_take, claimed, class_of, held, is_of_pod, smallest, volume_name,
};
use impresario_api::storage::{BIND_COMPLETED, HOSTNAME, NO_PROVISIONER, SELECTED_NODE};
use impresario_registry_api::WatchEvent;
use k8s_openapi::api::core::v1::{
    NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume, PersistentVolumeClaim, Pod,
};
use k8s_openapi::api::storage::v1::StorageClass;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Which of the kinds of storage was read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Claims,
    Volumes,
    Classes,
}

/// What is followed for the claims of pods.
pub(super) const KINDS: [(&str, Kind); 3] = [
    ("persistentvolumeclaims", Kind::Claims),
    ("persistentvolumes", Kind::Volumes),
    ("storage.k8s.io/storageclasses", Kind::Classes),
];

/// Objects of a kind by namespace and name; nothing before they were listed.
#[derive(Debug)]
struct Known<T>(Option<BTreeMap<(String, String), T>>);

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: DeserializeOwned> Known<T> {
    fn seen(&mut self, followed: Followed) {
        let place = |key: &impresario_registry_api::Key| (key.namespace.clone(), key.name.clone());
        let read = |entry: &impresario_registry_api::Entry| match change::decode::<T>(entry) {
            Ok(object) => Some((place(&entry.key), object)),
            Err(error) => {
                tracing::warn!(%error, "skipped: whoever needs it waits");
                None
            }
        };
        match followed {
            Followed::All(entries) => self.0 = Some(entries.iter().filter_map(read).collect()),
            Followed::Changes(events) => {
                let all = self.0.get_or_insert_default();
                for event in events {
                    match event {
                        WatchEvent::Put { entry, .. } => match read(&entry) {
                            Some((place, object)) => drop(all.insert(place, object)),
                            None => drop(all.remove(&place(&entry.key))),
                        },
                        WatchEvent::Delete { previous, .. } => {
                            all.remove(&place(&previous.key));
                        }
                    }
                }
            }
        }
    }
}

impl<T> Known<T> {
    fn get(&self, namespace: &str, name: &str) -> Option<&T> {
        self.0.as_ref()?.get(&(namespace.to_owned(), name.to_owned()))
    }

    fn all(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flat_map(BTreeMap::values)
    }
}

/// What is known.
#[derive(Debug, Default)]
pub(super) struct Volumes {
    claims: Known<PersistentVolumeClaim>,
    persistent: Known<PersistentVolume>,
    classes: Known<StorageClass>,
    /// Which pods that have a node, and are not over, name a claim.
    users: HashMap<(String, String), BTreeSet<String>>,
    /// The claims of these pods.
    used: HashMap<String, Vec<(String, String)>>,
    /// Which pod that is being bound is to have a claim that one alone may have.
    taken: HashMap<(String, String), String>,
}

impl Volumes {
    pub(super) fn claims_seen(&mut self, followed: Followed) {
        self.claims.seen(followed);
    }

    pub(super) fn volumes_seen(&mut self, followed: Followed) {
        self.persistent.seen(followed);
    }

    pub(super) fn classes_seen(&mut self, followed: Followed) {
        self.classes.seen(followed);
    }

    /// A pod was read that has a node. Whether claims are used by fewer now, or by one who may be the only one.
    pub(super) fn pod_bound(&mut self, uid: &str, pod: &Pod, is_over: bool) -> bool {
        if is_over {
            return self.pod_gone(uid);
        }
        self.let_go(uid);
        if self.used.contains_key(uid) {
            return false; // what it names does not change
        }
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let all: Vec<_> = claimed(pod).map(|it| (namespace.to_owned(), it.claim)).collect();
        if all.is_empty() {
            return false;
        }
        for place in &all {
            self.users.entry(place.clone()).or_default().insert(uid.to_owned());
        }
        let is_alone = all
            .iter()
            .any(|(namespace, name)| self.claims.get(namespace, name).is_some_and(is_for_one));
        self.used.insert(uid.to_owned(), all);
        is_alone
    }

    /// Gives a pod that is about to be bound those claims that one alone may have; not where another has one of them, or is
    /// about to.
    pub(super) fn take(&mut self, uid: &str, alone: &[(String, String)]) -> bool {
        let is_anothers = |place: &(String, String)| {
            let users = self.users.get(place).into_iter().flatten();
            users.chain(self.taken.get(place)).any(|user| user != uid)
        };
        if alone.iter().any(is_anothers) {
            return false;
        }
        self.taken.extend(alone.iter().map(|place| (place.clone(), uid.to_owned())));
        true
    }

    /// A pod is not about to be bound any more.
    pub(super) fn let_go(&mut self, uid: &str) {
        self.taken.retain(|_, user| user != uid);
    }

    /// A pod is gone. Whether claims are used by fewer now.
    pub(super) fn pod_gone(&mut self, uid: &str) -> bool {
        self.let_go(uid);
        let Some(all) = self.used.remove(uid) else { return false };
        for place in &all {
            if let Some(users) = self.users.get_mut(place) {
                users.remove(uid);
                if users.is_empty() {
                    self.users.remove(place);
                }
            }
        }
        true
    }

    /// What the claims of a pod ask of its node; nothing of one that has none.
    pub(super) fn needs(&self, pod: &Pod) -> Option<VolumeNeeds> {
        let mut all = claimed(pod).peekable();
        all.peek()?;
        if self.claims.0.is_none() || self.persistent.0.is_none() || self.classes.0.is_none() {
            let blocked = Some("the claims of the cluster have not been read yet".to_owned());
            return Some(VolumeNeeds { blocked, ..VolumeNeeds::default() });
        }
        let mut found = VolumeNeeds::default();
        for wanted in all {
            match self.need(pod, &wanted.claim, wanted.is_own) {
                Ok(need) => {
                    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
                    let claim = self.claims.get(&namespace, &wanted.claim);
                    if claim.is_some_and(is_for_one) {
                        found.alone.push((namespace, wanted.claim));
                    }
                    found.needs.push(need);
                }
                Err(why) => {
                    let blocked = Some(why);
                    return Some(VolumeNeeds { blocked, ..VolumeNeeds::default() });
                }
            }
        }
        Some(found)
    }

    fn need(&self, pod: &Pod, name: &str, is_own: bool) -> Result<Need, String> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let Some(claim) = self.claims.get(namespace, name) else {
            return Err(if is_own {
                format!("waiting for persistentvolumeclaim {name:?} to be made for the pod")
            } else {
                format!("persistentvolumeclaim {name:?} not found")
            });
        };
        if is_own && !is_of_pod(claim, uid) {
            return Err(format!("persistentvolumeclaim {name:?} was not created for the pod"));
        }
        if claim.metadata.deletion_timestamp.is_some() {
            return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
        }
        let users = self.users.get(&(namespace.to_owned(), name.to_owned()));
        if is_for_one(claim) && users.is_some_and(|users| users.iter().any(|user| user != uid)) {
            return Err("node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"
                .to_owned());
        }
        let its = volume_name(claim);
        if !its.is_empty() && annotation(claim, BIND_COMPLETED).is_some() {
            let volume = self.persistent.get("", its).filter(|it| held(it, claim) == Held::Its);
            return volume.map(|volume| Need::Bound(terms_of(volume))).ok_or_else(|| {
                format!(
                    "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {its:?}"
                )
            });
        }
        let mut volumes = self.persistent.all();
        if let Some(volume) = volumes.find(|volume| held(volume, claim) == Held::Its) {
            return Ok(Need::Coming(terms_of(volume)));
        }
        let class = class_of(claim).unwrap_or_default();
        let class = self.classes.get("", class);
        let delays = class
            .filter(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
        let Some(class) = delays.filter(|_| its.is_empty()) else {
            return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
        };
        if let Some(node) = annotation(claim, SELECTED_NODE) {
            return Ok(Need::Coming(Some(vec![on(HOSTNAME, vec![node.to_owned()])])));
        }
        let makes = class.provisioner != NO_PROVISIONER;
        let made = makes.then(|| {
            let topologies = class.allowed_topologies.as_ref()?;
            Some(topologies.iter().map(topology).collect())
        });
        Ok(Need::Open { claim: name.to_owned(), volumes: self.takeable(claim), made })
    }

    /// The volumes that a claim could take, the smallest first.
    fn takeable(&self, claim: &PersistentVolumeClaim) -> Vec<(String, Terms)> {
        let mut left: Vec<_> =
            self.persistent.all().filter(|volume| can_take(claim, volume)).collect();
        let mut sorted = Vec::with_capacity(left.len());
        while let Some(best) = smallest(claim, left.iter().copied()) {
            left.retain(|volume| !std::ptr::eq(*volume, best));
            sorted.push((best.metadata.name.clone().unwrap_or_default(), terms_of(best)));
        }
        sorted
    }

    /// A claim, for who writes down what was chosen for it.
    pub(super) fn claim(&self, namespace: &str, name: &str) -> Option<&PersistentVolumeClaim> {
        self.claims.get(namespace, name)
    }
}

/// Whether one pod alone may have a claim.
fn is_for_one(claim: &PersistentVolumeClaim) -> bool {
    let mut modes = claim.spec.iter().flat_map(|spec| spec.access_modes.iter().flatten());
    modes.any(|mode| mode == "ReadWriteOncePod")
}

fn terms_of(volume: &PersistentVolume) -> Terms {
    let affinity = volume.spec.as_ref()?.node_affinity.as_ref()?;
    Some(affinity.required.as_ref()?.node_selector_terms.clone())
}

fn on(key: &str, values: Vec<String>) -> NodeSelectorTerm {
    let values = Some(values);
    let one = NodeSelectorRequirement { key: key.to_owned(), operator: "In".to_owned(), values };
    NodeSelectorTerm { match_expressions: Some(vec![one]), match_fields: None }
}

fn topology(term: &k8s_openapi::api::core::v1::TopologySelectorTerm) -> NodeSelectorTerm {
    let each = term.match_label_expressions.iter().flatten();
    let each = each.map(|one| NodeSelectorRequirement {
        key: one.key.clone(),
        operator: "In".to_owned(),
        values: Some(one.values.clone()),
    });
    NodeSelectorTerm { match_expressions: Some(each.collect()), match_fields: None }
}

#[cfg(test)]
mod tests;
