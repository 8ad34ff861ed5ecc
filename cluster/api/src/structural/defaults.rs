//! Fills in what is not given, and takes a null for nothing where the schema does not allow one.

use super::node::{Additional, Node};
use serde_json::Value;

/// What defaults may add to one object, in bytes of about its JSON: more than an object may be. A
/// default is copied into each entry of a list, so a small object and a small schema ask for any
/// amount together.
pub const MAX_FILLED: usize = 2 * 1024 * 1024;

/// Fills in the defaults below a value, where they fit into the room that is left, which they take.
/// Where they do not fit, nothing is filled in.
#[must_use]
pub fn fill(node: &Node, value: &mut Value, room: &mut usize) -> bool {
    if owed(node, value, room).is_none() {
        return false;
    }
    copy(node, value);
    true
}

/// Takes the room of the defaults that are missing below a value; none where there is not enough.
pub fn owed(node: &Node, value: &Value, room: &mut usize) -> Option<()> {
    match value {
        Value::Object(map) => {
            for (name, property) in &node.properties {
                let given = map.get(name).filter(|given| !property.drops_null(given));
                if let (None, Some(default)) = (given, &property.default) {
                    take(room, name.len() + 4)?;
                    size(default, room)?;
                    owed(property, default, room)?;
                }
            }
            for (name, value) in map {
                if let Some(property) = node.properties.get(name) {
                    owed(property, value, room)?;
                } else if let Additional::Of(additional) = &node.additional {
                    owed_entry(additional, value, room)?;
                }
            }
            Some(())
        }
        Value::Array(list) => match &node.items {
            Some(items) => list.iter().try_for_each(|entry| owed_entry(items, entry, room)),
            None => Some(()),
        },
        _ => Some(()),
    }
}

fn owed_entry(node: &Node, value: &Value, room: &mut usize) -> Option<()> {
    match &node.default {
        Some(default) if node.drops_null(value) => {
            size(default, room)?;
            owed(node, default, room)
        }
        _ => owed(node, value, room),
    }
}

fn take(room: &mut usize, bytes: usize) -> Option<()> {
    *room = room.checked_sub(bytes)?;
    Some(())
}

/// Takes the room of a value, without walking more of it than fits.
fn size(value: &Value, room: &mut usize) -> Option<()> {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => take(room, 5),
        Value::String(text) => take(room, text.len() + 2),
        Value::Array(list) => {
            take(room, 2)?;
            list.iter().try_for_each(|one| size(one, room))
        }
        Value::Object(map) => {
            take(room, 2)?;
            map.iter().try_for_each(|(name, one)| {
                take(room, name.len() + 4)?;
                size(one, room)
            })
        }
    }
}

fn copy(node: &Node, value: &mut Value) {
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
                    copy(property, value);
                } else if let Additional::Of(additional) = &node.additional {
                    copy_entry(additional, value);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = &node.items {
                for entry in list {
                    copy_entry(items, entry);
                }
            }
        }
        _ => {}
    }
}

/// An entry of a list or map: a null is replaced where there is something to replace it with.
fn copy_entry(node: &Node, value: &mut Value) {
    if node.drops_null(value)
        && let Some(default) = &node.default
    {
        *value = default.clone();
    }
    copy(node, value);
}
