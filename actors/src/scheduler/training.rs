//! The auction among training jobs: each round asks for bids, clears them against what is free, and
//! tells each job its size.
//!
//! A round is held on a timer, and soon after a job has come or ended, lost members or thinks otherwise of its
//! end, after a node has changed, and, while a job waits, after a pod has left room. The decision is [`auction::round`], by the
//! policy of the settings; the nodes are asked for the room before a job is told ([`rooms`]).

use super::Scheduler;
use super::hall::{Bidder, IN_USE, ROUND};
use super::parties::Node;
use super::rooms::{self, Asked};
use crate::auction::{self, AuctionPolicy, Outcome};
use crate::change;
use crate::follow::Followed;
use actix::prelude::*;
use futures_util::future::join_all;
use impresario_client::protocol::resources::Resources;
use impresario_client::protocol::training::{
    Bid, RequestBid, RequestUnsureBid, ScaleError, TrainingJobRole, job_actor,
};
use impresario_objects::events::Severity;
use impresario_registry_api::{Key, WatchEvent};
use impresario_runtime::{ActorNode, ActorPath, AskError, NodeName, Remedy, clock, tasks};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinError;

/// Changes within this time share a round.
const GATHER: Duration = Duration::from_millis(150);
/// So many rounds in a row are held soon again because a job did not bid.
const AGAIN: u32 = 20;
/// So often a round is decided, where nodes refuse.
const TRIES: usize = 3;
/// How long a control member has to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a job bids; nothing where the member does not run it. A member of the version before is asked as it knows
/// it.
async fn ask_for_bid(node: &ActorNode, path: ActorPath, round: u64) -> Option<Bid> {
    let job = node.actor::<TrainingJobRole>(path.clone());
    let answer = match job.ask(RequestBid { round }, PATIENCE).await {
        Err(AskError::UnknownMessage { .. }) => {
            let bid = job.ask(RequestUnsureBid { round }, PATIENCE).await;
            bid.map(|bid| bid.map(Into::into))
        }
        answer => answer,
    };
    match answer {
        Ok(bid) => bid,
        // Only one of the members runs the job; the others say so at once.
        Err(AskError::NoSuchActor { .. } | AskError::Stopped { .. }) => None,
        // The next round asks again.
        Err(error) if error.remedy() != Remedy::GiveUp => {
            tracing::debug!(actor = %path.actor, node = %path.node, %error, "a job did not bid");
            None
        }
        Err(error) => {
            tracing::warn!(actor = %path.actor, node = %path.node, %error, "a job cannot bid: it neither grows nor shrinks");
            None
        }
    }
}

impl Scheduler {
    /// An operator has said by which policy the cluster is divided, or says nothing any more.
    pub(super) fn policy_asked(&mut self, followed: Followed, ctx: &mut Context<Self>) {
        self.hall.policy_known = true;
        let entry = match followed {
            Followed::All(entries) => entries.into_iter().next(),
            Followed::Changes(events) => {
                events.into_iter().next_back().and_then(|event| match event {
                    WatchEvent::Put { entry, .. } => Some(entry),
                    WatchEvent::Delete { .. } => None,
                })
            }
        };
        let key = entry.as_ref().map(|entry| entry.key.clone());
        let map: Option<Value> = entry.and_then(|entry| serde_json::from_slice(&entry.value).ok());
        let map = map.unwrap_or_default();
        let noted = map["metadata"]["annotations"][IN_USE].as_str();
        let policy = match map["data"]["policy"].as_str().map(str::parse) {
            None => self.settings.training,
            Some(Ok(policy)) => policy,
            Some(Err(error)) => {
                let error: auction::NoSuchAuctionPolicy = error;
                // A scheduler that begins goes on as the one before it did.
                let before = noted.and_then(|name| name.parse().ok()).unwrap_or(self.auction);
                let message = format!("{error}; {before} goes on");
                tracing::warn!(%error, policy = %before, "the policy of training jobs stays");
                self.events.about(&map, Severity::Warning, "NoSuchPolicy", &message);
                before
            }
        };
        if policy != self.auction {
            tracing::info!(before = %self.auction, %policy, "training jobs share by another policy");
            self.auction = policy;
            self.order_round(ctx);
        }
        if let Some(key) = key.filter(|_| noted != Some(&policy.to_string())) {
            self.note_policy(key, policy, ctx);
        }
    }

    /// Notes where the policy is chosen which one it is.
    fn note_policy(&self, key: Key, policy: AuctionPolicy, ctx: &mut Context<Self>) {
        let (registry, fence) = (self.registry.clone(), self.fence);
        let write = async move {
            change::change(&registry, &key, None, fence, |map| {
                map["metadata"]["annotations"][IN_USE] = policy.to_string().into();
            })
            .await
        };
        ctx.spawn(write.into_actor(self).map(|written, _, ctx| match written {
            Err(error) if error.is_fenced() => ctx.stop(),
            Err(error) => tracing::warn!(%error, "which policy is in use could not be noted"),
            Ok(_) => {}
        }));
    }

    /// Orders a round soon; many orders become one.
    pub(super) fn order_round(&mut self, ctx: &mut Context<Self>) {
        if !self.hall.jobs.is_empty() && !std::mem::replace(&mut self.hall.ordered, true) {
            ctx.run_later(GATHER.max(self.hall.took).min(ROUND), Self::hold_round);
        }
    }

    fn hold_round(&mut self, ctx: &mut Context<Self>) {
        self.hall.ordered = false;
        self.hall.missed = self.hall.holding.is_some();
        let is_known = self.nodes_known && self.pods_known && self.hall.policy_known;
        if self.hall.missed || !is_known {
            return;
        }
        let control = (self.members)();
        if control.is_empty() || self.hall.jobs.is_empty() {
            return;
        }
        self.hall.holding = Some(clock::now());
        self.hall.round = self.hall.round.saturating_add(1);
        let round = self.hall.round;
        let control: Arc<[NodeName]> = control.into();
        let asks: Vec<_> = self
            .hall
            .jobs
            .keys()
            .map(|job| {
                let first = self.hall.first_asked(job, &control).cloned();
                bids_of(self.node.clone(), job.clone(), round, first, control.clone())
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
        let (bidders, mut bids): (BTreeMap<String, NodeName>, Vec<Bid>) =
            newest.into_iter().map(|(job, (member, bid))| ((job, member), bid)).unzip();
        let held = self.hall.held(&self.picture);
        for bid in &mut bids {
            bid.current = held.get(&*bid.job).copied().unwrap_or_default();
        }
        self.hall.have_bid(bidders, &bids);
        let now = clock::now();
        let takes_pods = |node: &&Node| {
            let is_there = node.ready && !node.unschedulable && !self.is_silent(&node.name, now);
            is_there && self.hall.tolerates(&node.taints)
        };
        let nodes = self.picture.nodes().filter(takes_pods);
        let mut free: BTreeMap<_, _> =
            nodes.map(|node| (node.name.clone(), node.free.clone())).collect();
        // What others leave for a pod of a higher priority is that one's.
        for nomination in self.picture.nominations.by_priority() {
            let is_placed = self.picture.holds(&nomination.pod.uid);
            if let Some(free) = free.get_mut(&nomination.node).filter(|_| !is_placed) {
                free.subtract(&nomination.pod.requests);
            }
        }
        self.decide(Clearing { round, bids, free, tries: TRIES }, ctx);
    }

    /// Decides, and asks the nodes for the room.
    fn decide(&mut self, mut clearing: Clearing, ctx: &mut Context<Self>) {
        clearing.tries = clearing.tries.saturating_sub(1);
        let (node, policy) = (self.node.clone(), self.auction);
        let decided = async move {
            // Beside this actor: pods are placed and nodes are heard meanwhile, however many bids there are.
            let decides = move || {
                let Clearing { round, bids, free, .. } = &clearing;
                let left: Vec<Resources> = free.values().cloned().collect();
                let outcomes = auction::round(policy.policy().as_ref(), *round, bids, &left);
                let rooms = rooms::needed(bids, &outcomes, free.clone());
                (clearing, outcomes, rooms)
            };
            let (clearing, outcomes, rooms) = tasks::spawn_blocking(decides).await?;
            let asked = rooms::ask(&node, rooms).await;
            Ok((clearing, outcomes, asked))
        };
        ctx.spawn(decided.into_actor(self).map(|decided: Result<_, JoinError>, this, ctx| {
            match decided {
                Ok((clearing, outcomes, asked)) => this.asked(clearing, outcomes, asked, ctx),
                Err(error) => {
                    tracing::error!(%error, "a round of the auction was cut short");
                    this.end_round(ctx);
                }
            }
        }));
    }

    /// The nodes have answered. Where one refused, what it said is the picture, and the round is decided again by
    /// that; who has no room even then is told nothing, and the others are told their sizes.
    fn asked(
        &mut self,
        mut clearing: Clearing,
        mut outcomes: Vec<Outcome>,
        asked: Asked,
        ctx: &mut Context<Self>,
    ) {
        let now = clock::now();
        for node in &asked.silent {
            self.fell_silent(node, now);
        }
        for (node, free) in &asked.told {
            self.picture.corrected(node, free.clone());
            clearing.free.insert(node.clone(), free.clone());
        }
        clearing
            .free
            .retain(|node, _| !asked.silent.contains(node) && !asked.barred.contains(node));
        if !asked.is_granted() && clearing.tries > 0 {
            drop(asked);
            return self.decide(clearing, ctx);
        }
        outcomes.retain(|outcome| !asked.without_room.contains(&outcome.job));
        drop(asked);
        let scheduler = self.fence.map_or(0, |fence| fence.epoch.0);
        for one in &mut outcomes {
            one.scale.scheduler = scheduler;
        }
        let told = tell(self.node.clone(), self.hall.bidders.clone(), outcomes);
        ctx.spawn(told.into_actor(self).map(|latest, this, ctx| {
            // An activation that begins reads of rounds that came to something alone.
            this.hall.round = this.hall.round.max(latest);
            this.end_round(ctx);
        }));
    }

    fn end_round(&mut self, ctx: &mut Context<Self>) {
        if let Some(began) = self.hall.holding.take() {
            self.hall.took = began.elapsed();
        }
        if std::mem::take(&mut self.hall.missed) {
            self.order_round(ctx);
        }
    }
}

/// A round that is being decided.
struct Clearing {
    round: u64,
    bids: Vec<Bid>,
    /// What is free on each node that takes pods of jobs.
    free: BTreeMap<String, Resources>,
    /// So often it may be decided yet.
    tries: usize,
}

/// The bids of one job, where they can be had within [`PATIENCE`]: of the member that is asked `first`, or of all
/// others.
async fn bids_of(
    node: ActorNode,
    job: String,
    round: u64,
    first: Option<NodeName>,
    control: Arc<[NodeName]>,
) -> Vec<Bidder> {
    let ask = async |member: &NodeName| {
        let path = ActorPath::new(member.clone(), job_actor(&job));
        ask_for_bid(&node, path, round).await.map(|bid| (member.clone(), bid))
    };
    if let Some(first) = &first
        && let Some(bid) = ask(first).await
    {
        return vec![bid];
    }
    // Only one of the members runs the job; the others say so at once.
    let others = control.iter().filter(|member| Some(*member) != first.as_ref());
    join_all(others.map(ask)).await.into_iter().flatten().collect()
}

/// Tells jobs their sizes. The latest round that one of them had heard of before: 0 where all was news.
async fn tell(node: ActorNode, bidders: BTreeMap<String, NodeName>, outcomes: Vec<Outcome>) -> u64 {
    let tell = outcomes.into_iter().filter_map(|Outcome { job, scale }| {
        let path = ActorPath::new(bidders.get(&job)?.clone(), job_actor(&job));
        let ask = node.actor::<TrainingJobRole>(path).ask(scale, PATIENCE);
        Some(async move {
            let (heard, latest) = match ask.await {
                Ok(Ok(())) => return 0,
                Ok(Err(ScaleError::Stale { current })) => ("a later round".to_owned(), current),
                Ok(Err(refused)) => (refused.to_string(), 0),
                Err(error) => (error.to_string(), 0),
            };
            // The next round is based on what the job says then.
            tracing::debug!(job, heard, "a job did not take its size");
            latest
        })
    });
    join_all(tell).await.into_iter().max().unwrap_or(0)
}
