//! Computes gradients for a job. Lives in a pod's own process.
//!
//! Again and again: ask the job for batches, pull the parameters, compute, push, tell the job. The
//! trainer decides nothing: work that it cannot finish it hands back, and when it is told to leave
//! it does so after the batch in hand. Its latest copy of the parameters is what a parameter
//! server that dies is replaced from.

use crate::training::data_plan;
use crate::training::link::Link;
use crate::training::model::{Model, ModelError};
use crate::training::optimizer;
use crate::training::shard_client::{ShardClient, ShardError, Snapshot};
use actix::prelude::*;
use impresario_client::protocol::training::{
    Accept, Applied, Batch, Evaluated, Holds, JoinRefused, JoinTraining, Leave, ModelFacts,
    NextWork, Order, ParameterServerRole, Place, Progress, Provide, ProvideError,
};
use impresario_runtime::AskError;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::sync::watch;

/// How long the job is looked for before the trainer gives up: its pod is then replaced.
const JOB_PATIENCE: Duration = Duration::from_secs(120);
/// How long until a job whose actor has just started is asked again.
const NOT_YET: Duration = Duration::from_millis(100);
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
    /// The computing thread is gone.
    #[error("the computation was cut short: the process is ending")]
    CutShort,
}

// --- state
/// The actor. The work itself is done by a task that ends with it.
pub struct Trainer {
    bench: Arc<Bench>,
    ended: watch::Sender<Option<Result<(), TrainerError>>>,
}

/// What the actor and its work share.
struct Bench {
    pod_uid: String,
    place: Place,
    link: Link,
    facts: ModelFacts,
    model: Arc<Mutex<Box<dyn Model>>>,
    shards: ShardClient,
    copy: Mutex<Option<Snapshot>>,
    leaving: AtomicBool,
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
        let bench = Bench {
            pod_uid: pod_uid.to_owned(),
            place,
            shards: ShardClient::new(link.clone()),
            link,
            facts,
            model: Arc::new(Mutex::new(model)),
            copy: Mutex::default(),
            leaving: AtomicBool::new(false),
        };
        Self { bench: Arc::new(bench), ended }
    }
}

impl Actor for Trainer {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        let bench = self.bench.clone();
        let work = async move { bench.work().await };
        context.spawn(work.into_actor(self).map(|outcome, this, _| {
            this.ended.send_replace(Some(outcome));
        }));
    }
}

// --- handlers
impl Handler<Leave> for Trainer {
    type Result = ();

    fn handle(&mut self, _: Leave, _: &mut Self::Context) {
        self.bench.leaving.store(true, Ordering::Release);
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
    async fn join(&self) -> Result<(), TrainerError> {
        let message = || JoinTraining {
            pod_uid: self.pod_uid.clone(),
            place: self.place.clone(),
            holds: Holds::Model(self.facts.clone()),
        };
        let welcome = loop {
            match self.link.ask(JOB_PATIENCE, message).await? {
                Ok(welcome) => break welcome,
                Err(JoinRefused::NotYet) => tokio::time::sleep(NOT_YET).await,
                Err(refused) => return Err(refused.into()),
            }
        };
        self.shards.forget();
        self.link.welcomed(welcome.activation);
        Ok(())
    }

    async fn work(&self) -> Result<(), TrainerError> {
        self.join().await?;
        let mut report = self.empty_report();
        let mut failures = 0;
        let mut order_of = (u64::MAX, Arc::new(Vec::new()));
        loop {
            report.activation = self.link.activation();
            report.map_epoch = self.shards.epoch();
            let Ok(work) = self.link.ask(JOB_PATIENCE, || report.clone()).await? else {
                self.join().await?;
                continue;
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
                Order::Evaluate => match self.evaluate().await {
                    Ok(evaluated) => report.evaluated = Some(evaluated),
                    Err(TrainerError::Shards(error)) => tracing::warn!(%error, "not evaluated"),
                    Err(error) => return Err(error),
                },
                Order::Train(batches) => {
                    for batch in batches {
                        if self.leaving.load(Ordering::Acquire)
                            || failures > 0 && !report.returned.is_empty()
                        {
                            report.returned.push(batch.step);
                            continue;
                        }
                        if order_of.0 != batch.epoch {
                            let order =
                                data_plan::order(self.facts.seed, batch.epoch, self.facts.samples);
                            order_of = (batch.epoch, Arc::new(order));
                        }
                        match self.train(batch, order_of.1.clone()).await {
                            Ok(progress) => {
                                failures = 0;
                                report.done.push(progress);
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
            }
        }
    }

    fn empty_report(&self) -> NextWork {
        NextWork {
            activation: 0,
            pod_uid: self.pod_uid.clone(),
            done: Vec::new(),
            returned: Vec::new(),
            evaluated: None,
            map_epoch: 0,
        }
    }

    async fn train(&self, batch: Batch, order: Arc<Vec<u64>>) -> Result<Progress, TrainerError> {
        let started = Instant::now();
        let snapshot = self.shards.pull(false).await?;
        *self.copy.lock() = Some(snapshot.clone());
        let (model, seed) = (self.model.clone(), data_plan::mix(self.facts.seed, batch.step));
        let (gradient, computed) = tokio::task::spawn_blocking(move || {
            let began = Instant::now();
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
            loss: gradient.loss,
            seconds: started.elapsed().as_secs_f32(),
            compute_seconds: computed.as_secs_f32(),
            gradient_square: gradient.values.iter().map(|value| value * value).sum(),
        })
    }

    async fn evaluate(&self) -> Result<Evaluated, TrainerError> {
        let snapshot = self.shards.pull(true).await?;
        let (version, model) = (snapshot.version(), self.model.clone());
        let evaluation =
            tokio::task::spawn_blocking(move || model.lock().evaluate(&snapshot.values))
                .await
                .map_err(|_| TrainerError::CutShort)??;
        Ok(Evaluated { version, loss: evaluation.loss, accuracy: evaluation.accuracy })
    }

    /// Gives shards to a parameter server: from the latest copy, or, when a job begins, the model's
    /// initial values.
    async fn provide(&self, order: Provide) -> Result<Vec<(u32, u64)>, ProvideError> {
        let copy = self.copy.lock().clone();
        let first = order.shards.first().map_or(0, |range| range.shard);
        let copy = match copy {
            Some(copy) => copy,
            None if !order.begins => return Err(ProvideError::NoCopy),
            None => {
                let (model, seed) = (self.model.clone(), self.facts.seed);
                let values =
                    tokio::task::spawn_blocking(move || model.lock().initial(seed)).await.map_err(
                        |error| ProvideError::NotTaken { shard: first, cause: error.to_string() },
                    )?;
                Snapshot { values, ..Snapshot::default() }
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
            let taken = server.ask(Accept { epoch: order.epoch, state }, TRANSFER).await;
            let cause = match taken {
                Ok(Ok(())) => {
                    provided.push((shard, version));
                    continue;
                }
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            return Err(ProvideError::NotTaken { shard, cause });
        }
        Ok(provided)
    }
}
