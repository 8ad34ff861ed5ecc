//! Kinds that come and go while a server runs, as its clients meet them.
//!
//! In a process of its own: what it takes is served by every server of the process.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod defining;
mod definitions;
#[path = "../gateway/harness.rs"]
#[allow(dead_code)] // it serves another suite too
mod harness;
#[path = "../gateway/lines.rs"]
mod lines;
#[path = "../gateway/logged.rs"]
#[allow(dead_code)] // the same
mod logged;
#[path = "../gateway/mirror.rs"]
#[allow(dead_code)] // the same
mod mirror;

use harness::{Harness, Shows};
use impresario_api::catalog::served;
use impresario_api::dynamic::DynamicSchema;
use impresario_api::resource::{Column, Resource, Subresource};
use impresario_api::status::{Cause, CauseReason};
use lines::Lines;
use serde_json::{Value, json};
use std::sync::Arc;

/// `spec` has a `size` and a `colour`, which is `red` unless said; sizes do not shrink.
struct Widgets;

impl DynamicSchema for Widgets {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
            spec.entry("colour").or_insert_with(|| "red".into());
        }
    }

    fn prune(&self, object: &mut Value) {
        if let Some(object) = object.as_object_mut() {
            object.retain(|name, _| {
                ["apiVersion", "kind", "metadata", "spec", "status"].contains(&name.as_str())
            });
        }
        if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
            spec.retain(|name, _| ["size", "colour"].contains(&name.as_str()));
        }
    }

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<Cause> {
        let size = |object: &Value| object["spec"]["size"].as_i64();
        let wrong = |message: &str| Cause {
            field: "spec.size".into(),
            reason: CauseReason::Invalid,
            message: message.to_owned(),
        };
        match (size(new), old.and_then(size)) {
            (None, _) => vec![wrong("must be a number")],
            (Some(new), Some(old)) if new < old => vec![wrong("may not shrink")],
            _ => Vec::new(),
        }
    }

    fn openapi(&self) -> Value {
        let spec = json!({"type": "object", "properties": {
            "size": {"type": "integer", "description": "How large it is."},
            "colour": {"type": "string"},
        }});
        json!({"type": "object", "properties": {"spec": spec}})
    }
}

/// A kind of its own for each test.
fn kind(group: &str) -> Resource {
    let names = [group, "v1", "Widget", "widgets", "widget"].map(str::to_owned);
    Resource {
        short_names: vec!["wd".into()],
        subresources: vec![Subresource::status("Widget")],
        columns: vec![Column::name(), Column::integer("Size", "How large it is.")],
        cells: Arc::new(|object, _| {
            vec![object["metadata"]["name"].clone(), object["spec"]["size"].clone()]
        }),
        ..Resource::of_schema(names, Arc::new(Widgets))
    }
}

fn path(group: &str) -> String {
    format!("/apis/{group}/v1/namespaces/default/widgets")
}

async fn watch(server: &Harness, path: &str) -> Lines {
    Lines::of(server, &format!("{path}?watch=true"), "application/json").await
}

#[tokio::test]
async fn a_kind_that_is_taken_is_served_until_it_is_dropped() {
    let (server, group) = (Harness::start().await, "served.example.com");
    let path = path(group);
    let one = format!("{path}/a");
    let widget = |spec: Value| json!({"metadata": {"name": "a"}, "spec": spec, "extra": 1});
    assert_eq!(server.ask("POST", &path, &widget(json!({"size": 1}))).await.code, 404);
    served().take(kind(group)).unwrap();

    // Defaulted, pruned, and told of what was dropped.
    let made = server.ask("POST", &path, &widget(json!({"size": 1, "weight": 2}))).await;
    assert_eq!(made.code, 201, "{}", made.json());
    assert_eq!(made.json()["spec"], json!({"size": 1, "colour": "red"}));
    assert!(made.json().get("extra").is_none());
    assert!(made.header("warning").contains("unknown field"), "{}", made.header("warning"));
    let got = server.ask("GET", &one, &Value::Null).await.json();
    assert_eq!(got, made.json());
    assert_eq!(got["metadata"]["generation"], 1);

    // Validated, when it is made and when it is changed.
    let wrong = server.ask("POST", &path, &json!({"metadata": {"name": "b"}})).await;
    assert_eq!((wrong.code, &wrong.json()["reason"]), (422, &json!("Invalid")));
    let mut lines = watch(&server, &path).await;
    assert_eq!(lines.next().await.unwrap()["type"], "ADDED");
    let shrunk = server.ask("PATCH", &one, &json!({"spec": {"size": 0}})).await;
    assert_eq!(shrunk.json()["details"]["causes"][0]["field"], "spec.size");
    let grown = server.ask("PATCH", &one, &json!({"spec": {"size": 3}, "status": {"x": 1}})).await;
    assert_eq!((grown.code, &grown.json()["spec"]["size"]), (200, &json!(3)));
    assert_eq!(grown.json()["metadata"]["generation"], 2);
    assert!(grown.json().get("status").is_none(), "it has a door of its own");
    let told = server.ask("PATCH", &format!("{one}/status"), &json!({"status": {"x": 1}})).await;
    assert_eq!((told.code, &told.json()["status"]), (200, &json!({"x": 1})));
    assert_eq!(told.json()["metadata"]["generation"], 2);
    for expected in [json!(null), json!({"x": 1})] {
        let event = lines.next().await.unwrap();
        assert_eq!((&event["type"], &event["object"]["status"]), (&json!("MODIFIED"), &expected));
    }

    // Forms that want a message of the tables are refused.
    for (method, path, form) in [
        ("PATCH", &one, "application/strategic-merge-patch+json"),
        ("POST", &path, "application/vnd.kubernetes.protobuf"),
    ] {
        let headers = [("content-type", form)];
        let refused = server.send(Shows::Admin, method, path, &headers, "{}").await;
        assert_eq!(refused.code, 415, "{form}: {}", refused.json());
    }
    let protobuf = [("accept", "application/vnd.kubernetes.protobuf")];
    assert_eq!(server.send(Shows::Admin, "GET", &one, &protobuf, "").await.code, 406);

    // Lists, tables, discovery and OpenAPI.
    let list = server.ask("GET", &path, &Value::Null).await.json();
    assert_eq!(
        (&list["kind"], &list["items"][0]["metadata"]["name"]),
        (&json!("WidgetList"), &json!("a"))
    );
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = server.send(Shows::Admin, "GET", &path, &table, "").await.json();
    assert_eq!(table["rows"][0]["cells"], json!(["a", 3]));
    let resources = server.ask("GET", &format!("/apis/{group}/v1"), &Value::Null).await.json();
    assert_eq!(resources["resources"][0]["shortNames"], json!(["wd"]));
    let document = server.ask("GET", &format!("/openapi/v3/apis/{group}/v1"), &Value::Null).await;
    let schemas = &document.json()["components"]["schemas"];
    let schema = &schemas["com.example.served.v1.Widget"];
    assert_eq!(schema["properties"]["spec"]["properties"]["size"]["type"], "integer");
    assert!(schemas["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"].is_object());

    // Gone with its kind.
    served().drop_row(group, "widgets").unwrap();
    let end = lines.next().await.expect("the end is told");
    assert_eq!((&end["type"], &end["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert!(end["object"]["message"].as_str().unwrap().contains("was removed"), "{end}");
    assert_eq!(lines.next().await, None);
    for (method, path, body) in [
        ("GET", &one, Value::Null),
        ("GET", &path, Value::Null),
        ("POST", &path, widget(json!({"size": 1}))),
        ("DELETE", &one, Value::Null),
    ] {
        assert_eq!(server.ask(method, path, &body).await.code, 404, "{method} {path}");
    }
    let gone = server.ask("GET", &format!("/apis/{group}/v1"), &Value::Null).await;
    assert_eq!(gone.code, 404);
    let gone = server.ask("GET", &format!("/openapi/v3/apis/{group}/v1"), &Value::Null).await;
    assert_eq!(gone.code, 404);
}

#[tokio::test]
async fn an_object_of_a_taken_kind_is_deleted_as_any_other() {
    let (server, group) = (Harness::start().await, "deleted.example.com");
    served().take(kind(group)).unwrap();
    let path = path(group);
    let widget = json!({"metadata": {"name": "a"}, "spec": {"size": 1}});
    assert_eq!(server.ask("POST", &path, &widget).await.code, 201);
    let mut lines = watch(&server, &path).await;
    assert_eq!(lines.next().await.unwrap()["type"], "ADDED");
    assert_eq!(server.ask("DELETE", &format!("{path}/a"), &Value::Null).await.code, 200);
    assert_eq!(lines.next().await.unwrap()["type"], "DELETED");
    assert_eq!(server.ask("GET", &format!("{path}/a"), &Value::Null).await.code, 404);
}

#[tokio::test]
async fn who_follows_a_kind_goes_on_when_its_row_is_exchanged_and_not_under_another_of_its_name() {
    let (server, group) = (Harness::start().await, "exchanged.example.com");
    served().take(kind(group)).unwrap();
    let path = path(group);
    let mut lines = watch(&server, &path).await;
    served().replace(Resource { categories: vec!["all".into()], ..kind(group) }).unwrap();
    let widget = json!({"metadata": {"name": "a"}, "spec": {"size": 1}});
    assert_eq!(server.ask("POST", &path, &widget).await.code, 201);
    assert_eq!(lines.next().await.unwrap()["type"], "ADDED");
    let listed = server.ask("GET", &format!("/apis/{group}/v1"), &Value::Null).await.json();
    assert_eq!(listed["resources"][0]["categories"], json!(["all"]));

    served().drop_row(group, "widgets").unwrap();
    served().take(kind(group)).unwrap();
    let end = lines.next().await.expect("the end is told");
    assert_eq!((&end["type"], &end["object"]["code"]), (&json!("ERROR"), &json!(410)));
}
