//! The state as a value that can be written to a snapshot and taken back.

use super::{
    Change, Record, RingLimits, Store,
    clients::{Clients, Saved},
    members::Members,
    ring::Ring,
};
use crate::{
    key::{Key, Revision},
    shard::ShardTable,
};
use imbl::OrdMap;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How much of the recent past a snapshot carries, so that watches outlive a restart.
const PAST_BYTES: usize = 4 * 1024 * 1024;

/// Objects in key order.
type Objects = OrdMap<Key, Record>;
/// Changes, oldest first.
type Past = Vec<(Revision, Vec<Change>)>;

/// What a snapshot holds beside the objects and the past.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rest {
    revision: Revision,
    shards: ShardTable,
    clients: Saved,
    members: Members,
    floor: Revision,
}

/// Everything that a member needs to go on from a revision. Members at the same revision have equal images,
/// the past aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    rest: Rest,
    objects: Objects,
    past: Past,
}

impl Image {
    /// The revision at which it was taken.
    pub fn revision(&self) -> Revision {
        self.rest.revision
    }

    /// The same without the past, for comparing members.
    #[must_use]
    pub fn without_past(self) -> Self {
        let rest = Rest { floor: self.rest.revision, ..self.rest };
        Self { rest, past: Vec::new(), ..self }
    }

    /// Its three parts, for writing them one after the other.
    pub(crate) fn parts(&self) -> (&Rest, &Objects, &Past) {
        (&self.rest, &self.objects, &self.past)
    }

    /// An image of its three parts.
    pub(crate) fn join(rest: Rest, objects: Objects, past: Past) -> Self {
        Self { rest, objects, past }
    }
}

impl Store {
    /// Takes an image. However many objects there are, none is copied.
    pub fn image(&self) -> Image {
        let (floor, past) = self.ring.tail(PAST_BYTES);
        Image {
            rest: Rest {
                revision: self.revision,
                shards: self.shards.clone(),
                clients: self.clients.saved(),
                members: self.members.clone(),
                floor,
            },
            objects: self.objects.clone(),
            past: past.into_iter().map(|batch| (*batch).clone()).collect(),
        }
    }

    /// The store that an image was taken of.
    pub fn restore(image: Image, limits: RingLimits) -> Self {
        let Image { rest, objects, past } = image;
        let bytes = objects.iter().map(|(key, record)| record.bytes(key)).sum();
        Self {
            revision: rest.revision,
            bytes,
            objects,
            shards: rest.shards,
            clients: Clients::restore(rest.clients),
            members: rest.members,
            ring: Ring::restore(limits, rest.floor, past.into_iter().map(Arc::new).collect()),
        }
    }

    /// How much of the past it keeps.
    pub(crate) fn limits(&self) -> RingLimits {
        self.ring.limits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Transaction;

    #[test]
    fn an_image_copies_no_object_and_stays_as_it_was() {
        let mut store = Store::default();
        let key = |n: usize| Key::new("pods", "d", n.to_string());
        for n in 0..1000 {
            store.transact(&Transaction::create(key(n), "{}")).unwrap();
        }
        let image = store.image();
        assert!(image.objects.ptr_eq(&store.objects));
        store.transact(&Transaction::create(key(1000), "{}")).unwrap();
        assert_eq!((image.objects.len(), store.len()), (1000, 1001));
    }
}
