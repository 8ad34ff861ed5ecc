//! Which fields an object has, as who applies it owns them; and what cannot be applied.

use super::fields::Fields;
use super::step::{Step, beginning};
use super::typed::{Form, Type};
use serde_json::Value;
use std::collections::HashSet;

/// The most faults that are told of what is applied.
const MOST_FAULTS: usize = 100;

/// The fields of a value: its leaves, the entries of its lists, and what is given and empty.
pub fn fields_of(of: Type<'_>, value: &Value) -> Fields {
    let mut fields = Fields::default();
    let form = of.form(value);
    match (form, value) {
        (Form::Leaf, _) => fields.here = true,
        (_, Value::Null) => {}
        (Form::Map, Value::Object(map)) => {
            for (name, member) in map {
                let (inside, is_declared) = of.member(name).unwrap_or((Type::Free, false));
                let mut below = fields_of(inside, member);
                below.here |= !is_declared || is_nothing(member);
                fields.put(Step::field(name), below);
            }
        }
        (Form::Set | Form::Keyed, Value::Array(list)) => {
            for (index, entry) in list.iter().enumerate() {
                let step = of.step(form, entry).unwrap_or_else(|| Step::index(index));
                let mut below = fields_of(of.entry(), entry);
                below.here = true;
                fields.put(step, below);
            }
        }
        // Of another type than it should be: whoever reads the object says so.
        _ => fields.here = true,
    }
    fields
}

/// Makes one field of what is owned as one by now, and was owned in parts: the schema was another when it was written.
pub fn lift(of: Type<'_>, fields: &mut Fields) {
    if fields.below.is_empty() {
        return;
    }
    if of.form(&Value::Object(serde_json::Map::new())) == Form::Leaf {
        *fields = Fields::leaf();
        return;
    }
    for (step, below) in &mut fields.below {
        let inside = match step.name() {
            Some(name) => of.member(name).map(|(inside, _)| inside),
            None => Some(of.entry()),
        };
        if let Some(inside) = inside {
            lift(inside, below);
        }
    }
}

fn is_nothing(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty)
}

/// What is wrong with a value that is to be applied, in Kubernetes' words: fields that the schema does not know, entries
/// of a list that are there twice, or that have no key.
pub fn faults(of: Type<'_>, value: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    look(of, value, &mut String::new(), &mut faults);
    faults
}

fn look(of: Type<'_>, value: &Value, path: &mut String, faults: &mut Vec<String>) {
    if faults.len() >= MOST_FAULTS {
        return;
    }
    let length = path.len();
    let form = of.form(value);
    match (form, value) {
        (Form::Map, Value::Object(map)) => {
            for (name, member) in map {
                if faults.len() >= MOST_FAULTS {
                    return;
                }
                path.push('.');
                path.push_str(name);
                match of.member(name) {
                    Some((inside, _)) => look(inside, member, path, faults),
                    None => {
                        faults.push(format!("{}: field not declared in schema", beginning(path)));
                    }
                }
                path.truncate(length);
            }
        }
        (Form::Set | Form::Keyed, Value::Array(list)) => {
            let (mut seen, mut twice) = (HashSet::new(), HashSet::new());
            for (index, entry) in list.iter().enumerate() {
                if faults.len() >= MOST_FAULTS {
                    return;
                }
                let Some(step) = of.step(form, entry) else {
                    let (path, keys) = (beginning(path), of.key_names());
                    faults.push(format!(
                        "{path}: element {index}: associative list with keys has an element that omits all key fields {keys:?} (and doesn't have default values for any key fields)"
                    ));
                    continue;
                };
                path.push_str(&step.to_string());
                look(of.entry(), entry, path, faults);
                path.truncate(length);
                if !seen.insert(step.clone()) && twice.insert(step.clone()) {
                    let what = if form == Form::Set { "set" } else { "key" };
                    let shown = step.to_string();
                    let shown = if form == Form::Set {
                        shown.trim_start_matches("[=").trim_end_matches(']').to_owned()
                    } else {
                        shown
                    };
                    let (path, shown) = (beginning(path), beginning(&shown));
                    faults.push(format!("{path}: duplicate entries for {what} {shown}"));
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::schema;
    use serde_json::json;

    fn of(kind: &str) -> Type<'static> {
        Type::Message(
            schema::for_kind(if kind == "Deployment" { "apps" } else { "" }, "v1", kind).unwrap(),
        )
    }

    #[test]
    fn the_fields_of_an_object_are_its_leaves_and_the_entries_of_its_lists() {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "labels": { "a": "b" }, "annotations": {}, "finalizers": ["x/y"] },
            "spec": {
                "nodeSelector": { "disk": "ssd" },
                "tolerations": [{ "key": "a" }],
                "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [] } } },
                "containers": [{
                    "name": "c", "args": ["x"],
                    "resources": { "limits": { "cpu": "1" } },
                    "securityContext": {},
                    "ports": [{ "containerPort": 80 }, { "containerPort": 80, "protocol": "UDP" }],
                    "livenessProbe": { "httpGet": { "port": "http" } },
                }],
                "volumes": [],
            },
        });
        let mut paths = fields_of(of("Pod"), &pod).paths();
        paths.sort();
        let container = r#".spec.containers[name="c"]"#;
        let mut wanted: Vec<String> = [
            "",
            ".args",
            ".name",
            ".resources.limits.cpu",
            ".securityContext",
            r#".ports[containerPort=80,protocol="TCP"]"#,
            r#".ports[containerPort=80,protocol="TCP"].containerPort"#,
            r#".ports[containerPort=80,protocol="UDP"]"#,
            r#".ports[containerPort=80,protocol="UDP"].containerPort"#,
            r#".ports[containerPort=80,protocol="UDP"].protocol"#,
            ".livenessProbe.httpGet.port",
        ]
        .iter()
        .map(|rest| format!("{container}{rest}"))
        .chain([
            ".apiVersion".to_owned(),
            ".kind".to_owned(),
            ".metadata.annotations".to_owned(),
            ".metadata.finalizers[=\"x/y\"]".to_owned(),
            ".metadata.labels.a".to_owned(),
            ".spec.nodeSelector".to_owned(),
            ".spec.tolerations".to_owned(),
            ".spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution".to_owned(),
        ])
        .collect();
        wanted.sort();
        assert_eq!(paths, wanted);
    }

    #[test]
    fn what_cannot_be_applied_is_told_with_its_path() {
        let object = json!({ "spec": { "foo": 1, "template": { "spec": { "containers": [
            { "name": "a", "env": [{ "name": "X" }, { "name": "X" }, { "name": "X" }] }, { "image": "i" },
        ] } } }, "metadata": { "finalizers": ["a", "a"] } });
        let mut told = faults(of("Deployment"), &object);
        told.sort();
        let wanted = [
            ".metadata.finalizers: duplicate entries for set \"a\"",
            ".spec.foo: field not declared in schema",
            ".spec.template.spec.containers: element 1: associative list with keys has an element that omits all key fields [\"name\"] (and doesn't have default values for any key fields)",
            ".spec.template.spec.containers[name=\"a\"].env: duplicate entries for key [name=\"X\"]",
        ];
        assert_eq!(told, wanted);
        let many: serde_json::Map<String, Value> =
            (0..1_000).map(|number| (number.to_string(), json!(1))).collect();
        assert_eq!(faults(of("Deployment"), &json!({ "spec": many })).len(), MOST_FAULTS);
    }
}
