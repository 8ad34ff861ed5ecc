//! Who leaves for whom.

use super::*;
use crate::scheduler::leavers::Leavers;
use crate::scheduler::parties::Node;
use crate::scheduler::picture::Picture;
use crate::scheduler::picture::tests::{node, picture, pod};
use crate::scheduler::plan::tests::moment;
use crate::scheduler::plan::{Away, Moment, Plan, plan};
use crate::scheduler::policy::{Which, policy};
use proptest::prelude::*;
use serde_json::json;

/// On the first node that the name says, with a priority.
fn resident(picture: &mut Picture, on: &str, uid: &str, cpu: u64, priority: i32) {
    let labels = [("app".to_owned(), uid.to_owned())].into();
    let pod =
        Pending { priority, labels, namespace: "ns".into(), name: uid.to_owned(), ..pod(uid, cpu) };
    picture.pod_bound(pod, on, false, None);
}

fn full(nodes: &[&str]) -> Picture {
    let mut all = picture([]);
    for name in nodes {
        let object = json!({"metadata": {"name": name}, "status": {
            "allocatable": {"cpu": "1", "pods": "10", "memory": "1Gi"},
            "conditions": [{"type": "Ready", "status": "True"}]}});
        all.node_seen(&serde_json::from_value(object).unwrap());
    }
    all
}

fn urgent(uid: &str, cpu: u64, priority: i32) -> Pending {
    Pending { priority, ..pod(uid, cpu) }
}

fn planned(picture: &Picture, pods: &[Pending]) -> Plan {
    plan(pods, &moment(picture), &mut *policy(Which::LeastAllocated, 0))
}

fn victims(picture: &Picture, pod: &Pending) -> Option<(String, Vec<String>)> {
    let mut plan = planned(picture, std::slice::from_ref(pod));
    plan.preemptions.pop().map(|one| (one.node, one.victims))
}

fn leave(node: &str, victims: &[&str]) -> (String, Vec<String>) {
    (node.to_owned(), victims.iter().map(|&uid| uid.to_owned()).collect())
}

#[test]
fn the_fewest_and_least_important_leave_and_only_as_far_as_it_helps() {
    let mut all = full(&["a", "b", "c"]);
    for (on, uid, cpu, priority) in [
        ("a", "a1", 500, 5),
        ("a", "a2", 500, 1),
        ("b", "b1", 1000, 3),
        ("c", "c1", 300, 2),
        ("c", "c2", 300, 2),
        ("c", "c3", 400, 9),
    ] {
        resident(&mut all, on, uid, cpu, priority);
    }
    for (cpu, priority, expected) in [
        (400, 10, Some(leave("a", &["a2"]))),
        (600, 10, Some(leave("c", &["c1", "c2"]))),
        (1000, 10, Some(leave("b", &["b1"]))),
        (400, 2, Some(leave("a", &["a2"]))),
        (600, 2, None),
        (400, 1, None),
        (2000, 10, None),
    ] {
        let found = victims(&all, &urgent("p", cpu, priority));
        let found = found.map(|(node, mut uids)| {
            uids.sort();
            (node, uids)
        });
        assert_eq!(found, expected, "{cpu}m of priority {priority}");
    }
}

#[test]
fn who_is_told_that_nobody_leaves_is_told_why() {
    let mut all = full(&["a", "b"]);
    resident(&mut all, "a", "a1", 800, 1);
    resident(&mut all, "b", "b1", 800, 7);
    let told =
        |pod: &Pending| planned(&all, std::slice::from_ref(pod)).unschedulable[0].1.to_string();
    let short = "0/2 nodes are available: 2 Insufficient cpu.";
    assert_eq!(told(&urgent("p", 900, 1)), short, "nobody is less important");
    let never = Pending { preempts: false, ..urgent("p", 900, 5) };
    assert_eq!(
        told(&never),
        format!("{short} preemption: not eligible due to preemptionPolicy=Never.")
    );
    let too_large = told(&urgent("p", 2000, 5));
    let unhelpful = "0/2 nodes are available: 2 Preemption is not helpful for scheduling.";
    assert_eq!(too_large, format!("{short} preemption: {unhelpful}"));
    let nobody = "0/2 nodes are available: 2 No preemption victims found for incoming pod.";
    let mut all = full(&["a", "b"]);
    resident(&mut all, "a", "a1", 800, 7);
    resident(&mut all, "b", "b1", 800, 7);
    resident(&mut all, "b", "b2", 100, 0);
    let not_enough = planned(&all, &[urgent("p", 900, 5)]).unschedulable[0].1.to_string();
    assert_eq!(not_enough, format!("{short} preemption: {nobody}"));
    let mut away = urgent("p", 900, 5);
    away.selector.insert("none".into(), "has".into());
    assert!(told(&away).ends_with("2 Preemption is not helpful for scheduling."));
}

#[test]
fn members_of_training_jobs_neither_leave_nor_make_others_leave() {
    let mut all = full(&["a"]);
    let member = Pending { is_member: true, ..pod("m", 1000) };
    all.pod_bound(member.clone(), "a", false, None);
    assert_eq!(victims(&all, &urgent("p", 500, 10)), None);
    let mut all = full(&["a"]);
    resident(&mut all, "a", "a1", 1000, 0);
    assert_eq!(victims(&all, &Pending { priority: 10, ..member }), None);
    assert!(victims(&all, &urgent("p", 500, 10)).is_some());
}

#[test]
fn a_budget_is_violated_where_nothing_else_helps_alone() {
    let mut all = full(&["a", "b"]);
    resident(&mut all, "a", "guarded", 1000, 0);
    resident(&mut all, "b", "free", 1000, 5);
    let budget = |allowed: i32| {
        serde_json::from_value(json!({
            "spec": {"selector": {"matchLabels": {"app": "guarded"}}},
            "status": {"disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}
        }))
        .unwrap()
    };
    let pod = urgent("p", 500, 10);
    assert!(!all.budgets.seen("ns", "b", Some(&budget(0))));
    assert_eq!(victims(&all, &pod), Some(leave("b", &["free"])), "though it is more important");
    assert!(all.budgets.seen("ns", "b", Some(&budget(1))));
    assert_eq!(victims(&all, &pod), Some(leave("a", &["guarded"])));
    all.budgets.seen("ns", "b", Some(&budget(0)));
    assert_eq!(victims(&all, &urgent("p", 500, 3)), Some(leave("a", &["guarded"])), "the only one");
}

#[test]
fn those_who_wait_for_the_same_node_are_not_given_the_same_room() {
    let mut all = full(&["a"]);
    for n in 0..4 {
        resident(&mut all, "a", &format!("v{n}"), 250, 0);
    }
    let pods: Vec<_> = (0..3).map(|n| urgent(&format!("p{n}"), 500, 10)).collect();
    let plan = planned(&all, &pods);
    let victims: Vec<_> = plan.preemptions.iter().map(|one| one.victims.len()).collect();
    assert_eq!(victims, [2, 2], "the third finds nobody");
    let mut uids: Vec<_> = plan.preemptions.iter().flat_map(|one| one.victims.clone()).collect();
    uids.sort();
    assert_eq!(uids, ["v0", "v1", "v2", "v3"]);
}

#[test]
fn the_room_that_is_made_is_kept_for_who_it_is_made_for_and_its_betters() {
    let mut all = full(&["a"]);
    resident(&mut all, "a", "stays", 400, 50);
    let nominee = urgent("nominee", 500, 10);
    all.nominations.add(nominee.clone(), "a", 0);
    let (low, high) = (urgent("low", 300, 9), urgent("high", 300, 11));
    let placed = |pods: &[Pending]| {
        planned(&all, pods).placements.into_values().flatten().collect::<Vec<_>>()
    };
    assert_eq!(placed(std::slice::from_ref(&low)), Vec::<String>::new());
    assert_eq!(placed(&[low.clone(), nominee]), ["nominee"]);
    assert_eq!(placed(&[high]), ["high"]);
    all.node_gone("a");
    assert!(all.nominations.get("nominee").is_none());
}

#[test]
fn nobody_more_leaves_while_some_are_on_their_way_unless_they_do_not_go() {
    let mut all = full(&["a", "b"]);
    let going = |uid: &str| Pending { going: true, ..pod(uid, 1000) };
    all.pod_bound(going("v"), "a", false, Some(1000));
    resident(&mut all, "b", "other", 1000, 5);
    let nominee = urgent("p", 500, 10);
    all.nominations.add(nominee.clone(), "a", 0);
    let leaves = |is_overdue: &dyn Fn(i64) -> bool| {
        let at = Moment { is_overdue, ..moment(&all) };
        let plan = plan([&nominee], &at, &mut *policy(Which::Random, 0));
        plan.preemptions.into_iter().next().map(|one| (one.node, one.victims))
    };
    assert_eq!(leaves(&|_| false), None, "it waits");
    assert_eq!(leaves(&|_| true), Some(leave("b", &["other"])));
}

#[test]
fn pods_from_which_it_must_be_apart_leave_too() {
    let mut here: Node = node("a", 1000);
    here.labels.insert("host".into(), "a".into());
    let mut all = picture([here]);
    let near = crate::scheduler::picture::tests::apart("near", "web", "web");
    all.pod_bound(near, "a", false, None);
    let mut pod = crate::scheduler::picture::tests::apart("p", "web", "web");
    pod.priority = 1;
    assert_eq!(victims(&all, &pod), Some(leave("a", &["near"])));
}

/// What comes of it at such a moment: who leaves, and who is held.
fn at(moment: &Moment<'_>, pod: &Pending) -> (Option<(String, Vec<String>)>, usize) {
    let mut plan = plan([pod], moment, &mut *policy(Which::Random, 0));
    (plan.preemptions.pop().map(|one| (one.node, one.victims)), plan.held.len())
}

#[test]
fn nobody_leaves_while_a_node_says_that_it_has_less_than_its_pods_leave() {
    let mut all = full(&["a", "b"]);
    resident(&mut all, "a", "a1", 200, 0);
    resident(&mut all, "b", "b1", 900, 0);
    let (small, large) = (urgent("p", 500, 10), urgent("p", 900, 10));
    // The node was started anew, and does not know its containers yet.
    all.corrected("a", Resources::default());
    assert_eq!(at(&moment(&all), &small), (None, 1), "there is room on a, most likely");
    assert_eq!(at(&moment(&all), &large), (Some(leave("b", &["b1"])), 0));
    let believed = Moment { is_believed: &|name| name == "a", ..moment(&all) };
    assert_eq!(at(&believed, &small), (Some(leave("b", &["b1"])), 0), "a has less, after all");
    let mut all = full(&["a"]);
    resident(&mut all, "a", "a1", 600, 0);
    all.corrected("a", Resources::default());
    assert_eq!(at(&moment(&all), &small), (None, 1), "it is looked at again when more is known");
}

#[test]
fn a_node_whose_pods_hold_more_than_it_has_is_worth_what_is_left_when_that_is_given_back() {
    let mut all = full(&["a"]);
    for uid in ["a1", "a2", "a3", "a4"] {
        resident(&mut all, "a", uid, 500, 0);
    }
    let (_, gone) = victims(&all, &urgent("p", 500, 10)).unwrap();
    assert_eq!(gone.len(), 3, "of 2000m that are held of 1000m");
    // The node has lost what the pods have of it.
    let lost = || {
        let mut all = full(&["a", "b"]);
        let asks = |uid: &str, gpus: u64, priority: i32| {
            let mut pod = urgent(uid, 10, priority);
            pod.requests.set(impresario_client::protocol::resources::GPU, gpus);
            pod
        };
        for uid in ["g1", "g2"] {
            all.pod_bound(asks(uid, 1, 0), "a", false, None);
        }
        (all, asks("p", 1, 10))
    };
    let (all, pod) = lost();
    assert_eq!(victims(&all, &pod), None);
}

#[test]
fn nobody_leaves_a_node_that_does_not_answer_nor_does_who_is_not_let_go() {
    let mut all = full(&["a", "b"]);
    resident(&mut all, "a", "a1", 900, 0);
    resident(&mut all, "b", "b1", 900, 5);
    let pod = urgent("p", 500, 10);
    assert_eq!(at(&moment(&all), &pod).0, Some(leave("a", &["a1"])));
    let silent = Moment { away: &|name| (name == "a").then_some(Away::Silent), ..moment(&all) };
    assert_eq!(at(&silent, &pod).0, Some(leave("b", &["b1"])));
    let mut leavers = Leavers::new();
    leavers.refused("a1");
    let refused = Moment { leavers: &leavers, ..moment(&all) };
    assert_eq!(at(&refused, &pod).0, Some(leave("b", &["b1"])));
}

#[test]
fn who_was_told_to_leave_a_moment_ago_has_spent_its_budget_and_makes_room() {
    let mut all = full(&["a", "b", "c"]);
    for (on, uid) in [("a", "guarded-1"), ("b", "guarded-2")] {
        let labels = [("app".to_owned(), "guarded".to_owned())].into();
        let (namespace, name) = ("ns".into(), uid.to_owned());
        all.pod_bound(Pending { namespace, name, labels, ..pod(uid, 900) }, on, false, None);
    }
    resident(&mut all, "c", "free", 900, 5);
    let budget = json!({"spec": {"selector": {"matchLabels": {"app": "guarded"}}},
        "status": {"disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2}});
    all.budgets.seen("ns", "b", Some(&serde_json::from_value(budget).unwrap()));
    all.nominations.add(urgent("first", 900, 10), "a", 0);
    let mut leavers = Leavers::new();
    leavers.told("guarded-1");
    let later = Moment { leavers: &leavers, ..moment(&all) };
    assert_eq!(at(&later, &urgent("second", 500, 10)).0, Some(leave("c", &["free"])));
}

proptest! {
    #[test]
    fn with_those_gone_the_pod_fits_and_with_any_of_them_back_it_does_not(
        residents in proptest::collection::vec((0..3_usize, 50..600_u64, -3..6_i32), 0..20),
        cpu in 1..1200_u64,
        priority in -2..7_i32,
    ) {
        let names = ["a", "b", "c"];
        let mut all = full(&names);
        let mut free = [1000_u64; 3];
        let mut there = Vec::new();
        for (index, (on, cpu, priority)) in residents.into_iter().enumerate() {
            if free[on] >= cpu {
                free[on] -= cpu;
                resident(&mut all, names[on], &format!("r{index}"), cpu, priority);
                there.push((format!("r{index}"), on, cpu, priority));
            }
        }
        let pod = urgent("p", cpu, priority);
        let fits_now = free.iter().any(|free| *free >= cpu);
        let could = (0..3).any(|on| {
            let lower = there.iter().filter(|one| one.1 == on && one.3 < priority);
            free[on] + lower.map(|one| one.2).sum::<u64>() >= cpu
        });
        match victims(&all, &pod) {
            None => prop_assert!(fits_now || !could),
            Some((node, uids)) => {
                prop_assert!(!fits_now);
                let on = names.iter().position(|name| *name == node).unwrap();
                let gone: Vec<_> = there.iter().filter(|one| uids.contains(&one.0)).collect();
                prop_assert!(gone.iter().all(|one| one.1 == on && one.3 < priority));
                let room = free[on] + gone.iter().map(|one| one.2).sum::<u64>();
                prop_assert!(room >= cpu);
                prop_assert!(gone.iter().all(|one| room - one.2 < cpu), "one more than needed leaves");
            }
        }
    }
}
