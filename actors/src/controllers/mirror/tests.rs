//! A mirror against a registry in memory.

use super::super::any_mirror::AnyMirror;
use super::*;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use impresario_registry::{Key, MemoryRegistry, Operation, Registry, Transaction};
use impresario_registry_api::{Around, Page, Watch, WatchError, WatchRequest};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

const LIMIT: Duration = Duration::from_secs(10);

async fn write(registry: &MemoryRegistry, operation: Operation) -> Revision {
    let transaction = Transaction { operations: vec![operation], ..Transaction::default() };
    registry.transact(transaction).await.unwrap().revision
}

fn put(name: &str, owner: &str) -> Operation {
    let pod = json!({"metadata": {"name": name, "namespace": "a",
        "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": owner,
            "controller": true}]}});
    let key = Key::new("pods", "a", name);
    Operation::Put { key, value: pod.to_string().into_bytes().into() }
}

#[tokio::test]
async fn a_mirror_shows_what_was_there_and_what_comes_and_goes() {
    let registry = MemoryRegistry::default();
    write(&registry, put("before", "one")).await;
    let mirror: Mirror<Pod> = Mirror::start(Arc::new(registry.clone()), "pods");
    let mut changes = mirror.changes();
    mirror.reached(1, LIMIT).await.unwrap();
    assert_eq!(mirror.controlled_by("a", "one").len(), 1);

    let revision = write(&registry, put("after", "one")).await;
    mirror.reached(revision, LIMIT).await.unwrap();
    assert_eq!(mirror.controlled_by("a", "one").len(), 2);
    assert_eq!(mirror.within("a").len(), 2);
    assert_eq!(mirror.within("b").len(), 0);

    let revision = write(&registry, put("after", "two")).await;
    mirror.reached(revision, LIMIT).await.unwrap();
    assert_eq!(
        mirror.controlled_by("a", "one").len(),
        1,
        "an owner that was taken off is forgotten"
    );

    let key = Key::new("pods", "a", "before");
    let revision = write(&registry, Operation::Delete { key }).await;
    mirror.reached(revision, LIMIT).await.unwrap();
    assert!(mirror.get("a", "before").is_none());
    assert!(mirror.controlled_by("a", "one").is_empty());

    let mut seen = Vec::new();
    while let Some(change) = changes.try_next() {
        seen.push(match change {
            Change::Put { now, .. } => format!("put {}", now.entry.key.name),
            Change::Deleted { before } => format!("deleted {}", before.entry.key.name),
            Change::Everything => "everything".into(),
        });
    }
    assert_eq!(seen, ["everything", "put after", "put after", "deleted before"]);
}

#[tokio::test]
async fn only_what_a_controller_has_in_its_own_namespace_is_controlled_by_it() {
    let registry = MemoryRegistry::default();
    let pod = |namespace: &str, name: &str, controller: Option<bool>| {
        let pod = json!({"metadata": {"name": name, "namespace": namespace,
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "j",
                "uid": "u", "controller": controller}]}});
        let key = Key::new("pods", namespace, name);
        Operation::Put { key, value: pod.to_string().into_bytes().into() }
    };
    for (namespace, name, controller) in [
        ("a", "m-others", Some(true)),
        ("b", "a-helper", None),
        ("b", "m", Some(true)),
        ("b", "z-helper", Some(false)),
        ("c", "z-others", Some(true)),
    ] {
        write(&registry, pod(namespace, name, controller)).await;
    }
    let mirror: Mirror<Pod> = Mirror::start(Arc::new(registry), "pods");
    mirror.reached(1, LIMIT).await.unwrap();
    let held = mirror.controlled_by("b", "u");
    assert_eq!(held.iter().map(|pod| &pod.entry.key.name).collect::<Vec<_>>(), ["m"]);
}

#[tokio::test]
async fn an_object_that_cannot_be_read_any_more_is_left_out_as_a_list_leaves_it_out() {
    let registry = MemoryRegistry::default();
    write(&registry, put("a", "one")).await;
    let mirror: Mirror<Pod> = Mirror::start(Arc::new(registry.clone()), "pods");
    mirror.reached(1, LIMIT).await.unwrap();
    assert!(mirror.get("a", "a").is_some());
    let damaged = Operation::Put { key: Key::new("pods", "a", "a"), value: "{\"spec\": 1}".into() };
    let revision = write(&registry, damaged).await;
    mirror.reached(revision, LIMIT).await.unwrap();
    assert!(mirror.get("a", "a").is_none());
    assert!(mirror.controlled_by("a", "one").is_empty());
}

#[tokio::test]
async fn what_the_type_cannot_read_is_there_for_who_looks_at_metadata_alone() {
    let registry = MemoryRegistry::default();
    write(&registry, put("a", "one")).await;
    let pods: Mirror<Pod> = Mirror::start(Arc::new(registry.clone()), "pods");
    let mirror: &dyn AnyMirror = &pods;
    pods.reached(1, LIMIT).await.unwrap();
    let mut changes = mirror.stream();
    let mut next = async || match tokio::time::timeout(LIMIT, changes.next()).await {
        Ok(Some(Change::Put { now, .. })) => format!("put {}", now.entry.key.name),
        Ok(Some(Change::Deleted { before })) => format!("deleted {}", before.entry.key.name),
        other => format!("{other:?}"),
    };
    let damaged = json!({"metadata": {"name": "a", "namespace": "a", "uid": "u", "ownerReferences": [
        {"apiVersion": "v1", "kind": "X", "name": "x", "uid": "two"}]}, "spec": 1});
    let key = Key::new("pods", "a", "a");
    let value = damaged.to_string().into_bytes().into();
    let revision = write(&registry, Operation::Put { key: key.clone(), value }).await;
    pods.reached(revision, LIMIT).await.unwrap();
    let mut told = [next().await, next().await];
    told.sort();
    assert_eq!(told, ["deleted a", "put a"]);
    assert!(pods.get("a", "a").is_none() && pods.all().is_empty());
    let shown = mirror.get("a", "a").unwrap();
    assert_eq!(shown.object.meta().uid.as_deref(), Some("u"));
    assert_eq!(mirror.picked(&|_, _| true).len(), 1);
    assert_eq!((mirror.is_owned_by("one"), mirror.is_owned_by("two")), (false, true));

    let mended = write(&registry, put("a", "three")).await;
    pods.reached(mended, LIMIT).await.unwrap();
    assert_eq!((mirror.picked(&|_, _| true).len(), pods.all().len()), (1, 1));
    assert_eq!((mirror.is_owned_by("two"), mirror.is_owned_by("three")), (false, true));
    assert_eq!(next().await, "put a");
    let value = damaged.to_string().into_bytes().into();
    write(&registry, Operation::Put { key: key.clone(), value }).await;
    let gone = write(&registry, Operation::Delete { key }).await;
    pods.reached(gone, LIMIT).await.unwrap();
    assert!(mirror.picked(&|_, _| true).is_empty() && !mirror.is_owned_by("two"));
}

#[tokio::test]
async fn waiting_for_a_revision_that_never_comes_ends_with_what_was_seen() {
    let registry = MemoryRegistry::default();
    let mirror: Mirror<Pod> = Mirror::start(Arc::new(registry.clone()), "pods");
    let behind = mirror.reached(1_000, Duration::from_millis(20)).await.unwrap_err();
    assert_eq!(behind.wanted, 1_000);
}

#[tokio::test]
async fn a_burst_of_changes_makes_no_reader_that_keeps_up_look_at_everything() {
    let registry = MemoryRegistry::default();
    let mirror: Mirror<Pod> = Mirror::start(Arc::new(registry.clone()), "pods");
    mirror.reached(1, LIMIT).await.unwrap();
    let mut changes = mirror.changes();
    // On one thread, without a pause for anybody else: the mirror hears of all of them at once.
    let names: Vec<String> = (0..CHANGES * 3).map(|number| format!("p{number:04}")).collect();
    for name in &names {
        write(&registry, put(name, "one")).await;
    }
    for name in &names {
        let change = tokio::time::timeout(LIMIT, changes.next()).await.unwrap();
        let Some(Change::Put { now, .. }) = change else {
            panic!("before {name} some were missed")
        };
        assert_eq!(now.entry.key.name, *name);
    }
}

#[tokio::test]
async fn one_listing_answers_all_that_ask_about_a_time_before_it() {
    let registry = MemoryRegistry::default();
    let mirror: Mirror<Pod> = Mirror::start(Arc::new(registry.clone()), "pods");
    let before = Instant::now();
    let first = write(&registry, put("first", "one")).await;
    assert_eq!(mirror.newest(before).await, Ok(first));
    let second = write(&registry, put("second", "one")).await;
    assert_eq!(mirror.newest(before).await, Ok(first), "it is not listed again");
    assert_eq!(mirror.newest(Instant::now()).await, Ok(second));
}

/// A registry of which each watch ends after so many batches, with this error, and that counts its lists.
struct Fitful {
    inner: MemoryRegistry,
    batches: usize,
    ends: WatchError,
    lists: std::sync::atomic::AtomicUsize,
}

impl Around for Fitful {
    fn inner(&self) -> &dyn Registry {
        &self.inner
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<Page, ReadError>> {
        self.lists.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        self.inner.list(request)
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Watch, WatchError>> {
        Box::pin(async move {
            let watch = self.inner.watch(request).await?;
            let end = futures_util::stream::iter([Err(self.ends.clone())]);
            Ok(Watch::new(watch.take(self.batches).chain(end)))
        })
    }
}

/// The changes that a mirror of this registry tells of while ten pods come, and how often it has listed all.
async fn told_of_ten(ends: WatchError) -> (Vec<String>, usize) {
    let inner = MemoryRegistry::default();
    let lists = std::sync::atomic::AtomicUsize::new(0);
    let fitful = Arc::new(Fitful { inner: inner.clone(), batches: 1, ends, lists });
    let mirror: Mirror<Pod> = Mirror::start(fitful.clone(), "pods");
    mirror.reached(1, LIMIT).await.unwrap();
    let mut changes = mirror.changes();
    for number in 0..10 {
        let revision = write(&inner, put(&format!("p{number}"), "one")).await;
        mirror.reached(revision, LIMIT).await.unwrap();
    }
    assert_eq!(mirror.within("a").len(), 10);
    let mut told = Vec::new();
    while let Some(change) = changes.try_next() {
        told.push(match change {
            Change::Put { now, .. } => now.entry.key.name,
            Change::Deleted { .. } => "deleted".into(),
            Change::Everything => "everything".into(),
        });
    }
    (told, fitful.lists.load(std::sync::atomic::Ordering::SeqCst))
}

#[tokio::test]
async fn a_watch_that_ends_is_taken_up_where_it_was_and_nothing_is_listed_anew() {
    let (told, lists) = told_of_ten(WatchError::Closed).await;
    let names: Vec<_> = (0..10).map(|number| format!("p{number}")).collect();
    assert_eq!((told, lists), (names, 1));
}

#[tokio::test]
async fn what_is_no_longer_kept_is_listed_anew() {
    let (told, lists) = told_of_ten(WatchError::Gone { oldest: 1 }).await;
    assert!(told.contains(&"everything".to_owned()) && lists > 1, "{told:?} {lists}");
}

thread_local! {
    /// What happens whenever an object of this thread's test is read.
    static WHEN_READ: std::cell::RefCell<Box<dyn FnMut()>> = std::cell::RefCell::new(Box::new(|| ()));
}

/// A pod, while which is read something happens.
struct Slow(Pod);

impl<'de> serde::Deserialize<'de> for Slow {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        WHEN_READ.with_borrow_mut(|happens| happens());
        <Pod as serde::Deserialize>::deserialize(from).map(Self)
    }
}

impl k8s_openapi::Resource for Slow {
    const API_VERSION: &'static str = Pod::API_VERSION;
    const GROUP: &'static str = Pod::GROUP;
    const KIND: &'static str = Pod::KIND;
    const VERSION: &'static str = Pod::VERSION;
    const URL_PATH_SEGMENT: &'static str = Pod::URL_PATH_SEGMENT;
    type Scope = k8s_openapi::NamespaceResourceScope;
}

impl k8s_openapi::Metadata for Slow {
    type Ty = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    fn metadata(&self) -> &Self::Ty {
        self.0.metadata()
    }

    fn metadata_mut(&mut self) -> &mut Self::Ty {
        self.0.metadata_mut()
    }
}

/// A registry whose history is short: of two changes later a watch finds it gone.
struct Hasty {
    inner: MemoryRegistry,
    lists: AtomicUsize,
}

impl Around for Hasty {
    fn inner(&self) -> &dyn Registry {
        &self.inner
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<Page, ReadError>> {
        self.lists.fetch_add(1, SeqCst);
        self.inner.list(request)
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Watch, WatchError>> {
        Box::pin(async move {
            let newest = self.inner.list(ListRequest::default()).await.map(|page| page.revision);
            let newest = newest.unwrap_or(Revision::MAX);
            if newest > request.after + 2 {
                return Err(WatchError::Gone { oldest: newest });
            }
            self.inner.watch(request).await
        })
    }
}

#[tokio::test]
async fn a_mirror_is_filled_however_much_changes_while_it_is_read_and_keeps_nobody_from_looking() {
    const PODS: usize = 1_000;
    let inner = MemoryRegistry::default();
    for number in 0..PODS {
        write(&inner, put(&format!("p{number:04}"), "one")).await;
    }
    let hasty = Arc::new(Hasty { inner: inner.clone(), lists: AtomicUsize::default() });
    let mirror: Mirror<Slow> = Mirror::start(hasty.clone(), "pods");
    let others = Arc::new(AtomicUsize::new(0));
    let count = others.clone();
    let _others = Aborting(tokio::spawn(async move {
        loop {
            count.fetch_add(1, SeqCst);
            tokio::task::yield_now().await;
        }
    }));
    let (looker, mut read) = (mirror.clone(), 0);
    let locked = Arc::new(AtomicUsize::new(0));
    let (counts, at_first) = (locked.clone(), others.clone());
    let turns = Arc::new(AtomicUsize::new(0));
    let turned = turns.clone();
    let writer = inner.clone();
    WHEN_READ.set(Box::new(move || {
        read += 1;
        if looker.shared.state.try_read().is_none() {
            counts.fetch_add(1, SeqCst);
        }
        let now = at_first.load(SeqCst);
        if read == 1 {
            turned.store(now, SeqCst);
        } else if read == PODS {
            turned.store(now - turned.load(SeqCst), SeqCst);
        }
        // While it is read, one goes, one changes and one comes, before and behind what was read.
        let operations = match read {
            200 => vec![Operation::Delete { key: Key::new("pods", "a", "p0900") }],
            201 => vec![Operation::Delete { key: Key::new("pods", "a", "p0000") }],
            202 => vec![put("p0100", "two"), put("p0901", "two")],
            203 => vec![put("q", "two")],
            _ => return,
        };
        let transaction = Transaction { operations, ..Transaction::default() };
        writer.transact(transaction).now_or_never().expect("at once").unwrap();
    }));
    mirror.reached(1, LIMIT).await.unwrap();
    assert_eq!(locked.load(SeqCst), 0, "who looked had to wait");
    assert!(turns.load(SeqCst) > 5, "it let nobody else have the thread");
    assert_eq!(hasty.lists.load(SeqCst), 1, "it went back to the list");
    assert_eq!(mirror.all().len(), PODS - 1);
    assert!(mirror.get("a", "p0000").is_none() && mirror.get("a", "p0900").is_none());
    let changed = mirror.controlled_by("a", "two");
    let changed: Vec<_> = changed.iter().map(|seen| seen.entry.key.name.as_str()).collect();
    assert_eq!(changed, ["p0100", "p0901", "q"]);
    assert!(mirror.revision() >= 1_004, "it has seen all of that: {}", mirror.revision());

    // A change is read before anybody is kept from looking, too.
    let revision = write(&inner, put("q", "three")).await;
    mirror.reached(revision, LIMIT).await.unwrap();
    assert_eq!(mirror.controlled_by("a", "three").len(), 1);
    assert_eq!(locked.load(SeqCst), 0, "who looked had to wait");
    WHEN_READ.set(Box::new(|| ()));
}

/// Ends a task with its test.
struct Aborting(JoinHandle<()>);

impl Drop for Aborting {
    fn drop(&mut self) {
        self.0.abort();
    }
}
