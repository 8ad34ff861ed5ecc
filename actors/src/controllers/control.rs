//! The one actor behind every controller: it looks when it starts, when told [`Changed`] and when
//! its last look asked for it, one look at a time.
//!
//! ```text
//!            Changed             ┌─ Ok(WhenTold) ──> idle, looks again after minutes anyway
//!   idle ───────────> looking ───┼─ Ok(At(t)) ─────> idle, Changed at t; hints are heard after a short rest
//!             ^                  ├─ Err ───────────> idle, Changed after a backoff with jitter; where all else
//!             |                  |                   could be done, a hint is heard after a short pause
//!             └── hinted again? ─┴─ Err(fenced) ───> stopped: another member holds the shard
//! ```
//!
//! What is looked at, and what is done about it, is a [`Look`].

mod hear;

use actix::prelude::*;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use impresario_api::status::{Reason, Status};
use impresario_client::objects::protocol::Refusal;
use impresario_client::protocol::control::{Changed, Describe, Description, Scale, Suspend, Told};
use impresario_registry_api::{Fence, ReadError, Remedy, Revision, TransactError};
use impresario_runtime::Backoff;
use k8s_openapi::jiff::Timestamp;
use rand::Rng as _;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;

use super::heard::Heard;
use super::itself::Itself;
use super::mirror::Behind;
use super::panics::message_of;

/// Pauses after looks that failed.
const BACKOFF: Backoff =
    Backoff { first: Duration::from_millis(50), most: Duration::from_secs(10) };
/// Pauses after looks that failed over one thing and could do all others: whoever says that something changed is
/// heard after that long, and only the thing itself waits as long as [`BACKOFF`] says.
const HEARD: Backoff = Backoff { first: Duration::from_millis(100), most: Duration::from_secs(1) };
/// The shortest time between a look that was well and one for a hint: whoever makes hints all the time takes no more than
/// its share of a thread. The first hint after that is heard at once.
const REST: Duration = Duration::from_millis(50);
/// After this long at the most, and half of it at the least, a look is taken although nothing was
/// told: a hint that was lost heals.
const RESYNC: Duration = Duration::from_secs(240);
/// The longest that one look may take.
const LOOK_LIMIT: Duration = Duration::from_secs(60);

/// When to look again although nobody says that anything changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Not before somebody does.
    WhenTold,
    /// At this time.
    At(Timestamp),
}

/// One controller: reads what is, decides, and does it. Must come to the same end however often
/// and in whatever order it is called.
pub trait Look: Send + Sync + 'static {
    /// Looks once.
    fn look(&self) -> BoxFuture<'_, Result<Next, LookError>>;

    /// Looks into what an object of its own says of itself, and has the mirrors show it where it is so. Whether it was
    /// news. Who looks at none has nothing to do about it.
    fn told<'a>(&'a self, _: &'a Told) -> BoxFuture<'a, bool> {
        std::future::ready(false).boxed()
    }
}

/// Why a look did not come to its end. What it did until then stands; the next look goes on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LookError {
    /// A transaction was not applied, or it is not known.
    #[error(transparent)]
    Transact(#[from] TransactError),
    /// Something could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The objects' rules said no.
    #[error("{0}")]
    Refused(#[from] Status),
    /// A mirror has not seen the last write.
    #[error(transparent)]
    Behind(#[from] Behind),
    /// An object is not what its kind promises.
    #[error("{key} is not what its kind promises ({cause}): repair or delete it")]
    Damaged {
        /// Which.
        key: String,
        /// What the decoder said.
        cause: String,
    },
    /// The function that decides panicked.
    #[error(
        "the controller panicked on this object and changed nothing ({message}): look for the cause in \
        the object, delete it if need be, and report a bug"
    )]
    Panicked {
        /// What it said.
        message: String,
    },
    /// The look itself panicked.
    #[error(
        "the look panicked ({message}): what it did until then stands, it is tried again; report a bug"
    )]
    Broken {
        /// What it said.
        message: String,
    },
    /// The look took too long.
    #[error("the look was given up after {0:?}: it is tried again")]
    TooLong(Duration),
}

impl LookError {
    /// Another member holds the shard: nothing that this activation does can have an effect.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        match self {
            Self::Transact(error) => error.remedy() == Remedy::Stop,
            Self::Refused(status) => status.is_fenced(),
            _ => false,
        }
    }

    /// Whether the trouble is with one object, so that the others can be dealt with all the same.
    #[must_use]
    pub fn is_of_one_object(&self) -> bool {
        match self {
            Self::Transact(error) => matches!(error.remedy(), Remedy::ReadAgain | Remedy::GiveUp),
            // Too many requests, not available, not in time: so it would be with the next.
            Self::Refused(status) => {
                !status.is_fenced() && !matches!(status.code(), 429 | 503 | 504)
            }
            Self::Damaged { .. } | Self::Panicked { .. } | Self::Broken { .. } => true,
            Self::Read(_) | Self::Behind(_) | Self::TooLong(_) => false,
        }
    }

    /// Whether all else may be done of what the look was to do, so that a change is worth another look.
    #[must_use]
    pub fn leaves_the_rest(&self) -> bool {
        self.is_of_one_object() && !matches!(self, Self::Panicked { .. } | Self::Broken { .. })
    }

    /// Whether the next try of the same would fail too, as far as is known: it is for what is wanted, and neither for
    /// how the registry is nor since somebody else was quicker.
    #[must_use]
    pub fn is_for_what_is_wanted(&self) -> bool {
        let is_race = match self {
            Self::Refused(status) => status.code() == 409,
            Self::Transact(error) => error.remedy() == Remedy::ReadAgain,
            _ => false,
        };
        self.is_of_one_object() && !is_race
    }
}

/// The actor.
pub struct Control {
    subject: String,
    fence: Fence,
    look: Arc<dyn Look>,
    /// What others may change through it.
    itself: Option<Itself>,
    heard: Heard,
    is_reading: bool,
    looking: bool,
    hinted: bool,
    failures: u32,
    looks: u64,
    last_error: Option<String>,
    /// When it looks next, whatever comes.
    timer: Option<(Instant, SpawnHandle)>,
    /// While it backs off: when a hint makes it look all the same.
    heard_from: Option<Instant>,
    /// Until when it rests after a look that was well.
    rests_until: Instant,
    /// A hint has come meanwhile, and a look is due then.
    is_due: bool,
    rest: Duration,
    resync: Duration,
    backoff: Backoff,
}

impl Control {
    /// An actor that looks by `look` on behalf of `subject`, by right of `fence`.
    #[must_use]
    pub fn new(subject: String, fence: Fence, look: Arc<dyn Look>) -> Self {
        Self {
            subject,
            fence,
            look,
            itself: None,
            heard: Heard::default(),
            is_reading: false,
            looking: false,
            hinted: false,
            failures: 0,
            looks: 0,
            last_error: None,
            timer: None,
            heard_from: None,
            rests_until: Instant::now(),
            is_due: false,
            rest: REST,
            resync: RESYNC,
            backoff: BACKOFF,
        }
    }

    /// The same, for an object that others may change through it.
    #[must_use]
    pub fn of(self, itself: Option<Itself>) -> Self {
        Self { itself, ..self }
    }

    fn changeable(&self) -> Result<Itself, Refusal> {
        self.itself.clone().ok_or_else(|| {
            let why = format!("{} has no object that could be changed: ask another", self.subject);
            Status::new(Reason::MethodNotAllowed, why).into()
        })
    }

    fn start_looking(&mut self, context: &mut Context<Self>) {
        if self.looking {
            self.hinted = true;
            return;
        }
        self.looking = true;
        self.hinted = false;
        self.looks += 1;
        self.heard_from = None;
        self.is_due = false;
        if let Some((_, timer)) = self.timer.take() {
            context.cancel_future(timer);
        }
        let look = self.look.clone();
        let outcome = async move {
            let looked = AssertUnwindSafe(async { look.look().await }).catch_unwind();
            match tokio::time::timeout(LOOK_LIMIT, looked).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(panic)) => Err(LookError::Broken { message: message_of(panic.as_ref()) }),
                Err(_) => Err(LookError::TooLong(LOOK_LIMIT)),
            }
        };
        context.spawn(outcome.into_actor(self).map(Self::settle));
    }

    fn settle(outcome: Result<Next, LookError>, this: &mut Self, context: &mut Context<Self>) {
        this.looking = false;
        let resync = resync(this.resync, rand::rng().random_range(0.0..1.0));
        let wait = match outcome {
            Ok(next) => {
                this.failures = 0;
                this.last_error = None;
                this.rests_until = Instant::now() + this.rest;
                match next {
                    Next::WhenTold => resync,
                    Next::At(due) => {
                        let wait = due.duration_since(Timestamp::now());
                        Duration::try_from(wait).unwrap_or(Duration::ZERO).min(resync)
                    }
                }
            }
            Err(error) if error.is_fenced() => {
                tracing::info!(actor = this.subject, shard = %this.fence.shard, epoch = %this.fence.epoch,
                    "another member holds the shard: stopping");
                context.stop();
                return;
            }
            Err(error) => {
                let lot = || rand::rng().random_range(0.0..1.0);
                let wait = this.backoff.wait(this.failures, lot());
                let heard = HEARD.wait(this.failures, lot());
                let is_heard = error.leaves_the_rest() && heard < wait;
                this.heard_from = is_heard.then(|| Instant::now() + heard);
                this.failures = this.failures.saturating_add(1);
                if this.failures > 3 {
                    tracing::warn!(actor = this.subject, %error, failures = this.failures, "look failed");
                }
                this.last_error = Some(error.to_string());
                wait
            }
        };
        this.look_in(wait, context);
        if this.hinted {
            this.hear(context);
        }
    }

    fn look_in(&mut self, wait: Duration, context: &mut Context<Self>) {
        let timer = context.run_later(wait, |this, context| {
            this.timer = None;
            this.start_looking(context);
        });
        if let Some((_, before)) = self.timer.replace((Instant::now() + wait, timer)) {
            context.cancel_future(before);
        }
    }

    /// Looks for a hint: after a rest. While it backs off: earlier where that may be of use. Once; the hints that follow
    /// are of the same look.
    fn hear(&mut self, context: &mut Context<Self>) {
        if self.looking {
            self.hinted = true;
        } else if self.failures == 0 {
            let rests = self.rests_until.saturating_duration_since(Instant::now());
            if rests.is_zero() {
                self.start_looking(context);
            } else if !std::mem::replace(&mut self.is_due, true)
                && self.timer.is_none_or(|(at, _)| at > self.rests_until)
            {
                self.look_in(rests, context);
            }
        } else if let Some(from) = self.heard_from.take() {
            self.look_in(from.saturating_duration_since(Instant::now()), context);
        }
    }
}

/// How long until a look that nobody asked for, at the most `longest`, by a lot in 0..1.
fn resync(longest: Duration, lot: f64) -> Duration {
    longest.mul_f64(0.5 + lot.clamp(0.0, 1.0) / 2.0)
}

impl Actor for Control {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        self.start_looking(context);
    }
}

impl Handler<Changed> for Control {
    type Result = ();

    fn handle(&mut self, _: Changed, context: &mut Self::Context) {
        // A stream of hints must defeat neither the rest nor the backoff.
        self.hear(context);
    }
}

impl Handler<Describe> for Control {
    type Result = MessageResult<Describe>;

    fn handle(&mut self, _: Describe, _: &mut Self::Context) -> Self::Result {
        MessageResult(Description {
            subject: self.subject.clone(),
            shard: self.fence.shard.0,
            epoch: self.fence.epoch.0,
            looks: self.looks,
            last_error: self.last_error.clone(),
        })
    }
}

impl Handler<Scale> for Control {
    type Result = ResponseFuture<Result<Revision, Refusal>>;

    fn handle(&mut self, scale: Scale, _: &mut Self::Context) -> Self::Result {
        let itself = self.changeable();
        Box::pin(async move { itself?.scale(scale.sender, scale.replicas).await })
    }
}

impl Handler<Suspend> for Control {
    type Result = ResponseFuture<Result<Revision, Refusal>>;

    fn handle(&mut self, suspend: Suspend, _: &mut Self::Context) -> Self::Result {
        let itself = self.changeable();
        Box::pin(async move { itself?.suspend(suspend.sender, suspend.suspend).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use impresario_registry_api::{Epoch, Shard};
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::sync::mpsc;

    /// No passing test spends it.
    const LIMIT: Duration = Duration::from_secs(60);

    /// Says that it looks, and that it need not look again for very long.
    struct Content(mpsc::UnboundedSender<()>, Next);

    impl Look for Content {
        fn look(&self) -> BoxFuture<'_, Result<Next, LookError>> {
            let _ = self.0.send(());
            let next = self.1;
            async move { Ok(next) }.boxed()
        }
    }

    #[actix::test]
    async fn a_controller_that_nobody_tells_anything_looks_again_all_the_same() {
        let far = Timestamp::now() + k8s_openapi::jiff::SignedDuration::from_hours(1);
        for next in [Next::WhenTold, Next::At(far)] {
            let (seen, mut looks) = mpsc::unbounded_channel();
            let fence = Fence { shard: Shard(0), epoch: Epoch(1) };
            let mut control = Control::new("test".into(), fence, Arc::new(Content(seen, next)));
            assert!(control.resync >= Duration::from_mins(1), "it is not what looks are made by");
            control.resync = Duration::from_millis(5);
            let _running = control.start();
            for _ in 0..4 {
                let look = tokio::time::timeout(LIMIT, looks.recv()).await;
                assert_eq!(look, Ok(Some(())), "{next:?}");
            }
        }
    }

    /// Panics on its first look.
    struct Clumsy(mpsc::UnboundedSender<()>, AtomicBool);

    impl Look for Clumsy {
        fn look(&self) -> BoxFuture<'_, Result<Next, LookError>> {
            async {
                assert!(self.1.swap(true, Ordering::SeqCst), "it stumbles");
                let _ = self.0.send(());
                Ok(Next::WhenTold)
            }
            .boxed()
        }
    }

    #[actix::test]
    async fn a_look_that_panics_is_tried_again_and_said() {
        let (seen, mut looks) = mpsc::unbounded_channel();
        let fence = Fence { shard: Shard(0), epoch: Epoch(1) };
        let look = Arc::new(Clumsy(seen, AtomicBool::new(false)));
        let control = Control::new("test".into(), fence, look).start();
        assert_eq!(tokio::time::timeout(LIMIT, looks.recv()).await, Ok(Some(())));
        assert_eq!(control.send(Describe).await.unwrap().looks, 2, "the first one panicked");
    }

    /// Fails as it is told to.
    struct Failing(mpsc::UnboundedSender<()>, fn() -> LookError);

    impl Look for Failing {
        fn look(&self) -> BoxFuture<'_, Result<Next, LookError>> {
            let _ = self.0.send(());
            async { Err((self.1)()) }.boxed()
        }
    }

    /// The actor over this failure, of which only hints make it look again; its looks.
    fn failing(error: fn() -> LookError) -> (Addr<Control>, mpsc::UnboundedReceiver<()>) {
        let (seen, looks) = mpsc::unbounded_channel();
        let fence = Fence { shard: Shard(0), epoch: Epoch(1) };
        let mut control = Control::new("test".into(), fence, Arc::new(Failing(seen, error)));
        control.backoff = Backoff { first: LIMIT * 100, most: LIMIT * 100 };
        (control.start(), looks)
    }

    #[actix::test]
    async fn one_thing_that_is_refused_keeps_no_hint_from_being_heard_soon() {
        let (control, mut looks) = failing(|| LookError::Refused(Status::bad_request("no")));
        for _ in 0..3 {
            assert_eq!(tokio::time::timeout(LIMIT, looks.recv()).await, Ok(Some(())));
            control.send(Changed).await.unwrap();
        }
        // A panic is the same whatever changed, until its object does.
        let (control, mut looks) = failing(|| LookError::Panicked { message: "x".into() });
        assert_eq!(tokio::time::timeout(LIMIT, looks.recv()).await, Ok(Some(())));
        for _ in 0..3 {
            control.send(Changed).await.unwrap();
        }
        assert_eq!(control.send(Describe).await.unwrap().looks, 1);
    }

    #[actix::test]
    async fn a_controller_that_is_told_all_the_time_rests_between_its_looks_and_misses_nothing() {
        let (seen, mut looks) = mpsc::unbounded_channel();
        let fence = Fence { shard: Shard(0), epoch: Epoch(1) };
        let look = Arc::new(Content(seen, Next::WhenTold));
        let with = |rest| Control { rest, ..Control::new("test".into(), fence, look.clone()) };
        let control = with(LIMIT * 100).start();
        assert_eq!(tokio::time::timeout(LIMIT, looks.recv()).await, Ok(Some(())));
        for _ in 0..10 {
            control.send(Changed).await.unwrap();
        }
        assert_eq!(control.send(Describe).await.unwrap().looks, 1, "it has no pause");
        // What it was told meanwhile is one look, afterwards.
        let control = with(Duration::from_millis(5)).start();
        assert_eq!(tokio::time::timeout(LIMIT, looks.recv()).await, Ok(Some(())));
        for _ in 0..3 {
            control.send(Changed).await.unwrap();
            assert_eq!(tokio::time::timeout(LIMIT, looks.recv()).await, Ok(Some(())));
        }
    }

    #[test]
    fn looks_that_nobody_asked_for_come_within_minutes_and_not_all_at_once() {
        assert_eq!(resync(RESYNC, 0.0), RESYNC / 2);
        assert_eq!(resync(RESYNC, 1.0), RESYNC);
    }
}
