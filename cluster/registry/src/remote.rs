//! The registry for processes that are no control members: the same trait, by message.
//!
//! A call goes to the member that answered last, and to the next one when that fails; pauses between attempts grow
//! and vary. Every write has a request id before it is first sent, so that sending it again applies it once. A watch
//! that is cut goes on at another member after the last revision that was seen, without a gap.

use crate::{
    error::{ReadError, TransactError, WatchError},
    key::{Entry, Key, Revision},
    member::{Pauses, Serials},
    protocol::{Follow, Get, Heartbeat, List, NotLeader, REGISTRY_ACTOR, RegistryRole, Transact},
    query::{Consistency, ListRequest, Page, WatchBatch, WatchRequest},
    registry::{BoxFuture, Registry},
    transaction::{Committed, Transaction},
    watch::Watch,
};
use futures_util::{StreamExt, stream};
use impresario_runtime::{
    Accepts, ActorNode, ActorPath, ActorRef, AskError, ItemStream, Message, NodeName, Remedy,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

/// How long a call may take in all.
const CALL_LIMIT: Duration = Duration::from_secs(15);
/// How long one member is given; longer than it takes a member to find out that it has no leader.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(9);
/// How often a list is begun anew when its revision is no longer kept before its end.
const LIST_TRIES: usize = 3;
const OPEN_LIMIT: Duration = Duration::from_secs(3);
/// A watch that cannot be taken up again for this long ends with `Closed`.
const RESUME_LIMIT: Duration = Duration::from_mins(1);
/// A member tells a watch something at least every five seconds; after this silence it is taken for lost.
const SILENCE: Duration = Duration::from_secs(20);

/// A registry that is reached through control members.
#[derive(Debug, Clone)]
pub struct RemoteRegistry {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    node: ActorNode,
    members: watch::Receiver<Vec<NodeName>>,
    /// Which of them answered last.
    current: AtomicUsize,
    serials: Serials,
}

/// What one attempt came to.
enum Failed {
    /// It was not handled.
    NotTaken(String),
    /// It may have been.
    InDoubt(String),
    /// Every member would refuse it.
    Refused(String),
}

impl RemoteRegistry {
    /// A registry behind members that may change. The node's address book must know them.
    pub fn new(node: ActorNode, members: watch::Receiver<Vec<NodeName>>) -> Self {
        let inner = Inner {
            node,
            members,
            current: AtomicUsize::new(rand::random_range(0..64)),
            serials: Serials::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// A registry behind these members.
    pub fn fixed(node: ActorNode, members: Vec<NodeName>) -> Self {
        // The receiver keeps its value when the sender is gone.
        Self::new(node, watch::channel(members).1)
    }

    /// Tells the leader that a node lives.
    pub async fn heartbeat(&self, beat: Heartbeat) -> Result<(), NotLeader> {
        let nobody = NotLeader { leader: None };
        match self.inner.attempt(beat, OPEN_LIMIT).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                self.inner.fail_over();
                Err(error)
            }
            Err(_) => Err(nobody),
        }
    }
}

impl Inner {
    fn member(&self) -> Option<ActorRef<RegistryRole>> {
        let members = self.members.borrow();
        let place = self.current.load(Ordering::Relaxed).checked_rem(members.len())?;
        Some(self.node.actor(ActorPath::new(members[place].clone(), REGISTRY_ACTOR)))
    }

    fn fail_over(&self) {
        self.current.fetch_add(1, Ordering::Relaxed);
    }

    async fn attempt<M: Message>(&self, message: M, limit: Duration) -> Result<M::Reply, Failed>
    where
        RegistryRole: Accepts<M>,
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
        RegistryRole: Accepts<M>,
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
    async fn list(&self, request: ListRequest) -> Result<Page, ReadError> {
        let mut tries = 0..LIST_TRIES;
        'anew: loop {
            let mut page = self.read(List(request.clone())).await?;
            while page.remaining > 0 {
                let left = request.limit.map(|limit| limit.saturating_sub(page.entries.len()));
                let (Some(last), false) = (page.entries.last(), left == Some(0)) else { break };
                let rest = ListRequest {
                    after: Some((last.key.namespace.clone(), last.key.name.clone())),
                    at: Some(page.revision),
                    limit: left,
                    ..request.clone()
                };
                match self.read(List(rest)).await {
                    Ok(more) => {
                        page.remaining = more.remaining;
                        page.entries.extend(more.entries);
                    }
                    // The revision fell out of the past meanwhile; the caller did not ask for it.
                    Err(ReadError::Gone { .. })
                        if request.at.is_none() && tries.next().is_some() =>
                    {
                        continue 'anew;
                    }
                    Err(error) => return Err(error),
                }
            }
            return Ok(page);
        }
    }

    async fn transact(&self, mut transaction: Transaction) -> Result<Committed, TransactError> {
        transaction.check()?;
        let started = Instant::now();
        let mut place = self.serials.number(&mut transaction).await;
        let mut pauses = Pauses::until(started + CALL_LIMIT);
        let (mut in_doubt, mut last) = (false, "no time was left".to_owned());
        while let Some(left) = pauses.left() {
            match self.attempt(Transact(transaction.clone()), left.min(ATTEMPT_LIMIT)).await {
                Ok(Err(TransactError::Unavailable { reason })) => {
                    self.fail_over();
                    last = reason;
                }
                Ok(Err(TransactError::Unknown { .. })) | Err(Failed::InDoubt(_)) => in_doubt = true,
                Ok(Err(TransactError::Forgotten { heard })) if !in_doubt && place.is_some() => {
                    if let Some(known) = place.take() {
                        place = known.anew(&mut transaction, heard).await;
                    }
                    continue;
                }
                Ok(Err(TransactError::Forgotten { .. })) if in_doubt => break,
                Ok(answer) => return answer,
                Err(Failed::Refused(reason)) => return Err(TransactError::Refused { reason }),
                Err(Failed::NotTaken(reason)) => last = reason,
            }
            pauses.pause().await;
        }
        if in_doubt {
            Err(TransactError::Unknown { key: transaction.subject(), waited: started.elapsed() })
        } else {
            Err(TransactError::Unavailable { reason: last })
        }
    }

    /// Opens a watch at whichever member takes it.
    async fn open(&self, request: &WatchRequest) -> Result<Batches, WatchError> {
        let mut pauses = Pauses::until(Instant::now() + RESUME_LIMIT);
        while let Some(left) = pauses.left() {
            if let Some(member) = self.member() {
                match member.open(Follow(request.clone()), left.min(OPEN_LIMIT)).await {
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
                Ok(Some(Ok(Err(WatchError::Closed)) | Err(_)) | None) | Err(_) => {
                    self.inner.fail_over();
                    self.batches = None;
                }
            }
        }
    }
}

impl Registry for RemoteRegistry {
    fn get(
        &self,
        key: Key,
        consistency: Consistency,
    ) -> BoxFuture<'_, Result<(Option<Entry>, Revision), ReadError>> {
        Box::pin(self.inner.read(Get { key, consistency }))
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<Page, ReadError>> {
        Box::pin(self.inner.list(request))
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
