//! What a deployment says of itself: its counts, whether enough is available, and whether its newest revision
//! gets on. (API reference, DeploymentStatus v1; Kubernetes documentation, "Deployments", "Deployment status".)

use super::super::replicas::{REPLICA_FAILURE, some};
use super::marks;
use super::revisions::Kept;
use super::sets::{self, Sets};
use super::sizes::Limits;
use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentCondition, DeploymentStatus, ReplicaSetStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
/// The reason of a rollout that came to its end.
const DONE: &str = "NewReplicaSetAvailable";
/// The reason of one that has not got on for too long.
const TOO_LATE: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";

/// What is said, and what follows from it.
pub(super) struct Said {
    /// The new status.
    pub(super) status: DeploymentStatus,
    /// Whether all pods are of the newest revision, and available, and there are no others.
    pub(super) complete: bool,
    /// When a rollout that has not got on until then has taken too long.
    pub(super) look_again: Option<Timestamp>,
}

/// What is to be said of a deployment with these sets, before anything is done.
pub(super) fn of(
    deployment: &Deployment,
    (sets, limits): (&Sets<'_>, &Limits),
    (kept, collisions): (Option<&Kept>, Option<i32>),
    now: Timestamp,
) -> Said {
    // As times are written down.
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let old = deployment.status.clone().unwrap_or_default();
    let all = |count: fn(&ReplicaSetStatus) -> i32| sum(sets.all().filter_map(sets::status), count);
    let replicas = all(|status| status.replicas);
    let available = all(|status| status.available_replicas.unwrap_or(0));
    let updated = sets.newest().and_then(sets::status).map_or(0, |status| status.replicas);
    let wanted = sum(sets.all(), sets::wanted);
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: some(replicas),
        updated_replicas: some(updated),
        ready_replicas: some(all(|status| status.ready_replicas.unwrap_or(0))),
        available_replicas: some(available),
        unavailable_replicas: some(wanted.saturating_sub(available)),
        terminating_replicas: some(all(|status| status.terminating_replicas.unwrap_or(0))),
        collision_count: collisions,
        conditions: None,
    };
    let complete = sets.newest().is_some()
        && [replicas, updated, available].iter().all(|count| *count == limits.replicas);
    let mut conditions = Conditions { all: old.conditions.clone().unwrap_or_default(), now };
    conditions.set(AVAILABLE, &availability(available, limits), false);
    let mut look_again = None;
    let deadline = deployment.spec.progress_deadline_seconds.filter(|limit| *limit != i32::MAX);
    match deadline {
        None => conditions.remove(PROGRESSING),
        Some(limit) if deployment.metadata.deletion_timestamp.is_none() => {
            let limit = SignedDuration::from_secs(limit.into());
            let rollout = Rollout { deployment, sets, kept, old: &old, status: &status, complete };
            let current = conditions.get(PROGRESSING).cloned();
            if let Some((said, anew)) = rollout.progress(current.as_ref(), limit, now) {
                conditions.set(PROGRESSING, &said, anew);
            }
            look_again = conditions.get(PROGRESSING).and_then(|said| overdue(said, limit));
        }
        Some(_) => {}
    }
    status.conditions = Some(conditions.all).filter(|all| !all.is_empty());
    Said { status, complete, look_again }
}

/// Whether as many are available as must be.
fn availability(available: i32, limits: &Limits) -> Condition {
    if available >= limits.least() {
        Condition::new("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        let message = "Deployment does not have minimum availability.";
        Condition::new("False", "MinimumReplicasUnavailable", message)
    }
}

/// How a deployment gets from one revision to the next.
struct Rollout<'a> {
    deployment: &'a Deployment,
    sets: &'a Sets<'a>,
    kept: Option<&'a Kept>,
    old: &'a DeploymentStatus,
    status: &'a DeploymentStatus,
    complete: bool,
}

impl Rollout<'_> {
    /// What is to be said of it, if it is something else, and whether it is said anew where it is the same.
    fn progress(
        &self,
        current: Option<&DeploymentCondition>,
        limit: SignedDuration,
        now: Timestamp,
    ) -> Option<(Condition, bool)> {
        let reason = current.and_then(|current| current.reason.as_deref());
        let once = |condition| Some((condition, false));
        if self.deployment.spec.paused == Some(true) {
            let paused = Condition::new("Unknown", PAUSED, "Deployment is paused");
            return once(paused).filter(|_| reason != Some(TOO_LATE));
        }
        let set = self.sets.newest().map(sets::name);
        let subject = match set {
            Some(name) => format!("ReplicaSet {name:?}"),
            None => {
                format!("Deployment {:?}", self.deployment.metadata.name.as_deref().unwrap_or(""))
            }
        };
        let (old, new) = (self.old, self.status);
        let count = |count: Option<i32>| count.unwrap_or(0);
        let others = |status: &DeploymentStatus| {
            count(status.replicas).saturating_sub(count(status.updated_replicas))
        };
        if let (Some(kept), Some(name)) = (self.kept.filter(|kept| self.begins(kept)), set) {
            let (reason, message) = if kept.is_back {
                ("FoundNewReplicaSet", format!("Found new replica set {name:?}"))
            } else {
                ("NewReplicaSetCreated", format!("Created new replica set {name:?}"))
            };
            return Some((Condition::new("True", reason, &message), true));
        }
        if reason == Some(DONE) && new.replicas == new.updated_replicas && set.is_some() {
            return None;
        }
        if self.complete {
            let message = format!("{subject} has successfully progressed.");
            return once(Condition::new("True", DONE, &message));
        }
        if count(new.updated_replicas) > count(old.updated_replicas)
            || others(new) < others(old)
            || count(new.ready_replicas) > count(old.ready_replicas)
            || count(new.available_replicas) > count(old.available_replicas)
        {
            let message = format!("{subject} is progressing.");
            return Some((Condition::new("True", "ReplicaSetUpdated", &message), true));
        }
        let since = current.and_then(|current| current.last_update_time.as_ref());
        let until = since.and_then(|since| since.0.checked_add(limit).ok());
        if reason.is_some_and(|reason| ![DONE, TOO_LATE].contains(&reason))
            && until.is_some_and(|until| until < now)
        {
            let message = format!("{subject} has timed out progressing.");
            return once(Condition::new("False", TOO_LATE, &message));
        }
        if let Some(failure) = self.not_created().filter(|_| reason != Some(TOO_LATE)) {
            return once(Condition::new("False", "FailedCreate", failure));
        }
        if reason == Some(PAUSED) {
            return once(Condition::new("Unknown", "DeploymentResumed", "Deployment is resumed"));
        }
        None
    }

    /// Whether the deployment has not said yet that this is its revision.
    fn begins(&self, kept: &Kept) -> bool {
        let annotations = self.deployment.metadata.annotations.as_ref();
        let said = annotations.and_then(|all| all.get(marks::REVISION));
        said.and_then(|said| said.parse().ok()) != Some(kept.revision)
    }

    /// Why there is no set for the newest revision, as the last look said.
    fn not_created(&self) -> Option<&str> {
        let mut conditions = self.old.conditions.iter().flatten();
        let failure =
            conditions.find(|condition| condition.type_.as_deref() == Some(REPLICA_FAILURE));
        failure.filter(|_| self.sets.newest().is_none())?.message.as_deref()
    }
}

/// When a rollout of which this is said has taken too long, if it goes on.
fn overdue(said: &DeploymentCondition, limit: SignedDuration) -> Option<Timestamp> {
    let over = [DONE, TOO_LATE, PAUSED].map(Some).contains(&said.reason.as_deref());
    let since = said.last_update_time.as_ref().filter(|_| !over)?.0;
    since.checked_add(limit + SignedDuration::from_secs(1)).ok()
}

/// A condition without its times.
struct Condition {
    status: &'static str,
    reason: String,
    message: String,
}

impl Condition {
    fn new(status: &'static str, reason: &str, message: &str) -> Self {
        Self { status, reason: reason.into(), message: message.into() }
    }
}

/// The conditions of a deployment.
struct Conditions {
    all: Vec<DeploymentCondition>,
    now: Timestamp,
}

impl Conditions {
    fn get(&self, type_: &str) -> Option<&DeploymentCondition> {
        self.all.iter().find(|condition| condition.type_.as_deref() == Some(type_))
    }

    fn remove(&mut self, type_: &str) {
        self.all.retain(|condition| condition.type_.as_deref() != Some(type_));
    }

    /// Says this, where another reason or status is given, or it is to be said `anew`.
    fn set(&mut self, type_: &str, said: &Condition, anew: bool) {
        let is_type = |condition: &DeploymentCondition| condition.type_.as_deref() == Some(type_);
        let at = self.all.iter().position(is_type);
        let was = at.map(|at| &self.all[at]);
        let same_status = was.filter(|was| was.status.as_deref() == Some(said.status));
        if !anew
            && same_status.is_some_and(|was| was.reason.as_deref() == Some(said.reason.as_str()))
        {
            return;
        }
        let now = Some(Time(self.now));
        let condition = DeploymentCondition {
            type_: Some(type_.into()),
            status: Some(said.status.into()),
            reason: Some(said.reason.clone()),
            message: Some(said.message.clone()),
            last_transition_time: same_status
                .and_then(|was| was.last_transition_time.clone())
                .or_else(|| now.clone()),
            last_update_time: now,
        };
        match at {
            Some(at) => self.all[at] = condition,
            None => self.all.push(condition),
        }
    }
}

fn sum<T>(all: impl Iterator<Item = T>, count: impl Fn(T) -> i32) -> i32 {
    all.fold(0, |sum, one| sum.saturating_add(count(one)))
}
