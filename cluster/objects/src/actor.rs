//! The actor behind [`ObjectsRole`](impresario_client::objects::protocol::ObjectsRole), one on each control member.
//!
//! Every handler starts a task on the workers' threads and returns.

use crate::may::Who;
use crate::serving::ObjectsParts;
use actix::{Actor, Context, Handler, Message, ResponseFuture};
use futures_util::StreamExt;
use impresario_client::objects::protocol::{
    Bind, Change, CountRefusals, Create, Delete, FencedChange, Follow, Get, List, Settle,
};
use impresario_registry_api::WatchError;
use impresario_runtime::{Open, tasks};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// Watches that one member serves to nodes: 5,000 of them with six each, should it be the only member.
const WATCHES_OF_NODES: usize = 32_768;
/// Watches that one member serves to all others.
const WATCHES: usize = 2048;
/// The actor.
pub struct ObjectsActor {
    parts: ObjectsParts,
    watches: Arc<Semaphore>,
    watches_of_nodes: Arc<Semaphore>,
}

impl ObjectsActor {
    /// One life of the actor.
    pub fn new(parts: ObjectsParts) -> Self {
        Self {
            parts,
            watches: Arc::new(Semaphore::new(WATCHES)),
            watches_of_nodes: Arc::new(Semaphore::new(WATCHES_OF_NODES)),
        }
    }
}

impl Actor for ObjectsActor {
    type Context = Context<Self>;
}

type Reply<M> = ResponseFuture<<M as Message>::Result>;

/// Ends with who waits for it.
struct Task<T>(JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn answer<T>(mut task: Task<T>) -> T {
    match (&mut task.0).await {
        Ok(answer) => answer,
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The process stops.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Every request is served by a task of its own: one that waits for the registry holds up nobody.
macro_rules! served {
    ($message:ty, $serve:ident) => {
        impl Handler<$message> for ObjectsActor {
            type Result = Reply<$message>;

            fn handle(&mut self, message: $message, _: &mut Self::Context) -> Self::Result {
                let work = self.parts.clone().$serve(message);
                Box::pin(answer(Task(tasks::spawn_on(&self.parts.workers, work))))
            }
        }
    };
}

served!(Get, get);
served!(List, list);
served!(Settle, settle);
served!(Create, create);
served!(Change, change);
served!(FencedChange, fenced_change);
served!(Delete, delete);
served!(Bind, bind);

impl Handler<CountRefusals> for ObjectsActor {
    type Result = actix::MessageResult<CountRefusals>;

    fn handle(&mut self, _: CountRefusals, _: &mut Self::Context) -> Self::Result {
        actix::MessageResult(self.parts.count_refusals())
    }
}

impl Handler<Open<Follow>> for ObjectsActor {
    type Result = Result<(), impresario_runtime::Refusal>;

    fn handle(&mut self, open: Open<Follow>, _: &mut Self::Context) -> Self::Result {
        let Open { message, sink } = open;
        let places = match self.parts.who(&message.sender) {
            Who::Node(_) => &self.watches_of_nodes,
            _ => &self.watches,
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            // No refusal, which would be for good: the reader goes on at another member.
            actix::spawn(async move {
                // The reader may be gone already.
                let _ = sink.send(Err(WatchError::Closed)).await;
            });
            return Ok(());
        };
        let parts = self.parts.clone();
        let workers = self.parts.workers.clone();
        // Ends when the reader goes, and with the member's stop at the latest.
        tasks::spawn_on(&workers, async move {
            let _place = place;
            let mut watch = match parts.follow(message).await {
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
                let Some(item) = item else { return };
                if sink.send(item).await.is_err() {
                    return;
                }
            }
        });
        Ok(())
    }
}
