//! What was promised, checked against what was seen. Each check is a plain function.

use crate::healed::{Healed, Replicas};
use crate::history::{History, LedgerEntry, Operation, Outcome};
use crate::linear;
use crate::observer::Seen;
use serde::Serialize;
use std::collections::BTreeMap;

/// A promise that is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Promise {
    /// No acknowledged write is lost.
    NoLostWrite,
    /// The history of the registry is linearizable.
    Linearizable,
    /// Every replication controller is back at N.
    ReplicasRestored,
    /// The job completed, and each completion was counted once.
    JobExact,
    /// No pod was bound to two nodes.
    BoundOnce,
    /// No node was over-committed.
    NotOvercommitted,
}

impl Promise {
    /// All promises, in the order of a report.
    pub const ALL: [Self; 6] = [
        Self::NoLostWrite,
        Self::Linearizable,
        Self::ReplicasRestored,
        Self::JobExact,
        Self::BoundOnce,
        Self::NotOvercommitted,
    ];

    /// The name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NoLostWrite => "no_lost_write",
            Self::Linearizable => "linearizable",
            Self::ReplicasRestored => "replicas_restored",
            Self::JobExact => "job_exact",
            Self::BoundOnce => "bound_once",
            Self::NotOvercommitted => "not_overcommitted",
        }
    }
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

/// Everything that was seen, judged.
#[must_use]
pub fn judge(history: &History, seen: &Seen, healed: &Healed, completions: i64) -> Vec<Check> {
    Promise::ALL
        .into_iter()
        .map(|promise| {
            let verdict = match promise {
                Promise::NoLostWrite => lost_write(history),
                Promise::Linearizable => linearizable(&history.registers),
                Promise::ReplicasRestored => replicas(healed),
                Promise::JobExact => job(seen, healed, completions),
                Promise::BoundOnce => bound_once(seen),
                Promise::NotOvercommitted => overcommitted(seen),
            };
            let (passed, detail) = match verdict {
                Ok(detail) => (true, detail),
                Err(detail) => (false, detail),
            };
            Check { name: promise.name(), passed, detail }
        })
        .collect()
}

/// Every entry of the ledger whose write was acknowledged is there, none whose write was said to
/// have failed, and no write was told that somebody else had written its entry.
fn lost_write(history: &History) -> Result<String, String> {
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

fn linearizable(history: &[Operation]) -> Result<String, String> {
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

fn job(seen: &Seen, healed: &Healed, completions: i64) -> Result<String, String> {
    let Healed { succeeded, complete, .. } = healed;
    let ran = i64::try_from(seen.succeeded.len()).unwrap_or(i64::MAX);
    let late = seen.late.len();
    let said = format!(
        "{succeeded} of {completions} counted, {ran} pods seen to succeed, {late} more after their \
         deletion was counted, complete: {complete}"
    );
    // A success that came and went while the observer was cut off was not seen, so fewer are fine.
    if *succeeded == completions && *complete && ran <= completions { Ok(said) } else { Err(said) }
}

fn bound_once(seen: &Seen) -> Result<String, String> {
    match seen.bound.iter().find(|(_, nodes)| nodes.len() > 1) {
        Some((uid, nodes)) => Err(format!("pod {uid} was bound to {nodes:?}")),
        None => Ok(format!("{} pods", seen.bound.len())),
    }
}

fn overcommitted(seen: &Seen) -> Result<String, String> {
    for (node, (milli, revision)) in &seen.carried {
        match seen.allocatable.get(node) {
            Some(limit) if milli > limit => {
                return Err(format!("{node} carried {milli}m of {limit}m at revision {revision}"));
            }
            Some(_) => {}
            None => return Err(format!("{node} carried {milli}m and was never seen itself")),
        }
    }
    if seen.carried.is_empty() {
        return Err("no pod was ever seen on a node".into());
    }
    Ok(format!("{} nodes", seen.carried.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(outcome: Outcome, kept: &[(u64, u64)]) -> History {
        History {
            ledger: vec![
                LedgerEntry { number: 1, outcome: Outcome::Ok },
                LedgerEntry { number: 2, outcome },
            ],
            ledger_in_the_end: kept.to_vec(),
            ..History::default()
        }
    }

    #[test]
    fn the_ledger_holds_what_was_acknowledged_and_nothing_that_was_said_to_have_failed() {
        let (with, without): (&[_], &[_]) = (&[(1, 1), (2, 2)], &[(1, 1)]);
        let table = [
            (Outcome::Ok, with, true),
            (Outcome::Ok, without, false),
            (Outcome::Ok, &[(1, 1), (2, 7)], false),
            (Outcome::Failed, with, false),
            (Outcome::Failed, without, true),
            (Outcome::Unknown, with, true),
            (Outcome::Unknown, without, true),
            (Outcome::Refused, with, false),
        ];
        for (outcome, kept, fine) in table {
            let judged = lost_write(&ledger(outcome, kept));
            assert_eq!(judged.is_ok(), fine, "{outcome:?} {kept:?}: {judged:?}");
        }
        assert!(lost_write(&History::default()).is_err());
    }

    #[test]
    fn a_controller_with_too_many_pods_is_not_restored_either() {
        let replicas =
            |present, ready| Replicas { name: "rc".into(), wanted: 3, present, ready, said: ready };
        let healed = |one| Healed { controllers: vec![one], ..Healed::default() };
        assert!(super::replicas(&healed(replicas(3, 3))).is_ok());
        assert!(super::replicas(&healed(replicas(4, 3))).is_err());
        assert!(super::replicas(&healed(replicas(3, 2))).is_err());
        assert!(super::replicas(&Healed::default()).is_err());
    }

    #[test]
    fn a_job_counts_neither_more_nor_less_than_it_promised() {
        let healed = |succeeded, complete| Healed { succeeded, complete, ..Healed::default() };
        let mut seen = Seen::default();
        assert!(job(&seen, &healed(2, true), 2).is_ok());
        assert!(job(&seen, &healed(3, true), 2).is_err());
        assert!(job(&seen, &healed(2, false), 2).is_err());
        seen.succeeded = ["a", "b", "c"].map(str::to_owned).into();
        assert!(job(&seen, &healed(2, true), 2).is_err());
    }
}
