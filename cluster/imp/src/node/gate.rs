//! Who may send what to whom, by the certificate of the sender.
//!
//! | sender | may |
//! |---|---|
//! | control member | everything, while the group counts it among its members; else to ask to be let in |
//! | node | ask the objects of a member, under the rules for nodes; tell that it lives and what is used on it; renew itself; ask for its pods' guests and tokens; take the input of its pods' sessions; tell their owners what it wrote of them |
//! | guest | message its own job, and the other guests of that job |
//! | client | ask the objects, by the roles that are bound to it, ask actors to describe themselves, and ask them to change their objects, under the same rules |
//! | admin | everything but what control members say to each other, and alone: to run something in a pod |
//!
//! The registry itself is for control members alone. What reaches the objects of a member says who sends
//! it: that must be the holder of the certificate; what they may do there is decided by the objects' own
//! rules. A refusal is typed, counted, logged once by the runtime, and leaves everything as it was.

use impresario_client::protocol::authority::{
    CreateToken, IssueAccountToken, IssueGuest, JoinRole, KeepAccountToken, Renew, RevokeToken,
};
use impresario_client::protocol::{control, node, pod, scheduler, session, training, usage};
use impresario_objects::protocol as objects;
use impresario_objects::{Membership, Refusals};
use impresario_registry::protocol as registry;
use impresario_registry::raft::messages::RAFT_ACTOR;
use impresario_runtime::{
    ActorName, Gate, Message, NodeName, PeerIdentity, PeerRole, Refusal, StreamMessage,
};
use parking_lot::RwLock;
use std::any::Any;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// The name in the certificate of the harness, which a cluster started with `--chaos` counts among its members.
pub const HARNESS: &str = "chaos";

/// The gate of a node.
#[derive(Clone, Default)]
pub struct ClusterGate {
    /// Where refusals are counted.
    pub refusals: Arc<Refusals>,
    /// On a control member: who is one, by the membership of the registry. Until it is known, and on other nodes, the
    /// role in the certificate says it.
    pub membership: Arc<OnceLock<Membership>>,
    /// The fingerprints of certificates that are trusted no more, as [`PeerIdentity`] has them.
    pub revoked: Arc<RwLock<HashSet<String>>>,
    /// On a control member that starts: no leader has told it yet who is revoked.
    pub is_unread: Arc<AtomicBool>,
}

impl ClusterGate {
    /// Whether a control member's certificate is that of a member.
    fn is_member(&self, name: &str) -> bool {
        self.membership.get().is_none_or(|is_member| is_member(name))
    }
}

impl Gate for ClusterGate {
    fn admit(
        &self,
        peer: &PeerIdentity,
        to: &ActorName,
        message: &'static str,
    ) -> Result<(), Refusal> {
        let may = may_name(peer, to, message, |name| self.is_member(name));
        self.judge(peer, to, message, may)
    }

    fn permit(
        &self,
        peer: &PeerIdentity,
        to: &ActorName,
        message: &'static str,
        body: &dyn Any,
    ) -> Result<(), Refusal> {
        let may = may_send(peer, to, message, body, |name| self.is_member(name));
        self.judge(peer, to, message, may)
    }
}

impl ClusterGate {
    /// Counts and words a refusal.
    fn judge(
        &self,
        peer: &PeerIdentity,
        to: &ActorName,
        message: &'static str,
        may: bool,
    ) -> Result<(), Refusal> {
        let revoked = self.revoked.read().contains(&peer.fingerprint);
        if revoked {
            let role = role_name(&peer.role);
            self.refusals.count(role, "revoked");
            return Err(Refusal::new(format!(
                "the certificate of {} ({role}) was revoked: ask the cluster's operator",
                peer.node
            )));
        }
        if may && outlives_revocation(&peer.role, message) && self.is_unread.load(Ordering::Relaxed)
        {
            self.refusals.count(role_name(&peer.role), "early");
            return Err(Refusal::new(
                "this member is starting and has not read yet which certificates are revoked: try again in a moment",
            ));
        }
        if may {
            return Ok(());
        }
        let role = role_name(&peer.role);
        self.refusals.count(role, message);
        Err(Refusal::new(format!(
            "{} ({role}) may not send {message} to {to}: use a credential of a role that may",
            peer.node
        )))
    }
}

/// What a certificate that is revoked meanwhile must not get: it would outlast it. All of this waits for a leader, so that
/// who asks for it before one has told who is revoked would have it after.
fn outlives_revocation(role: &PeerRole, message: &str) -> bool {
    const OF_ADMINS: [&str; 3] = [registry::Remove::NAME, CreateToken::NAME, RevokeToken::NAME];
    message == Renew::NAME || (*role == PeerRole::Admin && OF_ADMINS.contains(&message))
}

/// What is said by a control member that the group does not count among its own, not yet or not any more: it may ask
/// to be let in, and how things stand. The registry's own guard looks at the names.
const OF_APPLICANTS: [&str; 5] = [
    registry::Status::NAME,
    registry::Group::NAME,
    registry::Join::NAME,
    registry::Enrol::NAME,
    registry::Return::NAME,
];

/// Whether a message of this name may come at all, whatever it says: nothing of it has been read yet.
fn may_name(
    peer: &PeerIdentity,
    to: &ActorName,
    message: &str,
    is_member: impl Fn(&str) -> bool,
) -> bool {
    match &peer.role {
        PeerRole::Control => may_control(peer, to, message, is_member),
        PeerRole::Admin => !is_of_members(to, message),
        PeerRole::Node => {
            WORKING.contains(&message) || OBJECTS.contains(&message) || OF_ITSELF.contains(&message)
        }
        PeerRole::Guest { scope } => {
            to.as_str() == training::job_actor(scope) && training::is_from_guests(message)
        }
        PeerRole::Client => may_client(message),
    }
}

/// A member that lags may not have heard of the one that leads: raft judges by who may vote.
fn may_control(
    peer: &PeerIdentity,
    to: &ActorName,
    message: &str,
    is_member: impl Fn(&str) -> bool,
) -> bool {
    is_member(peer.node.as_str()) || to.as_str() == RAFT_ACTOR || OF_APPLICANTS.contains(&message)
}

fn may_send(
    peer: &PeerIdentity,
    to: &ActorName,
    message: &'static str,
    body: &dyn Any,
    is_member: impl Fn(&str) -> bool,
) -> bool {
    // Nobody speaks for another, whatever their role.
    if let Some(sender) = objects::sender(body).or_else(|| control::sender(body))
        && !sender.is(peer)
    {
        return false;
    }
    match &peer.role {
        PeerRole::Control => may_control(peer, to, message, is_member),
        PeerRole::Admin => !is_of_members(to, message),
        PeerRole::Node => may_node(peer.node.as_str(), message, body),
        PeerRole::Guest { scope } => may_guest(&peer.node, scope, to, message, body),
        PeerRole::Client => may_client(message),
    }
}

/// A role in a word.
#[must_use]
pub fn role_name(role: &PeerRole) -> &'static str {
    match role {
        PeerRole::Control => "control member",
        PeerRole::Node => "node",
        PeerRole::Guest { .. } => "guest",
        PeerRole::Client => "client",
        PeerRole::Admin => "admin",
    }
}

/// What is said to the registry by others than its members: how it stands, that a node lives, and that an
/// operator takes a member out.
const OF_OTHERS: [&str; 3] =
    [registry::Status::NAME, registry::Heartbeat::NAME, registry::Remove::NAME];

/// What control members alone say, to each other and to pods: who may run something in a pod is decided by the rules
/// of the objects, which the members keep.
fn is_of_members(to: &ActorName, message: &str) -> bool {
    to.as_str() == RAFT_ACTOR
        || message == session::Session::NAME
        || (message.starts_with("registry.") && !OF_OTHERS.contains(&message))
}

/// What asks the objects of a member; their own rules decide about it.
const OBJECTS: [&str; 8] = [
    objects::Get::NAME,
    objects::List::NAME,
    objects::Follow::NAME,
    objects::Settle::NAME,
    objects::Create::NAME,
    objects::Change::NAME,
    objects::Delete::NAME,
    objects::Bind::NAME,
];

/// What changes an object through its actor; the same rules decide about it.
const THROUGH_ACTORS: [&str; 2] = [control::Scale::NAME, control::Suspend::NAME];

fn may_client(message: &str) -> bool {
    const DESCRIBING: &[&str] = &[
        node::Describe::NAME,
        pod::Describe::NAME,
        pod::Logs::NAME,
        scheduler::Status::NAME,
        scheduler::Explain::NAME,
        scheduler::Examine::NAME,
        control::Describe::NAME,
        training::Describe::NAME,
        registry::Status::NAME,
    ];
    DESCRIBING.contains(&message) || OBJECTS.contains(&message) || THROUGH_ACTORS.contains(&message)
}

/// A guest is of one job: here it reaches that job's actor, speaks for itself alone, and orders nothing.
fn may_guest(node: &NodeName, scope: &str, to: &ActorName, message: &str, body: &dyn Any) -> bool {
    to.as_str() == training::job_actor(scope) && training::is_of_guest(node, message, body)
}

/// What a node may send to anybody.
const WORKING: [&str; 4] =
    [registry::Status::NAME, pod::Logs::NAME, node::Describe::NAME, pod::Describe::NAME];

/// What it may say of itself alone.
const OF_ITSELF: [&str; 9] = [
    session::Input::NAME,
    control::Told::NAME,
    usage::Report::NAME,
    registry::Heartbeat::NAME,
    scheduler::SummaryChanged::NAME,
    Renew::NAME,
    IssueGuest::NAME,
    KeepAccountToken::NAME,
    IssueAccountToken::NAME,
];

fn may_node(name: &str, message: &str, body: &dyn Any) -> bool {
    if WORKING.contains(&message) || OBJECTS.contains(&message) {
        return true;
    }
    if let Some(input) = body.downcast_ref::<session::Input>() {
        // Which session's it is, and whether that is at this node, is for its receiver to see.
        return input.node == name;
    }
    if let Some(beat) = body.downcast_ref::<registry::Heartbeat>() {
        return beat.node == name;
    }
    if let Some(told) = body.downcast_ref::<scheduler::SummaryChanged>() {
        return told.summary.node == name;
    }
    if let Some(told) = body.downcast_ref::<control::Told>() {
        // That the pod is there is for the receiver to see.
        return told.node == name && told.key.resource == "pods";
    }
    if let Some(report) = body.downcast_ref::<usage::Report>() {
        return report.node == name;
    }
    if let Some(renew) = body.downcast_ref::<Renew>() {
        // A node stays a node: its certificate must not become a control member's.
        return renew.name == name && renew.role == JoinRole::Node;
    }
    if let Some(guest) = body.downcast_ref::<IssueGuest>() {
        return guest.node == name;
    }
    if let Some(token) = body.downcast_ref::<KeepAccountToken>() {
        return token.node == name;
    }
    if let Some(token) = body.downcast_ref::<IssueAccountToken>() {
        return token.node == name;
    }
    false
}

#[cfg(test)]
mod attacks;

#[cfg(test)]
mod tests;
