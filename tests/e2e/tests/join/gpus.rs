//! GPUs of a node, through the real bindings over a library that stands in for the driver.

use crate::cluster::{Cluster, until};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn library(folder: &Path) -> PathBuf {
    let (library, state) = (folder.join("libnvidia-ml.so"), folder.join("state"));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../../cluster/host/tests/host/fake_nvml.c");
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(format!("-DSTATE=\"{}\"", state.display()))
        .arg(source)
        .status()
        .expect("a C compiler");
    assert!(status.success(), "the library does not compile");
    std::fs::write(state, "2").unwrap();
    library
}

/// A pod that says which GPU it sees.
fn pod(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  \
         containers:\n  - name: c\n    image: busybox\n    command: [sh, -c, 'echo sees $CUDA_VISIBLE_DEVICES; exec sleep 600']\n    \
         resources: {{limits: {{nvidia.com/gpu: 1}}}}\n"
    )
}

fn sees(cluster: &Cluster, pod: &str) -> String {
    cluster.running(pod);
    until(&format!("{pod} says which it sees"), || {
        let logs = cluster.kubectl(&["logs", pod]);
        logs.lines().find_map(|line| line.strip_prefix("sees ")).map(str::to_owned)
    })
}

#[test]
fn each_pod_has_a_gpu_of_its_own_and_keeps_it_when_its_node_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::up(1, &[("IMPRESARIO_NVML", &library(folder.path()))]);
    let described = cluster.kubectl(&["describe", "node", "node-1"]);
    let counts = described.lines().filter(|line| line.trim_start().starts_with("nvidia.com/gpu"));
    assert!(counts.clone().filter(|line| line.ends_with(" 2")).count() >= 2, "{described}");

    cluster.apply(&pod("a"));
    cluster.apply(&pod("b"));
    let (a, b) = (sees(&cluster, "a"), sees(&cluster, "b"));
    let both = BTreeSet::from([a.as_str(), b.as_str()]);
    assert_eq!(both, BTreeSet::from(["GPU-00000000", "GPU-00000001"]));
    cluster.apply(&pod("c"));
    until("the third is told why it waits", || {
        let events = cluster.kubectl(&["get", "events", "-o", "jsonpath={.items[*].message}"]);
        events.contains("nvidia.com/gpu").then_some(())
    });

    cluster.kill("node-1");
    cluster.start();
    cluster.kubectl(&["delete", "pod", "a", "--timeout", "120s"]);
    assert_eq!(sees(&cluster, "c"), a, "the one that was given back");
    assert_eq!(sees(&cluster, "b"), b);
    let restarts = "jsonpath={.status.containerStatuses[0].restartCount}";
    assert_eq!(cluster.kubectl(&["get", "pod", "b", "-o", restarts]), "0");
    cluster.kubectl(&["delete", "pod", "b", "c", "--timeout", "120s"]);

    let allocatable = "jsonpath={.status.allocatable.nvidia\\.com/gpu}";
    let is = || cluster.kubectl(&["get", "node", "node-1", "-o", allocatable]);
    std::fs::write(folder.path().join("state"), "2 1").unwrap();
    until("a lost GPU is not offered any more", || (is() == "1").then_some(()));
    until("an event says so", || {
        cluster.kubectl(&["describe", "node", "node-1"]).contains("GPUUnhealthy").then_some(())
    });
    std::fs::write(folder.path().join("state"), "2").unwrap();
    until("one that is back is offered again", || (is() == "2").then_some(()));
}

#[test]
fn the_nodes_of_a_machine_divide_its_gpus() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::up(2, &[("IMPRESARIO_NVML", &library(folder.path()))]);
    let capacity = "jsonpath={.items[*].status.capacity.nvidia\\.com/gpu}";
    until("each node has one of the two", || {
        (cluster.kubectl(&["get", "nodes", "-o", capacity]) == "1 1").then_some(())
    });
    cluster.apply(&pod("a"));
    cluster.apply(&pod("b"));
    let (a, b) = (sees(&cluster, "a"), sees(&cluster, "b"));
    let both = BTreeSet::from([a.as_str(), b.as_str()]);
    assert_eq!(both, BTreeSet::from(["GPU-00000000", "GPU-00000001"]));
}
