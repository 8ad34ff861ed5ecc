//! What deleting an object means.

use super::metadata_time;
use crate::field::{as_map, has, list, number, object_mut, same, set, text};
use crate::resource::Resource;
use crate::status::Status;
use jiff::Timestamp;
use serde_json::{Value, json};

/// What becomes of the objects that an object owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Propagation {
    /// They are deleted after it.
    #[default]
    Background,
    /// They are deleted first.
    Foreground,
    /// They stay, without an owner.
    Orphan,
}

/// What a deletion asks for.
#[derive(Debug, Clone, Default)]
pub struct DeleteOptions {
    /// Seconds that a pod gets to end.
    pub grace_period_seconds: Option<i64>,
    /// What becomes of the objects it owns.
    pub propagation: Propagation,
    /// The uid that the object must have.
    pub uid: Option<String>,
    /// The resource version that the object must have.
    pub resource_version: Option<String>,
}

/// What a deletion does now.
#[derive(Debug, Clone, PartialEq)]
pub enum Deletion {
    /// The object goes at once.
    Gone,
    /// The object stays, marked as this, until what holds it has let go.
    Marked(Value),
    /// The object is marked already and this deletion changes nothing.
    Unchanged,
}

/// What deleting an object means. `resource_version` is the one it has now.
pub fn admit_delete(
    resource: &Resource,
    object: &Value,
    resource_version: &str,
    options: &DeleteOptions,
    now: Timestamp,
) -> Result<Deletion, Status> {
    let name = text(object, "metadata.name");
    for (what, wanted, found) in [
        ("UID", &options.uid, text(object, "metadata.uid")),
        ("ResourceVersion", &options.resource_version, resource_version),
    ] {
        if let Some(wanted) = wanted.as_deref().filter(|wanted| *wanted != found) {
            return Err(Status::conflict(
                resource,
                name,
                format!(
                    "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"
                ),
            ));
        }
    }
    let mut marked = object.clone();
    let grace = grace_period(resource, object, options.grace_period_seconds);
    let metadata = object_mut(&mut marked, "metadata");
    let finalizer = match options.propagation {
        Propagation::Background => None,
        Propagation::Foreground => Some("foregroundDeletion"),
        Propagation::Orphan => Some("orphan"),
    };
    let already = has(metadata, "deletionTimestamp");
    if let Some(finalizer) = finalizer.filter(|_| !already) {
        let finalizers = as_map(metadata).entry("finalizers").or_insert_with(|| json!([]));
        match finalizers {
            Value::Array(all) if all.iter().any(|f| f == finalizer) => {}
            Value::Array(all) => all.push(finalizer.into()),
            other => *other = json!([finalizer]),
        }
    }
    let shorter = number(metadata, "deletionGracePeriodSeconds").is_none_or(|old| grace < old);
    if !already || shorter {
        // A deletion said again may only hurry: its time never moves back.
        let due = now.checked_add(jiff::SignedDuration::from_secs(grace));
        let due = metadata_time(due.unwrap_or(Timestamp::MAX));
        set(metadata, "deletionTimestamp", due);
        set(metadata, "deletionGracePeriodSeconds", grace);
        if resource.generation {
            let generation = number(metadata, "generation").unwrap_or(0);
            set(metadata, "generation", generation + 1);
        }
    }
    (resource.deletion.mark)(&mut marked);
    if is_finished(resource, &marked) {
        Ok(Deletion::Gone)
    } else if same(&marked, object) {
        Ok(Deletion::Unchanged)
    } else {
        Ok(Deletion::Marked(marked))
    }
}

/// The longest that a pod gets to end, in seconds: some 68 years. More, by which no time can be told, is
/// taken for this.
const GRACE_MAX: i64 = i32::MAX as i64;

/// Seconds until a deleted object may go: those that the caller grants to what needs time to end.
fn grace_period(resource: &Resource, object: &Value, asked: Option<i64>) -> i64 {
    let Some(usual) = (resource.deletion.grace)(object) else { return 0 };
    match asked.unwrap_or(usual) {
        negative if negative < 0 => 1,
        grace => grace.min(GRACE_MAX),
    }
}

/// Whether a marked object has nothing left that holds it and is to be removed.
pub fn is_finished(resource: &Resource, object: &Value) -> bool {
    has(object, "metadata.deletionTimestamp")
        && list(object, "metadata.finalizers").is_empty()
        && number(object, "metadata.deletionGracePeriodSeconds").unwrap_or(0) == 0
        && !(resource.deletion.is_held)(object)
}
