//! A leader that crashes between sending an entry and having it on its own disk.
//!
//! The disk that loses what was not synced is the member's directory as it was before the entry was
//! written. Nothing counts on what is lost: once the image is taken the leader hears no answer, so
//! that nothing that it writes can be committed with its own disk's word.

use crate::harness::*;
use crate::three::Group;
use impresario_registry::raft::{Entry, LogId};
use impresario_registry::{Consistency, ListRequest, Selection, Transaction};
use impresario_runtime::{Direction, FaultRule};
use openraft::entry::RaftEntry;
use std::collections::BTreeMap;
use std::fs;

#[test]
fn a_leader_that_lost_what_it_had_sent_gives_no_log_id_to_a_second_entry() {
    run(async {
        let mut group = Group::calm().await;
        for n in 0..20 {
            put(&group.handle(n % 3), n).await;
        }
        group.agree_on(20).await;
        let leader = group.leader().await;
        let (heir, third) = ((leader + 1) % 3, (leader + 2) % 3);
        let path = |index: usize| group.cluster.directory(group.nodes[index].name().as_str());
        let (of_leader, of_heir, of_third) = (path(leader), path(heir), path(third));

        // The heir hears and cannot answer, the third one does neither: nothing is committed any
        // more, and nobody else can be elected while the leader is down.
        let cut = |index: usize, direction: Direction| {
            let rule = FaultRule { cut: true, ..FaultRule::new(None, direction) };
            group.nodes[index].faults().set(rule);
        };
        cut(heir, Direction::Send);
        cut(third, Direction::Send);
        cut(third, Direction::Receive);
        let synced = tempfile::tempdir().unwrap();
        image(&of_leader, synced.path());
        let registry = group.handle(leader);
        let sent =
            tokio::spawn(
                async move { registry.transact(Transaction::create(pod("sent"), "{}")).await },
            );
        let is_sent = |entry: &Entry| format!("{:?}", entry.payload).contains("\"sent\"");
        let held = until("the entry on a follower's disk", async || {
            let held = entries(&of_heir).await;
            (held.iter().any(is_sent), held.len())
        });
        held.await;
        sent.abort();
        let mut seen: BTreeMap<LogId, String> = BTreeMap::new();
        let mut note = |whose: &str, entries: Vec<Entry>| {
            for entry in entries {
                let payload = format!("{:?}", entry.payload);
                let first = seen.entry(entry.log_id()).or_insert_with(|| payload.clone());
                assert_eq!(*first, payload, "two payloads at {} of {whose}", entry.log_id());
            }
        };
        note("the heir before the crash", entries(&of_heir).await);

        group.stop(leader).await;
        fs::remove_dir_all(&of_leader).unwrap();
        image(synced.path(), &of_leader);
        assert!(!entries(&of_leader).await.iter().any(is_sent), "the leader's disk has lost it");
        group.start(leader).await.unwrap();
        group.nodes[heir].faults().clear();
        group.nodes[third].faults().clear();
        group.whole().await;
        for n in 20..40 {
            put(&group.handle(n % 3), n).await;
        }

        // The entry was not acknowledged: it may be there or not, but everywhere alike.
        let fresh = group.handle(leader).get(pod("sent"), Consistency::Linearizable).await.unwrap();
        let count = 40 + usize::from(fresh.0.is_some());
        group.agree_on(count).await;
        let mut lists = Vec::new();
        for member in group.members.values() {
            let mut list = ListRequest::of(Selection::all("pods"));
            list.consistency = Consistency::Local;
            lists.push(member.handle().list(list).await.unwrap().entries);
        }
        assert_eq!(lists[0].len(), count);
        for n in 0..40 {
            let is_there = lists[0].iter().any(|entry| entry.key == pod(n));
            assert!(is_there, "the acknowledged write {n} is lost");
        }
        assert!(lists.windows(2).all(|pair| pair[0] == pair[1]), "{lists:#?}");
        for (whose, directory) in
            [("the leader", of_leader), ("the heir", of_heir), ("the third", of_third)]
        {
            note(whose, entries(&directory).await);
        }
        group.end().await;
    });
}
