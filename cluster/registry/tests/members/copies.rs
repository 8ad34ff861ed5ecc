//! Directories that were copied or restored, and are started again and again.

use crate::{harness::*, three::Group};
use futures_util::{
    FutureExt,
    future::{join_all, select_all},
};
use impresario_registry::{
    Beginning, Life, Member, MembershipError, disk::DiskError, member::StartError,
};
use std::fs;

#[test]
fn a_restored_directory_is_refused_before_it_votes_and_however_often_it_is_started() {
    run(async {
        let mut group = Group::new().await;
        put(&group.handle(0), "x").await;
        let directory = group.cluster.directory("n2");
        group.stop(2).await;
        let saved = tempfile::tempdir().unwrap();
        image(&directory, saved.path());
        group.start(2).await.unwrap();
        group.whole().await;
        // The group knows the life that has begun since.
        until("the new life in the membership", async || {
            let member = group.members[&2].status();
            let known = [0, 1].map(|index| group.members[&index].generation_of("n2"));
            let known = known.map(|life| life.map(Life::number));
            (known == [Some(2); 2], (known, member))
        })
        .await;
        put(&group.handle(2), "y").await;
        group.stop(2).await;
        fs::remove_dir_all(&directory).unwrap();
        image(saved.path(), &directory);
        group.reached(2).await;
        let refused = group.start(2).await.unwrap_err();
        let StartError::Refused(MembershipError::Copied { known: 2, shown: 2, .. }) = refused
        else {
            panic!("{refused:?}");
        };
        assert!(refused.to_string().contains("imp member remove n2"), "{refused}");
        // Each start is another life, numbered past the one that the group knows.
        for _ in 0..3 {
            let refused = group.start(2).await.unwrap_err();
            assert!(matches!(refused, StartError::Disk(DiskError::Foreign { .. })), "{refused:?}");
            assert!(refused.to_string().contains("imp member remove n2"), "{refused}");
        }
        put(&group.handle(0), "z").await;
        group.end().await;
    });
}

#[test]
fn of_two_copies_that_start_at_the_same_time_as_all_others_one_at_most_stays() {
    run(async {
        let mut group = Group::new().await;
        put(&group.handle(0), "x").await;
        for index in 0..3 {
            group.stop(index).await;
        }
        let twin = group.cluster.node("n2").await;
        for other in &group.nodes[..2] {
            twin.addresses().set(other.name().clone(), other.local_addr());
        }
        let copy = group.cluster.directory("n2-copy");
        image(&group.cluster.directory("n2"), &copy);
        let mut configs: Vec<_> = (0..3)
            .map(|index| group.cluster.config(&group.nodes[index], group.beginning(index)))
            .collect();
        let members = vec![group.nodes[0].name().clone(), group.nodes[1].name().clone()];
        let mut of_twin = group.cluster.config(&twin, Beginning::Join { members });
        of_twin.directory = copy;
        configs.push(of_twin);
        let mut started = join_all(configs.into_iter().map(Member::start)).await;
        let (twin_member, original) = (started.pop().unwrap(), started.pop().unwrap());
        for (index, member) in started.into_iter().enumerate() {
            group.members.insert(index, member.unwrap());
        }
        let both = [original, twin_member];
        let mut running: Vec<Member> = both.into_iter().filter_map(Result::ok).collect();
        if running.len() == 2 {
            let ends = running.iter().map(|member| Box::pin(member.failed()));
            let (why, ended, _) =
                tokio::time::timeout(LIMIT, select_all(ends)).await.expect("one is refused");
            assert!(why.contains("copy"), "{why}");
            running.remove(ended).stop().await;
        }
        for member in running {
            member.stop().await;
        }
        twin.stop(std::time::Duration::from_secs(5)).await;
        put(&group.handle(0), "y").await;
        assert_eq!(pods(&group.handle(1)).await, 2);
        group.end().await;
    });
}

/// Starts a copy of the directory of a member that runs, which is refused, and sees the group go on with the original.
async fn a_copy_is_refused_while_the_original_runs(of_leader: bool) {
    // A machine that stood still may have kept the original silent for so long that the copy is let in: then again.
    until("a copy that is refused", async || {
        let mut group = Group::new().await;
        put(&group.handle(0), "x").await;
        let leader = group.leader().await;
        let original = if of_leader { leader } else { group.follower().await };
        let name = group.nodes[original].name().as_str();
        let twin = group.cluster.node(name).await;
        for other in &group.nodes {
            if other.name() != twin.name() {
                twin.addresses().set(other.name().clone(), other.local_addr());
            }
        }
        let copy = group.cluster.directory("copy");
        image(&group.cluster.directory(name), &copy);
        let mut config = group.cluster.config(&twin, group.beginning(original));
        config.directory = copy;
        let started = Member::start(config).await;
        let refused = match started {
            Err(StartError::Refused(MembershipError::RunsAlready { .. })) => true,
            Ok(ref member) => {
                member.stop().await;
                false
            }
            Err(_) => false,
        };
        twin.stop(std::time::Duration::from_secs(5)).await;
        if refused {
            if original != leader {
                group.stop(leader).await;
                put(&group.handle(original), "y").await;
                assert_eq!(group.members[&original].failed().now_or_never(), None);
                group.start(leader).await.unwrap();
            }
            group.whole().await;
            // The others took nothing of what the copy said for the original's.
            group.stop(original).await;
            let other = (original + 1) % 3;
            put(&group.handle(other), "z").await;
            group.reached(original).await;
            group.start(original).await.unwrap();
            group.whole().await;
            group.agree_on(if original == leader { 2 } else { 3 }).await;
            assert_eq!(group.members[&original].failed().now_or_never(), None);
        }
        group.end().await;
        (refused, started.map(|_| ()))
    })
    .await
    .unwrap_err();
}

#[test]
fn a_copy_of_a_follower_that_runs_is_refused_and_the_follower_goes_on() {
    run(a_copy_is_refused_while_the_original_runs(false));
}

#[test]
fn a_copy_of_the_leader_that_runs_is_refused_and_the_leader_goes_on() {
    run(a_copy_is_refused_while_the_original_runs(true));
}

#[test]
fn a_directory_from_before_the_others_joined_makes_no_group_of_its_own_beside_theirs() {
    run(async {
        let cluster = Cluster::new();
        let (first, second) = (cluster.node("n0").await, cluster.node("n1").await);
        first.addresses().set(second.name().clone(), second.local_addr());
        second.addresses().set(first.name().clone(), first.local_addr());
        let directory = cluster.directory("n0");
        let (early, late) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let restore = |from: &tempfile::TempDir| {
            fs::remove_dir_all(&directory).unwrap();
            image(from.path(), &directory);
        };
        let member = cluster.start(&first, found()).await.unwrap();
        put(&member.handle(), "x").await;
        member.stop().await;
        image(&directory, early.path());
        let member = cluster.start(&first, found()).await.unwrap();
        let other = cluster.start(&second, join(&[&first])).await.unwrap();
        until("two voters", async || {
            let seen = [member.status(), other.status()];
            (seen.iter().all(|status| status.voters.len() == 2), seen)
        })
        .await;
        put(&other.handle(), "y").await;
        member.stop().await;
        image(&directory, late.path());

        restore(&early);
        let told = || Beginning::Found { peers: names(&[&second]) };
        let refused = cluster.start(&first, told()).await.unwrap_err();
        assert!(matches!(refused, StartError::LeftBehind { .. }), "{refused:?}");
        restore(&late);
        let member = cluster.start(&first, told()).await.unwrap();
        put(&member.handle(), "z").await;
        assert_eq!(pods(&member.handle()).await, 3);

        // Who is alone because the other one was removed goes on, though that one runs and says what it knows.
        until("the other one removed", async || {
            let removed = member.remove_member("n1", true).await;
            let done = matches!(removed, Ok(()) | Err(MembershipError::Unknown { .. }));
            (done, removed)
        })
        .await
        .ok();
        member.stop().await;
        let member = cluster.start(&first, told()).await.unwrap();
        put(&member.handle(), "alone").await;
        member.stop().await;
        other.stop().await;
        for node in [first, second] {
            node.stop(std::time::Duration::from_secs(5)).await;
        }
    });
}
