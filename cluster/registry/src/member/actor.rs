//! The actor behind [`RegistryRole`](crate::protocol::RegistryRole): every handler starts a future and returns.

use super::shared::Shared;
use crate::WatchError;
use crate::protocol::{
    Enrol, Follow, Get, Group, Heartbeat, Heartbeats, Join, LeadAlive, LeadHeartbeats,
    LeadReadIndex, LeadTransact, List, MemberStatus, NotLeader, Remove, Status, Transact,
};
use actix::{Actor, Context, Handler, Message, ResponseFuture};
use futures_util::StreamExt;
use impresario_runtime::{Open, Refusal};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Watches that one member serves to other processes.
const WATCHES: usize = 16_384;

/// The most bytes of objects that one answer has; the rest is asked for again.
const PAGE_BYTES: usize = 16 * 1024 * 1024;

/// A member's registry as an actor.
#[derive(Debug)]
pub(super) struct RegistryActor {
    shared: Arc<Shared>,
    watches: Arc<Semaphore>,
}

impl RegistryActor {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, watches: Arc::new(Semaphore::new(WATCHES)) }
    }
}

impl Actor for RegistryActor {
    type Context = Context<Self>;
}

type Reply<M> = ResponseFuture<<M as Message>::Result>;

/// A handler that hands a message's parts to a method of [`Shared`] and answers when it does.
macro_rules! answered {
    ($message:ty, |$shared:ident, $pattern:pat_param| $answer:expr) => {
        impl Handler<$message> for RegistryActor {
            type Result = Reply<$message>;

            fn handle(&mut self, $pattern: $message, _: &mut Self::Context) -> Self::Result {
                let $shared = self.shared.clone();
                Box::pin(async move { $answer.await })
            }
        }
    };
}

answered!(Get, |shared, Get { key, consistency }| shared.get(key, consistency));
answered!(List, |shared, List(request)| shared.list(request, PAGE_BYTES));
answered!(Transact, |shared, Transact(transaction)| shared.transact(transaction));
answered!(Heartbeat, |shared, beat| shared.heartbeat(beat));
answered!(Join, |shared, join| shared.join(join));
answered!(Enrol, |shared, enrol| shared.enrol(enrol));
answered!(Remove, |shared, Remove { node, force }| shared.remove(&node, force));
answered!(LeadTransact, |shared, LeadTransact(transaction)| shared.lead_transact(transaction));
answered!(LeadReadIndex, |shared, LeadReadIndex| shared.lead_read_index());

impl Handler<Status> for RegistryActor {
    type Result = actix::MessageResult<Status>;

    fn handle(&mut self, _: Status, _: &mut Self::Context) -> Self::Result {
        let status: MemberStatus = self.shared.status();
        actix::MessageResult(status)
    }
}

impl Handler<Group> for RegistryActor {
    type Result = actix::MessageResult<Group>;

    fn handle(&mut self, _: Group, _: &mut Self::Context) -> Self::Result {
        actix::MessageResult(self.shared.group())
    }
}

impl Handler<LeadAlive> for RegistryActor {
    type Result = Result<(), NotLeader>;

    fn handle(&mut self, alive: LeadAlive, _: &mut Self::Context) -> Self::Result {
        self.shared.member_alive(alive)
    }
}

impl Handler<LeadHeartbeats> for RegistryActor {
    type Result = Result<Heartbeats, NotLeader>;

    fn handle(&mut self, _: LeadHeartbeats, _: &mut Self::Context) -> Self::Result {
        self.shared.heartbeats().ok_or_else(|| NotLeader { leader: self.shared.status().leader })
    }
}

impl Handler<Open<Follow>> for RegistryActor {
    type Result = Result<(), Refusal>;

    fn handle(&mut self, open: Open<Follow>, _: &mut Self::Context) -> Self::Result {
        let Open { message: Follow(request), sink } = open;
        let Ok(place) = self.watches.clone().try_acquire_owned() else {
            // No refusal, which would be for good: the reader goes on at another member.
            actix::spawn(async move {
                // The reader may be gone already.
                let _ = sink.send(Err(WatchError::Closed)).await;
            });
            return Ok(());
        };
        let watch = self.shared.watch(request, Vec::new());
        // Ends when the reader goes, and with the member's stop at the latest.
        actix::spawn(async move {
            let _place = place;
            let mut watch = match watch {
                Ok(watch) => watch,
                Err(error) => {
                    // The reader may be gone already.
                    let _ = sink.send(Err(error)).await;
                    return;
                }
            };
            loop {
                let item = tokio::select! {
                    item = watch.next() => item,
                    () = sink.closed() => return,
                };
                match item {
                    Some(item) => {
                        if sink.send(item).await.is_err() {
                            return;
                        }
                    }
                    None => return,
                }
            }
        });
        Ok(())
    }
}
