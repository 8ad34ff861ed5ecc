//! Checkpoints on the disk.
//!
//! ```text
//!   FOLDER/
//!     checkpoint-00000007-UID/        complete: it came here by one rename
//!       manifest.json                 job, step, data position, SHA-256 of each file
//!       shard-00000.safetensors       values, average, first, second
//!     .saving-UID-ACTIVATION-8/       on its way, or left by who wrote it
//! ```
//! A folder is a checkpoint once it has its name, and by then every file of it is on the disk. What is read is compared
//! with its hash first. All of this blocks: it is for threads that may.

mod manifest;
mod tensors;

pub use manifest::{MANIFEST, Manifest, Shard};
pub(crate) use tensors::Writing;

use impresario_client::protocol::training::{
    Checkpoint, CheckpointError, CommitCheckpoint, Committed, LookForCheckpoint, Looked,
    OptimizerKind, SavedShard, ShardState,
};
use impresario_runtime::{clock, random};
use manifest::file_of;
use rand::Rng as _;
use safetensors::SafeTensors;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tensors::{numbers, refused, sha256, sha256_of, unreadable};

/// How the folder of a complete one begins.
const COMPLETE: &str = "checkpoint-";
/// And of one that is being written.
const SAVING: &str = ".saving-";
/// And of one that is being removed.
const REMOVING: &str = ".removing-";
/// One that was begun so long ago is completed no more: that is given up within hours.
const FORGOTTEN: Duration = Duration::from_hours(48);
/// So many that cannot be used are told of.
const MOST_REFUSED: usize = 8;

/// The name of the folder in which an activation writes its next checkpoint.
pub fn temporary_name(uid: &str, activation: u64, number: u64) -> String {
    format!("{SAVING}{uid}-{activation:016x}-{number}")
}

/// The number of a complete checkpoint and whose it is, from its folder's name.
fn parse_name(name: &str) -> Option<(u64, &str)> {
    let (number, uid) = name.strip_prefix(COMPLETE)?.split_once('-')?;
    let is_number = number.len() >= 8 && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some(())?;
    Some((number.parse().ok()?, uid))
}

/// What is written into names cannot lead elsewhere.
fn check_part(name: &str) -> Result<(), CheckpointError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || name == "." || name == ".." || !name.bytes().all(plain) {
        let cause = "it is not the name of a file".to_owned();
        return Err(CheckpointError::Unusable { path: name.to_owned(), cause });
    }
    Ok(())
}

fn unusable(path: &Path, cause: impl Into<String>) -> CheckpointError {
    CheckpointError::Unusable { path: path.display().to_string(), cause: cause.into() }
}

/// What is in this folder survives a crash from now on.
fn settle(folder: &Path) -> Result<(), CheckpointError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(refused(folder))
}

/// The file of a shard that is not part of a complete checkpoint yet: of the same shard there may be several.
fn written_as(shard: u32, sha256: &str) -> String {
    format!("{}.{sha256}", file_of(shard))
}

/// Writes one shard into a folder that is made for it.
pub fn write_shard(folder: &Path, state: &ShardState) -> Result<SavedShard, CheckpointError> {
    fs::create_dir_all(folder).map_err(refused(folder))?;
    // Nobody else writes into this file, whoever was given the shard since: one that wakes up late changes nothing.
    let nonce: u64 = random::rng().random();
    let path = folder.join(format!("{}.writing-{nonce:016x}", file_of(state.range.shard)));
    let parts = [
        ("values", &state.values),
        ("average", &state.average),
        ("first", &state.first),
        ("second", &state.second),
    ];
    let parts = parts.into_iter().filter(|(_, values)| !values.is_empty());
    let write = || {
        let tensors = parts.clone().map(|(name, values)| (name, values.len() as u64));
        let mut file = Writing::begin(&path, tensors, &[])?;
        for (_, values) in parts.clone() {
            file.values(values)?;
        }
        file.finish()
    };
    let (bytes, sha256) = write().map_err(refused(&path))?;
    let written = folder.join(written_as(state.range.shard, &sha256));
    fs::rename(&path, &written).map_err(refused(&written))?;
    Ok(SavedShard {
        range: state.range,
        version: state.version,
        applied: state.applied.clone(),
        memory_steps: state.memory_steps,
        bytes,
        sha256,
    })
}

/// Makes a checkpoint of what has been written, and removes the oldest of the job's.
pub fn commit(order: &CommitCheckpoint) -> Result<Committed, CheckpointError> {
    check_part(&order.temporary)?;
    check_part(&order.uid)?;
    let folder = Path::new(&order.folder);
    let temporary = folder.join(&order.temporary);
    for one in &order.saved {
        check_part(&one.sha256)?;
        let path = temporary.join(written_as(one.range.shard, &one.sha256));
        let found = fs::metadata(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => CheckpointError::Folder {
                path: path.display().to_string(),
                cause: "another parameter server has written it and it is not there: \
                        the folder is not one and the same on all machines of the job"
                    .to_owned(),
            },
            _ => refused(&path)(error),
        })?;
        if found.len() != one.bytes {
            return Err(unusable(&path, format!("{} bytes of {}", found.len(), one.bytes)));
        }
        let file = temporary.join(file_of(one.range.shard));
        fs::rename(&path, &file).map_err(refused(&file))?;
    }
    let unix_seconds = clock::timestamp().as_second();
    let manifest = Manifest::new(&order.job, &order.uid, unix_seconds, &order.model, &order.saved);
    let path = temporary.join(MANIFEST);
    let text = manifest.to_text().map_err(|why| unusable(&path, why))?;
    let write = || -> io::Result<()> {
        let mut file = File::create(&path)?;
        io::Write::write_all(&mut file, &text)?;
        file.sync_all()
    };
    write().map_err(refused(&path))?;
    let strays = remove_strays(&temporary).err();
    settle(&temporary)?;
    let complete = folder.join(format!("{COMPLETE}{:08}-{}", order.number, order.uid));
    // One that is there already is another activation's: a folder is never renamed onto one that is not empty.
    fs::rename(&temporary, &complete).map_err(refused(&complete))?;
    settle(folder)?;
    let left_over = remove_old(folder, &order.uid, order.keep).err().or(strays);
    let checkpoint = manifest.checkpoint(&complete, sha256(&text));
    Ok(Committed { checkpoint, left_over: left_over.map(|error| error.to_string()) })
}

/// Files of shards that were written twice, or were not written to their end.
fn remove_strays(temporary: &Path) -> Result<(), CheckpointError> {
    for entry in fs::read_dir(temporary).map_err(refused(temporary))? {
        let entry = entry.map_err(refused(temporary))?;
        let name = entry.file_name();
        let named = name.to_str().and_then(|name| name.strip_prefix("shard-"));
        if named.is_some_and(|rest| !rest.ends_with(".safetensors")) {
            fs::remove_file(entry.path()).map_err(refused(&entry.path()))?;
        }
    }
    Ok(())
}

/// The folders of complete checkpoints, newest first: number, owner and path.
fn complete_ones(folder: &Path) -> Result<Vec<(u64, String, PathBuf)>, CheckpointError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(refused(folder))? {
        let entry = entry.map_err(refused(folder))?;
        let name = entry.file_name();
        if let Some((number, uid)) = name.to_str().and_then(parse_name) {
            found.push((number, uid.to_owned(), entry.path()));
        }
    }
    found.sort_by(|one, other| other.cmp(one));
    Ok(found)
}

fn remove_old(folder: &Path, uid: &str, keep: u32) -> Result<(), CheckpointError> {
    let own = complete_ones(folder)?.into_iter().filter(|(_, owner, _)| owner == uid);
    for (number, _, path) in own.skip(keep.max(1) as usize) {
        // Half removed it would still have its name.
        let removing = folder.join(format!("{REMOVING}{uid}-{number}"));
        fs::rename(&path, &removing).map_err(refused(&path))?;
        fs::remove_dir_all(&removing).map_err(refused(&removing))?;
    }
    Ok(())
}

/// What earlier activations of a job have left half done.
fn remove_left(folder: &Path, uid: &str, activation: u64) -> Result<(), CheckpointError> {
    let ours = format!("{SAVING}{uid}-{activation:016x}-");
    let (saving, removing) = (format!("{SAVING}{uid}-"), format!("{REMOVING}{uid}-"));
    let mut failed = None;
    for entry in fs::read_dir(folder).map_err(refused(folder))? {
        let entry = entry.map_err(refused(folder))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_left = name.starts_with(&saving) && !name.starts_with(&ours);
        if is_left || name.starts_with(&removing) || is_forgotten(&name, &entry) {
            let removed = fs::remove_dir_all(entry.path()).map_err(refused(&entry.path()));
            failed = removed.err().or(failed);
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Whether nobody can be writing there any more, whosever it is: a job that is deleted cleans up nothing.
fn is_forgotten(name: &str, entry: &fs::DirEntry) -> bool {
    let changed = || entry.metadata().and_then(|metadata| metadata.modified());
    let age = || {
        changed().ok().and_then(|at| SystemTime::from(clock::timestamp()).duration_since(at).ok())
    };
    name.starts_with(SAVING) && age().is_some_and(|age| age > FORGOTTEN)
}

/// The newest checkpoint in a folder that the job can go on from.
pub fn look(order: &LookForCheckpoint) -> Result<Looked, CheckpointError> {
    let folder = Path::new(&order.folder);
    if let Some(uid) = &order.uid {
        check_part(uid)?;
        fs::create_dir_all(folder).map_err(refused(folder))?;
        if let Err(error) = remove_left(folder, uid, order.activation) {
            // Somebody reads there, or may remove what this one may not: it takes room, and nothing else.
            tracing::warn!(%error, "what earlier activations left half done is still there");
        }
    }
    let mut found = complete_ones(folder)?;
    let last = found.first().map_or(0, |(number, ..)| *number);
    if order.uid.is_none() && folder.join(MANIFEST).is_file() {
        // One of them is named, not where they all are.
        found = vec![(0, String::new(), folder.to_owned())];
    }
    let mut refused = Vec::new();
    for (_, owner, path) in found {
        let foreign = order.uid.as_ref().filter(|uid| **uid != owner);
        let taken = match foreign {
            Some(_) => Err(unusable(
                &path,
                "it is another job's: name it in spec.checkpoint.resumeFrom to go on from there",
            )),
            None => take(&path, order),
        };
        match taken {
            Ok(checkpoint) => return Ok(Looked { newest: Some(checkpoint), refused, last }),
            Err(error @ CheckpointError::Unusable { .. }) => {
                if refused.len() < MOST_REFUSED {
                    refused.push((path.display().to_string(), error.to_string()));
                }
            }
            // A disk that cannot be read for the moment says nothing of what is on it: an older one, or none, must not
            // be taken for that.
            Err(error) => return Err(error),
        }
    }
    Ok(Looked { newest: None, refused, last })
}

fn take(path: &Path, order: &LookForCheckpoint) -> Result<Checkpoint, CheckpointError> {
    let (manifest, sha256) = Manifest::read(path)?;
    if order.uid.as_ref().is_some_and(|uid| *uid != manifest.uid) {
        return Err(unusable(path, format!("it is of the job {}", manifest.job)));
    }
    if let Some(why) = manifest.misfit(&order.model, &order.ranges) {
        return Err(unusable(path, why));
    }
    if order.verify {
        verify(path, &manifest)?;
    }
    Ok(manifest.checkpoint(path, sha256))
}

/// Whether every file is as it was written.
pub fn verify(folder: &Path, manifest: &Manifest) -> Result<(), CheckpointError> {
    for shard in &manifest.shards {
        let path = folder.join(&shard.file);
        let found = sha256_of(&path).map_err(unreadable(&path))?;
        if found != (shard.bytes, shard.sha256.clone()) {
            return Err(unusable(&path, "it is not as it was written"));
        }
    }
    Ok(())
}

/// The manifest of a checkpoint, which has this hash.
pub fn open(folder: &Path, sha256: &str) -> Result<Manifest, CheckpointError> {
    let (manifest, found) = Manifest::read(folder)?;
    if found != sha256 {
        return Err(unusable(&folder.join(MANIFEST), "it is not the one that was written"));
    }
    Ok(manifest)
}

/// One shard of a checkpoint, as it was written; gradients are applied as the job does it now.
pub fn read_shard(
    folder: &Path,
    shard: &Shard,
    optimizer: OptimizerKind,
) -> Result<ShardState, CheckpointError> {
    let path = folder.join(&shard.file);
    let file = File::open(&path).map_err(unreadable(&path))?;
    let mut bytes = Vec::new();
    // Longer than it says, it is another one, and no more of it is read.
    file.take(shard.bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable(&path))?;
    if bytes.len() as u64 != shard.bytes || sha256(&bytes) != shard.sha256 {
        return Err(unusable(&path, "it is not as it was written"));
    }
    let tensors =
        SafeTensors::deserialize(&bytes).map_err(|error| unusable(&path, error.to_string()))?;
    let part = |name: &str| tensors.tensor(name).map_or(Vec::new(), |one| numbers(one.data()));
    Ok(ShardState {
        range: shard.range(),
        values: part("values"),
        average: part("average"),
        version: shard.step,
        applied: shard.applied.clone(),
        optimizer,
        memory_steps: shard.memory_steps,
        first: part("first"),
        second: part("second"),
    })
}

#[cfg(test)]
mod tests;
