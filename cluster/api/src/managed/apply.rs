//! Applying: who says what it wants of an object owns that, and nothing else.
//!
//! What is applied is merged into the object. What the same manager applied before and does not any more is taken out,
//! unless another one applies it. What would change a field that another manager owns is a conflict, unless it is
//! forced: then the field is taken over. A field that two managers apply with the same value is both managers'.

use super::compare::compare;
use super::entries::{Entries, Managed, Manager, Operation, Owned, Part};
use super::fields::Fields;
use super::merge::{merge, remove};
use super::owned::{faults, fields_of, lift};
use super::step::{beginning, shown};
use super::typed::Type;
use super::update::{Writer, put, take};
use crate::admission::metadata_time;
use crate::cause::{Cause, CauseReason};
use crate::field::{at, get, object_mut, set, text};
use crate::patch::LAST_APPLIED;
use crate::resource::Resource;
use crate::status::{Reason, Status};
use serde_json::{Value, json};
use std::fmt::Write as _;
use thiserror::Error;

/// Who owned everything in an object of which nobody was known to own anything.
const BEFORE: &str = "before-first-apply";
/// The manager that `kubectl apply --server-side` says; what it applied in another way before is its own.
const KUBECTL: &str = "kubectl";
/// The most that annotations may have together, as metadata has it.
const MOST_ANNOTATIONS: usize = 256 * 1024;

/// The most conflicts that are told one by one.
const MOST_CONFLICTS: usize = 100;
/// The most managers that may apply to an object: their entries are a part of it, and must fit into it.
const MOST_APPLIERS: usize = 500;

/// A field that somebody else owns and that would be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Whose it is.
    pub manager: Manager,
    /// Where it is.
    pub field: String,
}

/// Why something was not applied.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ApplyError {
    /// It is nothing that can be applied to objects of the kind.
    #[error("failed to create typed patch object ({namespace}/{name}; {kind}): {}", listed(.faults))]
    Untyped {
        /// The namespace of the object.
        namespace: String,
        /// Its name.
        name: String,
        /// Its kind, with the version.
        kind: String,
        /// What is wrong.
        faults: Vec<String>,
    },
    /// Others own what it would change.
    #[error("{}", conflicting(.told, *.more))]
    Conflicts {
        /// What they own, of much the first.
        told: Vec<Conflict>,
        /// How many more there are.
        more: usize,
    },
    /// Too many apply to one object, each under another name.
    #[error(
        "{MOST_APPLIERS} managers apply to this object already: apply under one name (`--field-manager`), and take the entries of those that apply no more out of metadata.managedFields, or all of them by replacing it with `[{{}}]`"
    )]
    TooManyAppliers,
}

/// What comes of an object to which something was applied, before it is admitted.
#[derive(Debug, Clone)]
pub struct Applied {
    /// The object, without its entries.
    pub object: Value,
    entries: Entries,
}

impl Applied {
    /// Puts the entries into the object as it will be stored.
    pub fn note(&self, row: &Resource, object: &mut Value) {
        put(object, self.entries.to_kept(row, object));
    }
}

/// Applies to an object; to one that is not there yet where it is null. What is applied has its type and no entries.
pub fn apply(
    row: &Resource,
    live: &Value,
    applied: &Value,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Applied, ApplyError> {
    let of = Type::of(row.schema.looks());
    let faults = faults(of, applied);
    if !faults.is_empty() {
        return Err(ApplyError::Untyped {
            namespace: text(applied, "metadata.namespace").to_owned(),
            name: text(applied, "metadata.name").to_owned(),
            kind: format!("{}, Kind={}", row.api_version(), row.kind),
            faults,
        });
    }
    let part = writer.part();
    let manager = writer.manager(row, Operation::Apply);
    let mut entries = Entries::kept(row, live);
    if entries.is_empty() && !live.is_null() {
        entries = before(row, live, &metadata_time(writer.now));
    }
    entries.spell_out(row, live);
    for entry in &mut entries.0 {
        if let Owned::Fields(fields) = &mut entry.owned {
            lift(of, fields);
        }
    }
    let mine = entries.place(&manager).map(|at| entries.0.remove(at));
    let is_applier = |other: &&Managed| other.manager.operation == Operation::Apply;
    if mine.is_none() && entries.iter().filter(is_applier).count() >= MOST_APPLIERS {
        return Err(ApplyError::TooManyAppliers);
    }
    let mut set = fields_of(of, applied);
    part.narrow(row, &mut set);

    let mut object = if live.is_null() { json!({}) } else { live.clone() };
    take(&mut object);
    merge(of, &mut object, applied);
    if let Some(last) = mine.as_ref().and_then(Managed::fields) {
        let mut others = set.clone();
        // Those that do not apply as well: what they own is not taken from them without a conflict.
        for other in entries.iter() {
            other.fields().into_iter().for_each(|fields| others.add(fields.clone()));
        }
        let mut gone = last.clone();
        gone.leave(&others);
        if !gone.is_empty() {
            remove(of, &mut object, &gone, Some(&others));
        }
    }
    let change = part.compare(row, live, &object);
    if !force && are_others(&entries, &change.changed) {
        // What the client applied before, and nobody has changed since, is not taken from anybody.
        let own = if writer.manager == KUBECTL { last_applied(of, live) } else { None };
        let left = own
            .map_or_else(|| change.changed.clone(), |own| change.changed.clone().difference(&own));
        if are_others(&entries, &left) {
            return Err(conflicts(&entries, &left));
        }
    }
    for entry in &mut entries.0 {
        if let Owned::Fields(fields) = &mut entry.owned {
            let lost = fields.touched(&change.changed);
            fields.subtract(&lost);
            fields.subtract(&change.removed);
        }
    }
    let was = mine.as_ref().filter(|mine| mine.fields() == Some(&set) && change.is_same());
    let time = was.map_or_else(|| metadata_time(writer.now), |was| was.time.clone());
    entries.0.push(Managed { manager, time, owned: Owned::Fields(set) });
    entries.drop_empty();
    if writer.manager == KUBECTL && !text_at(live, LAST_APPLIED).is_empty() {
        note_last_applied(&mut object, applied);
    }
    Ok(Applied { object, entries })
}

/// Who owned what, in an object of which nobody is known to own anything: each part of it, whichever is applied to now.
fn before(row: &Resource, live: &Value, time: &str) -> Entries {
    let parts = [Some(Part::Main), row.has_status_door().then_some(Part::Status)];
    let entry = |part: Part| Managed {
        manager: Manager {
            operation: Operation::Update,
            name: BEFORE.to_owned(),
            api_version: row.api_version(),
            subresource: part.subresource().to_owned(),
        },
        time: time.to_owned(),
        owned: Owned::Fields(part.all(row, live)),
    };
    let mut entries = Entries(parts.into_iter().flatten().map(entry).collect());
    entries.drop_empty();
    entries
}

/// Whether any of this is others'.
fn are_others(entries: &Entries, changed: &Fields) -> bool {
    entries.iter().filter_map(Managed::fields).any(|fields| !fields.touched(changed).is_empty())
}

/// What would be taken from others.
fn conflicts(entries: &Entries, changed: &Fields) -> ApplyError {
    let (mut told, mut more) = (Vec::new(), 0);
    let mut others: Vec<&Managed> = entries.iter().collect();
    others.sort_by_key(|entry| &entry.manager.name);
    for entry in others {
        let Some(fields) = entry.fields() else { continue };
        fields.touched(changed).each(&mut |path| {
            if told.len() < MOST_CONFLICTS {
                told.push(Conflict { manager: entry.manager.clone(), field: shown(path) });
            } else {
                more += 1;
            }
        });
    }
    ApplyError::Conflicts { told, more }
}

fn text_at<'a>(object: &'a Value, annotation: &str) -> &'a str {
    get(at(object, "metadata.annotations"), annotation).as_str().unwrap_or_default()
}

/// The fields that `kubectl apply` set in the object and that are still as it set them.
fn last_applied(of: Type<'_>, live: &Value) -> Option<Fields> {
    let last: Value = serde_json::from_str(text_at(live, LAST_APPLIED)).ok()?;
    let other = compare(of, Some(live), Some(&last));
    Some(fields_of(of, &last).difference(&other.changed).difference(&other.removed))
}

/// Keeps the annotation that `kubectl apply` reads in step, so that one can go back to it.
fn note_last_applied(object: &mut Value, applied: &Value) {
    let mut noted = applied.clone();
    if let Some(annotations) =
        noted.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut)
    {
        annotations.remove(LAST_APPLIED);
    }
    let annotations = object_mut(object_mut(object, "metadata"), "annotations");
    set(annotations, LAST_APPLIED, format!("{noted}\n"));
    let size = annotations.as_object().into_iter().flatten();
    let size: usize = size.map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
    if size > MOST_ANNOTATIONS {
        crate::field::remove(annotations, LAST_APPLIED);
    }
}

fn listed(faults: &[String]) -> String {
    match faults {
        [one] => one.clone(),
        many => many.iter().fold("errors:".to_owned(), |mut text, fault| {
            let _ = write!(text, "\n  {fault}"); // into memory
            text
        }),
    }
}

/// A manager as people are told it.
fn named(manager: &Manager) -> String {
    let mut named = format!("{:?}", beginning(&manager.name));
    if !manager.subresource.is_empty() {
        let _ = write!(named, " with subresource {:?}", beginning(&manager.subresource));
    }
    if manager.operation == Operation::Update {
        let _ = write!(named, " using {}", beginning(&manager.api_version));
    }
    named
}

fn conflicting(conflicts: &[Conflict], more: usize) -> String {
    if let ([one], 0) = (conflicts, more) {
        let manager = named(&one.manager);
        return format!("Apply failed with 1 conflict: conflict with {manager}: {}", one.field);
    }
    let mut lines = Vec::new();
    let mut last = None;
    for conflict in conflicts {
        if last != Some(&conflict.manager) {
            lines.push(format!("conflicts with {}:", named(&conflict.manager)));
            last = Some(&conflict.manager);
        }
        lines.push(format!("- {}", conflict.field));
    }
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len() + more, lines.join("\n"))
}

impl From<ApplyError> for Status {
    fn from(error: ApplyError) -> Self {
        let message = error.to_string();
        match error {
            // As Kubernetes does: it has no better word for it.
            ApplyError::Untyped { .. } => Self::new(Reason::InternalError, message),
            ApplyError::TooManyAppliers => Self::new(Reason::Invalid, message),
            ApplyError::Conflicts { told, .. } => {
                let mut status = Self::new(Reason::Conflict, message);
                status.causes = told
                    .into_iter()
                    .map(|conflict| Cause {
                        message: format!("conflict with {}", named(&conflict.manager)),
                        field: conflict.field,
                        reason: CauseReason::Conflict,
                    })
                    .collect();
                status
            }
        }
    }
}
