//! What a node last heard of certificates that are trusted no more, in its folder: it begins with it.
//!
//! The list is replaced whole, and is on the disk before another is begun. One that cannot be read keeps the node from
//! starting: without it everybody would be trusted again.

use crate::layout::{LayoutError, NodeDir, replace};
use impresario_gateway::{Fingerprint, fingerprint};
use impresario_runtime::Backoff;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;

/// How long a file of it may be: that of a config map, whose keys they are, is shorter.
const LONGEST: u64 = 4 << 20;
/// Pauses after a write that failed.
const PAUSES: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_mins(1) };

/// Where the list lies.
#[derive(Debug, Clone)]
pub struct Kept(PathBuf);

impl Kept {
    /// The list of a node.
    pub fn of(dir: &NodeDir) -> Self {
        Self(dir.revoked())
    }

    /// What it says; nothing where there never was one.
    pub fn load(&self) -> Result<HashSet<Fingerprint>, LayoutError> {
        let io = |source| LayoutError::Io { path: self.0.clone(), source };
        let file = match File::open(&self.0) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(HashSet::new()),
            Err(error) => return Err(io(error)),
        };
        let mut text = Vec::new();
        file.take(LONGEST + 1).read_to_end(&mut text).map_err(io)?;
        let refused =
            |reason: &str| LayoutError::Revoked { path: self.0.clone(), reason: reason.to_owned() };
        if text.len() as u64 > LONGEST {
            return Err(refused("it is longer than any that is written"));
        }
        let prints: Vec<String> =
            serde_json::from_slice(&text).map_err(|error| refused(&error.to_string()))?;
        let read = |print: &String| {
            fingerprint(print).ok_or_else(|| refused("one of it is no SHA-256 fingerprint"))
        };
        prints.iter().map(read).collect()
    }

    fn save(&self, prints: &HashSet<Fingerprint>) -> Result<(), LayoutError> {
        let io = |source| LayoutError::Io { path: self.0.clone(), source };
        let mut prints: Vec<String> = prints.iter().map(|print| in_hex(print)).collect();
        prints.sort();
        let text = serde_json::to_vec_pretty(&prints).map_err(|error| io(error.into()))?;
        replace(&self.0, &text)?;
        // The name too is to be there after a power cut.
        let folder = self.0.parent().map(File::open);
        folder.map_or(Ok(()), |folder| folder.and_then(|folder| folder.sync_all())).map_err(io)
    }

    /// Writes down what is told, if it is not what lies there, until the sender is dropped.
    pub fn keep(self, there: HashSet<Fingerprint>) -> watch::Sender<HashSet<Fingerprint>> {
        let (tell, mut told) = watch::channel(there);
        tokio::spawn(async move {
            while told.changed().await.is_ok() {
                let mut attempt = 0;
                loop {
                    // What was told meanwhile is written instead.
                    let newest = told.borrow_and_update().clone();
                    let Err(error) = self.write(newest).await else { break };
                    tracing::warn!(%error, "which certificates are revoked is not written down yet");
                    tokio::time::sleep(PAUSES.wait(attempt, rand::random())).await;
                    attempt += 1;
                    if told.has_changed().is_err() {
                        return;
                    }
                }
            }
        });
        tell
    }

    async fn write(&self, prints: HashSet<Fingerprint>) -> Result<(), LayoutError> {
        let (kept, path) = (self.clone(), self.0.clone());
        let written = tokio::task::spawn_blocking(move || kept.save(&prints)).await;
        // It is a plain write, which ends before the process does.
        written.unwrap_or_else(|error| Err(LayoutError::Io { path, source: error.into() }))
    }
}

/// As the runtime writes fingerprints.
pub fn in_hex(print: &[u8]) -> String {
    print.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(folder: &tempfile::TempDir) -> Kept {
        Kept::of(&NodeDir::new(folder.path().to_owned()))
    }

    #[test]
    fn a_list_is_read_as_it_was_written_and_is_empty_where_there_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let kept = list(&folder);
        assert_eq!(kept.load().unwrap(), HashSet::new());
        for prints in [HashSet::from([[1; 32], [2; 32]]), HashSet::from([[2; 32]]), HashSet::new()]
        {
            kept.save(&prints).unwrap();
            assert_eq!(kept.load().unwrap(), prints);
        }
    }

    #[test]
    fn a_list_that_cannot_be_read_is_not_taken_for_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let kept = list(&folder);
        kept.save(&HashSet::from([[7; 32]])).unwrap();
        let whole = std::fs::read(&kept.0).unwrap();
        let endless = vec![b' '; LONGEST as usize + 1];
        for damaged in [&whole[..whole.len() - 1], b"", b"[\"ab\"]", &endless[..]] {
            std::fs::write(&kept.0, damaged).unwrap();
            let refused = kept.load().unwrap_err();
            assert!(matches!(refused, LayoutError::Revoked { .. }), "{refused}");
        }
    }
}
