//! How files of a cluster are written and read: whole or not at all, for their owner alone.

use super::error::{LayoutError, at};
use serde::{Serialize, de::DeserializeOwned};
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Makes a folder that only its owner can look into.
pub fn make_private_dir(path: &Path) -> Result<(), LayoutError> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(at(path))
}

/// Puts `bytes` in the place of the file, whole or not at all, readable by its owner only.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), LayoutError> {
    // Two processes may write one file at a time.
    let temporary = path.with_extension(format!("tmp-{}", std::process::id()));
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(at(path))
}

/// What a file holds.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, LayoutError> {
    let bytes = fs::read(path).map_err(at(path))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| LayoutError::Damaged { path: path.to_owned(), reason: error.to_string() })
}

/// Writes a file, and its folder where there is none.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), LayoutError> {
    if let Some(parent) = path.parent() {
        make_private_dir(parent)?;
    }
    let bytes = serde_json::to_vec_pretty(value).map_err(|error| LayoutError::Damaged {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    replace(path, &bytes)
}

/// Refuses a folder that has entries under these names.
pub fn refuse_foreign(path: &Path, names: &[&str]) -> Result<(), LayoutError> {
    let taken = |name: &&&str| fs::symlink_metadata(path.join(**name)).is_ok();
    let taken: Vec<&str> = names.iter().filter(taken).copied().collect();
    if taken.is_empty() {
        return Ok(());
    }
    Err(LayoutError::Foreign { path: path.to_owned(), names: taken.join(", ") })
}
