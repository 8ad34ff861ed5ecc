//! Keeps shards of a job's parameters: applies gradients, and hands shards on while training goes
//! on. Lives in a pod's own process.
//!
//! [`Shards`] decides what a shard may do; this actor carries states to other servers and tells the
//! job that it lives. When the job's actor has moved it joins again with what it holds, so that
//! nothing is lost by a fail-over of the control plane.

use crate::training::link::Link;
use crate::training::shards::Shards;
use actix::prelude::*;
use impresario_client::protocol::training::{
    Accept, Handover, HandoverError, Holds, JoinRefused, JoinTraining, Keep, ParameterServerRole,
    Place, Pull, Pulled, Push, Pushed, ReportError, ServerOrder, ServerReport,
};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often the job hears of us.
const REPORT_EVERY: Duration = Duration::from_millis(500);
/// How long the job is looked for before the next report takes over.
const JOB_PATIENCE: Duration = Duration::from_secs(10);
/// An answer to a pull is closed once it has so many values: 16 MiB.
const ANSWER_VALUES: usize = 4 << 20;
/// What a server does that is told nothing: what it did before.
const GO_ON: ServerOrder = ServerOrder { wanted: true, settled: 0, elsewhere: Vec::new() };
/// A server whose pod is being stopped goes when nothing has been heard of the job for so long: it is gone, too.
const ABANDONED: Duration = Duration::from_secs(5);
/// How long another server may take to accept a shard.
const TRANSFER: Duration = Duration::from_secs(15);

// --- state
/// The actor.
pub struct ParameterServer {
    pod_uid: String,
    place: Place,
    link: Link,
    shards: Shards,
    reporting: bool,
    ended: watch::Sender<bool>,
    /// Since when the pod is being stopped.
    stopping: watch::Receiver<Option<Instant>>,
}

impl ParameterServer {
    /// A server without shards, reached at `place`; `ended` becomes true when the job needs it no
    /// more. `stopping` tells since when its pod is being stopped: it hands its shards on, for as long as
    /// its node leaves it the time.
    pub fn new(
        pod_uid: &str,
        place: Place,
        link: Link,
        ended: watch::Sender<bool>,
        stopping: watch::Receiver<Option<Instant>>,
    ) -> Self {
        let (pod_uid, shards) = (pod_uid.to_owned(), Shards::default());
        Self { pod_uid, place, link, shards, reporting: false, ended, stopping }
    }

    /// Whether the pod is being stopped and there is no job that would take the shards.
    fn is_abandoned(&self) -> bool {
        let since = *self.stopping.borrow();
        since.is_some_and(|since| since.max(self.link.heard()).elapsed() > ABANDONED)
    }

    fn report(&mut self, context: &mut Context<Self>) {
        if self.is_abandoned() {
            tracing::info!("the pod is being stopped and the job does not answer: leaving");
            self.ended.send_replace(true);
        }
        if std::mem::replace(&mut self.reporting, true) {
            return;
        }
        let (link, place, pod_uid) = (self.link.clone(), self.place.clone(), self.pod_uid.clone());
        let (versions, held) = (self.shards.versions(), self.shards.held());
        let leaving = held.iter().filter(|shard| shard.leaving.is_some());
        let leaving: BTreeSet<u32> = leaving.map(|shard| shard.range.shard).collect();
        let talk = async move {
            let activation = link.activation();
            if activation != 0 {
                let report = || ServerReport {
                    activation,
                    pod_uid: pod_uid.clone(),
                    versions: versions.clone(),
                    leaving: leaving.clone(),
                };
                match link.ask(JOB_PATIENCE, report).await {
                    Ok(Ok(order)) => {
                        link.refresh(&pod_uid).await;
                        return order;
                    }
                    Ok(Err(ReportError::Unknown)) => {}
                    Ok(Err(invalid)) => {
                        // What is held here may be all that there is: the job says when to go.
                        tracing::error!(%invalid, "the job does not take what this server says");
                        return GO_ON;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the job does not answer");
                        return GO_ON;
                    }
                }
            }
            let join = || JoinTraining {
                pod_uid: pod_uid.clone(),
                place: place.clone(),
                holds: Holds::Shards(held.clone()),
            };
            match link.join(JOB_PATIENCE, join).await {
                Ok(Ok(())) => {
                    link.refresh(&pod_uid).await;
                    GO_ON
                }
                Ok(Err(JoinRefused::NotYet)) => GO_ON,
                Ok(Err(refused @ (JoinRefused::Ended | JoinRefused::NotYours { .. }))) => {
                    tracing::info!(%refused, "leaving");
                    ServerOrder { wanted: false, ..GO_ON }
                }
                Ok(Err(refused)) => {
                    tracing::error!(%refused, "the job does not take what this server holds");
                    GO_ON
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot join the job yet");
                    GO_ON
                }
            }
        };
        context.spawn(talk.into_actor(self).map(|order, this, _| {
            this.reporting = false;
            this.shards.settle(order.settled);
            this.shards.left_behind(order.elsewhere);
            if !order.wanted {
                this.ended.send_replace(true);
            }
        }));
    }
}

impl Actor for ParameterServer {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        self.report(context);
        context.run_interval(REPORT_EVERY, Self::report);
    }
}

// --- handlers
impl Handler<Pull> for ParameterServer {
    type Result = MessageResult<Pull>;

    fn handle(&mut self, pull: Pull, _: &mut Self::Context) -> Self::Result {
        // Each once and not all at once, whatever was asked for: the rest is asked for again.
        let asked: BTreeSet<u32> = pull.shards.into_iter().collect();
        let mut values = 0;
        let answers: Vec<Pulled> = asked
            .into_iter()
            .map_while(|shard| {
                let pulled =
                    (values < ANSWER_VALUES).then(|| self.shards.pull(shard, pull.averaged));
                if let Some(Pulled::Values { values: some, .. }) = &pulled {
                    values += some.len();
                }
                pulled
            })
            .collect();
        MessageResult(answers)
    }
}

impl Handler<Push> for ParameterServer {
    type Result = MessageResult<Push>;

    fn handle(&mut self, push: Push, _: &mut Self::Context) -> Self::Result {
        let answers: Vec<(u32, Pushed)> = push
            .gradients
            .iter()
            .map(|(shard, gradient)| (*shard, self.shards.push(push.step, *shard, gradient)))
            .collect();
        MessageResult(answers)
    }
}

impl Handler<Handover> for ParameterServer {
    type Result = ResponseActFuture<Self, Result<(), HandoverError>>;

    fn handle(&mut self, order: Handover, _: &mut Self::Context) -> Self::Result {
        let Handover { lease, shard, to, epoch } = order;
        if let Err(stale) = self.link.obeys(lease) {
            return Box::pin(fut::ready(Err(stale.into())));
        }
        let state = match self.shards.start_move(shard, &to, epoch) {
            Ok(Some(state)) => state,
            Ok(None) => return Box::pin(fut::ready(Ok(()))),
            Err(error) => return Box::pin(fut::ready(Err(error))),
        };
        self.link.node().addresses().set(to.path.node.clone(), to.address);
        let receiver = self.link.node().actor::<ParameterServerRole>(to.path);
        let transfer = receiver.ask(Accept { lease, epoch, state }, TRANSFER).into_actor(self);
        Box::pin(transfer.map(move |outcome, this, _| match outcome {
            Ok(Ok(())) => {
                this.shards.moved(shard, epoch);
                Ok(())
            }
            Ok(Err(error)) => Err(HandoverError::Unconfirmed { shard, cause: error.to_string() }),
            Err(error) => Err(HandoverError::Unconfirmed { shard, cause: error.to_string() }),
        }))
    }
}

impl Handler<Accept> for ParameterServer {
    type Result = Result<(), HandoverError>;

    fn handle(&mut self, accept: Accept, _: &mut Self::Context) -> Self::Result {
        self.link.obeys(accept.lease)?;
        self.shards.accept(accept.epoch, accept.state)
    }
}

impl Handler<Keep> for ParameterServer {
    type Result = Result<(), HandoverError>;

    fn handle(&mut self, keep: Keep, _: &mut Self::Context) -> Self::Result {
        self.link.obeys(keep.lease)?;
        self.shards.keep(keep.shard, keep.epoch)
    }
}
