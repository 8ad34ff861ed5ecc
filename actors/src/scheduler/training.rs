//! The auction among training jobs: each round asks for bids, clears them against what is free, and
//! tells each job its size.
//!
//! A round is held on a timer, and when a job arrives or ends or a node changes. The decision is
//! [`auction::round`]; rooms are granted by the nodes, when the pods that follow are reserved for.

use super::Scheduler;
use crate::auction::{self, Outcome};
use crate::follow::Followed;
use actix::prelude::*;
use futures_util::future::join_all;
use impresario_client::protocol::resources::Resources;
use impresario_client::protocol::training::{Bid, RequestBid, TrainingJobRole, job_actor};
use impresario_registry_api::{Entry, WatchEvent};
use impresario_runtime::{ActorNode, ActorPath, NodeName};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// The jobs, as the registry calls them.
pub(super) const JOBS: &str = "training.impresario.dev/trainingjobs";
/// A round is held at least this often while there are jobs.
pub(super) const ROUND: Duration = Duration::from_secs(2);
/// Changes within this time share a round.
const GATHER: Duration = Duration::from_millis(150);
/// So many rounds in a row are held soon again because a job did not bid.
const AGAIN: u32 = 20;
/// How long a control member has to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the scheduler knows about training jobs.
#[derive(Debug, Default)]
pub(super) struct Hall {
    /// Jobs that have not ended, by uid, with the round that they heard of last.
    jobs: BTreeMap<String, u64>,
    round: u64,
    holding: bool,
    ordered: bool,
    /// The highest lease epoch in which each job has bid.
    leases: BTreeMap<String, u64>,
    /// Rounds in a row that were held soon again, for jobs whose actors did not bid yet.
    again: u32,
}

/// A bid, and the control member whose job actor made it.
type Bidder = (NodeName, Bid);

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
    fn newest(&mut self, all: Vec<Bidder>) -> BTreeMap<String, Bidder> {
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

impl Scheduler {
    /// Orders a round soon; many orders become one.
    pub(super) fn order_round(&mut self, ctx: &mut Context<Self>) {
        if !self.hall.jobs.is_empty() && !std::mem::replace(&mut self.hall.ordered, true) {
            ctx.run_later(GATHER, Self::hold_round);
        }
    }

    fn hold_round(&mut self, ctx: &mut Context<Self>) {
        self.hall.ordered = false;
        if self.hall.holding || !self.nodes_known || !self.pods_known {
            return;
        }
        let control = (self.members)();
        if control.is_empty() || self.hall.jobs.is_empty() {
            return;
        }
        self.hall.holding = true;
        self.hall.round += 1;
        let round = self.hall.round;
        let asks: Vec<_> = self
            .hall
            .jobs
            .keys()
            .flat_map(|uid| control.iter().map(move |member| (uid, member)))
            .map(|(uid, member)| {
                let path = ActorPath::new(member.clone(), job_actor(uid));
                let ask =
                    self.node.actor::<TrainingJobRole>(path).ask(RequestBid { round }, PATIENCE);
                let member = member.clone();
                // Only one of the members runs the job; the others say so at once.
                async move { ask.await.ok().flatten().map(|bid| (member, bid)) }
            })
            .collect();
        let bids = async move { join_all(asks).await.into_iter().flatten().collect() };
        ctx.spawn(bids.into_actor(self).map(move |bids, this, ctx| this.clear(round, bids, ctx)));
    }

    /// Clears the auction. What is free is looked up only now, when all bids are there.
    fn clear(&mut self, round: u64, bids: Vec<Bidder>, ctx: &mut Context<Self>) {
        let newest = self.hall.newest(bids);
        if newest.len() < self.hall.jobs.len() && self.hall.again < AGAIN {
            // A job that has just arrived: its actor is about to start.
            self.hall.again += 1;
            self.order_round(ctx);
        }
        let (bidders, bids): (BTreeMap<String, NodeName>, Vec<Bid>) =
            newest.into_iter().map(|(job, (member, bid))| ((job, member), bid)).unzip();
        let free: Vec<Resources> = self
            .picture
            .nodes()
            .filter(|node| node.ready && !node.unschedulable)
            .map(|node| node.free.clone())
            .collect();
        let scheduler = self.fence.map_or(0, |fence| fence.epoch.0);
        let node = self.node.clone();
        // Beside this actor: pods are placed and nodes are heard meanwhile, however many bids there are.
        let decided = tokio::task::spawn_blocking(move || auction::round(round, &bids, &free));
        let told = async move {
            match decided.await {
                Ok(mut outcomes) => {
                    for one in &mut outcomes {
                        one.scale.scheduler = scheduler;
                    }
                    tell(node, bidders, outcomes).await;
                }
                Err(error) => tracing::error!(%error, "a round of the auction was cut short"),
            }
        };
        ctx.spawn(told.into_actor(self).map(|(), this, _| this.hall.holding = false));
    }
}

async fn tell(node: ActorNode, bidders: BTreeMap<String, NodeName>, outcomes: Vec<Outcome>) {
    let tell = outcomes.into_iter().filter_map(|Outcome { job, scale }| {
        let path = ActorPath::new(bidders.get(&job)?.clone(), job_actor(&job));
        let ask = node.actor::<TrainingJobRole>(path).ask(scale, PATIENCE);
        Some(async move {
            let heard = match ask.await {
                Ok(Ok(())) => return,
                Ok(Err(refused)) => refused.to_string(),
                Err(error) => error.to_string(),
            };
            // The next round is based on what the job says then.
            tracing::debug!(job, heard, "a job did not take its size");
        })
    });
    join_all(tell).await;
}
