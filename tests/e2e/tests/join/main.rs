//! Machines and programs that join a cluster by hand, and what they are given: real processes, a
//! network namespace as the other machine, kubectl on the first one.
//!
//! Needs root, iproute2, kubectl and a C compiler (`tests/run` installs them), and the binaries of
//! the workspace (`cargo build --workspace --bins`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cluster;
mod gpus;
mod machine;

use cluster::{Cluster, Process, example, imp, until};
use machine::Machine;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

fn error_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn node(join: &str, token: &str, name: &str, dir: &Path) -> Command {
    let mut command = Command::new(imp());
    command.args(["node", "--join", join, "--token", token, "--name", name, "--data-dir"]).arg(dir);
    // Most of these run on the machine of their cluster.
    command.arg("--whole-machine");
    command
}

/// Waits until the node is Ready; tells how long that took.
fn ready(cluster: &Cluster, name: &str, since: Instant, process: &mut Process) {
    until(&format!("{name} is Ready"), || {
        process.must_run();
        let jsonpath = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
        let status = cluster.kubectl(&["get", "node", name, "--ignore-not-found", "-o", jsonpath]);
        (status == "True").then_some(())
    });
    eprintln!("{name} was Ready after {:?}", since.elapsed());
}

/// A pod that says who it is and goes on, on this node.
fn pinned(name: &str, node: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  nodeSelector: {{kubernetes.io/hostname: {node}}}\n  \
         terminationGracePeriodSeconds: 1\n  containers:\n  - name: c\n    image: busybox\n    \
         command: [sh, -c, 'echo here is {name}; exec sleep 600']\n"
    )
}

/// The pod runs on the node, is heard through the API of the first machine, and goes without a trace.
fn carries_a_pod(cluster: &Cluster, node: &str, pod: &str) {
    cluster.apply(&pinned(pod, node));
    cluster.running(pod);
    let on = cluster.kubectl(&["get", "pod", pod, "-o", "jsonpath={.spec.nodeName}"]);
    assert_eq!(on, node);
    until("its logs are read", || {
        cluster.kubectl(&["logs", pod]).contains(&format!("here is {pod}")).then_some(())
    });
    cluster.kubectl(&["delete", "pod", pod, "--timeout", "120s"]);
    assert_eq!(cluster.kubectl(&["get", "pod", pod, "--ignore-not-found"]), "");
}

#[test]
fn a_machine_of_another_network_joins_by_hand_and_so_does_a_program_there() {
    let machine = Machine::new();
    let cluster = Cluster::open(3);
    let folder = tempfile::tempdir().unwrap();
    let made = cluster.token("node", "10m");
    let join = machine.address_of_host(&made.address);

    let since = Instant::now();
    let home = folder.path().join("far");
    let mut command = node(&join, &made.secret, "far", &home);
    let mut far = Process::node(machine.inside(&mut command), &home);
    ready(&cluster, "far", since, &mut far);
    carries_a_pod(&cluster, "far", "wanderer");

    // It is itself again after its process was killed, without a token.
    far.kill();
    let mut again = Command::new(imp());
    again.args(["node", "--data-dir"]).arg(&home);
    let mut far = Process::node(machine.inside(&mut again), &home);
    carries_a_pod(&cluster, "far", "returner");
    far.must_run();

    let made = cluster.token("client", "10m");
    let join = machine.address_of_host(&made.address);
    let keep = folder.path().join("client");
    let sdk = |watch: &str, token: &str| {
        let mut command = Command::new(example());
        command.args(["--join", &join, "--token", token, "--watch", watch, "--dir"]).arg(&keep);
        machine.inside(&mut command)
    };
    let mut program = sdk("60", &made.secret);
    program.stdout(Stdio::piped());
    let mut program = Process::spawn(program);
    let mut lines = BufReader::new(program.stdout()).lines().map(Result::unwrap);
    let mut said = Vec::new();
    for line in lines.by_ref() {
        said.push(line);
        if said.last().unwrap().starts_with("watching") {
            break;
        }
    }
    let all = said.join("\n");
    for expected in [
        "joined as ",
        "scheduler/default-scheduler: policy ",
        "far/node: ",
        "a write is refused: ",
        "a client may not create configmaps",
        "a drain is refused: ",
        "(client) may not send node.Drain",
    ] {
        assert!(all.contains(expected), "{expected:?} is not in:\n{all}");
    }
    assert!(!all.contains("unreachable"), "{all}");
    cluster.apply(&pinned("seen", "far"));
    let added = lines.by_ref().find(|line| line.contains("added") && line.contains("default/seen"));
    assert!(added.is_some(), "the watch ended early");
    program.kill();
    cluster.kubectl(&["delete", "pod", "seen", "--timeout", "120s"]);

    // The folder is enough from now on.
    let output = sdk("0", "imp1.unused").output().unwrap();
    assert!(output.status.success(), "{}", error_of(&output));
    let maps = cluster.kubectl(&["get", "configmap", "written-by-a-client", "--ignore-not-found"]);
    assert_eq!(maps, "", "a refusal changes nothing");
}

#[test]
fn a_fourth_node_joins_on_the_same_machine() {
    let cluster = Cluster::up(3, &[]);
    let folder = tempfile::tempdir().unwrap();
    let made = cluster.token("node", "10m");
    let since = Instant::now();
    let home = folder.path().join("fourth");
    // Who does not say that the machine is to be offered once more does not do it.
    let mut unasked = Command::new(imp());
    unasked.args(["node", "--join", &made.address, "--token", &made.secret, "--data-dir"]);
    let output = unasked.arg(&home).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(error_of(&output).contains("--whole-machine"), "{}", error_of(&output));
    assert!(!home.exists());
    let mut fourth = Process::node(node(&made.address, &made.secret, "fourth", &home), &home);
    ready(&cluster, "fourth", since, &mut fourth);
    carries_a_pod(&cluster, "fourth", "guest");

    // It is taken down by its folder, with all that runs there, and leaves nothing.
    cluster.apply(&pinned("left", "fourth"));
    cluster.running("left");
    cluster::down(&home, &["--purge"]);
    assert!(!home.exists());
    assert_eq!(cluster::processes_of(&home), Vec::<String>::new());
}

#[test]
fn a_token_that_is_expired_used_foreign_or_for_something_else_joins_nobody() {
    let (cluster, other) = (Cluster::up(1, &[]), Cluster::up(1, &[]));
    let folder = tempfile::tempdir().unwrap();
    let refused = |name: &str, token: &str, expected: &[&str]| {
        let made = cluster.token("node", "10m"); // for the address
        let dir = folder.path().join(name);
        let output = node(&made.address, token, name, &dir).output().unwrap();
        let error = error_of(&output);
        assert_eq!(output.status.code(), Some(1), "{name}: {error}");
        for expected in expected {
            assert!(error.contains(expected), "{name}: {expected:?} is not in:\n{error}");
        }
        assert!(!dir.join("node.json").exists(), "{name} left a node behind");
        if name != "node-1" {
            assert_eq!(cluster.kubectl(&["get", "node", name, "--ignore-not-found"]), "");
        }
    };

    let expired = cluster.token("node", "1s");
    until("the token is past its time", || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        (now > Duration::from_secs(expired.expires + 1)).then_some(())
    });
    refused("late", &expired.secret, &["the token expired at", "imp token create"]);

    let used = cluster.token("node", "10m");
    let since = Instant::now();
    let home = folder.path().join("first");
    let mut first = Process::node(node(&used.address, &used.secret, "first", &home), &home);
    ready(&cluster, "first", since, &mut first);
    refused("second", &used.secret, &["has been used by first", "imp token create"]);

    let foreign = other.token("node", "10m");
    refused("stray", &foreign.secret, &["check the address", "the token is of this cluster"]);

    let made = cluster.token("client", "10m");
    refused("program", &made.secret, &["the token makes a client", "imp token create --role node"]);
    refused("cut", &used.secret[..20], &["no join token", "imp token create"]);

    // A name that is taken costs no token.
    let made = cluster.token("node", "10m");
    refused("node-1", &made.secret, &["there is a node node-1 already", "--name"]);
    let since = Instant::now();
    let home = folder.path().join("last");
    let mut last = Process::node(node(&made.address, &made.secret, "last", &home), &home);
    ready(&cluster, "last", since, &mut last);
}
