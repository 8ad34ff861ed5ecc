//! How many pods a budget counts on, and how many of them must be well.

use super::super::engine::view::View;
use super::super::owners::controller;
use super::super::part::{Round, part};
use super::super::pod_view::PodView as _;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;
use std::sync::Arc;
use thiserror::Error;

/// Why it cannot be told how many pods there should be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum Unknown {
    /// Of its controller nobody says how many pods it keeps.
    #[error(
        "pod {pod:?} is controlled by a {kind}, of which nobody says how many pods it keeps: give spec.minAvailable as a number"
    )]
    NoScale {
        /// The pod.
        pod: String,
        /// The kind of its controller.
        kind: String,
    },
    /// Its controller is not there.
    #[error("the {kind} {name:?} that controls pod {pod:?} is not there: it goes, or comes yet")]
    Gone {
        /// The pod.
        pod: String,
        /// The kind of its controller.
        kind: String,
        /// Its name.
        name: String,
    },
}

/// What a budget counts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expected {
    /// How many pods there should be.
    pub(super) pods: i32,
    /// How many must be well.
    pub(super) healthy: i32,
    /// How many there are that nobody controls, where that matters.
    pub(super) unmanaged: usize,
}

impl Expected {
    pub(super) fn of(view: &View<'_, PodDisruptionBudget>, pods: &[&Pod]) -> Result<Self, Unknown> {
        let spec = view.object.spec.as_ref();
        let there = i32::try_from(pods.len()).unwrap_or(i32::MAX);
        if let Some(most) = spec.and_then(|spec| spec.max_unavailable.as_ref()) {
            let (pods, unmanaged) = scale(view, pods)?;
            let healthy = (pods - part(most, pods, Round::Up)).max(0);
            return Ok(Self { pods, healthy, unmanaged });
        }
        match spec.and_then(|spec| spec.min_available.as_ref()) {
            Some(IntOrString::Int(least)) => {
                Ok(Self { pods: there, healthy: (*least).max(0), unmanaged: 0 })
            }
            Some(least) => {
                let (pods, unmanaged) = scale(view, pods)?;
                Ok(Self { pods, healthy: part(least, pods, Round::Up), unmanaged })
            }
            // What says nothing forbids nothing.
            None => Ok(Self { pods: there, healthy: 0, unmanaged: 0 }),
        }
    }
}

/// What of an object says how many pods there should be.
pub(super) trait Scaled {
    /// How many it asks for, and by whom it is controlled itself.
    fn says(&self) -> (i32, Option<String>);
}

fn owner(metadata: &ObjectMeta) -> Option<String> {
    controller(metadata).map(|owner| owner.uid.clone())
}

impl Scaled for ReplicationController {
    fn says(&self) -> (i32, Option<String>) {
        let replicas = self.spec.as_ref().and_then(|spec| spec.replicas);
        (replicas.unwrap_or(1), owner(&self.metadata))
    }
}

impl Scaled for ReplicaSet {
    fn says(&self) -> (i32, Option<String>) {
        (self.spec.replicas.unwrap_or(1), owner(&self.metadata))
    }
}

impl Scaled for Deployment {
    fn says(&self) -> (i32, Option<String>) {
        (self.spec.replicas.unwrap_or(1), owner(&self.metadata))
    }
}

impl Scaled for StatefulSet {
    fn says(&self) -> (i32, Option<String>) {
        (self.spec.replicas.unwrap_or(1), owner(&self.metadata))
    }
}

/// How many pods those ask for that control these, and how many of these nobody controls.
fn scale(view: &View<'_, PodDisruptionBudget>, pods: &[&Pod]) -> Result<(i32, usize), Unknown> {
    let (mut scales, mut unmanaged) = (BTreeMap::new(), 0);
    for pod in pods {
        let Some(owner) = pod.controller() else {
            unmanaged += 1;
            continue;
        };
        if scales.contains_key(&owner.uid) {
            continue;
        }
        let (uid, replicas) = scale_of(view, pod, owner)?;
        // A deployment is counted once, however many replica sets of it have pods.
        scales.insert(owner.uid.clone(), (uid, replicas));
    }
    let each: BTreeMap<String, i32> = scales.into_values().collect();
    Ok((each.into_values().fold(0_i32, i32::saturating_add), unmanaged))
}

/// The uid of whom the number of a pod's peers is asked of, and the number.
fn scale_of(
    view: &View<'_, PodDisruptionBudget>,
    pod: &Pod,
    owner: &OwnerReference,
) -> Result<(String, i32), Unknown> {
    let gone = || Unknown::Gone {
        pod: pod.name().to_owned(),
        kind: owner.kind.clone(),
        name: owner.name.clone(),
    };
    let found = match (owner.api_version.as_str(), owner.kind.as_str()) {
        ("v1", "ReplicationController") => {
            find(view.of::<ReplicationController>(), &owner.uid, |it| &it.metadata)
        }
        ("apps/v1", "StatefulSet") => find(view.of::<StatefulSet>(), &owner.uid, |it| &it.metadata),
        ("apps/v1", "ReplicaSet") => {
            let set = find(view.of::<ReplicaSet>(), &owner.uid, |it| &it.metadata);
            let (_, by) = set.clone().ok_or_else(gone)?;
            let by = by.and_then(|uid| {
                let found = find(view.of::<Deployment>(), &uid, |it| &it.metadata);
                found.map(|(replicas, _)| (uid, replicas))
            });
            if let Some(deployment) = by {
                return Ok(deployment);
            }
            set
        }
        (_, kind) => {
            return Err(Unknown::NoScale { pod: pod.name().to_owned(), kind: kind.to_owned() });
        }
    };
    let (replicas, _) = found.ok_or_else(gone)?;
    Ok((owner.uid.clone(), replicas))
}

fn find<T: Scaled>(
    all: &[Arc<T>],
    uid: &str,
    metadata: impl Fn(&T) -> &ObjectMeta,
) -> Option<(i32, Option<String>)> {
    let found = all.iter().find(|it| metadata(it).uid.as_deref() == Some(uid))?;
    Some(found.says())
}
