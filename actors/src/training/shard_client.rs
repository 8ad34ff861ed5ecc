//! A trainer's view of the parameters: pulls them together, pushes gradients apart.
//!
//! A shard that has moved says where it went; a parameter server that cannot be reached is looked
//! for in the job's newest map. A push is sent again until every shard has acknowledged it, which
//! does no harm: a shard applies each step once.

use super::link::Link;
use futures_util::future::join_all;
use impresario_client::protocol::training::{
    Applied, CurrentMap, ParameterServerRole, Place, Pull, Pulled, Push, Pushed, ShardMap,
};
use impresario_runtime::{AskError, Backoff};
use parking_lot::Mutex;
use rand::Rng as _;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use thiserror::Error;

/// How long a parameter server may take for one request.
const ANSWER: Duration = Duration::from_secs(5);
/// How long a shard is looked for before the work is handed back.
const PATIENCE: Duration = Duration::from_secs(30);
/// A shard that moves is back within milliseconds.
const BACKOFF: Backoff =
    Backoff { first: Duration::from_millis(2), most: Duration::from_millis(500) };

/// A copy of all parameters.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The values.
    pub values: Vec<f32>,
    /// For each shard the gradients in it: how many, and which.
    pub shards: BTreeMap<u32, (u64, Applied)>,
}

impl Snapshot {
    /// The fewest gradients that are in any part of it.
    pub fn version(&self) -> u64 {
        self.shards.values().map(|(version, _)| *version).min().unwrap_or(0)
    }
}

/// Why parameters could not be pulled or a gradient not be pushed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ShardError {
    /// This activation of the job does not know us.
    #[error("the job's actor was started anew: join again")]
    Rejoin,
    /// Some shards could not be found.
    #[error("{shards} shards could not be reached within {waited:?}: hand the work back")]
    Lost {
        /// How many.
        shards: usize,
        /// How long they were looked for.
        waited: Duration,
    },
    /// The job's actor did not answer.
    #[error("the job cannot be asked where its shards are: {0}")]
    Job(AskError),
    /// Gradient and shard have different lengths.
    #[error("a gradient does not fit shard {shard}: give all members one image")]
    Misfit {
        /// Which shard.
        shard: u32,
    },
}

/// Where the parameters are.
pub struct ShardClient {
    link: Link,
    map: Mutex<ShardMap>,
}

impl ShardClient {
    /// Knows nothing yet.
    pub fn new(link: Link) -> Self {
        Self { link, map: Mutex::default() }
    }

    /// The epoch of the map that it goes by.
    pub fn epoch(&self) -> u64 {
        self.map.lock().epoch
    }

    /// Goes by this map if it is newer.
    pub fn learn(&self, map: ShardMap) {
        for place in &map.places {
            self.link.node().addresses().set(place.path.node.clone(), place.address);
        }
        let mut known = self.map.lock();
        if map.epoch > known.epoch || known.shards.is_empty() {
            *known = map;
        }
    }

    /// Forgets the map: another activation of the job may count epochs differently.
    pub fn forget(&self) {
        *self.map.lock() = ShardMap::default();
    }

    fn moved(&self, shard: u32, to: Place) {
        self.link.node().addresses().set(to.path.node.clone(), to.address);
        if let Some(place) = self.map.lock().places.get_mut(shard as usize) {
            *place = to;
        }
    }

    /// The shards by the place where they are believed to be.
    fn by_place(&self, shards: &BTreeSet<u32>) -> Vec<(Place, Vec<u32>)> {
        let map = self.map.lock();
        let mut groups: Vec<(Place, Vec<u32>)> = Vec::new();
        for shard in shards {
            let Some(place) = map.places.get(*shard as usize) else { continue };
            match groups.iter_mut().find(|(other, _)| other == place) {
                Some((_, group)) => group.push(*shard),
                None => groups.push((place.clone(), vec![*shard])),
            }
        }
        groups
    }

    async fn look_up(&self) -> Result<(), ShardError> {
        let activation = self.link.activation();
        let answer = self.link.ask(PATIENCE, || CurrentMap { activation }).await;
        let map = answer.map_err(ShardError::Job)?.map_err(|_| ShardError::Rejoin)?;
        let mut known = self.map.lock();
        if map.epoch >= known.epoch {
            for place in &map.places {
                self.link.node().addresses().set(place.path.node.clone(), place.address);
            }
            *known = map;
        }
        Ok(())
    }

    fn all(&self) -> BTreeSet<u32> {
        self.map.lock().shards.iter().map(|range| range.shard).collect()
    }

    /// Waits before the shards that are left are tried again.
    async fn pause(
        &self,
        attempt: &mut u32,
        since: tokio::time::Instant,
        left: usize,
    ) -> Result<(), ShardError> {
        let waited = since.elapsed();
        if waited > PATIENCE {
            return Err(ShardError::Lost { shards: left, waited });
        }
        tokio::time::sleep(BACKOFF.wait(*attempt, rand::rng().random_range(0.0..1.0))).await;
        *attempt += 1;
        if attempt.is_multiple_of(3) { self.look_up().await } else { Ok(()) }
    }

    /// All parameters, or their running mean.
    pub async fn pull(&self, averaged: bool) -> Result<Snapshot, ShardError> {
        let since = tokio::time::Instant::now();
        let mut attempt = 0;
        if self.map.lock().shards.is_empty() {
            self.look_up().await?;
        }
        let ranges = self.map.lock().shards.clone();
        let length = ranges.last().map_or(0, |last| last.start + last.length) as usize;
        let mut snapshot = Snapshot { values: vec![0.0; length], shards: BTreeMap::new() };
        let mut left = self.all();
        while !left.is_empty() {
            let asks = self.by_place(&left).into_iter().map(|(place, shards)| {
                let server = self.link.node().actor::<ParameterServerRole>(place.path);
                server.ask(Pull { shards, averaged }, ANSWER)
            });
            let mut learned = false;
            for pulled in join_all(asks).await.into_iter().flatten().flatten() {
                match pulled {
                    Pulled::Values { shard, version, applied, values } => {
                        let Some(range) = ranges.get(shard as usize) else { continue };
                        let (start, end) =
                            (range.start as usize, (range.start + range.length) as usize);
                        if values.len() != end - start {
                            return Err(ShardError::Misfit { shard });
                        }
                        snapshot.values[start..end].copy_from_slice(&values);
                        snapshot.shards.insert(shard, (version, applied));
                        left.remove(&shard);
                    }
                    Pulled::Elsewhere { shard, to: Some((_, to)) } => {
                        self.moved(shard, to);
                        learned = true;
                    }
                    Pulled::Elsewhere { to: None, .. } => {}
                }
            }
            // What has just been learned is tried at once, but only once.
            if left.is_empty() || (learned && attempt == 0) {
                attempt += 1;
            } else {
                self.pause(&mut attempt, since, left.len()).await?;
            }
        }
        Ok(snapshot)
    }

    /// Has a gradient applied by every shard.
    pub async fn push(&self, step: u64, gradient: &[f32]) -> Result<(), ShardError> {
        let since = tokio::time::Instant::now();
        let ranges = self.map.lock().shards.clone();
        let mut attempt = 0;
        let mut left = self.all();
        while !left.is_empty() {
            let asks = self.by_place(&left).into_iter().map(|(place, shards)| {
                let part = |shard: u32| {
                    let range = ranges.get(shard as usize)?;
                    let part = gradient
                        .get(range.start as usize..(range.start + range.length) as usize)?;
                    Some((shard, part.to_vec()))
                };
                let gradients = shards.into_iter().filter_map(part).collect();
                let server = self.link.node().actor::<ParameterServerRole>(place.path);
                server.ask(Push { step, gradients }, ANSWER)
            });
            let mut learned = false;
            for (shard, pushed) in join_all(asks).await.into_iter().flatten().flatten() {
                match pushed {
                    Pushed::Applied { .. } | Pushed::Already { .. } => {
                        left.remove(&shard);
                    }
                    Pushed::Moved { to: Some((_, to)) } => {
                        self.moved(shard, to);
                        learned = true;
                    }
                    Pushed::Moving | Pushed::Moved { to: None } => {}
                    Pushed::Misfit { .. } => return Err(ShardError::Misfit { shard }),
                }
            }
            // What has just been learned is tried at once, but only once.
            if left.is_empty() || (learned && attempt == 0) {
                attempt += 1;
            } else {
                self.pause(&mut attempt, since, left.len()).await?;
            }
        }
        Ok(())
    }
}
