//! A disk that does not hold what was written to it: the member does not start, says which file is
//! damaged and what to do, and what it says to do works.

#![expect(clippy::expect_used, reason = "what a test needs and does not get ends it")]

use impresario_e2e::{Cluster, Settings, eventually};
use nix::sys::signal::{Signal, kill};
use std::fs;
use std::path::{Path, PathBuf};

/// The first file of the journal of a node's registry.
fn journal(registry: &Path) -> PathBuf {
    let files = fs::read_dir(registry.join("log")).expect("a log").flatten();
    let mut files: Vec<PathBuf> = files.map(|file| file.path()).collect();
    files.sort();
    files.into_iter().next().expect("a file of the log")
}

fn flip_in_the_middle(path: &Path) {
    let mut bytes = fs::read(path).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(path, bytes).expect("writable");
}

fn stop(cluster: &Cluster, name: &str) {
    let pid = cluster.pid(name);
    kill(pid, Signal::SIGKILL).expect("it was running");
    eventually("the process is gone", || {
        let status = cluster.status();
        let nodes = status["nodes"].as_array().expect("nodes");
        let node = nodes.iter().find(|node| node["name"] == name).expect("the node");
        if node["running"] == false { Ok(()) } else { Err(node.to_string()) }
    });
}

#[test]
fn a_member_with_a_damaged_log_names_the_file_and_joins_anew_as_it_says() {
    let cluster = Cluster::start(Settings::default());
    // The founder, of which nobody may think that it should found another cluster.
    let name = "node-1";
    stop(&cluster, name);
    let registry = cluster.node(name).join("registry");
    let damaged = journal(&registry);
    flip_in_the_middle(&damaged);

    let refused = cluster.imp(["up", "--detach"]).output().expect("imp starts");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success(), "{said}");
    for word in [damaged.to_str().unwrap(), "is damaged at byte", "remove this member", name] {
        assert!(said.contains(word), "{word:?} is missing in: {said}");
    }
    let log = fs::read_to_string(cluster.node(name).join("log")).expect("a log");
    assert!(log.contains(damaged.to_str().unwrap()), "{log}");

    // An emptied disk alone is not let in: the others remember which disk this member had.
    fs::rename(&registry, cluster.scratch().join("damaged")).expect("moved");
    let refused = cluster.imp(["up", "--detach"]).output().expect("imp starts");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("imp member remove"), "{said}");

    let removed = cluster.imp(["member", "remove", name]).output().expect("imp starts");
    assert!(removed.status.success(), "{}", String::from_utf8_lossy(&removed.stderr));
    cluster.up();
    cluster.await_voters(3);
}

#[test]
fn a_member_with_a_damaged_identity_does_not_start() {
    let cluster = Cluster::start(Settings { nodes: 1, control: Some(1), ..Settings::default() });
    stop_alone(&cluster);
    let identity = cluster.node("node-1").join("registry/identity");
    flip_in_the_middle(&identity);
    let refused = cluster.imp(["up", "--detach"]).output().expect("imp starts");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains(identity.to_str().unwrap()), "{said}");

    // Nor does it begin an empty cluster where there was one: what it held would seem to be gone.
    fs::remove_dir_all(cluster.node("node-1").join("registry")).expect("removed");
    let refused = cluster.imp(["up", "--detach"]).output().expect("imp starts");
    assert!(!refused.status.success(), "an empty cluster took the place of the old one");
}

/// Ends the only node; nobody is left who could tell its status.
fn stop_alone(cluster: &Cluster) {
    kill(cluster.pid("node-1"), Signal::SIGTERM).expect("it was running");
    let lock = cluster.node("node-1").join("lock");
    eventually("the process is gone", || {
        let file = fs::File::open(&lock).map_err(|error| error.to_string())?;
        match nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock) {
            Ok(_) => Ok(()),
            Err((_, error)) => Err(error.to_string()),
        }
    });
}
