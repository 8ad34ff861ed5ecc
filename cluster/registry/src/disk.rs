//! What a member keeps on its disk: the journal of the raft log, snapshots, and the identity of the directory.
//!
//! Nothing here knows raft or actors. Every file is checksummed; what is torn at its end is cut off, what is
//! damaged before its end is refused with the file's name, the place and what to do.

pub mod durable;
pub mod frame;
pub mod identity;
pub mod journal;
pub mod sealed;
pub mod volume;

use std::{
    io,
    path::{Path, PathBuf},
};
use thiserror::Error;

/// Why a member's directory cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DiskError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}; check space and permissions, then start again", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },

    /// There is no room; the same may work later, and nothing was lost.
    #[error("{} has no room: free some space on its disk", path.display())]
    Full {
        /// The file that was to grow.
        path: PathBuf,
    },

    /// More bytes than a file of this kind can hold in one piece; nothing was written.
    #[error("{size} bytes are over the limit of {limit} for one piece of {}", path.display())]
    Oversized {
        /// The file.
        path: PathBuf,
        /// The bytes.
        size: usize,
        /// The limit.
        limit: usize,
    },

    /// Bytes that were once safely on the disk are not what they were.
    #[error(
        "{} is damaged at byte {offset} ({what}): this member does not start, for it might forget writes that it \
         acknowledged. Keep the file for a look at the disk. If other members are well, remove this member \
         (`imp member remove NODE`) and let it join again with an empty directory; if there is none, restore a \
         saved snapshot",
        path.display()
    )]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// Where the damage begins.
        offset: u64,
        /// What does not fit.
        what: &'static str,
    },

    /// The directory is not this member's.
    #[error("{}: {what}", path.display())]
    Foreign {
        /// The file or directory.
        path: PathBuf,
        /// Why, and what to do.
        what: String,
    },
}

impl DiskError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| match source {
            full if volume::is_full(&full) => Self::Full { path },
            source => Self::Io { action, path, source },
        }
    }
}

impl From<DiskError> for io::Error {
    fn from(error: DiskError) -> Self {
        let kind = match &error {
            DiskError::Io { source, .. } => source.kind(),
            DiskError::Full { .. } => io::ErrorKind::StorageFull,
            DiskError::Oversized { .. } => io::ErrorKind::FileTooLarge,
            DiskError::Corrupt { .. } => io::ErrorKind::InvalidData,
            DiskError::Foreign { .. } => io::ErrorKind::PermissionDenied,
        };
        Self::new(kind, error)
    }
}
