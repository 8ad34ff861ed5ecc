//! What only shows from inside a member: on which thread raft runs, and what a read trusts.

use super::*;
use crate::raft::Raft;
use crate::{Consistency, Key, ListRequest, Selection, Transaction};
use impresario_runtime::{
    ActorNode, ClusterAuthority, Direction, FaultRule, NodeConfig, PeerRole, PermitAll,
};
use std::pin::pin;
use std::thread::{self, ThreadId};
use std::time::Duration;
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};

/// A passing test never spends it.
const LIMIT: Duration = Duration::from_mins(1);

/// A group of two whose leader stays, though it is kept waiting for seconds; the first one founded it.
struct Two {
    nodes: Vec<ActorNode>,
    members: Vec<Member>,
    _folder: tempfile::TempDir,
}

impl Two {
    async fn start() -> Self {
        let authority = ClusterAuthority::create("test").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (mut nodes, mut members): (Vec<ActorNode>, Vec<Member>) = (Vec::new(), Vec::new());
        for name in ["m1", "m2"] {
            let lasts = Duration::from_hours(1);
            let credential = authority.issue(name, PeerRole::Control, &[], lasts).unwrap();
            let config = NodeConfig { gate: Arc::new(PermitAll), ..NodeConfig::new(credential) };
            let node = ActorNode::start(config).await.unwrap();
            let beginning = match nodes.first() {
                None => Beginning::Found { peers: Vec::new() },
                Some(first) => {
                    node.addresses().set(first.name().clone(), first.local_addr());
                    Beginning::Join { members: vec![first.name().clone()] }
                }
            };
            let (path, at) = (folder.path().join(name), node.local_addr());
            let mut config = MemberConfig::new(path, node.clone(), at, beginning);
            config.timing.election_least = Duration::from_secs(5);
            config.timing.election_most = Duration::from_secs(10);
            members.push(Member::start(config).await.unwrap());
            nodes.push(node);
        }
        let two = Self { nodes, members, _folder: folder };
        until("both have a vote", || two.members[0].status().voters.len() == 2).await;
        two
    }

    async fn end(self) {
        for member in &self.members {
            member.stop().await;
        }
        for node in &self.nodes {
            node.stop(LIMIT).await;
        }
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = timeout(LIMIT, async {
        while !holds() {
            sleep(Duration::from_millis(10)).await;
        }
    });
    wait.await.unwrap_or_else(|_| panic!("{what}"));
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).enable_all().build().unwrap()
    };
    actix::System::with_tokio_rt(runtime).block_on(test)
}

#[test]
fn a_leader_whose_machine_has_slept_answers_no_read_by_its_lease() {
    run(async {
        let two = Two::start().await;
        let leads = || two.members.iter().position(|member| member.shared.raft.is_leader());
        until("one leads", || leads().is_some()).await;
        let leader = leads().unwrap();
        let shared = &two.members[leader].shared;
        shared.read_barrier().await.unwrap();
        // It still has its lease, and nobody whom it could ask.
        shared.sleep.pretend();
        for direction in [Direction::Send, Direction::Receive] {
            let cut = FaultRule { cut: true, ..FaultRule::new(None, direction) };
            two.nodes[leader].faults().set(cut);
        }
        let read = shared.lead_read_index().await;
        assert!(read.is_err(), "it read at {read:?} by a lease that may be over for the others");
        two.nodes[leader].faults().clear();
        two.end().await;
    });
}

/// The thread on which raft decides.
async fn core_thread(raft: &Raft) -> ThreadId {
    raft.with_raft_state(|_| thread::current().id()).await.unwrap()
}

#[test]
fn raft_and_what_it_is_told_are_on_a_thread_where_nothing_else_runs() {
    run(async {
        let two = Two::start().await;
        for member in &two.members {
            let (tell, told) = oneshot::channel();
            let running = member.running.lock().await;
            let own = running.as_ref().and_then(|running| running.thread()).unwrap();
            own.spawn_fn(move || assert!(tell.send(thread::current().id()).is_ok()));
            let own = told.await.unwrap();
            drop(running);
            assert_eq!(core_thread(&member.shared.raft).await, own);
            assert_ne!(own, thread::current().id());
        }
        two.end().await;
    });
}

#[test]
fn whoever_writes_comes_in_between_the_parts_of_a_list() {
    run(async {
        let two = Two::start().await;
        let (member, count) = (&two.members[0], 3_000);
        let name = |number: usize| Key::new("pods", "default", format!("p{number:04}"));
        for first in (0..count).step_by(1_000) {
            let some = first..first + 1_000;
            let made = some.fold(Transaction::new(), |made, number| made.put(name(number), "{}"));
            member.handle().transact(made).await.unwrap();
        }
        let all = || ListRequest {
            consistency: Consistency::Local,
            ..ListRequest::of(Selection::all("pods"))
        };
        let held = || member.shared.replica.read(|store| store.list(&all()).unwrap().entries.len());
        until("all are there", || held() == count).await;
        let handle = member.handle();
        let mut listing = pin!(handle.list(all()));
        // It gives way after its first part, and holds nothing then.
        assert!(futures_util::poll!(listing.as_mut()).is_pending(), "all was listed in one go");
        let written = member.shared.replica.write(|store| store.revision());
        let page = listing.await.unwrap();
        assert_eq!((page.entries.len(), page.revision), (count, written));
        two.end().await;
    });
}
