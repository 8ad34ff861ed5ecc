//! Drops what a schema does not know.

use super::node::{Additional, Node};
use crate::schema;
use serde_json::{Map, Value};

/// Drops the unknown fields of an object. `whole` says that it is an object of the API itself, whose
/// type and metadata are known without a word of the schema.
pub fn prune(node: &Node, value: &mut Value, whole: bool) {
    match value {
        Value::Object(map) => prune_map(node, map, whole || node.embedded, whole),
        Value::Array(list) => {
            if let Some(items) = &node.items {
                for entry in list {
                    prune(items, entry, false);
                }
            }
        }
        _ => {}
    }
}

fn prune_map(node: &Node, map: &mut Map<String, Value>, is_resource: bool, whole: bool) {
    let implied = |name: &str| is_resource && matches!(name, "apiVersion" | "kind" | "metadata");
    if matches!(node.additional, Additional::None) && !node.preserve_unknown {
        map.retain(|name, _| implied(name) || node.properties.contains_key(name));
    }
    for (name, value) in map.iter_mut() {
        if is_resource && name == "metadata" {
            // The metadata of the object itself are those of every object, and are read as such.
            if !whole {
                prune_metadata(value);
            }
        } else if implied(name) {
            // Texts, about which there is nothing to drop.
        } else if let Some(property) = node.properties.get(name) {
            prune(property, value, false);
        } else if let Additional::Of(additional) = &node.additional {
            prune(additional, value, false);
        }
    }
}

fn prune_metadata(value: &mut Value) {
    let known = schema::message("apimachinery.pkg.apis.meta.v1.ObjectMeta");
    if let (Value::Object(map), Some(known)) = (value, known) {
        map.retain(|name, _| known.field(name).is_some());
    }
}
