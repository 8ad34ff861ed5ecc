//! Who owns whom: the metadata of everything that can own or be owned.

use super::super::mirror::{Change, Mirror, Seen};
use super::plan::{self, Presence};
use futures_util::stream::{BoxStream, StreamExt as _, select_all, unfold};
use impresario_api::catalog::{self, resources};
use impresario_api::resource::{Resource, Verb, resource_key};
use impresario_registry_api::RegistryHandle;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::{ClusterResourceScope, Metadata};
use serde::Deserialize;
use std::sync::Arc;
use tokio::sync::broadcast::error::RecvError;

/// The metadata of any object.
#[derive(Debug, Default, Deserialize)]
pub struct Partial {
    pub(super) metadata: ObjectMeta,
}

impl k8s_openapi::Resource for Partial {
    const API_VERSION: &'static str = "meta.k8s.io/v1";
    const GROUP: &'static str = "meta.k8s.io";
    const KIND: &'static str = "PartialObjectMetadata";
    const VERSION: &'static str = "v1";
    const URL_PATH_SEGMENT: &'static str = "";
    type Scope = ClusterResourceScope;
}

impl Metadata for Partial {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// The mirrors of all resources whose objects can own or be owned. Shared, cheap to clone.
#[derive(Clone)]
pub struct Graph(Arc<Vec<(&'static Resource, Mirror<Partial>)>>);

impl Graph {
    /// Starts to follow everything but events, which own nothing and are owned by nobody.
    #[must_use]
    pub fn start(registry: &RegistryHandle) -> Self {
        let kept = |r: &&Resource| r.plural != "events" && r.verbs.contains(&Verb::Delete);
        let mirror = |r: &'static Resource| (r, Mirror::start(registry.clone(), &resource_key(r)));
        Self(Arc::new(resources().iter().filter(kept).map(mirror).collect()))
    }

    /// The resources and what is seen of them.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&'static Resource, &Mirror<Partial>)> {
        self.0.iter().map(|(resource, mirror)| (*resource, mirror))
    }

    /// What is seen of one resource, if its objects can own or be owned.
    #[must_use]
    pub fn of(&self, group: &str, plural: &str) -> Option<&Mirror<Partial>> {
        let mut parts = self.parts();
        let found = parts.find(|(held, _)| held.group == group && held.plural == plural);
        found.map(|(_, mirror)| mirror)
    }

    /// One item for each change that can leave something for the collector to do, from now on. None
    /// is lost between two: what is not read yet waits.
    #[must_use]
    pub fn litter(&self) -> BoxStream<'static, ()> {
        let each = self.0.iter().map(|(_, mirror)| {
            let state = (self.clone(), mirror.changes());
            unfold(state, |(graph, mut changes)| async move {
                loop {
                    match changes.recv().await {
                        Ok(change) if !graph.is_litter(&change) => {}
                        Ok(_) | Err(RecvError::Lagged(_)) => return Some(((), (graph, changes))),
                        Err(RecvError::Closed) => return None,
                    }
                }
            })
            .boxed()
        });
        select_all(each).boxed()
    }

    fn is_litter(&self, change: &Change<Partial>) -> bool {
        match change {
            Change::Everything => true,
            // It may have owned something, or somebody may have waited for its end.
            Change::Deleted { before } => {
                let metadata = &before.object.metadata;
                let uid = metadata.uid.as_deref().unwrap_or_default();
                metadata.owner_references.is_some() || self.owns(uid)
            }
            Change::Put { now, .. } if now.object.metadata.deletion_timestamp.is_some() => true,
            Change::Put { now, before } => {
                let (now, before) =
                    (&now.object.metadata, before.as_ref().map(|seen| &seen.object.metadata));
                let was = before.and_then(|before| before.owner_references.as_ref());
                if was == now.owner_references.as_ref() {
                    return false;
                }
                let references = [was, now.owner_references.as_ref()];
                let all = references.into_iter().flatten().flatten();
                all.map(|owner| self.presence(now, owner)).any(|found| found != Presence::Stays)
            }
        }
    }

    fn owns(&self, uid: &str) -> bool {
        self.0.iter().any(|(_, mirror)| mirror.is_owned_by(uid))
    }

    /// What is seen of the owner that a dependent's reference names.
    pub(super) fn presence(&self, dependent: &ObjectMeta, owner: &OwnerReference) -> Presence {
        let Some((resource, namespace)) = place(dependent, owner) else {
            return Presence::Unresolvable;
        };
        let mirror = self.0.iter().find(|(held, _)| std::ptr::eq(*held, resource));
        let found = mirror.and_then(|(_, mirror)| mirror.get(namespace, &owner.name));
        let found = found.filter(|seen| seen.object.metadata.uid.as_ref() == Some(&owner.uid));
        match found {
            None => Presence::Absent,
            Some(seen) if plan::waits(&seen.object.metadata, plan::FOREGROUND) => {
                Presence::AfterDependents
            }
            Some(seen) if plan::waits(&seen.object.metadata, plan::ORPHAN) => {
                Presence::LeavesDependents
            }
            Some(_) => Presence::Stays,
        }
    }

    /// An object of the kind that a reference names, with its uid, in another namespace than the
    /// dependent's: its writer meant it, and it cannot be an owner there.
    pub(super) fn elsewhere(&self, dependent: &ObjectMeta, owner: &OwnerReference) -> bool {
        let Some((resource, namespace)) = place(dependent, owner) else { return false };
        let mirror = self.0.iter().find(|(held, _)| std::ptr::eq(*held, resource));
        resource.namespaced
            && mirror.is_some_and(|(_, mirror)| {
                let is_meant = |other: &Partial| {
                    other.metadata.uid.as_ref() == Some(&owner.uid)
                        && other.metadata.namespace.as_deref() != Some(namespace)
                };
                !mirror.picked(is_meant).is_empty()
            })
    }

    /// Everything that the plan must see.
    pub(super) fn mattering(&self) -> Vec<(&'static Resource, Seen<Partial>)> {
        let mut all = Vec::new();
        for (resource, mirror) in self.parts() {
            let part = mirror.picked(|object| plan::matters(&object.metadata));
            all.extend(part.into_iter().map(|seen| (resource, seen)));
        }
        all
    }
}

/// Where the owner that a reference names must be: its resource and namespace. `None` where nobody
/// can say.
pub(super) fn place<'a>(
    dependent: &'a ObjectMeta,
    owner: &OwnerReference,
) -> Option<(&'static Resource, &'a str)> {
    let (group, version) = owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
    let resource = catalog::find_kind(group, version, &owner.kind)?;
    let namespace = dependent.namespace.as_deref().unwrap_or_default();
    match (resource.namespaced, namespace.is_empty()) {
        (true, true) => None,
        (true, false) => Some((resource, namespace)),
        (false, _) => Some((resource, "")),
    }
}
