//! CSINode: which drivers of storage run on a node.

use crate::cause::Cause;
use crate::field::{Causes, Path, list, number, text};
use crate::names;
use crate::resource::{Column, Resource, Rules};
use crate::rules::{declared, storage};
use crate::table::{age, name};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

const NODE_ID_MAX: usize = 256;

/// The row.
pub fn resource() -> Resource {
    Resource {
        namespaced: false,
        columns: vec![
            Column::name(),
            Column::integer("Drivers", "How many there are."),
            Column::age(),
        ],
        cells: Arc::new(|node, now| {
            vec![name(node), list(node, "spec.drivers").len().into(), age(node, now)]
        }),
        rules: Rules {
            default: Arc::new(|node| {
                // Written in any case.
                let spec = crate::field::object_mut(node, "spec");
                if crate::field::get(spec, "drivers").is_null() {
                    crate::field::set(spec, "drivers", Value::Null);
                }
            }),
            validate: Arc::new(validate),
            validate_update: Arc::new(validate_update),
            ..Rules::plain()
        },
        ..Resource::named(
            "storage.k8s.io",
            "v1",
            "CSINode",
            "csinodes",
            "csinode",
            "api.storage.v1.CSINode",
        )
    }
}

fn validate(node: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let path = Path::new("spec").child("drivers");
    let mut seen = HashSet::new();
    for (index, driver) in list(node, "spec.drivers").iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let (path, driver_name) = (path.index(index), text(driver, "name"));
        if !driver_name.is_empty() {
            storage::driver_name(driver_name, &path.child("name"), &mut causes);
        }
        if !seen.insert(driver_name) {
            causes.duplicate(&path.child("name"), driver_name);
        }
        if text(driver, "nodeID").len() > NODE_ID_MAX {
            let why = format!("must be {NODE_ID_MAX} characters or less");
            causes.invalid(&path.child("nodeID"), text(driver, "nodeID"), &why);
        }
        causes.not_negative(
            &path.child("allocatable").child("count"),
            number(driver, "allocatable.count"),
        );
        let mut keys = HashSet::new();
        for key in list(driver, "topologyKeys").iter().filter_map(Value::as_str) {
            if causes.is_full() {
                break;
            }
            let path = path.child("topologyKeys");
            if !keys.insert(key) {
                causes.duplicate(&path, key);
            }
            causes.invalid_all(&path, key, names::qualified(key));
        }
    }
    declared::validate("api.storage.v1.CSINode", node, &mut causes);
    causes.into_vec()
}

/// A driver that stays says the same, but for how much it can take.
fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    causes.append(validate(new));
    let path = Path::new("spec").child("drivers");
    let without_room = |driver: &Value| {
        let mut driver = driver.clone();
        crate::field::remove(&mut driver, "allocatable");
        driver
    };
    let before: HashMap<&str, &Value> =
        list(old, "spec.drivers").iter().map(|driver| (text(driver, "name"), driver)).collect();
    for (index, driver) in list(new, "spec.drivers").iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let was = before.get(text(driver, "name"));
        if was.is_some_and(|was| without_room(was) != without_room(driver)) {
            causes.invalid(&path.index(index), driver.clone(), "field is immutable");
        }
    }
    causes.into_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_driver_of_a_node_is_named_once_and_stays_what_it_is() {
        let node = |drivers: Value| json!({"spec": {"drivers": drivers}});
        let told = |causes: Vec<Cause>| {
            causes.into_iter().map(|it| it.field).collect::<Vec<_>>().join(" ")
        };
        let one = json!({"name": "a", "nodeID": "n"});
        let rows = [
            (json!([]), ""),
            (json!([one]), ""),
            (json!([one, one]), "spec.drivers[1].name"),
            (json!([{"name": "a"}]), "spec.drivers[0].nodeID"),
            (
                json!([{"name": "a", "nodeID": "n", "topologyKeys": ["z", "z"]}]),
                "spec.drivers[0].topologyKeys",
            ),
            (
                json!([{"name": "a", "nodeID": "n", "allocatable": {"count": -1}}]),
                "spec.drivers[0].allocatable.count",
            ),
        ];
        for (drivers, expected) in rows {
            assert_eq!(told(validate(&node(drivers.clone()))), expected, "{drivers}");
        }
        let other = node(json!([{"name": "a", "nodeID": "m"}]));
        assert_eq!(told(validate_update(&other, &node(json!([one])))), "spec.drivers[0]");
        let roomy = node(json!([{"name": "a", "nodeID": "n", "allocatable": {"count": 1}}]));
        assert_eq!(told(validate_update(&roomy, &node(json!([one])))), "");
    }
}
