//! The files by which a driver and the keepers of its containers know of each other.
//!
//! ```text
//! DATA/pods/UID/pod.json                      the pod
//! DATA/pods/UID/containers/NAME/ATTEMPT/
//!     order.json     written by the driver, taken (renamed) by exactly one of keeper and successor
//!     taken.json     the order, once a keeper has it
//!     keeper.json    the keeper's process
//!     first.json     the container's first process, before it is told what to do
//!     born.json      the container's process, once its command executes
//!     failed.json    or why it could not be started
//!     exit.json      how it ended; written before the keeper goes
//!     log, log.1 ..  its output
//! ```
//! Each file appears whole (rename) and is readable for its owner alone. What must outlive a loss of power
//! ([`keep`]) is on the disk before anybody is told: how a container ended, and who has which GPU. Who has which address
//! is put together again from the containers' records where it cannot be read. The others are
//! about processes that such a loss ends. The room for an exit is taken before the container starts, so that a
//! full disk does not turn a success into a container that nobody knows the end of.

use super::{cgroup::Cgroup, identity::ProcessKey};
use crate::container::{ContainerSpec, PodSandbox};
use crate::program::Program;
use jiff::Timestamp;
use rustix::{fs::FallocateFlags, io::Errno};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// What a keeper is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    /// The container.
    pub spec: ContainerSpec,
    /// Its folder.
    pub folder: PathBuf,
    /// How this program is run as a keeper; its second stage is run in the same way. Who reads the order of a container
    /// that runs has no need of it, and those of an earlier version have it elsewhere.
    #[serde(default)]
    pub program: Program,
    /// Its control groups, when there may be any.
    pub cgroup: Option<Cgroup>,
    /// What it must not see, where it can be hidden.
    pub hidden: Vec<PathBuf>,
    /// Whether it may have namespaces; where that was found to fail half way it has none.
    #[serde(default = "yes")]
    pub namespaces: bool,
}

impl Order {
    /// What of a node's files is the container's by right, whose own folder this is: the folder of its pod, and those
    /// of its volumes that outlive the pod.
    pub(crate) fn own(&self, folder: &Path) -> Vec<PathBuf> {
        let Some(pod) = pod_folder(folder) else { return Vec::new() };
        let volumes = pod.ancestors().nth(2).map(|data| data.join(crate::volumes::FOLDERS));
        let sources = self.spec.mounts.iter().map(|mount| &mount.source);
        let kept =
            sources.filter(|source| volumes.is_some() && source.parent() == volumes.as_deref());
        std::iter::once(pod.to_owned()).chain(kept.cloned()).collect()
    }
}

/// The folder of the pod of the container whose folder this is.
pub(crate) fn pod_folder(folder: &Path) -> Option<&Path> {
    folder.ancestors().nth(3)
}

fn yes() -> bool {
    true
}

/// A container whose command executes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Born {
    /// Its first process.
    pub process: ProcessKey,
    /// When it was started.
    pub started_at: Timestamp,
    /// What could not be given as asked.
    pub warnings: Vec<String>,
    /// Its groups, when they could be made.
    pub cgroup: Option<Cgroup>,
}

/// Why a command does not execute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failed {
    /// Not found.
    NotFound {
        /// What was to be run.
        command: String,
    },
    /// Not allowed.
    PermissionDenied {
        /// What was to be run.
        command: String,
    },
    /// A volume could not be mounted.
    Mount {
        /// The volume.
        volume: String,
        /// Where it was to be seen.
        target: PathBuf,
        /// What failed.
        cause: String,
    },
    /// The order cannot be carried out as it is.
    Config {
        /// What is wrong with it.
        what: String,
    },
    /// The machine failed.
    System {
        /// What was attempted.
        what: String,
        /// What the system said.
        cause: String,
    },
}

/// What a keeper tells the driver that started it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Report {
    /// The command executes.
    Born(Born),
    /// It does not, and nothing is left.
    Failed(Failed),
}

/// Writes a file whole: it is never seen in part, by whoever reads it.
pub fn write<T: Serialize>(folder: &Path, name: &str, value: &T) -> io::Result<()> {
    let bytes = serde_json::to_vec(value)?;
    let new = folder.join(format!(".{name}.{}", std::process::id()));
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&bytes)?;
    fs::rename(&new, folder.join(name))
}

/// Bytes that are set aside for one record.
const ROOM: u64 = 4096;

/// Sets room aside for a record, which [`keep`] then uses. The file system gives it now, not when it comes to
/// write; one that writes what changes elsewhere (btrfs, ZFS) may need more all the same.
pub fn reserve(folder: &Path, name: &str) -> io::Result<()> {
    let mut file = open_reserved(folder, name)?;
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, ROOM) {
        // Not every file system can (NFS, say).
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => file.write_all(&[b' '; ROOM as usize]),
        given => Ok(given?),
    }
}

fn open_reserved(folder: &Path, name: &str) -> io::Result<fs::File> {
    let path = folder.join(format!(".{name}.reserved"));
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Writes a file whole, and returns once it outlives a loss of power.
pub fn keep<T: Serialize>(folder: &Path, name: &str, value: &T) -> io::Result<()> {
    let bytes = serde_json::to_vec(value)?;
    let mut file = open_reserved(folder, name)?;
    file.write_all(&bytes)?;
    file.set_len(bytes.len() as u64)?;
    file.sync_all()?;
    fs::rename(folder.join(format!(".{name}.reserved")), folder.join(name))?;
    fs::File::open(folder)?.sync_all()
}

/// Reads a file; `None` when it is not there.
pub fn read<T: DeserializeOwned>(folder: &Path, name: &str) -> io::Result<Option<T>> {
    match fs::read(folder.join(name)) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            let path = folder.join(name);
            io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display()))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads a file that the node can do without, such as those of one container. One that cannot be read is put aside,
/// complained of and counts as absent: it must not keep the node from all else.
pub fn read_or_put_aside<T: DeserializeOwned>(folder: &Path, name: &str) -> Option<T> {
    match read(folder, name) {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(folder = %folder.display(), name, %error, "a record cannot be read");
            let _ = fs::rename(folder.join(name), folder.join(format!("{name}.damaged")));
            None
        }
    }
}

/// What the folders of pods in this one say of their pods. One that cannot be read says nothing.
pub fn pods(folder: &Path) -> io::Result<Vec<PodSandbox>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?.collect::<io::Result<Vec<_>>>()?,
    };
    let pods = entries.iter().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    Ok(pods.filter_map(|pod| read_or_put_aside(&pod.path(), "pod.json")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_replaces_the_room_that_was_kept_for_it() {
        let folder = tempfile::tempdir().unwrap();
        reserve(folder.path(), "exit.json").unwrap();
        assert_eq!(read::<Vec<u8>>(folder.path(), "exit.json").unwrap(), None);
        keep(folder.path(), "exit.json", &vec![1_u8, 2]).unwrap();
        assert_eq!(read(folder.path(), "exit.json").unwrap(), Some(vec![1_u8, 2]));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        keep(folder.path(), "exit.json", &vec![3_u8]).unwrap();
        assert_eq!(read(folder.path(), "exit.json").unwrap(), Some(vec![3_u8]));
    }

    #[test]
    fn a_record_that_cannot_be_read_is_put_aside_once() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("born.json"), "{\"proc").unwrap();
        assert_eq!(read_or_put_aside::<Born>(folder.path(), "born.json"), None);
        assert!(folder.path().join("born.json.damaged").exists());
        assert_eq!(read::<Born>(folder.path(), "born.json").unwrap(), None);
    }
}
