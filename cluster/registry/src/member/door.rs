//! What a member is asked by those who return, from the moment that it has claimed its directory.
//!
//! When all members start at once each asks the others before it takes part itself: they answer from their logs.

use super::{
    place::{copied, refuted},
    shared::Shared,
};
use crate::{
    life::goes_on,
    protocol::{MembershipError, Return},
    raft::{StoredMembership, heard::Heard},
};
use actix::{Actor, Context, Handler, ResponseFuture};
use impresario_runtime::{ActorName, Gate, Message, PeerIdentity, PeerRole, Refusal};
use std::{
    any::Any,
    sync::{Arc, OnceLock},
};

/// The door of a member.
#[derive(Debug)]
pub(super) struct Door {
    heard: Arc<Heard>,
    /// The group as the log of this member has it.
    group: StoredMembership,
    /// The member, once it takes part.
    member: OnceLock<Arc<Shared>>,
}

impl Door {
    pub(super) fn new(heard: Arc<Heard>, group: StoredMembership) -> Self {
        Self { heard, group, member: OnceLock::new() }
    }

    /// The member takes part: it knows more than its log did.
    pub(super) fn open(&self, member: Arc<Shared>) {
        // It takes part once.
        let _ = self.member.set(member);
    }

    async fn may_return(&self, asks: &Return) -> Result<(), MembershipError> {
        let (member, node) = (asks.member, &asks.node);
        if let Some(shared) = self.member.get() {
            shared.may_return(asks).await?;
        } else {
            match self.group.membership().get_node(&member) {
                Some(known) if known.disk != node.disk => {
                    return Err(MembershipError::OtherDisk { member });
                }
                Some(known) if !goes_on(&asks.lives, known.generation) => {
                    return Err(copied(node, known.generation));
                }
                _ => {}
            }
        }
        // What speaks and is not in the membership yet.
        if let Some(heard) = self.heard.of(member).filter(|heard| !goes_on(&asks.lives, *heard)) {
            return Err(refuted(node, member, heard));
        }
        self.heard.hear(member, node.generation).map_err(|known| refuted(node, member, known))
    }
}

/// The actor.
#[derive(Debug)]
pub(super) struct DoorActor(pub(super) Arc<Door>);

impl Actor for DoorActor {
    type Context = Context<Self>;
}

impl Handler<Return> for DoorActor {
    type Result = ResponseFuture<Result<(), MembershipError>>;

    fn handle(&mut self, asks: Return, _: &mut Self::Context) -> Self::Result {
        let door = self.0.clone();
        Box::pin(async move { door.may_return(&asks).await })
    }
}

/// Lets control members ask for themselves.
#[derive(Debug)]
pub(super) struct DoorGuard;

impl Gate for DoorGuard {
    fn admit(
        &self,
        peer: &PeerIdentity,
        _: &ActorName,
        message: &'static str,
    ) -> Result<(), Refusal> {
        if peer.role == PeerRole::Control {
            return Ok(());
        }
        Err(Refusal::new(format!("{} may not send {message}: it is no control member", peer.node)))
    }

    fn permit(
        &self,
        peer: &PeerIdentity,
        to: &ActorName,
        message: &'static str,
        body: &dyn Any,
    ) -> Result<(), Refusal> {
        self.admit(peer, to, message)?;
        match body.downcast_ref::<Return>() {
            Some(asks) if asks.node.name == peer.node.as_str() => Ok(()),
            _ => Err(Refusal::new(format!(
                "{} may not send {}: it is said in the name of another node",
                peer.node,
                Return::NAME
            ))),
        }
    }
}
