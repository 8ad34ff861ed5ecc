//! What a row of the catalog is: one row a kind, and everything that is known about the kind hangs on
//! it.
//!
//! Discovery, routes, tables, defaults, validation, field selectors and the command line all read
//! such rows. A row is made once and shared ([`Row`]); who asks for it clones the handle and not the row.

mod behaviour;
mod conversion;
mod effect;

pub use conversion::Conversion;
pub use effect::Effect;

pub use behaviour::{
    Allocate, Cells, DeletionRule, FillIn, PrepareCreate, PrepareUpdate, Rules, Validate,
    ValidateChange, Warn,
};

use crate::dynamic::{DynamicSchema, Schema};
use crate::field::text;
use crate::names;
use crate::status::{ResourceName, Status};
use crate::table;
use crate::wire::Target;
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// A word of a row: of the program, or owned by the row.
pub type Text = Cow<'static, str>;

/// A row as it is shared.
pub type Row = Arc<Resource>;

/// Words of the program.
pub fn words<const N: usize>(words: [&'static str; N]) -> Vec<Text> {
    words.map(Text::Borrowed).into()
}

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
#[derive(Debug, Clone)]
pub struct Subresource {
    /// The last part of the path.
    pub name: &'static str,
    /// What can be done with it.
    pub verbs: &'static [Verb],
    /// The kind that is read and written there.
    pub kind: Text,
    /// The group of that kind when it is not the resource's own, as `autoscaling` for scales.
    pub group: &'static str,
    /// The version of that kind when it is not the resource's own.
    pub version: &'static str,
}

impl Subresource {
    /// A subresource of the resource's own group and version.
    pub fn own(name: &'static str, verbs: &'static [Verb], kind: impl Into<Text>) -> Self {
        Self { name, verbs, kind: kind.into(), group: "", version: "" }
    }

    /// The status door of a kind.
    pub fn status(kind: impl Into<Text>) -> Self {
        Self::own("status", &[Verb::Get, Verb::Patch, Verb::Update], kind)
    }

    /// The scale door.
    pub fn scale() -> Self {
        Self {
            group: "autoscaling",
            version: "v1",
            ..Self::own("scale", &[Verb::Get, Verb::Patch, Verb::Update], "Scale")
        }
    }
}

/// Which state of a `CustomResourceDefinition` a row was made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefinedBy {
    /// Its name: plural and group.
    pub name: String,
    /// Which object of that name it was.
    pub uid: String,
    /// Which of its specs.
    pub generation: u64,
}

/// A column of the server-side table.
#[derive(Debug, Clone)]
pub struct Column {
    /// The heading.
    pub name: Text,
    /// The OpenAPI type of the cells.
    pub kind: Text,
    /// The OpenAPI format, `name` for the column that names the object.
    pub format: Text,
    /// 0: always shown; 1: with `-o wide`.
    pub priority: u8,
    /// What the column tells, for `kubectl` and people.
    pub description: Text,
}

impl Column {
    /// A column of text that is always shown.
    pub fn text(name: impl Into<Text>, description: impl Into<Text>) -> Self {
        Self {
            name: name.into(),
            kind: "string".into(),
            format: "".into(),
            priority: 0,
            description: description.into(),
        }
    }

    /// A column of numbers that is always shown.
    pub fn integer(name: impl Into<Text>, description: impl Into<Text>) -> Self {
        Self { kind: "integer".into(), ..Self::text(name, description) }
    }

    /// The same, shown with `-o wide` only.
    pub fn wide(self) -> Self {
        Self { priority: 1, ..self }
    }

    /// The column with the object's name.
    pub fn name() -> Self {
        Self {
            format: "name".into(),
            ..Self::text("Name", "The name, unique within its namespace and kind.")
        }
    }

    /// The column with the object's age.
    pub fn age() -> Self {
        Self::text("Age", "The time since the object was created.")
    }
}

/// A field that objects can be selected by.
#[derive(Debug, Clone)]
pub struct FieldLabel {
    /// How selectors call it, as `spec.nodeName`.
    pub label: Text,
    /// Where it is, as a JSON pointer.
    pub pointer: Text,
    /// What an object without the field counts as.
    pub absent: Text,
}

impl FieldLabel {
    /// A field that counts as the empty text where it is not given.
    pub fn new(label: impl Into<Text>, pointer: impl Into<Text>) -> Self {
        Self { label: label.into(), pointer: pointer.into(), absent: "".into() }
    }

    const fn of_program(label: &'static str, pointer: &'static str) -> Self {
        let absent = Text::Borrowed("");
        Self { label: Text::Borrowed(label), pointer: Text::Borrowed(pointer), absent }
    }

    /// The field's value as selectors compare it.
    pub fn value<'a>(&'a self, object: &'a Value) -> Cow<'a, str> {
        match object.pointer(&self.pointer) {
            None | Some(Value::Null) => self.absent.as_ref().into(),
            Some(Value::String(text)) => text.into(),
            Some(other) => other.to_string().into(),
        }
    }
}

/// Where the replica counts of a kind with a scale door are, as JSON pointers.
#[derive(Debug, Clone)]
pub struct ScalePaths {
    /// The wanted count.
    pub spec: Text,
    /// The counted one.
    pub status: Text,
    /// The selector: a map, a `LabelSelector`, or as text; empty where the kind has none.
    pub selector: Text,
}

/// Which of the kinds that had a name one after the other a row is of. The catalog counts them; those of the program
/// are the first of their names, and stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incarnation(pub(crate) u64);

/// One resource: a row of the table.
#[derive(Clone)]
pub struct Resource {
    /// The API group; empty for the core group.
    pub group: Text,
    /// The version within the group.
    pub version: Text,
    /// The kind, as `Pod`.
    pub kind: Text,
    /// The plural, which is the name in paths.
    pub plural: Text,
    /// The singular.
    pub singular: Text,
    /// Short names, as `po`.
    pub short_names: Vec<Text>,
    /// Categories, as `all`.
    pub categories: Vec<Text>,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// What can be done with it.
    pub verbs: &'static [Verb],
    /// Whether its objects are kept; of others what is posted is answered, and nothing is stored.
    pub is_kept: bool,
    /// The paths below its objects.
    pub subresources: Vec<Subresource>,
    /// What its objects look like.
    pub schema: Schema,
    /// The columns of its table.
    pub columns: Vec<Column>,
    /// The cells of one object, one a column.
    pub cells: Cells,
    /// What its rows say about an object besides, for clients that show it apart.
    pub row_conditions: Option<fn(&Value) -> Value>,
    /// What may be a name.
    pub name: names::Check,
    /// Whether `metadata.generation` counts changes of its spec.
    pub generation: bool,
    /// Whether it counts changes of the annotations as well, because they are copied to what the object owns.
    pub generation_of_annotations: bool,
    /// What everybody is told who reads or writes it; empty unless there is something better.
    pub deprecated: Text,
    /// What becomes of its objects besides being stored.
    pub effect: Effect,
    /// Whether replacing an object that is not there makes it.
    pub put_creates: bool,
    /// What of the metadata stays as it was through the status door: a field, or `field/entry` for one entry of it.
    pub status_keeps: &'static [&'static str],
    /// What its deletion leaves and answers.
    pub deletion: DeletionRule,
    /// The functions in which it differs.
    pub rules: Rules,
    /// What it can be selected by, besides name and namespace.
    pub fields: Vec<FieldLabel>,
    /// Where its scale door finds its counts.
    pub scale: Option<ScalePaths>,
    /// How its objects are kept, where that is in the words of another row.
    pub conversion: Option<Conversion>,
    /// Of which `CustomResourceDefinition` it was made: nothing is written by a row that is not of the present one, and
    /// nothing is created once that is being deleted.
    pub definition: Option<DefinedBy>,
    /// Which of the kinds that had this name it is: the catalog says so when it takes the row.
    pub incarnation: Incarnation,
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resource")
            .field("group", &self.group)
            .field("version", &self.version)
            .field("kind", &self.kind)
            .field("plural", &self.plural)
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

static NAME_FIELD: FieldLabel = FieldLabel::of_program("metadata.name", "/metadata/name");
static NAMESPACE_FIELD: FieldLabel =
    FieldLabel::of_program("metadata.namespace", "/metadata/namespace");

impl Resource {
    /// A row with the names alone of a kind of the program, whose message is in the schema tables under this dotted
    /// name; the rest is filled in with struct update syntax.
    pub(crate) fn named(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        plural: &'static str,
        singular: &'static str,
        schema: &str,
    ) -> Self {
        let names = [group, version, kind, plural, singular].map(Text::Borrowed);
        Self::bare(names, Schema::table(schema), Rules::plain())
    }

    /// A row of a kind that comes at run time, by its group, version, kind, plural and singular: its schema
    /// defaults, prunes and validates. The rest is filled in with struct update syntax.
    pub fn of_schema(names: [String; 5], schema: Arc<dyn DynamicSchema>) -> Self {
        let rules = Rules::of_schema(&schema);
        let row = Self::bare(names.map(Text::Owned), Schema::Structural(schema), rules);
        Self { generation: true, ..row }
    }

    fn bare(
        [group, version, kind, plural, singular]: [Text; 5],
        schema: Schema,
        rules: Rules,
    ) -> Self {
        Self {
            group,
            version,
            kind,
            plural,
            singular,
            short_names: Vec::new(),
            categories: Vec::new(),
            namespaced: true,
            verbs: ALL_VERBS,
            is_kept: true,
            subresources: Vec::new(),
            schema,
            columns: vec![Column::name(), Column::age()],
            cells: Arc::new(|object, now| vec![table::name(object), table::age(object, now)]),
            row_conditions: None,
            name: names::dns_subdomain,
            generation: false,
            generation_of_annotations: false,
            deprecated: "".into(),
            effect: Effect::Stored,
            put_creates: false,
            status_keeps: &[],
            deletion: DeletionRule::USUAL,
            rules,
            fields: Vec::new(),
            scale: None,
            conversion: None,
            definition: None,
            incarnation: Incarnation(0),
        }
    }

    /// `v1`, `batch/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.as_ref().to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The kind that its bodies are expected to be.
    pub fn target(&self) -> Target<'_> {
        let (group, version, kind) = (&*self.group, &*self.version, &*self.kind);
        Target { group, version, kind, looks: self.schema.looks() }
    }

    /// The subresource of a name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|subresource| subresource.name == name)
    }

    /// Whether Kubernetes itself defines the kind. The others are to it what a
    /// `CustomResourceDefinition` would define: no strategic merge, and a status door that takes
    /// the status alone.
    pub fn is_built_in(&self) -> bool {
        self.schema.message().is_some() && !self.group.ends_with("impresario.dev")
    }

    /// Whether the kind is the program's own, which is served for as long as the program runs.
    pub fn is_lasting(&self) -> bool {
        self.incarnation == Incarnation(0)
    }

    /// A new object of this row as it is kept.
    pub fn kept_first(&self, object: Value) -> Result<Value, Status> {
        let Some(conversion) = self.conversion else { return Ok(object) };
        let causes = (conversion.validate_create)(&object);
        if !causes.is_empty() {
            let name = text(&object, "metadata.name");
            return Err(Status::invalid(self, name, causes));
        }
        Ok((conversion.to_stored)(object))
    }

    /// An object of this row as it is kept.
    #[must_use]
    pub fn kept(&self, object: Value) -> Value {
        match self.conversion {
            Some(conversion) => (conversion.to_stored)(object),
            None => object,
        }
    }

    /// What is kept as an object of this row.
    #[must_use]
    pub fn told(&self, kept: Value) -> Value {
        match self.conversion {
            Some(conversion) => (conversion.from_stored)(kept),
            None => kept,
        }
    }

    /// Whether its objects are kept as they are told.
    pub fn is_as_kept(&self) -> bool {
        self.conversion.is_none()
    }

    /// What whoever writes an object is told, where it would be taken for a promise that nobody keeps yet.
    pub fn not_enforced(&self) -> Option<String> {
        let Effect::NotEnforced(what) = &self.effect else { return None };
        Some(format!("a {} is stored and not enforced yet: {what}", self.kind))
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
        Self { group: &resource.group, plural: &resource.plural, kind: &resource.kind }
    }
}

impl<'a> From<&'a Row> for ResourceName<'a> {
    fn from(resource: &'a Row) -> Self {
        Self::from(&**resource)
    }
}

/// The name of a resource in the registry: `pods`, `batch/jobs`. All versions of a kind have one.
pub fn resource_key(resource: &Resource) -> String {
    match &resource.conversion {
        Some(kept) => resource_key_of(kept.group, kept.plural),
        None => resource_key_of(&resource.group, &resource.plural),
    }
}

/// The name in the registry of the resource of this group, empty for the core, and plural.
pub fn resource_key_of(group: &str, plural: &str) -> String {
    if group.is_empty() { plural.to_owned() } else { format!("{group}/{plural}") }
}
