//! Members that are wiped, removed, or were removed and do not know it.

use crate::{harness::*, three::Group};
use actix::{Actor, Context, Handler};
use futures_util::future::join_all;
use impresario_registry::{
    Beginning, Life, Member, MembershipError,
    disk::identity::Claimed,
    member::StartError,
    protocol::{DOOR_ACTOR, DoorRole, Return},
    raft::MemberNode,
};
use impresario_runtime::{Direction, FaultRule, SpawnOptions};
use std::{collections::BTreeMap, fs, time::Duration};

/// Says to everyone who returns that its directory is a copy.
struct Liar;

impl Actor for Liar {
    type Context = Context<Self>;
}

impl Handler<Return> for Liar {
    type Result = Result<(), MembershipError>;

    fn handle(&mut self, asks: Return, _: &mut Self::Context) -> Self::Result {
        let (node, shown) = (asks.node.name, asks.node.generation.number());
        Err(MembershipError::Copied { node, known: 99, shown })
    }
}

#[test]
fn who_is_not_in_the_group_keeps_no_member_from_its_next_start() {
    run(async {
        let mut group = Group::new().await;
        put(&group.handle(0), "x").await;
        let removed = group.cluster.node("n9").await;
        removed.spawn::<DoorRole, _>(DOOR_ACTOR, SpawnOptions::default(), |_| Liar).unwrap();
        // The file of a node names it for ever.
        group.nodes[2].addresses().set(removed.name().clone(), removed.local_addr());
        for _ in 0..2 {
            group.stop(2).await;
            let told = join(&[&removed, &group.nodes[0]]);
            let member = group.cluster.start(&group.nodes[2], told).await.unwrap();
            group.members.insert(2, member);
            group.whole().await;
            put(&group.handle(2), "y").await;
        }
        group.agree_on(2).await;
        group.stop(2).await;
        let claimed = Claimed::claim(&group.cluster.directory("n2"), "test", "n2").unwrap();
        assert_eq!(claimed.identity().refused, None);
        drop(claimed);
        removed.stop(Duration::from_secs(5)).await;
        group.end().await;
    });
}

#[test]
fn one_voter_that_calls_everyone_a_copy_keeps_nobody_out_whether_somebody_leads_or_not() {
    run(async {
        let cluster = Cluster::new();
        let nodes = join_all((0..5).map(async |n| cluster.node(&format!("n{n}")).await)).await;
        for node in &nodes {
            for other in &nodes {
                node.addresses().set(other.name().clone(), other.local_addr());
            }
        }
        let beginning = |index| if index == 0 { found() } else { join(&[&nodes[0]]) };
        let mut members = Vec::new();
        for (index, node) in nodes.iter().enumerate() {
            members.push(cluster.start(node, beginning(index)).await.unwrap());
        }
        until("five voters", async || {
            let seen: Vec<_> = members.iter().map(Member::status).collect();
            (seen.iter().all(|status| status.voters.len() == 5), seen)
        })
        .await;
        put(&members[0].handle(), "x").await;
        for member in members {
            member.stop().await;
        }

        let stolen = &nodes[4];
        stolen.spawn::<DoorRole, _>(DOOR_ACTOR, SpawnOptions::default(), |_| Liar).unwrap();
        let mut members = BTreeMap::new();
        until("all others are back", async || {
            let missing: Vec<usize> = (0..4).filter(|index| !members.contains_key(index)).collect();
            let starts =
                missing.iter().map(|index| cluster.start(&nodes[*index], beginning(*index)));
            let mut refused = Vec::new();
            for (index, started) in missing.iter().zip(join_all(starts).await) {
                match started {
                    Ok(member) => drop(members.insert(*index, member)),
                    // On a busy machine one of the others may not have answered in time.
                    Err(error) => refused.push(error),
                }
            }
            (refused.is_empty(), refused)
        })
        .await;
        put(&members[&0].handle(), "y").await;
        members.remove(&3).unwrap().stop().await;
        members.insert(3, cluster.start(&nodes[3], beginning(3)).await.unwrap());
        put(&members[&3].handle(), "z").await;
        for member in members.into_values() {
            member.stop().await;
        }
        for node in nodes {
            node.stop(Duration::from_secs(5)).await;
        }
    });
}

#[test]
fn an_emptied_directory_is_refused_until_its_member_is_removed() {
    run(async {
        let mut group = Group::new().await;
        put(&group.handle(0), "x").await;
        group.stop(2).await;
        fs::remove_dir_all(group.cluster.directory("n2")).unwrap();
        let refused = group.start(2).await.unwrap_err();
        let StartError::Refused(MembershipError::NameTaken { node, member: old }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(node, "n2");
        group.remove(1, "n2").await;
        group.start(2).await.unwrap();
        assert!(group.members[&2].id() > old, "numbers are not used again");
        group.whole().await;
        group.agree_on(1).await;
        group.end().await;
    });
}

#[test]
fn an_emptied_founder_does_not_found_a_second_group() {
    run(async {
        let mut group = Group::new().await;
        group.stop(0).await;
        group.reached(0).await;
        fs::remove_dir_all(group.cluster.directory("n0")).unwrap();
        let again = Beginning::Found { peers: names(&[&group.nodes[1], &group.nodes[2]]) };
        let refused = group.cluster.start(&group.nodes[0], again).await.unwrap_err();
        assert!(matches!(refused, StartError::GroupExists { .. }), "{refused}");
        group.end().await;
    });
}

#[test]
fn a_removed_member_is_refused_for_good() {
    run(async {
        let mut group = Group::new().await;
        let follower = group.follower().await;
        let name = group.nodes[follower].name().to_string();
        group.remove(group.leader().await, &name).await;
        group.stop(follower).await;
        let leader = group.leader().await;
        let two_vote = async || {
            let status = group.members[&leader].status();
            (!status.voters.contains(&name) && status.voters.len() == 2, status)
        };
        until("two voters", two_vote).await;
        put(&group.handle(leader), "x").await;
        let refused = group.start(follower).await.unwrap_err();
        assert!(
            matches!(refused, StartError::Refused(MembershipError::Retired { .. })),
            "{refused:?}"
        );
        assert!(refused.to_string().contains("empty directory"), "{refused}");
        put(&group.handle(leader), "y").await;
        let leader = group.leader().await;
        let two_vote = async || {
            let status = group.members[&leader].status();
            (!status.voters.contains(&name) && status.voters.len() == 2, status)
        };
        until("still two voters", two_vote).await;
        // With an empty directory it comes back, under a number that was never used.
        fs::remove_dir_all(group.cluster.directory(&name)).unwrap();
        group.start(follower).await.unwrap();
        assert!(group.members[&follower].id() > 3);
        group.whole().await;
        group.agree_on(2).await;
        group.end().await;
    });
}

#[test]
fn a_removed_founder_does_not_return() {
    run(async {
        let mut group = Group::new().await;
        put(&group.handle(1), "x").await;
        group.remove(1, "n0").await;
        group.stop(0).await;
        let refused = group.start(0).await.unwrap_err();
        let StartError::Refused(MembershipError::Retired { member: 1 }) = refused else {
            panic!("{refused:?}");
        };
        // Nor by asking for its vote behind the door.
        let node = MemberNode {
            name: "n0".to_owned(),
            address: group.nodes[0].local_addr().to_string(),
            disk: 7,
            generation: Life::numbered(100),
        };
        until("the leader's word", async || {
            let asked = group.members[&1].add_member(1, node.clone()).await;
            (asked == Err(MembershipError::Retired { member: 1 }), asked)
        })
        .await
        .unwrap_err();
        put(&group.handle(2), "y").await;
        group.agree_on(2).await;
        group.end().await;
    });
}

#[test]
fn a_member_that_is_needed_is_not_removed_while_another_is_down() {
    run(async {
        let mut group = Group::new().await;
        let leader = group.leader().await;
        let (down, up) = ((leader + 1) % 3, (leader + 2) % 3);
        let name = |index: usize| format!("n{index}");
        group.stop(down).await;
        until("the silence of one that is down", async || {
            let leader = &group.members[&group.leader().await];
            let held = leader.shards().borrow().held_by(&name(down)).count();
            (held == 0, held)
        })
        .await;
        let refused = group.members[&group.leader().await].remove_member(&name(up), false).await;
        let refused = refused.unwrap_err();
        assert!(matches!(refused, MembershipError::WouldStop { .. }), "{refused}");
        assert!(refused.to_string().contains(&name(down)), "{refused}");
        assert!(refused.to_string().contains("imp member remove"), "{refused}");
        put(&group.handle(up), "x").await;
        // The one that is down may go, and then the other as well.
        for gone in [down, up] {
            until("the member removed", async || {
                let removed = group.members[&leader].remove_member(&name(gone), false).await;
                // An earlier try may have done it without an answer.
                (matches!(removed, Ok(()) | Err(MembershipError::Unknown { .. })), removed)
            })
            .await
            .ok();
        }
        put(&group.handle(leader), "y").await;
        group.end().await;
    });
}

#[test]
fn a_member_that_was_removed_while_it_was_cut_off_ends_when_it_is_back() {
    run(async {
        let group = Group::new().await;
        put(&group.handle(0), "x").await;
        let cut = group.follower().await;
        let name = group.nodes[cut].name().to_string();
        for direction in [Direction::Send, Direction::Receive] {
            let rule = FaultRule { cut: true, ..FaultRule::new(None, direction) };
            group.nodes[cut].faults().set(rule);
        }
        until("the member removed", async || {
            let leader = &group.members[&((cut + 1) % 3)];
            let removed = leader.remove_member(&name, false).await;
            let gone = !leader.status().voters.contains(&name);
            (gone, removed)
        })
        .await
        .ok();
        group.nodes[cut].faults().clear();
        let failed = tokio::time::timeout(LIMIT, Member::failed(&group.members[&cut])).await;
        assert!(failed.unwrap().contains("has been removed"));
        group.end().await;
    });
}
