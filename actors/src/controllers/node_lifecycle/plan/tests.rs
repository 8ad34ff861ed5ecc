use super::super::super::table::pod;
use super::super::taints::{NOT_READY, OUT_OF_SERVICE, UNREACHABLE};
use super::*;
use k8s_openapi::api::core::v1::{NodeCondition, NodeSpec, NodeStatus, NodeSystemInfo, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

const NOW: i64 = 10_000;

/// A node that is well, or has been lost for so long.
fn node(name: &str, lost_for: Option<i64>) -> Arc<Node> {
    let taints = |ago: i64| {
        let added = Some(Time(Timestamp::from_second(NOW - ago).unwrap()));
        let taint = |effect: &str| Taint {
            key: UNREACHABLE.into(),
            effect: effect.into(),
            time_added: added.clone(),
            value: None,
        };
        vec![taint("NoSchedule"), taint("NoExecute")]
    };
    let ready = NodeCondition {
        type_: "Ready".into(),
        status: if lost_for.is_some() { "Unknown" } else { "True" }.into(),
        ..NodeCondition::default()
    };
    Arc::new(Node {
        metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
        spec: Some(NodeSpec { taints: lost_for.map(taints), ..NodeSpec::default() }),
        status: Some(NodeStatus { conditions: Some(vec![ready]), ..NodeStatus::default() }),
    })
}

/// The same, changed.
fn but(node: &Arc<Node>, change: impl FnOnce(&mut Node)) -> Arc<Node> {
    let mut node = node.as_ref().clone();
    change(&mut node);
    Arc::new(node)
}

fn ages(ages: &[(&str, u64)]) -> HashMap<String, Duration> {
    ages.iter().map(|(name, age)| ((*name).into(), Duration::from_secs(*age))).collect()
}

/// By a leader that has been leading for long.
fn heard(of: &[(&str, u64)]) -> Heard {
    Heard { leading_for: Duration::from_secs(5_000), ages: ages(of) }
}

fn reconcile(nodes: &[Arc<Node>], pods: &[Arc<Pod>], heard: &Heard, now: Timestamp) -> Vec<Action> {
    let (missing, turns) = Default::default();
    super::reconcile(Seen { nodes, pods, heard, missing: &missing, turns: &turns }, now)
}

/// What is to be done, in words: which node with which taints, or which pod.
fn in_words(actions: &[Action]) -> Vec<String> {
    let short = |taint: &Taint| {
        let key = taint.key.rsplit('/').next().unwrap().to_owned();
        format!(" {key}:{}", taint.effect)
    };
    let word = |action: &Action| match action {
        Action::Lose { node, taints } => {
            format!("lose {node}{}", taints.iter().map(short).collect::<String>())
        }
        Action::Taint { node, taints } => {
            format!("taint {node}{}", taints.iter().map(short).collect::<String>())
        }
        Action::Unready { pod } => format!("unready {}", pod.1),
        Action::Evict { pod } => format!("evict {}", pod.1),
        Action::Release { pod } => format!("release {}", pod.1),
        Action::Remove { node, pod } => format!("remove {} of {node}", pod.1),
    };
    actions.iter().map(word).collect()
}

const LOST: &str = " unreachable:NoSchedule unreachable:NoExecute";

fn tolerating(seconds: Option<i64>) -> Arc<Pod> {
    let mut pod = pod("a:bound", 0, "rc", "web");
    pod.spec.as_mut().unwrap().tolerations = Some(vec![Toleration {
        key: Some(UNREACHABLE.into()),
        operator: Some("Exists".into()),
        effect: Some("NoExecute".into()),
        toleration_seconds: seconds,
        value: None,
    }]);
    Arc::new(pod)
}

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

#[test]
fn a_silent_node_is_lost_and_a_heard_one_is_welcome_again() {
    let nodes = [node("node-1", None), node("node-2", Some(20)), node("node-3", None)];
    let silence = heard(&[("node-1", 11), ("node-2", 1), ("node-3", 9)]);
    let actions = reconcile(&nodes, &[], &silence, now());
    assert_eq!(in_words(&actions), [format!("lose node-1{LOST}"), "taint node-2".into()]);
}

#[test]
fn a_node_that_is_still_to_start_has_longer_than_one_that_has_run() {
    let aged = |age: i64, version: &str| {
        let mut node = node("node-1", None).as_ref().clone();
        let created = Timestamp::from_second(NOW - age).unwrap();
        node.metadata.creation_timestamp = Some(Time(created));
        let info = NodeSystemInfo { kubelet_version: version.into(), ..Default::default() };
        node.status = Some(NodeStatus { node_info: Some(info), ..NodeStatus::default() });
        reconcile(&[Arc::new(node)], &[], &heard(&[("node-1", 900)]), now()).len()
    };
    assert_eq!((aged(59, ""), aged(61, "")), (0, 1));
    assert_eq!(aged(59, "v1.36.0"), 1, "it has run, so it is lost");
}

#[test]
fn a_pod_is_evicted_when_its_toleration_is_used_up() {
    let nodes = [node("node-1", Some(100)), node("node-2", None)];
    let silence = heard(&[("node-1", 100), ("node-2", 0)]);
    let evicted = |pod: Arc<Pod>| reconcile(&nodes, &[pod], &silence, now());
    for used_up in [99, 100] {
        let actions = evicted(tolerating(Some(used_up)));
        assert!(matches!(&actions[..], [Action::Evict { .. }]), "{used_up}");
    }
    assert_eq!(evicted(tolerating(Some(101))), []);
    assert_eq!(evicted(tolerating(None)), []);
}

#[test]
fn the_ready_pods_of_a_lost_node_are_unready_at_once_and_no_others() {
    let nodes = [node("node-1", None), node("node-2", None)];
    let pods = ["a:ready", "b:bound", "c:ready,node=2", "d:succeeded", "e:ready,terminating"];
    let pods: Vec<_> = pods.iter().map(|words| Arc::new(pod(words, 0, "rc", "web"))).collect();
    let unready = |silent: u64| -> Vec<String> {
        let silence = heard(&[("node-1", silent), ("node-2", 0)]);
        let name = |action| match action {
            Action::Unready { pod: (_, name, _) } => Some(name),
            _ => None,
        };
        reconcile(&nodes, &pods, &silence, now()).into_iter().filter_map(name).collect()
    };
    assert_eq!(unready(9), Vec::<String>::new());
    assert_eq!(unready(10), ["a", "e"]);
}

#[test]
fn nobody_is_evicted_when_most_nodes_are_silent() {
    let nodes = [node("node-1", Some(900)), node("node-2", Some(900)), node("node-3", None)];
    let silence = heard(&[("node-1", 900), ("node-2", 900), ("node-3", 0)]);
    assert_eq!(reconcile(&nodes, &[tolerating(Some(300))], &silence, now()), []);
}

#[test]
fn a_new_leader_neither_loses_nor_welcomes_a_node_that_it_has_not_heard() {
    let nodes = [node("node-1", None), node("node-2", Some(200)), node("node-3", None)];
    let led = |seconds: u64, of: &[(&str, u64)]| {
        let heard = Heard { leading_for: Duration::from_secs(seconds), ages: ages(of) };
        reconcile(&nodes, &[tolerating(Some(150))], &heard, now())
    };
    assert_eq!(led(3, &[("node-3", 1)]), [], "nothing is known yet of the first two");
    // After a pause of its own a leader has heard nobody since: ages are as its time.
    assert_eq!(led(3, &[("node-1", 3), ("node-2", 3), ("node-3", 1)]), []);
    assert_eq!(in_words(&led(3, &[("node-2", 1), ("node-3", 1)])), ["taint node-2"]);
    let lost = led(10, &[("node-3", 1)]);
    assert_eq!(in_words(&lost), ["lose node-1 unreachable:NoSchedule"], "most are silent");
}

#[test]
fn a_pod_of_a_lost_node_goes_by_the_time_of_the_taint_whoever_leads() {
    let nodes = [node("node-1", Some(301)), node("node-2", None), node("node-3", None)];
    let heard =
        Heard { leading_for: Duration::from_secs(10), ages: ages(&[("node-2", 1), ("node-3", 1)]) };
    let actions = reconcile(&nodes, &[tolerating(Some(300))], &heard, now());
    assert!(matches!(&actions[..], [Action::Evict { .. }]), "{actions:?}");
}

#[test]
fn a_toleration_longer_than_the_calendar_is_for_ever() {
    let nodes = [node("node-1", Some(100)), node("node-2", None), node("node-3", None)];
    let heard = heard(&[("node-1", 100), ("node-2", 0), ("node-3", 0)]);
    for seconds in [i64::MAX, i64::MAX / 1_000, 1 << 40] {
        let pods = [tolerating(Some(seconds)), tolerating(Some(99))];
        let actions = reconcile(&nodes, &pods, &heard, now());
        assert!(matches!(&actions[..], [Action::Evict { .. }]), "{seconds}: {actions:?}");
    }
}

#[test]
fn a_pod_is_removed_when_its_node_has_had_no_object_for_long() {
    // The pod is hours old: that says nothing of its node.
    let pods = [Arc::new(pod("a:ready", 0, "rc", "web"))];
    let removed = |missing: &[(&str, u64)]| {
        let (heard, missing, turns) = (Heard::default(), ages(missing), Turns::default());
        let (nodes, pods) = (&[], &pods);
        super::reconcile(
            Seen { nodes, pods, heard: &heard, missing: &missing, turns: &turns },
            now(),
        )
    };
    assert_eq!(removed(&[]), []);
    assert_eq!(removed(&[("node-1", 39), ("node-2", 900)]), []);
    let actions = removed(&[("node-1", 40)]);
    assert!(matches!(&actions[..], [Action::Remove { node, .. }] if node == "node-1"));
}

#[test]
fn nodes_that_are_lost_together_have_their_pods_driven_out_one_after_another() {
    let mut nodes: Vec<_> = (1..=6).map(|n| node(&format!("node-{n}"), None)).collect();
    nodes[5] = but(&nodes[5], |node| {
        let zone = ("topology.kubernetes.io/zone".to_owned(), "other".to_owned());
        node.metadata.labels = Some([zone].into());
    });
    let silent = [("node-1", 11), ("node-2", 12), ("node-6", 11)];
    let mut silence = heard(&silent);
    silence.ages.extend(ages(&[("node-3", 0), ("node-4", 0), ("node-5", 0)]));
    let mut turns = Turns::default();
    let mut order = Vec::new();
    for second in 0..25 {
        let now = Timestamp::from_second(NOW + second).unwrap();
        let missing = HashMap::new();
        turns.read(nodes.iter(), now);
        let seen =
            Seen { nodes: &nodes, pods: &[], heard: &silence, missing: &missing, turns: &turns };
        for action in super::reconcile(seen, now) {
            let (Action::Lose { node, taints } | Action::Taint { node, taints }) = action else {
                panic!("{action:?}");
            };
            let place = nodes.iter().position(|other| name(other) == node).unwrap();
            if taints.iter().any(taints::evicts) {
                order.push((second, node));
            }
            nodes[place] = but(&nodes[place], |node| {
                node.spec.as_mut().unwrap().taints = Some(taints);
                let said = node.status.as_mut().unwrap().conditions.as_mut().unwrap();
                said[0].status = "Unknown".into();
            });
        }
        // It comes back at once: the next has to wait all the same.
        silence.ages.insert("node-2".into(), Duration::ZERO);
    }
    let order: Vec<_> = order.iter().map(|(second, node)| (*second, node.as_str())).collect();
    assert_eq!(order, [(0, "node-2"), (0, "node-6"), (10, "node-1")]);
    let taints: Vec<usize> = nodes.iter().map(|node| taints::of(node).len()).collect();
    assert_eq!(taints, [2, 0, 0, 0, 0, 2], "the second came back");
}

#[test]
fn nobody_is_driven_out_where_no_node_is_well_and_time_begins_anew_then() {
    let nodes = [node("node-1", Some(900)), node("node-2", None)];
    let silence = heard(&[("node-1", 900), ("node-2", 11)]);
    let actions = reconcile(&nodes, &[tolerating(Some(300))], &silence, now());
    let words = ["taint node-1 unreachable:NoSchedule", "lose node-2 unreachable:NoSchedule"];
    assert_eq!(in_words(&actions), words);
}

#[test]
fn a_taint_of_an_operator_drives_out_who_does_not_tolerate_it_also_where_the_way_is_cut() {
    let of_mine = |node: &mut Node| {
        let mine = Taint {
            key: "mine".into(),
            effect: "NoExecute".into(),
            time_added: Some(Time(now())),
            value: None,
        };
        node.spec.as_mut().unwrap().taints.get_or_insert_default().push(mine);
    };
    let mut other = tolerating(None).as_ref().clone();
    let tolerations = other.spec.as_mut().unwrap().tolerations.as_mut().unwrap();
    tolerations[0].key = Some("mine".into());
    let pods = [tolerating(None), Arc::new(other)];
    for nodes in [
        [but(&node("node-1", None), of_mine), node("node-2", None)],
        [but(&node("node-1", Some(900)), of_mine), node("node-2", Some(900))],
    ] {
        let silent = if nodes[1].spec.as_ref().unwrap().taints.is_some() { 900 } else { 0 };
        let silence = heard(&[("node-1", silent), ("node-2", silent)]);
        let evicted = |pod: &Arc<Pod>| {
            let actions = reconcile(&nodes, std::slice::from_ref(pod), &silence, now());
            actions.iter().any(|action| matches!(action, Action::Evict { .. }))
        };
        assert_eq!([evicted(&pods[0]), evicted(&pods[1])], [true, false], "{silent}");
    }
}

#[test]
fn a_pod_of_a_node_that_comes_back_stays() {
    let nodes = [node("node-1", Some(900)), node("node-2", None)];
    let actions =
        reconcile(&nodes, &[tolerating(Some(300))], &heard(&[("node-1", 0), ("node-2", 0)]), now());
    assert_eq!(in_words(&actions), ["taint node-1"]);
}

#[test]
fn a_node_that_says_that_it_is_not_ready_has_its_pods_driven_out_after_their_time() {
    let says = |node: &mut Node| {
        node.status.as_mut().unwrap().conditions.as_mut().unwrap()[0].status = "False".into();
        for taint in node.spec.as_mut().unwrap().taints.as_mut().unwrap() {
            taint.key = NOT_READY.into();
        }
    };
    let nodes = [but(&node("node-1", Some(300)), says), node("node-2", None)];
    let mut pod = tolerating(Some(300)).as_ref().clone();
    pod.spec.as_mut().unwrap().tolerations.as_mut().unwrap()[0].key = Some(NOT_READY.into());
    let silence = heard(&[("node-1", 0), ("node-2", 0)]);
    let actions = |pod: Pod| in_words(&reconcile(&nodes, &[Arc::new(pod)], &silence, now()));
    assert_eq!(actions(pod.clone()), ["evict a"]);
    pod.spec.as_mut().unwrap().tolerations.as_mut().unwrap()[0].toleration_seconds = Some(301);
    assert_eq!(actions(pod), Vec::<String>::new());
}

#[test]
fn who_was_asked_to_end_on_a_node_that_is_certified_to_be_off_is_released() {
    let off = |node: &mut Node| {
        node.spec.as_mut().unwrap().taints.as_mut().unwrap().push(Taint {
            key: OUT_OF_SERVICE.into(),
            effect: "NoExecute".into(),
            time_added: Some(Time(now())),
            value: Some("nodeshutdown".into()),
        });
    };
    let certified = but(&node("node-1", Some(20)), off);
    let mut gone = pod("gone:failed,terminating", 0, "rc", "web");
    gone.metadata.deletion_grace_period_seconds = Some(0);
    let pods = [
        Arc::new(pod("stays:bound", 0, "rc", "web")),
        Arc::new(pod("ends:bound,terminating", 0, "rc", "web")),
        Arc::new(gone),
    ];
    let done = |node_1: &Arc<Node>, silent: u64| {
        let nodes = [node_1.clone(), node("node-2", None)];
        let actions = reconcile(&nodes, &pods, &heard(&[("node-1", silent), ("node-2", 0)]), now());
        in_words(&actions)
    };
    assert_eq!(done(&certified, 20), ["evict stays", "release ends"]);
    // One that is heard is not off, whatever somebody says: its pods end as usual.
    assert_eq!(done(&certified, 0)[1..], ["evict stays"]);
    // Nobody said so of this one: the second of two of one name must not begin.
    assert_eq!(done(&node("node-1", Some(20)), 20), ["evict stays"]);
}
