//! What of a definition this program serves: the row of its kind.

use super::columns;
use super::definition::{Definition, Version};
use crate::cause::Cause;
use crate::dynamic::DynamicSchema;
use crate::field::{at, flag, list, object_mut, set, text};
use crate::resource::{Column, DefinedBy, FieldLabel, Resource, ScalePaths, Subresource, Text};
use crate::structural::Structural;
use crate::structural::node::Node;
use serde_json::{Value, json};
use std::sync::Arc;

/// What holds a definition that is deleted until its objects are gone.
pub const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

impl DynamicSchema for Structural {
    fn default(&self, object: &mut Value) {
        Structural::default(self, object);
    }

    fn prune(&self, object: &mut Value) {
        Structural::prune(self, object);
    }

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<Cause> {
        Structural::validate(self, new, old)
    }

    fn openapi(&self) -> Value {
        Structural::openapi(self)
    }

    fn openapi_v2(&self) -> Value {
        Structural::openapi_v2(self)
    }

    fn root(&self) -> Option<&Node> {
        Some(Structural::root(self))
    }
}

/// The row of the kind of a definition whose names were accepted, under these names: a definition may ask for others
/// by now, which somebody else has. None where none were accepted yet.
pub fn row(definition: &Value) -> Result<Option<Resource>, Vec<Cause>> {
    let accepted = at(definition, "status.acceptedNames");
    if text(accepted, "kind").is_empty() {
        return Ok(None);
    }
    let mut as_accepted = definition.clone();
    if let Some(spec) = as_accepted.get_mut("spec") {
        set(spec, "names", accepted.clone());
    }
    let parsed = Definition::parse(&as_accepted)?;
    let made_of = DefinedBy {
        name: text(definition, "metadata.name").to_owned(),
        uid: text(definition, "metadata.uid").to_owned(),
        generation: at(definition, "metadata.generation").as_u64().unwrap_or(1),
    };
    Ok(parsed
        .versions
        .iter()
        .find(|version| version.served)
        .map(|version| of(&parsed, version, made_of.clone())))
}

fn of(definition: &Definition, version: &Version, made_of: DefinedBy) -> Resource {
    let names = &definition.names;
    let texts = |all: &[String]| all.iter().cloned().map(Text::Owned).collect();
    let mut subresources = Vec::new();
    if version.has_status {
        subresources.push(Subresource::status(names.kind.clone()));
    }
    if version.scale.is_some() {
        subresources.push(Subresource::scale());
    }
    let printed = version.columns.clone();
    let key = [&definition.group, &version.name, &names.kind, &names.plural, &names.singular];
    Resource {
        short_names: texts(&names.short_names),
        categories: texts(&names.categories),
        namespaced: definition.namespaced,
        subresources,
        columns: std::iter::once(Column::name())
            .chain(version.columns.iter().map(column))
            .collect(),
        cells: Arc::new(move |object, now| columns::cells(&printed, object, now)),
        deprecated: version.deprecated.clone().into(),
        fields: version
            .selectable
            .iter()
            .map(|field| FieldLabel::new(field.label.clone(), field.pointer.clone()))
            .collect(),
        scale: version.scale.as_ref().map(|scale| ScalePaths {
            spec: scale.spec.clone().into(),
            status: scale.status.clone().into(),
            selector: scale.selector.clone().unwrap_or_default().into(),
        }),
        definition: Some(made_of),
        ..Resource::of_schema(key.map(Clone::clone), Arc::new(version.schema.clone()))
    }
}

fn column(column: &columns::Column) -> Column {
    Column {
        name: column.name.clone().into(),
        kind: column.kind.clone().into(),
        format: column.format.clone().into(),
        priority: u8::try_from(column.priority.max(0)).unwrap_or(u8::MAX),
        description: column.description.clone().into(),
    }
}

/// What the server itself decides about a new definition: nothing is accepted yet, and it is held until its objects
/// are gone.
pub fn begin(definition: &mut Value) {
    let stored: Vec<Value> = list(definition, "spec.versions")
        .iter()
        .filter(|version| flag(version, "storage"))
        .map(|version| text(version, "name").into())
        .collect();
    set(
        definition,
        "status",
        json!({
            "conditions": [],
            "acceptedNames": {"plural": "", "kind": ""},
            "storedVersions": stored,
        }),
    );
    hold(definition);
}

/// Sees to it that a definition outlives its objects.
pub fn hold(definition: &mut Value) {
    let held = list(definition, "metadata.finalizers").iter().any(|held| held == FINALIZER);
    if !held {
        let mut all = list(definition, "metadata.finalizers").to_vec();
        all.push(FINALIZER.into());
        set(object_mut(definition, "metadata"), "finalizers", all);
    }
}
