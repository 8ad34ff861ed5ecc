//! Nodes that come, go, are closed and are lost: on clusters of their own, since what happens to a
//! node happens to everybody's pods.

#![allow(clippy::unwrap_used)] // what is shared by tests fails as tests do

use impresario_e2e::{Cluster, Kubectl, Settings, eventually, eventually_within};
use std::collections::BTreeSet;
use std::time::Duration;

const VERSION: &str = "1.33";

fn replicas(count: u32) -> String {
    format!(
        r#"
apiVersion: v1
kind: ReplicationController
metadata: {{name: app}}
spec:
  replicas: {count}
  selector: {{app: app}}
  template:
    metadata: {{labels: {{app: app}}}}
    spec:
      terminationGracePeriodSeconds: 1
      tolerations:
      - {{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 2}}
      - {{key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 2}}
      containers:
      - {{name: main, image: busybox, command: [sleep, "600"]}}
"#
    )
}

/// The nodes of the pods that are to stay. One of a lost node is Terminating until its node is back.
fn nodes_of(kubectl: &Kubectl) -> BTreeSet<String> {
    let pods = kubectl.json("get pods");
    let stay = pods["items"].as_array().unwrap().iter();
    let stay = stay.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    stay.filter_map(|pod| pod["spec"]["nodeName"].as_str().map(str::to_owned)).collect()
}

/// Whether a process runs; one that only waits for its parent to take notice does not.
fn runs(pid: nix::unistd::Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

#[test]
fn kubectl_goes_on_when_a_control_member_is_killed_and_its_pods_move() {
    let cluster = Cluster::start(Settings::default());
    let kubectl = Kubectl::new(VERSION, &cluster, "default");
    kubectl.feed("create -f -", &replicas(3)).ok();
    kubectl.until("get rc app", "{.status.readyReplicas}", "3");
    let leader = cluster.leader();
    let mut watch = kubectl.lines("get pods --watch");
    watch.expect("Running");
    cluster.kill(&leader);
    // The next leader is there within a moment; each command is answered by a member that lives.
    eventually_within(Duration::from_secs(60), "writes go on", || {
        let output = kubectl.run("create configmap after --from-literal=a=b");
        let done = output.code == 0 || output.err.contains("AlreadyExists");
        if done { Ok(()) } else { Err(output.err) }
    });
    for number in 0..10 {
        kubectl.run(&format!("create configmap after-{number} --from-literal=a=b")).ok();
    }
    kubectl.until(
        &format!("get node {leader}"),
        "{.status.conditions[?(@.type=='Ready')].status}",
        "Unknown",
    );
    eventually_within(Duration::from_secs(120), "three are ready on the others", || {
        let ready = kubectl.field("get rc app", "{.status.readyReplicas}");
        let nodes = nodes_of(&kubectl);
        if ready == "3" && !nodes.contains(&leader) {
            Ok(())
        } else {
            Err(format!("{ready} {nodes:?}"))
        }
    });
    // Started again, it is one of them again.
    cluster.up();
    kubectl.run(&format!("wait --for=condition=Ready node/{leader} --timeout=120s")).ok();
    eventually("it follows the leader", || {
        let status = cluster.status();
        let members = status["members"].as_array().unwrap();
        let all = members.len() == 3 && members.iter().all(|m| m["answers"] == true);
        if all { Ok(()) } else { Err(status["members"].to_string()) }
    });
    cluster.down().unwrap();
}

#[test]
fn who_asks_is_answered_while_a_control_member_is_stopped() {
    let cluster = Cluster::start(Settings::default());
    let kubectl = Kubectl::new(VERSION, &cluster, "default");
    kubectl.run("get nodes").ok();
    let leader = cluster.leader();
    let other = ["node-1", "node-2"].into_iter().find(|name| *name != leader).unwrap();
    for (member, word) in [(other, "follower"), (leader.as_str(), "leader")] {
        let pid = cluster.pid(member);
        nix::sys::signal::kill(pid, nix::sys::signal::SIGSTOP).unwrap();
        // Each command is a connection or two; one that is dealt to who is stopped would not end.
        for number in 0..15 {
            let command = format!("create configmap {word}-{number} --from-literal=a=b");
            let refused = |output: &impresario_e2e::Output| {
                assert!(!output.err.contains("deadline exceeded"), "{output:?}");
                assert!(!output.err.contains("Timeout"), "{output:?}");
            };
            eventually_within(Duration::from_secs(180), &command, || {
                let output = kubectl.run(&format!("{command} --request-timeout=30s"));
                refused(&output);
                let done = output.code == 0 || output.err.contains("AlreadyExists");
                if done { Ok(()) } else { Err(output.err) }
            });
        }
        nix::sys::signal::kill(pid, nix::sys::signal::SIGCONT).unwrap();
        kubectl.until(
            &format!("get node {member}"),
            "{.status.conditions[?(@.type=='Ready')].status}",
            "True",
        );
    }
    cluster.down().unwrap();
}

#[test]
fn a_cluster_with_one_control_member_gets_two_more_and_bears_the_loss_of_the_first() {
    let cluster = Cluster::start(Settings { control: Some(1), ..Settings::default() });
    let kubectl = Kubectl::new(VERSION, &cluster, "default");
    kubectl.feed("create -f -", &replicas(3)).ok();
    kubectl.until("get rc app", "{.status.readyReplicas}", "3");
    let pods = kubectl.run("get pods -o name").ok();
    let refused = cluster.imp(["member", "add", "node-1"]).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("already"), "{refused:?}");
    for node in ["node-2", "node-3"] {
        let added = cluster.imp(["member", "add", node]).output().unwrap();
        assert!(added.status.success(), "{added:?}");
        kubectl.run(&format!("wait --for=condition=Ready node/{node} --timeout=120s")).ok();
    }
    // Each hears of the membership by itself.
    eventually("three members with three voters each", || {
        let status = cluster.status();
        let members = status["members"].as_array().unwrap();
        let votes = |m: &serde_json::Value| m["voters"].as_array().is_some_and(|v| v.len() == 3);
        let all = members.len() == 3 && members.iter().all(votes);
        if all { Ok(()) } else { Err(status.to_string()) }
    });
    assert_eq!(kubectl.run("get pods -o name").ok(), pods, "pods are left alone");
    kubectl.run("create configmap before --from-literal=a=b").ok();
    cluster.kill("node-1");
    eventually_within(Duration::from_secs(60), "writes go on", || {
        let output = kubectl.run("create configmap after --from-literal=a=b");
        let done = output.code == 0 || output.err.contains("AlreadyExists");
        if done { Ok(()) } else { Err(output.err) }
    });
    kubectl.run("get configmap before").ok();
    cluster.down().unwrap();
}

#[test]
fn a_cordoned_node_gets_no_pods_and_a_drained_one_has_none() {
    let cluster = Cluster::start(Settings { control: Some(1), ..Settings::default() });
    let kubectl = Kubectl::new(VERSION, &cluster, "default");
    assert!(kubectl.run("cordon node-2").ok().contains("node/node-2 cordoned"));
    assert!(kubectl.run("get node node-2").ok().contains("Ready,SchedulingDisabled"));
    kubectl.feed("create -f -", &replicas(4)).ok();
    kubectl.until("get rc app", "{.status.readyReplicas}", "4");
    assert_eq!(nodes_of(&kubectl), ["node-1", "node-3"].map(str::to_owned).into());
    assert!(kubectl.run("uncordon node-2").ok().contains("uncordoned"));
    kubectl
        .run("drain node-3 --force --ignore-daemonsets --delete-emptydir-data --timeout=120s")
        .ok();
    kubectl.until("get rc app", "{.status.readyReplicas}", "4");
    eventually("the drained node is empty", || {
        let nodes = nodes_of(&kubectl);
        if nodes.contains("node-3") { Err(format!("{nodes:?}")) } else { Ok(()) }
    });
    kubectl.run("taint node node-1 keep=out:NoSchedule").ok();
    let on_one = || -> BTreeSet<String> {
        let pods = kubectl.run("get pods --field-selector spec.nodeName=node-1 -o name").ok();
        pods.lines().map(str::to_owned).collect()
    };
    let before = on_one();
    kubectl.run("scale rc app --replicas=8").ok();
    kubectl.until("get rc app", "{.status.readyReplicas}", "8");
    assert_eq!(on_one(), before, "no new pod on a tainted node");
    cluster.down().unwrap();
}

#[test]
fn a_drain_waits_until_the_budget_of_pods_allows_that_they_go() {
    let cluster = Cluster::start(Settings { control: Some(1), ..Settings::default() });
    let kubectl = Kubectl::new(VERSION, &cluster, "default");
    kubectl.run("cordon node-1").ok();
    kubectl.feed("create -f -", &replicas(4)).ok();
    kubectl.until("get rc app", "{.status.readyReplicas}", "4");
    kubectl.run("create pdb app --selector=app=app --min-available=4").ok();
    kubectl.until("get pdb app", "{.status.currentHealthy} {.status.disruptionsAllowed}", "4 0");
    let drain = "drain node-3 --ignore-daemonsets --delete-emptydir-data";
    let refused = kubectl.run(&format!("{drain} --timeout=8s"));
    assert_ne!(refused.code, 0, "{refused:?}");
    assert!(refused.err.contains("violate the pod's disruption budget"), "{refused:?}");
    let on_three = "get pods --field-selector spec.nodeName=node-3 -o name";
    assert!(!kubectl.run(on_three).ok().is_empty(), "none was evicted");

    // One at a time may go, and each that comes instead lets the next go.
    kubectl.run("delete pdb app").ok();
    kubectl.run("create pdb app --selector=app=app --max-unavailable=1").ok();
    kubectl.until("get pdb app", "{.status.expectedPods} {.status.disruptionsAllowed}", "4 1");
    kubectl.run(&format!("{drain} --timeout=180s")).ok();
    kubectl.until("get rc app", "{.status.readyReplicas}", "4");
    assert_eq!(nodes_of(&kubectl), ["node-2"].map(str::to_owned).into());
    cluster.down().unwrap();
}

#[test]
fn a_cluster_goes_down_and_comes_up_again_with_all_its_objects() {
    let cluster = Cluster::start(Settings { nodes: 1, ..Settings::default() });
    let kubectl = Kubectl::new(VERSION, &cluster, "default");
    kubectl.feed("create -f -", &replicas(2)).ok();
    kubectl.run("create configmap kept --from-literal=a=b").ok();
    kubectl.until("get rc app", "{.status.readyReplicas}", "2");
    let uid = kubectl.field("get configmap kept", "{.metadata.uid}");
    let pid = cluster.pid("node-1");
    let down = cluster.imp(["down"]).output().unwrap();
    assert!(down.status.success(), "{down:?}");
    assert!(!runs(pid), "the process has ended");
    let refused = kubectl.run("get pods").refused();
    assert!(refused.contains("refused"), "{refused}");
    cluster.up();
    assert_eq!(kubectl.field("get configmap kept", "{.metadata.uid}"), uid);
    kubectl.until("get rc app", "{.status.readyReplicas}", "2");
    let pods = kubectl.json("get pods");
    for pod in pods["items"].as_array().unwrap() {
        assert!(pod["metadata"]["deletionTimestamp"].is_null(), "{pod}");
    }
    cluster.down().unwrap();
}

#[test]
fn certificates_that_near_their_end_are_renewed_and_nobody_is_cut_off() {
    let lifetime = ["--certificate-lifetime", "40s"].map(str::to_owned);
    let settings = Settings { arguments: lifetime.into(), ..Settings::default() };
    let cluster = Cluster::start(settings);
    let kubectl = Kubectl::new(VERSION, &cluster, "default");
    kubectl.feed("create -f -", &replicas(3)).ok();
    kubectl.until("get rc app", "{.status.readyReplicas}", "3");
    let mut watch = kubectl.lines("get configmaps --watch");
    let nodes = ["node-1", "node-2", "node-3"];
    let certificate =
        |name: &str| std::fs::read(cluster.node(name).join("credential/certificate.pem")).unwrap();
    for round in 0..2 {
        // Each round outlasts the certificates that it begins with.
        let before = nodes.map(certificate);
        eventually_within(Duration::from_secs(120), "every node has a new certificate", || {
            // Every command is a new handshake with whichever member takes the connection.
            kubectl.run("get nodes").ok();
            let old = nodes.iter().zip(&before).filter(|(name, old)| certificate(name) == **old);
            let old: Vec<_> = old.map(|(name, _)| name).collect();
            if old.is_empty() { Ok(()) } else { Err(format!("{old:?}")) }
        });
        kubectl.run(&format!("create configmap round-{round} --from-literal=a=b")).ok();
        watch.expect(&format!("round-{round}"));
    }
    // One that starts anew shakes hands with all others.
    cluster.kill("node-2");
    cluster.up();
    kubectl.until("get node node-2", "{.status.conditions[?(@.type=='Ready')].status}", "True");
    kubectl.run("scale rc app --replicas=6").ok();
    kubectl.until("get rc app", "{.status.readyReplicas}", "6");
}
