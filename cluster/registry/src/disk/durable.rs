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
    let mut file = File::create(&aside).map_err(DiskError::io("create", &aside))?;
    file.write_all(bytes).map_err(DiskError::io("write", &aside))?;
    file.sync_all().map_err(DiskError::io("sync", &aside))?;
    fs::rename(&aside, path).map_err(DiskError::io("rename into place", path))?;
    path.parent().map_or(Ok(()), sync_directory)
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
