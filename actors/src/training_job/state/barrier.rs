//! A step that trainers compute together: who has which of its parts. What follows from it is decided in `together`.

use crate::training::data_plan;
use impresario_client::protocol::training::{Batch, Held, Order};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// The step that is being computed.
#[derive(Debug)]
pub(super) struct Barrier {
    pub(super) batch: Batch,
    pub(super) of: u32,
    /// Parts that nobody has.
    pub(super) todo: BTreeSet<u32>,
    /// Who has which, by pod.
    pub(super) given: BTreeMap<String, Given>,
    /// Of those, who computes what another was given: the other.
    pub(super) backups: BTreeMap<String, String>,
}

#[derive(Debug)]
pub(super) struct Given {
    pub(super) parts: BTreeSet<u32>,
    pub(super) since: Instant,
    /// Every shard has told it that it has them.
    pub(super) pushed: bool,
}

impl Barrier {
    pub(super) fn new(batch: Batch, wanted: u32) -> Self {
        let of = data_plan::parts_of(&batch, wanted);
        let (given, backups) = (BTreeMap::new(), BTreeMap::new());
        Self { batch, of, todo: (0..of).collect(), given, backups }
    }

    pub(super) fn give(&mut self, uid: &str, parts: BTreeSet<u32>, now: Instant) -> Order {
        let fresh = || Given { parts: BTreeSet::new(), since: now, pushed: false };
        let given = self.given.entry(uid.to_owned()).or_insert_with(fresh);
        (given.since, given.pushed) = (now, false);
        given.parts.extend(&parts);
        Order::Parts { batch: self.batch, parts: parts.into_iter().collect(), of: self.of }
    }

    /// This trainer has these parts in hand, and no others.
    pub(super) fn holds(&mut self, uid: &str, held: &Held, now: Instant) {
        let parts: BTreeSet<u32> =
            held.parts.iter().copied().filter(|part| *part < self.of).collect();
        let before = self.given.get(uid);
        let since = before.map_or(now, |given| given.since);
        if before.is_none_or(|given| given.parts != parts) {
            self.release(uid);
        }
        if parts.is_empty() {
            return;
        }
        self.todo.retain(|part| !parts.contains(part));
        let given = Given { parts, since, pushed: held.everywhere };
        self.given.insert(uid.to_owned(), given);
    }

    /// This trainer does not do its parts, or not any more.
    pub(super) fn release(&mut self, uid: &str) {
        self.backups.retain(|backup, of| backup != uid && of != uid);
        let Some(released) = self.given.remove(uid) else { return };
        let is_had = |part: &u32| self.given.values().any(|one| one.parts.contains(part));
        self.todo.extend(released.parts.into_iter().filter(|part| !is_had(part)));
    }

    /// Whose parts one with nothing to do computes as well: of those who have not pushed theirs everywhere yet who has
    /// had them longest, and each before any has two that do. `may` is told whether it is a backup itself.
    pub(super) fn unfinished(
        &self,
        uid: &str,
        may: impl Fn(&Given, bool) -> bool,
    ) -> Option<String> {
        let own = self.given.get(uid).map(|given| &given.parts);
        let doubled = |other: &str| self.backups.values().filter(|of| *of == other).count();
        let others = self.given.iter().filter(|(other, given)| {
            let is_backup = self.backups.contains_key(*other);
            let is_had = own.is_some_and(|own| own.is_superset(&given.parts));
            *other != uid && !is_had && !given.pushed && may(given, is_backup)
        });
        let next = others.min_by_key(|(other, given)| (doubled(other), given.since));
        next.map(|(other, _)| other.clone())
    }
}
