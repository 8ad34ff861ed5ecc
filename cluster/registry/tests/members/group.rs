//! Three members: leaders lost, members that lag, are cut off, and those who reach them from elsewhere.

use crate::{harness::*, three::Group};
use futures_util::StreamExt;
use impresario_registry::{
    Compare, Consistency, Epoch, Fence, Heartbeat, Member, RegistryHandle, RemoteRegistry,
    Selection, TransactError, Transaction, WatchRequest,
};
use impresario_runtime::{ActorNode, Direction, FaultRule, NodeName, PeerRole};
use openraft::entry::RaftEntry;
use std::{sync::Arc, time::Duration};

#[test]
fn writes_outlive_the_leader_and_any_member_takes_them() {
    run(async {
        let mut group = Group::new().await;
        for n in 0..30 {
            put(&group.handle(n % 3), n).await;
        }
        let leader = group.leader().await;
        group.stop(leader).await;
        let other = *group.members.keys().next().unwrap();
        for n in 30..60 {
            put(&group.handle(other), n).await;
        }
        assert_eq!(pods(&group.handle(other)).await, 60);
        group.start(leader).await.unwrap();
        group.whole().await;
        group.agree_on(60).await;
        group.end().await;
    });
}

#[test]
fn a_member_that_lags_behind_the_log_catches_up_by_snapshot() {
    run(async {
        let mut group = Group::new().await;
        let lagging = group.follower().await;
        let before = group.members[&lagging].status().applied;
        group.stop(lagging).await;
        let leader = group.leader().await;
        let registry = group.handle(leader);
        for round in 0..5 {
            let writes = (0..200).map(|n| put(&registry, format!("{round}-{n}")));
            futures_util::future::join_all(writes).await;
        }
        // What it misses is in nobody's log any more: only a snapshot can bring it.
        for index in group.members.keys().copied().collect::<Vec<_>>() {
            let directory = group.cluster.directory(group.nodes[index].name().as_str());
            until("a log that begins behind what the other has", async || {
                let first = entries(&directory).await.first().map(|entry| entry.log_id().index);
                (first.is_some_and(|first| first > before + 1), first)
            })
            .await;
        }
        group.start(lagging).await.unwrap();
        group.agree_on(1000).await;
        group.end().await;
    });
}

#[test]
fn a_compare_lets_one_of_many_writers_through() {
    run(async {
        let group = Group::calm().await;
        create(&group.handle(0), "x").await;
        let writers = (0..12).map(|n| {
            let registry = group.handle(n % 3);
            async move {
                let compare = Compare::Revision { key: pod("x"), revision: 1 };
                registry.transact(Transaction::new().when(compare).put(pod("x"), "{}")).await
            }
        });
        let outcomes = futures_util::future::join_all(writers).await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
        let refused =
            |error: &TransactError| matches!(error, TransactError::Conflict { found: 2, .. });
        assert!(
            outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).all(refused),
            "{outcomes:?}"
        );
        group.end().await;
    });
}

#[test]
fn a_fresh_read_sees_every_acknowledged_write_from_any_member() {
    run(async {
        let group = Group::new().await;
        for n in 0..60 {
            let revision = put(&group.handle(n % 3), "x").await;
            let (entry, _) = until("a fresh read", async || {
                let read = group.handle((n + 1) % 3).get(pod("x"), Consistency::Linearizable).await;
                (read.is_ok(), read)
            })
            .await
            .unwrap();
            assert!(entry.unwrap().mod_revision >= revision);
        }
        group.end().await;
    });
}

#[test]
fn shards_leave_a_lost_member_and_its_epochs_write_nothing_more() {
    run(async {
        let mut group = Group::new().await;
        let spread = until("shards on all three", async || {
            let table = group.members[&0].shards().borrow().clone();
            let counts: Vec<_> =
                ["n0", "n1", "n2"].map(|name| table.held_by(name).count()).to_vec();
            (counts.iter().all(|count| *count >= 21), (counts, table))
        });
        let (_, table) = spread.await;
        let lost = group.follower().await;
        let name = group.nodes[lost].name().to_string();
        let (shard, epoch) = table.held_by(&name).next().unwrap();
        group.stop(lost).await;
        let leader = group.leader().await;
        until("the lost member's shards with the others", async || {
            let held = group.members[&leader].shards().borrow().held_by(&name).count();
            (held == 0, held)
        })
        .await;
        let stale = Transaction::create(pod("stale"), "{}").fenced(Fence { shard, epoch });
        let refused = group.handle(leader).transact(stale).await.unwrap_err();
        assert!(
            matches!(refused, TransactError::Fenced { current, .. } if current > epoch),
            "{refused}"
        );
        assert!(epoch > Epoch(0));
        group.end().await;
    });
}

#[test]
fn a_leader_that_is_cut_off_neither_writes_nor_reads_fresh() {
    run(async {
        // Those who are left elect one of them also where each waits for a core.
        let group = Group::calm().await;
        let leader = group.leader().await;
        put(&group.handle(leader), "x").await;
        for direction in [Direction::Send, Direction::Receive] {
            group.nodes[leader]
                .faults()
                .set(FaultRule { cut: true, ..FaultRule::new(None, direction) });
        }
        let others: Vec<usize> = (0..3).filter(|index| *index != leader).collect();
        let latest = until("a write without the old leader", async || {
            let written = group
                .handle(others[0])
                .transact(Transaction::new().put(pod("x"), r#"{"new":1}"#))
                .await;
            (written.is_ok(), written)
        });
        let latest = latest.await.unwrap().revision;
        let stale = group.handle(leader).get(pod("x"), Consistency::Linearizable).await;
        assert!(stale.is_err(), "{stale:?}");
        let (local, _) = group.handle(leader).get(pod("x"), Consistency::Local).await.unwrap();
        assert!(local.unwrap().mod_revision < latest);
        let doubtful = group.handle(leader).transact(Transaction::create(pod("y"), "{}")).await;
        assert!(matches!(
            doubtful,
            Err(TransactError::Unknown { .. } | TransactError::Unavailable { .. })
        ));
        group.nodes[leader].faults().clear();
        let (healed, _) = until("a fresh read", async || {
            let read = group.handle(leader).get(pod("x"), Consistency::Linearizable).await;
            (read.is_ok(), read)
        })
        .await
        .unwrap();
        assert_eq!(healed.unwrap().mod_revision, latest);
        group.end().await;
    });
}

#[test]
fn three_megabytes_go_over_a_slow_link_and_block_nothing_behind_them() {
    run(async {
        let group = Group::calm().await;
        put(&group.handle(0), "before").await;
        let leader = group.leader().await;
        let (slow, away) = ((leader + 1) % 3, (leader + 2) % 3);
        // The only follower that is left is further away than a heartbeat is long.
        for direction in [Direction::Send, Direction::Receive] {
            group.nodes[away]
                .faults()
                .set(FaultRule { cut: true, ..FaultRule::new(None, direction) });
        }
        let name = group.nodes[slow].name().clone();
        group.nodes[leader].faults().set(FaultRule {
            delay: Duration::from_millis(250),
            ..FaultRule::new(Some(name), Direction::Send)
        });
        let registry = group.handle(leader);
        let large = until("the large write", async || {
            let large = Transaction::new()
                .put(pod("one"), vec![b'x'; 3 << 19])
                .put(pod("two"), vec![b'x'; (3 << 19) - 1000]);
            let written = registry.transact(large).await;
            (written.is_ok(), written)
        });
        let (large, small) = futures_util::future::join(large, put(&registry, "behind")).await;
        large.unwrap();
        assert!(small > 0);
        for node in &group.nodes {
            node.faults().clear();
        }
        group.agree_on(4).await;
        group.end().await;
    });
}

async fn remote(group: &Group, name: &str, role: PeerRole) -> (ActorNode, RemoteRegistry) {
    let node = group.cluster.node_as(name, role).await;
    for other in &group.nodes {
        node.addresses().set(other.name().clone(), other.local_addr());
    }
    let members: Vec<NodeName> = names(&group.nodes.iter().collect::<Vec<_>>());
    (node.clone(), RemoteRegistry::fixed(node, members))
}

#[test]
fn a_process_elsewhere_writes_and_watches_through_the_loss_of_members() {
    run(async {
        let mut group = Group::new().await;
        let (node, remote) = remote(&group, HARNESS, PeerRole::Control).await;
        let remote: RegistryHandle = Arc::new(remote);
        let request = WatchRequest { select: Selection::all("pods"), after: 0, bookmarks: false };
        let watch = remote.watch(request).await.unwrap();
        let following = tokio::spawn(async move {
            let revisions: Vec<_> =
                watch.take(90).map(|batch| batch.unwrap().revision).collect().await;
            revisions
        });
        for n in 0..90 {
            if n == 30 {
                let leader = group.leader().await;
                group.stop(leader).await;
                create(&remote, n).await;
                group.start(leader).await.unwrap();
            } else if n == 60 {
                let follower = group.follower().await;
                group.stop(follower).await;
                create(&remote, n).await;
                group.start(follower).await.unwrap();
            } else {
                create(&remote, n).await;
            }
        }
        let revisions = tokio::time::timeout(LIMIT, following).await.unwrap().unwrap();
        assert_eq!(revisions, (1..=90).collect::<Vec<_>>(), "in order, without gap or repetition");
        assert_eq!(pods(&remote).await, 90);
        node.stop(Duration::from_secs(5)).await;
        group.end().await;
    });
}

#[test]
fn heartbeats_of_nodes_reach_whoever_leads() {
    run(async {
        let mut group = Group::new().await;
        let (node, remote) = remote(&group, "worker", PeerRole::Node).await;
        for lost in [false, true] {
            if lost {
                let leader = group.leader().await;
                group.stop(leader).await;
            }
            let _heard = until("the heartbeat at the leader", async || {
                let beat = Heartbeat { node: "worker".to_owned(), incarnation: 1, ready: true };
                let told = remote.heartbeat(beat).await;
                let heard = group.members.values().find_map(Member::heartbeats);
                let known = heard
                    .as_ref()
                    .is_some_and(|heard| heard.nodes.iter().any(|n| n.beat.node == "worker"));
                (known, (told, heard))
            })
            .await;
        }
        node.stop(Duration::from_secs(5)).await;
        group.end().await;
    });
}
