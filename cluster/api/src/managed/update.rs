//! What writers own that do not apply: who creates an object owns what is in it, who changes it what it changed.

use super::compare::Comparison;
use super::entries::{
    Entries, EntriesError, Managed, Manager, Operation, Owned, Part, is_reset, is_short, kept,
};
use super::fields::Fields;
use super::step::Step;
use crate::admission::metadata_time;
use crate::field::{get, object_mut, remove, set};
use crate::resource::Resource;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::HashMap;

/// The most managers of an object that do not apply; of more the oldest are told as one.
pub const MOST_UPDATERS: usize = 10;
/// The name of those.
const ANCIENT: &str = "ancient-changes";
/// The name of a manager who says none.
const UNKNOWN: &str = "unknown";

/// Who writes, through which door, and when.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    /// The name of the manager.
    pub manager: &'a str,
    /// The door: `status`, `scale`, or empty for the main one.
    pub subresource: &'a str,
    /// The time of the write.
    pub now: Timestamp,
}

impl Writer<'_> {
    pub(super) fn manager(&self, row: &Resource, operation: Operation) -> Manager {
        let name = if self.manager.is_empty() { UNKNOWN } else { self.manager };
        Manager {
            operation,
            name: name.to_owned(),
            api_version: row.api_version(),
            subresource: self.subresource.to_owned(),
        }
    }

    pub(super) fn part(&self) -> Part {
        Part::of(self.subresource)
    }
}

/// Notes who created an object, which is as it will be stored. Entries that came with it are taken over.
pub fn created(
    row: &Resource,
    object: &mut Value,
    writer: &Writer<'_>,
) -> Result<(), EntriesError> {
    let given = take(object);
    let manager = writer.manager(row, Operation::Update);
    let time = metadata_time(writer.now);
    let entries = if given.is_empty() || is_reset(&given) || is_short(&given) {
        Entries(vec![Managed { manager, time, owned: Owned::Rest }]).as_kept(row)
    } else {
        let mut entries = Entries::given(&given)?;
        let changed = writer.part().written(row, object);
        entries.take(row, object, writer, Comparison { changed, ..Comparison::default() });
        entries.to_kept(row, object)
    };
    put(object, entries);
    Ok(())
}

/// Notes who changed an object through the door of the writer. Entries that came with the new one through the main
/// door are taken over; where none did, those of the old one are.
pub fn updated(
    row: &Resource,
    old: &Value,
    new: &mut Value,
    writer: &Writer<'_>,
) -> Result<(), EntriesError> {
    updated_through(row, old, new, writer, &[writer.subresource])
}

/// Whether these are the entries of an object as clients are told them: whoever sends them back says nothing by that,
/// however many there are.
fn is_told(row: &Resource, object: &Value, given: &[Value]) -> bool {
    let live = kept(object);
    // An entry that owns nothing is not told.
    if live.is_empty() || given.len() > live.len() {
        return false;
    }
    let mut told = Entries::kept(row, object);
    told.spell_out(row, object);
    told.sort();
    serde_json::to_value(told.to_told())
        .is_ok_and(|told| told.as_array().is_some_and(|told| told == given))
}

/// The same of a write that may change what is written through several doors.
pub fn updated_through(
    row: &Resource,
    old: &Value,
    new: &mut Value,
    writer: &Writer<'_>,
    doors: &[&str],
) -> Result<(), EntriesError> {
    let (given, live) = (take(new), kept(old));
    let is_main = writer.subresource.is_empty();
    if is_main && is_reset(&given) {
        return Ok(());
    }
    let is_given = is_main
        && !given.is_empty()
        && given != live
        && !is_short(&given)
        && !is_told(row, old, &given);
    if !is_given && live.is_empty() {
        // Nobody is known to own anything, and nobody has asked that it be known.
        return Ok(());
    }
    let mut entries = if is_given { Entries::given(&given)? } else { Entries::default() };
    let is_given = is_given && !entries.is_empty();
    if !is_given {
        entries = Entries::kept(row, old);
    }
    let mut has_changed = false;
    let mut is_spelt = is_given;
    for (index, door) in doors.iter().enumerate() {
        let writer = Writer { subresource: door, ..*writer };
        let mut change = writer.part().compare(row, old, new);
        if index > 0 {
            // The metadata is of who writes the object, where one write goes through both doors.
            let metadata = Step::field("metadata");
            change.changed.below.remove(&metadata);
            change.removed.below.remove(&metadata);
        }
        if !change.is_same() {
            has_changed = true;
            is_spelt |= entries.spell_for(row, old, &writer, &change);
            is_spelt |= entries.take(row, new, &writer, change);
        }
    }
    let entries = match (has_changed || is_given, is_spelt) {
        (false, _) => live.to_vec().into(),
        (true, false) => entries.as_kept(row),
        (true, true) => entries.to_kept(row, new),
    };
    put(new, entries);
    Ok(())
}

/// Notes that the writer set a field that nobody had: what [`updated`] would find out, where it is known.
pub fn took(object: &mut Value, writer: &Writer<'_>, path: &[&str]) {
    let Some(Value::Array(entries)) = object.pointer_mut("/metadata/managedFields") else { return };
    let is_writers = |entry: &&mut Value| {
        entry["manager"] == writer.manager
            && entry["operation"] == Operation::Update.as_str()
            && entry["subresource"].as_str().unwrap_or_default() == writer.subresource
    };
    let time = metadata_time(writer.now);
    let entry = match entries.iter_mut().find(is_writers) {
        Some(entry) => entry,
        None => {
            let mut entry =
                json!({ "manager": writer.manager, "operation": "Update", "fieldsV1": {} });
            if !writer.subresource.is_empty() {
                entry["subresource"] = writer.subresource.into();
            }
            entries.push(entry);
            match entries.last_mut() {
                Some(entry) => entry,
                None => return,
            }
        }
    };
    entry["time"] = time.into();
    // Who has the rest has this as well.
    let Some(mut place) = entry.get_mut("fieldsV1") else { return };
    for name in path {
        let Value::Object(fields) = place else { return };
        place = fields.entry(format!("f:{name}")).or_insert_with(|| json!({}));
    }
}

/// Takes the entries out of an object.
pub(super) fn take(object: &mut Value) -> Vec<Value> {
    match remove(object_mut(object, "metadata"), "managedFields") {
        Some(Value::Array(entries)) => entries,
        _ => Vec::new(),
    }
}

/// Puts entries into an object; no field for none.
pub(super) fn put(object: &mut Value, entries: Value) {
    if entries.as_array().is_some_and(|entries| !entries.is_empty()) {
        set(object_mut(object, "metadata"), "managedFields", entries);
    } else if !get(get(object, "metadata"), "managedFields").is_null() {
        remove(object_mut(object, "metadata"), "managedFields");
    }
}

impl Entries {
    /// Finds out what those own who have the rest, where what is written cannot be said otherwise: who has the rest of
    /// the status changes something else through that door.
    fn spell_for(
        &mut self,
        row: &Resource,
        old: &Value,
        writer: &Writer<'_>,
        change: &Comparison,
    ) -> bool {
        let manager = writer.manager(row, Operation::Update);
        let has_rest = self.place(&manager).is_some_and(|at| self.0[at].owned == Owned::Rest);
        let spells = has_rest && writer.part() == Part::Status && !is_of_status(&change.changed);
        if spells {
            self.spell_out(row, old);
        }
        spells
    }

    /// Gives the writer what it changed, and takes it from the others. Tells whether all entries are spelt out.
    fn take(
        &mut self,
        row: &Resource,
        new: &Value,
        writer: &Writer<'_>,
        change: Comparison,
    ) -> bool {
        let manager = writer.manager(row, Operation::Update);
        let Comparison { changed, removed } = change;
        for entry in &mut self.0 {
            if entry.manager != manager
                && let Owned::Fields(fields) = &mut entry.owned
            {
                fields.subtract(&changed);
                fields.subtract(&removed);
            }
        }
        let took = !changed.is_empty();
        match self.place(&manager) {
            Some(at) => {
                let entry = &mut self.0[at];
                if took {
                    entry.time = metadata_time(writer.now);
                }
                if let Owned::Fields(fields) = &mut entry.owned {
                    fields.subtract(&removed);
                    fields.add(changed);
                }
            }
            None if took => {
                // What the server itself put into a status goes to the first who writes it.
                let is_first = writer.part() == Part::Status
                    && is_of_status(&changed)
                    && !self.0.iter().any(Managed::has_of_status);
                let owned = if is_first { Owned::Rest } else { Owned::Fields(changed) };
                self.0.push(Managed { manager, time: metadata_time(writer.now), owned });
            }
            None => {}
        }
        self.drop_empty();
        let updaters = self.iter().filter(|entry| entry.manager.operation == Operation::Update);
        let is_over = updaters.count() > MOST_UPDATERS;
        if is_over {
            self.spell_out(row, new);
            self.merge_oldest();
        }
        is_over
    }

    /// Tells the oldest of too many managers that do not apply as one, for each version of the kind.
    fn merge_oldest(&mut self) {
        let mut updaters: Vec<Managed> = Vec::new();
        self.0.retain(|entry| {
            let is_updater = entry.manager.operation == Operation::Update;
            if is_updater {
                updaters.push(entry.clone());
            }
            !is_updater
        });
        updaters.sort_by(|a, b| (&a.time, &a.manager).cmp(&(&b.time, &b.manager)));
        let mut over = updaters.len().saturating_sub(MOST_UPDATERS);
        let mut buckets: HashMap<String, usize> = HashMap::new();
        let mut left: Vec<Managed> = Vec::with_capacity(updaters.len());
        for entry in updaters {
            let version = entry.manager.api_version.clone();
            match buckets.get(&version).copied().filter(|_| over > 0) {
                None => {
                    buckets.entry(version).or_insert(left.len());
                    left.push(entry);
                }
                Some(at) => {
                    let bucket = &mut left[at];
                    bucket.manager = Manager {
                        operation: Operation::Update,
                        name: ANCIENT.to_owned(),
                        api_version: version,
                        subresource: String::new(),
                    };
                    bucket.time = entry.time;
                    if let (Owned::Fields(all), Owned::Fields(fields)) =
                        (&mut bucket.owned, entry.owned)
                    {
                        all.add(fields);
                    }
                    over -= 1;
                }
            }
        }
        self.0.extend(left);
    }
}

impl Managed {
    fn has_of_status(&self) -> bool {
        match &self.owned {
            Owned::Rest => Part::of(&self.manager.subresource) == Part::Status,
            Owned::Fields(fields) => fields.at(&Step::field("status")).is_some(),
        }
    }
}

fn is_of_status(fields: &Fields) -> bool {
    fields.below.keys().all(|step| step.name() == Some("status"))
}
