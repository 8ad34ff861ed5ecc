//! `imp down --purge`: removes what this program put into a folder, and nothing else.
//!
//! A folder is one of ours if it has the file that says so (`cluster.json`, `node.json`, or `making`
//! while a cluster is being made); that file goes last, so that a purge that was cut off can be done
//! again. Whatever else lies there stays, and is named. Links are removed, never followed.

use crate::layout::{ClusterDir, MADE_BY_CLUSTER, MADE_BY_NODE, NodeDir};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Something could not be removed.
#[derive(Debug, Error)]
#[error("cannot remove {path}: {source}; try `imp down --purge` again")]
pub struct PurgeError {
    /// What.
    path: PathBuf,
    /// What the system said.
    source: io::Error,
}

/// Removes what is ours in the folder, and the folder if nothing else is in it. Returns the names of
/// what is left.
pub fn purge(dir: &ClusterDir) -> Result<Vec<String>, PurgeError> {
    let path = dir.path();
    let mut ours: Vec<&str> = Vec::new();
    // The files that say whose the folder is are the last of each list.
    if NodeDir::new(path.to_owned()).exists() {
        ours.extend(MADE_BY_NODE);
    }
    if dir.is_ours() {
        ours.extend(MADE_BY_CLUSTER);
    }
    for name in &ours {
        remove(&path.join(name))?;
    }
    let mut left = Vec::new();
    for entry in fs::read_dir(path).map_err(at(path))? {
        let entry = entry.map_err(at(path))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_unfinished(&name, &ours) {
            remove(&entry.path())?;
        } else {
            left.push(name);
        }
    }
    if left.is_empty() {
        fs::remove_dir(path).map_err(at(path))?;
    }
    left.sort();
    Ok(left)
}

/// What `layout::replace` leaves of one of these files when it is cut off.
fn is_unfinished(name: &str, ours: &[&str]) -> bool {
    let stem = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
    name.contains(".tmp-") && ours.iter().any(|own| stem(own) == stem(name))
}

fn remove(path: &Path) -> Result<(), PurgeError> {
    let outcome = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match outcome {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other.map_err(at(path)),
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> PurgeError + '_ {
    move |source| PurgeError { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "{}").unwrap();
    }

    #[test]
    fn what_others_put_into_the_folder_stays_and_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        for name in ["cluster.json", "kubeconfig", "pki/key", "nodes/node-1/log", "cluster.tmp-7"] {
            write(&path.join(name));
        }
        write(&path.join("hollow/group-1/hollow.json"));
        write(&path.join("thesis/chapter-1.tex"));
        assert_eq!(purge(&ClusterDir::new(path.clone())).unwrap(), ["thesis"]);
        let left: Vec<_> = fs::read_dir(&path).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(left, ["thesis"]);
    }

    #[test]
    fn a_folder_with_nothing_else_in_it_goes_and_a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, elsewhere) = (folder.path().join("c"), folder.path().join("elsewhere"));
        write(&path.join("making"));
        write(&elsewhere.join("precious"));
        std::os::unix::fs::symlink(&elsewhere, path.join("nodes")).unwrap();
        assert!(purge(&ClusterDir::new(path.clone())).unwrap().is_empty());
        assert!(!path.exists() && elsewhere.join("precious").exists());
    }

    #[test]
    fn of_a_folder_that_is_not_ours_nothing_goes() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("nodes/a"));
        write(&folder.path().join("pki/b"));
        assert_eq!(purge(&ClusterDir::new(folder.path().into())).unwrap(), ["nodes", "pki"]);
        assert!(folder.path().join("nodes/a").exists() && folder.path().join("pki/b").exists());
    }
}
