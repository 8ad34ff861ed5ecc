//! Runs one training job: its pods, its shards, its data plan, its end.
//!
//! ```text
//!   pods ──watch──┐                                   ┌─ pods made and removed
//!   members ──────┼──> State ── reconcile ── actions ─┼─ shards provided and handed over
//!   auction ──────┘   (no IO)                         └─ status, events
//! ```
//! [`State`] decides, this actor asks and writes. It lives on the control member that
//! holds the job's shard. Another activation learns what was done from the parameter servers, which
//! join it again with what they hold; training goes on meanwhile where it can.

pub mod cluster_desk;
pub mod desk;
mod earlier;
mod handlers;
mod moves;
pub mod pods;
pub mod progress;
mod saves;
pub mod spec;
pub mod state;
mod status;

use actix::prelude::*;
use desk::{Desk, DeskError, Sight};
use earlier::{Earlier, RESTORING};
use futures_util::future::join_all;
use impresario_client::protocol::training::{
    Leave, Member, ReportError, TrainerRole, TrainingJobRole, job_actor,
};
use impresario_runtime::{ActorName, ActorNode, Backoff, SpawnError, SpawnOptions, clock, random};
use moves::{MoveError, carry_out};
use rand::Rng as _;
use serde_json::Value;
use spec::Spec;
use state::{Action, State};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often time alone is given a chance to change something.
const TICK: Duration = Duration::from_millis(250);
/// How often the status is written at most while nothing important happens.
const STATUS_EVERY: Duration = Duration::from_secs(1);
const BACKOFF: Backoff =
    Backoff { first: Duration::from_millis(100), most: Duration::from_secs(15) };

/// How often it is made sure that the registry can be reached, if nothing was written meanwhile.
const CONFIRM: Duration = Duration::from_secs(2);
/// Without a word of the registry for so long another member may run the job: this activation does nothing, and
/// sends members to look for the other.
const DOUBT: Duration = Duration::from_secs(6);

/// Starts the actor of the job with this uid on a node, and gives its name. `lease` is the epoch of the
/// lease of the job's shard: members follow the highest.
pub fn start(
    node: &ActorNode,
    desk: Arc<dyn Desk>,
    uid: &str,
    lease: u64,
) -> Result<ActorName, SpawnError> {
    let name = ActorName::from(job_actor(uid));
    let (uid, its_node) = (uid.to_owned(), node.clone());
    node.spawn::<TrainingJobRole, _>(name.clone(), SpawnOptions::default(), move |_| {
        TrainingJob::new(its_node.clone(), desk.clone(), &uid, lease)
    })?;
    Ok(name)
}

// --- state
/// The actor. It is dormant until it has seen the job's object and its pods.
pub struct TrainingJob {
    node: ActorNode,
    desk: Arc<dyn Desk>,
    uid: String,
    lease: u64,
    job: Value,
    state: State,
    awake: bool,
    /// The pods as they were seen last: they may be seen before the object is.
    pods: Option<Vec<pods::Seen>>,
    /// What earlier activations left in the object.
    earlier: Earlier,
    watched: HashSet<String>,
    deleting: HashSet<String>,
    writing: bool,
    written: Option<(Value, Instant)>,
    failures: u32,
    /// How often it has looked, and why what it did last failed, if it did.
    looks: u64,
    last_error: Option<String>,
    not_before: Option<Instant>,
    /// When the registry was reached last.
    confirmed: Instant,
    confirming: bool,
}

impl TrainingJob {
    /// An activation of the job with this uid, by this lease.
    pub fn new(node: ActorNode, desk: Arc<dyn Desk>, uid: &str, lease: u64) -> Self {
        let now = clock::now();
        Self {
            node,
            desk,
            uid: uid.to_owned(),
            lease,
            job: Value::Null,
            state: State::new(uid, Spec::default(), 0, lease, None, now),
            confirmed: now,
            confirming: false,
            awake: false,
            pods: None,
            earlier: Earlier::default(),
            watched: HashSet::new(),
            deleting: HashSet::new(),
            writing: false,
            written: None,
            failures: 0,
            looks: 0,
            last_error: None,
            not_before: None,
        }
    }

    /// The object as it is now; the first one wakes the actor.
    fn job_is(&mut self, job: Value) {
        if job["metadata"]["uid"] != self.uid.as_str() {
            return;
        }
        let spec = match Spec::read(&job) {
            Ok(spec) => spec,
            Err(error) => {
                self.desk.record(&job, true, "NotUnderstood", &error.to_string());
                return;
            }
        };
        if self.awake {
            self.state.respecified(spec);
        } else {
            let earlier = Earlier::read(&job);
            let activation = random::rng().random_range(1..=u64::MAX);
            let now = clock::now();
            self.state =
                State::new(&self.uid, spec, activation, self.lease, earlier.granted_size(), now);
            self.state.resume(&earlier);
            self.earlier = earlier;
            self.awake = true;
            if let Some(pods) = self.pods.clone() {
                self.state.pods_are(pods, clock::now());
            }
        }
        if !job["metadata"]["deletionTimestamp"].is_null() {
            self.state.is_deleted();
        }
        self.job = job;
    }

    fn text(&self, field: &str) -> &str {
        self.job["metadata"][field].as_str().unwrap_or_default()
    }

    /// Compares what is with what should be, and sets about it.
    fn drive(&mut self, context: &mut Context<Self>) {
        if !self.awake {
            return;
        }
        let now = clock::now();
        self.confirm(now, context);
        if !self.is_sure(now) {
            return;
        }
        self.looks += 1;
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
                    let leave = self
                        .node
                        .actor::<TrainerRole>(place.path)
                        .tell(Leave { lease: self.lease });
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
        self.save(context);
        self.watch_members(context);
        for remark in self.state.take_remarks() {
            self.desk.record(&self.job, remark.warning, remark.reason, &remark.message);
        }
        self.write_status(context);
    }

    /// Whether this activation holds the job still, as far as can be known.
    fn is_sure(&self, now: Instant) -> bool {
        self.state.dismisses() || now.duration_since(self.confirmed) <= DOUBT
    }

    /// In doubt members are not known: they look for an activation that is sure, and come back if it is
    /// this one again.
    fn sure_of(&self, now: Instant) -> Result<(), ReportError> {
        if self.is_sure(now) { Ok(()) } else { Err(ReportError::Unknown) }
    }

    /// Makes sure that the registry can be reached. A member that is cut off from it is not told that its
    /// shards were given to another.
    fn confirm(&mut self, now: Instant, context: &mut Context<Self>) {
        if self.state.dismisses() || self.confirming || now.duration_since(self.confirmed) < CONFIRM
        {
            return;
        }
        self.confirming = true;
        let confirm = self.desk.confirm();
        context.spawn(confirm.into_actor(self).map(move |outcome, this, _| {
            this.confirming = false;
            match outcome {
                Ok(()) => this.confirmed = now,
                Err(DeskError::JobDeleted) => this.state.is_deleted(),
                Err(error) => {
                    let sure = this.is_sure(clock::now());
                    tracing::warn!(job = this.text("name"), %error, sure, "the registry is not reached");
                }
            }
        }));
    }

    fn create_pod(&mut self, member: Member, context: &mut Context<Self>) {
        self.state.creation_begins(member);
        let pod = pods::build(&self.job, self.state.spec(), member);
        let creation = self.desk.create_pod(pod);
        context.spawn(creation.into_actor(self).map(move |outcome, this, _| match outcome {
            Ok(uid) => {
                this.succeeded();
                this.state.creation_ends(member, Some(uid), clock::now());
            }
            Err(error) => {
                this.state.creation_ends(member, None, clock::now());
                if error == DeskError::JobDeleted {
                    this.state.is_deleted();
                } else {
                    let message = format!("Error creating: {error}");
                    this.desk.record(&this.job, true, "FailedCreate", &message);
                    this.back_off(&error);
                }
            }
        }));
    }

    fn delete_pod(&mut self, name: String, uid: String, context: &mut Context<Self>) {
        if !self.deleting.insert(uid.clone()) {
            return;
        }
        let deletion = self.desk.delete_pod(name, uid.clone());
        context.spawn(deletion.into_actor(self).map(move |outcome, this, _| {
            if let Err(error) = outcome {
                this.deleting.remove(&uid);
                this.back_off(&error);
            }
        }));
    }

    fn succeeded(&mut self) {
        self.failures = 0;
        self.last_error = None;
    }

    fn back_off(&mut self, error: &DeskError) {
        self.last_error = Some(error.to_string());
        tracing::warn!(job = self.text("name"), %error, "will be tried again");
        let wait = BACKOFF.wait(self.failures, random::rng().random_range(0.0..1.0));
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(clock::now() + wait);
    }

    fn make_moves(&mut self, moves: Vec<Action>, context: &mut Context<Self>) {
        self.state.moves_begin(clock::now());
        for action in &moves {
            self.state.move_starts(action);
        }
        let (node, lease) = (self.node.clone(), self.lease);
        let all = moves.into_iter().map(move |action| {
            let node = node.clone();
            async move {
                let outcome = carry_out(&node, lease, &action).await;
                (action, outcome)
            }
        });
        context.spawn(join_all(all).into_actor(self).map(move |outcomes, this, context| {
            for (action, outcome) in outcomes {
                match outcome {
                    Ok(provided) => this.state.moved(&action, &provided),
                    Err(MoveError::NoCopy) => this.state.has_no_copy(&action, clock::now()),
                    Err(MoveError::NotThere) => this.state.was_not_there(&action),
                    Err(MoveError::Failed(error)) => {
                        this.state.move_failed(&action, clock::now());
                        this.state.restore_failed(&action, &error, clock::now());
                        tracing::warn!(
                            job = this.text("name"),
                            error,
                            ?action,
                            "a move is tried again"
                        );
                    }
                }
            }
            this.state.moves_end();
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
            context.spawn(watch.into_actor(self).map(move |ended, this, context| {
                this.watched.remove(&uid);
                if let Err(error) = ended {
                    // No word of its death: its silence will tell.
                    tracing::warn!(pod = uid, %error, "a member of the job is not watched");
                    return;
                }
                this.state.lost(&uid, clock::now());
                this.drive(context);
            }));
        }
    }

    fn write_status(&mut self, context: &mut Context<Self>) {
        let now = clock::now();
        if !self.state.has_caught_up(now) || self.state.is_deleting() {
            return;
        }
        let status = status::write(&self.state, &self.job, &self.earlier, now);
        let due = match &self.written {
            None => true,
            Some((written, at)) => {
                let important =
                    ["phase", "parameterServers", "trainers", "round", "conditions", RESTORING]
                        .iter()
                        .any(|field| written[field] != status[field]);
                *written != status && (important || now.duration_since(*at) > STATUS_EVERY)
            }
        };
        if self.writing || !due || self.not_before.is_some_and(|at| now < at) {
            return;
        }
        self.writing = true;
        if status[RESTORING] != true {
            // From now on it may say that no longer.
            self.state.restoring_is_told(false);
        }
        let (write, ends) = (self.desk.write_status(status.clone()), self.state.ended());
        context.spawn(write.into_actor(self).map(move |outcome, this, _| {
            this.writing = false;
            match outcome {
                Ok(()) => {
                    this.succeeded();
                    this.state.restoring_is_told(status[RESTORING] == true);
                    this.confirmed = this.confirmed.max(now);
                    if ends {
                        this.state.end_is_written(clock::now());
                    }
                    this.written = Some((status, now));
                }
                Err(DeskError::JobDeleted) => this.state.is_deleted(),
                Err(error) => this.back_off(&error),
            }
        }));
    }
}

impl Actor for TrainingJob {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.add_stream(self.desk.follow());
        context.run_interval(TICK, Self::drive);
    }
}

impl StreamHandler<Sight> for TrainingJob {
    fn handle(&mut self, sight: Sight, context: &mut Self::Context) {
        match sight {
            Sight::Job(job) => self.job_is(job),
            Sight::Pods(pods) => {
                let seen: Vec<_> =
                    pods.iter().filter_map(|pod| pods::Seen::read(pod, &self.uid)).collect();
                self.deleting.retain(|uid| seen.iter().any(|pod| pod.uid == *uid && !pod.deleting));
                self.state.pods_are(seen.clone(), clock::now());
                self.pods = Some(seen);
            }
        }
        self.drive(context);
    }

    fn finished(&mut self, context: &mut Self::Context) {
        // Without its eyes it must not go on; its supervisor starts it anew.
        tracing::warn!(job = self.uid, "the job's objects can no longer be followed");
        context.stop();
    }
}

#[cfg(test)]
mod tests;
