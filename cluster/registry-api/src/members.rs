//! Calls to control members: to the one that answered last, and to the next one when that fails.
//!
//! Pauses between attempts grow and vary, and every call ends by its deadline. A list is put together from pages, all
//! of one revision. A watch that is cut goes on at another member after the last revision that was seen, without a
//! gap. Which actor is asked, and in which messages, is the caller's.

use crate::{
    error::{ReadError, WatchError},
    query::{ListRequest, Page, WatchBatch, WatchRequest},
    watch::Watch,
};
use futures_util::{StreamExt, stream};
use impresario_runtime::{
    Accepts, ActorNode, ActorPath, ActorRef, AskError, ItemStream, Message, NodeName, Remedy, Role,
    StreamMessage, Streams,
};
use std::{
    future::Future,
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

/// How long a call may take in all.
pub const CALL_LIMIT: Duration = Duration::from_secs(15);
/// How long one member is given; longer than it takes a member to find out that it has no leader.
pub const ATTEMPT_LIMIT: Duration = Duration::from_secs(9);
/// How often a list is begun anew when its revision is no longer kept before its end.
const LIST_TRIES: usize = 3;
pub(crate) const OPEN_LIMIT: Duration = Duration::from_secs(3);
/// A watch that cannot be taken up again for this long after it broke off ends with `Closed`.
const RESUME_LIMIT: Duration = Duration::from_mins(1);
/// One that went on for so long at a member was taken up there.
const TAKEN_UP: Duration = Duration::from_secs(5);
/// A member tells a watch something at least every five seconds; after this silence it is taken for lost.
const SILENCE: Duration = Duration::from_secs(20);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Pauses that double and vary, up to a deadline.
#[derive(Debug)]
pub struct Pauses {
    next: Duration,
    until: Instant,
}

impl Pauses {
    /// Pauses up to a deadline.
    pub fn until(until: Instant) -> Self {
        Self { next: FIRST_PAUSE, until }
    }

    /// How much time is left; none when it is up.
    pub fn left(&self) -> Option<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// A watch broke off that had gone on for so long: its time to be taken up again begins, however long its reader was
    /// away, unless a member had opened it and ended it at once.
    fn broke_off(&mut self, lived: Duration, now: Instant) {
        if lived >= TAKEN_UP {
            *self = Self::until(now + RESUME_LIMIT);
        }
    }

    /// Waits, up to the deadline.
    pub async fn pause(&mut self) {
        let pause = self.next.mul_f64(rand::random_range(0.5..1.0));
        self.next = (self.next * 2).min(LONGEST_PAUSE);
        sleep(pause.min(self.until.saturating_duration_since(Instant::now()))).await;
    }
}

/// What came of an attempt that was not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failed {
    /// It was not handled.
    NotTaken(String),
    /// It may have been.
    InDoubt(String),
    /// Every member would refuse it.
    Refused(String),
}

/// The control members that are asked by a role.
#[derive(Debug)]
pub struct Members<R> {
    node: ActorNode,
    names: watch::Receiver<Vec<NodeName>>,
    actor: &'static str,
    /// Which of them answered last.
    current: AtomicUsize,
    role: PhantomData<fn() -> R>,
}

impl<R: Role> Members<R> {
    /// Members that may change, of which each has an actor of this name. The node's address book must know them.
    pub fn new(
        node: ActorNode,
        names: watch::Receiver<Vec<NodeName>>,
        actor: &'static str,
    ) -> Self {
        let current = AtomicUsize::new(rand::random_range(0..64));
        Self { node, names, actor, current, role: PhantomData }
    }

    fn member(&self) -> Option<ActorRef<R>> {
        let names = self.names.borrow();
        let place = self.current.load(Ordering::Relaxed).checked_rem(names.len())?;
        Some(self.node.actor(ActorPath::new(names[place].clone(), self.actor)))
    }

    /// How many members are known.
    pub fn count(&self) -> usize {
        self.names.borrow().len()
    }

    /// Asks another member from now on.
    pub fn fail_over(&self) {
        self.current.fetch_add(1, Ordering::Relaxed);
    }

    /// Asks one member once.
    pub async fn attempt<M: Message>(&self, message: M, limit: Duration) -> Result<M::Reply, Failed>
    where
        R: Accepts<M>,
    {
        let member = self
            .member()
            .ok_or_else(|| Failed::NotTaken("no control member is known".to_owned()))?;
        member.ask(message, limit).await.map_err(|error| {
            if let AskError::Refused { reason } = error {
                return Failed::Refused(reason);
            }
            self.fail_over();
            match (error.remedy(), &error) {
                (Remedy::LookFirst, _) | (_, AskError::Stopped { .. }) => {
                    Failed::InDoubt(error.to_string())
                }
                _ => Failed::NotTaken(error.to_string()),
            }
        })
    }

    /// Asks until a member answers with more than "not now".
    pub async fn read<M, T>(&self, message: M) -> Result<T, ReadError>
    where
        M: Message<Reply = Result<T, ReadError>> + Clone,
        R: Accepts<M>,
    {
        let mut pauses = Pauses::until(Instant::now() + CALL_LIMIT);
        let mut last = "no time was left".to_owned();
        while let Some(left) = pauses.left() {
            match self.attempt(message.clone(), left.min(ATTEMPT_LIMIT)).await {
                Ok(Err(ReadError::Unavailable { reason })) => {
                    self.fail_over();
                    last = reason;
                }
                Ok(answer) => return answer,
                Err(Failed::Refused(reason)) => return Err(ReadError::Refused { reason }),
                Err(Failed::NotTaken(reason) | Failed::InDoubt(reason)) => last = reason,
            }
            pauses.pause().await;
        }
        Err(ReadError::Unavailable { reason: last })
    }

    /// A member answers so many bytes at a time; a list is put together here, all of one revision.
    pub async fn list<M>(
        &self,
        request: ListRequest,
        asking: impl Fn(ListRequest) -> M + Send + Sync,
    ) -> Result<Page, ReadError>
    where
        M: Message<Reply = Result<Page, ReadError>> + Clone,
        R: Accepts<M>,
    {
        pages(request, |request| self.read(asking(request))).await
    }

    /// Opens a watch at whichever member takes it.
    async fn open<M>(&self, message: M, pauses: &mut Pauses) -> Result<Batches, WatchError>
    where
        M: StreamMessage<Item = Result<WatchBatch, WatchError>> + Clone,
        R: Streams<M>,
    {
        while let Some(left) = pauses.left() {
            if let Some(member) = self.member() {
                match member.open(message.clone(), left.min(OPEN_LIMIT)).await {
                    Ok(batches) => return Ok(batches),
                    Err(AskError::Refused { reason }) => {
                        return Err(WatchError::Refused { reason });
                    }
                    Err(error) => tracing::debug!(%error, "a watch is not taken up by this member"),
                }
            }
            self.fail_over();
            pauses.pause().await;
        }
        Err(WatchError::Closed)
    }

    /// A watch that outlives the members that serve it.
    pub async fn watch<M>(
        self: Arc<Self>,
        request: WatchRequest,
        asking: impl Fn(WatchRequest) -> M + Send + Sync + 'static,
    ) -> Result<Watch, WatchError>
    where
        M: StreamMessage<Item = Result<WatchBatch, WatchError>> + Clone + Sync,
        R: Streams<M>,
    {
        let bookmarks = request.bookmarks;
        let request = WatchRequest { bookmarks: true, ..request };
        let mut pauses = Pauses::until(Instant::now() + RESUME_LIMIT);
        let batches = Some(self.open(asking(request.clone()), &mut pauses).await?);
        let opened = Instant::now();
        let following =
            Following { members: self, asking, request, bookmarks, batches, opened, pauses };
        Ok(Watch::new(stream::unfold(following, |mut following| async move {
            let item = following.next().await;
            Some((item, following))
        })))
    }
}

type Batches = ItemStream<Result<WatchBatch, WatchError>>;

/// A watch that is taken up anew wherever it breaks off.
struct Following<R, F> {
    members: Arc<Members<R>>,
    asking: F,
    request: WatchRequest,
    /// Whether the watcher wants bookmarks; the member is asked for them in any case.
    bookmarks: bool,
    batches: Option<Batches>,
    opened: Instant,
    /// Before it is opened anew.
    pauses: Pauses,
}

impl<R, M, F> Following<R, F>
where
    M: StreamMessage<Item = Result<WatchBatch, WatchError>> + Clone + Sync,
    R: Streams<M>,
    F: Fn(WatchRequest) -> M + Send + Sync + 'static,
{
    async fn next(&mut self) -> Result<WatchBatch, WatchError> {
        loop {
            let Some(batches) = self.batches.as_mut() else {
                let message = (self.asking)(self.request.clone());
                self.batches = Some(self.members.open(message, &mut self.pauses).await?);
                self.opened = Instant::now();
                continue;
            };
            match timeout(SILENCE, batches.next()).await {
                Ok(Some(Ok(Ok(batch)))) => {
                    self.request.after = self.request.after.max(batch.revision);
                    if self.bookmarks || !batch.events.is_empty() {
                        return Ok(batch);
                    }
                }
                Ok(Some(Ok(Err(
                    last @ (WatchError::Gone { .. }
                    | WatchError::Refused { .. }
                    | WatchError::Removed { .. }),
                )))) => return Err(last),
                // A watch from a future revision is silent by promise; it is opened anew and loses nothing.
                Ok(Some(Ok(Err(WatchError::Closed)) | Err(_)) | None) | Err(_) => {
                    self.members.fail_over();
                    self.batches = None;
                    self.pauses.broke_off(self.opened.elapsed(), Instant::now());
                    self.pauses.pause().await;
                }
            }
        }
    }
}

/// Reads a list page by page. A page that brings nothing although something remains ends it: a member that answers
/// so is at fault, and is not asked for ever.
async fn pages<F>(request: ListRequest, read: impl Fn(ListRequest) -> F) -> Result<Page, ReadError>
where
    F: Future<Output = Result<Page, ReadError>>,
{
    let mut tries = 0..LIST_TRIES;
    'anew: loop {
        let mut page = read(request.clone()).await?;
        while page.remaining > 0 {
            let left = request.limit.map(|limit| limit.saturating_sub(page.entries.len()));
            let (Some(last), false) = (page.entries.last(), left == Some(0)) else { break };
            let rest = ListRequest {
                after: Some((last.key.namespace.clone(), last.key.name.clone())),
                at: Some(page.revision),
                limit: left,
                ..request.clone()
            };
            match read(rest).await {
                Ok(more) if more.entries.is_empty() && more.remaining > 0 => {
                    let reason = "a member answered a list with an empty page".to_owned();
                    return Err(ReadError::Unavailable { reason });
                }
                Ok(more) => {
                    page.remaining = more.remaining;
                    page.entries.extend(more.entries);
                }
                // The revision fell out of the past meanwhile; the caller did not ask for it.
                Err(ReadError::Gone { .. }) if request.at.is_none() && tries.next().is_some() => {
                    continue 'anew;
                }
                Err(error) => return Err(error),
            }
        }
        return Ok(page);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_minute_of_a_watch_begins_where_it_breaks_off_and_not_each_time_that_it_is_opened()
    {
        let mut pauses = Pauses::until(Instant::now() + RESUME_LIMIT);
        // Its reader was busy for so long.
        sleep(2 * RESUME_LIMIT).await;
        pauses.broke_off(2 * RESUME_LIMIT, Instant::now());
        assert_eq!(pauses.left(), Some(RESUME_LIMIT));
        // Members that open it and end it at once are not asked without end, and less and less often.
        let mut asked = 0;
        while pauses.left().is_some() {
            pauses.broke_off(Duration::ZERO, Instant::now());
            pauses.pause().await;
            asked += 1;
        }
        assert!((100..300).contains(&asked), "{asked}");
    }
}
