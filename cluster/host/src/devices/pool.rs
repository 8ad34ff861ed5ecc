//! Which pod has which GPUs.
//!
//! Who has which is on disk before anybody is told, so that a restarted node neither takes a GPU
//! from a pod that still computes on it nor gives it to a second one. A GPU that is lost stays with
//! its pod until the pod gives it back; it is not given again before it is healthy.

use crate::process::record;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};
use thiserror::Error;

use super::{Gpu, GpuHealth};

/// Why a pod gets no GPUs.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GpuPoolError {
    /// Fewer are free than are asked for.
    #[error(
        "{asked} GPUs are asked for and {free} are free: the pod waits for those of other pods; \
         `kubectl describe node` shows who has them"
    )]
    Short {
        /// How many the pod asks for.
        asked: usize,
        /// How many nobody has.
        free: usize,
    },
    /// The record on disk failed.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

/// Gives GPUs to pods and remembers it.
#[derive(Debug)]
pub struct GpuPool {
    /// Where it is written down who has which; a pool of none has none.
    folder: Option<PathBuf>,
    /// Those that may be given, in the driver's order: neighbours are likely to be linked.
    healthy: Vec<String>,
    given: Given,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Given {
    owners: BTreeMap<String, Vec<String>>,
}

const FILE: &str = "gpus.json";

impl GpuPool {
    /// The pool of these GPUs, with what the file in `folder` says is given away.
    pub fn open(folder: &Path, gpus: &[Gpu]) -> Result<Self, GpuPoolError> {
        let failed = |cause| GpuPoolError::Io { path: folder.join(FILE), cause };
        std::fs::create_dir_all(folder).map_err(failed)?;
        let found: Option<Given> = record::read(folder, FILE).map_err(failed)?;
        let healthy = gpus.iter().filter(|gpu| gpu.health == GpuHealth::Healthy);
        let healthy = healthy.map(|gpu| gpu.uuid.clone()).collect();
        Ok(Self { folder: Some(folder.to_owned()), healthy, given: found.unwrap_or_default() })
    }

    /// The pool of a node that has none, and writes nothing down.
    pub fn none() -> Self {
        Self { folder: None, healthy: Vec::new(), given: Given::default() }
    }

    /// What the driver says of them now: those that changed, with what is wrong where something is.
    pub fn seen(&mut self, gpus: &[Gpu]) -> Vec<(String, Option<String>)> {
        let mut changed = Vec::new();
        let mut healthy = Vec::new();
        for gpu in gpus {
            let was_healthy = self.healthy.contains(&gpu.uuid);
            match &gpu.health {
                GpuHealth::Healthy => {
                    if !was_healthy {
                        changed.push((gpu.uuid.clone(), None));
                    }
                    healthy.push(gpu.uuid.clone());
                }
                GpuHealth::Unhealthy(why) if was_healthy => {
                    changed.push((gpu.uuid.clone(), Some(why.clone())));
                }
                GpuHealth::Unhealthy(_) => {}
            }
        }
        // One that does not say any more who it is.
        let silent = |uuid: &&String| gpus.iter().all(|gpu| gpu.uuid != **uuid);
        for uuid in self.healthy.iter().filter(silent) {
            changed.push((uuid.clone(), Some("the driver does not know it any more".to_owned())));
        }
        self.healthy = healthy;
        changed
    }

    /// How many may be given to pods, or have been.
    pub fn healthy(&self) -> usize {
        self.healthy.len()
    }

    /// The owner's GPUs by UUID, always in the same order: those that it has, or free ones.
    pub fn give(&mut self, owner: &str, count: usize) -> Result<Vec<String>, GpuPoolError> {
        if let Some(has) = self.given.owners.get(owner)
            && has.len() >= count
        {
            return Ok(has.clone());
        }
        let taken: BTreeSet<&String> = self.given.owners.values().flatten().collect();
        let free: Vec<_> = self.healthy.iter().filter(|uuid| !taken.contains(uuid)).collect();
        let mut own = self.given.owners.get(owner).cloned().unwrap_or_default();
        let missing = count - own.len();
        if free.len() < missing {
            return Err(GpuPoolError::Short { asked: count, free: free.len() + own.len() });
        }
        own.extend(free.into_iter().take(missing).cloned());
        let mut given = self.given.clone();
        given.owners.insert(owner.to_owned(), own.clone());
        self.keep(given)?;
        Ok(own)
    }

    /// Takes an owner's GPUs back.
    pub fn take_back(&mut self, owner: &str) -> Result<(), GpuPoolError> {
        self.retain(|other| other != owner)
    }

    /// Takes back the GPUs of all owners that are gone.
    pub fn retain(&mut self, is_there: impl Fn(&str) -> bool) -> Result<(), GpuPoolError> {
        let mut given = self.given.clone();
        given.owners.retain(|owner, _| is_there(owner));
        if given.owners.len() == self.given.owners.len() {
            return Ok(());
        }
        self.keep(given)
    }

    /// Who has which.
    pub fn owners(&self) -> &BTreeMap<String, Vec<String>> {
        &self.given.owners
    }

    /// Only what is on disk counts, where there is one.
    fn keep(&mut self, given: Given) -> Result<(), GpuPoolError> {
        if let Some(folder) = &self.folder {
            record::keep(folder, FILE, &given)
                .map_err(|cause| GpuPoolError::Io { path: folder.join(FILE), cause })?;
        }
        self.given = given;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn gpu(index: u32, health: GpuHealth) -> Gpu {
        Gpu {
            index,
            uuid: format!("GPU-{index}"),
            name: String::new(),
            memory_bytes: 0,
            memory_used_bytes: 0,
            utilization_percent: 0,
            health,
        }
    }

    fn healthy(count: u32) -> Vec<Gpu> {
        (0..count).map(|index| gpu(index, GpuHealth::Healthy)).collect()
    }

    #[test]
    fn a_pod_keeps_its_gpus_over_a_restart_and_nobody_else_gets_them() {
        let folder = tempfile::tempdir().unwrap();
        let mut pool = GpuPool::open(folder.path(), &healthy(3)).unwrap();
        assert_eq!(pool.give("a", 2).unwrap(), ["GPU-0", "GPU-1"]);
        let mut pool = GpuPool::open(folder.path(), &healthy(3)).unwrap();
        let refused = pool.give("b", 2).unwrap_err();
        assert!(matches!(refused, GpuPoolError::Short { asked: 2, free: 1 }), "{refused}");
        assert_eq!(pool.give("a", 2).unwrap(), ["GPU-0", "GPU-1"]);
        pool.take_back("a").unwrap();
        assert_eq!(pool.give("b", 3).unwrap(), ["GPU-0", "GPU-1", "GPU-2"]);
        pool.retain(|owner| owner != "b").unwrap();
        assert!(pool.owners().is_empty());
    }

    #[test]
    fn a_lost_gpu_is_given_to_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let gpus = [gpu(0, GpuHealth::Unhealthy("lost".into())), gpu(1, GpuHealth::Healthy)];
        let mut pool = GpuPool::open(folder.path(), &gpus).unwrap();
        assert_eq!(pool.give("a", 1).unwrap(), ["GPU-1"]);
        assert!(pool.give("b", 1).is_err());
    }

    #[test]
    fn a_gpu_that_is_lost_stays_with_its_pod_and_is_given_again_when_it_is_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut pool = GpuPool::open(folder.path(), &healthy(3)).unwrap();
        assert_eq!(pool.give("a", 1).unwrap(), ["GPU-0"]);
        assert!(pool.seen(&healthy(3)).is_empty());
        let lost = |index| gpu(index, GpuHealth::Unhealthy("hot".into()));
        let changed = pool.seen(&[lost(0), lost(1)]);
        let why = |index: u32, why: &str| (format!("GPU-{index}"), Some(why.to_owned()));
        let gone = why(2, "the driver does not know it any more");
        assert_eq!(changed, [why(0, "hot"), why(1, "hot"), gone]);
        assert_eq!(pool.give("a", 1).unwrap(), ["GPU-0"]);
        assert!(pool.give("b", 1).is_err());
        assert_eq!(pool.seen(&healthy(2)), [("GPU-0".into(), None), ("GPU-1".into(), None)]);
        assert_eq!(pool.give("b", 1).unwrap(), ["GPU-1"]);
    }

    proptest! {
        #[test]
        fn no_gpu_has_two_owners(
            steps in proptest::collection::vec((0..6u8, 0..4usize, proptest::bool::ANY), 0..40)
        ) {
            let folder = tempfile::tempdir().unwrap();
            let mut pool = GpuPool::open(folder.path(), &healthy(5)).unwrap();
            for (owner, count, back) in steps {
                if back {
                    pool.take_back(&owner.to_string()).unwrap();
                } else {
                    drop(pool.give(&owner.to_string(), count));
                }
                let all: Vec<_> = pool.owners().values().flatten().collect();
                let distinct: BTreeSet<_> = all.iter().collect();
                prop_assert_eq!(all.len(), distinct.len());
            }
        }
    }
}
