//! A member's way to its training job, wherever the job's actor lives.
//!
//! The job's actor is on the control member that holds its shard, and moves when that one fails.
//! A [`Link`] asks the member that answered last, and goes round the others when it no longer does.

use impresario_client::protocol::training::{
    ControlMembers, JoinRefused, JoinTraining, StaleLease, TrainingJobRole, job_actor,
};
use impresario_runtime::{
    Accepts, ActorNode, ActorPath, AskError, Backoff, Message, NodeName, Remedy,
};
use parking_lot::Mutex;
use rand::Rng as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long one control member may take to answer.
const ANSWER: Duration = Duration::from_secs(3);
/// Pauses until a job whose actor has just started is asked again.
const NOT_YET: Backoff = Backoff { first: Duration::from_millis(50), most: Duration::from_secs(1) };
/// How often the job is asked who the control members are.
const REFRESH: Duration = Duration::from_secs(30);
/// So many control members are believed.
const MOST_MEMBERS: usize = 64;
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(20), most: Duration::from_secs(1) };

/// The way to a job. Cheap to clone; clones share what they learn.
#[derive(Clone)]
pub struct Link {
    node: ActorNode,
    job: String,
    /// The control members: those of the pod's start, then those that the job names.
    control: Arc<Mutex<Vec<NodeName>>>,
    refreshed: Arc<Mutex<Option<Instant>>>,
    /// When the job answered last.
    heard: Arc<Mutex<Instant>>,
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
            control: Arc::new(Mutex::new(control)),
            refreshed: Arc::default(),
            heard: Arc::new(Mutex::new(Instant::now())),
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

    /// When the job answered last; when the link was made, if it never did.
    pub fn heard(&self) -> Instant {
        *self.heard.lock()
    }

    /// Asks who the control members are, now and then: each of those that were there when the pod started
    /// may have been replaced since.
    pub async fn refresh(&self, pod_uid: &str) {
        {
            let mut refreshed = self.refreshed.lock();
            if refreshed.is_some_and(|at| at.elapsed() < REFRESH) {
                return;
            }
            *refreshed = Some(Instant::now());
        }
        let ask = || ControlMembers { pod_uid: pod_uid.to_owned() };
        match self.ask(ANSWER, ask).await {
            Ok(told) => self.learn(told),
            Err(error) => {
                tracing::debug!(%error, "the job does not say who the control members are");
            }
        }
    }

    /// Goes by these control members from now on.
    fn learn(&self, told: Vec<(NodeName, SocketAddr)>) {
        // A member that has not found its group yet knows of nobody.
        if told.is_empty() || told.len() > MOST_MEMBERS {
            return;
        }
        for (name, address) in &told {
            self.node.addresses().set(name.clone(), *address);
        }
        let told: Vec<NodeName> = told.into_iter().map(|(name, _)| name).collect();
        let mut known = self.control.lock();
        if *known != told {
            tracing::info!(job = self.job, ?told, "the control members are others now");
            *known = told;
        }
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
            let (member, members) = {
                let control = self.control.lock();
                (control.get(turn % control.len().max(1)).cloned(), control.len().max(1))
            };
            let Some(member) = member else {
                let actor = job_actor(&self.job).into();
                return Err(AskError::NoSuchActor { actor });
            };
            let path = ActorPath::new(member, job_actor(&self.job));
            let error = match self.node.actor::<TrainingJobRole>(path).ask(message(), ANSWER).await
            {
                Ok(reply) => {
                    *self.heard.lock() = Instant::now();
                    return Ok(reply);
                }
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
            let round = attempt / members;
            if attempt % members == 0 {
                let wait = BACKOFF.wait(round as u32, rand::rng().random_range(0.0..1.0));
                tokio::time::sleep(wait).await;
            }
        }
    }
}
