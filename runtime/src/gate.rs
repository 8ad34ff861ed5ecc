//! Who may send what to whom: asked for every message that arrives from another node.
//!
//! The caller's identity comes from its certificate, never from the message. A refusal is answered as
//! `AskError::Refused`, counted by role and message ([`ActorNode::refusals`](crate::ActorNode::refusals)), and nothing is
//! delivered.

use crate::{error::Refusal, name::ActorName, pki::PeerIdentity};
use std::any::Any;

/// Judges every message from another node before it is delivered: first by its name, then by what it says.
pub trait Gate: Send + Sync {
    /// Whether `peer` may send a message of this name to the actor `to` at all.
    ///
    /// Asked before anything of the message is read, let alone decoded: a peer must not reach the decoding of messages that
    /// it may not send. [`Gate::permit`] is asked as well, if this is permitted.
    fn admit(
        &self,
        peer: &PeerIdentity,
        to: &ActorName,
        message: &'static str,
    ) -> Result<(), Refusal>;

    /// Whether `peer` may send the message named `message`, decoded as `body`, to the actor `to`.
    ///
    /// `body` is the message type itself (for a stream: the request). A death watch comes as `runtime.Watch` with `()`.
    fn permit(
        &self,
        peer: &PeerIdentity,
        to: &ActorName,
        message: &'static str,
        body: &dyn Any,
    ) -> Result<(), Refusal>;
}

/// Lets nobody do anything: what a node is started with until it is given a gate.
#[derive(Debug, Clone, Copy, Default)]
pub struct PermitNone;

impl Gate for PermitNone {
    fn admit(
        &self,
        peer: &PeerIdentity,
        to: &ActorName,
        message: &'static str,
    ) -> Result<(), Refusal> {
        self.permit(peer, to, message, &())
    }

    fn permit(
        &self,
        _: &PeerIdentity,
        _: &ActorName,
        _: &'static str,
        _: &dyn Any,
    ) -> Result<(), Refusal> {
        Err(Refusal::new(
            "this node takes no messages from others: start it with a gate (`NodeConfig::gate`) that permits them",
        ))
    }
}

/// Lets everyone with a certificate of the cluster do everything: for tests, and for programs of one trust.
#[derive(Debug, Clone, Copy, Default)]
pub struct PermitAll;

impl Gate for PermitAll {
    fn admit(&self, _: &PeerIdentity, _: &ActorName, _: &'static str) -> Result<(), Refusal> {
        Ok(())
    }

    fn permit(
        &self,
        _: &PeerIdentity,
        _: &ActorName,
        _: &'static str,
        _: &dyn Any,
    ) -> Result<(), Refusal> {
        Ok(())
    }
}
