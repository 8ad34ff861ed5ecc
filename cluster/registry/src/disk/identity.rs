//! Whose directory this is: the cluster, the member's number in it, and a random id of the disk.
//!
//! The disk id is part of the raft membership, and so is the generation: which life of the directory this is, drawn
//! at each start before anybody hears of it, and kept with those before. A directory that was emptied has no id; one
//! that was copied or restored has not had a life that the group knows of. So neither can vote twice under one number.

use super::{DiskError, durable, journal, sealed};
use crate::Life;
use impresario_runtime::random;
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
    /// Which life of the directory this is.
    #[serde(default)]
    pub generation: Life,
    /// The last lives, oldest first, with this one.
    #[serde(default)]
    pub lives: Vec<Life>,
    /// The format of the log and the snapshots.
    #[serde(default)]
    pub format: u32,
    /// Why the group has refused the directory for good: a copy, or one restored from an older state.
    #[serde(default)]
    pub refused: Option<String>,
    /// Whether a start was refused as a copy's by fewer members than it takes to refuse it for good.
    #[serde(default)]
    pub doubted: bool,
}

/// The format that this program writes and reads. Directories from before it was counted have 0.
const FORMAT: u32 = 1;
/// So many lives are remembered. The group knows of one that is not long past, or of none of those since.
const LIVES: usize = 256;
/// How many of a directory that was doubted. Starts that are refused are lives too: they must not push out those from
/// which the others see that it is a copy.
const LIVES_DOUBTED: usize = 4 * LIVES;

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
            let (disk, generation, format) = (random::random(), Life::default(), FORMAT);
            let (member, lives, refused, doubted) = (None, Vec::new(), None, false);
            let fresh = Identity {
                cluster,
                node,
                disk,
                member,
                generation,
                lives,
                format,
                refused,
                doubted,
            };
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

    /// Begins a new life of the directory and returns it. Nothing may be said to others before.
    pub fn begin_life(&mut self) -> Result<Life, DiskError> {
        let generation = self.identity.generation.next();
        let mut lives = self.identity.lives.clone();
        if lives.is_empty() && self.identity.generation != Life::default() {
            lives.push(self.identity.generation); // one from before they were remembered
        }
        lives.push(generation);
        let most = if self.identity.doubted { LIVES_DOUBTED } else { LIVES };
        lives.drain(..lives.len().saturating_sub(most));
        self.change(Identity { generation, lives, ..self.identity.clone() })?;
        Ok(generation)
    }

    /// Writes down that the group has refused the directory, so that it is not asked again.
    pub fn refuse(&mut self, why: String) -> Result<(), DiskError> {
        self.change(Identity { refused: Some(why), ..self.identity.clone() })
    }

    /// Writes down that somebody has taken the directory for a copy. After hundreds of starts that is believed.
    pub fn doubt(&mut self, why: &str) -> Result<(), DiskError> {
        let refused = (self.identity.lives.len() >= LIVES_DOUBTED).then(|| why.to_owned());
        self.change(Identity { doubted: true, refused, ..self.identity.clone() })
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
    fn a_directory_that_is_taken_for_a_copy_is_none_the_less_one_after_hundreds_of_starts() {
        let root = tempfile::tempdir().unwrap();
        let common = Claimed::claim(root.path(), "c", "n1").unwrap().begin_life().unwrap();
        // What the original became after the copy was made.
        let known = common.next();
        let mut starts = 0;
        let refused = loop {
            let mut claim = match Claimed::claim(root.path(), "c", "n1") {
                Ok(claim) => claim,
                Err(refused) => break refused.to_string(),
            };
            claim.begin_life().unwrap();
            assert!(
                !impresario_registry_api::life::goes_on(&claim.identity().lives, known),
                "after {starts} starts"
            );
            claim.doubt("the group knows a later life").unwrap();
            starts += 1;
            assert!(starts <= 2 * LIVES_DOUBTED);
        };
        assert!(refused.contains("a later life"), "{refused}");
    }

    #[test]
    fn a_directory_keeps_its_identity_and_refuses_others() {
        let root = tempfile::tempdir().unwrap();
        let mut first = Claimed::claim(root.path(), "c", "n1").unwrap();
        first.become_member(3).unwrap();
        let lives = [first.begin_life().unwrap(), first.begin_life().unwrap()];
        assert_eq!(lives.map(Life::number), [1, 2]);
        let identity = first.identity().clone();
        assert_eq!(identity.lives, lives);
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
