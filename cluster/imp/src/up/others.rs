//! Other clusters of this user on this machine: each offers all of it to its own pods, and none knows of the others'.

use crate::layout::{ClusterDir, NodeDir};
use std::path::{Path, PathBuf};

/// The folders of clusters and of joined nodes that run here besides those in `own`.
#[must_use]
pub fn others(own: &Path) -> Vec<PathBuf> {
    known(own).into_iter().filter(|folder| runs(folder)).collect()
}

/// The folders of clusters and of joined nodes that were here since the machine was started and are still there,
/// besides those in `own`.
pub(super) fn known(own: &Path) -> Vec<PathBuf> {
    let known = impresario_host::nodes_of_this_machine().unwrap_or_else(|error| {
        tracing::warn!(%error, "other clusters of this machine are not known");
        Vec::new()
    });
    outermost(known, own)
}

/// Each folder once, without those that lie in another one or in one's own.
fn outermost(mut folders: Vec<PathBuf>, own: &Path) -> Vec<PathBuf> {
    folders.sort();
    let mut found: Vec<PathBuf> = Vec::new();
    for folder in folders {
        let is_apart = !folder.starts_with(own) && !own.starts_with(&folder);
        if is_apart && !found.iter().any(|above| folder.starts_with(above)) {
            found.push(folder);
        }
    }
    found
}

/// Whether one of its nodes does.
pub(super) fn runs(folder: &Path) -> bool {
    let nodes = ClusterDir::new(folder.to_owned()).nodes().unwrap_or_default();
    nodes.iter().any(NodeDir::is_running) || NodeDir::new(folder.to_owned()).is_running()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_cluster_is_told_of_once_and_its_own_never() {
        let folders = ["/a/nodes/node-1", "/a", "/b", "/b/nodes/node-1", "/b/pki", "/c"];
        let folders = folders.map(PathBuf::from).to_vec();
        let expected = [PathBuf::from("/a"), PathBuf::from("/c")];
        assert_eq!(outermost(folders, Path::new("/b")), expected);
    }

    #[test]
    fn a_folder_runs_while_one_of_its_nodes_does() {
        let folder = tempfile::tempdir().unwrap();
        let node = ClusterDir::new(folder.path().to_owned()).node("node-1");
        let claim = node.claim().unwrap();
        assert!(!runs(folder.path()), "nothing is set up there");
        std::fs::write(node.path().join("node.json"), "{}").unwrap();
        assert!(runs(folder.path()) && runs(node.path()));
        drop(claim);
        assert!(!runs(folder.path()));
    }
}
