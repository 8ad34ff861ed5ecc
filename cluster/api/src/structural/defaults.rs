//! Fills in what is not given, and takes a null for nothing where the schema does not allow one.

use super::node::{Additional, Node};
use serde_json::Value;

/// Fills in the defaults below a value.
pub fn fill(node: &Node, value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|name, value| match (node.properties.get(name), &node.additional) {
                (Some(property), _) => !property.drops_null(value),
                (None, Additional::Of(additional)) => {
                    !additional.drops_null(value) || additional.default.is_some()
                }
                _ => true,
            });
            for (name, property) in &node.properties {
                if let Some(default) = &property.default
                    && !map.contains_key(name)
                {
                    map.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in map.iter_mut() {
                if let Some(property) = node.properties.get(name) {
                    fill(property, value);
                } else if let Additional::Of(additional) = &node.additional {
                    fill_entry(additional, value);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = &node.items {
                for entry in list {
                    fill_entry(items, entry);
                }
            }
        }
        _ => {}
    }
}

/// An entry of a list or map: a null is replaced where there is something to replace it with.
fn fill_entry(node: &Node, value: &mut Value) {
    if node.drops_null(value)
        && let Some(default) = &node.default
    {
        *value = default.clone();
    }
    fill(node, value);
}
