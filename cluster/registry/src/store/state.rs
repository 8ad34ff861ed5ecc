//! The state as a value that can be written to a snapshot and taken back.

use super::{Change, Record, RingLimits, Store, clients::Clients, ring::Ring};
use crate::{
    key::{Key, Revision},
    shard::ShardTable,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How much of the recent past a snapshot carries, so that watches outlive a restart.
const PAST_BYTES: usize = 4 * 1024 * 1024;

/// Everything that a member needs to go on from a revision. Members at the same revision have equal images,
/// the past aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    revision: Revision,
    objects: Vec<(Key, Record)>,
    shards: ShardTable,
    clients: Clients,
    floor: Revision,
    past: Vec<(Revision, Vec<Change>)>,
}

impl Image {
    /// The revision at which it was taken.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The same without the past, for comparing members.
    #[must_use]
    pub fn without_past(self) -> Self {
        Self { floor: self.revision, past: Vec::new(), ..self }
    }
}

impl Store {
    /// Takes an image; values are shared, not copied.
    pub fn image(&self) -> Image {
        let (floor, past) = self.ring.tail(PAST_BYTES);
        Image {
            revision: self.revision,
            objects: self
                .objects
                .iter()
                .map(|(key, record)| (key.clone(), record.clone()))
                .collect(),
            shards: self.shards.clone(),
            clients: self.clients.clone(),
            floor,
            past: past.into_iter().map(|batch| (*batch).clone()).collect(),
        }
    }

    /// The store that an image was taken of.
    pub fn restore(image: Image, limits: RingLimits) -> Self {
        let past = image.past.into_iter().map(Arc::new).collect();
        Self {
            revision: image.revision,
            objects: image.objects.into_iter().collect(),
            shards: image.shards,
            clients: image.clients,
            ring: Ring::restore(limits, image.floor, past),
        }
    }

    /// Becomes what an image was taken of, with the limits it has.
    pub fn replace(&mut self, image: Image) {
        *self = Self::restore(image, self.ring.limits());
    }
}
