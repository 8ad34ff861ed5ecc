//! What `imp up` makes of one machine, and what `imp down` leaves of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use impresario_e2e::{Cluster, Settings, eventually, imp};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Output};

fn run(arguments: &[&str], folder: &Path) -> Output {
    let mut command = Command::new(imp());
    command.args(arguments).arg("--data-dir").arg(folder).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The addresses that sockets of a process wait on for others: TCP that listens, UDP that is bound.
fn listens(pid: i32) -> BTreeSet<IpAddr> {
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let links = fds.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
    let own: BTreeSet<String> = links
        .filter_map(|link| {
            let link = link.to_string_lossy().into_owned();
            Some(link.strip_prefix("socket:[")?.trim_end_matches(']').to_owned())
        })
        .collect();
    let mut addresses = BTreeSet::new();
    for (table, state) in [("tcp", "0A"), ("udp", "07"), ("tcp6", "0A"), ("udp6", "07")] {
        let table = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        for line in table.lines().skip(1) {
            let columns: Vec<&str> = line.split_whitespace().collect();
            if columns[3] != state || !own.contains(columns[9]) {
                continue;
            }
            let (address, _) = columns[1].split_once(':').unwrap();
            addresses.insert(match address.len() {
                8 => IpAddr::from(u32::from_str_radix(address, 16).unwrap().to_le_bytes()),
                _ => panic!("an IPv6 socket: {line}"),
            });
        }
    }
    addresses
}

fn millicores(node: &Value) -> u64 {
    let text = node["status"]["capacity"]["cpu"].as_str().unwrap();
    match text.strip_suffix('m') {
        Some(milli) => milli.parse().unwrap(),
        None => text.parse::<u64>().unwrap() * 1000,
    }
}

/// Whether a process of this user may be the last that goes when memory runs out: CAP_SYS_RESOURCE, number 24.
fn may_lower_scores() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let held = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(held.trim(), 16).unwrap() >> 24 & 1 == 1
}

/// The memory of a node, in KiB, and its GPUs.
fn memory_and_gpus(node: &Value) -> (u64, u64) {
    let capacity = &node["status"]["capacity"];
    let memory = capacity["memory"].as_str().unwrap();
    let unit = memory.trim_start_matches(|c: char| c.is_ascii_digit());
    let number: u64 = memory[..memory.len() - unit.len()].parse().unwrap();
    let kib = match unit {
        "" => number >> 10,
        "Ki" => number,
        "Mi" => number << 10,
        "Gi" => number << 20,
        other => panic!("{other} in {memory}"),
    };
    let gpus = capacity["nvidia.com/gpu"].as_str().map_or(0, |gpus| gpus.parse().unwrap());
    (kib, gpus)
}

#[test]
fn a_machine_is_offered_once_and_to_nobody_else() {
    let cluster = Cluster::start(Settings { nodes: 2, ..Settings::default() });
    let nodes = |cluster: &Cluster| -> Vec<Value> {
        let output = cluster.imp(["get", "nodes", "-o", "json"]).output().unwrap();
        let list: Value = serde_json::from_slice(&output.stdout).unwrap();
        list["items"].as_array().unwrap().clone()
    };
    let whole = std::thread::available_parallelism().unwrap().get() as u64 * 1000;
    let offered = |nodes: &[Value]| nodes.iter().map(millicores).sum::<u64>();
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap();
    let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap();
    let memory: u64 = memory.trim().trim_end_matches(" kB").parse().unwrap();
    let devices = std::fs::read_dir("/dev").unwrap().flatten().filter(|device| {
        let name = device.file_name().to_string_lossy().into_owned();
        name.strip_prefix("nvidia").is_some_and(|number| number.parse::<u32>().is_ok())
    });
    let devices = devices.count() as u64;
    let once = |nodes: &[Value]| {
        let (kib, gpus): (Vec<u64>, Vec<u64>) = nodes.iter().map(memory_and_gpus).unzip();
        let fits = kib.iter().sum::<u64>() <= memory && gpus.iter().sum::<u64>() <= devices;
        if fits { Ok(kib[0]) } else { Err(format!("{kib:?} KiB, {gpus:?} GPUs")) }
    };
    let two = nodes(&cluster);
    let half = once(&two).unwrap();
    assert!(offered(&two) <= whole, "{} of {whole}", offered(&two));
    for name in ["node-1", "node-2"] {
        if may_lower_scores() {
            // Before it go all containers (-997 at the least) and their keepers.
            let score = format!("/proc/{}/oom_score_adj", cluster.pid(name));
            assert_eq!(std::fs::read_to_string(score).unwrap(), "-999\n");
        }
        let addresses = listens(cluster.pid(name).as_raw());
        assert!(
            !addresses.is_empty() && addresses.iter().all(IpAddr::is_loopback),
            "{addresses:?}"
        );
    }

    // A third node gets its part from the two that run.
    let before = cluster.pid("node-1");
    let output = cluster.imp(["up", "--detach", "--nodes", "3"]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    // What a node says of itself may still be the word of the process before.
    eventually("the shares of three fit", || {
        let three = nodes(&cluster);
        // Also where this process may use less memory than the machine has.
        let is_so = three.len() == 3 && offered(&three) <= whole && once(&three)? < half;
        if is_so { Ok(()) } else { Err(format!("{} of {whole}: {three:?}", offered(&three))) }
    });
    assert_ne!(before, cluster.pid("node-1"));

    // Who would join from elsewhere is told first that it cannot be.
    let output = cluster.imp(["token", "create"]).output().unwrap();
    assert!(said(&output).contains("imp up --listen ADDRESS"), "{}", said(&output));

    // What was said when it was made is not silently ignored now.
    for (flag, value) in [("--listen", "0.0.0.0"), ("--driver", "docker"), ("--api-port", "1")] {
        let output = cluster.imp(["up", "--detach", flag, value]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains("which cannot be changed"), "{}", said(&output));
    }
}

#[test]
fn only_what_imp_put_into_a_folder_is_purged() {
    let folder = tempfile::tempdir().unwrap();
    let precious = folder.path().join("nodes/precious");
    std::fs::create_dir_all(precious.parent().unwrap()).unwrap();
    std::fs::write(&precious, "mine").unwrap();
    for arguments in [&["down"][..], &["down", "--purge"]] {
        let output = run(arguments, folder.path());
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains("no cluster in"), "{}", said(&output));
    }
    let output = run(&["up", "--detach", "--api-port", "0"], folder.path());
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("nodes of somebody else"), "{}", said(&output));
    std::fs::create_dir(folder.path().join("pods")).unwrap();
    let output = run(&["node", "--join", "127.0.0.1:1", "--token", "t"], folder.path());
    assert!(said(&output).contains("pods of somebody else"), "{}", said(&output));
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "mine");

    let cluster = Cluster::start(Settings { nodes: 1, ..Settings::default() });
    let notes = cluster.dir().join("notes.txt");
    std::fs::write(&notes, "mine").unwrap();
    let output = run(&["down", "--purge"], cluster.dir());
    assert!(output.status.success(), "{}", said(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("notes.txt"));
    let left: Vec<_> = std::fs::read_dir(cluster.dir()).unwrap().collect();
    assert_eq!(left.len(), 1);
    assert_eq!(std::fs::read_to_string(&notes).unwrap(), "mine");
}

#[test]
fn what_is_left_out_stays_as_it_is_and_what_cannot_be_had_is_said() {
    let cluster = Cluster::start(Settings { nodes: 1, ..Settings::default() });
    let before = cluster.pid("node-1");
    let output = cluster.imp(["up", "--detach"]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(std::fs::read_dir(cluster.dir().join("nodes")).unwrap().count(), 1);
    assert_eq!(before, cluster.pid("node-1"));
    for flags in [&["--whole-machine"][..], &["--certificate-lifetime", "1h"], &["--chaos"]] {
        let mut command = cluster.imp(["up", "--detach"]);
        let output = command.args(flags).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{flags:?}");
        assert!(said(&output).contains(flags[0]), "{}", said(&output));
    }
}

#[test]
fn an_empty_name_is_no_collection_and_one_failure_stops_nothing_else() {
    let cluster = Cluster::start(Settings { nodes: 1, ..Settings::default() });
    let manifest = cluster.scratch().join("two.yaml");
    let named = |name: &str| format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{{name}}}}}\n");
    std::fs::write(&manifest, named("name: a") + "---\n" + &named("name: b")).unwrap();
    let manifest = manifest.to_str().unwrap();
    let there = || {
        let output = cluster.imp(["get", "configmaps", "-o", "name"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let output = cluster.imp(["apply", "-f", manifest]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let all = there();

    let nameless = cluster.scratch().join("nameless.yaml");
    std::fs::write(&nameless, named("generateName: c-")).unwrap();
    for arguments in [
        &["delete", "configmaps", ""][..],
        &["delete", "configmaps", ".."],
        &["delete", "configmaps", "a/b"],
        &["delete", "-f", nameless.to_str().unwrap()],
        &["get", "configmaps", ""],
        &["describe", "configmaps", ""],
    ] {
        let output = cluster.imp(arguments.iter().copied()).output().unwrap();
        assert!(!output.status.success(), "{arguments:?}: {}", said(&output));
        assert_eq!(there(), all, "{arguments:?}");
    }

    // What comes after one that is not there, or is refused, is done all the same.
    let output = cluster.imp(["delete", "configmaps", "gone", "a"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("configmap/gone: "), "{}", said(&output));
    assert!(!there().contains("configmap/a\n") && there().contains("configmap/b\n"));
    let bad = cluster.scratch().join("bad.yaml");
    std::fs::write(&bad, named("name: NOT_A_NAME") + "---\n" + &named("name: d")).unwrap();
    let output = cluster.imp(["apply", "-f", bad.to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("configmap/NOT_A_NAME: "), "{}", said(&output));
    assert!(there().contains("configmap/d\n"));
}

#[test]
fn two_that_start_one_cluster_make_one_and_an_interrupted_start_leaves_none() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("cluster");
    let up = || {
        let mut command = Command::new(imp());
        command.args(["up", "--detach", "--nodes", "1", "--api-port", "0", "--data-dir"]);
        command
            .arg(&folder)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        command.spawn().unwrap()
    };
    let both = [up(), up()].map(|child| child.wait_with_output().unwrap());
    for output in &both {
        assert!(output.status.success(), "{}", said(output));
    }
    let api = |output: &Output| {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.split("https://").nth(1).unwrap().lines().next().unwrap().to_owned()
    };
    assert_eq!(api(&both[0]), api(&both[1]));
    assert!(run(&["get", "nodes"], &folder).status.success());
    let output = run(&["down", "--purge"], &folder);
    assert!(output.status.success(), "{}", said(&output));

    let mut child = up();
    let log = folder.join("nodes/node-1/log");
    eventually("the node is started", || log.exists().then_some(()).ok_or("no log".to_owned()));
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
    // It may have been ready a moment before.
    if !child.wait().unwrap().success() {
        let lock = std::fs::File::open(folder.join("nodes/node-1/lock"));
        let held = |lock| Flock::lock(lock, FlockArg::LockExclusiveNonblock).is_err();
        assert!(!lock.is_ok_and(held), "the node runs on");
    }
    assert!(run(&["down", "--purge"], &folder).status.success());
}

#[test]
fn who_is_interrupted_while_another_brings_the_cluster_up_ends_nothing_of_its() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("cluster");
    let up = || {
        let mut command = Command::new(imp());
        command.args(["up", "--detach", "--nodes", "1", "--api-port", "0", "--data-dir"]);
        command.arg(&folder).stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    std::fs::create_dir(&folder).unwrap();
    // Whoever is at work on it.
    let lock = std::fs::File::open(&folder).unwrap();
    let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).unwrap();
    let waits = up();
    let listens_for_signals = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", waits.id())).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        let caught = u64::from_str_radix(caught.trim(), 16).unwrap();
        (caught & (1 << (Signal::SIGINT as i32 - 1)) != 0).then_some(()).ok_or("not yet".to_owned())
    };
    eventually("it waits", listens_for_signals);
    let mut sleeper = Command::new("sleep").arg("1000").spawn().unwrap();
    // A node that the other one starts: its lock is held, by a process that would be ended.
    let node = folder.join("nodes/node-1");
    std::fs::create_dir_all(&node).unwrap();
    for (name, text) in
        [("lock", String::new()), ("node.json", "{}".into()), ("pid", sleeper.id().to_string())]
    {
        std::fs::write(node.join(name), text).unwrap();
    }
    let claim = std::fs::File::open(node.join("lock")).unwrap();
    let claim = Flock::lock(claim, FlockArg::LockExclusiveNonblock).unwrap();
    kill(Pid::from_raw(waits.id().cast_signed()), Signal::SIGINT).unwrap();
    let output = waits.wait_with_output().unwrap();
    assert!(said(&output).contains("nothing was started"), "{}", said(&output));
    assert!(sleeper.try_wait().unwrap().is_none(), "another's node was ended");
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    drop((claim, lock));
}

#[test]
fn a_cluster_whose_port_was_taken_while_it_was_down_says_so_and_is_not_mixed_with_who_has_it() {
    let cluster = Cluster::start(Settings { nodes: 1, ..Settings::default() });
    let folder = cluster.dir().to_owned();
    let kubeconfig = std::fs::read_to_string(folder.join("kubeconfig")).unwrap();
    let port = kubeconfig.split("server: https://").nth(1).unwrap();
    let port = port
        .lines()
        .next()
        .unwrap()
        .trim()
        .rsplit(':')
        .next()
        .unwrap()
        .trim_matches('"')
        .to_owned();
    assert!(run(&["down"], &folder).status.success());
    let scratch = tempfile::tempdir().unwrap();
    let other = scratch.path().join("other");
    let up = ["up", "--detach", "--nodes", "1"];
    let output = run(&[&up[..], &["--api-port", port.as_str()]].concat(), &other);
    assert!(output.status.success(), "{}", said(&output));
    let output = run(&["up", "--detach"], &folder);
    let goes_on = run(&["get", "nodes"], &other).status.success();
    let ended = run(&["down", "--purge"], &other);
    assert!(
        !output.status.success() && said(&output).contains("another program listens"),
        "{}",
        said(&output)
    );
    assert!(goes_on && ended.status.success());
    let output = run(&["up", "--detach"], &folder);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn a_log_that_is_full_is_put_aside_by_the_node_that_writes_it() {
    let cluster = Cluster::start(Settings { nodes: 1, ..Settings::default() });
    let log = cluster.node("node-1").join("log");
    let full = 16 << 20;
    std::fs::File::options().write(true).open(&log).unwrap().set_len(full).unwrap();
    // Its last words are one line more than fit.
    let output = run(&["down"], cluster.dir());
    assert!(output.status.success(), "{}", said(&output));
    assert!(log.with_extension("1").metadata().is_ok_and(|before| before.len() >= full));
    let last = std::fs::read_to_string(&log).unwrap();
    assert!(last.contains("node has stopped") && !last.contains("node is up"), "{last}");
}
