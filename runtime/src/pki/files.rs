//! Reading and writing key material: whole files, replaced at once, readable by their owner alone.

use super::PkiError;
use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

pub(super) fn read(path: &Path) -> Result<String, PkiError> {
    fs::read_to_string(path).map_err(|source| PkiError::File { path: path.to_owned(), source })
}

/// Writes beside the file and renames over it: a crash leaves the old one or the new one.
pub(super) fn write(path: &Path, text: &str) -> Result<(), PkiError> {
    let attempt = || -> io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let beside = path.with_extension("new");
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        fs::File::open(folder)?.sync_all()
    };
    attempt().map_err(|source| PkiError::File { path: path.to_owned(), source })
}

/// Where a file lies until all that belong together are there.
pub(super) fn staged(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.staged"))
}

/// Lays files down beside those of their names, in order. When the last one is there, all are.
pub(super) fn stage(folder: &Path, names: &[&str], texts: &[&str]) -> Result<(), PkiError> {
    if let Some(last) = names.last() {
        // An older set that was never finished does not count with this one's.
        remove(&staged(folder, last))?;
    }
    for (name, text) in names.iter().zip(texts) {
        write(&staged(folder, name), text)?;
    }
    Ok(())
}

/// Puts staged files in their places, if all of them were laid down; the last one goes last.
pub(super) fn finish(folder: &Path, names: &[&str]) -> Result<(), PkiError> {
    let Some(last) = names.last() else { return Ok(()) };
    if !staged(folder, last).exists() {
        return Ok(());
    }
    for name in names {
        let (from, to) = (staged(folder, name), folder.join(name));
        match fs::rename(&from, &to) {
            // It was moved before the cut.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(PkiError::File { path: to, source }),
            Ok(()) => {}
        }
        sync(folder)?;
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), PkiError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(PkiError::File { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

fn sync(folder: &Path) -> Result<(), PkiError> {
    let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|source| PkiError::File { path: folder.to_owned(), source })
}
