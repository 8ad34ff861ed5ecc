//! What comes of a plan.

use super::*;
use crate::scheduler::{
    picture::tests::{node, picture, pod},
    policy::{Which, policy},
};
use proptest::prelude::*;

/// Nobody is away, and nobody is late.
pub(crate) fn moment(picture: &Picture) -> Moment<'_> {
    Moment::of(picture, 0)
}

fn planned<'a>(
    pods: impl IntoIterator<Item = &'a Pending>,
    picture: &'a Picture,
    policy: &mut dyn Policy,
) -> Plan {
    plan(pods, &moment(picture), policy)
}

#[test]
fn the_more_important_and_the_older_pod_goes_first() {
    let (mut late, mut early, mut urgent) =
        (pod("late", 600), pod("early", 600), pod("urgent", 600));
    (late.since, early.since, urgent.since) = (2, 1, 3);
    urgent.priority = 10;
    let picture = picture([node("n", 1200)]);
    let plan = planned([&late, &early, &urgent], &picture, &mut *policy(Which::LeastAllocated, 0));
    assert_eq!(plan.placements["n"], ["urgent", "early"]);
    let (uid, why) = &plan.unschedulable[0];
    let told = "0/1 nodes are available: 1 Insufficient cpu.".to_owned();
    assert_eq!((uid.as_str(), why.to_string(), plan.unschedulable.len()), ("late", told, 1));
}

#[test]
fn many_nodes_are_sampled_and_still_any_that_fits_is_found() {
    let mut nodes: Vec<_> = (0..300).map(|n| node(&format!("n{n:03}"), 100)).collect();
    nodes[250].free.cpu_milli = 1000;
    nodes[250].allocatable.cpu_milli = 1000;
    let picture = picture(nodes);
    for start in [0, 100, 251, 299, 1000] {
        let (pod, at) = (pod("p", 500), Moment { start, ..moment(&picture) });
        let plan = plan([&pod], &at, &mut *policy(Which::Random, 1));
        assert_eq!(plan.placements["n250"], ["p"]);
    }
}

#[test]
fn a_node_that_cannot_be_asked_gets_nothing_and_who_fits_only_there_waits_for_it() {
    let picture = picture([node("emptiest", 2000), node("full", 500)]);
    let (small, large) = (pod("small", 300), pod("large", 1500));
    let mut policy = policy(Which::LeastAllocated, 0);
    let mut planned = |away| {
        let away = |name: &str| (name == "emptiest").then_some(away);
        plan([&small, &large], &Moment { away: &away, ..moment(&picture) }, &mut *policy)
    };
    let placements = [("full".to_owned(), vec!["small".to_owned()])].into();
    let silent = planned(Away::Silent);
    assert_eq!(silent.placements, placements);
    let told = "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) did not answer.";
    assert_eq!((silent.held[0].0.as_str(), silent.held[0].1.to_string().as_str()), ("large", told));
    assert_eq!((silent.held.len(), silent.unschedulable.len()), (1, 0));
    let behind = vec!["large".to_owned()];
    assert_eq!(planned(Away::Busy), Plan { placements, behind, ..Plan::default() });
}

#[test]
fn pods_like_one_that_fits_nowhere_are_told_the_same_and_others_are_looked_at() {
    let picture = picture([node("n", 1000)]);
    let (one, two, small) = (pod("a", 3000), pod("b", 3000), pod("c", 300));
    let mut policy = policy(Which::Random, 1);
    let plan = planned([&one, &two, &small], &picture, &mut *policy);
    let uids: Vec<_> = plan.unschedulable.iter().map(|(uid, _)| uid.as_str()).collect();
    assert_eq!(uids, ["a", "b"]);
    assert!(Arc::ptr_eq(&plan.unschedulable[0].1, &plan.unschedulable[1].1));
    assert_eq!(plan.placements["n"], ["c"]);
}

#[test]
fn labels_that_nobody_goes_by_make_no_kinds_and_those_that_somebody_goes_by_do() {
    let numbered = |number: usize, cpu: u64| {
        let uid = format!("p{number:04}");
        let labels = [("index".to_owned(), number.to_string())].into();
        Pending { labels, namespace: "ns".into(), priority: 10, ..pod(&uid, cpu) }
    };
    let mut all = picture([node("a", 1000), node("b", 1000)]);
    for on in ["a", "b"] {
        all.pod_bound(pod(on, 900), on, false, None);
    }
    let pods: Vec<_> = (0..1_000).map(|number| numbered(number, 5000)).collect();
    let late = Pending { priority: 0, ..pod("late", 50) };
    let made = plan(pods.iter().chain([&late]), &moment(&all), &mut *policy(Which::Random, 1));
    assert_eq!((made.unschedulable.len(), made.is_cut), (1_000, false));
    assert!(made.unschedulable.iter().all(|(_, why)| Arc::ptr_eq(why, &made.unschedulable[0].1)));
    assert_eq!(made.placements.values().flatten().collect::<Vec<_>>(), ["late"]);
    // One is there that must be apart from one of them.
    let mut here = node("a", 1000);
    here.labels.insert("host".into(), "a".into());
    let mut all = picture([here]);
    let jealous = crate::scheduler::picture::tests::apart("jealous", "x", "web");
    all.pod_bound(jealous, "a", false, None);
    let of = |app: &str, uid: &str| {
        let labels = [("app".to_owned(), app.to_owned())].into();
        Pending { labels, namespace: "ns".into(), ..pod(uid, 1) }
    };
    let (web, db) = (of("web", "1"), of("db", "2"));
    let made = planned([&web, &db], &all, &mut *policy(Which::Random, 1));
    assert_eq!(
        (made.unschedulable.len(), made.placements["a"].as_slice()),
        (1, &["2".to_owned()][..])
    );
}

proptest! {
    #[test]
    fn no_policy_ever_plans_more_than_is_free_and_no_pod_is_lost(
        free in proptest::collection::vec(0..2000u64, 1..12),
        asks in proptest::collection::vec(1..900u64, 0..40),
        which in 0..4usize,
        silent in 0..12usize,
        busy in 0..12usize,
    ) {
        let picture = picture(free.iter().enumerate().map(|(n, cpu)| node(&format!("n{n}"), *cpu)));
        let pods: Vec<_> = asks.iter().enumerate().map(|(n, cpu)| pod(&format!("p{n}"), *cpu)).collect();
        let away = |name: &str| match name[1..].parse::<usize>().unwrap() {
            n if n == silent => Some(Away::Silent),
            n if n == busy => Some(Away::Busy),
            _ => None,
        };
        let at = Moment { away: &away, ..moment(&picture) };
        let plan = plan(&pods, &at, &mut *policy(Which::ALL[which], 3));
        let asked = |uid: &String| pods.iter().find(|pod| pod.uid == *uid).unwrap().requests.cpu_milli;
        for (name, uids) in &plan.placements {
            let free = free[name[1..].parse::<usize>().unwrap()];
            prop_assert!(uids.iter().map(asked).sum::<u64>() <= free);
        }
        let placed = plan.placements.values().map(Vec::len).sum::<usize>();
        let waiting = plan.unschedulable.len() + plan.held.len() + plan.behind.len();
        prop_assert_eq!(placed + waiting, pods.len());
        let asked_away = plan.placements.keys().any(|name| away(name).is_some());
        prop_assert!(!asked_away);
    }
}
