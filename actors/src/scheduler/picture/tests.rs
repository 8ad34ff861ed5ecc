//! What the picture says after what it was told.

use super::*;
use serde_json::json;

/// A ready node with nothing on it.
pub(crate) fn node(name: &str, cpu_milli: u64) -> Node {
    let all = Resources { cpu_milli, memory_bytes: 1 << 40, pods: 1000, ..Resources::default() };
    Node {
        name: name.to_owned(),
        ready: true,
        allocatable: all.clone(),
        free: all,
        ..Node::default()
    }
}

/// A pod whose uid is its name.
pub(crate) fn pod(uid: &str, cpu_milli: u64) -> Pending {
    let requests = Resources { cpu_milli, pods: 1, ..Resources::default() };
    Pending { uid: uid.to_owned(), requests, ..Pending::default() }
}

/// A pod with the label `app`, that must be apart on nodes from others with another.
pub(crate) fn apart(uid: &str, app: &str, from: &str) -> Pending {
    let term = json!({"labelSelector": {"matchLabels": {"app": from}}, "topologyKey": "host"});
    let affinity =
        json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
    demanding(uid, app, json!({"affinity": affinity}))
}

/// A pod with the label `app` and what its spec says beside.
pub(crate) fn demanding(uid: &str, app: &str, spec: serde_json::Value) -> Pending {
    let object = json!({
        "metadata": {"uid": uid, "name": uid, "namespace": "ns", "labels": {"app": app}}, "spec": spec
    });
    let mut object = object;
    object["spec"]["containers"] = json!([]);
    let pod = Pending::of(&serde_json::from_value(object).unwrap()).unwrap();
    Pending { requests: Resources { cpu_milli: 1, pods: 1, ..Resources::default() }, ..pod }
}

/// A picture of these nodes alone.
pub(crate) fn picture(nodes: impl IntoIterator<Item = Node>) -> Picture {
    let nodes = nodes.into_iter().map(|node| (node.name.clone(), node)).collect();
    Picture { nodes, ..Picture::default() }
}

fn seen(picture: &mut Picture, cpu: &str) -> bool {
    picture.node_seen(
        &serde_json::from_value(json!({
            "metadata": {"name": "n"},
            "status": {
                "allocatable": {"cpu": cpu, "pods": "10"},
                "conditions": [{"type": "Ready", "status": "True"}]
            }
        }))
        .unwrap(),
    )
}

fn free(picture: &Picture) -> u64 {
    picture.nodes["n"].free.cpu_milli
}

fn summary(serial: u64, cpu_milli: u64) -> NodeSummary {
    let free = Resources { cpu_milli, pods: 10, ..Resources::default() };
    NodeSummary {
        node: "n".into(),
        incarnation: 1,
        serial,
        allocatable: free.clone(),
        free,
        pods: 0,
        reserved: 0,
        draining: false,
    }
}

#[test]
fn a_placement_counts_until_it_is_bound_or_comes_to_nothing() {
    let mut picture = Picture::default();
    assert!(seen(&mut picture, "1"));
    picture.assume(&pod("a", 400), "n");
    picture.assume(&pod("b", 100), "n");
    assert_eq!(free(&picture), 500);
    picture.unassume("b");
    assert_eq!(free(&picture), 600);
    assert!(picture.pod_bound(pod("a", 400), "n", false, None).is_none());
    assert_eq!(free(&picture), 600);
    picture.unassume("a");
    assert_eq!(free(&picture), 600);
    assert!(picture.pod_bound(pod("a", 400), "n", true, None).is_some());
    assert_eq!(free(&picture), 1000);
}

#[test]
fn the_lower_word_of_registry_and_node_counts_and_old_words_do_not() {
    let mut picture = Picture::default();
    seen(&mut picture, "1");
    picture.told(summary(2, 300));
    assert_eq!(free(&picture), 300);
    assert!(!picture.told(summary(1, 900)));
    assert_eq!(free(&picture), 300);
    assert!(picture.told(summary(3, 900)));
    assert_eq!(free(&picture), 900);
    picture.corrected("n", Resources::default());
    assert_eq!(free(&picture), 0);
}

#[test]
fn a_port_of_a_node_is_taken_as_long_as_one_pod_has_it_whatever_was_read_first() {
    let serves = |uid: &str| {
        let port = HostPort { protocol: "TCP".into(), port: 80, address: String::new() };
        Pending { host_ports: vec![port], ..pod(uid, 1) }
    };
    let mut picture = Picture::default();
    picture.pod_bound(serves("a"), "n", false, None);
    seen(&mut picture, "1");
    let taken = |picture: &Picture| picture.nodes["n"].host_ports.len();
    assert_eq!(taken(&picture), 1);
    picture.pod_bound(serves("b"), "n", false, None);
    picture.pod_gone("a");
    assert_eq!(taken(&picture), 1, "the second pod has it still");
    picture.node_gone("n");
    seen(&mut picture, "1");
    assert_eq!(taken(&picture), 1);
    picture.pod_gone("b");
    assert_eq!(taken(&picture), 0);
}

#[test]
fn a_node_is_doubted_while_its_word_is_lower_than_what_the_registry_shows() {
    let mut picture = Picture::default();
    seen(&mut picture, "1");
    assert!(picture.doubtful().is_empty());
    picture.told(summary(1, 1000));
    picture.assume(&pod("a", 400), "n");
    assert!(picture.doubtful().is_empty(), "what is held in the registry is no reason");
    picture.corrected("n", Resources::default());
    assert_eq!(picture.doubtful(), ["n"]);
    picture.told(summary(2, 600));
    assert!(picture.doubtful().is_empty());
}

#[test]
fn a_node_takes_pods_again_when_both_its_object_and_itself_say_so() {
    let mut picture = Picture::default();
    seen(&mut picture, "1");
    picture.told(NodeSummary { draining: true, ..summary(1, 900) });
    assert!(picture.nodes["n"].unschedulable);
    seen(&mut picture, "2");
    assert!(picture.nodes["n"].unschedulable);
    assert!(picture.told(summary(2, 900)));
    assert!(!picture.nodes["n"].unschedulable);
}

#[test]
fn a_node_that_is_seen_again_unchanged_is_no_news() {
    let mut picture = Picture::default();
    assert!(seen(&mut picture, "1"));
    picture.assume(&pod("a", 400), "n");
    assert!(!seen(&mut picture, "1"));
    assert!(seen(&mut picture, "2"));
    assert_eq!(free(&picture), 1600);
}
