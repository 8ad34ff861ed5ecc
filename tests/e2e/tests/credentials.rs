//! What a pod can have of its cluster's credentials: nothing. A pod on a node that `imp up` made, as root and as an
//! ordinary user, looks for every file of the data directory by name and by search, also through other processes, signals
//! its node's process, and comes to the cluster's port without a certificate.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a suite fails by panicking

use impresario_e2e::{Cluster, Settings, eventually_within, leave_out};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

const NOBODY: u32 = 65534;
/// For a busy machine; the thief takes some seconds.
const LIMIT: Duration = Duration::from_mins(2);

#[test]
fn a_pod_reaches_no_credential_of_its_cluster_and_no_process_of_its_node() {
    let is_root = nix::unistd::Uid::effective().is_root();
    if !is_root {
        leave_out("only root can be root, and become an ordinary user");
    }
    let users: &[Option<u32>] = if is_root { &[None, Some(NOBODY)] } else { &[None] };
    for user in users {
        attack(*user);
    }
}

/// A second cluster, in a folder of the first one's; gone when dropped.
struct Later<'a> {
    first: &'a Cluster,
    dir: String,
}

impl Drop for Later<'_> {
    fn drop(&mut self) {
        let output = imp(self.first, &["down", "--purge", "--data-dir", &self.dir]);
        if !output.status.success() {
            eprintln!("{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

#[test]
fn a_pod_that_runs_reaches_no_credential_of_a_cluster_that_is_made_later() {
    let cluster = Cluster::start(Settings { nodes: 1, ..Settings::default() });
    let later =
        Later { first: &cluster, dir: cluster.scratch().join("later").display().to_string() };
    let stop = cluster.scratch().join("stop");
    // From before it is made, all the time.
    let script = format!(
        "echo begins; while ! [ -e {stop} ]; do for f in {dir}/pki/authority-key.pem {dir}/admin/key.pem \
         {dir}/nodes/node-1/credential/key.pem; do [ -s $f ] && echo GOT $f; done; sleep 0.01; done; ls -d {dir}; echo ends",
        stop = stop.display(),
        dir = later.dir
    );
    apply(
        &cluster,
        &json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "patient"},
            "spec": {"restartPolicy": "Never", "containers": [
                {"name": "a", "image": "none", "command": ["/bin/sh", "-c", script]}
            ]},
        }),
    );
    let says = |word: &'static str| {
        eventually_within(LIMIT, word, || {
            let said = imp(&cluster, &["logs", "patient"]);
            let said = String::from_utf8_lossy(&said.stdout).into_owned();
            if said.lines().any(|line| line == word) { Ok(said) } else { Err(said) }
        })
    };
    says("begins");
    let up_again = ["up", "--detach", "--api-port", "0", "--nodes", "1", "--data-dir", &later.dir];
    let up = imp(&cluster, &up_again);
    assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    let note = String::from_utf8_lossy(&up.stderr).into_owned();
    let other = cluster.dir().display().to_string();
    assert!(
        note.contains("another cluster runs on this machine") && note.contains(&other),
        "{note}"
    );
    let key = Path::new(&later.dir).join("pki/authority-key.pem");
    assert!(key.exists(), "the layout is another");
    // It goes, and another one is made in the same folder.
    let down = imp(&cluster, &["down", "--purge", "--data-dir", &later.dir]);
    assert!(down.status.success() && !key.exists(), "{}", String::from_utf8_lossy(&down.stderr));
    let up = imp(&cluster, &up_again);
    assert!(up.status.success() && key.exists(), "{}", String::from_utf8_lossy(&up.stderr));
    fs::write(&stop, "").unwrap();
    let said = says("ends");
    assert!(!said.contains("GOT"), "{said}");
    // It sees the machine: what it did not get was there.
    assert!(said.lines().any(|line| line == later.dir), "{said}");
    drop(later);
    cluster.down().unwrap();
}

fn attack(user: Option<u32>) {
    let cluster = Cluster::start(Settings { nodes: 2, user, ..Settings::default() });
    let mut files = Vec::new();
    files_below(cluster.dir(), &mut files);
    let has = |part: &str| files.iter().any(|file| file.to_string_lossy().contains(part));
    for part in ["/pki/", "/admin/", "/kubeconfig", "/credential/", "/registry/", "/node-2/"] {
        assert!(has(part), "the layout has no {part}: {files:?}");
    }
    for file in &files {
        let mode = fs::metadata(file).map_or(0, |m| std::os::unix::fs::MetadataExt::mode(&m));
        let is_secret =
            ["key", "kubeconfig", "token"].iter().any(|word| file.to_string_lossy().contains(word));
        assert!(!is_secret || mode.trailing_zeros() >= 6, "{}: {mode:o}", file.display());
    }
    let nodes = ["node-1", "node-2"].map(|name| cluster.pid(name));
    let node = fs::read(cluster.node("node-1").join("node.json")).unwrap();
    let node: Value = serde_json::from_slice(&node).unwrap();
    let token = forged(&cluster);
    let script = script(&cluster, &files, &nodes, node["advertise"].as_str().unwrap(), &token);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "thief"},
        "spec": {"restartPolicy": "Never", "containers": [
            {"name": "a", "image": "none", "command": ["/bin/sh", "-c", script]}
        ]},
    });
    apply(&cluster, &pod);
    eventually_within(LIMIT, "the thief has done its work", || {
        let output = imp(&cluster, &["get", "pod", "thief", "-o", "json"]);
        let pod: Value = serde_json::from_slice(&output.stdout).map_err(|e| e.to_string())?;
        let phase = pod["status"]["phase"].as_str().unwrap_or_default();
        if matches!(phase, "Succeeded" | "Failed") { Ok(()) } else { Err(pod.to_string()) }
    });
    let said = imp(&cluster, &["logs", "thief"]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    // It has tried, to the end.
    assert!(said.contains("tried everything"), "{user:?}: {said}");
    // Nobody keeps it from the port: what it does there is refused by who listens.
    assert!(said.contains("the cluster refused"), "{user:?}: {said}");
    let loot: Vec<_> = said.lines().filter(|line| line.starts_with("GOT ")).collect();
    assert!(loot.is_empty(), "{user:?}: {loot:#?}");
    for pid in nodes {
        nix::sys::signal::kill(pid, None).expect("the node's process still runs");
    }
    cluster.down().unwrap();
}

/// A token of this cluster, but for its secret: with any other it would not ask.
fn forged(cluster: &Cluster) -> String {
    let made = imp(cluster, &["token", "create", "-o", "json"]);
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let token = made["token"].as_str().unwrap();
    let (kind, secret) = token.split_once('.').unwrap();
    let first = if secret.starts_with('A') { 'B' } else { 'A' };
    format!("{kind}.{first}{}", &secret[1..])
}

/// Everything that it gets it says.
fn script(
    cluster: &Cluster,
    files: &[PathBuf],
    nodes: &[nix::unistd::Pid],
    advertised: &str,
    token: &str,
) -> String {
    let mut lines = vec![format!("cd /; dir={}", cluster.dir().display())];
    let pids: Vec<_> = nodes.iter().map(ToString::to_string).collect();
    let pids = pids.join(" ");
    for file in files {
        let file = file.display();
        lines.push(format!("head -c1 {file} >/dev/null 2>&1 && echo GOT {file}"));
    }
    let some: Vec<_> = files.iter().filter(|file| file.to_string_lossy().contains("key")).collect();
    for file in some {
        let file = file.display();
        lines.push(format!(
            "for p in self 1 $PPID {pids}; do for r in root cwd; do \
             head -c1 /proc/$p/$r{file} >/dev/null 2>&1 && echo GOT /proc/$p/$r{file}; done; done"
        ));
    }
    lines.push(format!(
        "find $dir -type f 2>/dev/null | sed 's/^/GOT found /'
         find /proc/[0-9]*/root$dir /proc/[0-9]*/cwd$dir -type f 2>/dev/null | sed 's/^/GOT found /'
         for p in {pids}; do
           kill -0 $p 2>/dev/null && echo GOT signalled $p
           kill -STOP $p 2>/dev/null && echo GOT stopped $p
           cat /proc/$p/environ >/dev/null 2>&1 && echo GOT environ $p
           ls /proc/$p/fd/ 2>/dev/null | sed 's/^/GOT fd /'
         done
         ls -l /proc/[0-9]*/fd/ 2>/dev/null | grep -F $dir | sed 's/^/GOT descriptor /'
         umount $dir 2>/dev/null && echo GOT unmounted
         for d in /dev/sd* /dev/vd* /dev/nvme* /dev/mem; do head -c1 $d >/dev/null 2>&1 && echo GOT $d; done
         {imp} node --data-dir /tmp/thief-$$ --whole-machine --join {advertised} --token {token} 2>&1 </dev/null & j=$!
         i=0; while [ $i -lt 100 ] && kill -0 $j 2>/dev/null; do sleep 0.1; i=$((i+1)); done; kill -9 $j 2>/dev/null
         find /tmp/thief-$$ -name '*.pem' ! -name joining.pem 2>/dev/null | sed 's/^/GOT joined /'; rm -rf /tmp/thief-$$
         echo tried everything",
        imp = cluster.program().display(),
    ));
    // In a command `$(` begins a reference of Kubernetes; `$$` is a dollar sign.
    lines.join("\n").replace('$', "$$")
}

fn files_below(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            files_below(&path, files);
        } else {
            files.push(path);
        }
    }
}

fn imp(cluster: &Cluster, arguments: &[&str]) -> Output {
    cluster.imp(arguments.iter().copied()).output().expect("imp starts")
}

fn apply(cluster: &Cluster, object: &Value) {
    use std::io::Write as _;
    let mut apply = cluster.imp(["apply", "-f", "-"]);
    let mut apply = apply.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("imp starts");
    apply.stdin.take().unwrap().write_all(object.to_string().as_bytes()).unwrap();
    assert!(apply.wait().unwrap().success(), "the pod is not created");
}
