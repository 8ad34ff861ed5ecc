//! What a member is asked by those who return, from the moment that it has claimed its directory.
//!
//! When all members start at once each asks the others before it takes part itself: they answer from their logs.

use super::{
    leases::LEASE,
    place::{copied, refuted},
    shared::Shared,
};
use crate::{
    life::{Life, goes_on},
    protocol::{MembershipError, Return},
    raft::{
        MemberId, MemberNode, StoredMembership,
        heard::{EARLIER_LIFE, Heard},
    },
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
                Some(known) if known.disk != node.disk || known.name != node.name => {
                    return Err(MembershipError::OtherDisk { member });
                }
                Some(known) if !goes_on(&asks.lives, known.generation) => {
                    return Err(copied(node, known.generation));
                }
                _ => {}
            }
        }
        // What speaks and is not in the membership yet.
        if self.heard.of(member).is_some_and(|heard| !goes_on(&asks.lives, heard)) {
            return Err(refuted(node, member));
        }
        if self.goes_on_speaking(member, node.generation).await {
            return Err(refuted(node, member));
        }
        // Who takes part learns of lives from what they say, and only from those who were let in; a copy that is refused
        // elsewhere at this moment must not be what is known here.
        let listens = match self.member.get() {
            Some(shared) => shared.raft.is_leader() && shared.has(member, node),
            None => has(&self.group, member, node),
        };
        if !listens {
            return Ok(());
        }
        self.heard.hear(member, node.generation).map_err(|_| refuted(node, member))
    }

    /// Whether an earlier life of a member is heard still: a copy was made of a directory that is in use.
    async fn goes_on_speaking(&self, member: MemberId, life: Life) -> bool {
        let earlier = || {
            let (heard, at) = self.heard.last(member)?;
            (heard.number() < life.number() && at.elapsed() < LEASE).then_some(at)
        };
        let Some(at) = earlier() else { return false };
        tokio::time::sleep(EARLIER_LIFE).await;
        earlier().is_some_and(|later| later > at)
    }
}

/// Whether a group has this disk under this name and number.
pub(super) fn has(group: &StoredMembership, member: MemberId, node: &MemberNode) -> bool {
    let known = group.membership().get_node(&member);
    known.is_some_and(|known| known.disk == node.disk && known.name == node.name)
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
