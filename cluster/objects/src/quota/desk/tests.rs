#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::{Desks, MOST_WAITING, Order};
use crate::{DeleteOptions, Door, ListQuery, Objects, WriteOptions};
use futures_util::future::join_all;
use impresario_api::catalog::find;
use impresario_api::policy::amounts::Amounts;
use impresario_api::resource::Row;
use impresario_api::status::{Reason, Status};
use impresario_registry::MemoryRegistry;
use impresario_registry_api::{
    Around, BoxFuture, Committed, Epoch, Fence, Key, ListRequest, Registry, RegistryHandle,
    Selection, Shard, TransactError, Transaction,
};
use impresario_runtime::tasks;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A registry that counts what is written to it, and whose writes take a turn of everybody else.
#[derive(Default)]
struct Counting {
    registry: MemoryRegistry,
    transactions: AtomicUsize,
}

impl Around for Counting {
    fn inner(&self) -> &dyn Registry {
        &self.registry
    }

    fn transact(
        &self,
        transaction: Transaction,
    ) -> BoxFuture<'_, Result<Committed, TransactError>> {
        Box::pin(async move {
            self.transactions.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            self.registry.transact(transaction).await
        })
    }
}

fn row(plural: &str) -> Row {
    find("", "v1", plural).unwrap()
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

async fn create(objects: &Objects, plural: &str, object: Value) -> Result<Value, Status> {
    objects.create(&row(plural), "default", object, &WriteOptions::default()).await
}

/// A cluster with a quota that has been counted.
async fn with_quota(registry: &Arc<Counting>, hard: Value) -> Objects {
    let objects = Objects::new(registry.clone());
    objects.lay_foundation("authority", 6443).await.unwrap();
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": hard}});
    create(&objects, "resourcequotas", quota).await.unwrap();
    assert!(objects.recount("default").await.unwrap());
    objects
}

async fn used(objects: &Objects) -> Value {
    let quota = objects.get(&row("resourcequotas"), "default", "q").await.unwrap();
    quota["status"]["used"].clone()
}

async fn count(objects: &Objects, plural: &str) -> usize {
    let query = ListQuery { namespace: Some("default".into()), ..ListQuery::default() };
    objects.list(&row(plural), &query).await.unwrap().items.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_hundred_creates_at_once_as_many_pass_as_there_is_room_for() {
    let registry = Arc::<Counting>::default();
    let objects = with_quota(&registry, json!({"pods": "50"})).await;
    // Another member has desks of its own.
    let other = Objects::new(registry.clone());
    let creates = (0..200).map(|index| {
        let objects = if index % 2 == 0 { objects.clone() } else { other.clone() };
        tasks::spawn(async move { create(&objects, "pods", pod(&format!("p{index}"))).await })
    });
    let outcomes = join_all(creates.collect::<Vec<_>>()).await;
    let (mut passed, mut refused) = (0, 0);
    for outcome in outcomes {
        match outcome.unwrap() {
            Ok(_) => passed += 1,
            Err(status) => {
                assert_eq!(status.reason, Reason::Forbidden, "{status}");
                let why = "exceeded quota: q, requested: pods=1, used: pods=50, limited: pods=50";
                assert!(status.message.ends_with(why), "{status}");
                refused += 1;
            }
        }
    }
    assert_eq!((passed, refused), (50, 150));
    assert_eq!(used(&objects).await, json!({"pods": "50"}));
    assert_eq!(count(&objects, "pods").await, 50);
    // What goes is counted anew.
    let query = ListQuery { namespace: Some("default".into()), ..ListQuery::default() };
    for pod in objects.list(&row("pods"), &query).await.unwrap().items.iter().take(20) {
        let name = pod["metadata"]["name"].as_str().unwrap();
        let (delete, write) = (DeleteOptions::default(), WriteOptions::default());
        objects.delete(&row("pods"), "default", name, &delete, &write).await.unwrap();
    }
    assert!(objects.recount("default").await.unwrap());
    assert_eq!(used(&objects).await, json!({"pods": "30"}));
    create(&objects, "pods", pod("again")).await.unwrap();
    assert_eq!(used(&objects).await, json!({"pods": "31"}));
    // A desk is closed by who serves it, a moment after the last was answered.
    let closed = async {
        while objects.desks.open() + other.desks.open() > 0 {
            tokio::task::yield_now().await;
        }
    };
    let limit = std::time::Duration::from_secs(60);
    tokio::time::timeout(limit, closed).await.expect("desks are closed when nobody waits");
}

#[tokio::test]
async fn creates_that_wait_are_few_transactions() {
    let registry = Arc::<Counting>::default();
    let objects = with_quota(&registry, json!({"pods": "1000"})).await;
    let before = registry.transactions.load(Ordering::SeqCst);
    let creates = (0..500).map(|index| {
        let objects = objects.clone();
        async move { create(&objects, "pods", pod(&format!("p{index}"))).await }
    });
    for outcome in join_all(creates).await {
        outcome.unwrap();
    }
    let transactions = registry.transactions.load(Ordering::SeqCst) - before;
    assert!(transactions <= 50, "{transactions} transactions for 500 creates");
    assert_eq!(used(&objects).await, json!({"pods": "500"}));
}

#[tokio::test]
async fn a_name_that_is_taken_keeps_no_other_create_back_and_is_charged_to_nobody() {
    let registry = Arc::<Counting>::default();
    let objects = with_quota(&registry, json!({"pods": "20"})).await;
    create(&objects, "pods", pod("p3")).await.unwrap();
    let creates = (0..10).map(|index| {
        let objects = objects.clone();
        async move { create(&objects, "pods", pod(&format!("p{index}"))).await }
    });
    // Twice the same name among those that wait, too.
    let twice = (0..2).map(|_| {
        let objects = objects.clone();
        async move { create(&objects, "pods", pod("twin")).await }
    });
    let (outcomes, twins) = futures_util::future::join(join_all(creates), join_all(twice)).await;
    for (index, outcome) in outcomes.into_iter().enumerate() {
        match (index, outcome) {
            (3, Err(status)) => assert_eq!(status.reason, Reason::AlreadyExists, "{status}"),
            (3, Ok(_)) => panic!("it was there"),
            (_, outcome) => drop(outcome.unwrap()),
        }
    }
    assert_eq!(twins.iter().filter(|twin| twin.is_ok()).count(), 1);
    assert_eq!(used(&objects).await, json!({"pods": "11"}));
    assert_eq!(count(&objects, "pods").await, 11);
}

#[tokio::test]
async fn a_name_that_is_taken_takes_no_room_from_who_waits_beside_it() {
    let registry = Arc::<Counting>::default();
    let objects = with_quota(&registry, json!({"pods": "3"})).await;
    create(&objects, "pods", pod("p0")).await.unwrap();
    // With the first one, which is there, there would be no room for the third.
    let creates = ["p0", "p1", "p2", "p3"].map(|name| create(&objects, "pods", pod(name)));
    let outcomes = join_all(creates).await;
    let told: Vec<Option<Reason>> =
        outcomes.iter().map(|outcome| outcome.as_ref().err().map(|status| status.reason)).collect();
    assert_eq!(told, [Some(Reason::AlreadyExists), None, None, Some(Reason::Forbidden)]);
    assert_eq!(used(&objects).await, json!({"pods": "3"}));
}

#[tokio::test]
async fn a_quota_that_came_a_moment_ago_is_not_passed_by() {
    let registry = Arc::<Counting>::default();
    let objects = Objects::new(registry.clone());
    objects.lay_foundation("authority", 6443).await.unwrap();
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "0"}}});
    // Whoever is first: a pod that is created after the quota is refused, one that is created before it is counted.
    let (made, pod) = futures_util::future::join(
        create(&objects, "resourcequotas", quota),
        create(&objects, "pods", pod("a")),
    )
    .await;
    made.unwrap();
    assert!(objects.recount("default").await.unwrap());
    let expected = if pod.is_ok() { "1" } else { "0" };
    assert_eq!(used(&objects).await, json!({ "pods": expected }));
    let late = create(&objects, "pods", self::pod("b")).await.unwrap_err();
    assert_eq!(late.code(), 403, "{late}");
}

#[tokio::test]
async fn a_dry_run_is_refused_where_there_is_no_room_and_charges_nothing() {
    let registry = Arc::<Counting>::default();
    let objects = with_quota(&registry, json!({"pods": "1"})).await;
    let dry = WriteOptions { dry_run: true, ..WriteOptions::default() };
    objects.create(&row("pods"), "default", pod("a"), &dry).await.unwrap();
    assert_eq!(used(&objects).await, json!({"pods": "0"}));
    create(&objects, "pods", pod("a")).await.unwrap();
    let refused = objects.create(&row("pods"), "default", pod("b"), &dry).await.unwrap_err();
    assert_eq!(refused.code(), 403, "{refused}");
}

#[tokio::test]
async fn a_change_that_needs_more_is_charged_and_one_for_which_there_is_no_room_refused() {
    let registry = Arc::<Counting>::default();
    let objects = with_quota(&registry, json!({"services.nodeports": "1", "services": "5"})).await;
    for name in ["a", "b"] {
        let service = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
        create(&objects, "services", service).await.unwrap();
    }
    let kubernetes = 1;
    assert_eq!(used(&objects).await["services"], (2 + kubernetes).to_string());
    let to = async |name: &str, kind: &str| {
        let change = |old: &Value| {
            let mut service = old.clone();
            service["spec"]["type"] = kind.into();
            Ok(service)
        };
        let write = WriteOptions::default();
        objects.modify(&row("services"), Door::Main, "default", name, &write, change).await
    };
    to("a", "NodePort").await.unwrap();
    assert_eq!(used(&objects).await["services.nodeports"], "1");
    let refused = to("b", "NodePort").await.unwrap_err();
    assert!(
        refused.message.contains("exceeded quota: q, requested: services.nodeports=1"),
        "{refused}"
    );
    to("a", "ClusterIP").await.unwrap();
    assert!(objects.recount("default").await.unwrap());
    to("b", "NodePort").await.unwrap();
    assert_eq!(used(&objects).await["services.nodeports"], "1");
}

#[tokio::test]
async fn two_namespaces_and_what_no_quota_counts_do_not_wait_for_each_other() {
    let registry = Arc::<Counting>::default();
    let objects = with_quota(&registry, json!({"pods": "0"})).await;
    create(&objects, "secrets", json!({"metadata": {"name": "s"}})).await.unwrap();
    let elsewhere = json!({"metadata": {"name": "other"}});
    objects.create(&row("namespaces"), "", elsewhere, &WriteOptions::default()).await.unwrap();
    let write = WriteOptions::default();
    objects.create(&row("pods"), "other", pod("a"), &write).await.unwrap();
    assert_eq!(create(&objects, "pods", pod("a")).await.unwrap_err().code(), 403);
}

#[tokio::test]
async fn what_is_there_already_is_told_so_where_a_quota_is_full_and_the_foundation_is_laid_again() {
    let registry = Arc::<Counting>::default();
    let objects = with_quota(&registry, json!({"configmaps": "1"})).await;
    let authority = json!({"metadata": {"name": "kube-root-ca.crt"}});
    let taken = create(&objects, "configmaps", authority).await.unwrap_err();
    assert_eq!(taken.reason, Reason::AlreadyExists, "{taken}");
    let more = create(&objects, "configmaps", json!({"metadata": {"name": "m"}})).await;
    assert_eq!(more.unwrap_err().code(), 403);
    objects.lay_foundation("authority", 6443).await.unwrap();
    // What there is no room for keeps nothing else from being laid.
    let (delete, write) = (DeleteOptions::default(), WriteOptions::default());
    let name = "kube-root-ca.crt";
    objects.delete(&row("configmaps"), "default", name, &delete, &write).await.unwrap();
    objects.recount("default").await.unwrap();
    create(&objects, "configmaps", json!({"metadata": {"name": "m"}})).await.unwrap();
    objects.delete(&row("services"), "default", "kubernetes", &delete, &write).await.unwrap();
    let told = objects.lay_foundation("authority", 6443).await.unwrap_err();
    assert!(told.message.contains("exceeded quota: q"), "{told}");
    objects.get(&row("services"), "default", "kubernetes").await.unwrap();
}

#[tokio::test]
async fn until_a_quota_is_counted_what_needs_no_more_than_before_may_change_and_go() {
    let registry = Arc::<Counting>::default();
    let objects = Objects::new(registry.clone());
    objects.lay_foundation("authority", 6443).await.unwrap();
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"services": "5"}}});
    create(&objects, "resourcequotas", quota).await.unwrap();
    let change = |old: &Value| {
        let mut service = old.clone();
        service["metadata"]["labels"]["a"] = "b".into();
        service["metadata"]["finalizers"] = json!(["example.com/kept"]);
        Ok(service)
    };
    let (write, name) = (WriteOptions::default(), "kubernetes");
    objects.modify(&row("services"), Door::Main, "default", name, &write, change).await.unwrap();
    // The mark of a deletion is a change, too.
    let delete = DeleteOptions::default();
    objects.delete(&row("services"), "default", name, &delete, &write).await.unwrap();
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    let unknown = create(&objects, "services", service).await.unwrap_err();
    assert!(unknown.message.contains("status unknown for quota: q"), "{unknown}");
}

#[test]
fn a_kind_that_comes_after_its_quota_is_counted() {
    let desks = Desks::default();
    let mut widgets = row("pods").as_ref().clone();
    (widgets.group, widgets.plural) = ("example.com".into(), "widgets".into());
    assert_eq!(desks.counts("ns", 7, &widgets), None);
    // Of the names that quotas bound none need be one of a kind that is served by then.
    let names = ["count/widgets.example.com".to_owned()].into();
    desks.remember("ns", (7, names));
    assert_eq!(desks.counts("ns", 7, &widgets), Some(true));
    assert_eq!(desks.counts("ns", 7, &row("pods")), Some(false));
    assert_eq!(desks.counts("ns", 8, &row("pods")), None);
}

fn order(name: &str) -> Order {
    let transaction = Transaction::create(Key::new("pods", "ns", name), "{}");
    Order {
        resource: row("pods"),
        object: json!({}),
        usage: Amounts::new(),
        name: name.to_owned(),
        transaction,
    }
}

#[tokio::test]
async fn a_desk_is_full_at_some_time_and_closed_when_nobody_waits_any_more() {
    let registry: RegistryHandle = Arc::<Counting>::default();
    let desks = Desks::default();
    let mut waiting = Vec::new();
    // The desk is served by a task that has no turn before this one rests.
    for index in 0..MOST_WAITING {
        let (desks, registry, order) =
            (desks.clone(), registry.clone(), order(&format!("p{index}")));
        let mut place = Box::pin(async move { desks.place(&registry, "ns", order).await });
        assert!(futures_util::poll!(&mut place).is_pending());
        waiting.push(place);
    }
    let crowded = desks.place(&registry, "ns", order("more")).await.unwrap_err();
    assert_eq!((crowded.code(), crowded.retry_after), (429, Some(1)), "{crowded}");
    // Who gives up before it was taken was not created; the others are.
    assert!(desks.give_up("ns", 0) && !desks.give_up("ns", 0));
    drop(waiting.split_off(10));
    let limit = std::time::Duration::from_secs(60);
    let rest = tokio::time::timeout(limit, join_all(waiting)).await.expect("in time");
    assert_eq!(rest.iter().filter(|outcome| matches!(outcome, Ok(Ok(_)))).count(), 9);
    let listed = registry.list(ListRequest::of(Selection::all("pods"))).await.unwrap();
    assert_eq!(listed.entries.len(), 9, "who listens no more was not created");
    let closed = async {
        while desks.open() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(limit, closed).await.expect("it is closed");
}

#[tokio::test]
async fn who_has_lost_its_shard_creates_nothing_and_keeps_nobody_else_back() {
    let registry = Arc::<Counting>::default();
    let objects = with_quota(&registry, json!({"pods": "20"})).await;
    registry.registry.assign_shards(&["m1".to_owned()]);
    let by =
        |shard: u8, epoch: u64| objects.fenced(Fence { shard: Shard(shard), epoch: Epoch(epoch) });
    let creates = (0..12).map(|index| {
        // Two that hold their shards, one that does not, and one that needs none.
        let objects = match index % 4 {
            0 => by(1, 1),
            1 => by(2, 1),
            2 => by(3, 7),
            _ => objects.clone(),
        };
        async move { create(&objects, "pods", pod(&format!("p{index}"))).await }
    });
    for (index, outcome) in join_all(creates).await.into_iter().enumerate() {
        match outcome {
            Err(status) => assert!(index % 4 == 2 && status.is_fenced(), "{index}: {status}"),
            Ok(_) => assert_ne!(index % 4, 2),
        }
    }
    assert_eq!(used(&objects).await, json!({"pods": "9"}));
}
