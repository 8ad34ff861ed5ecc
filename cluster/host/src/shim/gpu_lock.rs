//! A GPU is in at most one container on a machine, whichever node it was given by: nodes of another cluster or user know
//! nothing of each other, but all of them see the same files.
//!
//! The keeper holds a lock (flock(2)) on a file per GPU until all of the container has ended. The container's processes
//! have the same file open: where the keeper is killed, the lock is gone with the last of them, and not before, be it that
//! one hangs in the kernel. (A program that closes all files which it does not know lets go of it then, and nobody else's.)
//! For containers of Docker, which have no keeper, the node holds it.

use crate::process::record::Failed;
use nix::fcntl::{Flock, FlockArg};
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::{Duration, Instant},
};

/// A folder in which every user of every Linux can make files, and that is gone with the machine's restart.
const FOLDER: &str = "/dev/shm";
/// How long the container before this one of the same pod may take to go: with what else a start takes less than the
/// driver waits for one.
const LIMIT: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(50);

/// Takes all these GPUs; they are let go when what is returned is dropped.
pub(crate) fn take(uuids: &[String]) -> Result<Vec<Flock<File>>, Failed> {
    take_within(uuids, LIMIT)
}

/// The same, waiting no longer than `limit` altogether.
pub(crate) fn take_within(uuids: &[String], limit: Duration) -> Result<Vec<Flock<File>>, Failed> {
    lock_within(open(uuids)?, limit)
}

/// The files of all these GPUs.
pub(super) fn open(uuids: &[String]) -> Result<Vec<Unlocked>, Failed> {
    // Always in the same order: two that want the same ones do not wait for each other.
    let mut uuids: Vec<_> = uuids.iter().collect();
    uuids.sort();
    uuids.into_iter().map(|uuid| Unlocked::open(Path::new(FOLDER), uuid)).collect()
}

/// Locks these files; they are let go when what is returned is dropped.
pub(super) fn lock(files: Vec<Unlocked>) -> Result<Vec<Flock<File>>, Failed> {
    lock_within(files, LIMIT)
}

fn lock_within(files: Vec<Unlocked>, limit: Duration) -> Result<Vec<Flock<File>>, Failed> {
    let until = Instant::now() + limit;
    files.into_iter().map(|file| file.lock(until)).collect()
}

/// The file of a GPU, which is not locked yet.
#[derive(Debug)]
pub(super) struct Unlocked {
    uuid: String,
    file: File,
}

impl Unlocked {
    fn open(folder: &Path, uuid: &str) -> Result<Self, Failed> {
        let file = open_in(folder, uuid).map_err(|error| failed(uuid, &error))?;
        Ok(Self { uuid: uuid.to_owned(), file })
    }

    /// Leaves the file open in the processes that are started from now on. A lock is the open file's, and gone when the
    /// last of them is.
    pub fn pass_on(&self) -> io::Result<()> {
        Ok(rustix::io::fcntl_setfd(&self.file, rustix::io::FdFlags::empty())?)
    }

    fn lock(self, until: Instant) -> Result<Flock<File>, Failed> {
        let Self { uuid, mut file } = self;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(lock),
                Err((same, nix::Error::EWOULDBLOCK)) if Instant::now() < until => file = same,
                Err((_, nix::Error::EWOULDBLOCK)) => {
                    return Err(Failed::System {
                        what: format!("GPU {uuid} is in use by another container of this machine"),
                        cause: "it was given by a node that does not know of this one, or a process of that container \
                                hangs in the kernel: give each node GPUs of its own, and look for processes in state D"
                            .into(),
                    });
                }
                Err((_, errno)) => return Err(failed(&uuid, &errno.into())),
            }
            std::thread::sleep(AGAIN);
        }
    }
}

fn failed(uuid: &str, cause: &io::Error) -> Failed {
    let what = format!("locking GPU {uuid} on this machine");
    Failed::System { what, cause: cause.to_string() }
}

/// The file of a GPU, made by whoever is first. It is only locked: nobody needs to write it.
fn open_in(folder: &Path, uuid: &str) -> io::Result<File> {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let path = folder.join(format!("impresario-{}", uuid.chars().map(plain).collect::<String>()));
    let mut options = OpenOptions::new();
    // Whatever else somebody has put there is not followed, and not waited for.
    options.read(true).custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK);
    let found = options.open(&path);
    if !found.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return found;
    }
    match OpenOptions::new().write(true).create_new(true).mode(0o444).open(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => options.open(&path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_had_by_one_at_a_time_and_by_the_next_when_it_is_let_go() {
        let folder = tempfile::tempdir().unwrap();
        let take_one = |uuid| Unlocked::open(folder.path(), uuid)?.lock(Instant::now());
        let take = || take_one("GPU-1/../x");
        let first = take().unwrap();
        let refused = take().unwrap_err();
        assert!(
            matches!(&refused, Failed::System { what, .. } if what.contains("in use")),
            "{refused:?}"
        );
        take_one("GPU-2").unwrap();
        drop(first);
        take().unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
