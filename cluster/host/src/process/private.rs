//! What no container of this machine may see: the folders of all nodes that its user runs here, of whichever cluster.
//!
//! A node knows its own. So that each hides those of the others too, it writes them down where all of one user's nodes
//! look, and looks there whenever it starts a container. The list goes with the machine's restart, as its nodes do.

use super::record;
use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

/// Where root's nodes write it.
const OF_ROOT: &str = "/run/impresario";
/// Where a user's do, who has nothing below `/run` for certain; the user's number follows.
const OF_USER: &str = "/dev/shm/impresario-nodes-";

/// The folder with a file for each node of this user.
pub(super) fn folder() -> PathBuf {
    let user = nix::unistd::Uid::effective();
    if user.is_root() { OF_ROOT.into() } else { format!("{OF_USER}{user}").into() }
}

/// Writes down what the node of this tag hides.
pub(super) fn announce(folder: &Path, tag: &str, hidden: &[PathBuf]) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    if !is_ours(folder) {
        let what = format!("{} is another user's", folder.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    record::write(folder, tag, &hidden)
}

/// What all nodes have written down and is still there.
pub(super) fn known(folder: &Path) -> Vec<PathBuf> {
    if !is_ours(folder) {
        return Vec::new(); // nobody else says what is hidden
    }
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
        let found: Option<Vec<PathBuf>> = record::read(folder, &name).ok().flatten();
        let found: Vec<_> = found.unwrap_or_default().into_iter().filter(|p| p.exists()).collect();
        if found.is_empty() && !name.starts_with('.') {
            let _ = fs::remove_file(entry.path()); // a node that is no more
        }
        all.extend(found);
    }
    all
}

/// Whether it is a folder of this user's, and not a link to one.
fn is_ours(folder: &Path) -> bool {
    let user = nix::unistd::Uid::effective().as_raw();
    fs::symlink_metadata(folder).is_ok_and(|found| found.is_dir() && found.uid() == user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_knows_what_the_others_hide_for_as_long_as_it_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("list");
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        for (tag, path) in [("a", &one), ("b", &other)] {
            fs::create_dir(path).unwrap();
            announce(&list, tag, std::slice::from_ref(path)).unwrap();
        }
        let mut found = known(&list);
        found.sort();
        assert_eq!(found, [one.clone(), other.clone()]);
        fs::remove_dir(&one).unwrap();
        assert_eq!(known(&list), [other]);
        assert_eq!(fs::read_dir(&list).unwrap().count(), 1);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&list, &link).unwrap();
        assert!(known(&link).is_empty());
        assert!(announce(&link, "c", &[]).is_err());
    }
}
