//! What no container of this machine may see: the folders of all nodes that its user runs here, of whichever cluster.
//!
//! A node knows its own. So that each hides those of the others too, it writes them down where all of one user's nodes
//! look, and looks there whenever it starts a container. The list goes with the machine's restart, as its nodes do.
//!
//! Who comes later hides itself from the containers that run by then: first it writes down what is to be hidden, then it
//! covers that in each of them, wherever it is there, an engine's containers included. A node that starts a container
//! looks at the list before and after, so that none is between the two.
//!
//! What is *not* promised of a container that runs by then: what one of its processes holds open stays open to it (a
//! pod that waits for the folder can have it as its working directory before it is covered), and a mount namespace that
//! a process of it has made (`unshare`, `bwrap`) belongs to that process, which may take any cover away. Both are looked
//! for, and warned of by the container's name: its pod must end for the folder to be out of reach.

mod cover;
mod places;
mod seen;

pub(crate) use cover::{Asked, Target, cover};
pub(crate) use places::{Hidden, Place, places};

use crate::process::record;
use crate::program::Program;
use serde::{Deserialize, Serialize};
use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

/// In the folder of a node's pods: what was covered in all containers that there were.
const COVERED: &str = ".covered";

/// Where root's nodes write it.
const OF_ROOT: &str = "/run/impresario";
/// Where a user's do, who has nothing below `/run` for certain; the user's number follows.
const OF_USER: &str = "/dev/shm/impresario-nodes-";

/// The folder with a file for each node of this user.
fn folder() -> PathBuf {
    let user = nix::unistd::Uid::effective();
    if user.is_root() { OF_ROOT.into() } else { format!("{OF_USER}{user}").into() }
}

/// Writes down what the node of this tag hides.
pub(crate) fn announce(tag: &str, hidden: &[PathBuf]) -> io::Result<()> {
    announce_in(&folder(), tag, hidden)
}

/// Hides a folder, before anything is in it that must stay hidden: from all containers of this user that run on this
/// machine, and from those that are started from now on. `shim` runs [`crate::shim::main`]; `engines` are the sockets of
/// those engines that run pods of this machine's nodes.
///
/// A container that it cannot be hidden from is warned of by name.
///
/// # Errors
/// When it cannot be written down.
pub async fn hide(shim: Program, folder: PathBuf, engines: &[PathBuf]) -> io::Result<()> {
    let mut hasher = DefaultHasher::new();
    folder.hash(&mut hasher);
    announce(&format!("{:016x}-made", hasher.finish()), std::slice::from_ref(&folder))?;
    // Asked after that: a container that is not among them begins when it is written down.
    let of_engines = crate::docker::running(engines).await;
    let work = move || {
        let mut targets = running();
        targets.extend(of_engines);
        cover_in_all(&shim, &targets, &[folder]);
    };
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

/// Writes down what the node of this tag hides, and covers in the containers that run what of it was not covered in all of
/// them before. `pods` is the folder of the node's pods.
pub(crate) fn announce_to_all(
    shim: &Program,
    tag: &str,
    hidden: &[PathBuf],
    pods: &Path,
) -> io::Result<()> {
    let known = nodes_of_this_machine()?;
    announce(tag, hidden)?;
    let now: Vec<_> = hidden.iter().filter_map(|path| Covered::now(path)).collect();
    // The list says since when they are hidden from who begins; the record in the folder itself, whether they were
    // from who ran by then.
    let covered: Vec<Covered> = record::read_or_put_aside(pods, COVERED).unwrap_or_default();
    let is_new = |one: &&Covered| !known.contains(&one.path) || !covered.contains(one);
    let new: Vec<_> = now.iter().filter(is_new).map(|one| one.path.clone()).collect();
    if new.is_empty() {
        return Ok(());
    }
    if cover_in_all(shim, &running(), &new) {
        record::write(pods, COVERED, &now)?;
    }
    Ok(())
}

/// The containers that run on nodes of this user with the `process` driver.
fn running() -> Vec<Target> {
    let known = nodes_of_this_machine().unwrap_or_else(|error| {
        tracing::warn!(%error, "containers of this machine may see what is made now");
        Vec::new()
    });
    known.iter().flat_map(|data| cover::running_below(data)).collect()
}

/// Covers paths in containers that run, and says of each that can see them all the same. Whether there is none.
fn cover_in_all(shim: &Program, targets: &[Target], paths: &[PathBuf]) -> bool {
    let failed = cover::cover_all(shim, targets, paths);
    let is_done = failed.is_empty();
    for (container, error) in failed {
        tracing::warn!(container, hidden = ?paths, %error, "a container of this machine can see these files");
    }
    let seen = seen::who_sees(targets, paths).unwrap_or_else(|error| {
        tracing::warn!(hidden = ?paths, %error, "it is not known which containers can see these files");
        Vec::new()
    });
    for (container, why) in seen {
        tracing::warn!(
            container, hidden = ?paths,
            "a process of this container {why}, and can see these files until its pod ends"
        );
    }
    is_done
}

/// A folder that was covered, and not another one that came to be at its path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Covered {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// Numbers of files are given again.
    made: Option<SystemTime>,
}

impl Covered {
    /// None where nothing is there.
    fn now(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        let (device, inode, made) = (meta.dev(), meta.ino(), meta.created().ok());
        Some(Self { path: path.to_owned(), device, inode, made })
    }
}

/// The folders of all nodes of this user on this machine, and what else they hide.
///
/// # Errors
///
/// When the list cannot be read: who took it for an empty one would show every other node's keys.
pub fn nodes_of_this_machine() -> io::Result<Vec<PathBuf>> {
    known_in(&folder())
}

fn announce_in(folder: &Path, tag: &str, hidden: &[PathBuf]) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    if !is_ours(folder)? {
        let what = format!("{} is another user's", folder.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    record::write(folder, tag, &hidden)
}

/// What all nodes have written down and is still there.
fn known_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let unread = |error: io::Error| {
        let what = format!("the list of this machine's nodes, {}: {error}", folder.display());
        io::Error::new(error.kind(), what)
    };
    if !is_ours(folder).map_err(unread)? {
        return Ok(Vec::new()); // nobody else says what is hidden
    }
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).map_err(unread)? {
        let entry = entry.map_err(unread)?;
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
        let found: Vec<PathBuf> = match record::read(folder, &name) {
            Ok(found) => found.unwrap_or_default(),
            Err(error) => {
                // It is another node's all the same, and is asked for again.
                tracing::warn!(name, %error, "what a node of this machine hides cannot be read");
                continue;
            }
        };
        // What cannot be looked at (a disk in trouble) may be there.
        let is_there = |path: &PathBuf| path.try_exists().unwrap_or(true);
        let found: Vec<_> = found.into_iter().filter(is_there).collect();
        if found.is_empty() && !name.starts_with('.') {
            let _ = fs::remove_file(entry.path()); // a node that is no more
        }
        all.extend(found);
    }
    // The nodes of one cluster write down the same folder each; it is covered once.
    all.sort();
    all.dedup();
    Ok(all)
}

/// Whether it is a folder of this user's, and not a link to one.
fn is_ours(folder: &Path) -> io::Result<bool> {
    let user = nix::unistd::Uid::effective().as_raw();
    match fs::symlink_metadata(folder) {
        Ok(found) => Ok(found.is_dir() && found.uid() == user),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
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
            announce_in(&list, tag, std::slice::from_ref(path)).unwrap();
        }
        let mut found = known_in(&list).unwrap();
        found.sort();
        assert_eq!(found, [one.clone(), other.clone()]);
        fs::remove_dir(&one).unwrap();
        assert_eq!(known_in(&list).unwrap(), [other]);
        assert_eq!(fs::read_dir(&list).unwrap().count(), 1);
        // One that cannot be read now is no node that is gone.
        fs::write(list.join("c"), "[").unwrap();
        assert_eq!(known_in(&list).unwrap().len(), 1);
        assert!(list.join("c").exists());
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&list, &link).unwrap();
        assert!(known_in(&link).unwrap().is_empty());
        assert!(announce_in(&link, "c", &[]).is_err());
    }

    #[test]
    fn a_list_that_cannot_be_read_is_not_taken_for_a_machine_without_other_nodes() {
        let folder = tempfile::tempdir().unwrap();
        assert!(known_in(&folder.path().join("none")).unwrap().is_empty());
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = known_in(&file.join("list")).unwrap_err().to_string();
        assert!(error.contains("the list of this machine's nodes"), "{error}");
    }
}
