//! The registry itself, by message: what control members, and tools that hold a member's credential, use.
//!
//! Every write has a request id before it is first sent, so that sending it again applies it once.

use crate::{
    error::{ReadError, TransactError, WatchError},
    key::{Entry, Key, Revision},
    members::{ATTEMPT_LIMIT, CALL_LIMIT, Failed, Members, OPEN_LIMIT, Pauses},
    protocol::{Follow, Get, Heartbeat, List, NotLeader, REGISTRY_ACTOR, RegistryRole, Transact},
    query::{Consistency, ListRequest, Page, WatchRequest},
    registry::{BoxFuture, Registry},
    serials::Serials,
    transaction::{Committed, Transaction},
    watch::Watch,
};
use impresario_runtime::{ActorNode, NodeName};
use std::sync::Arc;
use tokio::{sync::watch, time::Instant};

/// A registry that is reached through control members.
#[derive(Debug, Clone)]
pub struct RemoteRegistry {
    members: Arc<Members<RegistryRole>>,
    serials: Arc<Serials>,
}

impl RemoteRegistry {
    /// A registry behind members that may change. The node's address book must know them.
    pub fn new(node: ActorNode, members: watch::Receiver<Vec<NodeName>>) -> Self {
        Self {
            members: Arc::new(Members::new(node, members, REGISTRY_ACTOR)),
            serials: Arc::default(),
        }
    }

    /// A registry behind these members.
    pub fn fixed(node: ActorNode, members: Vec<NodeName>) -> Self {
        // The receiver keeps its value when the sender is gone.
        Self::new(node, watch::channel(members).1)
    }

    /// Tells the leader that a node lives.
    pub async fn heartbeat(&self, beat: Heartbeat) -> Result<(), NotLeader> {
        match self.members.attempt(beat, OPEN_LIMIT).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                self.members.fail_over();
                Err(error)
            }
            Err(_) => Err(NotLeader { leader: None }),
        }
    }

    async fn write(&self, mut transaction: Transaction) -> Result<Committed, TransactError> {
        transaction.check()?;
        let started = Instant::now();
        let transit = transaction.transit();
        let deadline = started + CALL_LIMIT + 3 * transit;
        let mut place = self.serials.number(&mut transaction, deadline).await?;
        let mut pauses = Pauses::until(deadline);
        let (mut in_doubt, mut last) = (false, "no time was left".to_owned());
        while let Some(left) = pauses.left() {
            let sent = Transact(transaction.clone());
            match self.members.attempt(sent, left.min(ATTEMPT_LIMIT + 3 * transit)).await {
                Ok(Err(TransactError::Unavailable { reason })) => {
                    self.members.fail_over();
                    last = reason;
                }
                Ok(Err(TransactError::Unknown { .. })) | Err(Failed::InDoubt(_)) => in_doubt = true,
                Ok(Err(TransactError::Forgotten { heard })) if !in_doubt && place.is_some() => {
                    if let Some(known) = place.take() {
                        place = known.anew(&mut transaction, heard, deadline).await?;
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
}

impl Registry for RemoteRegistry {
    fn get(
        &self,
        key: Key,
        consistency: Consistency,
    ) -> BoxFuture<'_, Result<(Option<Entry>, Revision), ReadError>> {
        Box::pin(self.members.read(Get { key, consistency }))
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<Page, ReadError>> {
        Box::pin(self.members.list(request, List))
    }

    fn transact(
        &self,
        transaction: Transaction,
    ) -> BoxFuture<'_, Result<Committed, TransactError>> {
        Box::pin(self.write(transaction))
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Watch, WatchError>> {
        Box::pin(self.members.clone().watch(request, Follow))
    }
}
