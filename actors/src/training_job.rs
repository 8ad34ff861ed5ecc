//! Runs one training job: its pods, its shards, its data plan, its end.
//!
//! ```text
//!   pods ──watch──┐                                   ┌─ pods made and removed
//!   members ──────┼──> State ── reconcile ── actions ─┼─ shards provided and handed over
//!   auction ──────┘   (no IO)                         └─ status, events
//! ```
//! [`State`](state::State) decides, this actor asks and writes. It lives on the control member that
//! holds the job's shard. Another activation learns what was done from the parameter servers, which
//! join it again with what they hold; training goes on meanwhile where it can.

pub mod desk;
pub mod pods;
pub mod progress;
pub mod spec;
pub mod state;
mod status;

use actix::prelude::*;
use desk::{Desk, DeskError};
use futures_util::future::join_all;
use impresario_client::protocol::training::{
    Bid, CurrentMap, Describe, Description, Handover, JoinRefused, JoinTraining, Keep, Leave,
    NextWork, ParameterServerRole, Provide, RequestBid, Scale, ScaleError, ServerReport, ShardMap,
    TrainerRole, Unknown, Welcome, Work,
};
use impresario_client::protocol::training::Size;
use impresario_runtime::{ActorNode, Backoff};
use rand::Rng as _;
use serde_json::Value;
use spec::{Spec, SpecError};
use state::{Action, State};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often time alone is given a chance to change something.
const TICK: Duration = Duration::from_millis(250);
/// How often the status is written at most while nothing important happens.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// How long a parameter server or a trainer may take for an order.
const ORDER: Duration = Duration::from_secs(20);
const BACKOFF: Backoff =
    Backoff { first: Duration::from_millis(100), most: Duration::from_secs(15) };

// --- state
/// The actor.
pub struct TrainingJob {
    node: ActorNode,
    desk: Arc<dyn Desk>,
    job: Value,
    state: State,
    /// Events of earlier activations, as they stand in the object.
    earlier_events: Vec<Value>,
    watched: HashSet<String>,
    deleting: HashSet<String>,
    writing: bool,
    written: Option<(Value, Instant)>,
    failures: u32,
    not_before: Option<Instant>,
}

impl TrainingJob {
    /// An activation for this object, which must be a TrainingJob as the registry has it.
    pub fn new(node: ActorNode, desk: Arc<dyn Desk>, job: Value) -> Result<Self, SpecError> {
        let now = Instant::now();
        let spec = Spec::read(&job)?;
        let uid = job["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        let earlier = status::Earlier::read(&job);
        let activation = rand::rng().random_range(1..=u64::MAX);
        let mut state = State::new(&uid, spec, activation, earlier.size, now);
        state.resume(&earlier);
        Ok(Self {
            node,
            desk,
            job,
            state,
            earlier_events: earlier.events,
            watched: HashSet::new(),
            deleting: HashSet::new(),
            writing: false,
            written: None,
            failures: 0,
            not_before: None,
        })
    }

    fn text(&self, field: &str) -> &str {
        self.job["metadata"][field].as_str().unwrap_or_default()
    }

    /// Compares what is with what should be, and sets about it.
    fn drive(&mut self, context: &mut Context<Self>) {
        let now = Instant::now();
        let actions = self.state.reconcile(now);
        let mut moves = Vec::new();
        for action in actions {
            match action {
                Action::CreatePod(member) => {
                    if self.not_before.is_none_or(|at| now >= at) {
                        self.create_pod(member, context);
                    }
                }
                Action::DeletePod { name, uid } => self.delete_pod(name, uid, context),
                Action::Leave(place) => {
                    let leave = self.node.actor::<TrainerRole>(place.path).tell(Leave);
                    if let Err(error) = leave {
                        // It hears of it with its next batch.
                        tracing::debug!(%error, "a trainer was not told to leave");
                    }
                }
                other => moves.push(other),
            }
        }
        if !moves.is_empty() && !self.state.is_moving() {
            self.make_moves(moves, context);
        }
        self.watch_members(context);
        for remark in self.state.take_remarks() {
            self.desk.record(&self.job, remark.warning, remark.reason, &remark.message);
        }
        self.write_status(context);
    }

    fn create_pod(&mut self, member: impresario_client::protocol::training::Member, context: &mut Context<Self>) {
        let Ok(spec) = Spec::read(&self.job) else { return };
        self.state.creation(true);
        let creation = self.desk.create_pod(pods::build(&self.job, &spec, member));
        context.spawn(creation.into_actor(self).map(|outcome, this, context| match outcome {
            Ok(()) => this.failures = 0,
            Err(error) => {
                this.state.creation(false);
                this.back_off(&error, context);
            }
        }));
    }

    fn delete_pod(&mut self, name: String, uid: String, context: &mut Context<Self>) {
        if !self.deleting.insert(uid.clone()) {
            return;
        }
        let deletion = self.desk.delete_pod(name, uid.clone());
        context.spawn(deletion.into_actor(self).map(move |outcome, this, context| {
            if let Err(error) = outcome {
                this.deleting.remove(&uid);
                this.back_off(&error, context);
            }
        }));
    }

    fn back_off(&mut self, error: &DeskError, context: &mut Context<Self>) {
        if let DeskError::Fenced = error {
            tracing::info!(job = self.text("name"), "another member runs this job now");
            context.stop();
            return;
        }
        tracing::warn!(job = self.text("name"), %error, "will be tried again");
        let wait = BACKOFF.wait(self.failures, rand::rng().random_range(0.0..1.0));
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(Instant::now() + wait);
    }

    fn make_moves(&mut self, moves: Vec<Action>, context: &mut Context<Self>) {
        let started = Instant::now();
        self.state.set_moving(true, None);
        for action in &moves {
            self.state.move_starts(action);
        }
        let node = self.node.clone();
        let all = moves.into_iter().map(move |action| {
            let node = node.clone();
            async move {
                let outcome = carry_out(&node, &action).await;
                (action, outcome)
            }
        });
        context.spawn(join_all(all).into_actor(self).map(move |outcomes, this, context| {
            for (action, outcome) in outcomes {
                match outcome {
                    Ok(provided) => this.state.moved(&action, &provided),
                    Err(error) => {
                        tracing::warn!(job = this.text("name"), %error, ?action, "a move is tried again");
                    }
                }
            }
            this.state.set_moving(false, Some(started.elapsed()));
            this.drive(context);
        }));
    }

    fn watch_members(&mut self, context: &mut Context<Self>) {
        let fresh: Vec<_> = self
            .state
            .places()
            .filter(|(uid, _)| !self.watched.contains(*uid))
            .map(|(uid, place)| (uid.clone(), place.clone()))
            .collect();
        for (uid, place) in fresh {
            self.watched.insert(uid.clone());
            let watch = self.node.watch(place.path).terminated();
            context.spawn(watch.into_actor(self).map(move |_, this, context| {
                this.watched.remove(&uid);
                this.state.lost(&uid, Instant::now());
                this.drive(context);
            }));
        }
    }

    fn write_status(&mut self, context: &mut Context<Self>) {
        let now = Instant::now();
        let status = status::write(&self.state, &self.job, &self.earlier_events, now);
        let due = match &self.written {
            None => true,
            Some((written, at)) => {
                let important = ["phase", "parameterServers", "trainers", "round"]
                    .iter()
                    .any(|field| written[field] != status[field]);
                *written != status && (important || now.duration_since(*at) > STATUS_EVERY)
            }
        };
        if self.writing || !due || self.not_before.is_some_and(|at| now < at) {
            return;
        }
        self.writing = true;
        let write = self.desk.write_status(status.clone());
        context.spawn(write.into_actor(self).map(move |outcome, this, context| {
            this.writing = false;
            match outcome {
                Ok(()) => {
                    this.failures = 0;
                    this.written = Some((status, now));
                }
                Err(error) => this.back_off(&error, context),
            }
        }));
    }
}

/// Does a move; gives the versions of shards that were provided.
async fn carry_out(node: &ActorNode, action: &Action) -> Result<Vec<(u32, u64)>, String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    match action.clone() {
        Action::Provide { from, place, shards, epoch, .. } => {
            let order = Provide { shards, to: place, epoch };
            let answer = node.actor::<TrainerRole>(from.path).ask(order, ORDER).await;
            answer.map_err(|e| words(&e))?.map_err(|e| words(&e))
        }
        Action::Handover { from, place, shard, epoch, .. } => {
            let order = Handover { shard, to: place, epoch };
            let answer = node.actor::<ParameterServerRole>(from.path).ask(order, ORDER).await;
            answer.map_err(|e| words(&e))?.map_err(|e| words(&e)).map(|()| Vec::new())
        }
        Action::Keep { from, shard, epoch } => {
            let order = Keep { shard, epoch };
            let answer = node.actor::<ParameterServerRole>(from.path).ask(order, ORDER).await;
            answer.map_err(|e| words(&e))?.map_err(|e| words(&e)).map(|()| Vec::new())
        }
        Action::CreatePod(_) | Action::DeletePod { .. } | Action::Leave(_) => Ok(Vec::new()),
    }
}

impl Actor for TrainingJob {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        self.drive(context);
        context.run_interval(TICK, |this, context| this.drive(context));
    }
}

// --- messages
/// These are the pods that there are for the job. From whoever follows them on this member.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct PodsAre(pub Vec<Value>);

/// The object has changed. From whoever follows it on this member.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct JobIs(pub Value);

// --- handlers
impl Handler<PodsAre> for TrainingJob {
    type Result = ();

    fn handle(&mut self, pods: PodsAre, context: &mut Self::Context) {
        let uid = self.text("uid").to_owned();
        let seen: Vec<_> = pods.0.iter().filter_map(|pod| pods::Seen::read(pod, &uid)).collect();
        self.deleting.retain(|uid| seen.iter().any(|pod| pod.uid == *uid && !pod.deleting));
        self.state.pods_are(seen, Instant::now());
        self.drive(context);
    }
}

impl Handler<JobIs> for TrainingJob {
    type Result = ();

    fn handle(&mut self, job: JobIs, context: &mut Self::Context) {
        if job.0["metadata"]["uid"] != self.job["metadata"]["uid"] {
            return;
        }
        match Spec::read(&job.0) {
            Ok(spec) => {
                self.state.respecified(spec);
                self.job = job.0;
                self.drive(context);
            }
            Err(error) => {
                self.desk.record(&job.0, true, "NotUnderstood", &error.to_string());
            }
        }
    }
}

impl Handler<JoinTraining> for TrainingJob {
    type Result = Result<Welcome, JoinRefused>;

    fn handle(&mut self, join: JoinTraining, context: &mut Self::Context) -> Self::Result {
        self.node.addresses().set(join.place.path.node.clone(), join.place.address);
        let welcome = self.state.join(join, Instant::now());
        self.drive(context);
        welcome
    }
}

impl Handler<NextWork> for TrainingJob {
    type Result = Result<Work, Unknown>;

    fn handle(&mut self, asked: NextWork, context: &mut Self::Context) -> Self::Result {
        let before = self.state.phase();
        let work = self.state.work(&asked, Instant::now());
        if self.state.phase() != before {
            self.drive(context);
        }
        work
    }
}

impl Handler<ServerReport> for TrainingJob {
    type Result = Result<bool, Unknown>;

    fn handle(&mut self, report: ServerReport, _: &mut Self::Context) -> Self::Result {
        self.state.report(&report, Instant::now())
    }
}

impl Handler<CurrentMap> for TrainingJob {
    type Result = Result<ShardMap, Unknown>;

    fn handle(&mut self, asked: CurrentMap, _: &mut Self::Context) -> Self::Result {
        self.state.map_for(asked.activation)
    }
}

impl Handler<RequestBid> for TrainingJob {
    type Result = MessageResult<RequestBid>;

    fn handle(&mut self, _: RequestBid, _: &mut Self::Context) -> Self::Result {
        let created = status::created_unix_seconds(&self.job);
        let bid: Option<Bid> = self.state.bid(self.text("namespace"), self.text("name"), created);
        MessageResult(bid)
    }
}

impl Handler<Scale> for TrainingJob {
    type Result = Result<(), ScaleError>;

    fn handle(&mut self, scale: Scale, context: &mut Self::Context) -> Self::Result {
        let outcome = self.state.scale(&scale, Instant::now());
        self.drive(context);
        outcome
    }
}

impl Handler<Describe> for TrainingJob {
    type Result = MessageResult<Describe>;

    fn handle(&mut self, _: Describe, _: &mut Self::Context) -> Self::Result {
        let now = Instant::now();
        let (state, book) = (&self.state, self.state.book());
        let size: Size = state.size();
        MessageResult(Description {
            size,
            wanted: state.wanted(),
            step: state.steps(),
            total_steps: state.total_steps(),
            loss: book.loss().map(|loss| loss as f32),
            evaluated: book.evaluation(),
            steps_per_second: book.steps_per_second(now),
            remaining_seconds: status::remaining_seconds(state, now),
            ended: state.ended(),
        })
    }
}
