//! The entries of `metadata.managedFields`: how they are kept, and how they are told.
//!
//! Most objects are made by one writer and owned by it, but for what a second one says of their status. So an entry may
//! be kept without its fields: it has *the rest*, all that is in the object, in its part, and that no other entry has.
//! What the fields are is found out when somebody asks, or when something happens that cannot be said so. An entry of the
//! rest is a tenth as large as its fields, and needs no look at the object when this is created or changed.

use super::compare::{Comparison, compare};
use super::fields::{Fields, FieldsError};
use super::step::Step;
use super::typed::Type;
use crate::resource::Resource;
use serde::Serialize;
use serde_json::{Map, Value};
use thiserror::Error;

/// The most entries that are read of what somebody sends.
pub const MOST_ENTRIES: usize = 1_000;
/// The longest name of a manager, in bytes.
pub const LONGEST_MANAGER: usize = 128;

/// Why entries that somebody sent are not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EntriesError {
    /// There are too many.
    #[error("Too many: {0}: must have at most {MOST_ENTRIES} items")]
    TooMany(usize),
    /// One is not what it should be.
    #[error("Invalid value: {value:?}: {why}")]
    Entry {
        /// Which one.
        index: usize,
        /// Of which field.
        field: &'static str,
        /// What stands there.
        value: String,
        /// What should.
        why: String,
    },
    /// The fields of one cannot be read.
    #[error("Invalid value: {why}")]
    Fields {
        /// Which one.
        index: usize,
        /// Why.
        why: FieldsError,
    },
}

impl EntriesError {
    /// Where that is, as causes name it.
    pub fn field(&self) -> String {
        match self {
            Self::TooMany(_) => "metadata.managedFields".to_owned(),
            Self::Entry { index, field, .. } => format!("metadata.managedFields[{index}].{field}"),
            Self::Fields { index, .. } => format!("metadata.managedFields[{index}].fieldsV1"),
        }
    }
}

/// In which way a manager owns its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// It applied them.
    Apply,
    /// It wrote them in another way.
    Update,
}

impl Operation {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// Who owns fields. Two entries never have the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Manager {
    /// How it owns them.
    pub operation: Operation,
    /// Its name.
    pub name: String,
    /// In which version of the kind it wrote them.
    pub api_version: String,
    /// Through which door; empty for the main one.
    pub subresource: String,
}

/// What a manager owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owned {
    /// These.
    Fields(Fields),
    /// All in its part of the object that no other entry has.
    Rest,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Managed {
    /// Whose it is.
    pub manager: Manager,
    /// When it last took anything, as metadata tells times.
    pub time: String,
    /// What is owned.
    pub owned: Owned,
}

impl Managed {
    /// The fields, where they are said.
    pub fn fields(&self) -> Option<&Fields> {
        match &self.owned {
            Owned::Fields(fields) => Some(fields),
            Owned::Rest => None,
        }
    }

    fn to_stored(&self, row: &Resource) -> Value {
        let mut entry = Map::new();
        entry.insert("manager".into(), self.manager.name.as_str().into());
        entry.insert("operation".into(), self.manager.operation.as_str().into());
        if !self.manager.subresource.is_empty() {
            entry.insert("subresource".into(), self.manager.subresource.as_str().into());
        }
        if !self.time.is_empty() {
            entry.insert("time".into(), self.time.as_str().into());
        }
        if self.manager.api_version != row.api_version() {
            entry.insert("apiVersion".into(), self.manager.api_version.as_str().into());
        }
        if let Owned::Fields(fields) = &self.owned {
            entry.insert("fieldsV1".into(), fields.to_value());
        }
        entry.into()
    }
}

/// All entries of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entries(pub(super) Vec<Managed>);

/// What stands in the metadata of an object; nothing where there is none.
pub fn kept(object: &Value) -> &[Value] {
    let kept = object.get("metadata").and_then(|metadata| metadata.get("managedFields"));
    kept.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Whether these say that nobody owns anything any more.
pub fn is_reset(given: &[Value]) -> bool {
    matches!(given, [Value::Object(entry)] if entry.is_empty())
}

/// Whether these are in the form in which entries are kept: somebody wrote an object back as it lies in the store.
pub fn is_short(given: &[Value]) -> bool {
    given.iter().any(|entry| entry.get("fieldsType").is_none())
}

impl Entries {
    /// Reads the entries that an object is kept with: what a server wrote.
    pub fn kept(row: &Resource, object: &Value) -> Self {
        let read = |entry: &Value| {
            let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
            let version = Some(text("apiVersion")).filter(|version| !version.is_empty());
            let operation =
                if text("operation") == "Apply" { Operation::Apply } else { Operation::Update };
            let fields = entry.get("fieldsV1");
            Managed {
                manager: Manager {
                    operation,
                    name: text("manager").to_owned(),
                    api_version: version.map_or_else(|| row.api_version(), ToOwned::to_owned),
                    subresource: text("subresource").to_owned(),
                },
                time: text("time").to_owned(),
                // What cannot be read was not written here, and is not owned.
                owned: fields.map_or(Owned::Rest, |fields| {
                    Owned::Fields(Fields::parse(fields).unwrap_or_default())
                }),
            }
        };
        Self(kept(object).iter().map(read).collect())
    }

    /// Reads the entries that somebody sends, all of whose fields are said.
    pub fn given(given: &[Value]) -> Result<Self, EntriesError> {
        if given.len() > MOST_ENTRIES {
            return Err(EntriesError::TooMany(given.len()));
        }
        let mut entries: Vec<Managed> = Vec::with_capacity(given.len());
        for (index, entry) in given.iter().enumerate() {
            let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
            let wrong = |field: &'static str, why: String| {
                Err(EntriesError::Entry {
                    index,
                    field,
                    value: text(field).chars().take(200).collect(),
                    why,
                })
            };
            let operation = match text("operation") {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return wrong("operation", "must be `Apply` or `Update`".to_owned()),
            };
            if text("fieldsType") != "FieldsV1" {
                return wrong("fieldsType", "must be `FieldsV1`".to_owned());
            }
            if text("manager").len() > LONGEST_MANAGER {
                let why = format!("Too long: may not be more than {LONGEST_MANAGER} bytes");
                return wrong("manager", why);
            }
            let fields = entry.get("fieldsV1").filter(|fields| !fields.is_null());
            let fields = fields.map_or(Ok(Fields::default()), Fields::parse);
            let fields = fields.map_err(|why| EntriesError::Fields { index, why })?;
            let manager = Manager {
                operation,
                name: text("manager").to_owned(),
                api_version: text("apiVersion").to_owned(),
                subresource: text("subresource").to_owned(),
            };
            let (time, owned) = (text("time").to_owned(), Owned::Fields(fields));
            entries.retain(|other| other.manager != manager);
            entries.push(Managed { manager, time, owned });
        }
        let mut entries = Self(entries);
        entries.drop_empty();
        Ok(entries)
    }

    /// Whether nobody owns anything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every entry.
    pub fn iter(&self) -> impl Iterator<Item = &Managed> {
        self.0.iter()
    }

    pub(super) fn place(&self, manager: &Manager) -> Option<usize> {
        self.0.iter().position(|entry| entry.manager == *manager)
    }

    /// Managers that own nothing are not told.
    pub(super) fn drop_empty(&mut self) {
        self.0.retain(|entry| entry.fields().is_none_or(|fields| !fields.is_empty()));
    }

    /// Finds out what those own who have the rest.
    pub(super) fn spell_out(&mut self, row: &Resource, object: &Value) {
        for at in 0..self.0.len() {
            if self.0[at].owned == Owned::Rest {
                let part = Part::of(&self.0[at].manager.subresource);
                let rest = self.rest(row, object, part, at);
                self.0[at].owned = Owned::Fields(rest);
            }
        }
        self.drop_empty();
    }

    /// What is in a part of the object and no entry but this one has.
    fn rest(&self, row: &Resource, object: &Value, part: Part, at: usize) -> Fields {
        let mut rest = part.all(row, object);
        for (other, entry) in self.0.iter().enumerate() {
            if let (true, Some(fields)) = (other != at, entry.fields()) {
                rest.subtract(fields);
            }
        }
        rest
    }

    /// The entries as they are kept, in Kubernetes' order. One that has the rest, of each part of the object, is kept
    /// without its fields.
    pub(super) fn to_kept(&self, row: &Resource, object: &Value) -> Value {
        /// So few fields are said as shortly as that they are the rest.
        const FEW: usize = 6;
        let mut entries = self.clone();
        entries.sort();
        for part in [Part::Main, Part::Status] {
            let largest =
                |(_, entry): &(usize, &Managed)| entry.fields().map_or(usize::MAX, Fields::len);
            let candidate = entries.0.iter().enumerate().filter(|(_, entry)| {
                entry.manager.operation == Operation::Update
                    && entry.manager.subresource == part.subresource()
                    && entry.manager.api_version == row.api_version()
            });
            let Some((at, entry)) = candidate.max_by_key(largest) else { continue };
            let Some(fields) = entry.fields() else { continue };
            if fields.len() > FEW && *fields == entries.rest(row, object, part, at) {
                entries.0[at].owned = Owned::Rest;
            }
        }
        entries.0.iter().map(|entry| entry.to_stored(row)).collect()
    }

    /// As they are kept, where whoever has the rest is known.
    pub(super) fn as_kept(&mut self, row: &Resource) -> Value {
        self.sort();
        self.0.iter().map(|entry| entry.to_stored(row)).collect()
    }

    pub(super) fn sort(&mut self) {
        self.0.sort_by(|a, b| {
            let order = |entry: &Managed| (entry.manager.operation, entry.time.clone());
            order(a).cmp(&order(b)).then_with(|| a.manager.cmp(&b.manager))
        });
    }

    /// As clients are told them, once all is spelt out.
    pub(super) fn to_told(&self) -> Vec<Told<'_>> {
        self.0.iter().filter_map(Told::of).collect()
    }
}

/// An entry as clients are told it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Told<'a> {
    manager: &'a str,
    operation: &'static str,
    api_version: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    time: &'a str,
    fields_type: &'static str,
    #[serde(rename = "fieldsV1")]
    fields: &'a Fields,
    #[serde(skip_serializing_if = "str::is_empty")]
    subresource: &'a str,
}

impl<'a> Told<'a> {
    fn of(entry: &'a Managed) -> Option<Self> {
        let manager = &entry.manager;
        Some(Self {
            manager: &manager.name,
            operation: manager.operation.as_str(),
            api_version: &manager.api_version,
            time: &entry.time,
            fields_type: "FieldsV1",
            fields: entry.fields()?,
            subresource: &manager.subresource,
        })
    }
}

/// Which part of an object is written through a door, and owned by who writes there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// All but the status, where that has a door of its own.
    Main,
    /// The status, and of built-in kinds the metadata.
    Status,
}

impl Part {
    pub(super) fn of(subresource: &str) -> Self {
        if subresource == "status" { Self::Status } else { Self::Main }
    }

    pub(super) fn subresource(self) -> &'static str {
        match self {
            Self::Main => "",
            Self::Status => "status",
        }
    }

    /// Whether a field of the whole object is written through this door.
    fn has(self, row: &Resource, name: &str) -> bool {
        match (self, name) {
            (Self::Main, "status") => !row.has_status_door(),
            (Self::Main, _) | (Self::Status, "status") => true,
            (Self::Status, "metadata") => row.is_built_in(),
            (Self::Status, _) => false,
        }
    }

    /// Takes out what is not owned by who writes here: the other part, and what the server sets.
    pub(super) fn narrow(self, row: &Resource, fields: &mut Fields) {
        fields.below.retain(|step, _| step.name().is_some_and(|name| self.has(row, name)));
        if self == Self::Status
            && let Some(metadata) = fields.below.get_mut(&Step::field("metadata"))
        {
            // What of the metadata is not taken through this door is not owned through it.
            for field in row.status_keeps {
                metadata.below.remove(&Step::field(field));
            }
        }
        strip(fields);
    }

    /// What a write through this door changed.
    pub(super) fn compare(self, row: &Resource, old: &Value, new: &Value) -> Comparison {
        let of = Type::of(row.schema.looks());
        let mut found = Comparison::default();
        let is_new = |name: &&String| old.get(name.as_str()).is_none();
        for name in names(old).chain(names(new).filter(is_new)) {
            if self.has(row, name) {
                let (inside, _) = of.member(name).unwrap_or((Type::Free, false));
                let absent = of.absent(name);
                let (old, new) = (old.get(name).or(absent), new.get(name).or(absent));
                found.put(Step::field(name), compare(inside, old, new));
            }
        }
        strip(&mut found.changed);
        strip(&mut found.removed);
        found
    }

    /// All that an entry of the rest may have: of the status alone, where that is the part.
    pub(super) fn all(self, row: &Resource, object: &Value) -> Fields {
        let mut all = self.written(row, object);
        if self == Self::Status {
            all.below.retain(|step, _| step.name() == Some("status"));
        }
        all
    }

    /// Everything that whoever wrote all of this part of an object owns.
    pub(super) fn written(self, row: &Resource, object: &Value) -> Fields {
        self.compare(row, &Value::Null, object).changed
    }
}

fn names(value: &Value) -> impl Iterator<Item = &String> {
    value.as_object().map(Map::keys).into_iter().flatten()
}

/// Nobody owns what the server itself says of an object.
fn strip(fields: &mut Fields) {
    const SERVERS: [&str; 7] = [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "generation",
        "resourceVersion",
    ];
    for name in ["apiVersion", "kind"] {
        fields.below.remove(&Step::field(name));
    }
    let step = Step::field("metadata");
    if let Some(metadata) = fields.below.get_mut(&step) {
        metadata.here = false;
        for name in SERVERS.into_iter().chain(["managedFields"]) {
            metadata.below.remove(&Step::field(name));
        }
        if metadata.is_empty() {
            fields.below.remove(&step);
        }
    }
}
