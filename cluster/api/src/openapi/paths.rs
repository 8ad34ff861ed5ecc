//! Paths and operations, one set a resource.
//!
//! Clients look up operations by the group, version and kind that they name, and read off them
//! which media types a patch may have and which query parameters are understood.

use super::edition::Edition;
use super::schemas::{Named, public_name, reference};
use crate::resource::{Row, Verb};
use crate::schema;
use crate::wire;
use serde_json::{Map, Value, json};

pub(super) fn of(resources: &[Row], edition: Edition) -> Value {
    let mut paths = Map::new();
    for row in resources {
        let kind = Served { group: &row.group, version: &row.version, kind: &row.kind };
        let writer = Writer { edition, kind, names: Named::of(row) };
        let root = if row.group.is_empty() { "api" } else { "apis" };
        let base = format!("/{root}/{}", row.api_version());
        let collection = if row.namespaced {
            format!("{base}/namespaces/{{namespace}}/{}", row.plural)
        } else {
            format!("{base}/{}", row.plural)
        };
        let namespace = if row.namespaced { &["namespace"][..] } else { &[] };
        let item: Vec<&str> = namespace.iter().copied().chain(["name"]).collect();
        if row.namespaced && row.verbs.contains(&Verb::List) {
            let all = writer.path(&[], row.verbs, &[("get", Verb::List, "list")]);
            paths.insert(format!("{base}/{}", row.plural), all);
        }
        let operations = [
            ("get", Verb::List, "list"),
            ("post", Verb::Create, "post"),
            ("delete", Verb::DeleteCollection, "deletecollection"),
        ];
        paths.insert(collection.clone(), writer.path(namespace, row.verbs, &operations));
        if row.is_kept || row.verbs.contains(&Verb::Get) {
            paths.insert(format!("{collection}/{{name}}"), writer.path(&item, row.verbs, &ITEM));
        }
        for sub in &row.subresources {
            let kind = Served {
                group: if sub.group.is_empty() { &row.group } else { sub.group },
                version: if sub.version.is_empty() { &row.version } else { sub.version },
                kind: &sub.kind,
            };
            let names = if sub.kind == row.kind && sub.group.is_empty() {
                Named::of(row)
            } else {
                Named::known(kind.group, kind.version, kind.kind)
            };
            let writer = Writer { edition, kind, names };
            let path = writer.path(&item, sub.verbs, &SUBRESOURCE);
            paths.insert(format!("{collection}/{{name}}/{}", sub.name), path);
        }
    }
    Value::Object(paths)
}

/// A method, the verb that allows it, and what discovery calls the action.
type Operation = (&'static str, Verb, &'static str);

const ITEM: [Operation; 4] = [
    ("get", Verb::Get, "get"),
    ("put", Verb::Update, "put"),
    ("patch", Verb::Patch, "patch"),
    ("delete", Verb::Delete, "delete"),
];
const SUBRESOURCE: [Operation; 5] = [
    ("get", Verb::Get, "get"),
    ("post", Verb::Create, "post"),
    ("put", Verb::Update, "put"),
    ("patch", Verb::Patch, "patch"),
    ("delete", Verb::Delete, "delete"),
];

struct Served<'a> {
    group: &'a str,
    version: &'a str,
    kind: &'a str,
}

struct Writer<'a> {
    edition: Edition,
    kind: Served<'a>,
    names: Named,
}

impl Writer<'_> {
    fn path(&self, variables: &[&str], verbs: &[Verb], operations: &[Operation]) -> Value {
        let mut path = Map::new();
        let variables: Vec<Value> =
            variables.iter().map(|name| self.parameter(name, "path", "string")).collect();
        if !variables.is_empty() {
            path.insert("parameters".to_owned(), variables.into());
        }
        for (method, verb, action) in operations {
            if verbs.contains(verb) {
                path.insert((*method).to_owned(), self.operation(method, action));
            }
        }
        Value::Object(path)
    }

    fn operation(&self, method: &str, action: &str) -> Value {
        let mut parameters: Vec<Value> =
            query(action).iter().map(|(name, kind)| self.parameter(name, "query", kind)).collect();
        let list = action == "list";
        let answered = if list { &self.names.list } else { &self.names.one };
        let mut operation = json!({
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {
                "group": self.kind.group,
                "version": self.kind.version,
                "kind": self.kind.kind,
            },
        });
        let body = match method {
            "post" | "put" => self.names.one.as_deref().map(|name| {
                let mut forms = vec![wire::JSON, wire::YAML];
                forms.extend(self.names.has_message.then_some(wire::PROTOBUF));
                (forms, reference(name, self.edition))
            }),
            "patch" => Some((self.names.patches(), json!({"type": "object"}))),
            "delete" => schema::message("apimachinery.pkg.apis.meta.v1.DeleteOptions")
                .map(|it| (vec![wire::JSON], reference(&public_name(it), self.edition))),
            _ => None,
        };
        let answer =
            answered.as_deref().map_or_else(|| json!({}), |name| reference(name, self.edition));
        match self.edition {
            Edition::V2 => {
                if let Some((media_types, schema)) = body {
                    parameters.push(json!({"name": "body", "in": "body", "required": method != "delete", "schema": schema}));
                    operation["consumes"] = media_types.into();
                }
                operation["produces"] = vec![wire::JSON, wire::YAML].into();
                operation["responses"] = json!({"200": {"description": "OK", "schema": answer}});
            }
            Edition::V3 => {
                if let Some((media_types, schema)) = body {
                    let content: Map<String, Value> = media_types
                        .into_iter()
                        .map(|form| (form.to_owned(), json!({"schema": schema})))
                        .collect();
                    operation["requestBody"] =
                        json!({"content": content, "required": method != "delete"});
                }
                let content: Map<String, Value> = [wire::JSON, wire::YAML]
                    .into_iter()
                    .map(|form| (form.to_owned(), json!({"schema": answer})))
                    .collect();
                operation["responses"] = json!({"200": {"description": "OK", "content": content}});
            }
        }
        if !parameters.is_empty() {
            operation["parameters"] = parameters.into();
        }
        operation
    }

    fn parameter(&self, name: &str, place: &str, kind: &str) -> Value {
        let mut parameter = json!({"name": name, "in": place});
        if place == "path" {
            parameter["required"] = true.into();
        }
        match self.edition {
            Edition::V2 => {
                parameter["type"] = kind.into();
                parameter["uniqueItems"] = true.into();
            }
            Edition::V3 => parameter["schema"] = json!({"type": kind, "uniqueItems": true}),
        }
        parameter
    }
}

/// The query parameters that an action understands.
fn query(action: &str) -> &'static [(&'static str, &'static str)] {
    match action {
        "post" | "put" => WRITE,
        "patch" => &[
            ("pretty", "string"),
            ("dryRun", "string"),
            ("fieldManager", "string"),
            ("fieldValidation", "string"),
            ("force", "boolean"),
        ],
        "delete" | "deletecollection" => &[
            ("pretty", "string"),
            ("dryRun", "string"),
            ("gracePeriodSeconds", "integer"),
            ("propagationPolicy", "string"),
        ],
        "list" => &[
            ("pretty", "string"),
            ("allowWatchBookmarks", "boolean"),
            ("continue", "string"),
            ("fieldSelector", "string"),
            ("labelSelector", "string"),
            ("limit", "integer"),
            ("resourceVersion", "string"),
            ("resourceVersionMatch", "string"),
            ("sendInitialEvents", "boolean"),
            ("timeoutSeconds", "integer"),
            ("watch", "boolean"),
        ],
        _ => &[("pretty", "string")],
    }
}

const WRITE: &[(&str, &str)] = &[
    ("pretty", "string"),
    ("dryRun", "string"),
    ("fieldManager", "string"),
    ("fieldValidation", "string"),
];
