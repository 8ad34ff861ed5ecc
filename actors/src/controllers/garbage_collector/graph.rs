//! Who owns whom: the metadata of everything that can own or be owned.

use super::super::any_mirror::{AnyMirror, AnyObject};
use super::super::engine::mirrors::Mirrors;
use super::super::mirror::{Change, Seen};
use super::plan::{self, Presence};
use super::strays::{self, Space};
use futures_util::future::ready;
use futures_util::stream::{BoxStream, SelectAll, StreamExt as _, unfold};
use impresario_api::catalog::{self, served};
use impresario_api::resource::{Resource, Row, Verb, resource_key};
use impresario_client::objects::removed::kind_changes;
use impresario_registry_api::Entry;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::watch;

/// So many kinds that are no longer served are known; what older ones owned stays.
const MOST_DROPPED: usize = 1000;

/// The mirrors of all resources whose objects can own or be owned, those too of kinds that come while it runs.
/// Shared, cheap to clone.
#[derive(Clone)]
pub struct Graph(Arc<Shared>);

struct Shared {
    mirrors: Mirrors,
    /// The parts, and the generation of the catalog of which they are.
    parts: RwLock<(u64, Arc<[Part]>)>,
    /// Kinds that were served here and are no more, the latest last: what they owned is to go.
    dropped: RwLock<Vec<Row>>,
}

/// A resource and what is seen of it.
#[derive(Clone)]
pub(super) struct Part {
    pub(super) resource: Row,
    pub(super) mirror: Arc<dyn AnyMirror>,
}

impl Graph {
    /// Of everything but events, which own nothing and are owned by nobody: the mirrors that are there, and others
    /// where nobody looks at more of a kind. Who does asks for its mirror before.
    #[must_use]
    pub fn over(mirrors: &Mirrors) -> Self {
        let (rows, generation) = served().all();
        let parts = parts_of(&rows, mirrors, &[]);
        let parts = RwLock::new((generation, parts));
        let dropped = RwLock::default();
        Self(Arc::new(Shared { mirrors: mirrors.clone(), parts, dropped }))
    }

    /// The resources of now and what is seen of them. Must be called within a tokio runtime.
    pub(super) fn parts(&self) -> Arc<[Part]> {
        let (rows, generation) = served().all();
        {
            let parts = self.0.parts.read();
            // Who asked the catalog earlier comes later.
            if parts.0 >= generation {
                return Arc::clone(&parts.1);
            }
        }
        let mut parts = self.0.parts.write();
        if parts.0 < generation {
            let now = parts_of(&rows, &self.0.mirrors, &parts.1);
            for gone in parts.1.iter().filter(|part| part.is_gone_from(&now)) {
                self.0.mirrors.forget(&resource_key(&gone.resource));
                self.note_dropped(&gone.resource);
            }
            *parts = (generation, now);
        }
        Arc::clone(&parts.1)
    }

    fn note_dropped(&self, row: &Row) {
        let mut dropped = self.0.dropped.write();
        dropped.retain(|known| !is_same(known, row) || known.kind != row.kind);
        if dropped.len() >= MOST_DROPPED {
            dropped.remove(0);
        }
        dropped.push(Row::clone(row));
    }

    /// Where the owner that a reference names must be, or must have been while its kind was served: its resource and
    /// namespace. `None` where nobody can say.
    pub(super) fn place<'a>(
        &self,
        dependent: &'a ObjectMeta,
        owner: &OwnerReference,
    ) -> Option<(Row, &'a str)> {
        let (group, version) =
            owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
        let resource = catalog::find_kind(group, version, &owner.kind).or_else(|| {
            let was_meant =
                |row: &&Row| row.group == group && row.version == version && row.kind == owner.kind;
            self.0.dropped.read().iter().rev().find(was_meant).cloned()
        })?;
        let namespace = dependent.namespace.as_deref().unwrap_or_default();
        match (resource.namespaced, namespace.is_empty()) {
            (true, true) => None,
            (true, false) => Some((resource, namespace)),
            (false, _) => Some((resource, "")),
        }
    }

    /// One item for each change that can leave something for the collector to do, from now on. None
    /// is lost between two: what is not read yet waits.
    #[must_use]
    pub fn litter(&self) -> BoxStream<'static, ()> {
        let (changes, each) = (kind_changes(), SelectAll::new());
        let mut litter = Litter { graph: self.clone(), changes, followed: Vec::new(), each };
        litter.follow();
        unfold(litter, |mut litter| async move { Some((litter.next().await?, litter)) }).boxed()
    }

    /// What can be litter of the changes of one resource.
    fn litter_of(&self, part: &Part) -> BoxStream<'static, ()> {
        let (graph, resource) = (self.clone(), Row::clone(&part.resource));
        let litter = move |change: &Change<dyn AnyObject>| {
            ready(graph.is_litter(change) || graph.strands(&resource, change))
        };
        part.mirror.stream().filter(litter).map(drop).boxed()
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
        self.parts().iter().any(|part| part.mirror.is_owned_by(uid))
    }

    /// What is seen of the owner that a dependent's reference names.
    pub(super) fn presence(&self, dependent: &ObjectMeta, owner: &OwnerReference) -> Presence {
        let Some((resource, namespace)) = self.place(dependent, owner) else {
            return Presence::Unresolvable;
        };
        let found = self.mirror(&resource).and_then(|mirror| mirror.get(namespace, &owner.name));
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
        let Some((resource, namespace)) = self.place(dependent, owner) else { return false };
        resource.namespaced
            && self.mirror(&resource).is_some_and(|mirror| {
                let is_meant = |_: &Entry, other: &ObjectMeta| {
                    other.uid.as_ref() == Some(&owner.uid)
                        && other.namespace.as_deref() != Some(namespace)
                };
                !mirror.picked(&is_meant).is_empty()
            })
    }

    /// What is in a namespace that is not seen, or that was made after it.
    pub(super) fn strays(&self) -> Vec<(Row, Seen<dyn AnyObject>)> {
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
        for part in self.parts().iter().filter(|part| part.resource.namespaced) {
            let strays = part.mirror.picked(&is_stray);
            all.extend(strays.into_iter().map(|seen| (Row::clone(&part.resource), seen)));
        }
        all
    }

    /// The mirror of namespaces.
    fn spaces(&self) -> Option<Arc<dyn AnyMirror>> {
        let parts = self.parts();
        let spaces = parts.iter().find(|part| strays::is_space(&part.resource))?;
        Some(Arc::clone(&spaces.mirror))
    }

    /// The mirror of a resource.
    fn mirror(&self, resource: &Resource) -> Option<Arc<dyn AnyMirror>> {
        let parts = self.parts();
        let part = parts.iter().find(|part| is_same(&part.resource, resource))?;
        Some(Arc::clone(&part.mirror))
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
    pub(super) fn mattering(&self) -> Vec<(Row, Seen<dyn AnyObject>)> {
        let mut all = Vec::new();
        for part in self.parts().iter() {
            let mattering = part.mirror.picked(&|_, object| plan::matters(object));
            all.extend(mattering.into_iter().map(|seen| (Row::clone(&part.resource), seen)));
        }
        all
    }
}

/// What wakes the collector, of the kinds of now.
struct Litter {
    graph: Graph,
    changes: watch::Receiver<u64>,
    /// The parts whose changes are read.
    followed: Vec<Part>,
    each: SelectAll<BoxStream<'static, ()>>,
}

impl Litter {
    /// Reads the changes of the kinds that have come, from now on.
    fn follow(&mut self) {
        // Noted before the look, so that no change falls between.
        self.changes.borrow_and_update();
        let parts = self.graph.parts();
        let is_new = |part: &&Part| part.is_gone_from(&self.followed);
        let new: Vec<Part> = parts.iter().filter(is_new).cloned().collect();
        // The streams of those that went end with their mirrors.
        self.followed.retain(|part| !part.is_gone_from(&parts));
        for part in new {
            self.each.push(self.graph.litter_of(&part));
            self.followed.push(part);
        }
    }

    async fn next(&mut self) -> Option<()> {
        tokio::select! {
            item = self.each.next() => item,
            changed = self.changes.changed() => {
                changed.ok()?;
                self.follow();
                // What is of a new kind has not been looked at.
                Some(())
            }
        }
    }
}

impl Part {
    /// Whether no part of these has the same mirror.
    fn is_gone_from(&self, parts: &[Self]) -> bool {
        !parts.iter().any(|part| Arc::ptr_eq(&part.mirror, &self.mirror))
    }
}

/// The parts of these rows, with the mirrors of `before` where they go on.
fn parts_of(rows: &[Row], mirrors: &Mirrors, before: &[Part]) -> Arc<[Part]> {
    let kept = |r: &&Row| r.is_as_kept() && r.plural != "events" && r.verbs.contains(&Verb::Delete);
    let part = |resource: &Row| {
        let known = before.iter().find(|part| is_same(&part.resource, resource));
        let mirror = known.map(|part| Arc::clone(&part.mirror));
        let mirror = mirror.unwrap_or_else(|| mirrors.any(&resource_key(resource)));
        Part { resource: Row::clone(resource), mirror }
    };
    rows.iter().filter(kept).map(part).collect()
}

/// Whether these are rows of one resource.
fn is_same(one: &Resource, other: &Resource) -> bool {
    one.group == other.group && one.plural == other.plural
}
