//! What no container of this machine may see: the folders of all nodes that its user runs here, of whichever cluster.
//!
//! A node knows its own. So that each hides those of the others too, it writes them down where all of one user's nodes
//! look, and looks there whenever it starts a container. The list goes with the machine's restart, as its nodes do.
//!
//! Who comes later hides itself from the containers that run by then: first it writes down what is to be hidden, then it
//! covers that in each of them. A node that starts a container looks at the list before and after, so that none is between
//! the two. (An engine's containers have no more of the machine than what was mounted for them when they started.)

use crate::{process::record, volumes::Mounted};
use std::{
    ffi::OsString,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// How long it may take to cover something in one container.
const COVER_LIMIT: Duration = Duration::from_secs(10);

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
/// machine, and from those that are started from now on. `shim` runs [`crate::shim::main`].
///
/// # Errors
/// When it cannot be written down. A container that it cannot be hidden from is warned of by name.
pub fn hide(shim: &[OsString], folder: &Path) -> io::Result<()> {
    let mut hasher = DefaultHasher::new();
    folder.hash(&mut hasher);
    announce_to_all(shim, &format!("{:016x}-made", hasher.finish()), &[folder.to_owned()])
}

/// Writes down what the node of this tag hides, and covers what of it is new in the containers that run.
pub(crate) fn announce_to_all(shim: &[OsString], tag: &str, hidden: &[PathBuf]) -> io::Result<()> {
    let known = nodes_of_this_machine();
    announce(tag, hidden)?;
    let is_known = |path: &PathBuf| known.iter().any(|known| path.starts_with(known));
    let new: Vec<_> = hidden.iter().filter(|path| !is_known(path)).cloned().collect();
    if new.is_empty() {
        return Ok(());
    }
    for container in known.iter().flat_map(|data| running_below(data)) {
        if let Err(error) = cover(shim, &container, &new) {
            tracing::warn!(?container, hidden = ?new, %error, "a container of this machine can see these files");
        }
    }
    Ok(())
}

/// The folders of the containers of a node that have begun and not ended.
fn running_below(data: &Path) -> Vec<PathBuf> {
    let below = |folders: Vec<PathBuf>| {
        let mut found = Vec::new();
        for folder in folders {
            let entries = fs::read_dir(&folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
            match entries {
                Ok(entries) => found.extend(entries.into_iter().map(|entry| entry.path())),
                // Of a node that has no pods, or a pod that has just gone.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                    ) => {}
                Err(error) => {
                    tracing::warn!(?folder, %error, "containers in it may see what is made now");
                }
            }
        }
        found
    };
    let pods = below(vec![data.join("pods")]);
    let containers = below(pods.into_iter().map(|pod| pod.join("containers")).collect());
    let mut attempts = below(containers);
    attempts.retain(|path| path.join("born.json").exists() && !path.join("exit.json").exists());
    attempts
}

/// Covers paths in a container that runs. Blocks: for threads that may.
pub(crate) fn cover(shim: &[OsString], container: &Path, paths: &[PathBuf]) -> io::Result<()> {
    let (program, args) = shim.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command.args(args).arg("hide").arg(container).env_clear();
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let asked = serde_json::to_vec(paths)?;
    // One that ends before it has read says why itself.
    let written = child.stdin.take().map(|mut input| input.write_all(&asked));
    let until = Instant::now() + COVER_LIMIT;
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if Instant::now() < until => std::thread::sleep(Duration::from_millis(2)),
            None => {
                child.kill()?;
                child.wait()?;
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    };
    if status.success() {
        return written.unwrap_or(Ok(()));
    }
    let mut said = String::new();
    child.stderr.take().map(|err| err.take(4096).read_to_string(&mut said)).transpose()?;
    Err(io::Error::other(said.trim().to_owned()))
}

/// The folders of all nodes of this user on this machine, and what else they hide.
#[must_use]
pub fn nodes_of_this_machine() -> Vec<PathBuf> {
    known_in(&folder())
}

fn announce_in(folder: &Path, tag: &str, hidden: &[PathBuf]) -> io::Result<()> {
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
fn known_in(folder: &Path) -> Vec<PathBuf> {
    if !is_ours(folder) {
        return Vec::new(); // nobody else says what is hidden
    }
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
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
    all
}

/// Where a file or folder is seen: at its path, and wherever else its file system or a part of it is mounted, whole
/// or in part. None if it is not there.
pub(crate) fn places(path: &Path, table: &[Mounted]) -> Vec<PathBuf> {
    let Ok(path) = fs::canonicalize(path) else { return Vec::new() };
    let same = |other: &Path| {
        let [a, b] = [&path, other].map(|path| fs::metadata(path).ok());
        a.zip(b).is_some_and(|(a, b)| (a.dev(), a.ino()) == (b.dev(), b.ino()))
    };
    let mut all = vec![path.clone()];
    for place in elsewhere(&path, table) {
        let is_there = match &place {
            Elsewhere::Whole(at) => same(at),
            Elsewhere::Part(_) => true,
        };
        let (Elsewhere::Whole(at) | Elsewhere::Part(at)) = place;
        if is_there && !at.starts_with(&path) && !all.contains(&at) {
            all.push(at);
        }
    }
    all
}

/// Another place of a folder.
#[derive(Debug, PartialEq)]
enum Elsewhere {
    /// All of it, if nothing else is mounted over that.
    Whole(PathBuf),
    /// A folder in it, as the root of a mount.
    Part(PathBuf),
}

/// By the table of mounts alone.
fn elsewhere(path: &Path, table: &[Mounted]) -> Vec<Elsewhere> {
    // Of several at one point the last covers the others.
    let own = table.iter().filter(|mounted| path.starts_with(&mounted.point));
    let Some(own) = own.max_by_key(|mounted| mounted.point.components().count()) else {
        return Vec::new();
    };
    let Ok(below) = path.strip_prefix(&own.point) else { return Vec::new() };
    let in_file_system = own.root.join(below);
    let others = table.iter().filter(|mounted| mounted.device == own.device && *mounted != own);
    others
        .filter_map(|other| match in_file_system.strip_prefix(&other.root) {
            Ok(below) => Some(Elsewhere::Whole(other.point.join(below))),
            Err(_) if other.root.starts_with(&in_file_system) => {
                Some(Elsewhere::Part(other.point.clone()))
            }
            Err(_) => None,
        })
        .collect()
}

/// Whether it is a folder of this user's, and not a link to one.
fn is_ours(folder: &Path) -> bool {
    let user = nix::unistd::Uid::effective().as_raw();
    fs::symlink_metadata(folder).is_ok_and(|found| found.is_dir() && found.uid() == user)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounted(device: &str, root: &str, point: &str) -> Mounted {
        let (device, options) = (device.to_owned(), "rw".to_owned());
        Mounted { device, root: root.into(), point: point.into(), options }
    }

    #[test]
    fn what_is_mounted_twice_is_found_at_each_of_its_places() {
        let table = [
            mounted("8:1", "/", "/"),
            mounted("8:2", "/", "/"),
            mounted("8:2", "/home", "/home"),
            mounted("8:2", "/", "/sysroot"),
            mounted("8:2", "/home/a/keys/pki", "/srv/pki"),
            mounted("8:2", "/other", "/other"),
            mounted("0:5", "/", "/tmp"),
        ];
        let found = elsewhere(Path::new("/home/a/keys"), &table);
        let expected = [
            Elsewhere::Whole("/home/a/keys".into()),
            Elsewhere::Whole("/sysroot/home/a/keys".into()),
            Elsewhere::Part("/srv/pki".into()),
        ];
        assert_eq!(found, expected);
        assert!(elsewhere(Path::new("/tmp/x"), &table).is_empty());
    }

    #[test]
    fn each_node_knows_what_the_others_hide_for_as_long_as_it_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("list");
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        for (tag, path) in [("a", &one), ("b", &other)] {
            fs::create_dir(path).unwrap();
            announce_in(&list, tag, std::slice::from_ref(path)).unwrap();
        }
        let mut found = known_in(&list);
        found.sort();
        assert_eq!(found, [one.clone(), other.clone()]);
        fs::remove_dir(&one).unwrap();
        assert_eq!(known_in(&list), [other]);
        assert_eq!(fs::read_dir(&list).unwrap().count(), 1);
        // One that cannot be read now is no node that is gone.
        fs::write(list.join("c"), "[").unwrap();
        assert_eq!(known_in(&list).len(), 1);
        assert!(list.join("c").exists());
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&list, &link).unwrap();
        assert!(known_in(&link).is_empty());
        assert!(announce_in(&link, "c", &[]).is_err());
    }
}
