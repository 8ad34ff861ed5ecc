//! What becomes of definitions: names are accepted, what is served is said, and what goes is emptied first.

use super::follow::{Definitions, Followed};
use super::names::Taken;
use crate::{DeleteOptions, Deleted, Door, Objects, WriteOptions};
use futures_util::{StreamExt as _, stream};
use impresario_api::admission::metadata_time;
use impresario_api::catalog::find;
use impresario_api::crd::FINALIZER;
use impresario_api::resource::{Row, resource_key};
use impresario_api::status::Status;
use impresario_client::objects::refuse::read_refused;
use impresario_client::objects::stored::text;
use impresario_registry_api::{Consistency, Entry, ListRequest, Selection};
use impresario_runtime::clock;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// Objects that are read at a time, and about how many bytes of them.
const PAGE: usize = 1000;
const PAGE_BYTES: usize = 16 * 1024 * 1024;
/// Deletions that are under way at once.
const CONCURRENT: usize = 16;
/// When objects that others hold are looked at again.
const HELD: SignedDuration = SignedDuration::from_secs(1);

/// Looks at all definitions once, by right of the shard whose fence `objects` has. What could be done was done when it
/// gives an error, which is the first. Gives when to look again although nothing changes.
pub async fn settle(
    objects: &Objects,
    definitions: &Definitions,
) -> Result<Option<Timestamp>, Status> {
    let kind = find("apiextensions.k8s.io", "v1", "customresourcedefinitions")
        .ok_or_else(Status::no_such_path)?;
    let settling = Settling { objects, kind };
    let (mut next, mut first) = (None, None);
    for followed in definitions.all() {
        let goes = !text(&followed.object, "/metadata/deletionTimestamp").is_empty();
        let settled = if goes {
            settling.end(&followed).await
        } else {
            settling.name_and_establish(&followed).await.map(|()| None)
        };
        match settled {
            Ok(again) => next = next.into_iter().chain(again).min(),
            // Gone, or changed: it is told of.
            Err(status) if status.is_superseded() => {}
            Err(status) if status.is_fenced() => return Err(status),
            Err(status) => first = first.or(Some(status)),
        }
    }
    first.map_or(Ok(next), Err)
}

struct Settling<'a> {
    objects: &'a Objects,
    kind: Row,
}

/// A condition: its type, whether it holds, a word for programs and one for people.
type Said<'a> = (&'a str, bool, &'a str, &'a str);

impl Settling<'_> {
    async fn name_and_establish(&self, followed: &Followed) -> Result<(), Status> {
        let object = &*followed.object;
        let wanted = object.pointer("/spec/names").unwrap_or(&Value::Null);
        let accepted = object.pointer("/status/acceptedNames").unwrap_or(&Value::Null);
        if wanted != accepted || !holds(object, "NamesAccepted") {
            let refused = self.taken(object).await?.refuse(wanted);
            let names = refused.is_none().then(|| wanted.clone());
            return match refused {
                None => {
                    let said = ("NamesAccepted", true, "NoConflicts", "no conflicts found");
                    self.say(object, &[said], names.as_ref()).await
                }
                Some((reason, why)) => {
                    let mut said = vec![("NamesAccepted", false, reason, why.as_str())];
                    if !holds(object, "Established") {
                        let why = "not all names are accepted";
                        said.push(("Established", false, "NotAccepted", why));
                    }
                    self.say(object, &said, None).await
                }
            };
        }
        if holds(object, "Established") {
            return Ok(());
        }
        match (&followed.row, &followed.fault) {
            (Some(_), None) => {
                let why = "the initial names have been accepted";
                self.say(object, &[("Established", true, "InitialNamesAccepted", why)], None).await
            }
            (_, Some(why)) => {
                self.say(object, &[("Established", false, "NotServed", why)], None).await
            }
            (None, None) => Ok(()),
        }
    }

    /// By what others of its group are known, as of every write that was acknowledged before: only who holds the shard
    /// accepts names, so none is accepted twice.
    async fn taken(&self, definition: &Value) -> Result<Taken, Status> {
        let group = text(definition, "/spec/group");
        let (name, ending) = (text(definition, "/metadata/name"), format!(".{group}"));
        let mut taken = Taken::by_program(group);
        let mut request = Some(listing(&self.kind));
        while let Some(entries) = self.page(&mut request).await? {
            for entry in entries {
                // The name is the plural and the group.
                if entry.key.name == name || !entry.key.name.ends_with(&ending) {
                    continue;
                }
                let other: Value =
                    serde_json::from_slice(&entry.value).map_err(Status::internal)?;
                if text(&other, "/spec/group") == group {
                    taken.add(&other);
                }
            }
        }
        Ok(taken)
    }

    /// The next page of a list; none at its end.
    async fn page(&self, request: &mut Option<ListRequest>) -> Result<Option<Vec<Entry>>, Status> {
        let Some(asked) = request.take() else { return Ok(None) };
        let page = self.objects.registry().part(asked.clone(), PAGE_BYTES).await;
        let page = page.map_err(|error| read_refused(&error))?;
        let last = page.entries.last().map(|entry| &entry.key);
        if let (Some(last), true) = (last, page.remaining > 0) {
            let after = Some((last.namespace.clone(), last.name.clone()));
            *request = Some(ListRequest { after, ..asked });
        }
        Ok(Some(page.entries))
    }

    /// Writes conditions, and names that are accepted, where they are not so yet.
    async fn say(
        &self,
        seen: &Value,
        said: &[Said<'_>],
        names: Option<&Value>,
    ) -> Result<(), Status> {
        let now = metadata_time(clock::timestamp());
        let change = |old: &Value| {
            same_object(&self.kind, seen, old)?;
            let mut new = old.clone();
            let Some(status) = status_of(&mut new) else { return Ok(new) };
            if let Some(names) = names.filter(|_| old.pointer("/spec/names") == names) {
                status.insert("acceptedNames".to_owned(), names.clone());
            } else if names.is_some() {
                // It asks for others by now, at which nobody has looked.
                return Ok(new);
            }
            let conditions = status.entry("conditions").or_insert_with(|| json!([]));
            for (kind, holds, reason, message) in said {
                condition(conditions, kind, *holds, (reason, message), &now);
            }
            Ok(new)
        };
        let name = text(seen, "/metadata/name");
        let write = WriteOptions::default();
        self.objects.modify(&self.kind, Door::Status, "", name, &write, change).await.map(|_| ())
    }

    /// Deletes all objects of a kind whose definition goes, then lets the definition go.
    async fn end(&self, followed: &Followed) -> Result<Option<Timestamp>, Status> {
        let object = &*followed.object;
        let finalizers = object.pointer("/metadata/finalizers").and_then(Value::as_array);
        if !finalizers.is_some_and(|all| all.iter().any(|one| one == FINALIZER)) {
            return Ok(None);
        }
        let again = Some(clock::timestamp() + HELD);
        match (&followed.row, &followed.fault) {
            (Some(row), _) => {
                let why = "CustomResource deletion is in progress";
                let said = ("Terminating", true, "InstanceDeletionInProgress", why);
                if !holds(object, "Terminating") {
                    self.say(object, &[said], None).await?;
                }
                let left = self.empty(row).await?;
                if left > 0 {
                    let why = format!("{left} objects wait for their finalizers");
                    let said = ("Terminating", true, "InstanceDeletionInProgress", why.as_str());
                    self.say(object, &[said], None).await?;
                    return Ok(again);
                }
            }
            // Its objects are there, and cannot be deleted here: it stays until another program can.
            (None, Some(why)) => {
                let said = ("Terminating", true, "InstanceDeletionFailed", why.as_str());
                self.say(object, &[said], None).await?;
                return Ok(again);
            }
            // It was never served, so there are none.
            (None, None) => {}
        }
        let change = |old: &Value| {
            same_object(&self.kind, object, old)?;
            let mut new = old.clone();
            let held = new.pointer_mut("/metadata/finalizers").and_then(Value::as_array_mut);
            if let Some(held) = held {
                held.retain(|one| one != FINALIZER);
            }
            Ok(new)
        };
        let name = text(object, "/metadata/name");
        let write = WriteOptions::default();
        self.objects.modify(&self.kind, Door::Main, "", name, &write, change).await?;
        Ok(None)
    }

    /// Deletes all objects of a kind; tells how many are held by others. None comes: the definition is marked.
    async fn empty(&self, row: &Row) -> Result<usize, Status> {
        let mut left = 0;
        let mut first = None;
        let mut request = Some(listing(row));
        while let Some(entries) = self.page(&mut request).await? {
            let deletions = entries.into_iter().map(|entry| self.delete(row, entry));
            let deletions: Vec<_> = deletions.collect();
            let mut outcomes = stream::iter(deletions).buffer_unordered(CONCURRENT);
            while let Some(outcome) = outcomes.next().await {
                match outcome {
                    Ok(is_left) => left += usize::from(is_left),
                    Err(status) if status.is_fenced() => return Err(status),
                    Err(status) => first = first.or(Some(status)),
                }
            }
        }
        first.map_or(Ok(left), Err)
    }

    /// Deletes what was listed; whether it is still there.
    async fn delete(&self, row: &Row, entry: Entry) -> Result<bool, Status> {
        let object: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
        let uid = Some(text(&object, "/metadata/uid").to_owned()).filter(|uid| !uid.is_empty());
        let options = DeleteOptions { uid, ..DeleteOptions::default() };
        let (namespace, name) = (&entry.key.namespace, &entry.key.name);
        let write = WriteOptions::default();
        match self.objects.delete(row, namespace, name, &options, &write).await {
            Ok(Deleted::Gone(_)) => Ok(false),
            Ok(Deleted::Lingers(_)) => Ok(true),
            Err(status) if status.code() == 404 => Ok(false),
            Err(status) => Err(status),
        }
    }
}

fn listing(row: &Row) -> ListRequest {
    let all = ListRequest::of(Selection::all(resource_key(row)));
    ListRequest { limit: Some(PAGE), consistency: Consistency::Linearizable, ..all }
}

/// Another of its name is not meant.
fn same_object(kind: &Row, seen: &Value, now: &Value) -> Result<(), Status> {
    let uid = |object: &Value| text(object, "/metadata/uid").to_owned();
    let name = text(seen, "/metadata/name");
    if uid(seen) == uid(now) { Ok(()) } else { Err(Status::not_found(kind, name)) }
}

fn status_of(definition: &mut Value) -> Option<&mut serde_json::Map<String, Value>> {
    let status = definition.as_object_mut()?.entry("status").or_insert_with(|| json!({}));
    status.as_object_mut()
}

fn holds(definition: &Value, kind: &str) -> bool {
    let conditions = definition.pointer("/status/conditions").and_then(Value::as_array);
    conditions
        .into_iter()
        .flatten()
        .any(|condition| text(condition, "/type") == kind && text(condition, "/status") == "True")
}

/// Says a condition; since when it is so is kept.
fn condition(conditions: &mut Value, kind: &str, holds: bool, why: (&str, &str), now: &str) {
    let Some(all) = conditions.as_array_mut() else { return };
    let status = if holds { "True" } else { "False" };
    let at = all.iter().position(|condition| text(condition, "/type") == kind);
    let before = at.map(|at| all.remove(at));
    let since = before.as_ref().filter(|condition| text(condition, "/status") == status);
    let since = since.map_or(now, |condition| text(condition, "/lastTransitionTime")).to_owned();
    let said = json!({
        "type": kind, "status": status, "lastTransitionTime": since, "reason": why.0, "message": why.1,
    });
    all.insert(at.unwrap_or(all.len()), said);
}
