//! Computes gradients for a job. Lives in a pod's own process.
//!
//! Again and again: ask the job for batches, pull the parameters, compute, push, tell the job. The
//! trainer decides nothing: work that it cannot finish it hands back, and when it is told to leave
//! it does so after the batch in hand. Its latest copy of the parameters is what a parameter
//! server that dies is replaced from.

mod steps;

use crate::training::data_plan;
use crate::training::link::Link;
use crate::training::model::{Evaluation, Model, ModelError};
use crate::training::optimizer;
use crate::training::shard_client::{ShardClient, ShardError, Snapshot};
use actix::prelude::*;
use impresario_client::protocol::training::{
    Accept, Applied, Batch, Doing, Evaluated, Holds, JoinRefused, JoinTraining, Leave, ModelFacts,
    NextWork, Order, ParameterServerRole, Place, Progress, Provide, ProvideError, ReportError,
    StaleLease, TrainerReport,
};
use impresario_runtime::{AskError, clock, tasks};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::sync::{OnceCell, watch};

/// How long the job is looked for before the trainer gives up: a control plane may be away for minutes, and a
/// trainer may hold the only copy of what was learned.
const JOB_PATIENCE: Duration = Duration::from_mins(15);
/// How often the job hears that the trainer lives, whatever it is at.
const REPORT_EVERY: Duration = Duration::from_secs(2);
/// How long it is looked for with one of these reports.
const REPORT_PATIENCE: Duration = Duration::from_secs(10);
/// How long a parameter server may take to accept a shard.
const TRANSFER: Duration = Duration::from_secs(15);
/// Batches in a row that may fail before the trainer gives up.
const FAILURES: u32 = 20;

/// Why a trainer stops.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrainerError {
    /// The model cannot compute.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The parameters cannot be reached.
    #[error(transparent)]
    Shards(#[from] ShardError),
    /// The job cannot be reached.
    #[error("the job does not answer ({0}): look whether the cluster is up")]
    Job(#[from] AskError),
    /// The job does not want this trainer.
    #[error(transparent)]
    Refused(#[from] JoinRefused),
    /// The job does not take what this trainer says.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// The computing thread is gone.
    #[error("the computation was cut short: the process is ending")]
    CutShort,
}

// --- state
/// The actor. The work itself is done by a task that ends with it.
pub struct Trainer {
    bench: Arc<Bench>,
    ended: watch::Sender<Option<Result<(), TrainerError>>>,
    reporting: bool,
}

/// What the actor and its work share.
struct Bench {
    pod_uid: String,
    place: Place,
    link: Link,
    facts: ModelFacts,
    model: Arc<Mutex<Box<dyn Model>>>,
    shards: ShardClient,
    copy: Mutex<Option<Arc<Snapshot>>>,
    /// The model's initial values, once they were asked for.
    initial: OnceCell<Arc<Snapshot>>,
    leaving: Arc<AtomicBool>,
    /// The job needs nothing more of what is being done.
    dismissed: watch::Sender<bool>,
    doing: Mutex<(Doing, Instant)>,
    /// One joins at a time.
    joining: tokio::sync::Mutex<()>,
}

impl Trainer {
    /// A trainer of `model`, reached at `place`; `ended` hears how it ended.
    pub fn new(
        pod_uid: &str,
        place: Place,
        link: Link,
        model: Box<dyn Model>,
        facts: ModelFacts,
        ended: watch::Sender<Option<Result<(), TrainerError>>>,
    ) -> Self {
        let leaving: Arc<AtomicBool> = Arc::default();
        let bench = Bench {
            pod_uid: pod_uid.to_owned(),
            place,
            shards: ShardClient::new(link.clone(), pod_uid, leaving.clone()),
            link,
            facts,
            model: Arc::new(Mutex::new(model)),
            copy: Mutex::default(),
            initial: OnceCell::new(),
            leaving,
            dismissed: watch::Sender::new(false),
            doing: Mutex::new((Doing::Waiting, clock::now())),
            joining: tokio::sync::Mutex::default(),
        };
        Self { bench: Arc::new(bench), ended, reporting: false }
    }

    /// Says that the trainer lives, from a task beside its work.
    fn report(&mut self, context: &mut Context<Self>) {
        if std::mem::replace(&mut self.reporting, true) {
            return;
        }
        let bench = self.bench.clone();
        let report = async move { bench.report().await };
        context.spawn(report.into_actor(self).map(|(), this, _| this.reporting = false));
    }
}

impl Actor for Trainer {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        let bench = self.bench.clone();
        let mut dismissed = self.bench.dismissed.subscribe();
        let work = async move {
            tokio::select! {
                outcome = bench.work() => outcome,
                _ = dismissed.wait_for(|dismissed| *dismissed) => Ok(()),
            }
        };
        context.spawn(work.into_actor(self).map(|outcome, this, _| {
            this.ended.send_replace(Some(outcome));
        }));
        context.run_interval(REPORT_EVERY, Self::report);
    }
}

// --- handlers
impl Handler<Leave> for Trainer {
    type Result = Result<(), StaleLease>;

    fn handle(&mut self, leave: Leave, _: &mut Self::Context) -> Self::Result {
        self.bench.link.obeys(leave.lease)?;
        self.bench.leaving.store(true, Ordering::Release);
        Ok(())
    }
}

impl Handler<Provide> for Trainer {
    type Result = ResponseFuture<Result<Vec<(u32, u64)>, ProvideError>>;

    fn handle(&mut self, order: Provide, _: &mut Self::Context) -> Self::Result {
        let bench = self.bench.clone();
        Box::pin(async move { bench.provide(order).await })
    }
}

// --- work
impl Bench {
    /// Joins, unless another task of this trainer has joined since `activation`.
    async fn join(&self, activation: u64) -> Result<(), TrainerError> {
        let _alone = self.joining.lock().await;
        if self.link.activation() != activation {
            return Ok(());
        }
        let message = || JoinTraining {
            pod_uid: self.pod_uid.clone(),
            place: self.place.clone(),
            holds: Holds::Model(self.facts.clone()),
        };
        self.link.join(JOB_PATIENCE, message).await??;
        self.link.refresh(&self.pod_uid).await;
        // Maps of another activation are none of this one's.
        self.shards.forget();
        Ok(())
    }

    fn is_at(&self, doing: Doing) {
        *self.doing.lock() = (doing, clock::now());
    }

    /// Says that this trainer lives and what it is at.
    async fn report(&self) {
        let activation = self.link.activation();
        if activation == 0 {
            return;
        }
        let message = || {
            let (doing, since) = *self.doing.lock();
            let milliseconds = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
            TrainerReport { activation, pod_uid: self.pod_uid.clone(), doing, milliseconds }
        };
        match self.link.ask(REPORT_PATIENCE, message).await {
            Ok(Ok(true)) => self.link.refresh(&self.pod_uid).await,
            Ok(Ok(false)) => {
                self.dismissed.send_replace(true);
            }
            // A new activation must not wait for the batch in hand to know that there is a copy here.
            Ok(Err(ReportError::Unknown)) => match self.join(activation).await {
                Ok(()) => {}
                Err(TrainerError::Refused(JoinRefused::Ended)) => {
                    self.dismissed.send_replace(true);
                }
                Err(error) => tracing::warn!(%error, "cannot join the job again yet"),
            },
            Ok(Err(error)) => tracing::warn!(%error, "the job does not take a report"),
            Err(error) => tracing::debug!(%error, "the job does not hear that this trainer lives"),
        }
    }

    async fn work(&self) -> Result<(), TrainerError> {
        match self.join(0).await {
            // It came too late to be of use, which is no failure of its pod.
            Err(TrainerError::Refused(JoinRefused::Ended)) => return Ok(()),
            joined => joined?,
        }
        let mut report = self.empty_report();
        let mut failures = 0;
        let mut order_of = (u64::MAX, Arc::new(Vec::new()));
        let mut hand = Self::empty_hand();
        loop {
            report.activation = self.link.activation();
            report.map_epoch = self.shards.epoch();
            self.is_at(Doing::Waiting);
            let work = match self.ask(&report, hand.as_ref()).await? {
                Ok(work) => work,
                Err(ReportError::Unknown) => {
                    match self.join(report.activation).await {
                        Err(TrainerError::Refused(JoinRefused::Ended)) => return Ok(()),
                        joined => joined?,
                    }
                    continue;
                }
                Err(invalid) => return Err(invalid.into()),
            };
            report = self.empty_report();
            if let Some(map) = work.map {
                self.shards.learn(map);
            }
            match work.order {
                Order::Stop => return Ok(()),
                Order::Wait { milliseconds } => {
                    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
                }
                Order::Evaluate { number } => {
                    report.evaluation = Some(number);
                    match self.evaluate().await {
                        Err(TrainerError::Shards(ShardError::Rejoin)) => {}
                        Ok(evaluated) => report.evaluated = Some(evaluated),
                        Err(TrainerError::Shards(error)) => tracing::warn!(%error, "not evaluated"),
                        Err(error) => return Err(error),
                    }
                }
                Order::Train(batches) => {
                    for batch in batches {
                        if self.leaving.load(Ordering::Acquire)
                            || failures > 0 && !report.returned.is_empty()
                        {
                            report.returned.push(batch.step);
                            continue;
                        }
                        self.order_of(&mut order_of, batch.epoch);
                        match self.train(batch, order_of.1.clone()).await {
                            Ok(progress) => {
                                failures = 0;
                                report.done.push(progress);
                            }
                            Err(TrainerError::Shards(ShardError::Rejoin)) => {
                                report.returned.push(batch.step);
                            }
                            Err(TrainerError::Shards(error)) if failures < FAILURES => {
                                tracing::warn!(%error, step = batch.step, "handing a batch back");
                                failures += 1;
                                report.returned.push(batch.step);
                            }
                            Err(error) => return Err(error),
                        }
                    }
                }
                Order::Parts { batch, parts, of } => {
                    self.order_of(&mut order_of, batch.epoch);
                    let order = order_of.1.clone();
                    let computed = self.compute(&mut hand, batch, &parts, of, order).await;
                    match computed {
                        Ok(()) => {}
                        // Whoever did it cannot tell of it any more.
                        Err(TrainerError::Shards(ShardError::Past { .. })) => {
                            report.done.push(Self::done_by_others(&batch));
                        }
                        Err(error) => {
                            is_passing(error, &mut failures)?;
                            report.returned.push(batch.step);
                        }
                    }
                }
            }
            if let Some(parts) = &mut hand {
                match self.bring(parts).await {
                    Ok(None) => {}
                    Ok(Some(progress)) => {
                        (hand, failures) = (None, 0);
                        report.done.push(progress);
                    }
                    Err(error) => {
                        if matches!(error, TrainerError::Shards(ShardError::Lost { .. })) {
                            report.returned.push(parts.held().step);
                            hand = None;
                        }
                        is_passing(error, &mut failures)?;
                    }
                }
            }
        }
    }

    /// The order of this epoch's samples, made once.
    fn order_of(&self, known: &mut (u64, Arc<Vec<u64>>), epoch: u64) {
        if known.0 != epoch {
            let order = data_plan::order(self.facts.seed, epoch, self.facts.samples);
            *known = (epoch, Arc::new(order));
        }
    }

    fn empty_report(&self) -> NextWork {
        NextWork {
            activation: 0,
            pod_uid: self.pod_uid.clone(),
            done: Vec::new(),
            returned: Vec::new(),
            evaluated: None,
            evaluation: None,
            map_epoch: 0,
        }
    }

    async fn train(&self, batch: Batch, order: Arc<Vec<u64>>) -> Result<Progress, TrainerError> {
        let started = clock::now();
        self.is_at(Doing::Training(batch.step));
        let snapshot = Arc::new(self.shards.pull(false).await?);
        *self.copy.lock() = Some(snapshot.clone());
        let (model, seed) = (self.model.clone(), data_plan::mix(self.facts.seed, batch.step));
        let (gradient, computed) = tasks::spawn_blocking(move || {
            let began = clock::now();
            let range = batch.start as usize..(batch.start + batch.length) as usize;
            let samples = order.get(range).unwrap_or_default();
            let gradient = model.lock().gradient(&snapshot.values, samples, seed);
            (gradient, began.elapsed())
        })
        .await
        .map_err(|_| TrainerError::CutShort)?;
        let gradient = gradient?;
        self.shards.push(batch.step, &gradient.values).await?;
        Ok(Progress {
            step: batch.step,
            samples: batch.length,
            loss: number(gradient.loss),
            seconds: started.elapsed().as_secs_f32(),
            compute_seconds: computed.as_secs_f32(),
            gradient_square: number(gradient.values.iter().map(|value| value * value).sum()),
        })
    }

    async fn evaluate(&self) -> Result<Evaluated, TrainerError> {
        self.is_at(Doing::Evaluating);
        let snapshot = self.shards.pull(true).await?;
        let (version, model) = (snapshot.version(), self.model.clone());
        let evaluation = tasks::spawn_blocking(move || model.lock().evaluate(&snapshot.values))
            .await
            .map_err(|_| TrainerError::CutShort)??;
        let Evaluation { loss, accuracy } = evaluation;
        if !(0.0..=1.0).contains(&accuracy) {
            return Err(ModelError::NoAccuracy { accuracy }.into());
        }
        Ok(Evaluated { version, loss: number(loss), accuracy })
    }

    /// Gives shards to a parameter server: from the latest copy, or, when a job begins, the model's
    /// initial values.
    async fn provide(&self, order: Provide) -> Result<Vec<(u32, u64)>, ProvideError> {
        self.link.obeys(order.lease)?;
        let copy = self.copy.lock().clone();
        let first = order.shards.first().map_or(0, |range| range.shard);
        let copy = match copy {
            Some(copy) => copy,
            None if !order.begins => return Err(ProvideError::NoCopy),
            None => {
                // Made once, however long it takes and however often it is asked for meanwhile.
                let initial = self.initial.get_or_try_init(|| async {
                    let (model, seed) = (self.model.clone(), self.facts.seed);
                    let values = tasks::spawn_blocking(move || model.lock().initial(seed));
                    let values = values.await?;
                    Ok(Arc::new(Snapshot { values, ..Snapshot::default() }))
                });
                let initial = initial.await;
                let cause = |error: tokio::task::JoinError| error.to_string();
                let initial = initial.map_err(cause);
                initial.map_err(|cause| ProvideError::NotTaken { shard: first, cause })?.clone()
            }
        };
        self.link.node().addresses().set(order.to.path.node.clone(), order.to.address);
        let server = self.link.node().actor::<ParameterServerRole>(order.to.path);
        let mut provided = Vec::new();
        for range in order.shards {
            let shard = range.shard;
            let values = copy
                .values
                .get(range.start as usize..(range.start + range.length) as usize)
                .ok_or(ProvideError::NoSuchShard { shard })?
                .to_vec();
            let (version, applied) =
                copy.shards.get(&shard).cloned().unwrap_or((0, Applied::default()));
            let state = optimizer::fresh(range, values, version, applied, self.facts.optimizer);
            let taken = server
                .ask(Accept { lease: order.lease, epoch: order.epoch, state }, TRANSFER)
                .await;
            let cause = match taken {
                Ok(Ok(())) => {
                    provided.push((shard, version));
                    continue;
                }
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            if provided.is_empty() {
                return Err(ProvideError::NotTaken { shard, cause });
            }
            // What has arrived counts; the rest is ordered again.
            tracing::warn!(shard, cause, "not all shards were taken");
            break;
        }
        Ok(provided)
    }
}

/// Whether the next try may mend it; too many in a row are an end.
fn is_passing(error: TrainerError, failures: &mut u32) -> Result<(), TrainerError> {
    match error {
        TrainerError::Shards(ShardError::Rejoin) => Ok(()),
        TrainerError::Shards(error) if *failures < FAILURES => {
            tracing::warn!(%error, "handing parts of a step back");
            *failures += 1;
            Ok(())
        }
        error => Err(error),
    }
}

/// A value that can be told, if it is a number.
fn number(value: f32) -> Option<f32> {
    value.is_finite().then_some(value)
}
