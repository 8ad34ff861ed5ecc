//! The reserve: a file whose blocks were written beforehand, so that a disk that is full has room for the journal's next file.

use crate::disk::{DiskError, durable, volume::Room};
use std::{
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
};

/// The name of the reserve in the journal's directory.
pub const RESERVE: &str = "reserve";

/// The reserve is written in pieces of this size.
const ZEROS: usize = 256 * 1024;

/// The reserve of a journal, which may be there or not.
#[derive(Debug)]
pub(super) struct Reserve {
    directory: PathBuf,
    path: PathBuf,
    room: Room,
}

impl Reserve {
    /// The reserve in a journal's directory.
    pub(super) fn new(directory: &Path, room: Room) -> Self {
        Self { directory: directory.to_owned(), path: directory.join(RESERVE), room }
    }

    pub(super) fn is_there(&self) -> bool {
        self.path.exists()
    }

    /// Makes it where it is missing and there is room for it.
    pub(super) fn tend(&self) -> Result<(), DiskError> {
        let size = self.room.reserve_bytes();
        let whole = fs::metadata(&self.path).is_ok_and(|found| found.len() >= size);
        let there = whole || (self.room.takes_reserve() && self.make(size)?);
        self.room.set_spent(!there);
        Ok(())
    }

    /// Gives it another name and opens it: it is the reserve no more.
    pub(super) fn become_file(&self, path: &Path) -> Result<File, DiskError> {
        fs::rename(&self.path, path).map_err(DiskError::io("rename", &self.path))?;
        self.room.set_spent(true);
        OpenOptions::new().write(true).open(path).map_err(DiskError::io("open", path))
    }

    /// False if there was no room after all.
    fn make(&self, size: u64) -> Result<bool, DiskError> {
        let path = &self.path;
        let made = File::create(path).map_err(DiskError::io("create", path)).and_then(|file| {
            for offset in (0..size).step_by(ZEROS) {
                let piece = vec![0; ZEROS.min((size - offset) as usize)];
                let written = self.room.volume().write(&file, &piece, offset);
                written.map_err(DiskError::io("write", path))?;
            }
            self.room.volume().sync(&file).map_err(DiskError::io("sync", path))
        });
        match made {
            Ok(()) => {
                durable::sync_directory(&self.directory)?;
                Ok(true)
            }
            Err(DiskError::Full { .. }) => {
                if path.exists() {
                    fs::remove_file(path).map_err(DiskError::io("remove", path))?;
                }
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}
