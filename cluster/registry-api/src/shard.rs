//! Shards: which control member keeps which objects, and by which epoch it may write.
//!
//! [`assign`] decides without IO: shards of members that are gone go to those that are left, and no more of the
//! others move than balance asks for. The state machine raises a shard's epoch on each change of owner.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// How many shards there are. A constant of the format: changing it moves every object.
pub const SHARDS: u8 = 64;

/// The number of a shard, below [`SHARDS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Shard(pub u8);

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How often a shard has changed hands; only the newest may write.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The shard of an object. FNV-1a over the uid, the same on every machine and in every version.
pub fn shard_of(uid: &str) -> Shard {
    let hash = uid.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    Shard(((hash ^ (hash >> 32)) % u64::from(SHARDS)) as u8)
}

/// Who holds a shard.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardLease {
    /// The name of the control member, or nobody.
    pub owner: Option<String>,
    /// The epoch of this ownership.
    pub epoch: Epoch,
}

/// All shards and who holds them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardTable {
    /// [`SHARDS`] leases; the index is the shard.
    pub shards: Vec<ShardLease>,
}

impl Default for ShardTable {
    fn default() -> Self {
        Self { shards: vec![ShardLease::default(); usize::from(SHARDS)] }
    }
}

impl ShardTable {
    /// The lease of a shard, or none for a number that is no shard.
    pub fn lease(&self, shard: Shard) -> Option<&ShardLease> {
        self.shards.get(usize::from(shard.0))
    }

    /// The shards that a member holds, and their epochs.
    pub fn held_by<'a>(&'a self, member: &'a str) -> impl Iterator<Item = (Shard, Epoch)> + 'a {
        let numbered = (0..SHARDS).map(Shard).zip(&self.shards);
        numbered
            .filter(move |(_, lease)| lease.owner.as_deref() == Some(member))
            .map(|(shard, lease)| (shard, lease.epoch))
    }

    /// Gives shards away. A move that was decided on an older epoch is skipped. True if anything changed.
    pub fn apply(&mut self, moves: &[ShardMove]) -> bool {
        let mut changed = false;
        for step in moves {
            let Some(lease) = self.shards.get_mut(usize::from(step.shard.0)) else { continue };
            if lease.epoch == step.seen && lease.owner != step.to {
                *lease = ShardLease { owner: step.to.clone(), epoch: Epoch(lease.epoch.0 + 1) };
                changed = true;
            }
        }
        changed
    }
}

/// One shard that changes hands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardMove {
    /// The shard.
    pub shard: Shard,
    /// The epoch that the decision was made on.
    pub seen: Epoch,
    /// Its next owner.
    pub to: Option<String>,
}

/// The moves after which every shard is held by a live member and no member holds two more than another.
/// Nothing moves when nobody lives: shards without a keeper are worth no epoch.
pub fn assign(table: &ShardTable, live: &[String]) -> Vec<ShardMove> {
    let mut held: BTreeMap<&str, Vec<Shard>> =
        live.iter().map(|member| (member.as_str(), Vec::new())).collect();
    let mut free = Vec::new();
    for (shard, lease) in (0..SHARDS).map(Shard).zip(&table.shards) {
        match lease.owner.as_deref().and_then(|owner| held.get_mut(owner)) {
            Some(shards) => shards.push(shard),
            None => free.push(shard),
        }
    }
    if held.is_empty() {
        return Vec::new();
    }
    // What everyone may keep: the share rounded up for as many members as there is remainder, fullest first.
    let (share, remainder) = (usize::from(SHARDS) / held.len(), usize::from(SHARDS) % held.len());
    let mut members: Vec<_> = held.into_iter().collect();
    members.sort_by_key(|(name, shards)| (std::cmp::Reverse(shards.len()), *name));
    let quota = |place: usize| share + usize::from(place < remainder);
    for (place, (_, shards)) in members.iter_mut().enumerate() {
        free.extend(shards.drain(quota(place).min(shards.len())..));
    }
    free.sort_unstable();
    let mut free = free.into_iter();
    let mut moves = Vec::new();
    for (place, (name, shards)) in members.iter().enumerate() {
        for shard in free.by_ref().take(quota(place).saturating_sub(shards.len())) {
            let seen = table.lease(shard).map_or_else(Epoch::default, |lease| lease.epoch);
            moves.push(ShardMove { shard, seen, to: Some((*name).to_owned()) });
        }
    }
    moves
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(set: &[u8]) -> Vec<String> {
        set.iter().map(|n| format!("m{n}")).collect()
    }

    #[test]
    fn a_uid_stays_on_its_shard_for_ever() {
        assert_eq!(
            shard_of("1f0c7f5e-0000-4000-8000-000000000000"),
            shard_of("1f0c7f5e-0000-4000-8000-000000000000")
        );
        assert_eq!(shard_of(""), Shard(1));
        assert!(
            (0..1000)
                .map(|n| shard_of(&format!("uid-{n}")))
                .collect::<std::collections::BTreeSet<_>>()
                .len()
                == 64
        );
    }

    #[test]
    fn the_shards_of_a_lost_member_move_and_the_others_stay() {
        let mut table = ShardTable::default();
        table.apply(&assign(&table, &names(&[1, 2, 3])));
        let before = table.clone();
        table.apply(&assign(&table, &names(&[1, 3])));
        for (old, new) in before.shards.iter().zip(&table.shards) {
            if old.owner.as_deref() == Some("m2") {
                assert_eq!(new.epoch.0, old.epoch.0 + 1);
            } else {
                assert_eq!(old, new);
            }
        }
    }

    #[test]
    fn a_move_decided_on_an_old_epoch_changes_nothing() {
        let mut table = ShardTable::default();
        let late = assign(&table, &names(&[1]));
        table.apply(&assign(&table, &names(&[2])));
        let before = table.clone();
        assert!(!table.apply(&late));
        assert_eq!(before, table);
    }

    proptest! {
        #[test]
        fn after_any_changes_all_shards_are_held_evenly_and_nothing_is_left_to_do(
            steps in prop::collection::vec(prop::collection::btree_set(0_u8..6, 1..6), 1..8)
        ) {
            let mut table = ShardTable::default();
            for live in steps {
                let live = names(&live.into_iter().collect::<Vec<_>>());
                table.apply(&assign(&table, &live));
                let counts: Vec<usize> = live.iter().map(|member| table.held_by(member).count()).collect();
                prop_assert_eq!(counts.iter().sum::<usize>(), 64);
                prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
                prop_assert!(assign(&table, &live).is_empty());
            }
        }
    }
}
