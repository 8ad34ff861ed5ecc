//! The way into an actor: a slot that holds the sender of its present life.
//!
//! A supervised actor gets a new mailbox with each restart; references keep the slot, so they need not know. A full
//! mailbox refuses at once (`Overloaded`) and never makes the sender wait.

use crate::usage::{MailboxUsage, Throughput};
use actix::{
    Actor, Addr, Context, Handler, MessageResult, dev::channel::AddressSender, prelude::SendError,
};
use futures_util::{FutureExt, future::BoxFuture};
use parking_lot::RwLock;
use std::{
    any::TypeId,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;

/// How often who waits looks for room in the mailbox of a registered (not spawned) actor, of which actix tells nothing.
const ROOM_CHECK: Duration = Duration::from_millis(20);
/// How often in any other: it may have got room between the refusal and the wait.
const ROOM_CHECK_TOLD: Duration = Duration::from_millis(200);

/// Why a message did not enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blocked {
    Full,
    Stopped,
}

enum Way<A: Actor> {
    /// Spawned and supervised by the runtime.
    Supervised(AddressSender<A>),
    /// Started by someone else and registered.
    Registered(Addr<A>),
    /// Between two lives, or after the last.
    Nobody,
}

struct Slot<A: Actor> {
    way: RwLock<Way<A>>,
    /// Said when the actor has run, and so may have taken messages.
    room: Notify,
    waiting: AtomicUsize,
    /// How many messages may wait; nothing where another made the mailbox.
    limit: Option<usize>,
    through: Throughput,
}

/// The way into an actor, shared by all doors to it.
pub struct Mailbox<A: Actor>(Arc<Slot<A>>);

impl<A: Actor> std::fmt::Debug for Mailbox<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailbox").field("open", &self.is_open()).finish()
    }
}

impl<A: Actor> Clone for Mailbox<A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<A: Actor> Mailbox<A> {
    /// A mailbox of a spawned actor, for so many messages.
    pub(crate) fn empty(limit: usize) -> Self {
        Self::of(Way::Nobody, Some(limit))
    }

    pub(crate) fn registered(addr: Addr<A>) -> Self {
        Self::of(Way::Registered(addr), None)
    }

    fn of(way: Way<A>, limit: Option<usize>) -> Self {
        let (way, room, through) = (RwLock::new(way), Notify::new(), Throughput::default());
        Self(Arc::new(Slot { way, room, waiting: AtomicUsize::new(0), limit, through }))
    }

    pub(crate) fn open(&self, sender: AddressSender<A>) {
        *self.0.way.write() = Way::Supervised(sender);
        self.has_run();
    }

    pub(crate) fn close(&self) {
        *self.0.way.write() = Way::Nobody;
        // What waited in it is lost with it.
        self.is_drained();
        self.has_run();
    }

    /// Nothing is left in it.
    pub(crate) fn is_drained(&self) {
        self.0.through.is_drained();
    }

    /// The actor has run: its mailbox may have room. One who waits is told, and tells the next if there is more: each
    /// reads its message anew, which all of them together would do for the one place.
    pub(crate) fn has_run(&self) {
        if self.0.waiting.load(Ordering::Acquire) > 0 {
            self.0.room.notify_one();
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        match &*self.0.way.read() {
            Way::Supervised(sender) => sender.connected(),
            Way::Registered(addr) => addr.connected(),
            Way::Nobody => false,
        }
    }
}

impl<A: Actor<Context = Context<A>>> Mailbox<A> {
    /// Counts a message of so many bytes, if it enters.
    fn counted<T>(
        &self,
        bytes: usize,
        enter: impl FnOnce() -> Result<T, Blocked>,
    ) -> Result<T, Blocked> {
        let through = &self.0.through;
        through.enters(bytes);
        enter().inspect_err(|_| through.did_not_enter(bytes))
    }

    fn put<M>(&self, message: M) -> Result<(), Blocked>
    where
        A: Handler<M>,
        M: actix::Message + Send + 'static,
        M::Result: Send,
    {
        let sent = match &*self.0.way.read() {
            Way::Supervised(sender) => sender.try_send(message, true),
            Way::Registered(addr) => addr.try_send(message),
            Way::Nobody => return Err(Blocked::Stopped),
        };
        sent.map_err(|error| match error {
            SendError::Full(_) => Blocked::Full,
            SendError::Closed(_) => Blocked::Stopped,
        })
    }

    /// Puts the message in and gives the wait for the end of what is done with it. Of a registered (not spawned) actor
    /// there is none: actix lets no one wait for that without waiting for room too.
    fn put_for_end<M>(&self, message: M) -> Result<Option<BoxFuture<'static, ()>>, Blocked>
    where
        A: Handler<M>,
        M: actix::Message + Send + 'static,
        M::Result: Send,
    {
        match &*self.0.way.read() {
            Way::Supervised(sender) => match sender.send(message) {
                Ok(reply) => Ok(Some(reply.map(drop).boxed())),
                Err(SendError::Full(_)) => Err(Blocked::Full),
                Err(SendError::Closed(_)) => Err(Blocked::Stopped),
            },
            Way::Registered(addr) => match addr.try_send(message) {
                Ok(()) => Ok(None),
                Err(SendError::Full(_)) => Err(Blocked::Full),
                Err(SendError::Closed(_)) => Err(Blocked::Stopped),
            },
            Way::Nobody => Err(Blocked::Stopped),
        }
    }

    /// Puts the message in and gives the wait for its result; `None` when the actor stops before it answers.
    fn put_for_result<M>(
        &self,
        message: M,
    ) -> Result<BoxFuture<'static, Option<M::Result>>, Blocked>
    where
        A: Handler<M>,
        M: actix::Message + Send + 'static,
        M::Result: Send,
    {
        match &*self.0.way.read() {
            Way::Supervised(sender) => match sender.send(message) {
                Ok(reply) => Ok(reply.map(Result::ok).boxed()),
                Err(SendError::Full(_)) => Err(Blocked::Full),
                Err(SendError::Closed(_)) => Err(Blocked::Stopped),
            },
            Way::Registered(addr) if addr.connected() => {
                // actix does not wake a request that found the mailbox full; look again now and then, the caller's
                // deadline ends it.
                let mut request = Box::pin(addr.send(message));
                Ok(async move {
                    loop {
                        if let Ok(reply) = tokio::time::timeout(ROOM_CHECK, request.as_mut()).await
                        {
                            return reply.ok();
                        }
                    }
                }
                .boxed())
            }
            Way::Registered(_) | Way::Nobody => Err(Blocked::Stopped),
        }
    }
}

/// Counts somebody who waits for room.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::AcqRel);
        Self(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A mailbox, seen by the type of the message alone.
pub(crate) trait Takes<M: actix::Message>: Send + Sync {
    /// Waits until there may be room; who finds none waits again.
    fn room(&self) -> BoxFuture<'static, ()>;
    /// Tells one who waits that there may be room.
    fn more_room(&self);
    /// Whether the actor may go on with a message after it has handled it.
    fn goes_on(&self) -> bool;
    /// Puts a message in; it has so many bytes.
    fn put(&self, message: M, bytes: usize) -> Result<(), Blocked>;
    fn put_for_end(
        &self,
        message: M,
        bytes: usize,
    ) -> Result<Option<BoxFuture<'static, ()>>, Blocked>;
    fn put_for_result(
        &self,
        message: M,
        bytes: usize,
    ) -> Result<BoxFuture<'static, Option<M::Result>>, Blocked>;
}

impl<A, M> Takes<M> for Mailbox<A>
where
    A: Actor<Context = Context<A>> + Handler<M>,
    M: actix::Message + Send + 'static,
    M::Result: Send,
{
    fn room(&self) -> BoxFuture<'static, ()> {
        let slot = self.0.clone();
        async move {
            let _waits = Waits::new(&slot.waiting);
            let room = slot.room.notified();
            let registered = matches!(*slot.way.read(), Way::Registered(_));
            let check = if registered { ROOM_CHECK } else { ROOM_CHECK_TOLD };
            // Either way the caller looks for itself.
            let _ = tokio::time::timeout(check, room).await;
        }
        .boxed()
    }

    fn more_room(&self) {
        self.has_run();
    }

    fn goes_on(&self) -> bool {
        // What a handler gives is its result, or the future of that. What is no result is taken for a future.
        let gives = TypeId::of::<<A as Handler<M>>::Result>();
        gives != TypeId::of::<M::Result>() && gives != TypeId::of::<MessageResult<M>>()
    }

    fn put(&self, message: M, bytes: usize) -> Result<(), Blocked> {
        self.counted(bytes, || Mailbox::put(self, message))
    }

    fn put_for_end(
        &self,
        message: M,
        bytes: usize,
    ) -> Result<Option<BoxFuture<'static, ()>>, Blocked> {
        self.counted(bytes, || Mailbox::put_for_end(self, message))
    }

    fn put_for_result(
        &self,
        message: M,
        bytes: usize,
    ) -> Result<BoxFuture<'static, Option<M::Result>>, Blocked> {
        self.counted(bytes, || Mailbox::put_for_result(self, message))
    }
}

/// A mailbox, whatever it takes.
pub(crate) trait Outside: Send + Sync {
    /// Whether it takes messages now.
    fn is_open(&self) -> bool;
    /// What waits in it, where the largest message of its doors has so many bytes.
    fn usage(&self, largest: usize) -> Option<MailboxUsage>;
}

impl<A: Actor<Context = Context<A>>> Outside for Mailbox<A> {
    fn is_open(&self) -> bool {
        Mailbox::is_open(self)
    }

    fn usage(&self, largest: usize) -> Option<MailboxUsage> {
        let limit = self.0.limit?;
        let (messages, bytes) = self.0.through.waits();
        Some(MailboxUsage {
            messages,
            bytes,
            limit_messages: limit as u64,
            limit_bytes: limit.saturating_mul(largest) as u64,
        })
    }
}
