//! What is read and written of definitions and of the objects of their kinds, under a fence.

use crate::{DeleteOptions, Deleted, Door, Objects, WriteOptions};
use impresario_api::admission::metadata_time;
use impresario_api::crd::FINALIZER;
use impresario_api::resource::{Row, resource_key, resource_key_of};
use impresario_api::status::Status;
use impresario_client::objects::refuse::read_refused;
use impresario_client::objects::stored::text;
use impresario_registry_api::{Consistency, Entry, ListRequest, Selection};
use impresario_runtime::clock;
use serde_json::{Value, json};

/// Objects that are read at a time, and about how many bytes of them.
pub(super) const PAGE: usize = 1000;
const PAGE_BYTES: usize = 16 * 1024 * 1024;

/// Where an earlier page ended: a namespace and a name.
pub(super) type After = Option<(String, String)>;

/// A condition: its type, whether it holds, a word for programs and one for people.
pub(super) type Said<'a> = (&'a str, bool, &'a str, &'a str);

/// Reads and writes.
pub(super) struct Desk<'a> {
    pub(super) objects: &'a Objects,
    /// The kind of definitions.
    pub(super) kind: Row,
}

impl Desk<'_> {
    /// The next page of a kind's objects, of so many at the most, and where the one behind it begins; none behind the last.
    pub(super) async fn page(
        &self,
        row: &Row,
        after: After,
        most: usize,
    ) -> Result<(Vec<Entry>, After), Status> {
        let request = ListRequest {
            limit: Some(most),
            consistency: Consistency::Linearizable,
            after,
            ..ListRequest::of(Selection::all(resource_key(row)))
        };
        let page = self.objects.registry().part(request, PAGE_BYTES).await;
        let page = page.map_err(|error| read_refused(&error))?;
        let last = page.entries.last().filter(|_| page.remaining > 0);
        let behind = last.map(|entry| (entry.key.namespace.clone(), entry.key.name.clone()));
        Ok((page.entries, behind))
    }

    /// How many objects there are of the kind that a definition names, served or not.
    pub(super) async fn left(&self, definition: &Value) -> Result<usize, Status> {
        let (group, plural) =
            (text(definition, "/spec/group"), text(definition, "/spec/names/plural"));
        let all = ListRequest::of(Selection::all(resource_key_of(group, plural)));
        let request = ListRequest { limit: Some(1), consistency: Consistency::Linearizable, ..all };
        let page = self.objects.registry().list(request).await;
        let page = page.map_err(|error| read_refused(&error))?;
        Ok(page.entries.len() + page.remaining)
    }

    /// Deletes what was listed.
    pub(super) async fn delete(&self, row: &Row, entry: Entry) -> Result<(), Status> {
        let object: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
        let uid = Some(text(&object, "/metadata/uid").to_owned()).filter(|uid| !uid.is_empty());
        let options = DeleteOptions { uid, ..DeleteOptions::default() };
        let (namespace, name) = (&entry.key.namespace, &entry.key.name);
        let write = WriteOptions::default();
        match self.objects.delete(row, namespace, name, &options, &write).await {
            Ok(Deleted::Gone(_) | Deleted::Lingers(_)) => Ok(()),
            Err(status) if status.code() == 404 => Ok(()),
            Err(status) => Err(status),
        }
    }

    /// Writes conditions, and names that are accepted, where they are not so yet.
    pub(super) async fn say(
        &self,
        seen: &Value,
        said: &[Said<'_>],
        names: Option<&Value>,
    ) -> Result<(), Status> {
        let now = metadata_time(clock::timestamp());
        let change = |old: &Value| {
            self.same_object(seen, old)?;
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

    /// Lets a definition go whose objects are gone.
    pub(super) async fn release(&self, seen: &Value) -> Result<(), Status> {
        let change = |old: &Value| {
            self.same_object(seen, old)?;
            let mut new = old.clone();
            let held = new.pointer_mut("/metadata/finalizers").and_then(Value::as_array_mut);
            if let Some(held) = held {
                held.retain(|one| one != FINALIZER);
            }
            Ok(new)
        };
        let name = text(seen, "/metadata/name");
        let write = WriteOptions::default();
        self.objects.modify(&self.kind, Door::Main, "", name, &write, change).await.map(|_| ())
    }

    /// Another of its name is not meant.
    fn same_object(&self, seen: &Value, now: &Value) -> Result<(), Status> {
        let uid = |object: &Value| text(object, "/metadata/uid").to_owned();
        let name = text(seen, "/metadata/name");
        if uid(seen) == uid(now) { Ok(()) } else { Err(Status::not_found(&self.kind, name)) }
    }
}

fn status_of(definition: &mut Value) -> Option<&mut serde_json::Map<String, Value>> {
    let status = definition.as_object_mut()?.entry("status").or_insert_with(|| json!({}));
    status.as_object_mut()
}

/// A condition that a definition has.
pub(super) fn said<'a>(definition: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = definition.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().find(|condition| text(condition, "/type") == kind)
}

/// Whether a condition holds.
pub(super) fn holds(definition: &Value, kind: &str) -> bool {
    said(definition, kind).is_some_and(|condition| text(condition, "/status") == "True")
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
