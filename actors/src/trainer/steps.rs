//! A trainer's share of steps that trainers compute together.

use super::{Bench, JOB_PATIENCE, TrainerError, number};
use crate::training::data_plan;
use crate::training::in_hand::InHand;
use crate::training::shard_client::{ShardError, Snapshot};
use impresario_client::protocol::training::{
    Batch, Doing, Held, NextPart, NextWork, Progress, ReportError, Work,
};
use impresario_runtime::{AskError, clock, tasks};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a trainer has of the step that is being computed.
pub(super) struct Hand {
    batch: Batch,
    /// The parameters that all compute it from.
    snapshot: Arc<Snapshot>,
    parts: InHand,
    began: Instant,
    computed: Duration,
    samples: u64,
    /// Of each part's mean, as often as it has samples.
    loss: f64,
    square: f64,
}

impl Hand {
    pub(super) fn held(&self) -> Held {
        self.parts.held()
    }
}

impl Bench {
    /// Nothing yet.
    pub(super) const fn empty_hand() -> Option<Hand> {
        None
    }

    /// Reports, says what is in hand, and asks for work.
    pub(super) async fn ask(
        &self,
        report: &NextWork,
        hand: Option<&Hand>,
    ) -> Result<Result<Work, ReportError>, AskError> {
        let Some(held) = hand.map(Hand::held) else {
            return self.link.ask(JOB_PATIENCE, || report.clone()).await;
        };
        let part = || NextPart { asked: report.clone(), held: held.clone() };
        self.link.ask(JOB_PATIENCE, part).await
    }

    /// A step that every shard has applied already.
    pub(super) fn done_by_others(batch: &Batch) -> Progress {
        let (seconds, compute_seconds, gradient_square) = (0.0, 0.0, None);
        let (step, samples) = (batch.step, batch.length);
        Progress { step, samples, loss: None, seconds, compute_seconds, gradient_square }
    }

    /// Computes parts of a step, besides those that are in hand.
    pub(super) async fn compute(
        &self,
        hand: &mut Option<Hand>,
        batch: Batch,
        parts: &[u32],
        of: u32,
        order: Arc<Vec<u64>>,
    ) -> Result<(), TrainerError> {
        self.is_at(Doing::Training(batch.step));
        let mut own = match hand.take() {
            Some(hand) if hand.parts.is_of(batch.step, of) => hand,
            _ => {
                let began = clock::now();
                let snapshot = Arc::new(self.shards.pull_at(batch.step).await?);
                // Who comes too late has the freshest copy all the same.
                *self.copy.lock() = Some(snapshot.clone());
                if snapshot.has(batch.step) {
                    return Err(ShardError::Past { step: batch.step }.into());
                }
                let (parts, computed) = (InHand::new(batch.step, of), Duration::ZERO);
                let (samples, loss, square) = (0, 0.0, 0.0);
                Hand { batch, snapshot, parts, began, computed, samples, loss, square }
            }
        };
        for part in parts.iter().filter(|part| **part < of) {
            if own.parts.has(*part) {
                continue;
            }
            let piece = data_plan::part(&batch, *part, of);
            let seed = data_plan::mix(self.facts.seed, batch.step);
            // A part computes the same whoever does it.
            let seed = data_plan::mix(seed, u64::from(*part));
            let (model, snapshot, order) =
                (self.model.clone(), own.snapshot.clone(), order.clone());
            let (gradient, took) = tasks::spawn_blocking(move || {
                let began = clock::now();
                let range = piece.start as usize..(piece.start + piece.length) as usize;
                let samples = order.get(range).unwrap_or_default();
                let gradient = model.lock().gradient(&snapshot.values, samples, seed);
                (gradient, began.elapsed())
            })
            .await
            .map_err(|_| TrainerError::CutShort)?;
            let gradient = gradient?;
            let weight = piece.length as f64;
            own.computed += took;
            own.samples += piece.length;
            own.loss += f64::from(gradient.loss) * weight;
            let square: f32 = gradient.values.iter().map(|value| value * value).sum();
            own.square += f64::from(square) * weight;
            own.parts.add(*part, piece.length, gradient.values);
        }
        *hand = Some(own);
        Ok(())
    }

    /// Brings what is in hand to the shards. What it was worth, once all of them have applied the step.
    pub(super) async fn bring(&self, hand: &mut Hand) -> Result<Option<Progress>, TrainerError> {
        self.is_at(Doing::Waiting);
        if !self.shards.push_parts(&mut hand.parts).await? {
            return Ok(None);
        }
        let weight = hand.samples.max(1) as f64;
        Ok(Some(Progress {
            step: hand.batch.step,
            samples: hand.samples,
            loss: number((hand.loss / weight) as f32),
            seconds: hand.began.elapsed().as_secs_f32(),
            compute_seconds: hand.computed.as_secs_f32(),
            gradient_square: number((hand.square / weight) as f32),
        }))
    }
}
