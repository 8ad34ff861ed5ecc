//! Whether the defaults that a schema gives are such that it would take them itself.

use super::defaults::MAX_FILLED;
use super::findings::Findings;
use super::node::Node;
use super::place::Place;
use super::room::Room;
use super::{defaults, expressions, prune, validate};
use crate::json_equality::equal;

/// Checks the defaults of a whole object's schema.
pub fn check(root: &Node, place: &Place<'_>, room: &mut Room, findings: &mut Findings) {
    if root.default.is_some() {
        findings.forbidden(&place.field("default"), "must not be set at the root");
    }
    below(root, true, place, room, findings);
}

fn below(node: &Node, whole: bool, place: &Place<'_>, room: &mut Room, findings: &mut Findings) {
    let properties = place.field("properties");
    for (name, property) in &node.properties {
        let place = properties.key(name);
        let implied = matches!(name.as_str(), "apiVersion" | "kind" | "metadata");
        if whole && implied {
            refuse(property, &place, findings);
        } else {
            one(property, &place, room, findings);
        }
    }
    if let Some(items) = &node.items {
        one(items, &place.field("items"), room, findings);
    }
    if let super::node::Additional::Of(additional) = &node.additional {
        one(additional, &place.field("additionalProperties"), room, findings);
    }
}

/// What the server itself fills in has no default.
fn refuse(node: &Node, place: &Place<'_>, findings: &mut Findings) {
    if node.default.is_some() {
        findings.forbidden(&place.field("default"), "must not be set for what every object has");
    }
    let properties = place.field("properties");
    for (name, property) in &node.properties {
        refuse(property, &properties.key(name), findings);
    }
}

fn one(node: &Node, place: &Place<'_>, room: &mut Room, findings: &mut Findings) {
    if let Some(default) = &node.default {
        let place = place.field("default");
        let mut pruned = default.clone();
        prune::prune(node, &mut pruned, false);
        if equal(&pruned, default) {
            let mut filled = pruned;
            if defaults::fill(node, &mut filled, &mut room.filled) {
                validate::value(node, &filled, None, &place, findings);
                expressions::check(node, &filled, None, &place, &mut room.steps, findings);
            } else {
                let why = format!("asks for more than {MAX_FILLED} bytes of defaults below it");
                findings.forbidden(&place, &why);
            }
        } else {
            findings.invalid(&place, default, "must not have unknown fields");
        }
    }
    below(node, node.embedded, place, room, findings);
}
