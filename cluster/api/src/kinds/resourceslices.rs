//! ResourceSlice: devices that a driver offers, on a node or for some of them.

use crate::cause::Cause;
use crate::field::{Causes, Path, entries, flag, get, has, list, number, text};
use crate::names;
use crate::resource::{Column, FieldLabel, Resource, Rules};
use crate::rules::pod::node_selector;
use crate::rules::{declared, storage};
use crate::table::{age, name, or_unset};
use serde_json::Value;
use std::collections::HashSet;
use std::sync::Arc;

const DEVICES_MAX: usize = 128;
const PROPERTIES_MAX: usize = 32;
const COUNTERS_MAX: usize = 8;
const TAINTS_MAX: usize = 16;
/// Where its devices can be used: one of these says so.
const PLACES: [&str; 4] = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"];

/// The row.
pub fn resource() -> Resource {
    Resource {
        namespaced: false,
        columns: vec![
            Column::name(),
            Column::text("Node", "The node that has the devices."),
            Column::text("Driver", "Whose they are."),
            Column::text("Pool", "The pool that they are of."),
            Column::age(),
        ],
        cells: Arc::new(|slice, now| {
            vec![
                name(slice),
                or_unset(text(slice, "spec.nodeName")),
                text(slice, "spec.driver").into(),
                text(slice, "spec.pool.name").into(),
                age(slice, now),
            ]
        }),
        generation: true,
        rules: Rules {
            validate: Arc::new(validate),
            validate_update: Arc::new(validate_update),
            ..Rules::plain()
        },
        fields: vec![
            FieldLabel::new("spec.nodeName", "/spec/nodeName"),
            FieldLabel::new("spec.driver", "/spec/driver"),
        ],
        ..Resource::named(
            "resource.k8s.io",
            "v1",
            "ResourceSlice",
            "resourceslices",
            "resourceslice",
            "api.resource.v1.ResourceSlice",
        )
    }
}

/// Whether one of the places is said.
fn says(object: &Value, place: &str) -> bool {
    match get(object, place) {
        Value::Null => false,
        Value::Bool(said) => *said,
        Value::String(said) => !said.is_empty(),
        _ => true,
    }
}

fn one_place(object: &Value, places: &[&str], path: &Path, causes: &mut Causes) {
    let said = places.iter().filter(|place| says(object, place)).count();
    let why = format!("exactly one of {} is required", places.join(", "));
    match said {
        0 => causes.required(path, &why),
        1 => {}
        _ => causes.invalid(path, Value::Null, &why),
    }
    let node = text(object, "nodeName");
    if !node.is_empty() {
        causes.invalid_all(&path.child("nodeName"), node, names::dns_subdomain(node));
    }
    if has(object, "nodeSelector") {
        node_selector(get(object, "nodeSelector"), &path.child("nodeSelector"), causes);
    }
}

fn validate(slice: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let (spec, path) = (get(slice, "spec"), Path::new("spec"));
    let driver = text(spec, "driver");
    if !driver.is_empty() {
        storage::driver_name(driver, &path.child("driver"), &mut causes);
    }
    pool(get(spec, "pool"), &path.child("pool"), &mut causes);
    one_place(spec, &PLACES, &path, &mut causes);
    let (devices, devices_path) = (list(spec, "devices"), path.child("devices"));
    if devices.len() > DEVICES_MAX {
        causes.too_many(&devices_path, devices.len(), DEVICES_MAX);
    }
    let mut seen = HashSet::new();
    for (index, device) in devices.iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let path = devices_path.index(index);
        let device_name = text(device, "name");
        if !device_name.is_empty() {
            causes.invalid_all(&path.child("name"), device_name, names::dns_label(device_name));
        }
        if !seen.insert(device_name) {
            causes.duplicate(&path.child("name"), device_name);
        }
        if flag(spec, "perDeviceNodeSelection") {
            one_place(device, &PLACES[..3], &path, &mut causes);
        }
        properties(device, &path, &mut causes);
    }
    let (counters, counters_path) = (list(spec, "sharedCounters"), path.child("sharedCounters"));
    if counters.len() > COUNTERS_MAX {
        causes.too_many(&counters_path, counters.len(), COUNTERS_MAX);
    }
    if !counters.is_empty() && !devices.is_empty() {
        let why = "only one of `sharedCounters` or `devices` is allowed";
        causes.invalid(&path, Value::Null, why);
    }
    let mut seen = HashSet::new();
    for (index, set) in counters.iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let (path, name) = (counters_path.index(index).child("name"), text(set, "name"));
        if !name.is_empty() {
            causes.invalid_all(&path, name, names::dns_label(name));
        }
        if !seen.insert(name) {
            causes.duplicate(&path, name);
        }
    }
    declared::validate("api.resource.v1.ResourceSlice", slice, &mut causes);
    causes.into_vec()
}

fn pool(pool: &Value, path: &Path, causes: &mut Causes) {
    let (name, name_path) = (text(pool, "name"), path.child("name"));
    if name.len() > names::SUBDOMAIN_MAX {
        causes.too_long(&name_path, names::SUBDOMAIN_MAX);
    }
    if !name.is_empty() {
        for part in name.split('/') {
            causes.invalid_all(&name_path, part, names::dns_subdomain(part));
        }
    }
    causes.not_negative(&path.child("generation"), number(pool, "generation"));
    let count = number(pool, "resourceSliceCount").unwrap_or(0);
    if count <= 0 {
        causes.invalid(&path.child("resourceSliceCount"), count, "must be greater than zero");
    }
}

fn properties(device: &Value, path: &Path, causes: &mut Causes) {
    let attributes = path.child("attributes");
    let count = entries(device, "attributes").chain(entries(device, "capacity")).count();
    if count > PROPERTIES_MAX {
        let why = format!(
            "the total number of attributes and capacities must not exceed {PROPERTIES_MAX}"
        );
        causes.invalid(path, count, &why);
    }
    for (key, value) in entries(device, "attributes") {
        if causes.is_full() {
            return;
        }
        let path = attributes.key(key);
        property_name(key, &path, causes);
        let said = value
            .as_object()
            .map_or(0, |value| value.values().filter(|value| !value.is_null()).count());
        match said {
            0 => causes.required(&path, "exactly one value must be specified"),
            1 => {}
            _ => causes.invalid(&path, value.clone(), "exactly one value must be specified"),
        }
    }
    for (key, _) in entries(device, "capacity") {
        if causes.is_full() {
            return;
        }
        property_name(key, &path.child("capacity").key(key), causes);
    }
    let (taints, path) = (list(device, "taints"), path.child("taints"));
    if taints.len() > TAINTS_MAX {
        causes.too_many(&path, taints.len(), TAINTS_MAX);
    }
    for (index, taint) in taints.iter().enumerate() {
        if causes.is_full() {
            return;
        }
        let (path, key, value) = (path.index(index), text(taint, "key"), text(taint, "value"));
        if !key.is_empty() {
            causes.invalid_all(&path.child("key"), key, names::qualified(key));
        }
        causes.invalid_all(&path.child("value"), value, names::label_value(value));
    }
}

/// The name of a property: an identifier of C, that of its domain before it if need be.
fn property_name(key: &str, path: &Path, causes: &mut Causes) {
    let (domain, name) =
        key.split_once('/').map_or((None, key), |(domain, name)| (Some(domain), name));
    if let Some(domain) = domain {
        causes.invalid_all(path, domain, names::dns_subdomain(domain));
    }
    let wrong = crate::rules::webhooks::identifier(name);
    if !wrong.is_empty() {
        let why = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_'";
        causes.invalid(path, name, why);
    }
}

/// A slice stays its driver's, of its pool and of its node.
fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    causes.append(validate(new));
    for (field, path) in [
        ("spec.driver", Path::new("spec").child("driver")),
        ("spec.nodeName", Path::new("spec").child("nodeName")),
        ("spec.pool.name", Path::new("spec").child("pool").child("name")),
    ] {
        causes.unchanged(&path, crate::field::at(new, field), crate::field::at(old, field));
    }
    causes.into_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn slice(more: &Value) -> Value {
        let mut slice = json!({"spec": {"driver": "a.b", "nodeName": "n",
            "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}}});
        for (field, value) in more.as_object().unwrap() {
            slice["spec"][field] = value.clone();
        }
        slice
    }

    fn told(causes: Vec<Cause>) -> String {
        causes.into_iter().map(|cause| cause.field).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_slice_says_whose_devices_are_where_and_how_they_are() {
        let device = |more: Value| {
            let mut device = json!({"name": "d"});
            for (field, value) in more.as_object().unwrap() {
                device[field] = value.clone();
            }
            json!({"devices": [device]})
        };
        let first = "spec.devices[0]";
        let rows = [
            (json!({}), String::new()),
            (json!({"driver": ""}), "spec.driver".to_owned()),
            (json!({"nodeName": null}), "spec".to_owned()),
            (json!({"allNodes": true}), "spec".to_owned()),
            (json!({"pool": {"name": "p"}}), "spec.pool.resourceSliceCount".to_owned()),
            (json!({"devices": [{"name": "d"}, {"name": "d"}]}), "spec.devices[1].name".to_owned()),
            (device(json!({"attributes": {"model": {"string": "x"}}})), String::new()),
            (
                device(json!({"attributes": {"a.b/model": {}}})),
                format!("{first}.attributes[a.b/model]"),
            ),
            (
                device(json!({"attributes": {"a-b": {"int": 1}}})),
                format!("{first}.attributes[a-b]"),
            ),
            (device(json!({"taints": [{"key": "a"}]})), format!("{first}.taints[0].effect")),
            (
                device(json!({"taints": [{"key": "a", "effect": "Push"}]})),
                format!("{first}.taints[0].effect"),
            ),
            (
                json!({"sharedCounters": [{"name": "c"}]}),
                "spec.sharedCounters[0].counters".to_owned(),
            ),
        ];
        for (spec, expected) in rows {
            assert_eq!(told(validate(&slice(&spec))), expected, "{spec}");
        }
        let moved = slice(&json!({"nodeName": "m"}));
        assert_eq!(told(validate_update(&moved, &slice(&json!({})))), "spec.nodeName");
    }
}
