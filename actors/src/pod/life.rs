//! What a Pod actor knows of its pod, and how it learns: plain values, no IO.
//!
//! ```text
//!  Waiting ──start──> Starting ──> Running ──> Ended ──start (restart policy, backoff)──> Starting
//!     ^                  │
//!     └── start failed ──┘ (image, configuration: tried again after a backoff)
//! ```
//!
//! The actor tells events (`started`, `ended`, ...); [`reconcile`](super::reconcile::reconcile)
//! reads the result and says what to do. Both can be repeated without harm.

use super::backoff::{Backoff, BackoffScale};
use impresario_host::{ContainerId, Exit};
use jiff::Timestamp;
use std::time::{Duration, Instant};

/// What happens to a container that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    /// It is started again.
    Always,
    /// It is started again unless its exit code was zero.
    OnFailure,
    /// It stays as it is.
    Never,
}

impl RestartPolicy {
    /// From `spec.restartPolicy`; `Always` is the default.
    pub fn parse(text: Option<&str>) -> Self {
        match text {
            Some("Never") => Self::Never,
            Some("OnFailure") => Self::OnFailure,
            _ => Self::Always,
        }
    }

    /// Whether a container that ended with `code` is started again.
    pub fn restarts(self, code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => code != 0,
            Self::Never => false,
        }
    }
}

/// The part that a container plays in its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container that goes on beside the others (`restartPolicy: Always`).
    Sidecar,
    /// What the pod is for.
    Main,
}

/// A container that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its id; none where it could not even be made.
    pub id: Option<ContainerId>,
    /// How.
    pub exit: Exit,
}

/// Where a container is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Life {
    /// Not started (again) yet.
    Waiting {
        /// `PodInitializing`, `ContainerCreating`, `ErrImagePull`, ...
        reason: String,
        /// More for people.
        message: String,
    },
    /// A start is under way.
    Starting,
    /// It runs.
    Running {
        /// Its id.
        id: ContainerId,
        /// Since when, for people.
        started_at: Timestamp,
        /// Since when, for arithmetic.
        since: Instant,
        /// The grace period of a stop that is under way.
        stopping: Option<Duration>,
    },
    /// It ended.
    Ended(Ended),
}

/// A container of the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// The part it plays.
    pub part: Part,
    /// Where it is in its life.
    pub life: Life,
    /// How its previous life ended.
    pub last: Option<Ended>,
    /// How often it was started again.
    pub restarts: u32,
    /// The number that its next start gets; none is used twice.
    pub attempt: u32,
    /// How long it waits before it is started again.
    pub backoff: Backoff,
    /// Whether a startup probe, if there is one, has passed.
    pub started: bool,
    /// Whether a readiness probe, if there is one, passes.
    pub passes: bool,
    /// Why it must be started anew, when a liveness or startup probe gave it up.
    pub given_up: Option<String>,
    /// How long it has to end then, where the probe has a grace period of its own.
    pub given_up_grace: Option<Duration>,
    /// Whether it may run although its start failed: nobody heard what became of that.
    pub in_doubt: bool,
    /// Whether its `postStart` hook has still to pass; until then it counts as not started.
    pub is_greeting: bool,
    probes: Probed,
}

/// Which probes and hooks a container has, as far as its life depends on them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Probed {
    /// It counts as started only when a probe says so.
    pub startup: bool,
    /// It counts as ready only when a probe says so.
    pub readiness: bool,
    /// It counts as started only when its `postStart` hook has passed.
    pub post_start: bool,
}

impl Container {
    /// A container that was never started.
    pub fn new(name: &str, part: Part, probes: Probed) -> Self {
        Self {
            name: name.to_owned(),
            part,
            life: Life::Waiting { reason: "ContainerCreating".into(), message: String::new() },
            last: None,
            restarts: 0,
            attempt: 0,
            backoff: Backoff::default(),
            started: false,
            passes: false,
            given_up: None,
            given_up_grace: None,
            in_doubt: false,
            is_greeting: false,
            probes,
        }
    }

    /// Which probes it has.
    pub fn probes(&self) -> Probed {
        self.probes
    }

    /// Its `postStart` hook has passed, or there is none.
    pub fn greeted(&mut self) {
        self.is_greeting = false;
        self.started = !self.probes.startup;
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        matches!(self.life, Life::Running { .. })
    }

    /// Whether it runs and does its work.
    pub fn is_ready(&self) -> bool {
        match &self.life {
            Life::Running { .. } => self.started && self.passes,
            // An init container that has done its work is ready for ever.
            Life::Ended(ended) => self.part == Part::Init && ended.exit.code == 0,
            Life::Waiting { .. } | Life::Starting => false,
        }
    }

    /// Whether it was ever started.
    pub fn ever_started(&self) -> bool {
        self.last.is_some() || matches!(self.life, Life::Running { .. } | Life::Ended(_))
    }
}

/// What the containers share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sandbox {
    /// Not made, and not to be made before that moment.
    Absent {
        /// After a failure.
        retry: Option<Instant>,
    },
    /// Being made.
    Preparing,
    /// There.
    Ready,
    /// Being removed.
    Removing,
    /// Gone for good.
    Removed,
}

/// Why the whole pod ends before its containers do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// Its object is being deleted, or is gone.
    Deleted,
    /// It failed as a whole: evicted, too long, refused by the node.
    Failed {
        /// `status.reason`.
        reason: String,
        /// `status.message`.
        message: String,
    },
}

/// How a pod ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every container with exit code zero.
    Succeeded,
    /// Otherwise.
    Failed,
}

/// A pod on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// What happens to containers that end.
    pub policy: RestartPolicy,
    /// How long they wait.
    pub scale: BackoffScale,
    /// What they share.
    pub sandbox: Sandbox,
    /// The containers: init containers first, in their order.
    pub containers: Vec<Container>,
    /// Why it ends, if it does.
    pub ending: Option<Ending>,
    /// How long its containers have to end once they are asked.
    pub grace: Duration,
    /// When it has run for too long (`activeDeadlineSeconds`).
    pub deadline: Option<Instant>,
    /// How it had ended before this activation looked at it.
    pub over: Option<Outcome>,
    /// Whether the driver is ending what nobody has heard of.
    pub is_settling: bool,
}

impl Pod {
    /// A pod of which nothing runs yet.
    pub fn new(policy: RestartPolicy, scale: BackoffScale, containers: Vec<Container>) -> Self {
        Self {
            policy,
            scale,
            sandbox: Sandbox::Absent { retry: None },
            containers,
            ending: None,
            grace: Duration::from_secs(30),
            deadline: None,
            over: None,
            is_settling: false,
        }
    }

    /// The container with this name.
    pub fn container(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|container| container.name == name)
    }

    /// The container with this name, to be changed.
    pub fn container_mut(&mut self, name: &str) -> Option<&mut Container> {
        self.containers.iter_mut().find(|container| container.name == name)
    }

    /// Whether a container that ended is started again as long as the pod lives.
    pub fn restarts(&self, container: &Container, code: i32) -> bool {
        match container.part {
            Part::Sidecar => true,
            // With `Always` an init container that succeeded is done all the same.
            Part::Init => code != 0 && self.policy != RestartPolicy::Never,
            Part::Main => self.policy.restarts(code),
        }
    }

    /// Whether all init containers have done their work, and the sidecars are up.
    pub fn is_initialized(&self) -> bool {
        self.containers.iter().all(|container| match (container.part, &container.life) {
            (Part::Main, _) => true,
            (Part::Init, Life::Ended(ended)) => ended.exit.code == 0,
            (Part::Init, _) => false,
            // Once up, a sidecar that is being started again holds nobody up.
            (Part::Sidecar, _) => {
                container.ever_started() && (container.started || container.restarts > 0)
            }
        })
    }

    /// How the pod ended, once nothing of it will ever run again.
    pub fn outcome(&self) -> Option<Outcome> {
        if self.over.is_some() {
            return self.over;
        }
        let still =
            |container: &Container| matches!(container.life, Life::Running { .. } | Life::Starting);
        if self
            .containers
            .iter()
            .any(|container| container.part != Part::Sidecar && still(container))
        {
            return None;
        }
        if let Some(ending) = &self.ending {
            if self.containers.iter().any(|container| still(container) || container.in_doubt) {
                return None;
            }
            if matches!(ending, Ending::Failed { .. }) {
                return Some(Outcome::Failed);
            }
        }
        let over = |container: &Container| match &container.life {
            Life::Ended(ended)
                if self.ending.is_some() || !self.restarts(container, ended.exit.code) =>
            {
                Some(ended.exit.code)
            }
            _ => None,
        };
        let init = self.containers.iter().filter(|container| container.part == Part::Init);
        if init.filter_map(over).any(|code| code != 0) {
            return Some(Outcome::Failed);
        }
        let main = self.containers.iter().filter(|container| container.part == Part::Main);
        let codes: Option<Vec<i32>> = main.map(over).collect();
        match codes {
            Some(codes) if codes.iter().all(|code| *code == 0) => Some(Outcome::Succeeded),
            Some(_) => Some(Outcome::Failed),
            // Deleted before all of it was started.
            None if self.ending.is_some() => Some(Outcome::Failed),
            None => None,
        }
    }

    /// Whether anything of the pod runs, may run or is about to.
    pub fn is_active(&self) -> bool {
        let active = |container: &Container| {
            container.in_doubt || matches!(container.life, Life::Running { .. } | Life::Starting)
        };
        self.containers.iter().any(active)
    }

    /// A start of this container is under way. The number of the attempt.
    pub fn starting(&mut self, name: &str) -> u32 {
        let Some(container) = self.container_mut(name) else { return 0 };
        if let Life::Ended(ended) = std::mem::replace(&mut container.life, Life::Starting) {
            container.last = Some(ended);
            container.restarts += 1;
        }
        (container.given_up, container.given_up_grace) = (None, None);
        container.passes = false;
        container.started = false;
        container.attempt
    }

    /// The number of this container's next attempt is taken already.
    pub fn attempt_taken(&mut self, name: &str) {
        if let Some(container) = self.container_mut(name) {
            container.attempt += 1;
        }
    }

    /// The container runs.
    pub fn started(&mut self, name: &str, id: ContainerId, started_at: Timestamp, since: Instant) {
        let Some(container) = self.container_mut(name) else { return };
        container.attempt += 1;
        container.in_doubt = false;
        container.life = Life::Running { id, started_at, since, stopping: None };
        container.is_greeting = container.probes.post_start;
        container.started = !container.probes.startup && !container.is_greeting;
        container.passes = !container.probes.readiness;
    }

    /// The container could not be started, for a reason that may pass.
    pub fn start_failed(&mut self, name: &str, reason: &str, message: &str, now: Instant) {
        let scale = self.scale;
        let Some(container) = self.container_mut(name) else { return };
        container.life = Life::Waiting { reason: reason.to_owned(), message: message.to_owned() };
        container.backoff.ended(&scale, Duration::ZERO, now);
        // Unlike a crash, a failed start is never tried again at once.
        if container.backoff.blocked_until(now).is_none() {
            container.backoff.ended(&scale, Duration::ZERO, now);
        }
    }

    /// The driver has said what became of a container's failed start, or has not.
    pub fn doubt(&mut self, name: &str, in_doubt: bool) {
        if let Some(container) = self.container_mut(name) {
            container.in_doubt = in_doubt;
        }
    }

    /// Nothing runs of what nobody has heard of.
    pub fn settled(&mut self) {
        self.is_settling = false;
        self.containers.iter_mut().for_each(|container| container.in_doubt = false);
    }

    /// The container ended.
    pub fn ended(&mut self, name: &str, id: Option<ContainerId>, exit: Exit, now: Instant) {
        let scale = self.scale;
        let Some(container) = self.container_mut(name) else { return };
        let ran = match &container.life {
            Life::Running { since, .. } => now.saturating_duration_since(*since),
            Life::Ended(_) => return,
            Life::Waiting { .. } | Life::Starting => Duration::ZERO,
        };
        container.life = Life::Ended(Ended { id, exit });
        container.passes = false;
        container.backoff.ended(&scale, ran, now);
    }

    /// A stop with this grace period was ordered.
    pub fn stopping(&mut self, name: &str, grace: Duration) {
        if let Some(Life::Running { stopping, .. }) = self.container_mut(name).map(|c| &mut c.life)
        {
            *stopping = Some(grace);
        }
    }

    /// A stop came to nothing and is to be ordered again.
    pub fn not_stopped(&mut self, name: &str) {
        if let Some(Life::Running { stopping, .. }) = self.container_mut(name).map(|c| &mut c.life)
        {
            *stopping = None;
        }
    }

    /// The pod is to end; a deletion overrides any other reason, and the shorter grace period wins
    /// over an earlier, longer one.
    pub fn end(&mut self, ending: Ending, grace: Duration) {
        self.grace = if self.ending.is_some() { self.grace.min(grace) } else { grace };
        if self.ending.is_none() || ending == Ending::Deleted {
            self.ending = Some(ending);
        }
    }
}
