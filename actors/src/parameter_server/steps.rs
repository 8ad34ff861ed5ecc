//! What a parameter server does for trainers that compute each step together.

use super::{ANSWER_VALUES, ParameterServer};
use crate::training::gathering::Part;
use crate::training::shards::Shards;
use actix::prelude::*;
use impresario_client::protocol::training::{AwaitStep, PullAt, Pulled, PushPart, StepState};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long one who waits for the parts of others is kept waiting before it is told to ask again.
const HOLD: Duration = Duration::from_millis(500);

impl Handler<PullAt> for ParameterServer {
    type Result = MessageResult<PullAt>;

    fn handle(&mut self, pull: PullAt, _: &mut Self::Context) -> Self::Result {
        let asked: BTreeSet<u32> = pull.shards.into_iter().collect();
        let (mut values, shards) = (0, self.shards.lock());
        let answers: Vec<Pulled> = asked
            .into_iter()
            .map_while(|shard| {
                let pulled = (values < ANSWER_VALUES).then(|| shards.pull_at(pull.step, shard));
                if let Some(Pulled::Values { values: some, .. }) = &pulled {
                    values += some.len();
                }
                pulled
            })
            .collect();
        MessageResult(answers)
    }
}

impl Handler<PushPart> for ParameterServer {
    type Result = MessageResult<PushPart>;

    fn handle(&mut self, push: PushPart, _: &mut Self::Context) -> Self::Result {
        let mut shards = self.shards.lock();
        let answers: Vec<(u32, StepState)> = push
            .gradients
            .iter()
            .map(|(shard, gradient)| {
                let part = Part { number: push.part, samples: push.samples, gradient };
                (*shard, shards.push_part(push.step, push.of, *shard, part))
            })
            .collect();
        drop(shards);
        if answers.iter().any(|(_, state)| *state == StepState::Applied) {
            self.stepped.send_modify(|steps| *steps = steps.wrapping_add(1));
        }
        MessageResult(answers)
    }
}

/// How far the shards are that are asked about, each once.
fn states(shards: &Shards, asked: &AwaitStep) -> Vec<(u32, StepState)> {
    let each: BTreeSet<u32> = asked.shards.iter().copied().collect();
    each.into_iter().map(|shard| (shard, shards.step_state(asked.step, asked.of, shard))).collect()
}

/// Whether nothing is to be done about any of these but wait.
fn all_wait(states: &[(u32, StepState)], own: &[u32]) -> bool {
    let waits = |state: &StepState| match state {
        StepState::Applied => true,
        StepState::Waiting { parts } => own.iter().all(|part| parts.contains(part)),
        StepState::Moving | StepState::Moved { .. } | StepState::Misfit { .. } => false,
    };
    let is_waiting = |state: &StepState| matches!(state, StepState::Waiting { .. });
    states.iter().all(|(_, state)| waits(state)) && states.iter().any(|(_, one)| is_waiting(one))
}

impl Handler<AwaitStep> for ParameterServer {
    type Result = ResponseFuture<Vec<(u32, StepState)>>;

    fn handle(&mut self, asked: AwaitStep, _: &mut Self::Context) -> Self::Result {
        let (shards, mut stepped) = (self.shards.clone(), self.stepped.subscribe());
        let until = Instant::now() + HOLD;
        Box::pin(async move {
            loop {
                let states = states(&shards.lock(), &asked);
                if !all_wait(&states, &asked.parts)
                    || !matches!(timeout_at(until, stepped.changed()).await, Ok(Ok(())))
                {
                    return states;
                }
            }
        })
    }
}
