//! Whose directory this is: the cluster, the member's number in it, and a random id of the disk.
//!
//! The disk id is part of the raft membership, and so is the generation: which life of the directory this is, raised
//! at each start before anybody hears of it. A directory that was emptied has no id; one that was copied or restored
//! shows a life that the group knows to be over, or that runs already. So neither can vote twice under one number.

use super::{DiskError, durable, journal, sealed};
use serde::{Deserialize, Serialize};
use std::{
    fs::{File, OpenOptions, TryLockError},
    path::{Path, PathBuf},
};

const KIND: [u8; 4] = *b"IDEN";

/// What the identity file of a member's directory says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The cluster that the directory belongs to.
    pub cluster: String,
    /// The name of the actor node that made it.
    pub node: String,
    /// Drawn at random when the directory was made.
    pub disk: u128,
    /// The member's number in the raft group, once the group has given it one.
    pub member: Option<u64>,
    /// Which life of the directory this is: 1 for the first.
    #[serde(default)]
    pub generation: u64,
    /// The format of the log and the snapshots.
    #[serde(default)]
    pub format: u32,
    /// Why the group has refused the directory for good: a copy, or one restored from an older state.
    #[serde(default)]
    pub refused: Option<String>,
}

/// The format that this program writes and reads. Directories from before it was counted have 0.
const FORMAT: u32 = 1;

/// A directory that this process alone uses until it drops this.
#[derive(Debug)]
pub struct Claimed {
    directory: PathBuf,
    identity: Identity,
    _lock: File,
}

impl Claimed {
    /// Claims a directory, making it if it is new. Another cluster's, another node's, or one in use is refused.
    pub fn claim(directory: &Path, cluster: &str, node: &str) -> Result<Self, DiskError> {
        durable::create_directory(directory)?;
        let lock_path = directory.join("lock");
        let mut options = OpenOptions::new();
        let lock = options.create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.map_err(DiskError::io("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let what = "another process uses this directory: stop it first".to_owned();
                return Err(DiskError::Foreign { path: directory.to_owned(), what });
            }
            Err(TryLockError::Error(error)) => {
                return Err(DiskError::io("lock", &lock_path)(error));
            }
        }
        let path = directory.join("identity");
        let known = sealed::read(&path, KIND)?.map(|bytes| decode(&path, &bytes)).transpose()?;
        let identity = if let Some(known) = known {
            known
        } else {
            let (cluster, node) = (cluster.to_owned(), node.to_owned());
            let (disk, generation, format) = (rand::random(), 0, FORMAT);
            let fresh =
                Identity { cluster, node, disk, member: None, generation, format, refused: None };
            save(&path, &fresh)?;
            fresh
        };
        for (what, ours, theirs) in
            [("cluster", cluster, &identity.cluster), ("node", node, &identity.node)]
        {
            if ours != theirs {
                let what = format!(
                    "the directory belongs to {what} {theirs:?}, this is {what} {ours:?}: give it its own directory"
                );
                return Err(DiskError::Foreign { path: directory.to_owned(), what });
            }
        }
        if identity.format != FORMAT {
            let what = format!(
                "it was written in format {}, and this program reads format {FORMAT}: use the program that wrote it, \
                 or begin with an empty directory",
                identity.format
            );
            return Err(DiskError::Foreign { path: directory.to_owned(), what });
        }
        if let Some(what) = identity.refused {
            return Err(DiskError::Foreign { path: directory.to_owned(), what });
        }
        Ok(Self { directory: directory.to_owned(), identity, _lock: lock })
    }

    /// What the directory says of itself.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes down the number that the group gave to this disk.
    pub fn become_member(&mut self, member: u64) -> Result<(), DiskError> {
        self.change(Identity { member: Some(member), ..self.identity.clone() })
    }

    /// Begins a new life of the directory and returns its number. Nothing may be said to others before.
    pub fn begin_life(&mut self) -> Result<u64, DiskError> {
        let generation = self.identity.generation + 1;
        self.change(Identity { generation, ..self.identity.clone() })?;
        Ok(generation)
    }

    /// Writes down that the group has refused the directory. Its later lives would be numbered past the one that the
    /// group knows, and so could not be told from those of the true one.
    pub fn refuse(&mut self, why: String) -> Result<(), DiskError> {
        self.change(Identity { refused: Some(why), ..self.identity.clone() })
    }

    fn change(&mut self, identity: Identity) -> Result<(), DiskError> {
        let path = self.directory.join("identity");
        let mut saved = save(&path, &identity);
        if matches!(saved, Err(DiskError::Full { .. })) {
            // A member must be able to start on a full disk: this is what the log's reserve is for.
            let reserve = self.directory.join("log").join(journal::RESERVE);
            if reserve.exists() {
                std::fs::remove_file(&reserve).map_err(DiskError::io("remove", &reserve))?;
                saved = save(&path, &identity);
            }
        }
        saved?;
        self.identity = identity;
        Ok(())
    }
}

fn save(path: &Path, identity: &Identity) -> Result<(), DiskError> {
    let text = serde_json::to_vec(identity)
        .map_err(|error| DiskError::io("encode", path)(error.into()))?;
    sealed::write(path, KIND, &text)
}

fn decode(path: &Path, bytes: &[u8]) -> Result<Identity, DiskError> {
    let corrupt = |_| DiskError::Corrupt {
        path: path.to_owned(),
        offset: 0,
        what: "it does not say whose it is",
    };
    serde_json::from_slice(bytes).map_err(corrupt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_its_identity_and_refuses_others() {
        let root = tempfile::tempdir().unwrap();
        let mut first = Claimed::claim(root.path(), "c", "n1").unwrap();
        first.become_member(3).unwrap();
        assert_eq!((first.begin_life().unwrap(), first.begin_life().unwrap()), (1, 2));
        let identity = first.identity().clone();
        let busy = Claimed::claim(root.path(), "c", "n1").unwrap_err().to_string();
        assert!(busy.contains("another process"), "{busy}");
        drop(first);
        assert_eq!(Claimed::claim(root.path(), "c", "n1").unwrap().identity(), &identity);
        for (cluster, node) in [("d", "n1"), ("c", "n2")] {
            assert!(matches!(
                Claimed::claim(root.path(), cluster, node),
                Err(DiskError::Foreign { .. })
            ));
        }
    }
}
