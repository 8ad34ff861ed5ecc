//! A trainer's view of the parameters: pulls them together, pushes gradients apart.
//!
//! A shard that has moved says where it went; a parameter server that cannot be reached is looked
//! for in the job's newest map. A push is sent again until every shard has acknowledged it, which
//! does no harm: a shard applies each step once.

mod steps;

use super::link::Link;
use futures_util::future::join_all;
use impresario_client::protocol::training::{
    Applied, CurrentMap, ParameterServerRole, Place, Pull, PullAt, Pulled, Push, Pushed, ShardMap,
};
use impresario_runtime::{AskError, Backoff, random};
use parking_lot::Mutex;
use rand::Rng as _;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use thiserror::Error;

/// How long a parameter server may take for one request.
const ANSWER: Duration = Duration::from_secs(5);
/// How long a shard is looked for before the work is handed back: a server is replaced meanwhile, or the
/// control plane comes back.
const PATIENCE: Duration = Duration::from_mins(15);
/// And by a trainer that is told to leave.
const LEAVING_PATIENCE: Duration = Duration::from_secs(10);
/// How long the job is asked at a time.
const JOB_PATIENCE: Duration = Duration::from_secs(10);
/// A shard that moves is back within milliseconds.
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(2), most: Duration::from_secs(2) };
/// So many values are asked for, or sent, in one message: 4 MiB.
const MESSAGE_VALUES: u64 = 1 << 20;

/// A copy of all parameters.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The values.
    pub values: Vec<f32>,
    /// For each shard the gradients in it: how many, and which.
    pub shards: BTreeMap<u32, (u64, Applied)>,
}

impl Snapshot {
    /// Whether every shard of it has applied this step.
    pub fn has(&self, step: u64) -> bool {
        self.shards.values().all(|(_, applied)| applied.contains(step))
    }

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
    #[error("{shards} shards could not be reached within {waited:?} ({cause}): hand the work back")]
    Lost {
        /// How many.
        shards: usize,
        /// How long they were looked for.
        waited: Duration,
        /// What went wrong last.
        cause: String,
    },
    /// The step that was to be computed has been applied everywhere meanwhile.
    #[error("step {step} has been applied by others: ask for the next")]
    Past {
        /// The step.
        step: u64,
    },
    /// Gradient and shard have different lengths.
    #[error("a gradient does not fit shard {shard}: give all members one image")]
    Misfit {
        /// Which shard.
        shard: u32,
    },
}

/// Which values are pulled.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    /// Those of now, or their running mean.
    Newest { averaged: bool },
    /// Those with every step below this one, and not this one.
    At(u64),
}

/// Where the parameters are.
pub struct ShardClient {
    link: Link,
    pod_uid: String,
    map: Mutex<ShardMap>,
    leaving: Arc<AtomicBool>,
}

/// A request that is tried until it has come everywhere.
struct Search {
    since: tokio::time::Instant,
    attempt: u32,
    learned: bool,
    cause: String,
}

impl Search {
    fn new() -> Self {
        let cause = "no server is known to have them".to_owned();
        Self { since: tokio::time::Instant::now(), attempt: 0, learned: false, cause }
    }

    /// The answers; what went wrong with the others is remembered, and told in the end.
    fn answers<T>(&mut self, answers: Vec<Result<Vec<T>, AskError>>) -> Vec<T> {
        let mut all = Vec::new();
        for answer in answers {
            match answer {
                Ok(some) => all.extend(some),
                Err(error) => {
                    tracing::debug!(%error, "a parameter server does not answer");
                    self.cause = error.to_string();
                }
            }
        }
        all
    }
}

impl ShardClient {
    /// Knows nothing yet. What is asked for longer than a moment is given up when `leaving`.
    pub fn new(link: Link, pod_uid: &str, leaving: Arc<AtomicBool>) -> Self {
        Self { link, pod_uid: pod_uid.to_owned(), map: Mutex::default(), leaving }
    }

    /// The epoch of the map that it goes by.
    pub fn epoch(&self) -> u64 {
        self.map.lock().epoch
    }

    /// Goes by this map if it is newer.
    pub fn learn(&self, map: ShardMap) {
        let mut known = self.map.lock();
        if map.epoch > known.epoch || known.shards.is_empty() {
            self.adopt(&mut known, map);
        }
    }

    /// The shards stay what they are even where nobody knows their places: what is to be pushed to all of them
    /// must not find that there are none.
    fn adopt(&self, known: &mut ShardMap, map: ShardMap) {
        if map.shards.is_empty() {
            (known.epoch, known.places) = (map.epoch, Vec::new());
            return;
        }
        for place in map.places.iter().filter(|place| place.is_parameter_server()) {
            self.link.node().addresses().set(place.path.node.clone(), place.address);
        }
        *known = map;
    }

    /// Forgets where shards are: another activation of the job says it anew.
    pub fn forget(&self) {
        let mut known = self.map.lock();
        (known.epoch, known.places) = (0, Vec::new());
    }

    fn moved(&self, shard: u32, to: Place) {
        // A server may say where a shard is, not where anybody else is.
        if !to.is_parameter_server() {
            return;
        }
        self.link.node().addresses().set(to.path.node.clone(), to.address);
        if let Some(place) = self.map.lock().places.get_mut(shard as usize) {
            *place = to;
        }
    }

    /// The shards by the place where they are believed to be, in pieces that a message can carry.
    fn by_place(&self, shards: &BTreeSet<u32>) -> Vec<(Place, Vec<u32>)> {
        let map = self.map.lock();
        let mut groups: Vec<(Place, Vec<u32>, u64)> = Vec::new();
        for shard in shards {
            let index = *shard as usize;
            let (Some(place), Some(range)) = (map.places.get(index), map.shards.get(index)) else {
                continue;
            };
            let open = groups.iter_mut().rev().find(|(other, ..)| other == place);
            match open.filter(|(.., values)| values + range.length <= MESSAGE_VALUES) {
                Some((_, group, values)) => {
                    group.push(*shard);
                    *values += range.length;
                }
                None => groups.push((place.clone(), vec![*shard], range.length)),
            }
        }
        groups.into_iter().map(|(place, group, _)| (place, group)).collect()
    }

    async fn look_up(&self) -> Result<(), ShardError> {
        let activation = self.link.activation();
        let ask = || CurrentMap { activation, pod_uid: self.pod_uid.clone() };
        let map = match self.link.ask(JOB_PATIENCE, ask).await {
            Ok(map) => map.map_err(|_| ShardError::Rejoin)?,
            Err(error) => {
                // While the control plane is away the servers may well be where they were.
                tracing::debug!(%error, "the job cannot be asked where its shards are");
                return Ok(());
            }
        };
        let mut known = self.map.lock();
        if map.epoch >= known.epoch {
            self.adopt(&mut known, map);
        }
        Ok(())
    }

    fn all(&self) -> BTreeSet<u32> {
        self.map.lock().shards.iter().map(|range| range.shard).collect()
    }

    /// Waits before the shards that are left are tried again.
    async fn pause(&self, search: &mut Search, left: usize) -> Result<(), ShardError> {
        // What has just been learned is tried at once, but only once.
        if left == 0 || (std::mem::take(&mut search.learned) && search.attempt == 0) {
            search.attempt += 1;
            return Ok(());
        }
        let waited = search.since.elapsed();
        let leaving = self.leaving.load(Ordering::Acquire);
        if waited > if leaving { LEAVING_PATIENCE } else { PATIENCE } {
            let cause = search.cause.clone();
            return Err(ShardError::Lost { shards: left, waited, cause });
        }
        let wait = BACKOFF.wait(search.attempt, random::rng().random_range(0.0..1.0));
        tokio::time::sleep(wait).await;
        search.attempt += 1;
        if search.attempt.is_multiple_of(3) { self.look_up().await } else { Ok(()) }
    }

    /// All parameters, or their running mean.
    pub async fn pull(&self, averaged: bool) -> Result<Snapshot, ShardError> {
        self.pull_wanted(Wanted::Newest { averaged }).await
    }

    /// All parameters as everybody has them who computes a part of this step; with it where every shard has applied
    /// it.
    pub async fn pull_at(&self, step: u64) -> Result<Snapshot, ShardError> {
        self.pull_wanted(Wanted::At(step)).await
    }

    async fn pull_wanted(&self, wanted: Wanted) -> Result<Snapshot, ShardError> {
        let mut search = Search::new();
        if self.map.lock().shards.is_empty() {
            self.look_up().await?;
        }
        let ranges = self.map.lock().shards.clone();
        if ranges.is_empty() {
            return Err(ShardError::Rejoin);
        }
        let length = ranges.last().map_or(0, |last| last.start + last.length) as usize;
        let mut snapshot = Snapshot { values: vec![0.0; length], shards: BTreeMap::new() };
        let mut left = self.all();
        while !left.is_empty() {
            let asks = self.by_place(&left).into_iter().map(|(place, shards)| {
                let server = self.link.node().actor::<ParameterServerRole>(place.path);
                async move {
                    match wanted {
                        Wanted::Newest { averaged } => {
                            server.ask(Pull { shards, averaged }, ANSWER).await
                        }
                        Wanted::At(step) => server.ask(PullAt { step, shards }, ANSWER).await,
                    }
                }
            });
            for pulled in search.answers(join_all(asks).await) {
                match pulled {
                    Pulled::Values { shard, version, applied, values } => {
                        let Some(range) = ranges.get(shard as usize) else { continue };
                        let (start, end) =
                            (range.start as usize, (range.start + range.length) as usize);
                        if values.len() != end - start {
                            return Err(ShardError::Misfit { shard });
                        }
                        // One that came anew lacks steps until the job has settled them.
                        let lacks = |step: u64| applied.first_missing() < step;
                        if matches!(wanted, Wanted::At(step) if lacks(step)) {
                            continue;
                        }
                        snapshot.values[start..end].copy_from_slice(&values);
                        snapshot.shards.insert(shard, (version, applied));
                        left.remove(&shard);
                    }
                    Pulled::Elsewhere { shard, to: Some((_, to)) } => {
                        self.moved(shard, to);
                        search.learned = true;
                    }
                    Pulled::Elsewhere { to: None, .. } => {}
                }
            }
            self.pause(&mut search, left.len()).await?;
        }
        Ok(snapshot)
    }

    /// Has a gradient applied by every shard.
    pub async fn push(&self, step: u64, gradient: &[f32]) -> Result<(), ShardError> {
        let mut search = Search::new();
        let ranges = self.map.lock().shards.clone();
        let length = ranges.last().map_or(0, |last| last.start + last.length);
        if length == 0 || gradient.len() as u64 != length {
            return Err(ShardError::Misfit { shard: 0 });
        }
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
            for (shard, pushed) in search.answers(join_all(asks).await) {
                match pushed {
                    Pushed::Applied { .. } | Pushed::Already { .. } => {
                        left.remove(&shard);
                    }
                    Pushed::Moved { to: Some((_, to)) } => {
                        self.moved(shard, to);
                        search.learned = true;
                    }
                    Pushed::Moving | Pushed::Moved { to: None } => {}
                    Pushed::Misfit { .. } => return Err(ShardError::Misfit { shard }),
                }
            }
            self.pause(&mut search, left.len()).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
