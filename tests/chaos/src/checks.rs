//! What was promised, checked against what was seen. Each check is a plain function.

use crate::agreement::{Agreement, Stand};
use crate::effects::Effects;
use crate::ghosts::Haunted;
use crate::healed::{Healed, Replicas, Served};
use crate::history::{History, LedgerEntry, Operation, Outcome};
use crate::linear;
use crate::observer::Seen;
use crate::watching::Watched;
use serde::Serialize;
use std::collections::BTreeMap;

macro_rules! promises {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal by $check:expr;)+) => {
        /// A promise that is checked.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Promise {
            $($(#[doc = $doc])+ $name),+
        }

        impl Promise {
            /// All promises, in the order of a report.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The name in reports.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text),+
                }
            }

            /// What speaks for it, or what is wrong.
            fn judge(self, evidence: &Evidence) -> Result<String, String> {
                match self {
                    $(Self::$name => $check(evidence)),+
                }
            }
        }
    };
}

promises! {
    /// No acknowledged write is lost.
    NoLostWrite = "no_lost_write" by |of: &Evidence| lost_write(&of.history);
    /// The history of the registry is linearizable.
    Linearizable = "linearizable" by |of: &Evidence| linearizable(&of.history);
    /// Watches are ordered and whole, and go on where they broke.
    WatchWhole = "watch_whole" by |of: &Evidence| watched(&of.watched);
    /// Only the newest activation of a shard changes anything.
    OneWriter = "one_writer" by |of: &Evidence| one_writer(&of.haunted);
    /// All members have the same state at the same revision.
    MembersAgree = "members_agree" by |of: &Evidence| members_agree(&of.agreement);
    /// Every replication controller is back at N.
    ReplicasRestored = "replicas_restored" by |of: &Evidence| replicas(&of.healed);
    /// A service leads to exactly the pods that are ready, by its Endpoints and its slices.
    EndpointsExact = "endpoints_exact" by |of: &Evidence| endpoints(&of.healed);
    /// The job completed, each completion was counted once and each pod of it ran once.
    JobExact = "job_exact" by job;
    /// No pod was bound to two nodes.
    BoundOnce = "bound_once" by |of: &Evidence| bound_once(&of.seen);
    /// No node was over-committed in any resource.
    NotOvercommitted = "not_overcommitted" by |of: &Evidence| overcommitted(&of.seen);
    /// Nodes hold nothing for pods that are gone.
    RoomReturned = "room_returned" by |of: &Evidence| room_returned(&of.agreement);
    /// Containers run on, whatever happens to their keepers.
    ContainersKept = "containers_kept" by containers_kept;
}

/// The verdict on one promise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// Whether it was kept.
    pub passed: bool,
    /// What was looked at, or what is wrong.
    pub detail: String,
}

/// Everything that was seen in a run.
#[derive(Debug, Default)]
pub struct Evidence {
    /// What clients did and were told.
    pub history: History,
    /// What pods and nodes showed.
    pub seen: Seen,
    /// How the cluster stood in the end.
    pub healed: Healed,
    /// How many completions the job promises.
    pub completions: i64,
    /// What watchers were told.
    pub watched: Watched,
    /// What became of writes by activations that were over.
    pub haunted: Haunted,
    /// Members and nodes, asked in the end.
    pub agreement: Agreement,
    /// What the containers of the job left behind.
    pub worked: Effects,
    /// What the containers of replication controllers left behind.
    pub served: Effects,
}

/// Everything that was seen, judged.
#[must_use]
pub fn judge(evidence: &Evidence) -> Vec<Check> {
    let of = |promise: &Promise| {
        let (passed, detail) = match promise.judge(evidence) {
            Ok(detail) => (true, detail),
            Err(detail) => (false, detail),
        };
        Check { name: promise.name(), passed, detail }
    };
    Promise::ALL.iter().map(of).collect()
}

/// Every entry of the ledger whose write was acknowledged is there, none whose write was said to
/// have failed, and no write was told that somebody else had written its entry.
fn lost_write(history: &History) -> Result<String, String> {
    if let Some(reason) = &history.unreadable {
        return Err(format!("what was written cannot be read: {reason}"));
    }
    let kept: BTreeMap<u64, u64> = history.ledger_in_the_end.iter().copied().collect();
    let (mut acknowledged, mut unknown) = (0, 0);
    for LedgerEntry { number, outcome } in &history.ledger {
        match (outcome, kept.get(number)) {
            (Outcome::Ok, Some(value)) if value == number => acknowledged += 1,
            (Outcome::Ok, found) => {
                return Err(format!(
                    "the write of ledger entry {number} was acknowledged, but in the end it holds {found:?}"
                ));
            }
            (Outcome::Failed, Some(_)) => {
                return Err(format!(
                    "the write of ledger entry {number} was said not to be done, but it is there"
                ));
            }
            (Outcome::Refused, _) => {
                return Err(format!(
                    "ledger entry {number} was there before it was written: one write was done twice"
                ));
            }
            (Outcome::Failed, None) => {}
            (Outcome::Unknown, _) => unknown += 1,
        }
    }
    if acknowledged == 0 {
        return Err("no write was ever acknowledged".into());
    }
    Ok(format!("{acknowledged} acknowledged writes, {unknown} of unknown outcome"))
}

fn linearizable(history: &History) -> Result<String, String> {
    let history: &[Operation] = &history.registers;
    if !history.iter().any(|op| op.outcome == Outcome::Ok) {
        return Err("no operation was ever answered".into());
    }
    match linear::check(history) {
        Ok(()) => {
            let unknown = history.iter().filter(|op| op.outcome == Outcome::Unknown).count();
            Ok(format!("{} operations, {unknown} of unknown outcome", history.len()))
        }
        Err(error) => Err(error.to_string()),
    }
}

fn replicas(healed: &Healed) -> Result<String, String> {
    let told: Vec<String> = healed
        .controllers
        .iter()
        .map(|replicas| {
            let Replicas { name, wanted, present, ready, said } = replicas;
            format!("{name}: {ready} of {wanted} run, {present} are there, {said} said to be ready")
        })
        .collect();
    let said = format!("{}; {:.1} s after healing", told.join("; "), healed.took.as_secs_f64());
    let restored = healed.controllers.iter().all(Replicas::is_restored);
    if restored && !healed.controllers.is_empty() { Ok(said) } else { Err(said) }
}

fn endpoints(healed: &Healed) -> Result<String, String> {
    let Served { ready, endpoints, slices } = &healed.service;
    if healed.service.is_exact() {
        return Ok(format!("{} pods", ready.len()));
    }
    Err(format!("ready are {ready:?}, Endpoints say {endpoints:?}, slices say {slices:?}"))
}

fn job(evidence: &Evidence) -> Result<String, String> {
    let Evidence { seen, healed, completions, worked, .. } = evidence;
    let Healed { succeeded, complete, .. } = healed;
    let ran = i64::try_from(seen.succeeded.len()).unwrap_or(i64::MAX);
    let late = seen.late.len();
    let said = format!(
        "{succeeded} of {completions} counted, {ran} pods seen to succeed, {late} more after their \
         deletion was counted, {} did their work, complete: {complete}",
        worked.ended.len()
    );
    if let Some((uid, times)) = worked.repeated() {
        return Err(format!("pod {uid} ran {times} times; {said}"));
    }
    if let Some(uid) = seen.succeeded.iter().find(|uid| !worked.ended.contains_key(*uid)) {
        return Err(format!("pod {uid} succeeded without having done its work; {said}"));
    }
    // A success that came and went while the observer was cut off was not seen, so fewer are fine.
    if ran > *completions {
        return Err(format!("more pods succeeded than were to: a success was not counted; {said}"));
    }
    // What a pod did after its deletion was counted is no success, and makes no room for one counted twice.
    let counted = worked.ended.keys().filter(|uid| !seen.late.contains(*uid)).count();
    if i64::try_from(counted).unwrap_or(i64::MAX) < *succeeded || succeeded > completions {
        return Err(format!("more successes were counted than there were; {said}"));
    }
    if succeeded != completions || !*complete {
        return Err(format!("it is not done; {said}"));
    }
    Ok(said)
}

fn watched(watched: &Watched) -> Result<String, String> {
    if let Some(fault) = watched.faults.first() {
        return Err(format!("{fault} ({} faults)", watched.faults.len()));
    }
    if watched.batches == 0 {
        return Err("no watcher was ever told anything".into());
    }
    let Watched { batches, resumed, gone, .. } = watched;
    if *gone > 0 && *resumed == 0 {
        return Err(format!("no watch that broke went on: each of {gone} was told to begin anew"));
    }
    Ok(format!(
        "{batches} revisions told, {resumed} watches went on elsewhere, {gone} began anew with a list"
    ))
}

fn one_writer(haunted: &Haunted) -> Result<String, String> {
    if let Some(reason) = &haunted.unread {
        return Err(format!("what was accepted cannot be read in the end: {reason}"));
    }
    for (shard, accepted) in &haunted.accepted {
        let mut newest = 1;
        for (revision, epoch) in accepted {
            if *epoch < newest {
                return Err(format!(
                    "a write in epoch {epoch} of shard {shard} was accepted at {revision}, after one of {newest}"
                ));
            }
            newest = *epoch;
        }
    }
    if haunted.refused == 0 {
        return Err("no write of an epoch that was over was ever refused".into());
    }
    let accepted: usize = haunted.accepted.values().map(BTreeMap::len).sum();
    Ok(format!(
        "{accepted} writes accepted, {} of older epochs refused, {} moves seen",
        haunted.refused, haunted.moved
    ))
}

fn members_agree(agreement: &Agreement) -> Result<String, String> {
    let mut stands: Vec<(&str, &Stand)> = Vec::new();
    for (name, stand) in &agreement.members {
        let stand =
            stand.as_ref().map_err(|reason| format!("{name} has no state to show: {reason}"))?;
        stands.push((name, stand));
    }
    let Some(((first, stand), others)) = stands.split_first() else {
        return Err("no member was asked".into());
    };
    for (name, other) in others {
        if let Some((resource, _)) =
            stand.hashes.iter().find(|(resource, hash)| other.hashes.get(*resource) != Some(hash))
        {
            return Err(format!(
                "{first} and {name} differ in {resource} at revision {}",
                agreement.revision
            ));
        }
    }
    if stand.entries == 0 {
        return Err("members agree on nothing at all".into());
    }
    Ok(format!(
        "{} members, {} entries at revision {}",
        stands.len(),
        stand.entries,
        agreement.revision
    ))
}

fn room_returned(agreement: &Agreement) -> Result<String, String> {
    let wrong = agreement.books.iter().find_map(|(node, wrong)| Some((node, wrong.as_ref()?)));
    match wrong {
        Some((node, wrong)) => Err(format!("{node}: {wrong}")),
        None if agreement.books.is_empty() => Err("no node was asked".into()),
        None => Ok(format!("{} nodes", agreement.books.len())),
    }
}

fn containers_kept(evidence: &Evidence) -> Result<String, String> {
    let Evidence { seen, served, .. } = evidence;
    if let Some(restarted) = seen.restarted.first() {
        return Err(format!("a container began anew: {restarted}"));
    }
    if let Some((uid, times)) = served.repeated() {
        return Err(format!("a container began anew: that of pod {uid} was started {times} times"));
    }
    if seen.containers.is_empty() || served.begun.is_empty() {
        return Err("no container was ever seen to run".into());
    }
    Ok(format!("{} containers, {} starts", seen.containers.len(), served.begun.len()))
}

fn bound_once(seen: &Seen) -> Result<String, String> {
    match seen.bound.iter().find(|(_, nodes)| nodes.len() > 1) {
        Some((uid, nodes)) => Err(format!("pod {uid} was bound to {nodes:?}")),
        None => Ok(format!("{} pods", seen.bound.len())),
    }
}

/// Numerator and denominator of the share of a resource that makes a node full: portions are rounded down.
const FULL: (i128, i128) = (9, 10);

fn overcommitted(seen: &Seen) -> Result<String, String> {
    for (node, carried) in &seen.carried {
        let Some(limits) = seen.allocatable.get(node) else {
            return Err(format!("{node} carried {carried:?} and was never seen itself"));
        };
        for (resource, (amount, since)) in carried {
            let limit = limits.get(resource).copied().unwrap_or(0);
            if *amount > limit {
                return Err(format!(
                    "{node} carried {amount} of {limit} thousandths of {resource} since {since}"
                ));
            }
        }
    }
    let full = seen.carried.iter().filter(|(node, carried)| {
        let limit = |resource| seen.allocatable.get(*node).and_then(|limits| limits.get(resource));
        carried.iter().any(|(resource, (amount, _))| {
            limit(resource).is_some_and(|limit| amount * FULL.1 >= limit * FULL.0)
        })
    });
    match full.count() {
        0 => Err("no node was ever full: nobody could have been over-committed".into()),
        full => Ok(format!("{} nodes, {full} of them full at times", seen.carried.len())),
    }
}

#[cfg(test)]
mod tests;
