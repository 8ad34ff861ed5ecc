//! A member's way to its training job, wherever the job's actor lives.
//!
//! The job's actor is on the control member that holds its shard, and moves when that one fails.
//! A [`Link`] asks the member that answered last, and goes round the others when it no longer does.

use impresario_client::protocol::training::{
    JoinRefused, JoinTraining, StaleLease, TrainingJobRole, job_actor,
};
use impresario_runtime::{
    Accepts, ActorNode, ActorPath, AskError, Backoff, Message, NodeName, Remedy,
};
use rand::Rng as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// How long one control member may take to answer.
const ANSWER: Duration = Duration::from_secs(3);
/// Pauses until a job whose actor has just started is asked again.
const NOT_YET: Backoff = Backoff { first: Duration::from_millis(50), most: Duration::from_secs(1) };
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(20), most: Duration::from_secs(1) };

/// The way to a job. Cheap to clone; clones share what they learn.
#[derive(Clone)]
pub struct Link {
    node: ActorNode,
    job: String,
    control: Arc<Vec<NodeName>>,
    turn: Arc<AtomicUsize>,
    activation: Arc<AtomicU64>,
    /// The highest lease epoch of the job that was seen: orders of older ones are refused.
    lease: Arc<AtomicU64>,
}

impl Link {
    /// A link to the job with this uid over these control members.
    pub fn new(node: ActorNode, job: &str, control: Vec<NodeName>) -> Self {
        Self {
            node,
            job: job.to_owned(),
            control: Arc::new(control),
            turn: Arc::default(),
            activation: Arc::default(),
            lease: Arc::default(),
        }
    }

    /// This process's node.
    pub fn node(&self) -> &ActorNode {
        &self.node
    }

    /// The activation of the job's actor that welcomed this member; 0 before.
    pub fn activation(&self) -> u64 {
        self.activation.load(Ordering::Acquire)
    }

    /// Whether an order of this lease is to be followed: not if a later one has been seen.
    pub fn obeys(&self, lease: u64) -> Result<(), StaleLease> {
        let current = self.lease.fetch_max(lease, Ordering::AcqRel);
        if lease < current { Err(StaleLease { given: lease, current }) } else { Ok(()) }
    }

    /// Joins the newest activation of the job that can be found within `patience`. One of a control
    /// member that was cut off and does not know it is passed over.
    pub async fn join(
        &self,
        patience: Duration,
        message: impl Fn() -> JoinTraining,
    ) -> Result<Result<(), JoinRefused>, AskError> {
        let started = tokio::time::Instant::now();
        let mut attempt = 0;
        loop {
            match self.ask(patience, &message).await? {
                Ok(welcome) => match self.obeys(welcome.lease) {
                    Ok(()) => {
                        self.activation.store(welcome.activation, Ordering::Release);
                        return Ok(Ok(()));
                    }
                    Err(stale) => {
                        tracing::warn!(%stale, "a control member runs a job that it has lost");
                        self.turn.fetch_add(1, Ordering::Relaxed);
                    }
                },
                // Another member may be further.
                Err(JoinRefused::NotYet) => {
                    self.turn.fetch_add(1, Ordering::Relaxed);
                }
                Err(refused) => return Ok(Err(refused)),
            }
            if started.elapsed() > patience {
                return Ok(Err(JoinRefused::NotYet));
            }
            tokio::time::sleep(NOT_YET.wait(attempt, rand::rng().random_range(0.0..1.0))).await;
            attempt += 1;
        }
    }

    /// Asks the job's actor, trying the members in turn for at most `patience`. `message` is made
    /// anew for each attempt: it must be harmless to repeat.
    pub async fn ask<M>(
        &self,
        patience: Duration,
        message: impl Fn() -> M,
    ) -> Result<M::Reply, AskError>
    where
        M: Message,
        TrainingJobRole: Accepts<M>,
    {
        let started = tokio::time::Instant::now();
        let mut attempt = 0;
        loop {
            let turn = self.turn.load(Ordering::Relaxed);
            let Some(member) = self.control.get(turn % self.control.len().max(1)) else {
                let actor = job_actor(&self.job).into();
                return Err(AskError::NoSuchActor { actor });
            };
            let path = ActorPath::new(member.clone(), job_actor(&self.job));
            let error = match self.node.actor::<TrainingJobRole>(path).ask(message(), ANSWER).await
            {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            if error.remedy() == Remedy::GiveUp || started.elapsed() > patience {
                return Err(error);
            }
            if error.remedy() != Remedy::Retry {
                let next = self.turn.compare_exchange(
                    turn,
                    turn + 1,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                );
                tracing::debug!(%error, moved_on = next.is_ok(), "the job's actor is elsewhere");
            }
            // Each member is tried at once; only a whole round in vain waits.
            attempt += 1;
            let round = attempt / self.control.len().max(1);
            if attempt % self.control.len().max(1) == 0 {
                let wait = BACKOFF.wait(round as u32, rand::rng().random_range(0.0..1.0));
                tokio::time::sleep(wait).await;
            }
        }
    }
}
