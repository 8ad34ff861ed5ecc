//! Walking an object: paths as they are printed in causes, and getters that never fail.
//!
//! Rules read JSON values that have already been decoded against the schema, so a field of the
//! wrong type cannot come here; `null` and absent are the same. [`Causes`] gathers every wrong
//! field of one object in the order in which it was looked at.

use crate::cause::{Cause, CauseReason};
use serde_json::{Map, Value};
use std::fmt;

/// The place of a field, as `spec.containers[0].image` or `metadata.labels[a/b]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Path(String);

impl Path {
    /// A field of the object itself.
    pub fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The object as a whole; printed as clients know it.
    pub fn whole() -> Self {
        Self("[]".to_owned())
    }

    /// A field of this one.
    pub fn child(&self, name: &str) -> Self {
        Self(format!("{}.{name}", self.0))
    }

    /// An entry of this list.
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// An entry of this map.
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// So many wrong fields are told of one object, and no more: an object of three megabytes must not
/// become a refusal of hundreds.
pub const MAX_CAUSES: usize = 256;
/// The longest value that a cause quotes, in bytes.
const MAX_SHOWN: usize = 10 * 1024;

/// The wrong fields of one object, the first [`MAX_CAUSES`] of them.
#[derive(Debug, Default)]
pub struct Causes(Vec<Cause>);

impl Causes {
    /// Whether no more is told: who goes through a list of any length ends there.
    pub fn is_full(&self) -> bool {
        self.0.len() >= MAX_CAUSES
    }

    /// Whether there is room for one more.
    fn has_room(&self) -> bool {
        #[cfg(test)]
        tests::UNTOLD.set(tests::UNTOLD.get() + usize::from(self.is_full()));
        !self.is_full()
    }

    fn push(&mut self, path: &Path, reason: CauseReason, message: String) {
        if self.has_room() {
            self.0.push(Cause { field: path.to_string(), reason, message });
        }
    }

    fn valued(&mut self, path: &Path, reason: CauseReason, what: &str, value: &Value, why: &str) {
        if !self.has_room() {
            return;
        }
        let value = shown(value);
        let message = if why.is_empty() {
            format!("{what}: {value}")
        } else {
            format!("{what}: {value}: {why}")
        };
        self.push(path, reason, message);
    }

    fn bare(&mut self, path: &Path, reason: CauseReason, what: &str, why: &str) {
        let message = if why.is_empty() { what.to_owned() } else { format!("{what}: {why}") };
        self.push(path, reason, message);
    }

    /// The field must be given.
    pub fn required(&mut self, path: &Path, why: &str) {
        self.bare(path, CauseReason::Required, "Required value", why);
    }

    /// The value breaks a rule.
    pub fn invalid(&mut self, path: &Path, value: impl Into<Value>, why: &str) {
        self.valued(path, CauseReason::Invalid, "Invalid value", &value.into(), why);
    }

    /// The value is not one of a closed set.
    pub fn not_supported(&mut self, path: &Path, value: impl Into<Value>, supported: &[&str]) {
        let mut sorted: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
        sorted.sort();
        let why = if sorted.is_empty() {
            String::new()
        } else {
            format!("supported values: {}", sorted.join(", "))
        };
        self.valued(path, CauseReason::NotSupported, "Unsupported value", &value.into(), &why);
    }

    /// Another entry has the same key.
    pub fn duplicate(&mut self, path: &Path, value: impl Into<Value>) {
        self.valued(path, CauseReason::Duplicate, "Duplicate value", &value.into(), "");
    }

    /// What the value names is not there.
    pub fn not_found(&mut self, path: &Path, value: impl Into<Value>) {
        self.valued(path, CauseReason::NotFound, "Not found", &value.into(), "");
    }

    /// The field may not be given, or not changed.
    pub fn forbidden(&mut self, path: &Path, why: &str) {
        self.bare(path, CauseReason::Forbidden, "Forbidden", why);
    }

    /// The value is longer than allowed.
    pub fn too_long(&mut self, path: &Path, max: usize) {
        let why = format!("may not be more than {max} bytes");
        self.bare(path, CauseReason::TooLong, "Too long", &why);
    }

    /// The list has more entries than allowed.
    pub fn too_many(&mut self, path: &Path, count: usize, max: usize) {
        let why = format!("must have at most {max} items");
        self.valued(path, CauseReason::TooMany, "Too many", &count.into(), &why);
    }

    /// One invalid cause per message, as the name checks return them.
    pub fn invalid_all(&mut self, path: &Path, value: &str, whys: Vec<String>) {
        for why in whys {
            self.invalid(path, value, &why);
        }
    }

    /// The value must be one of `supported`; absent is refused as a missing value.
    pub fn one_of(&mut self, path: &Path, value: &str, supported: &[&str]) {
        if value.is_empty() {
            self.required(path, "");
        } else if !supported.contains(&value) {
            self.not_supported(path, value, supported);
        }
    }

    /// The number must not be negative.
    pub fn not_negative(&mut self, path: &Path, value: Option<i64>) {
        if let Some(number) = value.filter(|number| *number < 0) {
            self.invalid(path, number, "must be greater than or equal to 0");
        }
    }

    /// The field must be as it was.
    pub fn unchanged(&mut self, path: &Path, new: &Value, old: &Value) {
        if !same(new, old) {
            self.invalid(path, new.clone(), "field is immutable");
        }
    }

    /// All that `other` found, after what was found so far.
    pub fn append(&mut self, other: impl IntoIterator<Item = Cause>) {
        let room = MAX_CAUSES.saturating_sub(self.0.len());
        self.0.extend(other.into_iter().take(room));
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The causes in order.
    pub fn into_vec(self) -> Vec<Cause> {
        self.0
    }
}

/// A value as messages show it: strings quoted, the rest as JSON; cut where it is long.
fn shown(value: &Value) -> String {
    let mut text = match value {
        Value::String(text) => format!("{text:?}"),
        Value::Null => "null".to_owned(),
        other => other.to_string(),
    };
    if text.len() > MAX_SHOWN {
        text.truncate(text.floor_char_boundary(MAX_SHOWN));
        text.push_str("...");
    }
    text
}

/// Whether two values say the same: null, absent, and empty lists and maps are one.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let missing = |key: &String, map: &Map<String, Value>| !map.contains_key(key);
            a.iter().all(|(key, value)| same(value, b.get(key).unwrap_or(&Value::Null)))
                && b.iter().filter(|(key, _)| missing(key, a)).all(|(_, value)| nothing(value))
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (a, b) => a == b || (nothing(a) && nothing(b)),
    }
}

fn nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

static NULL: Value = Value::Null;

/// The field of an object, or null.
pub fn get<'a>(value: &'a Value, name: &str) -> &'a Value {
    value.get(name).unwrap_or(&NULL)
}

/// The field at a dotted path, or null.
pub fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(value, |value, name| get(value, name))
}

/// The text at a dotted path, or the empty text.
pub fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    at(value, path).as_str().unwrap_or_default()
}

/// The whole number at a dotted path.
pub fn number(value: &Value, path: &str) -> Option<i64> {
    at(value, path).as_i64()
}

/// Whether the flag at a dotted path is set.
pub fn flag(value: &Value, path: &str) -> bool {
    at(value, path).as_bool().unwrap_or(false)
}

/// The list at a dotted path, or an empty one.
pub fn list<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    at(value, path).as_array().map_or(&[], Vec::as_slice)
}

/// The map at a dotted path.
pub fn map<'a>(value: &'a Value, path: &str) -> Option<&'a Map<String, Value>> {
    at(value, path).as_object()
}

/// The entries of the map at a dotted path.
pub fn entries<'a>(value: &'a Value, path: &str) -> impl Iterator<Item = (&'a str, &'a Value)> {
    map(value, path).into_iter().flatten().map(|(key, value)| (key.as_str(), value))
}

/// Whether something is given at a dotted path.
pub fn has(value: &Value, path: &str) -> bool {
    !at(value, path).is_null()
}

/// The map that a value is; anything else is replaced by an empty one.
pub fn as_map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("it was made an object just above"),
    }
}

/// The object at a field, made when it is not there.
pub fn object_mut<'a>(value: &'a mut Value, name: &str) -> &'a mut Value {
    let entry = as_map(value).entry(name).or_insert(Value::Null);
    as_map(entry);
    entry
}

/// The entries of the list at a field; none when it is not there.
pub fn list_mut<'a>(value: &'a mut Value, name: &str) -> &'a mut [Value] {
    value.get_mut(name).and_then(Value::as_array_mut).map_or(&mut [], Vec::as_mut_slice)
}

/// The object at a field, when it is there.
pub fn existing_mut<'a>(value: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    value.get_mut(name).filter(|inner| inner.is_object())
}

/// Sets a field that is not given.
pub fn default(value: &mut Value, name: &str, to: impl Into<Value>) {
    if get(value, name).is_null() {
        as_map(value).insert(name.to_owned(), to.into());
    }
}

/// Sets a text that is not given, or is given empty.
pub fn default_text(value: &mut Value, name: &str, to: &str) {
    if text(value, name).is_empty() {
        as_map(value).insert(name.to_owned(), to.into());
    }
}

/// Sets a field.
pub fn set(value: &mut Value, name: &str, to: impl Into<Value>) {
    as_map(value).insert(name.to_owned(), to.into());
}

/// Removes a field.
pub fn remove(value: &mut Value, name: &str) -> Option<Value> {
    value.as_object_mut().and_then(|map| map.remove(name))
}

/// Makes a field as it is in another object, absent where it is absent there.
pub fn copy(from: &Value, to: &mut Value, name: &str) {
    match from.get(name) {
        Some(value) if !value.is_null() => set(to, name, value.clone()),
        _ => {
            remove(to, name);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::catalog::find;
    use crate::rules::metadata;
    use serde_json::json;
    use std::cell::Cell;

    thread_local! {
        /// Wrong fields that were found when there was no room for more.
        pub(super) static UNTOLD: Cell<usize> = const { Cell::new(0) };
    }

    #[test]
    fn nobody_looks_for_more_of_what_is_wrong_than_is_told() {
        let many = |entry: Value| vec![entry; MAX_CAUSES * 20];
        let pod = |spec: Value| json!({"metadata": {"name": "p"}, "spec": spec});
        let container = |fields: Value| pod(json!({"containers": [fields]}));
        let selecting = |expressions: Value| {
            let template =
                json!({"metadata": {"labels": {"a": "b"}}, "spec": {"restartPolicy": "Always"}});
            let selector = json!({"matchExpressions": expressions});
            pod(json!({"selector": selector, "template": template}))
        };
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        let values = json!([{"key": "a", "operator": "In", "values": many(json!("-"))}]);
        let mut wrong = vec![
            ("pods", pod(json!({"containers": many(json!({}))}))),
            (
                "pods",
                pod(
                    json!({"volumes": many(json!({})), "tolerations": many(json!({"operator": "x"}))}),
                ),
            ),
            (
                "pods",
                pod(
                    json!({"hostAliases": many(json!({"ip": "x"})), "readinessGates": many(json!({}))}),
                ),
            ),
            ("pods", container(json!({"env": many(json!({})), "ports": many(json!({}))}))),
            (
                "pods",
                container(
                    json!({"volumeMounts": many(json!({})), "volumeDevices": many(json!({}))}),
                ),
            ),
            (
                "services",
                pod(json!({"ports": many(json!({"port": -1})), "externalIPs": many(json!("x"))})),
            ),
            ("nodes", pod(json!({"taints": many(json!({}))}))),
            ("namespaces", pod(json!({"finalizers": many(json!("-"))}))),
            (
                "pods",
                pod(json!({"affinity": {"podAffinity": {required: [
                {"namespaces": many(json!("-")), "topologyKey": "a"}]}}})),
            ),
            (
                "endpoints",
                json!({"metadata": {"name": "p"}, "subsets": many(json!({"ports": [{}]}))}),
            ),
        ];
        for plural in ["replicasets", "deployments"] {
            wrong.push((plural, selecting(json!(many(json!({}))))));
            wrong.push((plural, selecting(values.clone())));
        }
        for (plural, own) in [
            ("deployments", crate::kinds::deployments::TEMPLATE_HASH),
            ("daemonsets", crate::kinds::daemonsets::REVISION_HASH),
            ("statefulsets", crate::kinds::statefulsets::POD_NAME),
        ] {
            let own = json!({"key": own, "operator": "Exists"});
            wrong.push((plural, selecting(json!(many(own)))));
        }
        for (plural, object) in wrong {
            let resource = &find("", "v1", plural).or_else(|| find("apps", "v1", plural)).unwrap();
            told_only(plural, || (resource.rules.validate)(&object));
        }
        let pods = &find("", "v1", "pods").unwrap();
        for (field, entry) in [("ownerReferences", json!({})), ("finalizers", json!("-"))] {
            let metadata = json!({"name": "p", "namespace": "d", field: many(entry)});
            told_only(field, || metadata::validate(pods, &json!({ "metadata": metadata })));
        }
        let before =
            json!({"metadata": {"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"}});
        let mut after = before.clone();
        after["metadata"]["finalizers"] = json!(many(json!("a.b/c")));
        told_only("new finalizers", || metadata::validate_update(pods, &after, &before));
    }

    /// What stands beside the lists, and the rest of an entry, may still be looked at.
    fn told_only(what: &str, look: impl FnOnce() -> Vec<Cause>) {
        UNTOLD.set(0);
        assert_eq!(look().len(), MAX_CAUSES, "{what}");
        assert!(UNTOLD.get() < MAX_CAUSES, "{} more of {what}", UNTOLD.get());
    }
}
