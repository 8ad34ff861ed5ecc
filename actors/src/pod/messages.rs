//! What others ask a Pod actor.

use super::{
    PodActor,
    life::{Container, Life},
    status,
};
use actix::prelude::*;
use impresario_client::protocol::pod::{ContainerSummary, Describe, PodSummary, Stop};

impl Handler<Describe> for PodActor {
    type Result = MessageResult<Describe>;

    fn handle(&mut self, _: Describe, _: &mut Self::Context) -> Self::Result {
        let outcome = self.life.outcome();
        let serving = self.life.containers.iter().filter(|c| c.part != super::life::Part::Init);
        MessageResult(PodSummary {
            namespace: self.key().namespace.clone(),
            name: self.name().to_owned(),
            uid: self.uid.clone(),
            phase: status::phase(&self.life, outcome).to_owned(),
            ready: outcome.is_none() && serving.clone().all(Container::is_ready),
            address: self.address().map(|address| address.to_string()),
            containers: self.life.containers.iter().map(summary).collect(),
        })
    }
}

fn summary(container: &Container) -> ContainerSummary {
    let state = match &container.life {
        Life::Waiting { reason, .. } => format!("waiting: {reason}"),
        Life::Starting => "waiting: ContainerCreating".to_owned(),
        Life::Running { stopping: None, .. } => "running".to_owned(),
        Life::Running { stopping: Some(_), .. } => "running: stopping".to_owned(),
        Life::Ended(ended) => format!("terminated: {} ({})", ended.exit.reason, ended.exit.code),
    };
    ContainerSummary {
        name: container.name.clone(),
        state,
        restarts: container.restarts,
        ready: container.is_ready(),
    }
}

impl Handler<Stop> for PodActor {
    type Result = ();

    fn handle(&mut self, stop: Stop, ctx: &mut Self::Context) {
        if self.life.ending.is_none() && self.life.outcome().is_none() {
            self.kit.events.warning(self.key(), &self.uid, &stop.reason, &stop.message);
            self.fail(&stop.reason, &stop.message, stop.grace);
            self.step(ctx);
        }
    }
}
