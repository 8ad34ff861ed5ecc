//! Objects for processes that are no control members: by message to any member that answers.
//!
//! [`RemoteDoor`] is what nodes read, follow and settle their own through; [`RemoteObjects`] is what
//! programs use. A call goes to the member that answered last, and to the next one when that fails, after
//! pauses that grow and vary. What may have been done already is not done again: its caller is told to look.
//! A watch that is cut goes on at another member after the last revision that was seen, without a gap.

mod objects;

pub use objects::RemoteObjects;

use crate::protocol::{
    Create, Follow, Get, List, OBJECTS_ACTOR, ObjectsRole, Refusal, Sender, Settle,
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use impresario_api::status::{Reason, Status};
use impresario_registry::{
    BoxFuture, Committed, Compare, Consistency, Entry, Key, ListRequest, Operation, Page,
    ReadError, Registry, Revision, TransactError, Transaction, Watch, WatchBatch, WatchError,
    WatchRequest,
};
use impresario_runtime::{
    Accepts, ActorNode, ActorPath, ActorRef, AskError, Backoff, ItemStream, Message, NodeName,
    Remedy,
};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// How long a call may take in all.
const CALL_LIMIT: Duration = Duration::from_secs(15);
/// How long one member is given; longer than it takes a member to find out that it has no leader.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(9);
const OPEN_LIMIT: Duration = Duration::from_secs(3);
/// A watch that cannot be taken up again for this long ends with `Closed`.
const RESUME_LIMIT: Duration = Duration::from_mins(1);
/// A member tells a watch something at least every five seconds; after this silence it is taken for lost.
const SILENCE: Duration = Duration::from_secs(20);
const PAUSES: Backoff =
    Backoff { first: Duration::from_millis(20), most: Duration::from_millis(500) };

/// The objects of a cluster as its certificate lets this process see and write them.
#[derive(Debug, Clone)]
pub struct RemoteDoor {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    node: ActorNode,
    sender: Sender,
    members: watch::Receiver<Vec<NodeName>>,
    /// Which of them answered last.
    current: AtomicUsize,
}

/// What came of a call that was not answered.
enum Failed {
    /// It was not handled.
    NotTaken(String),
    /// It may have been.
    InDoubt(String),
    /// Every member would refuse it.
    Refused(String),
}

/// Attempts at one call, up to its deadline.
struct Attempts {
    until: Instant,
    made: u32,
}

impl Attempts {
    fn within(limit: Duration) -> Self {
        Self { until: Instant::now() + limit, made: 0 }
    }

    fn left(&self) -> Option<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    async fn pause(&mut self) {
        let pause = PAUSES.wait(self.made, rand::random());
        self.made += 1;
        sleep(pause.min(self.until.saturating_duration_since(Instant::now()))).await;
    }
}

impl RemoteDoor {
    /// The door of members that may change. The node's address book must know them.
    pub fn new(node: ActorNode, members: watch::Receiver<Vec<NodeName>>) -> Self {
        let identity = node.identity();
        let sender =
            Sender { name: identity.node.as_str().to_owned(), role: identity.role.clone() };
        let current = AtomicUsize::new(rand::random_range(0..64));
        Self { inner: Arc::new(Inner { node, sender, members, current }) }
    }

    /// Who asks, as the certificate says.
    pub fn sender(&self) -> &Sender {
        &self.inner.sender
    }
}

impl Inner {
    fn member(&self) -> Option<ActorRef<ObjectsRole>> {
        let members = self.members.borrow();
        let place = self.current.load(Ordering::Relaxed).checked_rem(members.len())?;
        Some(self.node.actor(ActorPath::new(members[place].clone(), OBJECTS_ACTOR)))
    }

    fn fail_over(&self) {
        self.current.fetch_add(1, Ordering::Relaxed);
    }

    async fn attempt<M: Message>(&self, message: M, limit: Duration) -> Result<M::Reply, Failed>
    where
        ObjectsRole: Accepts<M>,
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
    async fn read<M, T>(&self, message: M) -> Result<T, ReadError>
    where
        M: Message<Reply = Result<T, ReadError>> + Clone,
        ObjectsRole: Accepts<M>,
    {
        let mut attempts = Attempts::within(CALL_LIMIT);
        let mut last = "no time was left".to_owned();
        while let Some(left) = attempts.left() {
            match self.attempt(message.clone(), left.min(ATTEMPT_LIMIT)).await {
                Ok(Err(ReadError::Unavailable { reason })) => {
                    self.fail_over();
                    last = reason;
                }
                Ok(answer) => return answer,
                Err(Failed::Refused(reason)) => return Err(ReadError::Refused { reason }),
                Err(Failed::NotTaken(reason) | Failed::InDoubt(reason)) => last = reason,
            }
            attempts.pause().await;
        }
        Err(ReadError::Unavailable { reason: last })
    }

    /// Asks for a change until it was taken, refused, or may have been taken.
    async fn write<M, T>(&self, message: M) -> Result<T, Status>
    where
        M: Message<Reply = Result<T, Refusal>> + Clone,
        ObjectsRole: Accepts<M>,
    {
        let mut attempts = Attempts::within(CALL_LIMIT);
        let mut last = "no time was left".to_owned();
        while let Some(left) = attempts.left() {
            match self.attempt(message.clone(), left.min(ATTEMPT_LIMIT)).await {
                Ok(Err(refusal)) => {
                    let status = Status::from(refusal);
                    if status.reason != Reason::ServiceUnavailable {
                        return Err(status);
                    }
                    self.fail_over();
                    last = status.message;
                }
                Ok(Ok(answer)) => return Ok(answer),
                Err(Failed::Refused(reason)) => return Err(Status::new(Reason::Forbidden, reason)),
                Err(Failed::InDoubt(reason)) => {
                    return Err(Status::timeout(format!(
                        "{reason}: it may have been done, look before doing it again"
                    )));
                }
                Err(Failed::NotTaken(reason)) => last = reason,
            }
            attempts.pause().await;
        }
        Err(Status::unavailable(last, 1))
    }

    async fn settle(
        &self,
        key: Key,
        at: Revision,
        value: Option<Bytes>,
    ) -> Result<Committed, TransactError> {
        let started = Instant::now();
        let message = Settle { sender: self.sender.clone(), key: key.clone(), at, value };
        let mut attempts = Attempts::within(CALL_LIMIT);
        let mut last = "no time was left".to_owned();
        while let Some(left) = attempts.left() {
            match self.attempt(message.clone(), left.min(ATTEMPT_LIMIT)).await {
                Ok(Err(TransactError::Unavailable { reason })) => {
                    self.fail_over();
                    last = reason;
                }
                Ok(answer) => return answer,
                Err(Failed::Refused(reason)) => return Err(TransactError::Refused { reason }),
                Err(Failed::InDoubt(_)) => {
                    return Err(TransactError::Unknown { key, waited: started.elapsed() });
                }
                Err(Failed::NotTaken(reason)) => last = reason,
            }
            attempts.pause().await;
        }
        Err(TransactError::Unavailable { reason: last })
    }

    async fn create(&self, key: Key, value: Bytes) -> Result<Committed, TransactError> {
        let message = Create {
            sender: self.sender.clone(),
            resource: key.resource.clone(),
            namespace: key.namespace.clone(),
            object: value,
            dry_run: false,
        };
        let created = self.write(message).await.map_err(|status| match status.reason {
            Reason::AlreadyExists => TransactError::Conflict { key, expected: 0, found: 1 },
            Reason::Timeout => TransactError::Unknown { key, waited: CALL_LIMIT },
            Reason::ServiceUnavailable => TransactError::Unavailable { reason: status.message },
            _ => TransactError::Refused { reason: status.message },
        })?;
        let created: Value = serde_json::from_slice(&created).unwrap_or_default();
        let revision = created.pointer("/metadata/resourceVersion").and_then(Value::as_str);
        Ok(Committed { revision: revision.and_then(|text| text.parse().ok()).unwrap_or(0) })
    }

    /// A transaction as one of the writes that members take from others: of one object, of which the
    /// state is named.
    async fn transact(&self, transaction: Transaction) -> Result<Committed, TransactError> {
        transaction.check()?;
        let Transaction { compares, mut operations, fence, .. } = transaction;
        let only = operations.pop().filter(|_| operations.is_empty() && fence.is_none());
        let refused = || {
            TransactError::Refused {
            reason: "transactions are for control members alone: write one object at a time, at a revision that was read"
                .into(),
        }
        };
        let operation = only.ok_or_else(refused)?;
        let compare = compares.into_iter().find(|compare| compare.key() == operation.key());
        match (operation, compare.ok_or_else(refused)?) {
            (Operation::Put { key, value }, Compare::Revision { revision, .. }) => {
                self.settle(key, revision, Some(value)).await
            }
            (Operation::Delete { key }, Compare::Revision { revision, .. }) => {
                self.settle(key, revision, None).await
            }
            (Operation::Put { key, value }, Compare::Absent { .. }) => {
                self.create(key, value).await
            }
            _ => Err(refused()),
        }
    }

    /// Opens a watch at whichever member takes it.
    async fn open(&self, request: &WatchRequest) -> Result<Batches, WatchError> {
        let mut attempts = Attempts::within(RESUME_LIMIT);
        while let Some(left) = attempts.left() {
            if let Some(member) = self.member() {
                let follow = Follow { sender: self.sender.clone(), request: request.clone() };
                match member.open(follow, left.min(OPEN_LIMIT)).await {
                    Ok(batches) => return Ok(batches),
                    Err(AskError::Refused { reason }) => {
                        return Err(WatchError::Refused { reason });
                    }
                    Err(error) => tracing::debug!(%error, "a watch is not taken up by this member"),
                }
            }
            self.fail_over();
            attempts.pause().await;
        }
        Err(WatchError::Closed)
    }
}

type Batches = ItemStream<Result<WatchBatch, WatchError>>;

/// A watch that outlives the members that serve it.
struct Following {
    inner: Arc<Inner>,
    request: WatchRequest,
    /// Whether the watcher wants bookmarks; the member is asked for them in any case.
    bookmarks: bool,
    batches: Option<Batches>,
}

impl Following {
    async fn next(&mut self) -> Result<WatchBatch, WatchError> {
        loop {
            let Some(batches) = self.batches.as_mut() else {
                self.batches = Some(self.inner.open(&self.request).await?);
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
                    last @ (WatchError::Gone { .. } | WatchError::Refused { .. }),
                )))) => return Err(last),
                // A watch from a future revision is silent by promise; it is opened anew and loses nothing.
                Ok(Some(Ok(Err(_)) | Err(_)) | None) | Err(_) => {
                    self.inner.fail_over();
                    self.batches = None;
                }
            }
        }
    }
}

impl Registry for RemoteDoor {
    fn get(
        &self,
        key: Key,
        consistency: Consistency,
    ) -> BoxFuture<'_, Result<(Option<Entry>, Revision), ReadError>> {
        let sender = self.inner.sender.clone();
        Box::pin(self.inner.read(Get { sender, key, consistency }))
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<Page, ReadError>> {
        let sender = self.inner.sender.clone();
        Box::pin(self.inner.read(List { sender, request }))
    }

    fn transact(
        &self,
        transaction: Transaction,
    ) -> BoxFuture<'_, Result<Committed, TransactError>> {
        Box::pin(self.inner.transact(transaction))
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Watch, WatchError>> {
        let bookmarks = request.bookmarks;
        let request = WatchRequest { bookmarks: true, ..request };
        let mut following =
            Following { inner: self.inner.clone(), request, bookmarks, batches: None };
        Box::pin(async move {
            following.batches = Some(self.inner.open(&following.request).await?);
            Ok(Watch::new(stream::unfold(following, |mut following| async move {
                let item = following.next().await;
                Some((item, following))
            })))
        })
    }
}
