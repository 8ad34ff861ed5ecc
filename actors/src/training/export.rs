//! A checkpoint as one file of named tensors, for other programs.

use super::checkpoint::{Manifest, Shard, Writing, open, read_shard};
use impresario_client::protocol::training::CheckpointError;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Which values of the parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// Their running mean over the latest steps: what a job's accuracy is measured with.
    Average,
    /// As they were after the last step.
    Latest,
}

/// What has been written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Named tensors in it.
    pub tensors: usize,
    /// Parameters in them.
    pub parameters: u64,
    /// Steps that are in all of them.
    pub step: u64,
    /// The file's length.
    pub bytes: u64,
    /// And its SHA-256, in hexadecimal.
    pub sha256: String,
}

/// Why nothing was written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The checkpoint does not do.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The file cannot be written.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Two blocks would be one tensor.
    #[error(
        "two blocks of the model are called {0:?}: give each a name of its own in the program's `blocks`"
    )]
    SameName(String),
}

/// Writes the parameters of the checkpoint in `folder`, whose manifest has this hash if one is known, as one file. The file is there
/// when it is complete, or not at all; one shard at a time is in memory.
pub fn export(
    folder: &Path,
    sha256: Option<&str>,
    values: Values,
    file: &Path,
) -> Result<Exported, ExportError> {
    let manifest = match sha256 {
        Some(sha256) => open(folder, sha256)?,
        None => Manifest::read(folder)?.0,
    };
    let mut names = BTreeSet::from(["__metadata__"]);
    if let Some((name, _)) = manifest.blocks.iter().find(|(name, _)| !names.insert(name)) {
        return Err(ExportError::SameName(name.clone()));
    }
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let temporary = file.with_file_name(format!(".{name}.{}.new", std::process::id()));
    let written = write(folder, &manifest, values, &temporary).and_then(|(bytes, sha256)| {
        let failed = |source| ExportError::Io { path: file.to_owned(), source };
        fs::rename(&temporary, file).map_err(failed)?;
        let parent = file.parent().filter(|parent| *parent != Path::new(""));
        let settled = File::open(parent.unwrap_or(Path::new("."))).and_then(|it| it.sync_all());
        settled.map_err(failed)?;
        Ok((bytes, sha256))
    });
    let (bytes, sha256) = written.inspect_err(|_| {
        // What is left of it is of no use, and why it failed is told.
        let _ = fs::remove_file(&temporary);
    })?;
    let parameters = manifest.blocks.iter().map(|(_, length)| length).sum();
    let (tensors, step) = (manifest.blocks.len(), manifest.step);
    Ok(Exported { tensors, parameters, step, bytes, sha256 })
}

fn write(
    folder: &Path,
    manifest: &Manifest,
    values: Values,
    path: &Path,
) -> Result<(u64, String), ExportError> {
    let failed = |source| ExportError::Io { path: path.to_owned(), source };
    let about = [
        // What loaders of other programs look for.
        ("format", "pt".to_owned()),
        ("job", manifest.job.clone()),
        ("uid", manifest.uid.clone()),
        ("step", manifest.step.to_string()),
    ];
    let blocks = manifest.blocks.iter().map(|(name, length)| (name.as_str(), *length));
    let mut file = Writing::begin(path, blocks, &about).map_err(failed)?;
    for shard in &manifest.shards {
        file.values(&values_of(folder, manifest, shard, values)?).map_err(failed)?;
    }
    file.finish().map_err(failed)
}

fn values_of(
    folder: &Path,
    manifest: &Manifest,
    shard: &Shard,
    values: Values,
) -> Result<Vec<f32>, CheckpointError> {
    let state = read_shard(folder, shard, manifest.optimizer)?;
    let values = match values {
        Values::Average => state.average,
        Values::Latest => state.values,
    };
    if values.len() as u64 != shard.length {
        let path = folder.join(&shard.file).display().to_string();
        let cause = format!("{} values of {}", values.len(), shard.length);
        return Err(CheckpointError::Unusable { path, cause });
    }
    Ok(values)
}
