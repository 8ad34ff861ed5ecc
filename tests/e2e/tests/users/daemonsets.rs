//! Daemon sets: a pod on each node that they are meant for, from one template to the next and back.

use crate::manifests::workload;
use impresario_e2e::{Site, eventually, with_a_kubectl, with_every_kubectl};
use std::collections::BTreeSet;

with_every_kubectl!(a_daemon_set_runs_on_each_node_is_rolled_over_and_goes_back);
with_a_kubectl!(a_daemon_set_follows_the_labels_of_nodes_and_waits_where_it_is_told_to);

fn daemon_set(name: &str, spec: &str) -> String {
    workload("DaemonSet", name, spec, "")
}

/// The words that a JSON path gives, in order.
fn words(site: &Site, get: &str, path: &str) -> Vec<String> {
    let mut words: Vec<_> =
        site.kubectl.field(get, path).split_whitespace().map(str::to_owned).collect();
    words.sort();
    words
}

const NAMES: &str = "{.items[*].metadata.name}";
const NODES: &str = "{.items[*].spec.nodeName}";

fn a_daemon_set_runs_on_each_node_is_rolled_over_and_goes_back(site: &Site) {
    let kubectl = &site.kubectl;
    let status = "rollout status ds/agent --timeout=180s";
    kubectl.feed("apply -f -", &daemon_set("agent", "")).ok();
    let told = kubectl.run(status).ok();
    assert!(told.contains("successfully rolled out"), "{told}");
    let nodes = words(site, "get nodes", NAMES);
    assert_eq!(words(site, "get pods -l app=agent", NODES), nodes, "one on each");
    let count = nodes.len().to_string();
    let shown = kubectl.run("get ds agent --no-headers").ok();
    let shown: Vec<_> = shown.split_whitespace().take(7).collect();
    assert_eq!(shown, ["agent", &count, &count, &count, &count, &count, "<none>"]);

    kubectl.run("set env ds/agent COLOUR=blue").ok();
    kubectl.run(status).ok();
    let colours = "{.items[*].spec.containers[0].env[0].value}";
    eventually("all pods are of the new template", || {
        let colours = words(site, "get pods -l app=agent", colours);
        if colours == vec!["blue"; nodes.len()] { Ok(()) } else { Err(format!("{colours:?}")) }
    });
    let history = kubectl.run("rollout history ds/agent").ok();
    assert_eq!(history.lines().filter(|line| line.contains("<none>")).count(), 2, "{history}");
    let second = kubectl.run("rollout history ds/agent --revision=2").ok();
    assert!(second.contains("COLOUR"), "{second}");
    kubectl.run("rollout undo ds/agent").ok();
    kubectl.run(status).ok();
    kubectl.until("get pods -l app=agent", colours, "");
    let described = kubectl.run("describe ds agent").ok();
    for word in ["SuccessfulCreate", "SuccessfulDelete", "Desired Number of Nodes Scheduled"] {
        assert!(described.contains(word), "{word}: {described}");
    }
    kubectl.run("delete ds agent --timeout=120s").ok();
    kubectl.until("get pods,controllerrevisions", NAMES, "");
}

fn a_daemon_set_follows_the_labels_of_nodes_and_waits_where_it_is_told_to(site: &Site) {
    let kubectl = &site.kubectl;
    // Tests share the nodes: the label is this one's own.
    let label = format!("daemons.example.org/{}", kubectl.namespace);
    let wait = "  updateStrategy: {type: OnDelete}";
    let given = daemon_set("agent", wait).replace(
        "      terminationGracePeriodSeconds: 1\n",
        &format!("      terminationGracePeriodSeconds: 1\n      nodeSelector: {{{label}: here}}\n"),
    );
    kubectl.feed("apply -f -", &given).ok();
    kubectl.until(
        "get ds agent",
        "{.status.observedGeneration} {.status.desiredNumberScheduled}",
        "1 0",
    );
    let nodes = words(site, "get nodes", NAMES);
    let node = &nodes[0];
    kubectl.run(&format!("label node {node} {label}=here")).ok();
    kubectl.until("get ds agent", "{.status.numberAvailable}", "1");
    assert_eq!(kubectl.field("get pods -l app=agent", NODES), *node);
    let uid = kubectl.field("get pods -l app=agent", "{.items[*].metadata.uid}");

    kubectl.run("set env ds/agent COLOUR=blue").ok();
    kubectl.until(
        "get ds agent",
        "{.status.observedGeneration} {.status.updatedNumberScheduled}",
        "2 ",
    );
    assert_eq!(kubectl.field("get pods -l app=agent", "{.items[*].metadata.uid}"), uid);
    kubectl.run("delete pods -l app=agent --timeout=120s").ok();
    kubectl.until("get ds agent", "{.status.updatedNumberScheduled} {.status.numberReady}", "1 1");

    kubectl.run(&format!("label node {node} {label}-")).ok();
    kubectl.until("get pods -l app=agent", NAMES, "");
    let left: BTreeSet<_> = words(site, "get controllerrevisions", NAMES).into_iter().collect();
    assert_eq!(left.len(), 2, "what it was is known: {left:?}");
}
