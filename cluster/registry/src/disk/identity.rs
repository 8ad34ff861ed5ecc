//! Whose directory this is: the cluster, the member's number in it, and a random id of the disk.
//!
//! The disk id is part of the raft membership. A directory that was emptied has no id and one that was copied
//! is caught by the lock of its original or by the membership, so neither can vote twice under one number.

use super::{DiskError, durable, sealed};
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
}

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
            let fresh = Identity { cluster, node, disk: rand::random(), member: None };
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
        let identity = Identity { member: Some(member), ..self.identity.clone() };
        save(&self.directory.join("identity"), &identity)?;
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
