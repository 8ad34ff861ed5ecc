//! The orders about checkpoints, as messages to the parameter servers that carry them out.

use super::TrainingJob;
use super::state::{Errand, Outcome};
use actix::prelude::*;
use futures_util::future::join_all;
use impresario_client::protocol::training::{CheckpointError, ParameterServerRole};
use impresario_runtime::{ActorNode, AskError, clock};
use std::time::Duration;

/// How long a parameter server may take to write a few shards, or to complete a checkpoint.
const WRITE: Duration = Duration::from_mins(2);
/// And to read and compare a whole checkpoint.
const READ: Duration = Duration::from_mins(15);

fn outcome<T>(
    answer: Result<Result<T, CheckpointError>, AskError>,
    well: impl FnOnce(T) -> Outcome,
) -> Outcome {
    match answer {
        Ok(Ok(answer)) => well(answer),
        Ok(Err(busy @ CheckpointError::Busy)) => Outcome::Unreached(busy.to_string()),
        Ok(Err(error)) => Outcome::Failed(error.to_string()),
        Err(error) => Outcome::Unreached(error.to_string()),
    }
}

async fn carry_out(node: &ActorNode, errand: Errand) -> Outcome {
    match errand {
        Errand::Look(at, order) => {
            let server = node.actor::<ParameterServerRole>(at.path);
            outcome(server.ask(order, READ).await, Outcome::Looked)
        }
        Errand::Save(at, order) => {
            let server = node.actor::<ParameterServerRole>(at.path);
            outcome(server.ask(order, WRITE).await, Outcome::Saved)
        }
        Errand::Commit(at, order) => {
            let server = node.actor::<ParameterServerRole>(at.path);
            outcome(server.ask(*order, WRITE).await, Outcome::Committed)
        }
    }
}

impl TrainingJob {
    /// Gives the orders about checkpoints that are due.
    pub(super) fn save(&mut self, context: &mut Context<Self>) {
        let mut errands = self.state.errands(clock::now());
        if errands.is_empty() {
            return;
        }
        for errand in &mut errands {
            if let Errand::Commit(_, order) = errand {
                order.job = format!("{}/{}", self.text("namespace"), self.text("name"));
            }
        }
        let node = self.node.clone();
        let all = errands.into_iter().map(move |errand| {
            let node = node.clone();
            async move { (errand.clone(), carry_out(&node, errand).await) }
        });
        context.spawn(join_all(all).into_actor(self).map(|answers, this, context| {
            this.state.errands_end(answers, clock::now());
            this.drive(context);
        }));
    }
}
