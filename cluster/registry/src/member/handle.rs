//! The registry as a member offers it: what only the leader can do is forwarded, the rest is answered here.
//!
//! A write that is forwarded carries a request id, so that it may be sent again after any failure and is applied
//! once. A fresh read asks the leader how far it must see, waits until this member has applied that much, and
//! reads here: the answer is never older than the call.

use super::{
    intake::{OnItsWay, Turned},
    shared::Shared,
};
use crate::{
    BoxFuture, Registry, Watch,
    condition::Condition,
    error::{ReadError, TransactError, WatchError},
    key::{Entry, Key, Revision},
    members::Pauses,
    protocol::{LeadReadIndex, LeadTransact, NotLeader, RegistryRole},
    query::{Consistency, ListRequest, Page, WatchRequest},
    raft::{Answer, Command},
    store::Paging,
    transaction::{Committed, Transaction},
    watch,
};
use futures_util::future::{Either, select};
use impresario_runtime::{Accepts, AskError, Message, NodeName, Remedy};
use openraft::{
    LinearizerOption,
    async_runtime::WatchReceiver,
    errors::{ClientWriteError, RaftError},
};
use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::time::{Instant, timeout, timeout_at};

/// How many keys are looked at in one go.
const PART: usize = 512;
/// How many are when they are only counted.
const COUNT: usize = 8192;
/// How long a call to a member may take, the transit of a large one aside.
pub(super) const CALL_LIMIT: Duration = Duration::from_secs(8);
/// How long one attempt at the leader may take, its transit aside, so that a new leader is asked in time.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(3);

/// What one attempt to write came to.
enum Attempt {
    Answered(Result<Committed, TransactError>),
    /// Nothing happened.
    NotTaken(String),
    /// It may have been applied.
    InDoubt,
}

impl Shared {
    /// Writes on the leader's own log. For the leader alone.
    pub(super) async fn lead_transact(
        &self,
        transaction: Transaction,
    ) -> Result<Result<Committed, TransactError>, NotLeader> {
        let started = Instant::now();
        let (key, limit) = (transaction.subject(), CALL_LIMIT + transaction.transit());
        match self.write_here(transaction, limit).await {
            Attempt::Answered(answer) => Ok(answer),
            Attempt::NotTaken(reason) if self.raft.is_leader() => {
                Ok(Err(TransactError::Unavailable { reason }))
            }
            Attempt::NotTaken(_) => Err(self.not_leader()),
            Attempt::InDoubt => Ok(Err(TransactError::Unknown { key, waited: started.elapsed() })),
        }
    }

    async fn write_here(&self, transaction: Transaction, limit: Duration) -> Attempt {
        if let Err(refused) = transaction.check() {
            return Attempt::Answered(Err(refused));
        }
        let deadline = Instant::now() + limit;
        let entered = self.intake.enter(&transaction, &self.disk(), limit).await;
        let place = match entered {
            Ok(place) => place,
            Err(Turned::Away(refused)) => return Attempt::Answered(Err(refused)),
            Err(Turned::Late) => {
                return Attempt::NotTaken("too many writes are on their way".to_owned());
            }
        };
        let raft = self.raft.clone();
        let write = async move { raft.client_write(Command::Transact(transaction)).await };
        match timeout_at(deadline, OnItsWay::new(place, write)).await {
            Ok(Ok(response)) => match response.data {
                Answer::Transacted(outcome) => Attempt::Answered(outcome),
                Answer::Admitted(_) | Answer::Done => Attempt::InDoubt,
            },
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => {
                Attempt::NotTaken("this member does not lead".to_owned())
            }
            Ok(Err(_)) | Err(_) => Attempt::InDoubt,
        }
    }

    async fn attempt(&self, transaction: Transaction, left: Duration) -> Attempt {
        let limit = left.min(ATTEMPT_LIMIT + transaction.transit());
        let Some(leader) = self.leader() else {
            return Attempt::NotTaken("there is no leader".to_owned());
        };
        if leader == *self.node.name() {
            return self.write_here(transaction, left).await;
        }
        match self.ask_leader(leader, LeadTransact(transaction), limit).await {
            None | Some(Ok(Ok(Err(TransactError::Unknown { .. })))) => Attempt::InDoubt,
            Some(Ok(Ok(Err(TransactError::Unavailable { reason })))) => Attempt::NotTaken(reason),
            Some(Ok(Ok(answer))) => Attempt::Answered(answer),
            Some(Ok(Err(not_leader))) => Attempt::NotTaken(not_leader.to_string()),
            Some(Err(error)) if error.remedy() == Remedy::LookFirst => Attempt::InDoubt,
            Some(Err(AskError::Stopped { .. })) => Attempt::InDoubt,
            Some(Err(error)) => Attempt::NotTaken(error.to_string()),
        }
    }

    /// Asks `leader`; none when it is taken for the leader no longer before it answers: one that died
    /// will not, and its successor can be asked at once.
    async fn ask_leader<M>(
        &self,
        leader: NodeName,
        message: M,
        limit: Duration,
    ) -> Option<Result<M::Reply, AskError>>
    where
        M: Message,
        RegistryRole: Accepts<M>,
    {
        let mut metrics = self.raft.server_metrics();
        let deposed = async {
            while self.leader().as_ref() == Some(&leader) {
                if metrics.changed().await.is_err() {
                    return; // raft has stopped, and this member with it
                }
            }
        };
        let actor = self.registry_at(leader.clone());
        match select(pin!(actor.ask(message, limit)), pin!(deposed)).await {
            Either::Left((answer, _)) => Some(answer),
            Either::Right(_) => None,
        }
    }

    pub(super) async fn transact(
        &self,
        mut transaction: Transaction,
    ) -> Result<Committed, TransactError> {
        transaction.check()?;
        let started = Instant::now();
        // To the leader, and from there to the others.
        let deadline = started + CALL_LIMIT + 2 * transaction.transit();
        let mut place = self.client.number(&mut transaction, deadline).await?;
        let mut pauses = Pauses::until(deadline);
        let mut in_doubt = false;
        let mut reason = "no time was left".to_owned();
        while let Some(left) = pauses.left() {
            match self.attempt(transaction.clone(), left).await {
                Attempt::Answered(Err(TransactError::Forgotten { heard })) => {
                    // An attempt before this one may have been applied and forgotten.
                    let Some(known) = place.take_if(|_| !in_doubt) else {
                        return Err(if in_doubt {
                            let key = transaction.subject();
                            TransactError::Unknown { key, waited: started.elapsed() }
                        } else {
                            TransactError::Forgotten { heard }
                        });
                    };
                    place = known.anew(&mut transaction, heard, deadline).await?;
                    continue;
                }
                Attempt::Answered(answer) => return answer,
                Attempt::InDoubt => in_doubt = true,
                Attempt::NotTaken(why) => reason = why,
            }
            if let Err(why) = self.alive() {
                reason = why;
                break; // what is in doubt stays so
            }
            pauses.pause().await;
        }
        if in_doubt {
            Err(TransactError::Unknown { key: transaction.subject(), waited: started.elapsed() })
        } else {
            Err(TransactError::Unavailable { reason })
        }
    }

    /// Up to where a read that begins now must see. For the leader alone.
    pub(super) async fn lead_read_index(&self) -> Result<u64, NotLeader> {
        // A lease that was counted while the machine slept is worth nothing: the others are asked instead.
        let age = if self.was_awake() { None } else { Some(Duration::ZERO) };
        let option = LinearizerOption::new(age, true);
        let index = timeout(ATTEMPT_LIMIT, self.raft.get_read_log_id(option)).await;
        match index {
            Ok(Ok((read, _))) => Ok(read.index()),
            Ok(Err(_)) | Err(_) => Err(self.not_leader()),
        }
    }

    /// Returns when this member has applied everything that was acknowledged before the call.
    pub(super) async fn read_barrier(&self) -> Result<(), ReadError> {
        let mut pauses = Pauses::until(Instant::now() + CALL_LIMIT);
        let mut reason = "no time was left".to_owned();
        while let Some(left) = pauses.left() {
            match self.read_index(left).await {
                Ok(index) => {
                    let wait = self.raft.wait(pauses.left());
                    let applied = wait.applied_index_at_least(Some(index), "a fresh read").await;
                    return applied
                        .map(drop)
                        .map_err(|error| ReadError::Unavailable { reason: error.to_string() });
                }
                Err(why) => reason = why,
            }
            self.alive().map_err(|reason| ReadError::Unavailable { reason })?;
            pauses.pause().await;
        }
        Err(ReadError::Unavailable { reason })
    }

    async fn read_index(&self, left: Duration) -> Result<u64, String> {
        let leader = self.leader().ok_or("there is no leader")?;
        if leader == *self.node.name() {
            return self.lead_read_index().await.map_err(|error| error.to_string());
        }
        match self.ask_leader(leader, LeadReadIndex, left.min(ATTEMPT_LIMIT)).await {
            Some(Ok(answer)) => answer.map_err(|error| error.to_string()),
            Some(Err(error)) => Err(error.to_string()),
            None => Err("the leader was lost before it answered".to_owned()),
        }
    }

    /// Returns when this member has applied, or given up, all that its log held when it started: an earlier life of it
    /// may have shown what that came to, and nothing that is read here goes back.
    async fn caught_up(&self) -> Result<(), ReadError> {
        if self.caught_up.load(Ordering::Acquire) {
            return Ok(());
        }
        let unavailable = |reason| ReadError::Unavailable { reason };
        let (deadline, mut metrics) = (Instant::now() + CALL_LIMIT, self.raft.metrics());
        loop {
            let applied = metrics.borrow_watched().last_applied.map(|log_id| log_id.index);
            if applied >= self.log.found() {
                self.caught_up.store(true, Ordering::Release);
                return Ok(());
            }
            self.alive().map_err(unavailable)?;
            let reason =
                "this member has started and does not know yet what of its log is committed";
            match timeout_at(deadline, metrics.changed()).await {
                Ok(Ok(())) => {}
                _ => return Err(unavailable(reason.to_owned())),
            }
        }
    }

    /// Why this member can do nothing any more, if so.
    fn alive(&self) -> Result<(), String> {
        if *self.stop.borrow() {
            return Err("this member stops".to_owned());
        }
        self.status().failure.map_or(Ok(()), Err)
    }

    pub(super) async fn get(
        &self,
        key: Key,
        consistency: Consistency,
    ) -> Result<(Option<Entry>, Revision), ReadError> {
        let is_stale = impresario_runtime::mutant!(StaleReads);
        if consistency == Consistency::Linearizable && !is_stale {
            self.read_barrier().await?;
        } else {
            self.caught_up().await?;
        }
        Ok(self.replica.read(|store| (store.get(&key), store.revision())))
    }

    /// A list of at most so many bytes, one object at least.
    pub(super) async fn list(
        &self,
        request: ListRequest,
        most_bytes: usize,
    ) -> Result<Page, ReadError> {
        self.page(request, most_bytes, true).await
    }

    /// A page of a list. Where the others behind it are not counted, it only tells whether there are any.
    async fn page(
        &self,
        request: ListRequest,
        most_bytes: usize,
        counted: bool,
    ) -> Result<Page, ReadError> {
        let ahead =
            request.at.is_some_and(|at| at > self.replica.read(crate::store::Store::revision));
        // The past is the same everywhere; only a member that has not got there yet must catch up.
        if ahead || (request.at.is_none() && request.consistency == Consistency::Linearizable) {
            self.read_barrier().await?;
        } else {
            self.caught_up().await?;
        }
        let turn = timeout(CALL_LIMIT, self.lists.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            let reason = "too many lists are put together at a time".to_owned();
            return Err(ReadError::Unavailable { reason });
        };
        // A part at a time, so that neither the lock nor the thread is held for long; all of one revision.
        let mut paging = Paging::new(&request, most_bytes);
        let mut rest = request.clone();
        loop {
            let part = match self.replica.read(|store| store.part(&rest, PART, most_bytes)) {
                Ok(part) => part,
                // The revision fell out of the past while it was being listed.
                Err(ReadError::Gone { .. }) if rest.at != request.at => {
                    return self.list_at_once(&request, most_bytes).await;
                }
                Err(error) => return Err(error),
            };
            paging.take(part.records);
            if !counted && paging.has_more() {
                return Ok(paging.page(part.revision));
            }
            rest.at = Some(part.revision);
            rest.after = part.next;
            if rest.after.is_none() || paging.is_done() {
                return Ok(paging.page(part.revision));
            }
            tokio::task::yield_now().await;
            if paging.only_counts() {
                self.count_rest(rest, &mut paging).await;
                return Ok(paging.page(part.revision));
            }
        }
    }

    /// A list for which the past is too short: what it may mean is taken out in one go, and looked through afterwards,
    /// so that the writer waits for no filter.
    async fn list_at_once(
        &self,
        request: &ListRequest,
        most_bytes: usize,
    ) -> Result<Page, ReadError> {
        let part = self.replica.read(|store| store.part(request, usize::MAX, usize::MAX))?;
        let mut paging = Paging::new(request, most_bytes);
        let mut records = part.records.into_iter();
        loop {
            let some: Vec<_> = records.by_ref().take(PART).collect();
            if some.is_empty() || paging.is_done() {
                return Ok(paging.page(part.revision));
            }
            paging.take(some);
            tokio::task::yield_now().await;
        }
    }

    /// Counts what is behind a page that is full already.
    async fn count_rest(&self, mut rest: ListRequest, paging: &mut Paging<'_>) {
        // Where the revision is kept no more, those who go on are told so; that there is more is known.
        while let Ok(counted) = self.replica.read(|store| store.count(&rest, COUNT)) {
            paging.add(counted.count);
            rest.after = counted.next;
            if rest.after.is_none() {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    pub(super) fn watch(
        &self,
        request: WatchRequest,
        conditions: Vec<Condition>,
    ) -> Result<Watch, WatchError> {
        watch::follow(&self.replica, request, conditions, self.stop.subscribe())
    }
}

/// The registry through a member of this process.
#[derive(Debug, Clone)]
pub(super) struct LocalRegistry(pub(super) Arc<Shared>);

impl Registry for LocalRegistry {
    fn get(
        &self,
        key: Key,
        consistency: Consistency,
    ) -> BoxFuture<'_, Result<(Option<Entry>, Revision), ReadError>> {
        Box::pin(self.0.get(key, consistency))
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<Page, ReadError>> {
        Box::pin(self.0.list(request, usize::MAX))
    }

    fn part(
        &self,
        request: ListRequest,
        most_bytes: usize,
    ) -> BoxFuture<'_, Result<Page, ReadError>> {
        Box::pin(self.0.page(request, most_bytes, false))
    }

    fn transact(
        &self,
        transaction: Transaction,
    ) -> BoxFuture<'_, Result<Committed, TransactError>> {
        Box::pin(self.0.transact(transaction))
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Watch, WatchError>> {
        self.watch_where(request, Vec::new())
    }

    fn watch_where(
        &self,
        request: WatchRequest,
        conditions: Vec<Condition>,
    ) -> BoxFuture<'_, Result<Watch, WatchError>> {
        Box::pin(async move { self.0.watch(request, conditions) })
    }
}
