//! Following collections.

use crate::harness::Harness;
use crate::lines::Lines;
use impresario_registry_api::{Key, Operation, Transaction};
use serde_json::json;

const PATH: &str = "/api/v1/namespaces/default/configmaps";

async fn open(server: &Harness, query: &str, accept: &str) -> Lines {
    Lines::of(server, &format!("{PATH}?watch=true&{query}"), accept).await
}

/// The next event in short: what happened to whom.
async fn short(lines: &mut Lines) -> String {
    let event = lines.next().await.expect("one more event");
    let name = &event["object"]["metadata"]["name"];
    format!("{} {}", event["type"].as_str().unwrap(), name.as_str().unwrap_or("-"))
}

async fn put(server: &Harness, name: &str, tier: &str) -> String {
    let body = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name, "labels": {"tier": tier}}});
    let mut answer = server.ask("POST", PATH, &body).await;
    if answer.code == 409 {
        answer = server.ask("PUT", &format!("{PATH}/{name}"), &body).await;
    }
    answer.json()["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_object_that_stops_matching_is_told_as_deleted() {
    let server = Harness::start().await;
    let from = put(&server, "a", "web").await;
    let query = format!("resourceVersion={from}&labelSelector=tier%3Dweb");
    let mut lines = open(&server, &query, "application/json").await;
    put(&server, "b", "web").await;
    put(&server, "c", "db").await;
    put(&server, "b", "db").await;
    put(&server, "c", "web").await;
    server.ask("PATCH", &format!("{PATH}/c"), &json!({"data": {"k": "v"}})).await;
    server.ask("DELETE", &format!("{PATH}/c"), &json!(null)).await;
    for expected in ["ADDED b", "DELETED b", "ADDED c", "MODIFIED c", "DELETED c"] {
        assert_eq!(short(&mut lines).await, expected);
    }
}

#[tokio::test]
async fn a_watch_without_a_version_begins_with_what_is_there() {
    let server = Harness::start().await;
    put(&server, "a", "web").await;
    let mut lines = open(&server, "fieldSelector=metadata.name%3Da", "application/json").await;
    assert_eq!(short(&mut lines).await, "ADDED a");

    let query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&labelSelector=tier";
    let mut lines = open(&server, query, "application/json").await;
    assert_eq!(short(&mut lines).await, "ADDED a");
    let end = lines.next().await.unwrap();
    assert_eq!(end["type"], "BOOKMARK");
    assert_eq!(end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    put(&server, "b", "web").await;
    assert_eq!(short(&mut lines).await, "ADDED b");
}

#[tokio::test]
async fn only_the_first_table_of_a_watch_tells_its_columns() {
    let server = Harness::start().await;
    let from = put(&server, "a", "web").await;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let mut lines = open(&server, &format!("resourceVersion={from}"), table).await;
    put(&server, "b", "x").await;
    put(&server, "c", "x").await;
    let (first, second) = (lines.next().await.unwrap(), lines.next().await.unwrap());
    assert_eq!(first["object"]["columnDefinitions"][0]["name"], "Name");
    assert!(second["object"]["columnDefinitions"].is_null());
    assert_eq!(second["object"]["rows"][0]["cells"][0], "c");
}

#[tokio::test]
async fn a_watch_ends_when_its_time_is_up_and_tells_how_far_it_came() {
    let server = Harness::start().await;
    let from = put(&server, "a", "web").await;
    let query = format!("resourceVersion={from}&timeoutSeconds=5&allowWatchBookmarks=true");
    let mut lines = open(&server, &query, "application/json").await;
    let last = lines.next().await.unwrap();
    assert_eq!(
        (&last["type"], &last["object"]["metadata"]["resourceVersion"]),
        (&json!("BOOKMARK"), &json!(from))
    );
    assert!(lines.next().await.is_none());
}

#[tokio::test]
async fn a_watch_that_cannot_be_meant_is_refused() {
    let server = Harness::start().await;
    for wrong in [
        "sendInitialEvents=true",
        "fieldSelector=no.such%3Dx",
        "resourceVersionMatch=Exact&resourceVersion=1",
    ] {
        let answer = server.ask("GET", &format!("{PATH}?watch=1&{wrong}"), &json!(null)).await;
        assert!(matches!(answer.code, 400 | 422), "{wrong}: {}", answer.code);
    }
}

#[tokio::test]
async fn a_watch_of_metadata_shows_no_more_than_that() {
    let server = Harness::start().await;
    let from = put(&server, "a", "web").await;
    let whole = ",application/json";
    for (kind, or) in [("PartialObjectMetadata", whole), ("PartialObjectMetadataList", "")] {
        let accept = format!("application/json;as={kind};g=meta.k8s.io;v=v1{or}");
        let mut lines = open(&server, &format!("resourceVersion={from}"), &accept).await;
        let body = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": kind.to_lowercase()}, "data": {"k": "v"}});
        server.ask("POST", PATH, &body).await;
        let event = lines.next().await.unwrap();
        assert_eq!(event["object"]["kind"], "PartialObjectMetadata", "{event}");
        assert!(
            event["object"].get("data").is_none() && event["object"]["metadata"]["uid"].is_string()
        );
    }
}

#[tokio::test]
async fn no_bookmark_is_told_amid_the_objects_that_were_there_at_the_start() {
    let server = Harness::start().await;
    // Names come in another order than revisions: a client that goes on from the second would miss the first.
    put(&server, "z", "web").await;
    let newest = put(&server, "a", "web").await;
    let query = "allowWatchBookmarks=true&timeoutSeconds=5&labelSelector=tier";
    let mut lines = open(&server, query, "application/json").await;
    assert_eq!(short(&mut lines).await, "ADDED a");
    assert_eq!(short(&mut lines).await, "ADDED z");
    let last = lines.next().await.unwrap();
    assert_eq!(last["type"], "BOOKMARK");
    assert_eq!(last["object"]["metadata"]["resourceVersion"], newest);
}

/// Makes several config maps in one transaction, as controllers do.
async fn put_at_once(server: &Harness, names: &[&str]) {
    let put = |name: &&str| {
        Operation::Put {
        key: Key::new("configmaps", "default", *name),
        value: format!(
            r#"{{"kind":"ConfigMap","apiVersion":"v1","metadata":{{"name":"{name}","namespace":"default"}}}}"#
        )
        .into(),
    }
    };
    let operations = names.iter().map(put).collect();
    let written = Transaction { operations, ..Transaction::default() };
    server.registry.transact(written).await.unwrap();
}

#[tokio::test]
async fn a_watch_that_breaks_amid_the_objects_of_a_revision_goes_on_with_all_of_them() {
    let server = Harness::start().await;
    let from = put(&server, "z", "web").await;
    let json = "application/json";
    let mut lines = open(&server, &format!("resourceVersion={from}"), json).await;
    put_at_once(&server, &["a", "b", "c"]).await;
    let first = lines.next().await.unwrap();
    assert_eq!(first["object"]["metadata"]["name"], "a");
    drop(lines);
    // Clients note the version that a line shows.
    let version = first["object"]["metadata"]["resourceVersion"].as_str().unwrap();
    let query = format!("resourceVersion={version}");
    let mut whole = open(&server, &query, json).await;
    let one = format!("{query}&fieldSelector=metadata.name%3Db");
    let mut one = open(&server, &one, json).await;
    let newer = put(&server, "b", "web").await;
    for expected in ["ADDED a", "ADDED b", "ADDED c", "MODIFIED b"] {
        assert_eq!(short(&mut whole).await, expected);
    }
    assert_eq!(short(&mut one).await, "MODIFIED b", "what changed one object was seen");
    drop(whole);
    let mut lines = open(&server, &format!("resourceVersion={newer}"), json).await;
    put(&server, "d", "web").await;
    assert_eq!(short(&mut lines).await, "ADDED d", "it was seen");
}
