//! Why a file of a cluster cannot be used.

use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a file of the cluster could not be used.
#[derive(Debug, Error)]
pub enum LayoutError {
    /// The file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not what we write.
    #[error(
        "{path} is damaged ({reason}): restore it from a backup, or start anew with `imp down --purge`"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It cannot be read who is trusted no more.
    #[error(
        "{path} cannot be read ({reason}), and without it revoked certificates would be trusted again: remove that \
         file and start again while the other members run, of which the node then reads it"
    )]
    Revoked {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Somebody else keeps files there under names that we use.
    #[error(
        "{} holds {names} of somebody else: choose a new or empty folder with --data-dir",
        path.display()
    )]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// Which of its entries.
        names: String,
    },
    /// No cluster was made there.
    #[error("no cluster in {path}: start one with `imp up --data-dir {path}`")]
    NoCluster {
        /// The folder.
        path: PathBuf,
    },
    /// The process that holds the lock is alive.
    #[error("{path} is in use by a running node: stop it first with `imp down`")]
    Running {
        /// The node's folder.
        path: PathBuf,
    },
    /// The file system knows no locks.
    #[error(
        "{path} cannot be locked ({source}), and two `imp` at a time would break it: choose a folder of a local \
         disk with --data-dir"
    )]
    NoLock {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another command changes this cluster and does not come to an end.
    #[error("another `imp` is at work on {path}: try again when it has ended")]
    Busy {
        /// The folder.
        path: PathBuf,
    },
}

/// That the system did not let us at this file.
pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> LayoutError + '_ {
    move |source| LayoutError::Io { path: path.to_owned(), source }
}
