//! One member: the registry of a laptop.

use crate::harness::*;
use futures_util::StreamExt;
use impresario_registry::{
    Consistency, Heartbeat, Key, ListRequest, Selection, TransactError, Transaction, WatchRequest,
    disk::DiskError,
    member::{StartError, leases::LEASE},
};
use std::{fs, path::Path};

#[test]
fn a_member_alone_remembers_what_it_acknowledged() {
    run(async {
        let cluster = Cluster::new();
        let node = cluster.node("n1").await;
        for life in 0..3 {
            let member = cluster.start(&node, found()).await.unwrap();
            let registry = member.handle();
            assert_eq!(pods(&registry).await, life * 300);
            let writes = (0..300).map(|n| put(&registry, format!("{life}-{n}")));
            futures_util::future::join_all(writes).await;
            let status = member.status();
            assert_eq!((status.id, status.leader.as_deref()), (1, Some("n1")));
            // So many entries make a snapshot, which is written beside.
            let snapshot = cluster.directory("n1").join("snapshots/snapshot");
            until("a snapshot", async || (snapshot.exists(), ())).await;
            member.stop().await;
        }
        let member = cluster.start(&node, found()).await.unwrap();
        assert_eq!(pods(&member.handle()).await, 900);
        member.stop().await;
    });
}

#[test]
fn a_watch_goes_on_after_a_restart_where_it_was() {
    run(async {
        let cluster = Cluster::new();
        let node = cluster.node("n1").await;
        let member = cluster.start(&node, found()).await.unwrap();
        for n in 0..50 {
            put(&member.handle(), n).await;
        }
        member.stop().await;
        let member = cluster.start(&node, found()).await.unwrap();
        let request = WatchRequest { select: Selection::all("pods"), after: 20, bookmarks: false };
        let _fresh = pods(&member.handle()).await;
        let watch = member.handle().watch(request).await.unwrap();
        let revisions: Vec<_> = watch.take(30).map(|batch| batch.unwrap().revision).collect().await;
        assert_eq!(revisions, (21..=50).collect::<Vec<_>>());
        member.stop().await;
    });
}

#[test]
fn shards_are_held_and_an_old_epoch_is_refused() {
    run(async {
        let cluster = Cluster::new();
        let node = cluster.node("n1").await;
        let member = cluster.start(&node, found()).await.unwrap();
        let mut shards = member.shards();
        let held = shards.wait_for(|table| table.held_by("n1").count() == 64);
        let (shard, epoch) =
            tokio::time::timeout(LIMIT, held).await.unwrap().unwrap().held_by("n1").next().unwrap();
        let fence = impresario_registry::Fence { shard, epoch };
        let registry = member.handle();
        registry.transact(Transaction::create(pod("a"), "{}").fenced(fence)).await.unwrap();
        let stale =
            impresario_registry::Fence { shard, epoch: impresario_registry::Epoch(epoch.0 - 1) };
        let refused =
            registry.transact(Transaction::create(pod("b"), "{}").fenced(stale)).await.unwrap_err();
        assert!(matches!(refused, TransactError::Fenced { .. }), "{refused}");
        member.stop().await;
    });
}

#[test]
fn a_list_of_the_past_pages_as_it_was() {
    run(async {
        let cluster = Cluster::new();
        let node = cluster.node("n1").await;
        let member = cluster.start(&node, found()).await.unwrap();
        let registry = member.handle();
        for n in 0..4 {
            put(&registry, n).await;
        }
        let first = ListRequest { limit: Some(2), ..ListRequest::of(Selection::all("pods")) };
        let page = registry.list(first.clone()).await.unwrap();
        registry.transact(Transaction::new().delete(pod(3)).put(pod(9), "{}")).await.unwrap();
        let last = page.entries[1].key.clone();
        let after = Some((last.namespace, last.name));
        let rest =
            registry.list(ListRequest { after, at: Some(page.revision), ..first }).await.unwrap();
        let names: Vec<_> = rest.entries.into_iter().map(|entry| entry.key.name).collect();
        assert_eq!(names, ["2", "3"]);
        let (missing, _) = registry.get(pod(3), Consistency::Linearizable).await.unwrap();
        assert_eq!(missing, None);
        member.stop().await;
    });
}

fn flip_in_the_middle(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_log_or_snapshot_is_refused_by_name() {
    run(async {
        let cluster = Cluster::new();
        let node = cluster.node("n1").await;
        let member = cluster.start(&node, found()).await.unwrap();
        let registry = member.handle();
        futures_util::future::join_all((0..500).map(|n| put(&registry, n))).await;
        let log = cluster.directory("n1").join(format!("log/{:020}.log", 1));
        let snapshot = cluster.directory("n1").join("snapshots/snapshot");
        until("a snapshot", async || (snapshot.exists(), ())).await;
        member.stop().await;
        for path in [log, snapshot] {
            let sound = fs::read(&path).unwrap();
            flip_in_the_middle(&path);
            let error = cluster.start(&node, found()).await.unwrap_err();
            assert!(matches!(error, StartError::Disk(DiskError::Corrupt { .. })), "{error:?}");
            let text = error.to_string();
            assert!(
                text.contains(path.to_str().unwrap()) && text.contains("remove this member"),
                "{text}"
            );
            fs::write(&path, sound).unwrap();
        }
        let member = cluster.start(&node, found()).await.unwrap();
        assert_eq!(pods(&member.handle()).await, 500);
        member.stop().await;
    });
}

#[test]
fn a_saved_snapshot_holds_what_was_acknowledged() {
    run(async {
        let cluster = Cluster::new();
        let node = cluster.node("n1").await;
        let member = cluster.start(&node, found()).await.unwrap();
        put(&member.handle(), "a").await;
        let path = cluster.directory("saved");
        let revision = member.snapshot_save(path.clone()).await.unwrap();
        let (_, image) = impresario_registry::raft::snapshot::load(&path).unwrap().unwrap();
        assert_eq!((image.revision(), revision), (1, 1));
        member.stop().await;
    });
}

#[test]
fn large_values_are_taken_and_cut_the_log_by_size() {
    run(async {
        let cluster = Cluster::new();
        let node = cluster.node("n1").await;
        let mut config = cluster.config(&node, found());
        config.timing.snapshot_bytes = 4 << 20;
        let member = impresario_registry::Member::start(config).await.unwrap();
        let registry = member.handle();
        let large = |n: usize| {
            Transaction::new().put(Key::new("configmaps", "d", n.to_string()), vec![b'x'; 1 << 20])
        };
        for n in 0..24 {
            registry.transact(large(n % 3)).await.unwrap();
        }
        let too_large = Transaction::new().put(pod("a"), vec![b'x'; 4 << 20]);
        assert!(matches!(registry.transact(too_large).await, Err(TransactError::TooLarge { .. })));
        let log = cluster.directory("n1").join("log");
        until("a short log", async || {
            // What is removed meanwhile takes nothing any more.
            let sizes = fs::read_dir(&log).unwrap().filter_map(|entry| entry.ok()?.metadata().ok());
            let size: u64 = sizes.map(|metadata| metadata.len()).sum();
            (size < 20 << 20, size)
        })
        .await;
        member.stop().await;
    });
}

#[test]
fn a_directory_in_use_or_of_another_node_is_refused() {
    run(async {
        let cluster = Cluster::new();
        let (n1, n2) = (cluster.node("n1").await, cluster.node("n2").await);
        let member = cluster.start(&n1, found()).await.unwrap();
        put(&member.handle(), "a").await;
        let mut config = cluster.config(&n2, found());
        config.directory = cluster.directory("n1");
        let busy =
            impresario_registry::Member::start(config.clone()).await.unwrap_err().to_string();
        assert!(busy.contains("another process"), "{busy}");
        member.stop().await;
        let foreign = impresario_registry::Member::start(config).await.unwrap_err().to_string();
        assert!(foreign.contains("\"n1\""), "{foreign}");
        // Who was refused has changed nothing: the directory is still its owner's.
        let member = cluster.start(&n1, found()).await.unwrap();
        assert_eq!((member.id(), pods(&member.handle()).await), (1, 1));
        member.stop().await;
    });
}

#[test]
fn a_node_that_falls_silent_grows_old_at_the_leader() {
    run(async {
        let cluster = Cluster::new();
        let node = cluster.node("n1").await;
        let member = cluster.start(&node, found()).await.unwrap();
        let beat = Heartbeat { node: "worker".to_owned(), incarnation: 1, ready: true };
        until("a leader that hears", async || {
            let heard = member.heartbeat(beat.clone()).await;
            (heard.is_ok(), heard)
        })
        .await
        .unwrap();
        // A leader without others goes on judging; a machine that stood still may keep it from it for a moment.
        until("a silence longer than a lease", async || {
            let age = member.heartbeats().map(|heard| heard.nodes[0].age);
            (age.is_some_and(|age| age > LEASE + LEASE / 10), age)
        })
        .await;
        member.stop().await;
    });
}

#[test]
fn nothing_that_was_told_is_untold_by_a_member_that_has_just_started() {
    run(async {
        let cluster = Cluster::new();
        let node = cluster.node("n1").await;
        let directory = cluster.directory("n1");
        let member = cluster.start(&node, found()).await.unwrap();
        put(&member.handle(), "a").await;
        member.handle().transact(Transaction::new().delete(pod("a"))).await.unwrap();
        let revision = put(&member.handle(), "b").await;
        // The power is cut here: how far the log is committed is not on the disk yet.
        let cut = tempfile::tempdir().unwrap();
        image(&directory, cut.path());
        member.stop().await;
        fs::remove_dir_all(&directory).unwrap();
        image(cut.path(), &directory);
        let member = cluster.start(&node, found()).await.unwrap();
        let registry = member.handle();
        let (gone, seen) = registry.get(pod("a"), Consistency::Local).await.unwrap();
        assert_eq!((gone, seen), (None, revision), "it was acknowledged that it is deleted");
        let list = ListRequest {
            consistency: Consistency::Local,
            ..ListRequest::of(Selection::all("pods"))
        };
        assert_eq!(registry.list(list).await.unwrap().entries.len(), 1);
        member.stop().await;
    });
}

#[test]
fn a_list_of_a_page_says_what_is_behind_it() {
    run(async {
        let cluster = Cluster::new();
        let node = cluster.node("n1").await;
        let member = cluster.start(&node, found()).await.unwrap();
        let registry = member.handle();
        let writes = (0..1200).map(|n| {
            let value = format!(r#"{{"spec":{{"nodeName":"m{}"}}}}"#, n % 3);
            let key = pod(format!("{n:04}"));
            let registry = registry.clone();
            async move { registry.transact(Transaction::create(key, value)).await.unwrap() }
        });
        futures_util::future::join_all(writes).await;
        let all = Selection::all("pods");
        let page = |select: Selection, limit: usize| {
            let request = ListRequest { limit: Some(limit), ..ListRequest::of(select) };
            let registry = registry.clone();
            async move {
                let page = registry.list(request).await.unwrap();
                (page.entries.len(), page.remaining)
            }
        };
        assert_eq!(page(all.clone(), 5).await, (5, 1195));
        assert_eq!(page(all.clone(), 1200).await, (1200, 0));
        let of_one = all.clone().with_field("/spec/nodeName", "m1");
        assert_eq!(page(of_one.clone(), 5).await, (5, 1), "there is more");
        assert_eq!(page(of_one, 400).await, (400, 0));
        member.stop().await;
    });
}
