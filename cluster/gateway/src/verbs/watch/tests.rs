//! What a watch shows, event by event.

use super::*;
use crate::budget::{Budget, Holder};
use crate::turns::AllTurns;
use impresario_api::catalog::find;
use impresario_objects::{Reader, WatchQuery};
use impresario_registry::MemoryRegistry;
use impresario_registry_api::{Key, Operation, Registry as _, Transaction};
use std::sync::Arc;

fn shape(resource: &Row, view: View) -> Shape {
    Shape { resource: Row::clone(resource), view, include: IncludeObject::Metadata, first: true }
}

async fn write_all(registry: &MemoryRegistry, operations: Vec<Operation>) {
    let written = Transaction { operations, ..Transaction::default() };
    registry.transact(written).await.unwrap();
}

async fn write(registry: &MemoryRegistry, operation: Operation) {
    write_all(registry, vec![operation]).await;
}

fn source(resource: &Row, view: View, watch: ItemWatch) -> Source {
    Source {
        shape: shape(resource, view),
        watch,
        bookmarks: false,
        first: true,
        revision: 0,
        begun: false,
        amid: false,
    }
}

/// The next line that is shown.
async fn line(source: &mut Source) -> Line {
    loop {
        if let Step::Line(line) = source.step().await.unwrap() {
            return line;
        }
    }
}

#[tokio::test]
async fn an_object_that_is_shown_as_it_is_kept_is_never_read() {
    let resource = &find("", "v1", "configmaps").unwrap();
    let registry = MemoryRegistry::new();
    let key = Key::new("configmaps", "default", "a");
    // What is read and written again has no such number.
    let value = r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"},"n":1.50e0}"#;
    let put = || Operation::Put { key: key.clone(), value: value.into() };
    write(&registry, put()).await;
    let reader = Reader::new(Arc::new(registry.clone()));
    let watch = reader.watch_items(resource, WatchQuery::default(), None).await.unwrap();
    let mut source = source(resource, View::Whole, watch);
    let mut shown = Vec::new();
    for (number, kind) in ["ADDED", "MODIFIED", "DELETED"].into_iter().enumerate() {
        let line = line(&mut source).await;
        assert_eq!(line.held > 0, number > 0, "what was there is held by the listing");
        let text = line.pieces.concat();
        assert!(text.windows(6).any(|some| some == b"1.50e0"), "{kind}");
        let told: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(
            (told["type"].as_str(), &told["object"]["kind"]),
            (Some(kind), &json!("ConfigMap"))
        );
        shown.push(told["object"]["metadata"]["resourceVersion"].as_str().unwrap().to_owned());
        let next = if number == 0 { put() } else { Operation::Delete { key: key.clone() } };
        write(&registry, next).await;
    }
    shown.dedup();
    assert_eq!(shown.len(), 3, "each has its own revision");
    assert!(matches!(source.step().await, Some(Step::Nothing)));
    assert_eq!(source.revision.to_string(), shown[2]);
}

#[tokio::test]
async fn many_watches_of_a_change_share_its_line_and_none_gets_that_of_another_form() {
    let resource = &find("", "v1", "configmaps").unwrap();
    let registry = MemoryRegistry::new();
    let reader = Reader::new(Arc::new(registry.clone())).shared();
    let views = [View::Whole, View::Table("v1"), View::Metadata("v1"), View::Metadata("v1beta1")];
    let mut sources = Vec::new();
    for view in views.into_iter().chain(views) {
        let watch = reader.watch_items(resource, WatchQuery::default(), None).await.unwrap();
        sources.push(source(resource, view, watch));
    }
    let key = Key::new("configmaps", "default", "a");
    let value =
        r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"},"data":{"x":"y"}}"#;
    let put = || Operation::Put { key: key.clone(), value: value.into() };
    for operation in [put(), put(), Operation::Delete { key: key.clone() }] {
        write(&registry, operation).await;
    }
    let mut shown: Vec<Vec<Bytes>> = Vec::new();
    for source in &mut sources {
        let mut lines = Vec::new();
        for _ in 0..3 {
            let line = line(source).await;
            lines.push(line.pieces.concat().into());
            if source.shape.view == View::Whole {
                assert_eq!(line.pieces.len(), 1);
            }
        }
        shown.push(lines);
    }
    let (ones, others) = shown.split_at(views.len());
    for (index, kind) in ["ADDED", "MODIFIED", "DELETED"].into_iter().enumerate() {
        let told: Vec<Value> =
            ones.iter().map(|lines| serde_json::from_slice(&lines[index]).unwrap()).collect();
        assert!(told.iter().all(|told| told["type"] == kind), "{told:?}");
        let revision = (index + 1).to_string();
        assert_eq!(told[0]["object"]["metadata"]["resourceVersion"], *revision);
        assert_eq!(told[0]["object"]["data"]["x"], "y");
        assert_eq!(told[1]["object"]["kind"], "Table");
        assert_eq!(told[1]["object"]["columnDefinitions"].is_null(), index > 0, "only the first");
        assert_eq!(told[2]["object"]["apiVersion"], "meta.k8s.io/v1");
        assert_eq!(told[3]["object"]["apiVersion"], "meta.k8s.io/v1beta1");
        assert_eq!(told[3]["object"]["metadata"]["resourceVersion"], *revision);
        for view in [0, 2, 3] {
            assert_eq!(ones[view][index], others[view][index]);
        }
    }
}

#[tokio::test]
async fn amid_the_objects_of_a_revision_no_bookmark_tells_it_and_no_time_is_up() {
    let resource = &find("", "v1", "configmaps").unwrap();
    let registry = MemoryRegistry::new();
    let reader = Reader::new(Arc::new(registry.clone()));
    let query = WatchQuery { initial_events: Some(false), ..WatchQuery::default() };
    let watch = reader.watch_items(resource, query, None).await.unwrap();
    let put = |name: &str| Operation::Put {
        key: Key::new("configmaps", "default", name),
        value: format!(r#"{{"kind":"ConfigMap","metadata":{{"name":"{name}"}}}}"#).into(),
    };
    write_all(&registry, ["a", "b", "c"].map(put).into()).await;
    let share = || Budget::of(1, 1).share(&Holder::named("eve"));
    let mut lines = Lines {
        source: Source { bookmarks: true, begun: true, ..source(resource, View::Whole, watch) },
        turns: AllTurns::new().of_user(Holder::named("eve")),
        tick: tokio::time::interval(BOOKMARK_EVERY), // one is due at once
        end: Instant::now() + Duration::from_hours(1),
        ends: false,
        over: false,
        ready: VecDeque::new(),
        waiting: share(),
        _place: share(),
    };
    let mut shown = Vec::new();
    while let Some(line) = lines.next().await {
        lines.end = Instant::now(); // from the first line on
        let told: Value = serde_json::from_slice(&line.pieces.concat()).unwrap();
        let of = |field: &str| told["object"]["metadata"][field].as_str().unwrap_or("").to_owned();
        shown.push((told["type"].as_str().unwrap().to_owned(), of("name"), of("resourceVersion")));
    }
    // The one that is due and the last one tell the same, and whether the first still comes is the timer's affair.
    shown.dedup();
    let added = |name: &str| ("ADDED".to_owned(), name.to_owned(), "1".to_owned());
    let bookmark = ("BOOKMARK".to_owned(), String::new(), "1".to_owned());
    assert_eq!(shown, [added("a"), added("b"), added("c"), bookmark]);
}
