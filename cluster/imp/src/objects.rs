//! `imp apply|get|describe|delete|logs|scale`: for people without kubectl.

use crate::cli::{Apply, Delete, Get, Logs, Named, Output, Scale, Target};
use crate::layout::ClusterDir;
use crate::output;
use crate::rest::{Rest, RestError};
use impresario_api::catalog::{find_kind, find_spoken};
use impresario_api::patch;
use impresario_api::resource::{Resource, Row};
use impresario_api::schema::Message;
use impresario_api::wire;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a command about objects failed.
#[derive(Debug, Error)]
pub enum ObjectsError {
    /// The API said no, or did not answer.
    #[error(transparent)]
    Rest(#[from] RestError),
    /// There is no such resource.
    #[error(
        "no resource is called \"{0}\": `kubectl api-resources` or the API reference lists them"
    )]
    UnknownResource(String),
    /// A manifest could not be read.
    #[error("{path}: {reason}")]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A manifest does not say what its object is called.
    #[error(
        "a manifest of kind {0} has no metadata.name: give it one (`kubectl create` takes generateName)"
    )]
    Nameless(String),
    /// Some of several objects failed; each has been told.
    #[error("{0} failed")]
    Several(usize),
    /// The terminal or pipe went away.
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
}

/// The resource that a user calls `word`: plural, singular, kind or a short name.
fn find(word: &str) -> Result<Row, ObjectsError> {
    find_spoken(word).ok_or_else(|| ObjectsError::UnknownResource(word.to_owned()))
}

/// The URL path of a collection; `None` means all namespaces.
fn collection(resource: &Resource, namespace: Option<&str>) -> String {
    let mut path = if resource.group.is_empty() {
        format!("/api/{}", resource.version)
    } else {
        format!("/apis/{}/{}", resource.group, resource.version)
    };
    if let (true, Some(namespace)) = (resource.namespaced, namespace) {
        // Writing to a String cannot fail.
        let _ = write!(path, "/namespaces/{}", escape(namespace));
    }
    path + "/" + &resource.plural
}

/// A part of a path or query as RFC 3986 wants it.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(byte));
            }
            // Writing to a String cannot fail.
            other => drop(write!(escaped, "%{other:02X}")),
        }
    }
    escaped
}

fn rest(target: &Target) -> Result<Rest, ObjectsError> {
    let dir = ClusterDir::new(target.dir.path());
    Ok(Rest::from_kubeconfig(&dir.kubeconfig())?)
}

/// `imp get`.
pub async fn get(args: &Get) -> Result<(), ObjectsError> {
    let resource = find(&args.resource)?;
    let rest = rest(&args.target)?;
    let namespace = (!args.all_namespaces).then_some(args.target.namespace.as_str());
    let mut path = collection(&resource, namespace);
    if let Some(name) = &args.name {
        path = path + "/" + &escape(name);
    }
    if let Some(selector) = &args.selector {
        path = path + "?labelSelector=" + &escape(selector);
    }
    let text = match args.output {
        Some(Output::Json) => pretty(&rest.get(&path).await?),
        Some(Output::Yaml) => yaml(&rest.get(&path).await?),
        Some(Output::Name) => names(&resource, &rest.get(&path).await?),
        wide => {
            let namespaces = args.all_namespaces && resource.namespaced;
            table(&rest.table(&path).await?, wide.is_some(), namespaces)
        }
    };
    print(&text)
}

/// `imp describe`: the object, then its events.
pub async fn describe(args: &Named) -> Result<(), ObjectsError> {
    let resource = find(&args.resource)?;
    let rest = rest(&args.target)?;
    let path = collection(&resource, Some(&args.target.namespace)) + "/" + &escape(&args.name);
    let mut object = rest.get(&path).await?;
    leave_out(&mut object);
    let uid = object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    let events = "/api/v1/events?fieldSelector=involvedObject.uid%3D".to_owned() + &escape(&uid);
    let events = table(&rest.table(&events).await?, false, false);
    print(&format!("{}\nEvents:\n{events}", yaml(&object)))
}

/// What nobody asks for who has an object described: bookkeeping, and what is secret (`get -o yaml` shows that). Of a
/// Secret only the sizes are told, as kubectl does.
fn leave_out(object: &mut Value) {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("managedFields");
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            // Repeats the whole manifest, with what is secret in it.
            annotations.remove(patch::LAST_APPLIED);
        }
    }
    if object["kind"] == "Secret" {
        for value in object["data"].as_object_mut().into_iter().flat_map(|data| data.values_mut()) {
            let text = value.as_str().unwrap_or_default();
            let bytes = text.trim_end_matches('=').len() * 3 / 4;
            *value = format!("{bytes} bytes").into();
        }
    }
}

/// `imp apply`: creates what is not there, and changes what is to what the manifest says. What the
/// manifest of the last apply named and this one does not is removed; the rest stays as it is.
pub async fn apply(args: &Apply) -> Result<(), ObjectsError> {
    let rest = rest(&args.target)?;
    let mut items = Vec::new();
    for object in manifests(&args.filename)? {
        let (resource, path, name) = locate(&object, &args.target.namespace)?;
        items.push((resource, path, name, object));
    }
    let mut failed = Failed::default();
    for (resource, path, name, object) in items {
        match apply_one(&rest, &resource, &path, &name, &object).await {
            Ok(done) => print(&format!("{}/{name} {done}\n", resource.singular))?,
            Err(error) => failed.note(&resource, &name, error),
        }
    }
    failed.done()
}

async fn apply_one(
    rest: &Rest,
    resource: &Resource,
    path: &str,
    name: &str,
    object: &Value,
) -> Result<&'static str, ObjectsError> {
    let item = format!("{path}/{}", escape(name));
    match rest.get(&item).await {
        Ok(live) => {
            let (content_type, schema) = patch_form(resource);
            let patch = patch::apply_patch(schema, &live, object);
            let outcome = rest.patch(&item, content_type, &patch).await?;
            Ok(if wanted(&outcome) == wanted(&live) { "unchanged" } else { "configured" })
        }
        Err(RestError::Status { code: 404, .. }) => {
            rest.create(path, &patch::with_last_applied(object)).await?;
            Ok("created")
        }
        Err(error) => Err(error.into()),
    }
}

/// What users write of an object: not its status, nor what every write of it changes.
fn wanted(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.retain(|name, _| !["resourceVersion", "managedFields"].contains(&name.as_str()));
    }
    object
}

/// How a patch is sent and with what schema: lists go by their keys where the kind has any.
fn patch_form(resource: &Resource) -> (&'static str, Option<&'static Message>) {
    if resource.is_built_in() {
        ("application/strategic-merge-patch+json", resource.schema.message())
    } else {
        ("application/merge-patch+json", None)
    }
}

/// `imp delete`: all that is named, also behind one that cannot be deleted.
pub async fn delete(args: &Delete) -> Result<(), ObjectsError> {
    let rest = rest(&args.target)?;
    let mut items = Vec::new();
    if let Some(resource) = &args.resource {
        let resource = find(resource)?;
        let path = collection(&resource, Some(&args.target.namespace));
        for name in &args.names {
            items.push((resource.clone(), path.clone() + "/" + &escape(name), name.clone()));
        }
    }
    for object in manifests(&args.filename)? {
        let (resource, path, name) = locate(&object, &args.target.namespace)?;
        items.push((resource, path + "/" + &escape(&name), name));
    }
    let mut failed = Failed::default();
    for (resource, path, name) in items {
        match rest.delete(&path).await {
            Ok(_) => print(&format!("{} \"{name}\" deleted\n", resource.singular))?,
            Err(error) => failed.note(&resource, &name, error.into()),
        }
    }
    failed.done()
}

/// What failed among several objects: each is told by name when it happens, and the command fails.
#[derive(Default)]
struct Failed(usize);

impl Failed {
    fn note(&mut self, resource: &Resource, name: &str, error: ObjectsError) {
        self.0 += 1;
        eprintln!("error: {}/{name}: {error}", resource.singular);
    }

    fn done(self) -> Result<(), ObjectsError> {
        if self.0 == 0 { Ok(()) } else { Err(ObjectsError::Several(self.0)) }
    }
}

/// `imp logs`.
pub async fn logs(args: &Logs) -> Result<(), ObjectsError> {
    let pods = find("pods")?;
    let mut path = collection(&pods, Some(&args.target.namespace)) + "/" + &escape(&args.pod);
    // Writing to a String cannot fail.
    let _ = write!(path, "/log?follow={}", args.follow);
    if let Some(container) = &args.container {
        let _ = write!(path, "&container={}", escape(container));
    }
    if let Some(tail) = args.tail {
        let _ = write!(path, "&tailLines={tail}");
    }
    let rest = rest(&args.target)?;
    let mut out = io::stdout().lock();
    let mut written = Ok(true);
    rest.stream(&path, |part| {
        written = output::part(&mut out, part);
        matches!(written, Ok(true))
    })
    .await?;
    Ok(written.map(drop)?)
}

/// `imp scale`.
pub async fn scale(args: &Scale) -> Result<(), ObjectsError> {
    let resource = find(&args.resource)?;
    let rest = rest(&args.target)?;
    let path = collection(&resource, Some(&args.target.namespace)) + "/" + &escape(&args.name);
    let patch = json!({ "spec": { "replicas": args.replicas } });
    rest.patch(&(path + "/scale"), "application/merge-patch+json", &patch).await?;
    print(&format!("{}/{} scaled\n", resource.singular, args.name))
}

/// The objects of these files, in order.
fn manifests(files: &[PathBuf]) -> Result<Vec<Value>, ObjectsError> {
    let mut objects = Vec::new();
    for path in files {
        let wrong = |reason: String| ObjectsError::Manifest { path: path.clone(), reason };
        let text = if path == Path::new("-") {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).map(|_| text)
        } else {
            std::fs::read_to_string(path)
        };
        let text = text.map_err(|error| wrong(error.to_string()))?;
        objects.extend(documents(&text).map_err(wrong)?);
    }
    Ok(objects)
}

/// The objects of a manifest, read by the API's own reader: what it means does not depend on the way in.
fn documents(text: &str) -> Result<Vec<Value>, String> {
    let mut objects = Vec::new();
    for mut document in wire::parse_manifest(text).map_err(|error| error.to_string())? {
        if let Some(Value::Array(items)) = document.get_mut("items") {
            objects.append(items);
        } else {
            objects.push(document);
        }
    }
    Ok(objects)
}

/// Where the API keeps this object: resource, path of the collection, name.
fn locate(object: &Value, namespace: &str) -> Result<(Row, String, String), ObjectsError> {
    let kind = object["kind"].as_str().unwrap_or_default();
    let api_version = object["apiVersion"].as_str().unwrap_or_default();
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let resource = find_kind(group, version, kind)
        .ok_or_else(|| ObjectsError::UnknownResource(format!("{kind} of {api_version}")))?;
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or(namespace);
    // A path that ends in an empty name is that of the whole collection.
    match object["metadata"]["name"].as_str() {
        Some(name) if !name.is_empty() => {
            let path = collection(&resource, Some(namespace));
            Ok((resource, path, name.to_owned()))
        }
        _ => Err(ObjectsError::Nameless(kind.to_owned())),
    }
}

fn print(text: &str) -> Result<(), ObjectsError> {
    Ok(output::text(text)?)
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn yaml(value: &Value) -> String {
    serde_saphyr::to_string(value).unwrap_or_else(|_| pretty(value))
}

fn names(resource: &Resource, value: &Value) -> String {
    let one = [value.clone()];
    let items = value["items"].as_array().map_or(&one[..], Vec::as_slice);
    let mut text = String::new();
    for name in items.iter().filter_map(|item| item["metadata"]["name"].as_str()) {
        text.extend([&*resource.singular, "/", name, "\n"]);
    }
    text
}

/// A server-side table as text, columns as wide as what is in them.
fn table(table: &Value, wide: bool, namespaces: bool) -> String {
    let none = Vec::new();
    let columns = table["columnDefinitions"].as_array().unwrap_or(&none);
    let rows = table["rows"].as_array().unwrap_or(&none);
    if rows.is_empty() {
        return "No resources found\n".into();
    }
    let shown: Vec<usize> = (0..columns.len())
        .filter(|&at| wide || columns[at]["priority"].as_i64().unwrap_or(0) == 0)
        .collect();
    let title = |at: &usize| columns[*at]["name"].as_str().unwrap_or_default().to_uppercase();
    let mut lines = vec![shown.iter().map(title).collect::<Vec<_>>()];
    for row in rows {
        let cell = |at: &usize| match &row["cells"][*at] {
            Value::String(text) => text.clone(),
            Value::Null => "<none>".into(),
            other => other.to_string(),
        };
        lines.push(shown.iter().map(cell).collect());
    }
    if namespaces {
        lines[0].insert(0, "NAMESPACE".into());
        for (line, row) in lines.iter_mut().skip(1).zip(rows) {
            let namespace = row["object"]["metadata"]["namespace"].as_str();
            line.insert(0, namespace.unwrap_or_default().into());
        }
    }
    let widths: Vec<usize> = (0..lines[0].len())
        .map(|at| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for line in &lines {
        let padded: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(padded.join("   ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_secret_that_is_described_only_sizes_are_told() {
        let mut object = json!({
            "kind": "Secret", "data": {"empty": "", "key": "c2VjcmV0", "odd": "c2VjcmV0cw=="},
            "metadata": {"name": "s", "annotations": {patch::LAST_APPLIED: "c2VjcmV0", "mine": "a"}},
        });
        leave_out(&mut object);
        let data = json!({"empty": "0 bytes", "key": "6 bytes", "odd": "7 bytes"});
        assert_eq!(object["data"], data);
        assert_eq!(object["metadata"], json!({"name": "s", "annotations": {"mine": "a"}}));
        let mut map = json!({"kind": "ConfigMap", "data": {"key": "plain"}, "metadata": {}});
        leave_out(&mut map);
        assert_eq!(map["data"]["key"], "plain");
    }

    #[test]
    fn a_manifest_means_here_what_it_means_to_the_api() {
        let keys = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata:\n  on: \"a\"\n  n: \"b\"\n  \
                    0x10: \"c\"\n  1.50: \"d\"\n  \"yes\": \"e\"\n";
        let bomb = format!("a: &a [{}]\nb: [{}]\n", "x,".repeat(50_000), "*a,".repeat(2_000));
        let texts = [
            keys,
            "a: 0644\nb: yes\n",
            "a: &x {b: 1}\nc: {<<: *x}\n",
            "a: [",
            "a: .inf\n",
            "- *x\n",
            &bomb,
        ];
        for text in texts {
            let short = &text[..text.len().min(40)];
            match (documents(text), wire::parse(wire::YAML, text.as_bytes())) {
                (Ok(read), Ok(api)) => assert_eq!(read, [api], "{short:?}"),
                (Err(_), Err(_)) => {}
                (read, api) => panic!("{short:?}: {read:?} here, {api:?} there"),
            }
        }
        let names: Vec<_> =
            documents(keys).unwrap()[0]["data"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(names, ["true", "false", "16", "1.5", "yes"]);
        let list = "kind: List\nitems: [{kind: A}, {kind: B}]\n---\n---\nkind: C\n";
        let kinds: Vec<_> =
            documents(list).unwrap().iter().map(|one| one["kind"].clone()).collect();
        assert_eq!(kinds, ["A", "B", "C"]);
    }

    #[test]
    fn a_resource_is_found_by_every_name_that_users_give_it() {
        for word in ["po", "pod", "Pods", "pods"] {
            assert_eq!(find(word).unwrap().kind, "Pod");
        }
        assert_eq!(find("rc").unwrap().kind, "ReplicationController");
        assert!(find("unicorns").is_err());
    }

    #[test]
    fn a_table_is_as_wide_as_its_cells() {
        let answer = json!({
            "columnDefinitions": [
                {"name": "Name", "priority": 0},
                {"name": "IP", "priority": 1},
                {"name": "Age", "priority": 0}],
            "rows": [
                {"cells": ["a", "127.0.0.1", "5s"]},
                {"cells": ["longer", null, "1d"]}],
        });
        assert_eq!(table(&answer, false, false), "NAME     AGE\na        5s\nlonger   1d\n");
        assert!(table(&answer, true, false).contains("longer   <none>      1d"));
    }
}
