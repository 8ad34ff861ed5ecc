//! The training jobs that take part in the auction.

use crate::follow::Followed;
use impresario_client::protocol::training::Bid;
use impresario_registry_api::{Entry, WatchEvent};
use impresario_runtime::NodeName;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// The jobs, as the registry calls them.
pub(super) const JOBS: &str = "training.impresario.dev/trainingjobs";
/// A round is held at least this often while there are jobs.
pub(super) const ROUND: Duration = Duration::from_secs(2);

/// What the scheduler knows about training jobs.
#[derive(Debug, Default)]
pub(super) struct Hall {
    /// Jobs that have not ended, by uid, with the round that they heard of last.
    pub(super) jobs: BTreeMap<String, u64>,
    pub(super) round: u64,
    pub(super) holding: bool,
    pub(super) ordered: bool,
    /// The highest lease epoch in which each job has bid.
    leases: BTreeMap<String, u64>,
    /// Rounds in a row that were held soon again, for jobs whose actors did not bid yet.
    pub(super) again: u32,
}

/// A bid, and the control member whose job actor made it.
pub(super) type Bidder = (NodeName, Bid);

impl Hall {
    /// Takes notice of jobs; whether one has come or gone.
    pub(super) fn seen(&mut self, followed: Followed) -> bool {
        let before: Vec<String> = self.jobs.keys().cloned().collect();
        match followed {
            Followed::All(entries) => {
                self.jobs.clear();
                for entry in &entries {
                    self.job_seen(entry);
                }
            }
            Followed::Changes(events) => {
                for event in events {
                    match event {
                        WatchEvent::Put { entry, .. } => self.job_seen(&entry),
                        WatchEvent::Delete { previous, .. } => {
                            if let Some((uid, ..)) = read(&previous) {
                                self.jobs.remove(&uid);
                            }
                        }
                    }
                }
            }
        }
        let changed = !self.jobs.keys().eq(before.iter());
        if changed {
            self.again = 0;
            self.leases.retain(|job, _| self.jobs.contains_key(job));
        }
        changed
    }

    /// The bids that count: for each job that of the newest activation. A control member that was cut off may
    /// still answer for a job that another one runs by now.
    pub(super) fn newest(&mut self, all: Vec<Bidder>) -> BTreeMap<String, Bidder> {
        let mut newest: BTreeMap<String, Bidder> = BTreeMap::new();
        for (member, bid) in all {
            let known = self.leases.entry(bid.job.clone()).or_default();
            if bid.lease >= *known && self.jobs.contains_key(&bid.job) {
                *known = bid.lease;
                newest.insert(bid.job.clone(), (member, bid));
            }
        }
        newest.retain(|job, (_, bid)| self.leases.get(job) == Some(&bid.lease));
        newest
    }

    fn job_seen(&mut self, entry: &Entry) {
        let Some((uid, round, ended)) = read(entry) else { return };
        self.round = self.round.max(round);
        if ended {
            self.jobs.remove(&uid);
        } else {
            self.jobs.insert(uid, round);
        }
    }
}

/// The job's uid, the round that it heard of last, and whether it has ended.
fn read(entry: &Entry) -> Option<(String, u64, bool)> {
    let job: Value = serde_json::from_slice(&entry.value).ok()?;
    let uid = job["metadata"]["uid"].as_str()?.to_owned();
    let round = job["status"]["round"].as_u64().unwrap_or(0);
    let over = matches!(job["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    Some((uid, round, over || !job["metadata"]["deletionTimestamp"].is_null()))
}
