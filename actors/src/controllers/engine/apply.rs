//! Does what a controller wants done to other objects, by the right of its object's shard.
//!
//! Each thing is a write of its own, some dozens at a time, which the registry commits in groups: one that
//! somebody else was quicker at keeps no other back, and no transaction grows with what is owned.

use super::super::control::LookError;
use super::super::owned::{self, Owner};
use super::super::wrote::Wrote;
use super::effects::{Effect, Named};
use super::kind_name::KindName;
use super::view::Part;
use futures_util::StreamExt as _;
use impresario_api::resource::Resource;
use impresario_objects::Objects;
use impresario_objects::events::{Recorder, Severity};
use impresario_registry_api::{Compare, Entry, Fence, Operation, Transaction};
use serde_json::{Value, json};

/// The reason of a condition and of events: what is wanted cannot be created.
pub const FAILED_CREATE: &str = "FailedCreate";
/// The same for what cannot be deleted.
pub const FAILED_DELETE: &str = "FailedDelete";

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
}

/// How it went.
#[derive(Default)]
pub(super) struct Applied {
    /// The first failure of each kind of effect.
    owners: Option<LookError>,
    created: Option<LookError>,
    deleted: Option<LookError>,
}

impl Applied {
    /// Why not all is created or deleted, if it is for what is wanted and not for how the registry is: a
    /// reason and the error.
    pub(super) fn refused(&self) -> Option<(&'static str, String)> {
        let failed = [(FAILED_CREATE, &self.created), (FAILED_DELETE, &self.deleted)];
        let (reason, error) = failed.into_iter().find_map(|(why, e)| Some((why, e.as_ref()?)))?;
        error.is_of_one_object().then(|| (reason, error.to_string()))
    }

    /// The failure that counts.
    pub(super) fn into_result(self) -> Result<(), LookError> {
        self.owners.or(self.created).or(self.deleted).map_or(Ok(()), Err)
    }
}

impl Behalf<'_> {
    /// Does all of it. What is written to objects of a kind is noted in its `wrote`.
    pub(super) async fn apply(
        &self,
        actions: Vec<Effect>,
        parts: &[Part],
        wrote: &[Wrote],
    ) -> Applied {
        let mut applied = Applied::default();
        let mut rest = actions;
        for (part, wrote) in parts.iter().zip(wrote) {
            let kind = part.kind();
            let of_kind = |effect: &mut Effect| kind_of(effect) == kind;
            let mine: Vec<_> = rest.extract_if(.., of_kind).collect();
            if !mine.is_empty() {
                self.apply_to(kind, mine, part, wrote, &mut applied).await;
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
        part: &Part,
        wrote: &Wrote,
        applied: &mut Applied,
    ) {
        let (mut owners, mut creations, mut deletions) = (Vec::new(), Vec::new(), Vec::new());
        for effect in effects {
            let write = match effect {
                Effect::Create(_, object) => {
                    creations.push(object);
                    continue;
                }
                Effect::Delete(Named { name, uid, .. }) => {
                    deletions.push((name, uid));
                    continue;
                }
                Effect::Adopt(named) => {
                    part.entry(&named.name).map(|entry| owned::adopt(entry, &self.owner))
                }
                Effect::Release(named) => {
                    part.entry(&named.name).map(|entry| owned::release(entry, self.uid))
                }
            };
            match write {
                Some(Ok(write)) => owners.push(write),
                Some(Err(error)) => keep(&mut applied.owners, Err(error)),
                // It names what it was not shown; what is there now is another.
                None => {}
            }
        }
        keep(&mut applied.owners, self.change_owners(owners, wrote).await);
        if creations.is_empty() && deletions.is_empty() {
            return;
        }
        match kind.served() {
            Ok(resource) => self.make(resource, creations, deletions, wrote, applied).await,
            Err(status) => keep(&mut applied.created, Err(status.into())),
        }
    }

    /// Creates and deletes, with an event for each. What is written is noted as it comes: a look that is
    /// given up half way has not forgotten it.
    async fn make(
        &self,
        resource: &'static Resource,
        creations: Vec<Value>,
        deletions: Vec<(String, String)>,
        wrote: &Wrote,
        applied: &mut Applied,
    ) {
        let namespace = &self.entry.key.namespace;
        let one = resource.singular;
        wrote.begin();
        let told = |outcome: &Result<Value, _>| match outcome {
            Ok(object) => {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                let message = format!("Created {one}: {name}");
                self.tell(Severity::Normal, "SuccessfulCreate", &message);
            }
            Err(error) => {
                self.tell(Severity::Warning, FAILED_CREATE, &format!("Error creating: {error}"));
            }
        };
        let created =
            owned::create_all(&self.objects, resource, namespace, creations, wrote, told).await;
        let told = |name: &str| {
            self.tell(Severity::Normal, "SuccessfulDelete", &format!("Deleted {one}: {name}"));
        };
        let deleted =
            owned::delete_all(&self.objects, resource, namespace, deletions, wrote, told).await;
        if [&created, &deleted].into_iter().any(owned::may_be_done) {
            wrote.ended_unknown();
        } else {
            wrote.all_known();
        }
        keep(&mut applied.created, created);
        keep(&mut applied.deleted, deleted);
    }

    /// Applies these writes as long as the object is as it was seen: one that is being deleted meanwhile,
    /// and leaves alone what it owns, must adopt nobody. All are tried; then the first failure counts.
    async fn change_owners(
        &self,
        writes: Vec<(Compare, Operation)>,
        wrote: &Wrote,
    ) -> Result<(), LookError> {
        let unchanged =
            Compare::Revision { key: self.entry.key.clone(), revision: self.entry.mod_revision };
        let each = writes.into_iter().map(|(compare, operation)| {
            let transaction = Transaction {
                compares: vec![compare, unchanged.clone()],
                operations: vec![operation],
                fence: Some(self.fence),
                ..Transaction::default()
            };
            self.objects.registry().transact(transaction)
        });
        let mut outcomes = futures_util::stream::iter(each).buffer_unordered(owned::CONCURRENT);
        let mut failed = None;
        while let Some(outcome) = outcomes.next().await {
            match outcome {
                Ok(committed) => wrote.at(committed.revision),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
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
        Effect::Create(kind, _) => *kind,
        Effect::Adopt(named) | Effect::Release(named) | Effect::Delete(named) => named.kind,
    }
}

/// The first failure counts.
fn keep(first: &mut Option<LookError>, outcome: Result<(), LookError>) {
    if let Err(error) = outcome
        && first.is_none()
    {
        *first = Some(error);
    }
}
