//! Looks at one object, lets its controller decide, and has done what it wants.

use super::super::activation::Activation;
use super::super::control::{Look, LookError, Next};
use super::super::mirror::Seen;
use super::super::owned::{self, Owner};
use super::super::panics;
use super::super::view::put;
use super::super::wrote::Wrote;
use super::apply::Behalf;
use super::conditions;
use super::contents::{self, Known, Refused};
use super::controller::Controller;
use super::effects::{Begun, Effects, Event, Named, Shortfall};
use super::kind_name::KindName;
use super::looks_at::LooksAt;
use super::other::Other;
use super::shared::Shared;
use super::told::look_into;
use super::view::{Part, View};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use impresario_api::patch::merge_patch;
use impresario_api::status::Status;
use impresario_client::protocol::control::Told;
use impresario_objects::events::Severity;
use impresario_objects::{DeleteOptions, Deleted, Door, Objects, WriteOptions};
use impresario_registry_api::{Fence, Revision};
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::{Metadata as _, Resource as _};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What an object says of itself.
struct Said {
    status: Option<Result<Value, String>>,
    counted: Vec<(Named, &'static str)>,
    annotations: BTreeMap<String, Option<String>>,
    itself: Option<Value>,
    events: Vec<Event>,
}

impl Said {
    /// Not all that the object asks for is asked of others yet: it is not said to be.
    fn keep_observed(&mut self, was: &Value) {
        const OBSERVED: &str = "observedGeneration";
        let Some(Ok(Value::Object(status))) = &mut self.status else { return };
        match was.get(OBSERVED) {
            Some(observed) => status.insert(OBSERVED.into(), observed.clone()),
            None => status.remove(OBSERVED),
        };
    }
}

/// How many names that others have are kept in mind at most.
pub(in crate::controllers) const MOST_TAKEN: usize = 1_000;

/// The work of one controller on one object.
pub struct Worker<C: Controller> {
    shared: Shared,
    fence: Fence,
    namespace: String,
    name: String,
    uid: String,
    looks_at: LooksAt<C::Object>,
    /// What was written to each of these kinds.
    wrote: Vec<Wrote>,
    wrote_self: Wrote,
    /// Names that the last look wanted for what it creates, and others have.
    taken: Mutex<BTreeSet<String>>,
    /// What the last look could not take out of the namespace that the object is.
    refused: Mutex<Vec<Refused>>,
    /// What was read of what is in it.
    known: Mutex<Known>,
    /// When the status was written last.
    reported: Mutex<Option<Timestamp>>,
}

impl<C: Controller> Worker<C> {
    /// For the object of this activation.
    #[must_use]
    pub fn new(shared: Shared, activation: &Activation) -> Self {
        let looks_at = C::looks_at();
        let since = |other: &dyn Other<C::Object>| {
            let is_waited_for = other.is_written() || looks_at.is_as_new();
            if is_waited_for { Wrote::since(activation.since) } else { Wrote::default() }
        };
        Self {
            shared,
            fence: activation.fence,
            namespace: activation.namespace.clone(),
            name: activation.name.clone(),
            uid: activation.uid.clone(),
            wrote: looks_at.each().map(since).collect(),
            wrote_self: Wrote::since(activation.since),
            taken: Mutex::default(),
            refused: Mutex::default(),
            known: Mutex::default(),
            reported: Mutex::default(),
            looks_at,
        }
    }

    /// The work, ready for a control actor.
    #[must_use]
    pub fn shared(self) -> Arc<dyn Look> {
        Arc::new(self)
    }

    /// Notes the names that others had in a look. They are forgotten with the first look that met none, and where they
    /// have become many: some may be free by then.
    fn taken_met(&self, met: BTreeSet<String>) {
        let mut taken = self.taken.lock();
        if met.is_empty() || taken.len() > MOST_TAKEN {
            taken.clear();
        }
        taken.extend(met);
    }

    /// Waits until everything is seen that this activation, or the one before it, has written.
    pub(in crate::controllers) async fn caught_up(&self) -> Result<(), LookError> {
        let mirrors = &self.shared.mirrors;
        self.wrote_self.seen_by(&mirrors.of::<C::Object>()).await?;
        for (other, wrote) in self.looks_at.each().zip(&self.wrote) {
            other.seen(mirrors, wrote).await?;
        }
        Ok(())
    }

    pub(in crate::controllers) async fn look_once(&self) -> Result<Next, LookError> {
        self.caught_up().await?;
        let mirrors = &self.shared.mirrors;
        let seen = mirrors.of::<C::Object>().get(&self.namespace, &self.name);
        let Some(seen) = seen.filter(|seen| self.is_meant(seen)) else {
            return Ok(Next::WhenTold);
        };
        let stored = owned::object_of(&seen.entry)?;
        let now = (self.shared.clock)();
        let objects = self.shared.objects.fenced(self.fence);
        let mut contents = Vec::new();
        if let Some(first) = self.looks_at.emptied_first(&seen.object) {
            match contents::of(&objects, &seen.entry, first, &self.known).await? {
                Some(found) => contents = found,
                None => return Ok(Next::WhenTold),
            }
        }
        let behalf = Behalf {
            objects,
            events: &self.shared.events,
            fence: self.fence,
            entry: &seen.entry,
            owner: Owner {
                object: &stored,
                api_version: C::Object::API_VERSION,
                kind: C::Object::KIND,
            },
            uid: &self.uid,
            silent_of: C::SILENT_OF,
            now,
        };
        let parts: Vec<Part> = decided(&behalf, || {
            self.looks_at.each().map(|other| other.part(mirrors, &seen)).collect()
        })?;
        let taken = self.taken.lock().clone();
        let refused = std::mem::take(&mut *self.refused.lock());
        let view = View::new(&*seen.object, &stored, &parts)
            .with_taken(&taken)
            .with_reported(*self.reported.lock())
            .with_contents(&contents, &refused)
            .with_authority(&self.shared.authority)
            .at(seen.entry.mod_revision);
        let effects = decided(&behalf, || C::reconcile(&view, now))?;

        let Effects { actions, status, counted, annotations, itself, events, unheld, .. } = effects;
        let Effects { shortfall, mut look_again, delete_itself, emptied, let_go, begun, .. } =
            effects;
        let mut told = Said { status, counted, annotations, itself, events };
        let as_seen = seen.entry.mod_revision;
        let as_written;
        if C::STATUS_FIRST {
            let revision = self.report(&behalf, &seen, &parts, told, None).await?;
            as_written = revision.unwrap_or(as_seen);
            let mut applied = behalf.apply(actions, &parts, &self.wrote, as_written).await;
            self.taken_met(std::mem::take(&mut applied.taken));
            applied.into_result()?;
        } else {
            let mut applied = behalf.apply(actions, &parts, &self.wrote, as_seen).await;
            self.taken_met(std::mem::take(&mut applied.taken));
            let refused = applied.refused();
            let refused =
                refused.map(|(reason, message)| Shortfall { reason: reason.into(), message });
            let shortfall = refused.or(shortfall);
            if applied.is_fenced() {
                return applied.into_result().map(|()| Next::WhenTold);
            }
            if applied.is_behind {
                told.keep_observed(&stored["status"]);
            }
            // What failed is said before it is tried again.
            match self.report(&behalf, &seen, &parts, told, shortfall.as_ref()).await {
                Err(lost) if lost.is_fenced() => return Err(lost),
                told => {
                    applied.into_result()?;
                    as_written = told?.unwrap_or(as_seen);
                }
            }
        }
        match begun {
            Some(begun) if as_written == as_seen => self.begin(&behalf, &parts, begun).await?,
            // It is decided anew by what is written now.
            Some(_) => look_again = Some(now),
            None => {}
        }
        if !emptied.is_empty() {
            *self.refused.lock() = contents::empty(&behalf.objects, &self.name, emptied).await?;
        }
        if let_go {
            self.let_go(&behalf.objects).await?;
        }
        if let Some(finalizer) = unheld {
            if as_written == as_seen {
                let write = owned::without_finalizer(&seen.entry, finalizer)?;
                self.wrote_self.at(behalf.transact([write]).await?);
            } else {
                look_again = Some(now);
            }
        }
        if delete_itself {
            self.delete_itself(&behalf, as_written).await?;
        }
        Ok(look_again.map_or(Next::WhenTold, Next::At))
    }

    fn is_meant(&self, seen: &Seen<C::Object>) -> bool {
        seen.object.metadata().uid.as_deref() == Some(&self.uid)
    }

    /// Writes the status where it is another than was seen or counts something, and then tells the events.
    /// The object's revision where it was written.
    async fn report(
        &self,
        behalf: &Behalf<'_>,
        seen: &Seen<C::Object>,
        parts: &[Part],
        told: Said,
        shortfall: Option<&Shortfall>,
    ) -> Result<Option<Revision>, LookError> {
        let Said { status, counted, mut annotations, itself, events } = told;
        let there = seen.object.metadata().annotations.as_ref();
        annotations.retain(|key, value| there.and_then(|there| there.get(key)) != value.as_ref());
        let tell = || {
            for Event { severity, reason, message } in &events {
                behalf.tell(*severity, reason, message);
            }
        };
        let says_nothing = status.is_none() && C::FAILURE.is_none();
        if says_nothing && counted.is_empty() && annotations.is_empty() && itself.is_none() {
            tell();
            return Ok(None);
        }
        // As the typed view writes it, so that no other spelling of the same is a change.
        let was = serde_json::to_value(&*seen.object)
            .map_err(|error| damaged(seen, error.to_string()))?["status"]
            .take();
        let mut status = match status {
            Some(status) => status.map_err(|cause| damaged(seen, cause))?,
            None => was.clone(),
        };
        if let Some(kind) = C::FAILURE.filter(|_| !status.is_null() || shortfall.is_some()) {
            conditions::set(&mut status, kind, shortfall, behalf.now);
        }
        let mut written = None;
        let mut object = behalf.owner.object.clone();
        if let Some(patch) = &itself {
            object =
                merge_patch(&object, patch).map_err(|error| damaged(seen, error.to_string()))?;
        }
        let is_other = object != *behalf.owner.object;
        if status != was || !counted.is_empty() || !annotations.is_empty() || is_other {
            if !status.is_null() {
                object["status"] = status;
            }
            annotate(&mut object, annotations);
            let mut writes = vec![put(&seen.entry, &object)?];
            let mut touched = Vec::new();
            for (Named { kind, name, .. }, finalizer) in &counted {
                let part = parts.iter().zip(&self.wrote).find(|(part, _)| part.kind() == *kind);
                let Some((part, wrote)) = part else { continue };
                if let Some(entry) = part.entry(name) {
                    writes.push(owned::without_finalizer(entry, finalizer)?);
                    touched.push(wrote);
                }
            }
            let revision = behalf.transact(writes).await?;
            self.wrote_self.at(revision);
            for wrote in touched {
                wrote.at(revision);
            }
            *self.reported.lock() = Some(behalf.now);
            written = Some(revision);
        }
        tell();
        Ok(written)
    }

    /// Creates what begins with a status.
    async fn begin(
        &self,
        behalf: &Behalf<'_>,
        parts: &[Part],
        begun: Begun,
    ) -> Result<(), LookError> {
        let kind = begun.kind;
        let mut looked_at = parts.iter().zip(&self.wrote);
        let Some(place) = looked_at.find(|(part, _)| part.kind() == kind) else {
            tracing::error!(%kind, "a controller begins what it does not look at: nothing is done");
            return Ok(());
        };
        let mut taken = BTreeSet::new();
        let outcome = behalf.begin(begun, place, &self.wrote_self, &mut taken).await;
        self.taken.lock().extend(taken);
        outcome
    }

    /// Lets the object go that is being deleted; not another of its name.
    pub(in crate::controllers) async fn let_go(&self, objects: &Objects) -> Result<(), LookError> {
        let resource = KindName::of::<C::Object>().served()?;
        let (namespace, name, options) = (&self.namespace, &self.name, WriteOptions::default());
        let change = |object: &Value| {
            let metadata = &object["metadata"];
            if metadata["uid"] != self.uid.as_str() || metadata["deletionTimestamp"].is_null() {
                return Err(Status::not_found(&resource, name));
            }
            let mut object = object.clone();
            if let Some(finalizers) = object["spec"]["finalizers"].as_array_mut() {
                finalizers.retain(|finalizer| finalizer != "kubernetes");
            }
            Ok(object)
        };
        match objects.modify(&resource, Door::Finalize, namespace, name, &options, change).await {
            Ok(object) => {
                self.wrote_self.at(owned::revision_of(&object));
                Ok(())
            }
            Err(error) if error.code() == 404 => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes the object as long as it is at this revision: it may ask to be kept by now.
    async fn delete_itself(
        &self,
        behalf: &Behalf<'_>,
        revision: Revision,
    ) -> Result<(), LookError> {
        let resource = KindName::of::<C::Object>().served()?;
        let options = DeleteOptions {
            uid: Some(self.uid.clone()),
            resource_version: Some(revision.to_string()),
            ..DeleteOptions::default()
        };
        let (namespace, name, write) = (&self.namespace, &self.name, WriteOptions::default());
        match behalf.objects.delete(&resource, namespace, name, &options, &write).await {
            Ok(Deleted::Lingers(object) | Deleted::Gone(object)) => {
                self.wrote_self.at(owned::revision_of(&object));
                Ok(())
            }
            Err(error) if error.code() == 404 => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl<C: Controller> Look for Worker<C> {
    fn look(&self) -> BoxFuture<'_, Result<Next, LookError>> {
        self.look_once().boxed()
    }

    fn told<'a>(&'a self, told: &'a Told) -> BoxFuture<'a, bool> {
        async move {
            let mirrors = &self.shared.mirrors;
            let mut telling = self.looks_at.each();
            let mirror = telling.find_map(|other| other.telling(mirrors, &told.key.resource));
            let Some(mirror) = mirror.filter(|_| told.key.namespace == self.namespace) else {
                return false;
            };
            look_into(told, &self.uid, &*mirror, self.shared.objects.registry()).await
        }
        .boxed()
    }
}

/// What a controller's function says; where it panics, that is told of the object, and nothing else of it is done.
fn decided<T>(behalf: &Behalf<'_>, function: impl FnOnce() -> T) -> Result<T, LookError> {
    panics::caught(function).map_err(|message| {
        let error = LookError::Panicked { message };
        behalf.tell(Severity::Warning, "ReconcilePanicked", &error.to_string());
        error
    })
}

/// Gives an object these annotations, and takes those off that have no value.
fn annotate(object: &mut Value, annotations: BTreeMap<String, Option<String>>) {
    let Some(metadata) = object["metadata"].as_object_mut() else { return };
    for (key, value) in annotations {
        match value {
            Some(value) => {
                metadata.entry("annotations").or_insert_with(|| json!({}))[key] = value.into();
            }
            None => {
                let there = metadata.get_mut("annotations").and_then(Value::as_object_mut);
                if let Some(there) = there {
                    there.remove(&key);
                }
            }
        }
    }
    metadata.retain(|field, value| {
        field != "annotations" || value.as_object().is_some_and(|all| !all.is_empty())
    });
}

fn damaged<K>(seen: &Seen<K>, cause: String) -> LookError {
    LookError::Damaged { key: seen.entry.key.to_string(), cause }
}
