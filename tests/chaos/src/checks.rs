//! What was promised, checked against what was seen. Each check is a plain function.

use crate::history::{Action, Operation, Outcome};
use crate::linear;
use crate::observer::Seen;
use crate::workload::{COMPLETIONS, REPLICAS};
use serde::Serialize;
use std::time::Duration;

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

/// How the cluster stood when it had been given time to heal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Healed {
    /// Ready pods of the replication controller.
    pub ready: i64,
    /// What the job says of itself: succeeded, and whether it is complete.
    pub job: (i64, bool),
    /// How long healing took.
    pub took: Duration,
}

/// Everything that was seen, judged.
#[must_use]
pub fn judge(history: &[Operation], seen: &Seen, healed: &Healed) -> Vec<Check> {
    Promise::ALL
        .into_iter()
        .map(|promise| {
            let verdict = match promise {
                Promise::NoLostWrite => lost_write(history),
                Promise::Linearizable => linearizable(history),
                Promise::ReplicasRestored => replicas(healed),
                Promise::JobExact => job(seen, healed),
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

/// The last read of a register must show its last acknowledged write, or one that may have come
/// later: that was not answered before that write was asked for.
fn lost_write(history: &[Operation]) -> Result<String, String> {
    let mut registers: Vec<u32> = history.iter().map(|op| op.register).collect();
    registers.sort_unstable();
    registers.dedup();
    let mut acknowledged = 0;
    for register in registers {
        let of_register = || history.iter().filter(move |op| op.register == register);
        let written = |op: &&Operation| match op.action {
            Action::Read { .. } => None,
            Action::Write { value } | Action::Swap { value, .. } => Some(value),
        };
        let Some(last_read) = of_register()
            .filter(|op| matches!(op.action, Action::Read { .. }) && op.outcome == Outcome::Ok)
            .max_by_key(|op| op.called)
        else {
            return Err(format!("register {register} was never read"));
        };
        let Action::Read { seen } = last_read.action else { continue };
        let acked: Vec<&Operation> = of_register()
            .filter(|op| op.outcome == Outcome::Ok && written(op).is_some())
            .filter(|op| op.returned < last_read.called)
            .collect();
        acknowledged += acked.len();
        let Some(latest_start) = acked.iter().map(|op| op.called).max() else { continue };
        let explains = of_register().filter(|op| op.outcome != Outcome::Refused).any(|op| {
            let ended = if op.outcome == Outcome::Unknown { Duration::MAX } else { op.returned };
            written(&op) == seen && seen.is_some() && ended >= latest_start
        });
        if !explains {
            return Err(format!(
                "register {register} reads {seen:?} in the end, but a later write was acknowledged"
            ));
        }
    }
    Ok(format!("{acknowledged} acknowledged writes"))
}

fn linearizable(history: &[Operation]) -> Result<String, String> {
    match linear::check(history) {
        Ok(()) => {
            let unknown = history.iter().filter(|op| op.outcome == Outcome::Unknown).count();
            Ok(format!("{} operations, {unknown} with an unknown outcome", history.len()))
        }
        Err(error) => Err(error.to_string()),
    }
}

fn replicas(healed: &Healed) -> Result<String, String> {
    let said = format!(
        "{} of {REPLICAS} ready, {:.1} s after healing",
        healed.ready,
        healed.took.as_secs_f64()
    );
    if healed.ready == REPLICAS { Ok(said) } else { Err(said) }
}

fn job(seen: &Seen, healed: &Healed) -> Result<String, String> {
    let (counted, complete) = healed.job;
    let ran = i64::try_from(seen.succeeded.len()).unwrap_or(i64::MAX);
    let said = format!(
        "{counted} of {COMPLETIONS} counted, {ran} pods seen to succeed, complete: {complete}"
    );
    // A success that came and went while the observer was cut off was not seen, so fewer are fine.
    if counted == COMPLETIONS && complete && ran <= COMPLETIONS { Ok(said) } else { Err(said) }
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

    fn op(action: Action, outcome: Outcome, called: u64, returned: u64) -> Operation {
        Operation {
            client: 0,
            register: 0,
            action,
            outcome,
            called: Duration::from_secs(called),
            returned: Duration::from_secs(returned),
        }
    }

    #[test]
    fn an_acknowledged_write_must_be_read_in_the_end_unless_a_later_one_explains_it() {
        let write = |value, outcome, from, to| op(Action::Write { value }, outcome, from, to);
        let read = |seen| op(Action::Read { seen }, Outcome::Ok, 50, 51);
        let kept = [write(1, Outcome::Ok, 0, 1), read(Some(1))];
        assert!(lost_write(&kept).is_ok());
        let lost = [write(1, Outcome::Ok, 0, 1), write(2, Outcome::Ok, 2, 3), read(Some(1))];
        assert!(lost_write(&lost).is_err());
        let gone = [write(1, Outcome::Ok, 0, 1), read(None)];
        assert!(lost_write(&gone).is_err());
        let concurrent = [write(1, Outcome::Ok, 0, 5), write(2, Outcome::Ok, 2, 3), read(Some(1))];
        assert!(lost_write(&concurrent).is_ok());
        let late = [write(1, Outcome::Unknown, 0, 1), write(2, Outcome::Ok, 2, 3), read(Some(1))];
        assert!(lost_write(&late).is_ok());
    }
}
