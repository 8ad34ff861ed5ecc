//! Keeps shards of a job's parameters: applies gradients, and hands shards on while training goes
//! on. Lives in a pod's own process.
//!
//! [`Shards`] decides what a shard may do; this actor carries states to other servers and tells the
//! job that it lives. When the job's actor has moved it joins again with what it holds, so that
//! nothing is lost by a fail-over of the control plane.

mod checkpoints;
mod steps;

use crate::training::link::Link;
use crate::training::shards::Shards;
use actix::prelude::*;
use impresario_client::protocol::training::{
    Accept, Handover, HandoverError, Holds, JoinRefused, JoinTraining, Keep, ParameterServerRole,
    Place, Pull, Pulled, Push, Pushed, ReportError, ServerOrder, ServerReport,
};
use impresario_runtime::clock;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
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
/// A server whose pod is being stopped goes when nothing has been heard of the job for so long. A job whose control
/// member goes as well is heard of again later than that member is missed (3 s), its shard is taken over and its
/// pods are read; a server that waits in vain is ended by its node when its grace is over.
const ABANDONED: Duration = Duration::from_secs(20);
/// And when all control members have said for so long that there is no such job: it is gone, too.
const NO_SUCH_JOB: Duration = Duration::from_secs(10);
/// How long another server may take to accept a shard.
const TRANSFER: Duration = Duration::from_secs(15);

// --- state
/// The actor.
pub struct ParameterServer {
    pod_uid: String,
    place: Place,
    link: Link,
    /// Shared with what writes checkpoints beside: held for no longer than a shard is copied.
    shards: Arc<Mutex<Shards>>,
    /// Counts steps that were applied after all their parts had come.
    stepped: watch::Sender<u64>,
    /// One order about checkpoints at a time.
    disk: Arc<tokio::sync::Mutex<()>>,
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
        let (pod_uid, shards, disk) = (pod_uid.to_owned(), Arc::default(), Arc::default());
        let stepped = watch::Sender::new(0);
        Self { pod_uid, place, link, shards, stepped, disk, reporting: false, ended, stopping }
    }

    /// Whether the pod is being stopped and there is no job that would take the shards.
    fn is_abandoned(&self) -> bool {
        let stopping = *self.stopping.borrow();
        let (heard, denied) = (self.link.heard(), self.link.denied());
        stopping.is_some_and(|since| is_given_up(since, heard, denied, clock::now()))
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
        let (versions, held, epochs) = {
            let shards = self.shards.lock();
            (shards.versions(), shards.held(), shards.epochs())
        };
        let kept = self.shards.clone();
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
                        // At once: what the job says is of the shards that were here when it was asked.
                        {
                            let mut shards = kept.lock();
                            shards.settle(order.settled, &epochs);
                            shards.left_behind(order.elsewhere.clone());
                        }
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
            if !order.wanted {
                this.ended.send_replace(true);
            }
        }));
    }
}

/// Whether a server that is being stopped since `stopping`, has heard of its job at `heard` and is told by all
/// control members since `denied` that there is none, need not wait for it any more.
fn is_given_up(stopping: Instant, heard: Instant, denied: Option<Instant>, now: Instant) -> bool {
    let longer = |since: Instant, limit| now.duration_since(since) > limit;
    let silent = longer(stopping.max(heard), ABANDONED);
    silent || denied.is_some_and(|denied| longer(stopping.max(denied), NO_SUCH_JOB))
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
        let (mut values, shards) = (0, self.shards.lock());
        let answers: Vec<Pulled> = asked
            .into_iter()
            .map_while(|shard| {
                let pulled = (values < ANSWER_VALUES).then(|| shards.pull(shard, pull.averaged));
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
        let mut shards = self.shards.lock();
        let answers: Vec<(u32, Pushed)> = push
            .gradients
            .iter()
            .map(|(shard, gradient)| (*shard, shards.push(push.step, *shard, gradient)))
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
        let started = self.shards.lock().start_move(shard, &to, epoch);
        let state = match started {
            Ok(Some(state)) => state,
            Ok(None) => return Box::pin(fut::ready(Ok(()))),
            Err(error) => return Box::pin(fut::ready(Err(error))),
        };
        self.link.node().addresses().set(to.path.node.clone(), to.address);
        let receiver = self.link.node().actor::<ParameterServerRole>(to.path);
        let transfer = receiver.ask(Accept { lease, epoch, state }, TRANSFER).into_actor(self);
        Box::pin(transfer.map(move |outcome, this, _| match outcome {
            Ok(Ok(())) => {
                this.shards.lock().moved(shard, epoch);
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
        self.shards.lock().accept(accept.epoch, accept.state)
    }
}

impl Handler<Keep> for ParameterServer {
    type Result = Result<(), HandoverError>;

    fn handle(&mut self, keep: Keep, _: &mut Self::Context) -> Self::Result {
        self.link.obeys(keep.lease)?;
        self.shards.lock().keep(keep.shard, keep.epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_server_that_is_stopped_waits_for_a_job_that_moves_and_not_for_one_that_is_gone() {
        let began = clock::now();
        let given_up = |heard: u32, denied: Option<u32>, now: u32| {
            let at = |seconds: u32| began + SECOND * seconds;
            is_given_up(at(10), at(heard), denied.map(at), at(now))
        };
        // Its control member is drained with it, and another answers 15 s later.
        assert!(!given_up(11, None, 26));
        assert!(!given_up(11, Some(20), 26), "the others have not the job yet");
        assert!(given_up(11, None, 32), "nobody can be reached at all");
        assert!(given_up(11, Some(12), 23), "all say that there is no such job");
        // What was before it was asked to stop does not count.
        assert!(!given_up(0, Some(0), 19));
        assert!(!given_up(0, None, 26));
    }
}
