//! What `apply` sends: the manifest, and the removal of what the manifest before it had.
//!
//! Client-side apply as kubectl documents it: the manifest of the last apply is kept in an annotation
//! of the object; what it named and the new one does not is taken out, what neither names is
//! somebody else's and stays. The outcome is a strategic merge patch where the kind has a schema,
//! else a merge patch of RFC 7396.

use super::strategic::{DELETE_FROM, DIRECTIVE, Member, SET_ORDER};
use crate::schema::Message;
use serde_json::{Map, Value, json};

/// The annotation that keeps the manifest of the last apply, as JSON.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

type Object = Map<String, Value>;

/// The manifest with itself in its annotation, as an object is created from it.
#[must_use]
pub fn with_last_applied(manifest: &Value) -> Value {
    let mut noted = manifest.clone();
    if let Some(object) = noted.as_object_mut() {
        let metadata = object.entry("metadata").or_insert_with(|| json!({}));
        if !metadata["annotations"].is_object() {
            metadata["annotations"] = json!({});
        }
        metadata["annotations"][LAST_APPLIED] = format!("{manifest}\n").into();
    }
    noted
}

/// The patch that makes `live` what the manifest says. `message` is the schema of the kind, `None` for
/// a kind whose patches know no merge keys.
#[must_use]
pub fn apply_patch(message: Option<&'static Message>, live: &Value, manifest: &Value) -> Value {
    let last = live["metadata"]["annotations"][LAST_APPLIED].as_str();
    // One that cannot be read was not written by an apply: nothing is known to have been named.
    let last = last.and_then(|text| serde_json::from_str(text).ok());
    let (last, new) = (last.unwrap_or(Value::Null), with_last_applied(manifest));
    let nothing = Object::new();
    match new {
        Value::Object(new) => {
            Value::Object(changes(message, last.as_object().unwrap_or(&nothing), &new))
        }
        other => other,
    }
}

fn changes(message: Option<&'static Message>, last: &Object, new: &Object) -> Object {
    let mut patch = Object::new();
    for (name, value) in new {
        let member = Member::of(message, name);
        let change = match (last.get(name), value) {
            (Some(Value::Object(last)), Value::Object(new)) if !member.replaces => {
                Value::Object(changes(member.inside, last, new))
            }
            (last, Value::Array(new)) if member.merges => {
                let none = Vec::new();
                let last = last.and_then(Value::as_array).unwrap_or(&none);
                list_changes(&member, name, last, new, &mut patch)
            }
            (_, value) => value.clone(),
        };
        patch.insert(name.clone(), change);
    }
    for name in last.keys().filter(|name| !new.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    patch
}

/// The entries of a list that merges; directives about the list go beside it.
fn list_changes(
    member: &Member,
    name: &str,
    last: &[Value],
    new: &[Value],
    beside: &mut Object,
) -> Value {
    let is_new = |old: &&Value| !new.iter().any(|entry| same(member, entry, old));
    let gone: Vec<&Value> = last.iter().filter(is_new).collect();
    let order: Vec<Value> = new.iter().map(|entry| identity(member, entry)).collect();
    if !order.is_empty() {
        beside.insert(format!("{SET_ORDER}{name}"), order.into());
    }
    let mut entries: Vec<Value> = Vec::with_capacity(new.len() + gone.len());
    for entry in new {
        let before = last.iter().find(|old| same(member, entry, old));
        entries.push(match (before, entry) {
            (Some(Value::Object(before)), Value::Object(entry)) => {
                Value::Object(changes(member.inside, before, entry))
            }
            _ => entry.clone(),
        });
    }
    if member.key.is_empty() {
        if !gone.is_empty() {
            let gone: Vec<Value> = gone.into_iter().cloned().collect();
            beside.insert(format!("{DELETE_FROM}{name}"), gone.into());
        }
    } else {
        entries.extend(gone.into_iter().map(|entry| {
            let mut deletion = identity(member, entry);
            deletion[DIRECTIVE] = "delete".into();
            deletion
        }));
    }
    entries.into()
}

fn same(member: &Member, left: &Value, right: &Value) -> bool {
    if member.key.is_empty() { left == right } else { left[member.key] == right[member.key] }
}

fn identity(member: &Member, entry: &Value) -> Value {
    if member.key.is_empty() { entry.clone() } else { json!({ member.key: entry[member.key] }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patch::{merge_patch, strategic_merge};
    use crate::schema;

    fn pod(labels: &Value, containers: &Value) -> Value {
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "a", "labels": labels },
            "spec": { "containers": containers } })
    }

    /// What becomes of the live object when a manifest is applied after another one, and somebody
    /// else had added something in between.
    fn applied(first: &Value, elsewhere: &Value, second: &Value) -> Value {
        let message = schema::for_kind("", "v1", "Pod").unwrap();
        let live = with_last_applied(first);
        let live = strategic_merge(message, &live, elsewhere.clone()).unwrap();
        let patch = apply_patch(Some(message), &live, second);
        strategic_merge(message, &live, patch).unwrap()
    }

    #[test]
    fn what_the_manifest_no_longer_names_goes_and_what_others_added_stays() {
        let first = pod(
            &json!({ "a": "1", "b": "2" }),
            &json!([
                { "name": "x", "image": "i", "env": [{ "name": "E", "value": "1" }, { "name": "F", "value": "2" }] },
                { "name": "y", "image": "i" }]),
        );
        let elsewhere = json!({ "metadata": { "labels": { "theirs": "3" } },
            "spec": { "containers": [{ "name": "z", "image": "i" }] } });
        let second = pod(
            &json!({ "a": "9" }),
            &json!([{ "name": "x", "env": [{ "name": "F", "value": "2" }] }]),
        );
        let outcome = applied(&first, &elsewhere, &second);
        assert_eq!(outcome["metadata"]["labels"], json!({ "a": "9", "theirs": "3" }));
        let containers = outcome["spec"]["containers"].as_array().unwrap();
        assert_eq!(containers.len(), 2);
        assert!(containers.contains(&json!({ "name": "z", "image": "i" })));
        assert!(
            containers.contains(&json!({ "name": "x", "env": [{ "name": "F", "value": "2" }] }))
        );
        let noted = outcome["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap();
        assert_eq!(serde_json::from_str::<Value>(noted).unwrap(), second);
    }

    #[test]
    fn lists_follow_the_order_of_the_manifest_and_plain_values_are_taken_out() {
        let with = |finalizers: &Value, names: &[&str]| {
            let containers: Vec<_> =
                names.iter().map(|name| json!({ "name": name, "image": "i" })).collect();
            let mut pod = pod(&json!({}), &containers.into());
            pod["metadata"]["finalizers"] = finalizers.clone();
            pod
        };
        let first = with(&json!(["a/a", "b/b"]), &["x", "y"]);
        let second = with(&json!(["b/b"]), &["y", "x"]);
        let outcome = applied(&first, &json!({}), &second);
        assert_eq!(outcome["metadata"]["finalizers"], json!(["b/b"]));
        assert_eq!(outcome["spec"]["containers"][0]["name"], "y");
    }

    #[test]
    fn a_kind_without_merge_keys_gets_its_lists_whole() {
        let first = json!({ "spec": { "min": 1, "list": [1, 2] } });
        let second = json!({ "spec": { "list": [2] } });
        let live = with_last_applied(&first);
        let outcome = merge_patch(&live, &apply_patch(None, &live, &second)).unwrap();
        assert_eq!(outcome["spec"], json!({ "list": [2] }));
    }
}
