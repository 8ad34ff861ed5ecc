//! Where a pod's node gets what is typed at one session.
//!
//! The actor is there until the session is open, under a name that nobody can guess, and gives the input to the first who
//! asks and is of the pod's node.

use actix::prelude::*;
use impresario_api::status::Status;
use impresario_client::protocol::session::{EntranceRole, Input, Typed};
use impresario_runtime::{
    ActorName, ActorNode, ActorPath, Open, Refusal, RestartPolicy, SpawnOptions, random, tasks,
};
use tokio::sync::mpsc;

/// Who asks once too often is not waited for.
const MAILBOX: usize = 4;

/// Keeps the actor; dropping it takes the actor away, and leaves what was opened as it is.
pub(super) struct Entrance {
    node: ActorNode,
    path: ActorPath,
}

impl Entrance {
    /// Opens it for a node.
    pub(super) fn open(
        node: &ActorNode,
        to: &str,
        input: mpsc::Receiver<Typed>,
    ) -> Result<Self, Status> {
        let name = format!("entrance/{:032x}", random::random::<u128>());
        let options = SpawnOptions {
            mailbox: MAILBOX,
            restart: RestartPolicy::never(),
            ..SpawnOptions::default()
        };
        let (to, mut input) = (to.to_owned(), Some(input));
        let giver = move |_: &mut Context<Giver>| Giver { to: to.clone(), input: input.take() };
        let spawned = node.spawn::<EntranceRole, _>(name.as_str(), options, giver);
        let actor = spawned.map_err(|error| Status::unavailable(error.to_string(), 1))?;
        Ok(Self { node: node.clone(), path: actor.path().clone() })
    }

    /// Where the input is to be had.
    pub(super) fn path(&self) -> &ActorPath {
        &self.path
    }
}

impl Drop for Entrance {
    fn drop(&mut self) {
        let name: &ActorName = &self.path.actor;
        self.node.stop_actor(name);
    }
}

struct Giver {
    to: String,
    input: Option<mpsc::Receiver<Typed>>,
}

impl Actor for Giver {
    type Context = Context<Self>;
}

impl Handler<Open<Input>> for Giver {
    type Result = Result<(), Refusal>;

    fn handle(&mut self, open: Open<Input>, _: &mut Self::Context) -> Self::Result {
        let Open { message, sink } = open;
        if message.node != self.to {
            return Err(Refusal::new("this is the input of a session with a pod of another node"));
        }
        let input = self.input.take();
        let mut input = input.ok_or_else(|| Refusal::new("the input of this session is taken"))?;
        // Ends when nothing more is typed, or nobody reads it any more.
        tasks::spawn(async move {
            loop {
                let typed = tokio::select! {
                    typed = input.recv() => typed,
                    () = sink.closed() => return,
                };
                let Some(typed) = typed else { return };
                let is_end = typed == Typed::End;
                if sink.send(typed).await.is_err() {
                    return;
                }
                if is_end {
                    // What comes is still read: only its reader's leaving ends the stream.
                    return sink.closed().await;
                }
            }
        });
        Ok(())
    }
}
