//! What a checkpoint says of itself: `manifest.json`, which names every file with its hash.

use super::tensors::{sha256, unreadable};
use impresario_client::protocol::training::{
    Applied, Checkpoint, CheckpointError, ModelFacts, OptimizerKind, SavedShard, ShardRange,
};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// The file's name.
pub const MANIFEST: &str = "manifest.json";
/// What this program writes and reads.
const FORMAT: &str = "impresario.dev/checkpoint/v1";
/// The longest manifest that is read.
const MOST_BYTES: u64 = 64 << 20;

/// A checkpoint's manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Names the format.
    pub format: String,
    /// The job as people call it.
    pub job: String,
    /// The job.
    pub uid: String,
    /// When it was completed, in seconds since 1970.
    pub unix_seconds: i64,
    /// Steps that are in every shard.
    pub step: u64,
    /// How gradients were applied. What the rule remembers is with each shard.
    pub optimizer: OptimizerKind,
    /// How far the data had been gone through.
    pub data: Data,
    /// The parameters in their order: name and length.
    pub blocks: Vec<(String, u64)>,
    /// The shards, by number.
    pub shards: Vec<Shard>,
}

/// Where in the data plan a checkpoint is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// Samples in one epoch.
    pub samples: u64,
    /// Samples in one batch.
    pub batch: u64,
    /// Decides each epoch's order.
    pub seed: u64,
    /// Steps that are in every shard.
    pub done: Applied,
}

/// One shard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shard {
    /// Which one.
    pub shard: u32,
    /// Its first parameter.
    pub start: u64,
    /// How many it has.
    pub length: u64,
    /// Gradients in it.
    pub step: u64,
    /// Of which steps.
    pub applied: Applied,
    /// Steps since the optimizer's memory was empty.
    pub memory_steps: u64,
    /// Its file.
    pub file: String,
    /// How long that is.
    pub bytes: u64,
    /// And its SHA-256.
    pub sha256: String,
}

impl Shard {
    /// Its part of the parameters.
    pub fn range(&self) -> ShardRange {
        ShardRange { shard: self.shard, start: self.start, length: self.length }
    }
}

/// The file of a shard.
pub fn file_of(shard: u32) -> String {
    format!("shard-{shard:05}.safetensors")
}

impl Manifest {
    /// The manifest of these shards, which are all of the model's.
    pub fn new(
        job: &str,
        uid: &str,
        unix_seconds: i64,
        model: &ModelFacts,
        saved: &[SavedShard],
    ) -> Self {
        let mut shards: Vec<Shard> = saved
            .iter()
            .map(|one| Shard {
                shard: one.range.shard,
                start: one.range.start,
                length: one.range.length,
                step: one.version,
                applied: one.applied.clone(),
                memory_steps: one.memory_steps,
                file: file_of(one.range.shard),
                bytes: one.bytes,
                sha256: one.sha256.clone(),
            })
            .collect();
        shards.sort_by_key(|shard| shard.shard);
        let applied = saved.iter().map(|one| one.applied.clone());
        let done = applied.reduce(|done, one| done.both(&one)).unwrap_or_default();
        Self {
            format: FORMAT.to_owned(),
            job: job.to_owned(),
            uid: uid.to_owned(),
            unix_seconds,
            step: done.count(),
            optimizer: model.optimizer,
            data: Data { samples: model.samples, batch: model.batch, seed: model.seed, done },
            blocks: model.blocks.clone(),
            shards,
        }
    }

    /// Reads the manifest of the checkpoint in this folder, and its SHA-256.
    pub fn read(folder: &Path) -> Result<(Self, String), CheckpointError> {
        let path = folder.join(MANIFEST);
        let unusable =
            |cause: String| CheckpointError::Unusable { path: path.display().to_string(), cause };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(unusable("there is no such file: it was never completed".to_owned()));
            }
            Err(error) => return Err(unreadable(&path)(error)),
        };
        let mut text = Vec::new();
        file.take(MOST_BYTES + 1).read_to_end(&mut text).map_err(unreadable(&path))?;
        if text.len() as u64 > MOST_BYTES {
            return Err(unusable(format!("it has more than {MOST_BYTES} bytes")));
        }
        let manifest: Self =
            serde_json::from_slice(&text).map_err(|error| unusable(error.to_string()))?;
        manifest.check().map_err(unusable)?;
        Ok((manifest, sha256(&text)))
    }

    /// As it is written. One that would not be read again is not written either.
    pub(super) fn to_text(&self) -> Result<Vec<u8>, String> {
        self.within(MOST_BYTES)
    }

    fn within(&self, most: u64) -> Result<Vec<u8>, String> {
        let text = serde_json::to_vec(self).map_err(|error| error.to_string())?;
        if text.len() as u64 > most {
            return Err(format!("it would have {} bytes of at most {most}", text.len()));
        }
        Ok(text)
    }

    /// Whether it is whole in itself.
    fn check(&self) -> Result<(), String> {
        if self.format != FORMAT {
            return Err(format!("its format is {:?}, not {FORMAT:?}", self.format));
        }
        let mut end = 0;
        for (number, shard) in self.shards.iter().enumerate() {
            let follows = shard.shard as usize == number && shard.start == end && shard.length > 0;
            if !follows || shard.file != file_of(shard.shard) {
                return Err(format!("its shard {number} does not follow the one before"));
            }
            end = end.checked_add(shard.length).ok_or("its shards have no end")?;
        }
        let total = self.blocks.iter().try_fold(0_u64, |sum, (_, length)| sum.checked_add(*length));
        if total != Some(end) || self.shards.is_empty() {
            return Err(format!("its shards have {end} parameters, its blocks others"));
        }
        Ok(())
    }

    /// Why a job that trains this cannot go on from here, if it cannot.
    pub fn misfit(&self, model: &ModelFacts, ranges: &[ShardRange]) -> Option<&'static str> {
        use std::mem::discriminant;
        let data = (self.data.samples, self.data.batch, self.data.seed);
        [
            (self.blocks == model.blocks, "its parameters are those of another model"),
            (
                data == (model.samples, model.batch, model.seed),
                "it was trained on other data, in other batches or with another seed",
            ),
            (
                discriminant(&self.optimizer) == discriminant(&model.optimizer),
                "its optimizer is another",
            ),
            (
                self.shards.iter().map(Shard::range).eq(ranges.iter().copied()),
                "its parameters are cut otherwise",
            ),
        ]
        .into_iter()
        .find_map(|(fits, why)| (!fits).then_some(why))
    }

    /// What is told of the checkpoint in this folder.
    pub fn checkpoint(&self, folder: &Path, sha256: String) -> Checkpoint {
        Checkpoint {
            path: folder.display().to_string(),
            step: self.step,
            done: self.data.done.clone(),
            sha256,
            bytes: self.shards.iter().map(|shard| shard.bytes).sum(),
            unix_seconds: self.unix_seconds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_that_would_not_be_read_again_is_not_written() {
        let optimizer = OptimizerKind::Momentum { rate: 0.1, decay: 0.0, momentum: 0.0 };
        let (blocks, samples, batch, seed) = (vec![("w".into(), 1)], 8, 8, 1);
        let model = ModelFacts { blocks, samples, batch, optimizer, seed };
        let mut applied = Applied::default();
        for step in 0..100 {
            applied.insert(2 * step + 1);
        }
        let range = ShardRange { shard: 0, start: 0, length: 1 };
        let (sha256, memory_steps, version, bytes) = ("0f".repeat(32), 0, 0, 9);
        let saved = SavedShard { range, version, applied, memory_steps, bytes, sha256 };
        let manifest = Manifest::new("ns/j", "u", 0, &model, &[saved]);
        let text = manifest.to_text().unwrap();
        let length = text.len() as u64;
        assert!(!text.contains(&b'\n'), "a line for each step is long");
        assert!(manifest.within(length).is_ok());
        assert!(manifest.within(length - 1).unwrap_err().contains("bytes"));
    }
}
