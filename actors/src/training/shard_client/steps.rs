//! A trainer's parts of a step that trainers compute together: pushed, and held until every shard has the step.

use super::{ANSWER, BACKOFF, LEAVING_PATIENCE, PATIENCE, Search, ShardClient, ShardError};
use crate::training::in_hand::InHand;
use futures_util::future::join_all;
use impresario_client::protocol::training::{
    AwaitStep, ParameterServerRole, PushPart, ShardRange, StepState,
};
use impresario_runtime::random;
use rand::Rng as _;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use tokio::time::Instant;

impl ShardClient {
    /// Brings the parts to all shards that lack them and, where all have them, waits a moment for those of others.
    /// Whether every shard has applied the step. Asked again until it has; the job is heard in between. What does not
    /// come everywhere for long is given up: others can compute it.
    pub async fn push_parts(&self, hand: &mut InHand) -> Result<bool, ShardError> {
        hand.confirmed.clear();
        hand.everywhere = false;
        let ranges = self.map.lock().shards.clone();
        if ranges.is_empty() {
            self.look_up().await?;
            return Ok(false);
        }
        let (mut search, mut further) = (Search::new(), false);
        let numbers: Vec<u32> = hand.parts.keys().copied().collect();
        for number in &numbers {
            further |= self.push_one(hand, *number, &ranges, &mut search).await?;
        }
        let all = self.all();
        if hand.applied.is_superset(&all) {
            return Ok(true);
        }
        let is_there = |shard: &u32| numbers.iter().all(|one| hand.there.contains(&(*shard, *one)));
        if all.iter().all(|shard| hand.applied.contains(shard) || is_there(shard)) {
            let (step, of) = (hand.step, hand.of);
            // Also those that have said that they have the step: who came in their place may lack it, and others may
            // wait for these parts there.
            let asks = self.by_place(&all).into_iter().map(|(place, shards)| {
                let server = self.link.node().actor::<ParameterServerRole>(place.path);
                let parts = numbers.clone();
                async move { server.ask(AwaitStep { step, of, shards, parts }, ANSWER).await }
            });
            let answers = search.answers(join_all(asks).await);
            further |= self.hear(hand, answers)?;
            if hand.applied.is_superset(&all) {
                return Ok(true);
            }
        }
        hand.everywhere = hand.confirmed.is_superset(&all);
        if further || hand.everywhere {
            (hand.vain, hand.news) = (0, Instant::now());
            return Ok(false);
        }
        let (waited, leaving) = (hand.news.elapsed(), self.leaving.load(Ordering::Acquire));
        if waited > if leaving { LEAVING_PATIENCE } else { PATIENCE } {
            let shards = all.difference(&hand.confirmed).count();
            return Err(ShardError::Lost { shards, waited, cause: search.cause });
        }
        let wait = BACKOFF.wait(hand.vain, random::rng().random_range(0.0..1.0));
        hand.vain = hand.vain.saturating_add(1);
        tracing::debug!(
            step = hand.step,
            cause = search.cause,
            "parts are not taken everywhere yet"
        );
        tokio::time::sleep(wait).await;
        self.look_up().await?;
        Ok(false)
    }

    /// Brings one part to the shards that are not known to have it. Whether any is further.
    async fn push_one(
        &self,
        hand: &mut InHand,
        number: u32,
        ranges: &[ShardRange],
        search: &mut Search,
    ) -> Result<bool, ShardError> {
        let Some((samples, gradient)) = hand.parts.get(&number) else { return Ok(false) };
        let length = ranges.last().map_or(0, |last| last.start + last.length);
        if gradient.len() as u64 != length {
            return Err(ShardError::Misfit { shard: 0 });
        }
        let lacks =
            |shard: &u32| !hand.applied.contains(shard) && !hand.there.contains(&(*shard, number));
        let left: BTreeSet<u32> = self.all().into_iter().filter(lacks).collect();
        let (step, of, samples) = (hand.step, hand.of, *samples);
        let asks = self.by_place(&left).into_iter().map(|(place, shards)| {
            let cut = |shard: u32| {
                let range = ranges.get(shard as usize)?;
                let cut =
                    gradient.get(range.start as usize..(range.start + range.length) as usize)?;
                Some((shard, cut.to_vec()))
            };
            let gradients = shards.into_iter().filter_map(cut).collect();
            let server = self.link.node().actor::<ParameterServerRole>(place.path);
            let part = PushPart { step, of, part: number, samples, gradients };
            async move { server.ask(part, ANSWER).await }
        });
        let answers = search.answers(join_all(asks).await);
        self.hear(hand, answers)
    }

    fn hear(&self, hand: &mut InHand, answers: Vec<(u32, StepState)>) -> Result<bool, ShardError> {
        let mut further = false;
        for (shard, state) in answers {
            further |= hand.hears(shard, &state).ok_or(ShardError::Misfit { shard })?;
            if let StepState::Moved { to: Some((_, to)) } = state {
                self.moved(shard, to);
                further = true;
            }
        }
        Ok(further)
    }
}
