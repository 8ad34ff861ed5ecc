//! What is the unit of ownership at a place of an object, by the schema of its kind.
//!
//! The same questions are answered by the tables of the kinds of the program and by the schemas that users define.
//! What no schema tells of (what `x-kubernetes-preserve-unknown-fields` lets in) is owned field by field, and its
//! lists as a whole.

use super::step::Step;
use crate::dynamic::Looks;
use crate::schema::{self, Cardinality, Field, FieldType, Message, Shape, Structure};
use crate::structural::node::{Additional, Kind, ListType, Node};
use serde_json::Value;
use std::sync::OnceLock;

/// The type of the value at a place.
#[derive(Clone, Copy)]
pub enum Type<'a> {
    /// A message of the tables.
    Message(&'static Message),
    /// All values of a field of one.
    Field(&'static Field),
    /// One value of such a field.
    Single(&'static Field),
    /// A whole object of a kind with a schema of its own.
    Root(&'a Node),
    /// A value in one.
    Node(&'a Node),
    /// Anything.
    Free,
    /// One value, whatever it holds.
    Leaf,
}

/// How what is in a value is owned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As one.
    Leaf,
    /// Field by field.
    Map,
    /// Entry by entry, by what the entries are.
    Set,
    /// Entry by entry, by their keys.
    Keyed,
}

impl<'a> Type<'a> {
    /// Whole objects of a kind.
    pub fn of(looks: Looks<'a>) -> Self {
        match looks {
            Looks::Table(message) => Self::Message(message),
            Looks::Structural(schema) => schema.root().map_or(Self::Free, Self::Root),
        }
    }

    /// How what is in this value is owned.
    pub fn form(self, value: &Value) -> Form {
        match self {
            Self::Message(message) => of_message(message),
            Self::Field(field) => match (field.cardinality, field.structure) {
                (_, Structure::Atomic) => Form::Leaf,
                (Cardinality::Single, _) => field.message().map_or(Form::Leaf, of_message),
                (Cardinality::Map, _) => Form::Map,
                (Cardinality::Repeated, Structure::Set) => Form::Set,
                (Cardinality::Repeated, Structure::Map) => Form::Keyed,
                (Cardinality::Repeated, _) => Form::Leaf,
            },
            Self::Single(field) => field.message().map_or(Form::Leaf, of_message),
            Self::Root(_) => Form::Map,
            Self::Node(node) => of_node(node, value),
            Self::Free if value.is_object() => Form::Map,
            Self::Free | Self::Leaf => Form::Leaf,
        }
    }

    /// The type of a member of a map, and whether the schema names it. `None` where it knows of no such member.
    pub fn member(self, name: &str) -> Option<(Self, bool)> {
        match self {
            Self::Message(message) => in_message(message, name),
            Self::Field(field) => match field.cardinality {
                Cardinality::Map => Some((Self::Single(field), false)),
                _ => in_message(field.message()?, name),
            },
            Self::Single(field) => in_message(field.message()?, name),
            Self::Root(node) => match name {
                "apiVersion" | "kind" => Some((Self::Leaf, true)),
                "metadata" => Some((Self::Message(metadata()?), true)),
                _ => in_node(node, name),
            },
            Self::Node(node) => in_node(node, name),
            Self::Free => Some((Self::Free, false)),
            Self::Leaf => None,
        }
    }

    /// The type of a list's entries.
    pub fn entry(self) -> Self {
        match self {
            Self::Field(field) => Self::Single(field),
            Self::Node(node) => node.items.as_deref().map_or(Self::Free, Self::Node),
            _ => Self::Free,
        }
    }

    /// The step to an entry of a list; `None` for one that has none of the keys.
    pub fn step(self, form: Form, entry: &Value) -> Option<Step> {
        static TCP: OnceLock<Value> = OnceLock::new();
        if form == Form::Set {
            return Some(Step::value(entry));
        }
        let mut keys: Vec<(&str, &Value)> = Vec::with_capacity(2);
        match self {
            Self::Field(field) => {
                for key in field.map_keys() {
                    let given = entry.get(key).filter(|given| !given.is_null());
                    // The one default that a key of the tables has.
                    let default = || (key == "protocol").then(|| TCP.get_or_init(|| "TCP".into()));
                    keys.extend(given.or_else(default).map(|value| (key, value)));
                }
            }
            Self::Node(node) => {
                let items = node.items.as_deref();
                for key in &node.list_keys {
                    let given = entry.get(key).filter(|given| !given.is_null());
                    let default = || items?.properties.get(key)?.default.as_ref();
                    keys.extend(given.or_else(default).map(|value| (&**key, value)));
                }
            }
            _ => {}
        }
        keys.sort_by_key(|(key, _)| *key);
        keys.retain(|(_, value)| !value.is_object() && !value.is_array());
        (!keys.is_empty()).then(|| Step::keys(keys))
    }

    /// The keys of the entries of a list, for people.
    pub fn key_names(self) -> Vec<&'a str> {
        match self {
            Self::Field(field) => field.map_keys().collect(),
            Self::Node(node) => node.list_keys.iter().map(String::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// What stands in the place of a member that is not given, to who writes the objects of the tables in Go: the parts
    /// of a struct are there, with nothing in them, and so are lists that must be given.
    pub(super) fn absent(self, name: &str) -> Option<&'static Value> {
        static EMPTY: OnceLock<Value> = OnceLock::new();
        static NULL: Value = Value::Null;
        let message = match self {
            Self::Message(message) => message,
            Self::Field(field) if field.cardinality != Cardinality::Map => field.message()?,
            Self::Single(field) => field.message()?,
            _ => return None,
        };
        let field = field(message, name)?;
        if field.cardinality != Cardinality::Single {
            return field.required.then_some(&NULL);
        }
        let is_part = match name {
            "metadata" | "spec" | "status" | "strategy" | "updateStrategy" | "jobTemplate" => true,
            "template" => field.required,
            "resources" => message.go_name() != "PodSpec",
            _ => false,
        };
        let is_struct = field.message().is_some_and(|message| message.shape == Shape::Object);
        (is_part && is_struct).then(|| EMPTY.get_or_init(|| serde_json::json!({})))
    }
}

fn metadata() -> Option<&'static Message> {
    static METADATA: OnceLock<Option<&'static Message>> = OnceLock::new();
    *METADATA.get_or_init(|| schema::message("apimachinery.pkg.apis.meta.v1.ObjectMeta"))
}

fn of_message(message: &'static Message) -> Form {
    if message.atomic || message.shape != Shape::Object { Form::Leaf } else { Form::Map }
}

/// The field of this name, also of what is embedded.
fn field(message: &'static Message, name: &str) -> Option<&'static Field> {
    message.fields.iter().find(|field| !field.inline && field.name == name).or_else(|| {
        let embedded = message.fields.iter().filter(|field| field.inline);
        embedded.filter_map(Field::message).find_map(|message| self::field(message, name))
    })
}

fn in_message(message: &'static Message, name: &str) -> Option<(Type<'static>, bool)> {
    if let Some(field) = field(message, name) {
        let is_plain = field.cardinality == Cardinality::Single
            && !matches!(field.kind, FieldType::Message(_));
        return Some((if is_plain { Type::Leaf } else { Type::Field(field) }, true));
    }
    (matches!(name, "apiVersion" | "kind") && message.is_kind()).then_some((Type::Leaf, true))
}

fn of_node(node: &Node, value: &Value) -> Form {
    if node.int_or_string {
        return Form::Leaf;
    }
    match node.kind {
        Some(Kind::Object) if node.granular == Some(false) => Form::Leaf,
        Some(Kind::Object) => Form::Map,
        Some(Kind::Array) => match node.list_type {
            Some(ListType::Map) => Form::Keyed,
            Some(ListType::Set) => Form::Set,
            Some(ListType::Atomic) | None => Form::Leaf,
        },
        None if node.preserve_unknown => Type::Free.form(value),
        _ => Form::Leaf,
    }
}

fn in_node<'a>(node: &'a Node, name: &str) -> Option<(Type<'a>, bool)> {
    if let Some(property) = node.properties.get(name) {
        return Some((Type::Node(property), true));
    }
    if node.embedded {
        match name {
            "apiVersion" | "kind" => return Some((Type::Leaf, true)),
            "metadata" => return Some((Type::Message(metadata()?), true)),
            _ => {}
        }
    }
    match &node.additional {
        Additional::Of(values) => Some((Type::Node(values), false)),
        Additional::Any => Some((Type::Free, false)),
        Additional::None => node.preserve_unknown.then_some((Type::Free, false)),
    }
}
