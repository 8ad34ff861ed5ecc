//! What a row of the catalog is: one row a kind, and everything that is known about the kind hangs on
//! it.
//!
//! Discovery, routes, tables, defaults, validation, field selectors and the command line all read
//! such rows.

use crate::cause::Cause;
use crate::context::Context;
use crate::names;
use crate::status::{ResourceName, Status};
use crate::table;
use jiff::Timestamp;
use serde_json::Value;
use std::borrow::Cow;

/// What can be done with a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names say it all
pub enum Verb {
    Create,
    Delete,
    DeleteCollection,
    Get,
    List,
    Patch,
    Update,
    Watch,
}

impl Verb {
    /// The word in discovery.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Get => "get",
            Self::List => "list",
            Self::Patch => "patch",
            Self::Update => "update",
            Self::Watch => "watch",
        }
    }
}

/// All verbs, as most resources have them.
pub const ALL_VERBS: &[Verb] = &[
    Verb::Create,
    Verb::Delete,
    Verb::DeleteCollection,
    Verb::Get,
    Verb::List,
    Verb::Patch,
    Verb::Update,
    Verb::Watch,
];

/// All verbs but the deletion of a collection, as namespaces have them.
pub const NO_COLLECTION_DELETE: &[Verb] =
    &[Verb::Create, Verb::Delete, Verb::Get, Verb::List, Verb::Patch, Verb::Update, Verb::Watch];

/// A path below an object that has its own verbs.
#[derive(Debug, Clone, Copy)]
pub struct Subresource {
    /// The last part of the path.
    pub name: &'static str,
    /// What can be done with it.
    pub verbs: &'static [Verb],
    /// The kind that is read and written there.
    pub kind: &'static str,
    /// The group of that kind when it is not the resource's own, as `autoscaling` for scales.
    pub group: &'static str,
    /// The version of that kind when it is not the resource's own.
    pub version: &'static str,
}

impl Subresource {
    /// A subresource of the resource's own group and version.
    pub const fn own(name: &'static str, verbs: &'static [Verb], kind: &'static str) -> Self {
        Self { name, verbs, kind, group: "", version: "" }
    }

    /// The status door of a kind.
    pub const fn status(kind: &'static str) -> Self {
        Self::own("status", &[Verb::Get, Verb::Patch, Verb::Update], kind)
    }

    /// The scale door.
    pub const fn scale() -> Self {
        Self {
            group: "autoscaling",
            version: "v1",
            ..Self::own("scale", &[Verb::Get, Verb::Patch, Verb::Update], "Scale")
        }
    }
}

/// A column of the server-side table.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// The heading.
    pub name: &'static str,
    /// The OpenAPI type of the cells.
    pub kind: &'static str,
    /// The OpenAPI format, `name` for the column that names the object.
    pub format: &'static str,
    /// 0: always shown; 1: with `-o wide`.
    pub priority: u8,
    /// What the column tells, for `kubectl` and people.
    pub description: &'static str,
}

impl Column {
    /// A column of text that is always shown.
    pub const fn text(name: &'static str, description: &'static str) -> Self {
        Self { name, kind: "string", format: "", priority: 0, description }
    }

    /// A column of numbers that is always shown.
    pub const fn integer(name: &'static str, description: &'static str) -> Self {
        Self { kind: "integer", ..Self::text(name, description) }
    }

    /// The same, shown with `-o wide` only.
    pub const fn wide(self) -> Self {
        Self { priority: 1, ..self }
    }

    /// The column with the object's name.
    pub const fn name() -> Self {
        Self {
            format: "name",
            ..Self::text("Name", "The name, unique within its namespace and kind.")
        }
    }

    /// The column with the object's age.
    pub const fn age() -> Self {
        Self::text("Age", "The time since the object was created.")
    }
}

/// A field that objects can be selected by.
#[derive(Debug, Clone, Copy)]
pub struct FieldLabel {
    /// How selectors call it, as `spec.nodeName`.
    pub label: &'static str,
    /// Where it is, as a JSON pointer.
    pub pointer: &'static str,
    /// What an object without the field counts as.
    pub absent: &'static str,
}

impl FieldLabel {
    /// A field that counts as the empty text where it is not given.
    pub const fn new(label: &'static str, pointer: &'static str) -> Self {
        Self { label, pointer, absent: "" }
    }

    /// The field's value as selectors compare it.
    pub fn value<'a>(&self, object: &'a Value) -> Cow<'a, str> {
        match object.pointer(self.pointer) {
            None | Some(Value::Null) => self.absent.into(),
            Some(Value::String(text)) => text.into(),
            Some(other) => other.to_string().into(),
        }
    }
}

/// Draws values for an object (the new one, the old one if it is a change).
pub type Allocate = fn(&mut Value, Option<&Value>, &Context<'_>) -> Result<(), Vec<Cause>>;

/// The functions in which kinds differ. [`Rules::PLAIN`] is a kind without any.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Fills in what is not given; must be idempotent.
    pub default: fn(&mut Value),
    /// What the server itself decides about a new object, before it is validated.
    pub prepare_create: fn(&mut Value, &Context<'_>) -> Result<(), Status>,
    /// What the server itself decides about a changed object, before it is validated.
    pub prepare_update: fn(&mut Value, &Value, &Context<'_>) -> Result<(), Status>,
    /// What is wrong with a new object, its metadata aside.
    pub validate: fn(&Value) -> Vec<Cause>,
    /// What is wrong with a change (new, old), its metadata aside.
    pub validate_update: fn(&Value, &Value) -> Vec<Cause>,
    /// What is wrong with a change through the status door (new, old).
    pub validate_status: fn(&Value, &Value) -> Vec<Cause>,
    /// Draws values from the cluster's ranges for an object found valid (new, old if it is a change).
    pub allocate: Allocate,
    /// What the writer should know although nothing is wrong.
    pub warnings: fn(&Value) -> Vec<String>,
}

impl Rules {
    /// No defaults, nothing forbidden but what metadata forbids.
    pub const PLAIN: Self = Self {
        default: |_| {},
        prepare_create: |_, _| Ok(()),
        prepare_update: |_, _, _| Ok(()),
        validate: |_| Vec::new(),
        validate_update: |_, _| Vec::new(),
        validate_status: |_, _| Vec::new(),
        allocate: |_, _, _| Ok(()),
        warnings: |_| Vec::new(),
    };
}

/// Where the replica counts of a kind with a scale door are, as JSON pointers.
#[derive(Debug, Clone, Copy)]
pub struct ScalePaths {
    /// The wanted count.
    pub spec: &'static str,
    /// The counted one.
    pub status: &'static str,
    /// The selector, a map or a `LabelSelector`.
    pub selector: &'static str,
}

/// How the deletion of a kind's objects differs from the usual.
#[derive(Debug, Clone, Copy)]
pub struct DeletionRule {
    /// Whether the answer is the object even when it is gone at once; else it is a Status then.
    pub answers_object: bool,
    /// Whether what it owns is left alone where the caller does not say otherwise.
    pub orphans: bool,
    /// Seconds that an object gets to end, unless the caller says how many; none for one that needs no time.
    pub grace: fn(&Value) -> Option<i64>,
    /// What is written on an object that is marked as deleted, besides its metadata.
    pub mark: fn(&mut Value),
    /// Whether more than the finalizers of its metadata hold an object that is deleted.
    pub is_held: fn(&Value) -> bool,
}

impl DeletionRule {
    /// A Status where it is gone; what it owns goes too; it goes at once.
    pub const USUAL: Self = Self {
        answers_object: false,
        orphans: false,
        grace: |_| None,
        mark: |_| {},
        is_held: |_| false,
    };
    /// The answer is the object itself, in any case.
    pub const ANSWERS_OBJECT: Self = Self { answers_object: true, ..Self::USUAL };
    /// What it owns stays unless the caller says otherwise: how the oldest kinds began.
    pub const ORPHANS: Self = Self { orphans: true, ..Self::USUAL };
}

/// One resource: a row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Resource {
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// The version within the group.
    pub version: &'static str,
    /// The kind, as `Pod`.
    pub kind: &'static str,
    /// The plural, which is the name in paths.
    pub plural: &'static str,
    /// The singular.
    pub singular: &'static str,
    /// Short names, as `po`.
    pub short_names: &'static [&'static str],
    /// Categories, as `all`.
    pub categories: &'static [&'static str],
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// What can be done with it.
    pub verbs: &'static [Verb],
    /// The paths below its objects.
    pub subresources: &'static [Subresource],
    /// The dotted name of its message in the schema tables.
    pub schema: &'static str,
    /// The columns of its table.
    pub columns: &'static [Column],
    /// The cells of one object, one a column.
    pub cells: fn(&Value, Timestamp) -> Vec<Value>,
    /// What its rows say about an object besides, for clients that show it apart.
    pub row_conditions: Option<fn(&Value) -> Value>,
    /// What may be a name.
    pub name: names::Check,
    /// Whether `metadata.generation` counts changes of its spec.
    pub generation: bool,
    /// Whether it counts changes of the annotations as well, because they are copied to what the object owns.
    pub generation_of_annotations: bool,
    /// What everybody is told who reads or writes it; empty unless there is something better.
    pub deprecated: &'static str,
    /// Whether replacing an object that is not there makes it.
    pub put_creates: bool,
    /// What of the metadata stays as it was through the status door: a field, or `field/entry` for one entry of it.
    pub status_keeps: &'static [&'static str],
    /// What its deletion leaves and answers.
    pub deletion: DeletionRule,
    /// The functions in which it differs.
    pub rules: Rules,
    /// What it can be selected by, besides name and namespace.
    pub fields: &'static [FieldLabel],
    /// Where its scale door finds its counts.
    pub scale: Option<ScalePaths>,
}

const PLAIN_COLUMNS: &[Column] = &[Column::name(), Column::age()];
const NAME_FIELD: FieldLabel = FieldLabel::new("metadata.name", "/metadata/name");
const NAMESPACE_FIELD: FieldLabel = FieldLabel::new("metadata.namespace", "/metadata/namespace");

impl Resource {
    /// A row with a kind's names alone; the rest is filled in with struct update syntax.
    pub const fn named(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        plural: &'static str,
        singular: &'static str,
        schema: &'static str,
    ) -> Self {
        Self {
            group,
            version,
            kind,
            plural,
            singular,
            short_names: &[],
            categories: &[],
            namespaced: true,
            verbs: ALL_VERBS,
            subresources: &[],
            schema,
            columns: PLAIN_COLUMNS,
            cells: |object, now| vec![table::name(object), table::age(object, now)],
            row_conditions: None,
            name: names::dns_subdomain,
            generation: false,
            generation_of_annotations: false,
            deprecated: "",
            put_creates: false,
            status_keeps: &[],
            deletion: DeletionRule::USUAL,
            rules: Rules::PLAIN,
            fields: &[],
            scale: None,
        }
    }

    /// `v1`, `batch/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The subresource of a name.
    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|subresource| subresource.name == name)
    }

    /// Whether Kubernetes itself defines the kind. The others are to it what a
    /// `CustomResourceDefinition` would define: no strategic merge, and a status door that takes
    /// the status alone.
    pub fn is_built_in(&self) -> bool {
        !self.group.ends_with("impresario.dev")
    }

    /// Whether status and spec have doors of their own.
    pub fn has_status_door(&self) -> bool {
        self.subresource("status").is_some()
    }

    /// The field that selectors call by this label.
    pub fn field(&self, label: &str) -> Option<&FieldLabel> {
        match label {
            "metadata.name" => Some(&NAME_FIELD),
            "metadata.namespace" if self.namespaced => Some(&NAMESPACE_FIELD),
            _ => self.fields.iter().find(|field| field.label == label),
        }
    }
}

impl<'a> From<&'a Resource> for ResourceName<'a> {
    fn from(resource: &'a Resource) -> Self {
        Self { group: resource.group, plural: resource.plural, kind: resource.kind }
    }
}

/// The name of a resource in the registry: `pods`, `batch/jobs`.
pub fn resource_key(resource: &Resource) -> String {
    resource_key_of(resource.group, resource.plural)
}

/// The name in the registry of the resource of this group, empty for the core, and plural.
pub fn resource_key_of(group: &str, plural: &str) -> String {
    if group.is_empty() { plural.to_owned() } else { format!("{group}/{plural}") }
}
