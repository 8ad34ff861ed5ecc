//! Starting the nodes' processes, and waiting until all are Ready.

use super::{CLAIM_LIMIT, LOOK, READY_LIMIT, Started, UpError, name_of};
use crate::layout::{ClusterDir, NodeDir};
use crate::rest::{Rest, RestError};
use impresario_actors::node::object::PROCESS;
use indicatif::ProgressBar;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use tokio::time::Instant;

/// Starts the process of a node, in a process group of its own and with nothing inherited but its
/// log.
pub fn start(node: &NodeDir) -> Result<(), UpError> {
    let program = std::env::current_exe()
        .map_err(|source| UpError::Start { program: "imp".into(), source })?;
    let failed = |source| UpError::Start { program: program.clone(), source };
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(node.log())
        .map_err(failed)?;
    let child = Command::new(&program)
        .arg("node")
        .arg("--data-dir")
        .arg(node.path())
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(failed)?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    // It writes its pid when it has claimed the folder, and is init's child when we are gone, and is not waited for: while we live, we look at its lock.
    drop(child);
    Ok(())
}

/// Starts the nodes that do not run, and returns when all are Ready.
pub(super) async fn await_ready(
    dir: &ClusterDir,
    nodes: &[NodeDir],
    bar: &ProgressBar,
    begun: &Started,
) -> Result<(), UpError> {
    let deadline = Instant::now() + READY_LIMIT;
    // When each was started, and what its folder said of the process before.
    let mut started: BTreeMap<String, (Instant, Option<i32>)> = BTreeMap::new();
    let mut missing: Vec<String> = nodes.iter().map(name_of).collect();
    while Instant::now() < deadline {
        // One that was killed a moment ago may have held its lock when we first looked.
        for node in nodes.iter().filter(|node| !node.is_running()) {
            let name = name_of(node);
            match started.get(&name) {
                None => {
                    // Before there is anything to end.
                    begun.note(node);
                    let before = node.pid();
                    start(node)?;
                    started.insert(name, (Instant::now(), before));
                }
                Some((since, _)) if since.elapsed() > CLAIM_LIMIT => {
                    let log = node.log();
                    let text = std::fs::read_to_string(&log).unwrap_or_default();
                    let lines: Vec<&str> = text.lines().collect();
                    let tail = lines[lines.len().saturating_sub(10)..].join("\n");
                    return Err(UpError::Ended { name, log, tail });
                }
                Some(_) => {}
            }
        }
        if let Ok(ready) = ready_nodes(dir).await {
            // One that was killed left its number in the folder and an object that is Ready: until the new one
            // has written its own, both tell of the old.
            let is_ready = |name: &str| {
                let before = started.get(name).and_then(|(_, before)| *before);
                ready.get(name).is_some_and(|pid| Some(*pid) != before)
            };
            missing = nodes
                .iter()
                .filter(|node| !(node.is_running() && is_ready(&name_of(node))))
                .map(name_of)
                .collect();
            bar.set_position((nodes.len() - missing.len()) as u64);
            if missing.is_empty() {
                return Ok(());
            }
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(UpError::NotReady { limit: READY_LIMIT, missing: missing.join(", ") })
}

/// The nodes whose object tells of the process that their folder names, and is Ready; and that process.
async fn ready_nodes(dir: &ClusterDir) -> Result<BTreeMap<String, i32>, RestError> {
    let rest = Rest::from_kubeconfig(&dir.kubeconfig())?;
    let list = rest.get("/api/v1/nodes").await?;
    let mut ready = BTreeMap::new();
    for node in list["items"].as_array().into_iter().flatten() {
        let name = node["metadata"]["name"].as_str().unwrap_or_default();
        let pid = node["metadata"]["annotations"][PROCESS].as_str();
        let pid: Option<i32> = pid.and_then(|pid| pid.parse().ok());
        // An object that is Ready may tell of the process that was here before.
        if let Some(pid) = pid.filter(|pid| is_ready(node) && dir.node(name).pid() == Some(*pid)) {
            ready.insert(name.to_owned(), pid);
        }
    }
    Ok(ready)
}

fn is_ready(node: &Value) -> bool {
    let conditions = node["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}
