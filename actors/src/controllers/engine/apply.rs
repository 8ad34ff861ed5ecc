//! Does what a controller wants done to other objects, by the right of its object's shard.
//!
//! What is counted goes with the status, in one transaction. Everything else is a write of its own, some
//! dozens at a time, which the registry commits in groups: one that somebody else was quicker at keeps no
//! other back, and no transaction grows with what is owned.

use super::super::control::LookError;
use super::super::owned::{self, Doubt, Owner, doubt};
use super::super::owners;
use super::super::wrote::Wrote;
use super::applied::{Applied, FAILED_CREATE, FAILED_DELETE, FAILED_UPDATE, keep};
use super::effects::{Change, Effect, Event, Named};
use super::kind_name::KindName;
use super::view::Part;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use impresario_api::patch::merge_patch;
use impresario_api::resource::{Resource, Row};
use impresario_api::status::{Reason, Status};
use impresario_objects::events::{Recorder, Severity};
use impresario_objects::{Door, Objects, WriteOptions};
use impresario_registry_api::{Compare, Entry, Fence, Operation, Revision, Transaction};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Display;

/// What became of a write: the object as it is then.
type Outcome = Result<Value, Status>;
/// The write of one object, if nobody else changed it.
type Write = (Compare, Operation);
/// What is being done: the reason of an event that says that it fails, and a word.
pub(super) type Doing = (&'static str, &'static str);

pub(super) const CREATING: Doing = (FAILED_CREATE, "creating");
const DELETING: Doing = (FAILED_DELETE, "deleting");
const UPDATING: Doing = (FAILED_UPDATE, "updating");

/// An object that is to be created.
struct Creation {
    /// Writes it out.
    write: Box<dyn FnOnce() -> Value + Send>,
    /// What goes once it is there.
    instead_of: Option<Replaced>,
}

/// The name and uid of what makes way for another, and what is said of that.
type Replaced = (String, String, Option<Event>);

impl Creation {
    fn new(write: impl FnOnce() -> Value + Send + 'static) -> Self {
        Self { write: Box::new(write), instead_of: None }
    }
}

/// On whose behalf things are done.
pub(super) struct Behalf<'a> {
    /// Writes under the fence.
    pub(super) objects: Objects,
    pub(super) events: &'a Recorder,
    pub(super) fence: Fence,
    /// The object as it was seen.
    pub(super) entry: &'a Entry,
    pub(super) owner: Owner<'a>,
    pub(super) uid: &'a str,
    /// The kinds of which no event says what was created and deleted.
    pub(super) silent_of: &'a [KindName],
    pub(super) now: Timestamp,
}

impl Behalf<'_> {
    /// Does all of it, owners as long as the object is at this `revision`. What is written to objects of a
    /// kind is noted in its `wrote`.
    pub(super) async fn apply(
        &self,
        actions: Vec<Effect>,
        parts: &[Part],
        wrote: &[Wrote],
        revision: Revision,
    ) -> Applied {
        let mut applied = Applied::default();
        let mut rest = actions;
        for (part, wrote) in parts.iter().zip(wrote) {
            let kind = part.kind();
            let of_kind = |effect: &mut Effect| kind_of(effect) == kind;
            let mine: Vec<_> = rest.extract_if(.., of_kind).collect();
            if !mine.is_empty() {
                self.apply_to(kind, mine, (part, wrote), revision, &mut applied).await;
            }
        }
        if let Some(effect) = rest.first() {
            let kind = kind_of(effect);
            tracing::error!(%kind, "a controller changes what it does not look at: nothing is done");
        }
        applied
    }

    async fn apply_to(
        &self,
        kind: KindName,
        effects: Vec<Effect>,
        (part, wrote): (&Part, &Wrote),
        revision: Revision,
        applied: &mut Applied,
    ) {
        let resource = &match kind.served() {
            Ok(resource) => resource,
            Err(status) => return keep(&mut applied.owners, Err(status.into())),
        };
        let (mut owners, mut ended, mut changes) = (Vec::new(), Vec::new(), Vec::new());
        let mut rewritten = Vec::new();
        let (mut creations, mut deletions) = (Vec::<Creation>::new(), Vec::new());
        let mut not_ours = BTreeSet::new();
        for effect in effects {
            match effect {
                Effect::Create(_, object) => creations.push(Creation::new(move || object)),
                Effect::CreateFrom(_, draft) => {
                    creations.push(Creation::new(move || draft.write()));
                }
                Effect::Replace(Named { name, uid, .. }, draft, told) => creations.push(Creation {
                    instead_of: Some((name, uid, told)),
                    ..Creation::new(move || draft.write())
                }),
                Effect::Delete(Named { name, uid, .. }) => deletions.push((name, uid)),
                Effect::Change(change) => changes.push(change),
                Effect::End(Named { name, .. }, finalizer) => {
                    let end = |entry| owned::end_uncounted(entry, resource, finalizer, self.now);
                    let write = part.entry(&name).map(end);
                    self.file(&mut ended, (&mut applied.deleted, &DELETING), write, name);
                }
                Effect::Rewrite(Named { name, .. }, patch) => {
                    let rewrite = |entry| owned::rewrite(entry, &patch);
                    let write = part.entry(&name).map(rewrite);
                    self.file(&mut rewritten, (&mut applied.changed, &UPDATING), write, name);
                }
                Effect::Adopt(Named { name, .. }) => {
                    let adopt = |entry| owned::adopt(entry, &self.owner);
                    let write = part.entry(&name).map(adopt);
                    let failed = (&mut applied.owners, &UPDATING);
                    not_ours.extend(self.file(&mut owners, failed, write, name));
                }
                Effect::Release(Named { name, .. }) => {
                    let release = |entry| owned::release(entry, self.uid);
                    let write = part.entry(&name).map(release);
                    let failed = (&mut applied.owners, &UPDATING);
                    not_ours.extend(self.file(&mut owners, failed, write, name));
                }
            }
        }
        let changed = self.change_owners(owners, wrote, revision, &mut not_ours).await;
        self.fails(&mut applied.owners, &UPDATING, changed);
        // Whoever has what could not be made the object's own decides what becomes of it.
        changes.retain(|change| !not_ours.contains(&change.named.name));
        deletions.retain(|(name, _)| !not_ours.contains(name));
        creations.retain(|creation| {
            creation.instead_of.as_ref().is_none_or(|(name, ..)| !not_ours.contains(name))
        });
        ended.retain(|(name, _)| !not_ours.contains(name));
        rewritten.retain(|(name, _)| !not_ours.contains(name));
        let ended = self.end(resource, ended, wrote).await;
        self.fails(&mut applied.deleted, &DELETING, ended);
        let rewritten = self.each(alone(rewritten), wrote, |_, _| {}).await;
        self.fails(&mut applied.changed, &UPDATING, rewritten);
        if changes.is_empty() && creations.is_empty() && deletions.is_empty() {
            return;
        }
        if applied.is_fenced() {
            return;
        }
        let place = (resource, part.namespace().unwrap_or(&self.entry.key.namespace));
        wrote.begin();
        let changed = self.change(place, changes, wrote, &mut applied.is_behind).await;
        let (created, replaced) = self.create(place, creations, wrote, &mut applied.taken).await;
        deletions.extend(replaced);
        let deleted = self.delete(place, deletions, wrote).await;
        match doubt(&changed).max(doubt(&created)).max(doubt(&deleted)) {
            Doubt::No => wrote.all_known(),
            Doubt::MayBeDone => wrote.ended_unknown(),
            Doubt::MayCome => wrote.ended_unheard(),
        }
        // Of these two each is told where it fails.
        keep(&mut applied.changed, changed);
        keep(&mut applied.created, created);
        self.fails(&mut applied.deleted, &DELETING, deleted);
    }

    /// Changes those that still ask for what was seen and are whose they were; one that is gone is fine. What is
    /// written is noted as it comes: a look that is given up half way has not forgotten it. All are tried, unless
    /// the shard is lost; then the first failure counts. Whether one is not asked for what it is to be yet is told
    /// by `is_behind`.
    async fn change(
        &self,
        (resource, namespace): (&Row, &str),
        changes: Vec<Change>,
        wrote: &Wrote,
        is_behind: &mut bool,
    ) -> Result<(), LookError> {
        let each: Vec<BoxFuture<'_, (bool, Option<Event>, Outcome)>> = changes
            .into_iter()
            .map(|Change { named, generation, patch, told }| {
                async move {
                    let (name, options) = (&named.name, WriteOptions::default());
                    let asks = patch.get("spec").is_some();
                    let change = |old: &Value| {
                        let metadata = &old["metadata"];
                        let controller = owners::controller_of(old);
                        let is_other = metadata["uid"] != named.uid.as_str()
                            || ![named.controller.as_deref(), Some(self.uid)].contains(&controller);
                        let now = metadata["generation"].as_i64();
                        if is_other || generation.is_some_and(|seen| now != Some(seen)) {
                            return Err(Status::modified(resource, name));
                        }
                        merge_patch(old, &patch).map_err(|error| {
                            Status::new(
                                Reason::BadRequest,
                                format!("{name} is not changed: {error}"),
                            )
                        })
                    };
                    let door = Door::Main;
                    let outcome =
                        self.objects.modify(resource, door, namespace, name, &options, change);
                    (asks, told, outcome.await)
                }
                .boxed()
            })
            .collect();
        let mut outcomes = futures_util::stream::iter(each).buffer_unordered(owned::CONCURRENT);
        let mut failed = Ok(());
        while let Some((asks, told, outcome)) = outcomes.next().await {
            match outcome {
                Ok(object) => {
                    wrote.at(owned::revision_of(&object));
                    if let Some(Event { severity, reason, message }) = told {
                        self.tell(severity, &reason, &message);
                    }
                }
                Err(error) if error.code() == 404 => {}
                Err(error) if error.is_fenced() => return Err(error.into()),
                Err(error) => {
                    *is_behind |= asks;
                    if error.code() != 409 {
                        self.tell_failed(&UPDATING, &error);
                    }
                    failed = owned::worse(failed, error);
                }
            }
        }
        failed
    }

    /// Creates these, with an event for each; the names of those that others have are `taken`. Beside the outcome,
    /// the names and uids of those in whose place there is another now.
    async fn create(
        &self,
        (resource, namespace): (&Row, &str),
        creations: Vec<Creation>,
        wrote: &Wrote,
        taken: &mut BTreeSet<String>,
    ) -> (Result<(), LookError>, Vec<(String, String)>) {
        let one = &resource.singular;
        let mut replaced = Vec::new();
        let told = |instead_of: Option<Replaced>, outcome: &Result<Value, Status>| match outcome {
            Ok(object) => {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                self.tell_done(resource, "SuccessfulCreate", &format!("Created {one}: {name}"));
                if let Some((name, uid, told)) = instead_of {
                    replaced.push((name, uid));
                    if let Some(Event { severity, reason, message }) = told {
                        self.tell(severity, &reason, &message);
                    }
                }
            }
            // Its controller draws another, or waits until it is free.
            Err(error) if error.reason == Reason::AlreadyExists => {
                taken.insert(error.name.clone());
            }
            Err(error) if error.is_fenced() || error.is_of_ending_namespace() => {}
            Err(error) => self.tell_failed(&CREATING, error),
        };
        // What is made from the object is about as large as the object.
        let size = self.entry.value.len();
        let creations = creations.into_iter().map(|it| (it.instead_of, (it.write)()));
        let created =
            owned::create_all(&self.objects, (resource, namespace), (creations, size), wrote, told)
                .await;
        (created, replaced)
    }

    /// Deletes those of these names and uids, with an event for each.
    async fn delete(
        &self,
        (resource, namespace): (&Row, &str),
        deletions: Vec<(String, String)>,
        wrote: &Wrote,
    ) -> Result<(), LookError> {
        let one = &resource.singular;
        let told = |name: &str| {
            self.tell_done(resource, "SuccessfulDelete", &format!("Deleted {one}: {name}"));
        };
        owned::delete_all(&self.objects, resource, namespace, deletions, wrote, told).await
    }

    /// Ends those of these names, with an event for each. All are tried; then the first failure counts.
    async fn end(
        &self,
        resource: &Resource,
        writes: Vec<(String, Write)>,
        wrote: &Wrote,
    ) -> Result<(), LookError> {
        let told = |name: String, is_done: bool| {
            if is_done {
                let message = format!("Deleted {}: {name}", resource.singular);
                self.tell_done(resource, "SuccessfulDelete", &message);
            }
        };
        self.each(alone(writes), wrote, told).await
    }

    /// Applies these writes in one transaction, if nothing changed in between. Its revision.
    pub(super) async fn transact(
        &self,
        writes: impl IntoIterator<Item = (Compare, Operation)>,
    ) -> Result<Revision, LookError> {
        let (compares, operations) = writes.into_iter().unzip();
        self.commit(compares, operations).await
    }

    async fn commit(
        &self,
        compares: Vec<Compare>,
        operations: Vec<Operation>,
    ) -> Result<Revision, LookError> {
        let transaction =
            Transaction { compares, operations, fence: Some(self.fence), ..Transaction::default() };
        Ok(self.objects.registry().transact(transaction).await?.revision)
    }

    /// Applies these writes as long as the object is at this revision, at which it is as it was seen: one that
    /// is being deleted meanwhile, and leaves alone what it owns, must adopt nobody. All are tried; then the
    /// first failure counts, and the names of those that failed are `refused`.
    async fn change_owners(
        &self,
        writes: Vec<(String, Write)>,
        wrote: &Wrote,
        revision: Revision,
        refused: &mut BTreeSet<String>,
    ) -> Result<(), LookError> {
        let unchanged = Compare::Revision { key: self.entry.key.clone(), revision };
        let with =
            |(name, (compare, operation))| (name, vec![compare, unchanged.clone()], operation);
        let told = |name: String, is_done: bool| {
            if !is_done {
                refused.insert(name);
            }
        };
        self.each(writes.into_iter().map(with).collect(), wrote, told).await
    }

    /// Applies each of these writes in a transaction of its own, and tells of each whether it is done. All are tried;
    /// then the first failure counts.
    async fn each(
        &self,
        writes: Vec<(String, Vec<Compare>, Operation)>,
        wrote: &Wrote,
        mut told: impl FnMut(String, bool),
    ) -> Result<(), LookError> {
        let each: Vec<BoxFuture<'_, _>> = writes
            .into_iter()
            .map(|(name, compares, operation)| {
                async move { (name, self.commit(compares, vec![operation]).await) }.boxed()
            })
            .collect();
        let mut outcomes = futures_util::stream::iter(each).buffer_unordered(owned::CONCURRENT);
        let mut failed = None;
        while let Some((name, outcome)) = outcomes.next().await {
            told(name, outcome.is_ok());
            match outcome {
                Ok(revision) => wrote.at(revision),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Files the write of the object of this name; gives the name back where that could not be written out. Where there
    /// is none, it names what was not shown: what is there now is another.
    fn file(
        &self,
        writes: &mut Vec<(String, Write)>,
        (failed, doing): (&mut Option<LookError>, &Doing),
        write: Option<Result<Write, LookError>>,
        name: String,
    ) -> Option<String> {
        match write? {
            Ok(write) => {
                writes.push((name, write));
                None
            }
            Err(error) => {
                self.fails(failed, doing, Err(error));
                Some(name)
            }
        }
    }

    /// The first failure counts. One that the next try would have too is told, whatever is told of what is done.
    fn fails(&self, first: &mut Option<LookError>, doing: &Doing, outcome: Result<(), LookError>) {
        if let Err(error) = &outcome
            && error.is_for_what_is_wanted()
        {
            self.tell_failed(doing, error);
        }
        keep(first, outcome);
    }

    pub(super) fn tell_failed(&self, (reason, what): &Doing, error: &dyn Display) {
        self.tell(Severity::Warning, reason, &format!("Error {what}: {error}"));
    }

    fn tells(&self, resource: &Resource) -> bool {
        let is_of =
            |kind: &KindName| kind.group == resource.group && kind.plural == resource.plural;
        !self.silent_of.iter().any(is_of)
    }

    /// Says in an event what was done for the object, if its controller says such things.
    pub(super) fn tell_done(&self, resource: &Resource, reason: &str, message: &str) {
        if self.tells(resource) {
            self.tell(Severity::Normal, reason, message);
        }
    }

    /// Writes an event about the object.
    pub(super) fn tell(&self, severity: Severity, reason: &str, message: &str) {
        let key = &self.entry.key;
        let about = json!({
            "apiVersion": self.owner.api_version,
            "kind": self.owner.kind,
            "metadata": {"namespace": key.namespace, "name": key.name, "uid": self.uid},
        });
        self.events.record(&about, severity, reason, message);
    }
}

fn kind_of(effect: &Effect) -> KindName {
    match effect {
        Effect::Create(kind, _) | Effect::CreateFrom(kind, _) => *kind,
        Effect::Adopt(named)
        | Effect::Release(named)
        | Effect::Delete(named)
        | Effect::Replace(named, ..)
        | Effect::End(named, _)
        | Effect::Rewrite(named, _)
        | Effect::Change(Change { named, .. }) => named.kind,
    }
}

/// These writes, each for itself.
fn alone(writes: Vec<(String, Write)>) -> Vec<(String, Vec<Compare>, Operation)> {
    let alone = |(name, (compare, operation))| (name, vec![compare], operation);
    writes.into_iter().map(alone).collect()
}
