//! Objects for processes that are no control members: by message to any member that answers.
//!
//! [`RemoteDoor`] is what nodes read, follow and settle their own through. A call goes to the member that
//! answered last, and to the next one when that fails. What may have been done already is not done again: its caller is told to look.
//! A watch that is cut goes on at another member after the last revision that was seen, without a gap.

use super::protocol::{
    Create, Follow, Get, List, OBJECTS_ACTOR, ObjectsRole, Refusal, Sender, Settle,
};
use super::stored::CLOSING_NAMESPACES;
use bytes::Bytes;
use impresario_api::status::{Reason, Status};
use impresario_registry_api::members::{ATTEMPT_LIMIT, CALL_LIMIT, Failed, Pauses};
use impresario_registry_api::{
    BoxFuture, Committed, Compare, Consistency, Entry, Key, ListRequest, Members, Operation, Page,
    ReadError, Registry, Revision, TransactError, Transaction, Watch, WatchError, WatchRequest,
};
use impresario_runtime::{Accepts, ActorNode, Message, NodeName};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// The objects of a cluster as its certificate lets this process see and write them.
#[derive(Debug, Clone)]
pub struct RemoteDoor {
    members: Arc<Members<ObjectsRole>>,
    sender: Sender,
}

impl RemoteDoor {
    /// The door of members that may change. The node's address book must know them.
    pub fn new(node: ActorNode, members: watch::Receiver<Vec<NodeName>>) -> Self {
        let identity = node.identity();
        let sender =
            Sender { name: identity.node.as_str().to_owned(), role: identity.role.clone() };
        Self { members: Arc::new(Members::new(node, members, OBJECTS_ACTOR)), sender }
    }

    /// Who asks, as the certificate says.
    pub fn sender(&self) -> &Sender {
        &self.sender
    }

    /// Asks for a change until it was taken, refused, or may have been taken. A member that cannot take it for longer
    /// than this asks is asked once; when all of them have said so, the caller hears it.
    pub(super) async fn write<M, T>(&self, message: M) -> Result<T, Status>
    where
        M: Message<Reply = Result<T, Refusal>> + Clone,
        ObjectsRole: Accepts<M>,
    {
        let mut pauses = Pauses::until(Instant::now() + CALL_LIMIT);
        let mut last = "no time was left".to_owned();
        let mut unable = 0;
        while let Some(left) = pauses.left() {
            match self.members.attempt(message.clone(), left.min(ATTEMPT_LIMIT)).await {
                Ok(Err(refusal)) => {
                    let status = Status::from(refusal);
                    if status.reason != Reason::ServiceUnavailable {
                        return Err(status);
                    }
                    let again = Duration::from_secs(status.retry_after.unwrap_or(0).into());
                    unable += usize::from(again > CALL_LIMIT);
                    if unable >= self.members.count() {
                        return Err(status);
                    }
                    self.members.fail_over();
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
            pauses.pause().await;
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
        let mut pauses = Pauses::until(Instant::now() + CALL_LIMIT);
        let mut last = "no time was left".to_owned();
        while let Some(left) = pauses.left() {
            match self.members.attempt(message.clone(), left.min(ATTEMPT_LIMIT)).await {
                Ok(Err(TransactError::Unavailable { reason })) => {
                    self.members.fail_over();
                    last = reason;
                }
                Ok(answer) => return answer,
                Err(Failed::Refused(reason)) => return Err(TransactError::Refused { reason }),
                Err(Failed::InDoubt(_)) => {
                    return Err(TransactError::Unknown { key, waited: started.elapsed() });
                }
                Err(Failed::NotTaken(reason)) => last = reason,
            }
            pauses.pause().await;
        }
        Err(TransactError::Unavailable { reason: last })
    }

    async fn create(&self, key: Key, value: Bytes) -> Result<Committed, TransactError> {
        let named = serde_json::from_slice::<Value>(&value).ok();
        let named = named.as_ref().and_then(|object| object.pointer("/metadata/name")?.as_str());
        if named != Some(key.name.as_str()) {
            let reason = format!("the object is not named {:?}, as its key is", key.name);
            return Err(TransactError::Refused { reason });
        }
        let started = Instant::now();
        let message = Create {
            sender: self.sender.clone(),
            resource: key.resource.clone(),
            namespace: key.namespace.clone(),
            object: value,
            dry_run: false,
        };
        let created = self.write(message).await.map_err(|status| match status.reason {
            Reason::AlreadyExists => {
                TransactError::Conflict { key: key.clone(), expected: 0, found: 1 }
            }
            Reason::Timeout => {
                TransactError::Unknown { key: key.clone(), waited: started.elapsed() }
            }
            Reason::ServiceUnavailable => TransactError::Unavailable { reason: status.message },
            _ => TransactError::Refused { reason: status.message },
        })?;
        revision_of(&created)
            .map(|revision| Committed { revision })
            .ok_or(TransactError::Unknown { key, waited: started.elapsed() })
    }

    /// A transaction as one of the writes that members take from others: of one object, of which the
    /// state is named.
    async fn settled(&self, transaction: Transaction) -> Result<Committed, TransactError> {
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
        let (own, others): (Vec<_>, Vec<_>) =
            compares.into_iter().partition(|compare| compare.key() == operation.key());
        match (operation, own.as_slice(), others.is_empty()) {
            (Operation::Put { key, value }, [Compare::Revision { revision, .. }], true) => {
                self.settle(key, *revision, Some(value)).await
            }
            (Operation::Delete { key }, [Compare::Revision { revision, .. }], true) => {
                self.settle(key, *revision, None).await
            }
            // The member that creates makes sure itself that the namespace is there, and not going.
            (Operation::Put { key, value }, [Compare::Absent { .. }], _)
                if others.iter().all(is_of_namespace) =>
            {
                self.create(key, value).await
            }
            _ => Err(refused()),
        }
    }
}

/// Whether it asks for a namespace that is there and not going.
fn is_of_namespace(compare: &Compare) -> bool {
    ["namespaces", CLOSING_NAMESPACES].contains(&compare.key().resource.as_str())
}

/// The revision of an object as it was created. One that cannot be read was written all the same, nobody knows when.
fn revision_of(created: &[u8]) -> Option<Revision> {
    let created: Value = serde_json::from_slice(created).ok()?;
    created.pointer("/metadata/resourceVersion")?.as_str()?.parse().ok()
}

impl Registry for RemoteDoor {
    fn get(
        &self,
        key: Key,
        consistency: Consistency,
    ) -> BoxFuture<'_, Result<(Option<Entry>, Revision), ReadError>> {
        let sender = self.sender.clone();
        Box::pin(self.members.read(Get { sender, key, consistency }))
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<Page, ReadError>> {
        let sender = self.sender.clone();
        let asking = move |request| List { sender: sender.clone(), request };
        Box::pin(self.members.list(request, asking))
    }

    fn transact(
        &self,
        transaction: Transaction,
    ) -> BoxFuture<'_, Result<Committed, TransactError>> {
        Box::pin(self.settled(transaction))
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Watch, WatchError>> {
        let sender = self.sender.clone();
        let asking = move |request| Follow { sender: sender.clone(), request };
        Box::pin(self.members.clone().watch(request, asking))
    }
}
