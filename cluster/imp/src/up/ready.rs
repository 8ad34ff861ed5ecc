//! Waiting until all nodes are Ready.

use super::begun::Started;
use super::error::UpError;
use super::nodes::{is_ready, nodes_of, process};
use super::start::start;
use crate::layout::{CLAIM_LIMIT, ClusterDir, NodeDir};
use crate::rest::RestError;
use indicatif::ProgressBar;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// How long the nodes have to become Ready.
pub(super) const READY_LIMIT: Duration = Duration::from_secs(90);
/// How often it is looked whether they are.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// The name of the node in this folder.
pub(super) fn name_of(node: &NodeDir) -> String {
    node.path().file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Starts the nodes that do not run, and returns when all are Ready.
pub(super) async fn await_ready(
    dir: &ClusterDir,
    nodes: &[NodeDir],
    bar: &ProgressBar,
    begun: &Started,
) -> Result<(), UpError> {
    let deadline = Instant::now() + READY_LIMIT;
    let mut started = BTreeMap::new();
    let mut missing: Vec<String> = nodes.iter().map(name_of).collect();
    let mut failed = None;
    while Instant::now() < deadline {
        // One that was killed a moment ago may have held its lock when we first looked.
        for node in nodes.iter().filter(|node| !node.is_running()) {
            let name = name_of(node);
            match started.get(&name) {
                None => {
                    // Before there is anything to end.
                    begun.note(node);
                    // One that was killed left its number in the folder and an object that is Ready: until the new
                    // one has written its own, both would tell of the old.
                    node.forget_process()?;
                    start(node)?;
                    started.insert(name, Instant::now());
                }
                Some(since) if since.elapsed() > CLAIM_LIMIT => {
                    return Err(ended(name, node));
                }
                Some(_) => {}
            }
        }
        if let Some(ready) = looked(ready_nodes(dir).await, &mut failed)? {
            missing = nodes
                .iter()
                .filter(|node| !(node.is_running() && ready.contains(&name_of(node))))
                .map(name_of)
                .collect();
            bar.set_position((nodes.len() - missing.len()) as u64);
            if missing.is_empty() {
                return Ok(());
            }
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(UpError::NotReady { limit: READY_LIMIT, missing: missing.join(", "), why: in_vain(failed) })
}

/// What a look came to; none where it failed and another may not. What does not pass by waiting is an error.
pub(super) fn looked<T>(
    outcome: Result<T, RestError>,
    failed: &mut Option<RestError>,
) -> Result<Option<T>, UpError> {
    match outcome {
        Ok(seen) => {
            *failed = None;
            Ok(Some(seen))
        }
        Err(error @ (RestError::Kubeconfig(_) | RestError::Certificate(_))) => {
            Err(UpError::Api(error))
        }
        Err(error) => {
            *failed = Some(error);
            Ok(None)
        }
    }
}

/// That the last look failed, for whoever is told of what it did not see.
pub(super) fn in_vain(failed: Option<RestError>) -> String {
    failed.map(|error| format!(" (the last look failed: {error})")).unwrap_or_default()
}

/// That the process of this folder has ended, with its last words.
pub(super) fn ended(name: String, node: &NodeDir) -> UpError {
    let log = node.log();
    let text = std::fs::read_to_string(&log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(10)..].join("\n");
    UpError::Ended { name, log, tail }
}

/// The nodes whose object tells of the process that their folder names, and is Ready.
async fn ready_nodes(dir: &ClusterDir) -> Result<BTreeSet<String>, RestError> {
    let mut ready = BTreeSet::new();
    for node in nodes_of(dir).await? {
        let name = node["metadata"]["name"].as_str().unwrap_or_default();
        let pid = process(&node);
        // An object that is Ready may tell of the process that was here before.
        if is_ready(&node) && pid.is_some() && pid == dir.node(name).pid() {
            ready.insert(name.to_owned());
        }
    }
    Ok(ready)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_kubeconfig_that_cannot_be_used_is_told_of_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let dir = ClusterDir::new(folder.path().to_owned());
        std::fs::write(dir.kubeconfig(), "clusters: [").unwrap();
        let (bar, begun) = (ProgressBar::hidden(), Started::default());
        let error = await_ready(&dir, &[], &bar, &begun).await.unwrap_err();
        assert!(matches!(error, UpError::Api(RestError::Kubeconfig(_))), "{error}");
    }

    #[test]
    fn who_waits_in_vain_is_told_what_the_last_look_failed_at() {
        let lost = || RestError::Unreachable { server: "here".into(), reason: "refused".into() };
        let mut failed = None;
        assert!(looked::<()>(Err(lost()), &mut failed).unwrap().is_none());
        let error = UpError::NotReady {
            limit: READY_LIMIT,
            missing: "node-1".into(),
            why: in_vain(failed.take()),
        };
        assert!(error.to_string().contains("node-1 (the last look failed: "), "{error}");
        failed = Some(lost());
        assert_eq!(looked(Ok(1), &mut failed).unwrap(), Some(1));
        assert_eq!(in_vain(failed), "");
    }
}
