//! What a schema says of its values, as types for expressions.

use super::node::{Additional, Kind, ListType, Node};
use crate::cel::{Field, ListType as CelList, ObjectType, RESERVED, Type};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The types of what is directly below a node, as far as expressions can reach it.
#[derive(Default)]
pub struct Below {
    /// Of the properties.
    pub properties: BTreeMap<String, Type>,
    /// Of the entries of a list.
    pub items: Option<Type>,
    /// Of the entries of a map.
    pub additional: Option<Type>,
}

/// The type of a node; none where expressions cannot look into it.
pub fn declare(node: &Node, below: Below, whole: bool) -> Option<Type> {
    if node.int_or_string {
        return Some(Type::Dyn);
    }
    Some(match node.kind? {
        Kind::Boolean => Type::Bool,
        Kind::Integer => Type::Int,
        Kind::Number => Type::Double,
        Kind::String => match node.bounds.format.as_deref() {
            Some("byte") => Type::Bytes,
            Some("duration") => Type::Duration,
            Some("date" | "date-time" | "datetime") => Type::Timestamp,
            _ => Type::Text,
        },
        Kind::Array => {
            let unordered = matches!(node.list_type, Some(ListType::Set | ListType::Map));
            Type::List(Arc::new(CelList { element: below.items?, unordered }))
        }
        Kind::Object => match &node.additional {
            Additional::Of(_) => Type::map(Type::Text, below.additional?),
            Additional::Any => Type::map(Type::Text, Type::Dyn),
            Additional::None => object(below.properties, whole || node.embedded),
        },
    })
}

fn object(properties: BTreeMap<String, Type>, is_resource: bool) -> Type {
    let mut fields = BTreeMap::new();
    for (name, kind) in properties {
        if let Some(escaped) = escape(&name) {
            fields.insert(escaped, Field { json: name, kind });
        }
    }
    if is_resource {
        let named = |names: [&str; 2]| {
            names.map(|name| (name.to_owned(), Field { json: name.to_owned(), kind: Type::Text }))
        };
        fields.extend(named(["apiVersion", "kind"]));
        let metadata = ObjectType { fields: named(["name", "generateName"]).into() };
        let kind = Type::Object(Arc::new(metadata));
        fields.insert("metadata".to_owned(), Field { json: "metadata".to_owned(), kind });
    }
    Type::Object(Arc::new(ObjectType { fields }))
}

/// How expressions call a property; none where they cannot.
pub fn escape(name: &str) -> Option<String> {
    if RESERVED.contains(&name) {
        return Some(format!("__{name}__"));
    }
    let escaped = name
        .replace("__", "__underscores__")
        .replace('.', "__dot__")
        .replace('-', "__dash__")
        .replace('/', "__slash__");
    let begins = escaped.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let fits = escaped.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_');
    (begins && fits).then_some(escaped)
}
