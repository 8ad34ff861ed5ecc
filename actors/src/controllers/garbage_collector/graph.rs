//! Who owns whom: the metadata of everything that can own or be owned.

use super::super::any_mirror::{AnyMirror, AnyObject};
use super::super::engine::mirrors::Mirrors;
use super::super::mirror::{Change, Seen};
use super::plan::{self, Presence};
use super::strays::{self, Space};
use futures_util::future::ready;
use futures_util::stream::{BoxStream, StreamExt as _, select_all};
use impresario_api::catalog::{self, resources};
use impresario_api::resource::{Resource, Verb, resource_key};
use impresario_registry_api::Entry;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use std::collections::HashMap;
use std::sync::Arc;

/// The mirrors of all resources whose objects can own or be owned. Shared, cheap to clone.
#[derive(Clone)]
pub struct Graph(Arc<Vec<(&'static Resource, Arc<dyn AnyMirror>)>>);

impl Graph {
    /// Of everything but events, which own nothing and are owned by nobody: the mirrors that are there, and others
    /// where nobody looks at more of a kind. Who does asks for its mirror before.
    #[must_use]
    pub fn over(mirrors: &Mirrors) -> Self {
        let kept = |r: &&Resource| r.plural != "events" && r.verbs.contains(&Verb::Delete);
        let mirror = |r: &'static Resource| (r, mirrors.any(&resource_key(r)));
        Self(Arc::new(resources().iter().filter(kept).map(mirror).collect()))
    }

    /// The resources and what is seen of them.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&'static Resource, &dyn AnyMirror)> {
        self.0.iter().map(|(resource, mirror)| (*resource, mirror.as_ref()))
    }

    /// One item for each change that can leave something for the collector to do, from now on. None
    /// is lost between two: what is not read yet waits.
    #[must_use]
    pub fn litter(&self) -> BoxStream<'static, ()> {
        let each = self.0.iter().map(|(resource, mirror)| {
            let (graph, resource) = (self.clone(), *resource);
            let litter = move |change: &Change<dyn AnyObject>| {
                ready(graph.is_litter(change) || graph.strands(resource, change))
            };
            mirror.stream().filter(litter).map(drop).boxed()
        });
        select_all(each).boxed()
    }

    fn is_litter(&self, change: &Change<dyn AnyObject>) -> bool {
        match change {
            Change::Everything => true,
            // It may have owned something, or somebody may have waited for its end.
            Change::Deleted { before } => {
                let metadata = before.object.meta();
                let uid = metadata.uid.as_deref().unwrap_or_default();
                metadata.owner_references.is_some() || self.owns(uid)
            }
            Change::Put { now, .. } if now.object.meta().deletion_timestamp.is_some() => true,
            Change::Put { now, before } => {
                let (now, before) =
                    (now.object.meta(), before.as_ref().map(|seen| seen.object.meta()));
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
        let found = found.filter(|seen| seen.object.meta().uid.as_ref() == Some(&owner.uid));
        match found {
            None => Presence::Absent,
            Some(seen) if plan::waits(seen.object.meta(), plan::FOREGROUND) => {
                Presence::AfterDependents
            }
            Some(seen) if plan::waits(seen.object.meta(), plan::ORPHAN) => {
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
                let is_meant = |_: &Entry, other: &ObjectMeta| {
                    other.uid.as_ref() == Some(&owner.uid)
                        && other.namespace.as_deref() != Some(namespace)
                };
                !mirror.picked(&is_meant).is_empty()
            })
    }

    /// What is in a namespace that is not seen, or that was made after it.
    pub(super) fn strays(&self) -> Vec<(&'static Resource, Seen<dyn AnyObject>)> {
        let Some(spaces) = self.spaces() else { return Vec::new() };
        let spaces: HashMap<String, Space> = spaces
            .picked(&|_, _| true)
            .into_iter()
            .map(|seen| (seen.entry.key.name.clone(), Space::of(&seen.entry, seen.object.meta())))
            .collect();
        let is_stray = |entry: &Entry, object: &ObjectMeta| {
            strays::is_stray(entry, object, spaces.get(&entry.key.namespace))
        };
        let mut all = Vec::new();
        for (resource, mirror) in self.parts().filter(|(resource, _)| resource.namespaced) {
            let part = mirror.picked(&is_stray);
            all.extend(part.into_iter().map(|seen| (resource, seen)));
        }
        all
    }

    /// The mirror of namespaces.
    fn spaces(&self) -> Option<&dyn AnyMirror> {
        self.parts().find(|(resource, _)| strays::is_space(resource)).map(|(_, mirror)| mirror)
    }

    /// Whether a change leaves something in a namespace that is not there, or in one that was made after it.
    fn strands(&self, resource: &Resource, change: &Change<dyn AnyObject>) -> bool {
        match change {
            Change::Deleted { .. } | Change::Put { before: None, .. }
                if strays::is_space(resource) =>
            {
                true
            }
            Change::Put { now, before: None } if resource.namespaced => {
                self.spaces().is_some_and(|it| it.get("", &now.entry.key.namespace).is_none())
            }
            _ => false,
        }
    }

    /// Everything that the plan must see.
    pub(super) fn mattering(&self) -> Vec<(&'static Resource, Seen<dyn AnyObject>)> {
        let mut all = Vec::new();
        for (resource, mirror) in self.parts() {
            let part = mirror.picked(&|_, object| plan::matters(object));
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
