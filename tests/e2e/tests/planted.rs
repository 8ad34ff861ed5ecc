//! Secrets that are planted are found where they belong and nowhere else: a Secret, a token of a pod's account and a
//! token of a machine are used, rightly and wrongly, while all nodes log all that they can. Then every file of the
//! cluster is searched for them, and all that `imp` prints to somebody who did not ask for a secret.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a suite fails by panicking

use base64::{Engine as _, engine::general_purpose::STANDARD};
use impresario_e2e::{Cluster, Settings, eventually, imp as program};
use serde_json::{Value, json};
use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// A value that no other file of this machine has.
fn unique(word: &str) -> String {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos();
    format!("planted-{word}-{}-{now}", std::process::id())
}

/// What is looked for, and by which name it is told.
struct Planted(Vec<(&'static str, String)>);

impl Planted {
    /// The names of those that are in some bytes.
    fn within(&self, bytes: &[u8]) -> Vec<&'static str> {
        let text = String::from_utf8_lossy(bytes);
        self.0.iter().filter(|(_, word)| text.contains(word)).map(|(name, _)| *name).collect()
    }

    /// The files below a folder that have some, and which.
    fn below(&self, folder: &Path, found: &mut Vec<(PathBuf, Vec<&'static str>)>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                self.below(&path, found);
            } else if kind.is_file() {
                let within = self.within(&fs::read(&path).unwrap_or_default());
                if !within.is_empty() {
                    found.push((path, within));
                }
            }
        }
    }
}

/// Whether a secret belongs there: what the registry keeps, and what a pod was given (its volumes, its command and
/// environment), but not what anything of that wrote.
fn belongs(cluster: &Cluster, path: &Path) -> bool {
    let below = path.strip_prefix(cluster.dir().join("nodes")).unwrap_or(Path::new(""));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_log = name == "log" || name.starts_with("log.") || name == "keeper.err";
    match below.components().nth(1).map(|part| part.as_os_str().to_string_lossy().into_owned()) {
        Some(part) if part == "registry" => true,
        Some(part) => part == "pods" && !is_log,
        None => false,
    }
}

fn apply(cluster: &Cluster, object: &Value) -> Output {
    let mut apply = cluster.imp(["apply", "-f", "-"]);
    apply.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut apply = apply.spawn().expect("imp starts");
    apply.stdin.take().unwrap().write_all(object.to_string().as_bytes()).unwrap();
    apply.wait_with_output().unwrap()
}

fn pod(name: &str, container: &Value, volumes: &Value) -> Value {
    let mut container = container.clone();
    container["name"] = "c".into();
    container["image"] = "none".into();
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"restartPolicy": "Never", "containers": [container], "volumes": volumes},
    })
}

fn sh(script: &str) -> Value {
    json!(["/bin/sh", "-c", script])
}

/// A node that joins by a token, until it is dropped.
struct Joined(Child);

impl Drop for Joined {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_secret_is_in_no_log_no_event_and_nothing_that_is_printed() {
    let log = ("IMPRESARIO_LOG".to_owned(), "debug".to_owned());
    let cluster =
        Cluster::start(Settings { nodes: 2, environment: vec![log], ..Settings::default() });
    let (value, invalid) = (unique("value"), unique("invalid"));
    let token = cluster.imp(["token", "create", "-o", "json"]).output().unwrap();
    let token: Value = serde_json::from_slice(&token.stdout).unwrap();
    let (address, token) = (token["address"].as_str().unwrap(), token["token"].as_str().unwrap());
    let planted = Planted(vec![
        ("the secret", value.clone()),
        ("the secret in base64", STANDARD.encode(&value)),
        ("what was no base64", invalid.clone()),
        ("the token", token.to_owned()),
    ]);
    let mut printed: Vec<(String, Output)> = Vec::new();

    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "planted"},
        "data": {"key": STANDARD.encode(&value)},
    });
    let output = apply(&cluster, &secret);
    assert!(output.status.success(), "{output:?}");
    printed.push(("apply".into(), output));
    // Refused, and that is logged: whoever sent it is told where it is wrong.
    let mut broken = secret.clone();
    broken["metadata"]["name"] = "broken".into();
    broken["data"]["key"] = invalid.clone().into();
    assert!(!apply(&cluster, &broken).status.success());

    let key = json!({"secretKeyRef": {"name": "planted", "key": "key"}});
    let used = json!({
        "env": [{"name": "PLANTED", "valueFrom": key}],
        "envFrom": [{"secretRef": {"name": "planted"}}],
        "volumeMounts": [{"name": "v", "mountPath": "/planted"}],
        "command": sh("printf %s \"$PLANTED\" | cmp - /planted/key && printf %s \"$key\" | cmp - /planted/key && echo same"),
    });
    let volume = json!([{"name": "v", "secret": {"secretName": "planted"}}]);
    let mut failing = used.clone();
    failing["command"] = sh("exit 7");
    let mut missing = used.clone();
    missing["env"][0]["valueFrom"]["secretKeyRef"]["key"] = "none".into();
    let mut unfit = used.clone();
    unfit["workingDir"] = "/planted/key".into();
    for (name, container) in
        [("used", &used), ("failing", &failing), ("missing", &missing), ("unfit", &unfit)]
    {
        let output = apply(&cluster, &pod(name, container, &volume));
        assert!(output.status.success(), "{name}: {output:?}");
        printed.push((format!("apply {name}"), output));
    }
    let get = |arguments: &[&str]| cluster.imp(arguments.iter().copied()).output().unwrap();
    for (name, word) in
        [("used", "Succeeded"), ("failing", "Failed"), ("missing", "CreateContainerConfigError")]
    {
        eventually(&format!("{name} is {word}"), || {
            let output = get(&["get", "pod", name, "-o", "json"]);
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            if text.contains(word) { Ok(()) } else { Err(text) }
        });
    }
    let said = get(&["logs", "used"]);
    assert_eq!(String::from_utf8_lossy(&said.stdout), "same\n", "the pod has what it was given");

    // A machine comes by the token, and another one that is late.
    let folder = tempfile::tempdir_in(cluster.scratch()).unwrap();
    let logs = folder.path().join("joined.log");
    let join = |name: &str| {
        let mut command = Command::new(program());
        command.args(["node", "--whole-machine", "--join", address, "--name", name]);
        command.arg("--data-dir").arg(folder.path().join(name)).stdin(Stdio::null());
        command.env("IMPRESARIO_TOKEN", token).env("IMPRESARIO_LOG", "debug").process_group(0);
        command
    };
    let mut joining = join("joined");
    joining.stdout(Stdio::null()).stderr(fs::File::create(&logs).unwrap());
    let joined = Joined(joining.spawn().unwrap());
    eventually("the node has joined", || {
        let output = get(&["get", "node", "joined"]);
        if output.status.success() { Ok(()) } else { Err(format!("{output:?}")) }
    });
    let late = join("late").output().unwrap();
    assert!(!late.status.success());
    printed.push(("a node with a used token".into(), late));

    for arguments in [
        &["status", "-o", "json"][..],
        &["get", "secrets"],
        &["get", "secret", "planted", "-o", "wide"],
        &["describe", "secret", "planted"],
        &["get", "pods", "-o", "json"],
        &["get", "events", "-o", "json"],
        &["describe", "pod", "used"],
        &["describe", "pod", "missing"],
        &["describe", "pod", "unfit"],
        &["describe", "node", "joined"],
        &["logs", "failing"],
        &["get", "nodes", "-o", "json"],
    ] {
        let output = get(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        printed.push((arguments.join(" "), output));
    }
    let leaks: Vec<_> = printed
        .iter()
        .map(|(what, output)| {
            (what, planted.within(&[&output.stdout[..], &output.stderr].concat()))
        })
        .filter(|(_, found)| !found.is_empty())
        .collect();

    let mut found = Vec::new();
    planted.below(cluster.dir(), &mut found);
    planted.below(folder.path(), &mut found);
    // Else the search would find nothing anywhere.
    let (there, elsewhere): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|(path, _)| belongs(&cluster, path));
    let kept = |part: &str| there.iter().any(|(path, _)| path.to_string_lossy().contains(part));
    assert!(kept("/registry/") && kept("/pods/"), "{there:?}");
    assert!(elsewhere.is_empty() && leaks.is_empty(), "{elsewhere:#?}, printed: {leaks:#?}");
    // The cluster keeps a hash of a token, and its machine what it was given for it.
    let tokens: Vec<_> = there.iter().filter(|(_, names)| names.contains(&"the token")).collect();
    assert!(tokens.is_empty(), "{tokens:?}");
    let node_log = fs::read_to_string(cluster.node("node-1").join("log")).unwrap();
    assert!(node_log.contains("DEBUG"), "the nodes log all that they can");
    drop(joined);
    cluster.down().unwrap();
}
