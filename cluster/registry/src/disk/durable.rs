//! Files that are there, whole, after a power cut: written aside, synced, renamed, and the directory synced.

use super::DiskError;
use std::{
    fs::{self, File},
    io::Write,
    path::Path,
};

/// Puts `bytes` at `path` so that after a crash either the old file is there or the whole new one.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
    let aside = path.with_extension("tmp");
    let written = write(&aside, bytes);
    if written.is_err() {
        // A part of it would only take room; the error that counts is the first.
        let _ = fs::remove_file(&aside);
    }
    written?;
    fs::rename(&aside, path).map_err(DiskError::io("rename into place", path))?;
    path.parent().map_or(Ok(()), sync_directory)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
    let mut file = File::create(path).map_err(DiskError::io("create", path))?;
    file.write_all(bytes).map_err(DiskError::io("write", path))?;
    file.sync_all().map_err(DiskError::io("sync", path))
}

/// Makes creations, renames and removals in a directory durable.
pub fn sync_directory(directory: &Path) -> Result<(), DiskError> {
    let handle = File::open(directory).map_err(DiskError::io("open", directory))?;
    handle.sync_all().map_err(DiskError::io("sync", directory))
}

/// Creates a directory, and the entries that lead to it, durably.
pub fn create_directory(directory: &Path) -> Result<(), DiskError> {
    if directory.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(directory).map_err(DiskError::io("create", directory))?;
    directory.parent().map_or(Ok(()), sync_directory)
}
