//! Devices that claims ask for: what classes, claims and their templates say in the same words.

use crate::field::{
    Causes, Path, default, default_text, existing_mut, get, has, list, list_mut, number, text,
};
use crate::names;
use crate::rules::expressions::{Gives, Runs};
use crate::rules::storage::driver_name;
use crate::rules::webhooks::expression;
use serde_json::Value;
use std::collections::HashSet;

const SELECTORS_MAX: usize = 32;
const REQUESTS_MAX: usize = 32;
const CONSTRAINTS_MAX: usize = 32;
const CONFIGS_MAX: usize = 32;
const ALTERNATIVES_MAX: usize = 8;
const EXPRESSION_MAX: usize = 10 * 1024;

/// Defaults of what a claim asks for.
pub fn default_claim(spec: &mut Value) {
    let Some(devices) = existing_mut(spec, "devices") else { return };
    for request in list_mut(devices, "requests") {
        if let Some(exactly) = existing_mut(request, "exactly") {
            default_request(exactly);
        }
        list_mut(request, "firstAvailable").iter_mut().for_each(default_request);
    }
}

fn default_request(request: &mut Value) {
    default_text(request, "allocationMode", "ExactCount");
    if text(request, "allocationMode") == "ExactCount" && number(request, "count").unwrap_or(0) == 0
    {
        crate::field::set(request, "count", 1);
    }
    for toleration in list_mut(request, "tolerations") {
        default(toleration, "operator", "Equal");
    }
}

fn at_most(all: &[Value], max: usize, path: &Path, causes: &mut Causes) {
    if all.len() > max {
        causes.too_many(path, all.len(), max);
    }
}

/// Conditions that a device must meet.
pub fn selectors(object: &Value, path: &Path, causes: &mut Causes) {
    let (all, path) = (list(object, "selectors"), path.child("selectors"));
    at_most(all, SELECTORS_MAX, &path, causes);
    for (index, selector) in all.iter().enumerate() {
        if causes.is_full() {
            return;
        }
        let path = path.index(index).child("cel");
        if !has(selector, "cel") {
            causes.required(&path, "");
            continue;
        }
        let (given, path) = (text(selector, "cel.expression"), path.child("expression"));
        if given.len() > EXPRESSION_MAX {
            causes.too_long(&path, EXPRESSION_MAX);
        } else {
            expression(given, (Runs::Nowhere, Gives::Bool), &path, causes);
        }
    }
}

/// Settings that are passed on to a driver; those of a claim are for some of its requests.
pub fn configs(
    object: &Value,
    requests: Option<&HashSet<String>>,
    path: &Path,
    causes: &mut Causes,
) {
    let (all, path) = (list(object, "config"), path.child("config"));
    at_most(all, CONFIGS_MAX, &path, causes);
    for (index, config) in all.iter().enumerate() {
        if causes.is_full() {
            return;
        }
        let path = path.index(index);
        if let Some(known) = requests {
            request_names(config, known, &path, causes);
        }
        let (opaque, path) = (get(config, "opaque"), path.child("opaque"));
        if opaque.is_null() {
            causes.required(&path, "");
        } else if !text(opaque, "driver").is_empty() {
            driver_name(text(opaque, "driver"), &path.child("driver"), causes);
        }
    }
}

fn request_names(object: &Value, known: &HashSet<String>, path: &Path, causes: &mut Causes) {
    let mut seen = HashSet::new();
    for (index, name) in list(object, "requests").iter().filter_map(Value::as_str).enumerate() {
        if causes.is_full() {
            return;
        }
        let path = path.child("requests").index(index);
        if !known.contains(name) {
            let why = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
            causes.invalid(&path, name, why);
        }
        if !seen.insert(name) {
            causes.duplicate(&path, name);
        }
    }
}

/// What a claim asks for.
pub fn claim(spec: &Value, path: &Path, causes: &mut Causes) {
    let (devices, path) = (get(spec, "devices"), path.child("devices"));
    let (requests, requests_path) = (list(devices, "requests"), path.child("requests"));
    at_most(requests, REQUESTS_MAX, &requests_path, causes);
    let mut known = HashSet::new();
    for (index, request) in requests.iter().enumerate() {
        if causes.is_full() {
            return;
        }
        let path = requests_path.index(index);
        let name = request_name(request, &path, causes);
        if !known.insert(name.to_owned()) {
            causes.duplicate(&path.child("name"), name);
        }
        let alternatives = list(request, "firstAvailable");
        match (has(request, "exactly"), alternatives.is_empty()) {
            (true, true) => one_request(get(request, "exactly"), &path.child("exactly"), causes),
            (false, false) => {
                let path = path.child("firstAvailable");
                at_most(alternatives, ALTERNATIVES_MAX, &path, causes);
                for (index, alternative) in alternatives.iter().enumerate() {
                    if causes.is_full() {
                        return;
                    }
                    let path = path.index(index);
                    let own = request_name(alternative, &path, causes);
                    if !known.insert(format!("{name}/{own}")) {
                        causes.duplicate(&path.child("name"), own);
                    }
                    one_request(alternative, &path, causes);
                }
            }
            (false, true) => {
                causes.required(&path, "exactly one of `exactly` or `firstAvailable` is required");
            }
            (true, false) => {
                let why = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
                causes.invalid(&path, Value::Null, why);
            }
        }
    }
    let (constraints, constraints_path) = (list(devices, "constraints"), path.child("constraints"));
    at_most(constraints, CONSTRAINTS_MAX, &constraints_path, causes);
    for (index, constraint) in constraints.iter().enumerate() {
        if causes.is_full() {
            return;
        }
        let path = constraints_path.index(index);
        request_names(constraint, &known, &path, causes);
        let given: Vec<&str> = ["matchAttribute", "distinctAttribute"]
            .into_iter()
            .filter(|field| has(constraint, field))
            .collect();
        match given.as_slice() {
            [field] => {
                let name = text(constraint, field);
                causes.invalid_all(&path.child(field), name, names::domain_prefixed(name));
            }
            [] => causes.required(&path, "exactly one of matchAttribute and distinctAttribute is required"),
            _ => causes.invalid(
                &path,
                Value::Null,
                "exactly one of matchAttribute and distinctAttribute is required, but multiple fields are set",
            ),
        }
    }
    configs(devices, Some(&known), &path, causes);
}

fn request_name<'a>(request: &'a Value, path: &Path, causes: &mut Causes) -> &'a str {
    let name = text(request, "name");
    if !name.is_empty() {
        causes.invalid_all(&path.child("name"), name, names::dns_label(name));
    }
    name
}

fn one_request(request: &Value, path: &Path, causes: &mut Causes) {
    let class = text(request, "deviceClassName");
    if !class.is_empty() {
        causes.invalid_all(&path.child("deviceClassName"), class, names::dns_subdomain(class));
    }
    selectors(request, path, causes);
    let count = number(request, "count").unwrap_or(0);
    match text(request, "allocationMode") {
        "ExactCount" if count <= 0 => {
            causes.invalid(&path.child("count"), count, "must be greater than zero");
        }
        "All" if count != 0 => {
            let why = "must not be specified when allocationMode is 'All'";
            causes.invalid(&path.child("count"), count, why);
        }
        _ => {}
    }
    for (index, toleration) in list(request, "tolerations").iter().enumerate() {
        if causes.is_full() {
            return;
        }
        let path = path.child("tolerations").index(index);
        let (key, operator) = (text(toleration, "key"), text(toleration, "operator"));
        if !key.is_empty() {
            causes.invalid_all(&path.child("key"), key, names::qualified(key));
        } else if operator != "Exists" {
            let why = "must be `Exists` when `key` is empty";
            causes.invalid(&path.child("operator"), operator, why);
        }
        if operator == "Exists" && !text(toleration, "value").is_empty() {
            let why = "must be empty for operator `Exists`";
            causes.invalid(&path.child("value"), text(toleration, "value"), why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_claim_asks_for_devices_in_one_way_each_and_speaks_of_its_own_requests() {
        let exactly = |more: Value| {
            let mut one = json!({"deviceClassName": "gpu"});
            for (field, value) in more.as_object().unwrap() {
                one[field] = value.clone();
            }
            json!({"requests": [{"name": "a", "exactly": one}]})
        };
        let with = |field: &str, value: Value| {
            let mut devices = exactly(json!({}));
            devices[field] = value;
            devices
        };
        let first = "spec.devices.requests[0]";
        let rows = [
            (exactly(json!({})), String::new()),
            (json!({"requests": [{"name": "a"}]}), first.to_owned()),
            (json!({"requests": [{"name": "A", "exactly": {"deviceClassName": "g"}}]}), format!("{first}.name")),
            (exactly(json!({"count": -1})), format!("{first}.exactly.count")),
            (exactly(json!({"allocationMode": "All", "count": 2})), format!("{first}.exactly.count")),
            (exactly(json!({"selectors": [{}]})), format!("{first}.exactly.selectors[0].cel")),
            (
                exactly(json!({"selectors": [{"cel": {"expression": "device.("}}]})),
                format!("{first}.exactly.selectors[0].cel.expression"),
            ),
            (exactly(json!({"tolerations": [{"value": "x"}]})), format!("{first}.exactly.tolerations[0].operator")),
            (with("constraints", json!([{"requests": ["a"], "matchAttribute": "a.b/numa"}])), String::new()),
            (with("constraints", json!([{"requests": ["b"], "matchAttribute": "numa"}])),
                "spec.devices.constraints[0].requests[0] spec.devices.constraints[0].matchAttribute".to_owned()),
            (with("constraints", json!([{}])), "spec.devices.constraints[0]".to_owned()),
            (with("config", json!([{"requests": ["a"]}])), "spec.devices.config[0].opaque".to_owned()),
        ];
        for (devices, expected) in rows {
            let mut spec = json!({"devices": devices});
            default_claim(&mut spec);
            let mut causes = Causes::default();
            claim(&spec, &Path::new("spec"), &mut causes);
            let fields: Vec<String> = causes.into_vec().into_iter().map(|it| it.field).collect();
            assert_eq!(fields.join(" "), expected, "{spec}");
        }
        let alternatives =
            json!([{"name": "b", "deviceClassName": "g"}, {"name": "b", "deviceClassName": "g"}]);
        let mut causes = Causes::default();
        let mut spec = json!({"devices": {"requests": [{"name": "a", "firstAvailable": alternatives}],
            "constraints": [{"requests": ["a/b"], "distinctAttribute": "a.b/c"}]}});
        default_claim(&mut spec);
        claim(&spec, &Path::new("spec"), &mut causes);
        let fields: Vec<String> = causes.into_vec().into_iter().map(|it| it.field).collect();
        assert_eq!(fields, [format!("{first}.firstAvailable[1].name")]);
    }
}
