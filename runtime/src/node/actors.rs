//! The actors of a node: how they get their names, and how they are referred to.

use super::ActorNode;
use crate::{
    cell::Cell,
    door::claim_tags,
    error::SpawnError,
    mailbox::Mailbox,
    name::{ActorName, ActorPath, NAME_BYTES, is_sayable},
    reference::ActorRef,
    registration::Registration,
    role::{Role, ServedBy},
    runner::Runner,
    supervise::SpawnOptions,
    usage::ActorPage,
    watch::Reason,
};
use actix::{Actor, Addr, Context, dev::channel};
use std::{sync::Arc, time::Duration};

/// How often the watch on a registered actor looks whether it still runs: actix tells nobody.
const LIVENESS_CHECK: Duration = Duration::from_millis(250);

impl ActorNode {
    /// Starts a supervised actor that serves the role `R` under a name of this node.
    ///
    /// `factory` makes the actor for each of its lives, on the thread that it will run on.
    pub fn spawn<R, A>(
        &self,
        name: impl Into<ActorName>,
        options: SpawnOptions,
        factory: impl FnMut(&mut Context<A>) -> A + Send + 'static,
    ) -> Result<ActorRef<R>, SpawnError>
    where
        R: ServedBy<A>,
        A: Actor<Context = Context<A>>,
    {
        claim_tags(R::MESSAGES)?;
        let name = fitting(name.into())?;
        let mailbox = Mailbox::<A>::empty(options.mailbox);
        let guard = options.guard.clone();
        let cell = Cell::new(name, R::NAME, R::doors(&mailbox), guard, true, mailbox.clone());
        let (sender, first) = channel::channel(options.mailbox);
        mailbox.open(sender);
        let path = ActorPath::new(self.0.name.clone(), cell.name.clone());
        if !self.0.cells.add(&cell) {
            return Err(SpawnError::NameTaken { path });
        }
        if let Some(group) = &options.group {
            group.join(&cell);
        }
        let arbiter = options.arbiter.clone().unwrap_or_else(|| self.0.arbiters.next().clone());
        let runner = Runner {
            cells: self.0.cells.clone(),
            cell: cell.clone(),
            mailbox,
            options,
            factory,
            first,
        };
        if !arbiter.spawn_fn(move || drop(actix::spawn(runner.run()))) {
            self.0.cells.end(&cell, Reason::Stopped);
            return Err(SpawnError::NodeStopped);
        }
        Ok(ActorRef::new(self.clone(), path))
    }

    /// Gives an actor that runs already a name on this node. It is not supervised.
    pub fn register<R, A>(
        &self,
        name: impl Into<ActorName>,
        actor: Addr<A>,
    ) -> Result<Registration, SpawnError>
    where
        R: ServedBy<A>,
        A: Actor<Context = Context<A>>,
    {
        claim_tags(R::MESSAGES)?;
        let name = fitting(name.into())?;
        let mailbox = Mailbox::registered(actor);
        let cell = Cell::new(name, R::NAME, R::doors(&mailbox), None, false, mailbox.clone());
        if !self.0.cells.add(&cell) {
            return Err(SpawnError::NameTaken {
                path: ActorPath::new(self.0.name.clone(), cell.name.clone()),
            });
        }
        let (cells, watched) = (self.0.cells.clone(), Arc::downgrade(&cell));
        self.0.network.tasks.spawn(async move {
            while let Some(cell) = watched.upgrade().filter(|cell| !cell.has_ended()) {
                if !cell.is_alive() {
                    cells.end(&cell, Reason::Stopped);
                    return;
                }
                drop(cell);
                tokio::time::sleep(LIVENESS_CHECK).await;
            }
        });
        Ok(Registration { cells: self.0.cells.clone(), cell })
    }

    /// Stops an actor of this node: watchers hear `Stopped`. One that was only registered loses its name and runs on.
    ///
    /// `false` when there is none.
    pub fn stop_actor(&self, name: &ActorName) -> bool {
        self.cell(name).is_some_and(|cell| {
            self.0.cells.stop(&cell);
            true
        })
    }

    /// The actors of this node that come after `after` in the order of their names, `most` of them.
    pub fn actors(&self, after: Option<&ActorName>, most: usize) -> ActorPage {
        self.0.cells.page(after, most)
    }

    /// A reference to an actor anywhere.
    pub fn actor<R: Role>(&self, path: ActorPath) -> ActorRef<R> {
        ActorRef::new(self.clone(), path)
    }

    /// A reference to an actor of this node.
    pub fn local<R: Role>(&self, name: impl Into<ActorName>) -> ActorRef<R> {
        self.actor(ActorPath::new(self.0.name.clone(), name))
    }
}

/// The name, if other nodes can say it.
fn fitting(name: ActorName) -> Result<ActorName, SpawnError> {
    if is_sayable(name.as_str()) {
        Ok(name)
    } else {
        Err(SpawnError::NoName { name: format!("{name:?}"), limit: NAME_BYTES })
    }
}
