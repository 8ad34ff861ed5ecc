//! A GPU is in at most one container on a machine, whichever node it was given by: nodes of another cluster or user know
//! nothing of each other, but all of them see the same files.
//!
//! The keeper holds a lock (flock(2)) on a file per GPU for as long as it lives: it is gone with the container, however
//! that ends, and never earlier. For containers of Docker, which have no keeper, the node holds it.

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
/// How long the container before this one of the same pod may take to go.
const LIMIT: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(50);

/// Takes all these GPUs; they are let go when what is returned is dropped.
pub(crate) fn take(uuids: &[String]) -> Result<Vec<Flock<File>>, Failed> {
    take_within(uuids, LIMIT)
}

/// The same, waiting no longer than `limit` for each.
pub(crate) fn take_within(uuids: &[String], limit: Duration) -> Result<Vec<Flock<File>>, Failed> {
    // Always in the same order: two that want the same ones do not wait for each other.
    let mut uuids: Vec<_> = uuids.iter().collect();
    uuids.sort();
    uuids.into_iter().map(|uuid| take_one(Path::new(FOLDER), uuid, limit)).collect()
}

fn take_one(folder: &Path, uuid: &str, limit: Duration) -> Result<Flock<File>, Failed> {
    let failed = |cause: io::Error| Failed::System {
        what: format!("locking GPU {uuid} on this machine"),
        cause: cause.to_string(),
    };
    let mut file = open(folder, uuid).map_err(failed)?;
    let begin = Instant::now();
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((same, nix::Error::EWOULDBLOCK)) if begin.elapsed() < limit => file = same,
            Err((_, nix::Error::EWOULDBLOCK)) => {
                return Err(Failed::System {
                    what: format!("GPU {uuid} is in use by another container of this machine"),
                    cause: "it was given by a node that does not know of this one: give each node GPUs of its own"
                        .into(),
                });
            }
            Err((_, errno)) => return Err(failed(errno.into())),
        }
        std::thread::sleep(AGAIN);
    }
}

/// The file of a GPU, made by whoever is first. It is only locked: nobody needs to write it.
fn open(folder: &Path, uuid: &str) -> io::Result<File> {
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
        let take = || take_one(folder.path(), "GPU-1/../x", Duration::ZERO);
        let first = take().unwrap();
        let refused = take().unwrap_err();
        assert!(
            matches!(&refused, Failed::System { what, .. } if what.contains("in use")),
            "{refused:?}"
        );
        take_one(folder.path(), "GPU-2", Duration::ZERO).unwrap();
        drop(first);
        take().unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
