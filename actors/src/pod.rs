//! Runs the containers of one pod on this machine, from binding to the last trace.
//!
//! ```text
//!  Node actor ──Desired (watch channel)──> Pod actor ──Progress──> Node actor
//!                                            │  reconcile -> actions -> driver
//!                                            └─ status, by compare-and-set ──> registry
//! ```
//!
//! Guarantees: containers outlive this actor and its process, and the next activation takes them
//! over; what is in the status happened; the object of a deleted pod goes only after the last
//! trace of the pod is gone from the machine. [`reconcile`](mod@reconcile) decides, this file only carries out.

pub mod backoff;
mod claims;
pub mod environment;
pub mod kit;
pub mod life;
pub mod probes;
pub mod reconcile;
pub mod recover;
pub mod status;

mod account;
mod ask_authority;
mod filling;
mod guest;
mod hook;
mod hooks;
mod last_words;
mod launch;
mod leave;
mod logs;
mod messages;
mod not_done;
pub mod owners;
mod prepare;
mod prepared;
mod probing;
mod question;
mod renewal;
mod report;
mod resolver;
mod sessions;
mod sources;
mod status_writer;

pub use guest::GUEST_ANNOTATION;
use impresario_runtime::clock;

use crate::change;
use actix::prelude::*;
use futures_util::stream;
use impresario_host::{ContainerId, ContainerState, Exit, Found, container::DriverError};
use impresario_objects::events::Severity;
use impresario_registry_api::{Entry, Key};
use jiff::Timestamp;
use k8s_openapi::api::core::v1;
use kit::{Desired, Kit, Progress};
use life::{Ending, Life, Pod};
use prepared::Prepared;
use probes::Purpose;
use reconcile::{Action, reconcile};
use report::Report;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::sync::{Semaphore, watch};

/// How long a failed step waits before it is tried again; failed preparations double it.
const AGAIN: Duration = Duration::from_secs(1);
/// Sessions that others have with one pod at a time.
const SESSIONS: usize = 64;
const AGAIN_AT_MOST: Duration = Duration::from_mins(1);

/// The actor.
pub struct PodActor {
    kit: Arc<Kit>,
    desired: watch::Receiver<Desired>,
    progress: watch::Sender<Progress>,
    /// The object as it was last seen or written.
    entry: Entry,
    object: v1::Pod,
    uid: String,
    life: Pod,
    /// Whether what a predecessor left has been found.
    is_recovered: bool,
    prepared: Option<Prepared>,
    failed_preparations: u32,
    probes: BTreeMap<(String, Purpose), SpawnHandle>,
    timer: Option<SpawnHandle>,
    /// Of the renewal of the tokens in its volumes.
    token_timer: Option<SpawnHandle>,
    report: Report,
    taken_on: Timestamp,
    is_finishing: bool,
    is_gone: bool,
    /// Places for sessions that others have with it.
    sessions: Arc<Semaphore>,
}

impl PodActor {
    /// The actor of the pod that `desired` speaks of.
    pub fn new(
        kit: Arc<Kit>,
        desired: watch::Receiver<Desired>,
        progress: watch::Sender<Progress>,
    ) -> Self {
        let entry = desired.borrow().entry.clone();
        // The Node actor only hands on what it could read.
        let object: v1::Pod = change::decode(&entry).unwrap_or_default();
        let uid = object.metadata.uid.clone().unwrap_or_default();
        let now = (clock::now(), clock::timestamp());
        let life = recover::recover(&object, &[], kit.scale, now);
        Self {
            kit,
            desired,
            progress,
            entry,
            object,
            uid,
            life,
            is_recovered: false,
            prepared: None,
            failed_preparations: 0,
            probes: BTreeMap::new(),
            timer: None,
            token_timer: None,
            report: Report::default(),
            taken_on: now.1,
            is_finishing: false,
            is_gone: false,
            sessions: Arc::new(Semaphore::new(SESSIONS)),
        }
    }

    fn key(&self) -> &Key {
        &self.entry.key
    }

    fn name(&self) -> &str {
        &self.entry.key.name
    }

    fn container_spec(&self, name: &str) -> Option<&v1::Container> {
        let spec = self.object.spec.as_ref()?;
        spec.containers
            .iter()
            .chain(spec.init_containers.iter().flatten())
            .find(|container| container.name == name)
    }
}

impl Actor for PodActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.find_predecessor(ctx);
    }
}

impl PodActor {
    /// Looks for containers of an earlier activation; nothing is done before it is known.
    fn find_predecessor(&mut self, ctx: &mut Context<Self>) {
        let (driver, uid) = (self.kit.driver.clone(), self.uid.clone());
        let words = self.last_words_of_any();
        let list = async move {
            let found = driver.list().await?;
            let mut found: Vec<_> =
                found.into_iter().filter(|found| found.pod_uid == uid).collect();
            for one in &mut found {
                if let ContainerState::Exited(exit) = &mut one.state {
                    let words = words(&one.container, &one.id, one.attempt);
                    *exit = words.added(exit.clone()).await;
                }
            }
            for id in recover::outdated(&found) {
                driver.remove(&id).await?;
            }
            Ok::<_, DriverError>(found)
        };
        ctx.wait(list.into_actor(self).map(|found, pod, ctx| match found {
            Ok(found) => pod.recovered(&found, ctx),
            Err(error) => {
                tracing::warn!(pod = %pod.key(), %error, "containers cannot be listed, trying again");
                ctx.run_later(AGAIN, PodActor::find_predecessor);
            }
        }));
    }

    fn recovered(&mut self, found: &[Found], ctx: &mut Context<Self>) {
        let now = (clock::now(), clock::timestamp());
        self.life = recover::recover(&self.object, found, self.kit.scale, now);
        self.is_recovered = true;
        let running = self.life.containers.iter().filter_map(|container| match &container.life {
            Life::Running { id, .. } => Some((container.name.clone(), id.clone())),
            _ => None,
        });
        for (name, id) in running.collect::<Vec<_>>() {
            tracing::info!(pod = %self.key(), container = %name, "taken over from an earlier process");
            self.wait_for_end(name, id, ctx);
        }
        let desired = self.desired.clone();
        ctx.add_stream(stream::unfold((desired, true), |(mut desired, first)| async move {
            if !first && desired.changed().await.is_err() {
                return None;
            }
            let now = desired.borrow_and_update().clone();
            Some((now, (desired, false)))
        }));
    }

    /// Carries out what `reconcile` says until it says nothing more.
    fn step(&mut self, ctx: &mut Context<Self>) {
        if !self.is_recovered || self.is_finishing {
            return;
        }
        let now = clock::now();
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        for action in reconcile(&self.life, now) {
            match action {
                Action::Prepare => self.prepare(ctx),
                Action::Start(name) => self.launch(&name, ctx),
                Action::Stop(name, grace) => self.stop(name, grace, ctx),
                Action::Settle => self.settle(ctx),
                Action::Overdue => {
                    let message = "Pod was active on the node longer than the specified deadline";
                    self.fail("DeadlineExceeded", message, None);
                    ctx.notify(Again);
                }
                Action::Remove => self.remove(ctx),
                Action::Finish => self.finish(ctx),
                Action::WakeAt(when) => {
                    let wait = when.saturating_duration_since(now);
                    self.timer = Some(ctx.run_later(wait, |pod, ctx| {
                        pod.timer = None;
                        pod.step(ctx);
                    }));
                }
            }
        }
        if self.life.outcome().is_some() && !self.life.is_active() {
            self.kit.take_back_gpus(&self.uid);
            self.progress.send_if_modified(|progress| {
                let news = *progress < Progress::Over;
                if news {
                    *progress = Progress::Over;
                }
                news
            });
        }
        self.write_status(ctx);
    }

    /// The pod fails as a whole.
    fn fail(&mut self, reason: &str, message: &str, grace: Option<Duration>) {
        let ending = Ending::Failed { reason: reason.to_owned(), message: message.to_owned() };
        let grace = grace.unwrap_or(self.life.grace);
        self.life.end(ending, grace);
    }

    fn stop(&mut self, name: String, grace: Duration, ctx: &mut Context<Self>) {
        let Some(Life::Running { id, stopping, .. }) =
            self.life.container(&name).map(|c| c.life.clone())
        else {
            return;
        };
        // A stop that overtakes another one is in more of a hurry.
        let hook = match stopping {
            None => self.hook(&name, &id, |lifecycle| &lifecycle.pre_stop),
            Some(_) => None,
        };
        self.life.stopping(&name, grace);
        let why = self.life.container(&name).and_then(|container| container.given_up.clone());
        let message = match why {
            Some(why) => format!("Container {name} {why}, will be restarted"),
            None => format!("Stopping container {name}"),
        };
        self.tell(&name, Severity::Normal, "Killing", &message);
        let words = self.last_words(&name, &id, self.current_attempt(&name));
        let stop = hook::stop(self.place(&id), hook, grace);
        let work = async move {
            let (stopped, failed) = stop.await;
            match stopped {
                Ok(exit) => (Ok(words.added(exit).await), failed),
                stopped => (stopped, failed),
            }
        };
        ctx.spawn(work.into_actor(self).map(move |(stopped, failed), pod, ctx| {
            if let Some(why) = failed {
                let message = format!("PreStopHook failed: {why}");
                pod.tell(&name, Severity::Warning, "FailedPreStopHook", &message);
            }
            match stopped {
                Ok(exit) => pod.container_ended(&name, &id, exit, ctx),
                Err(DriverError::NoContainer { id }) => pod.container_ended(&name, &id, vanished(), ctx),
                Err(error) => {
                    tracing::warn!(pod = %pod.key(), container = %name, %error, "cannot be stopped, trying again");
                    ctx.run_later(AGAIN, move |pod, ctx| {
                        pod.life.not_stopped(&name);
                        pod.step(ctx);
                    });
                }
            }
        }));
    }

    /// Nothing more is started of this pod: what may run unheard of is ended before it counts as over.
    fn settle(&mut self, ctx: &mut Context<Self>) {
        self.life.is_settling = true;
        let (driver, uid) = (self.kit.driver.clone(), self.uid.clone());
        let settle = async move { driver.settle(&uid).await };
        ctx.spawn(settle.into_actor(self).map(|settled, pod, ctx| match settled {
            Ok(()) => {
                pod.life.settled();
                pod.step(ctx);
            }
            Err(error) => {
                tracing::warn!(pod = %pod.key(), %error, "a container that may run cannot be ended, trying again");
                ctx.run_later(AGAIN, |pod, ctx| {
                    pod.life.is_settling = false;
                    pod.step(ctx);
                });
            }
        }));
    }

    /// Waits for the end of a container that runs.
    fn wait_for_end(&mut self, name: String, id: ContainerId, ctx: &mut Context<Self>) {
        let driver = self.kit.driver.clone();
        let waited = id.clone();
        let words = self.last_words(&name, &id, self.current_attempt(&name));
        let work = async move {
            loop {
                match driver.wait(&waited).await {
                    Ok(exit) => return words.added(exit).await,
                    Err(DriverError::NoContainer { .. }) => return vanished(),
                    Err(error) => {
                        tracing::debug!(container = %waited, %error, "waiting again");
                        tokio::time::sleep(AGAIN).await;
                    }
                }
            }
        };
        self.watch_probes(&name, ctx);
        ctx.spawn(
            work.into_actor(self)
                .map(move |exit, pod, ctx| pod.container_ended(&name, &id, exit, ctx)),
        );
    }

    fn container_ended(
        &mut self,
        name: &str,
        id: &ContainerId,
        exit: Exit,
        ctx: &mut Context<Self>,
    ) {
        let is_current = self.life.container(name).is_some_and(|container| {
            matches!(&container.life, Life::Running { id: running, .. } if running == id)
        });
        if !is_current {
            return; // heard before, from the other of stop and wait
        }
        self.unwatch_probes(name, ctx);
        let now = clock::now();
        let code = exit.code;
        self.life.ended(name, Some(id.clone()), exit, now);
        let Some(container) = self.life.container(name) else { return };
        let is_looping = self.life.ending.is_none()
            && self.life.restarts(container, code)
            && container.backoff.blocked_until(now).is_some();
        if is_looping {
            let message = format!(
                "Back-off restarting failed container {name} in pod {}_{}({})",
                self.name(),
                self.key().namespace,
                self.uid
            );
            self.tell(name, Severity::Warning, "BackOff", &message);
        }
        // The life before the last one is of no use to anyone any more.
        let oldest = self
            .life
            .container(name)
            .and_then(|c| c.last.as_ref())
            .and_then(|last| last.id.clone());
        if let Some(oldest) = oldest
            && self.life.ending.is_none()
        {
            self.report.outdated.insert(name.to_owned(), oldest);
        }
        self.step(ctx);
    }

    fn tell(&self, container: &str, severity: Severity, reason: &str, message: &str) {
        let is_init = self.life.container(container).is_some_and(|c| c.part != life::Part::Main);
        let list = if is_init { "initContainers" } else { "containers" };
        let field = format!("spec.{list}{{{container}}}");
        self.kit.events.record(self.key(), &self.uid, &field, severity, reason, message);
    }
}

/// Look again: something changed outside of a handler.
#[derive(Message)]
#[rtype(result = "()")]
struct Again;

impl Handler<Again> for PodActor {
    type Result = ();

    fn handle(&mut self, _: Again, ctx: &mut Self::Context) {
        self.step(ctx);
    }
}

impl StreamHandler<Desired> for PodActor {
    fn handle(&mut self, desired: Desired, ctx: &mut Self::Context) {
        if desired.entry.mod_revision >= self.entry.mod_revision
            && let Ok(object) = change::decode::<v1::Pod>(&desired.entry)
        {
            self.object = object;
            self.entry = desired.entry;
            let now = (clock::now(), clock::timestamp());
            self.life.deadline = recover::deadline(&self.object, self.taken_on, now);
        }
        self.is_gone |= desired.gone;
        if let Some((reason, message)) = desired.refused
            && self.life.ending.is_none()
            && self.life.outcome().is_none()
        {
            self.kit.events.warning(self.key(), &self.uid, &reason, &message);
            self.fail(&reason, &message, None);
        }
        if self.is_gone {
            self.life.end(Ending::Deleted, Duration::from_secs(1));
        } else if self.object.metadata.deletion_timestamp.is_some() {
            self.life.end(Ending::Deleted, recover::grace(&self.object));
        }
        self.step(ctx);
    }

    /// The Node actor is gone, and with it the reason to go on; the containers stay.
    fn finished(&mut self, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

fn vanished() -> Exit {
    Exit {
        code: 137,
        signal: None,
        started_at: None,
        finished_at: clock::timestamp(),
        reason: "ContainerStatusUnknown".to_owned(),
        message: "The container was removed by someone else".to_owned(),
    }
}
