//! A gate that lets everything pass (as these nodes have) is not the registry's: its own guard judges again.

use crate::{harness::*, three::Group};
use impresario_registry::{
    Consistency, Key, Life, ListRequest, Member, REGISTRY_ACTOR, RegistryRole, Selection,
    Transaction, WatchRequest,
    disk::{
        identity::{Claimed, Identity},
        sealed,
    },
    protocol::{
        Follow, Get, Join, LeadAlive, LeadReadIndex, LeadTransact, List, Remove, Status, Transact,
    },
    raft::{
        Vote,
        messages::{AskVote, RAFT_ACTOR, RaftRole, Route, Seat},
    },
};
use impresario_runtime::{ActorNode, ActorPath, AskError, PeerRole};
use openraft::raft::VoteRequest;
use std::time::Duration;

/// What `intruder` gets of the registry on `member` with everything that a member may ask.
async fn passes(intruder: &ActorNode, member: &ActorNode) -> Vec<&'static str> {
    let registry =
        intruder.actor::<RegistryRole>(ActorPath::new(member.name().clone(), REGISTRY_ACTOR));
    let mut passed = Vec::new();
    // Who is not reached, or is too busy, has judged nothing yet: it is asked again.
    macro_rules! saw {
        ($what:literal, $ask:expr) => {
            let error = until($what, async || {
                let error: Option<AskError> = $ask.await.err();
                let judged = !matches!(
                    error,
                    Some(
                        AskError::Unreachable { .. }
                            | AskError::Deadline { .. }
                            | AskError::Overloaded { .. }
                    )
                );
                (judged, error)
            });
            if !matches!(error.await, Some(AskError::Refused { .. })) {
                passed.push($what);
            }
        };
    }
    let write = || Transaction::new().put(Key::new("secrets", "d", "stolen"), "{}");
    saw!("write", registry.ask(Transact(write()), LIMIT));
    saw!("lead a write", registry.ask(LeadTransact(write()), LIMIT));
    let get = Get { key: Key::new("secrets", "d", "a"), consistency: Consistency::Local };
    saw!("read", registry.ask(get.clone(), LIMIT));
    let list = List(ListRequest::of(Selection::all("secrets")));
    saw!("list", registry.ask(list.clone(), LIMIT));
    let select = Selection::all("secrets");
    let follow = Follow(WatchRequest { select, after: 0, bookmarks: true });
    saw!("follow", registry.open(follow.clone(), LIMIT));
    saw!("read index", registry.ask(LeadReadIndex, LIMIT));
    let alive = LeadAlive { node: "n0".to_owned(), generation: Life::numbered(9), room: false };
    saw!("live in another's name", registry.ask(alive.clone(), LIMIT));
    let remove = Remove { node: member.name().to_string(), force: true };
    saw!("remove a member", registry.ask(remove.clone(), LIMIT));
    let join = Join { disk: 7, node: "n0".to_owned() };
    saw!("join in another's name", registry.ask(join.clone(), LIMIT));
    passed
}

/// Whether `intruder` is heard by the raft of `member` when it asks for a vote under a number.
async fn votes(intruder: &ActorNode, member: &ActorNode, from: Seat, to: Seat) -> bool {
    let raft = intruder.actor::<RaftRole>(ActorPath::new(member.name().clone(), RAFT_ACTOR));
    let vote = Vote::new(99, from.member);
    let request = VoteRequest { vote, last_log_id: None, leadership_transfer: false };
    let route = Route { from, to };
    let answer = until("an answer of its raft", async || {
        let asks = AskVote { route, pre: true, request: request.clone() };
        let answer = raft.ask(asks, LIMIT).await;
        // Who is not reached, or is too busy, has judged nothing yet: it is asked again.
        (matches!(answer, Ok(_) | Err(AskError::Refused { .. })), answer)
    });
    answer.await.is_ok()
}

/// What a member's directory says of it.
pub fn seat(group: &Group, index: usize) -> Seat {
    seat_in(group, group.nodes[index].name().as_str())
}

fn seat_in(group: &Group, name: &str) -> Seat {
    let directory = group.cluster.directory(name);
    let sealed = std::fs::read(directory.join("identity")).unwrap();
    let text = sealed::unseal(*b"IDEN", &sealed).unwrap();
    let identity: Identity = serde_json::from_slice(text).unwrap();
    let (disk, generation) = (identity.disk, identity.generation);
    Seat { member: identity.member.unwrap(), disk, generation }
}

#[test]
fn neither_a_node_nor_a_removed_member_reads_or_writes_the_registry_though_the_gate_lets_it() {
    run(async {
        let mut group = Group::new().await;
        let secret = Transaction::new().put(Key::new("secrets", "d", "a"), "{}");
        let before = group.handle(0).transact(secret).await.unwrap().revision;
        let node = group.cluster.node_as("worker", PeerRole::Node).await;
        for member in &group.nodes {
            node.addresses().set(member.name().clone(), member.local_addr());
        }
        assert_eq!(passes(&node, &group.nodes[0]).await, Vec::<&str>::new());
        node.stop(Duration::from_secs(5)).await;

        // Raft is spoken in nobody else's name.
        let seats: Vec<Seat> = (0..3).map(|index| seat(&group, index)).collect();
        assert!(votes(&group.nodes[2], &group.nodes[0], seats[2], seats[0]).await);
        assert!(!votes(&group.nodes[2], &group.nodes[0], seats[1], seats[0]).await);

        // Its certificate is good, its connections stand, and it is a member no more.
        group.remove(0, "n2").await;
        group.stop(2).await;
        for index in [0, 1] {
            until("two members", async || {
                let status = group.members[&index].status();
                (status.voters.len() == 2 && status.learners.is_empty(), status)
            })
            .await;
            assert_eq!(passes(&group.nodes[2], &group.nodes[index]).await, Vec::<&str>::new());
            assert!(!votes(&group.nodes[2], &group.nodes[index], seats[2], seats[index]).await);
            // Nor under a number that nobody has.
            let nobody = Seat { member: 77, ..seats[2] };
            assert!(!votes(&group.nodes[2], &group.nodes[index], nobody, seats[index]).await);
        }
        let path = ActorPath::new(group.nodes[0].name().clone(), REGISTRY_ACTOR);
        let state = group.nodes[2].actor::<RegistryRole>(path).ask(Status, LIMIT).await.unwrap();
        assert_eq!(state.revision, before, "nothing was written");
        group.end().await;
    });
}

#[test]
fn who_was_removed_is_not_heard_by_a_member_that_has_started_and_has_not_heard_its_leader() {
    run(async {
        let mut group = Group::new().await;
        let (removed, known) = (seat(&group, 2), seat(&group, 0));
        group.remove(0, "n2").await;
        for index in [2, 0, 1] {
            group.stop(index).await;
        }
        // Alone it hears no leader, however long it takes.
        group.start(0).await.unwrap();
        let nobody = Seat { member: 77, ..removed };
        for _ in 0..3 {
            assert!(!votes(&group.nodes[2], &group.nodes[0], nobody, known).await);
        }
        group.start(1).await.unwrap();
        put(&group.handle(1), "x").await;
        group.agree_on(1).await;
        assert!(!votes(&group.nodes[2], &group.nodes[0], nobody, known).await);
        group.end().await;
    });
}

#[test]
fn who_was_removed_is_not_heard_by_one_that_was_let_in_and_has_no_vote_yet() {
    run(async {
        let mut group = Group::new().await;
        let removed = seat(&group, 2);
        group.remove(0, "n2").await;
        group.stop(2).await;
        // It has its number, and has heard nothing of the log.
        let joiner = group.cluster.node("n3").await;
        for other in &group.nodes {
            joiner.addresses().set(other.name().clone(), other.local_addr());
            other.addresses().set(joiner.name().clone(), joiner.local_addr());
        }
        let mut claim = Claimed::claim(&group.cluster.directory("n3"), "test", "n3").unwrap();
        let disk = claim.identity().disk;
        let path = ActorPath::new(group.nodes[0].name().clone(), REGISTRY_ACTOR);
        let registry = joiner.actor::<RegistryRole>(path);
        let admitted = until("a number", async || {
            let join = Join { disk, node: "n3".to_owned() };
            let number = registry.ask(join, LIMIT).await;
            (matches!(number, Ok(Ok(_))), number)
        });
        claim.become_member(admitted.await.unwrap().unwrap()).unwrap();
        drop(claim);
        for index in [0, 1] {
            group.stop(index).await;
        }
        let invited = join(&[&group.nodes[0], &group.nodes[1]]);
        let member = group.cluster.start(&joiner, invited).await.unwrap();
        let known = seat_in(&group, "n3");
        let nobody = Seat { member: 77, ..removed };
        for seat in [removed, nobody] {
            assert!(!votes(&group.nodes[2], &joiner, seat, known).await);
        }
        // Those who let it in know the one that leads.
        group.start(0).await.unwrap();
        group.start(1).await.unwrap();
        until("a vote", async || {
            let status = member.status();
            (status.voters.iter().any(|voter| voter == "n3"), status)
        })
        .await;
        put(&member.handle(), "x").await;
        for seat in [removed, nobody] {
            assert!(!votes(&group.nodes[2], &joiner, seat, known).await);
        }
        member.stop().await;
        joiner.stop(Duration::from_secs(5)).await;
        group.end().await;
    });
}

#[test]
fn who_came_back_under_its_name_is_heard_by_one_that_was_away_by_its_new_number_alone() {
    run(async {
        let mut group = Group::new().await;
        let fourth = group.cluster.node("n3").await;
        for other in &group.nodes {
            fourth.addresses().set(other.name().clone(), other.local_addr());
            other.addresses().set(fourth.name().clone(), fourth.local_addr());
        }
        let invited = join(&[&group.nodes[0], &group.nodes[1]]);
        let more = group.cluster.start(&fourth, invited).await.unwrap();
        let whole = async |members: &[&Member]| {
            until("four voters", async || {
                let seen: Vec<_> = members.iter().map(|member| member.status()).collect();
                (seen.iter().all(|status| status.voters.len() == 4), seen)
            })
            .await;
        };
        whole(&[&group.members[&0], &group.members[&1], &group.members[&2], &more]).await;
        group.stop(0).await;
        // The disk of n2 is lost, and it comes back with an empty one.
        let removed = seat(&group, 2);
        group.remove(1, "n2").await;
        group.stop(2).await;
        std::fs::remove_dir_all(group.cluster.directory("n2")).unwrap();
        let invited = join(&[&group.nodes[1], &fourth]);
        let back = group.cluster.start(&group.nodes[2], invited).await.unwrap();
        whole(&[&group.members[&1], &more, &back]).await;
        let known = seat(&group, 2);
        back.stop().await;
        more.stop().await;

        // One is there that knows of it, and nobody leads.
        group.start(0).await.unwrap();
        let away = seat(&group, 0);
        until("a hearing for its new number", async || {
            // Meanwhile the one that was removed asks for votes, as it does for as long as it runs.
            votes(&group.nodes[2], &group.nodes[0], removed, away).await;
            (votes(&group.nodes[2], &group.nodes[0], known, away).await, ())
        })
        .await;
        let nobody = Seat { member: 77, ..known };
        assert!(!votes(&group.nodes[2], &group.nodes[0], nobody, away).await);
        fourth.stop(Duration::from_secs(5)).await;
        group.end().await;
    });
}
