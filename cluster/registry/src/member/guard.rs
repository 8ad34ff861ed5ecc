//! Who may speak with a member's registry: judged here once more, whatever the node's gate let pass.
//!
//! Raw reads and writes are for control members: a certificate of that role, of a node that the group counts among its
//! members. A member that was removed holds a good certificate for as long as that lasts, and nothing more: it may ask
//! to be let in again, as itself, and how things stand. What raft's members say to each other is said in the name of
//! the certificate's node, and not by one that was removed.

use super::vouch::{Answer, Asked, Hears, Speaker, Vouched, Word};
use crate::{
    protocol::{Enrol, Group, Heartbeat, Join, REGISTRY_ACTOR, RegistryRole, Remove, Status},
    raft::{
        MemberId, MemberNode, Raft,
        messages::{self, RAFT_ACTOR},
    },
    replica::Replica,
};
use futures_util::future::join_all;
use impresario_runtime::{
    ActorName, ActorNode, ActorPath, AskError, Gate, Message, NodeName, PeerIdentity, PeerRole,
    Refusal, clock,
};
use openraft::{Membership, async_runtime::WatchReceiver};
use parking_lot::Mutex;
use std::{
    any::Any,
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};
use thiserror::Error;
use tokio::sync::mpsc;

/// How long a member is given to say who is in the group.
const STATUS_LIMIT: Duration = Duration::from_secs(1);
/// So many unknown names may wait for the others' word; more of them are asked about when they speak again.
pub(super) const ASKED: usize = 16;

/// Why a message does not reach the registry. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum Denied {
    /// The certificate is of another role.
    #[error("the registry is for control members alone: ask the objects of a member")]
    Role,
    /// The group has no such member.
    #[error(
        "the group has no such member: it was removed, or is not let in yet; start it with an empty directory to join"
    )]
    NoMember,
    /// No member that is known counts it among the group.
    #[error(
        "this member has not heard of it and asks those whom it knows; if they are all gone for good, remove this member, and let it join anew with an empty directory"
    )]
    Unheard,
    /// It is said in another's name.
    #[error("it is said in the name of another node")]
    Another,
}

/// The guard of a member's actors.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) raft: Raft,
    /// Knows who was removed.
    pub(super) replica: Replica,
    /// The harness of a cluster that is tested, which reads and writes as a member does.
    pub(super) harness: Option<String>,
    /// How long a leader of the group may be silent.
    pub(super) silence: Duration,
    /// When a member of the group last spoke here as its leader, in the newest term that is known.
    pub(super) heard: Mutex<Option<Instant>>,
    /// Who let this member in: they know the group before this member does.
    pub(super) invited: Vec<NodeName>,
    /// Those who are not known, and what the others say of them.
    pub(super) vouched: Vouched,
    /// Whom the others are to be asked about.
    pub(super) asks: mpsc::Sender<Speaker>,
}

/// Asks those whom this member knows about those whom it does not. Runs until the member aborts it.
pub(super) async fn ask_about(
    guard: Arc<Guard>,
    node: ActorNode,
    mut speakers: mpsc::Receiver<Speaker>,
) {
    if guard.is_new() {
        // Its leader is about to speak, and need not be refused first.
        let (count, answers) = ask(&guard, &node, None).await;
        for speaker in answers.iter().flat_map(Answer::speakers) {
            if guard.word(&speaker, count, &answers) == Word::Member {
                guard.vouched.vouch(&speaker, clock::now());
            }
        }
    }
    while let Some(speaker) = speakers.recv().await {
        let (count, answers) = ask(&guard, &node, Some(&speaker.name)).await;
        let word = guard.word(&speaker, count, &answers);
        let Speaker { name, member } = &speaker;
        tracing::info!(%name, member, ?word, "raft is spoken by a node that this member has not heard of");
        guard.vouched.tell(&speaker, word, clock::now());
    }
}

/// What those say who know the group, without the one that they are asked about, and how many were asked.
async fn ask(guard: &Guard, node: &ActorNode, about: Option<&NodeName>) -> (usize, Vec<Answer>) {
    let asked = guard.knowing(node.name(), about);
    let count = asked.len();
    let answers = asked.into_iter().map(|member| {
        let registry = node.actor::<RegistryRole>(ActorPath::new(member.clone(), REGISTRY_ACTOR));
        async move {
            let answer = match registry.ask(Group, STATUS_LIMIT).await {
                Ok(group) => Ok(Answer::of(member, &group)),
                // It is of a version that tells names alone.
                Err(AskError::UnknownMessage { .. } | AskError::Refused { .. }) => {
                    let status = registry.ask(Status, STATUS_LIMIT).await;
                    status.map(|status| Answer::without_numbers(member, &status))
                }
                Err(error) => Err(error),
            };
            answer
                .inspect_err(|error| tracing::debug!(%error, "a member does not say who is one"))
                .ok()
        }
    });
    (count, join_all(answers).await.into_iter().flatten().collect())
}

impl Guard {
    /// Whether a node is one of the group's members, be it that it has no vote yet.
    pub(super) fn is_member(&self, name: &str) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let mut members = metrics.membership_config.membership().nodes();
        self.harness.as_deref() == Some(name) || members.any(|(_, node)| node.name == name)
    }

    /// What the group has under a number that somebody speaks under, who says raft's `body`.
    fn standing(&self, member: MemberId, speaker: &NodeName, body: &dyn Any) -> Standing {
        let name = speaker.as_str();
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        // One that leads its own removal is retired already and still needed for it.
        match membership.get_node(&member) {
            Some(known) => {
                if known.name == name && is_by_leader(body, member, metrics.current_term) {
                    *self.heard.lock() = Some(clock::now());
                }
                Standing::Member(known.name.clone())
            }
            None if self.replica.read(|store| store.is_retired(member)) => Standing::Retired,
            // Who leads, or is led, knows the group; who has been away may not have heard of the one that leads now, be
            // it that it was removed meanwhile and has come back under its name.
            None if metrics.current_leader == Some(metrics.id) || self.is_led() => {
                if membership.nodes().any(|(_, known)| known.name == name) {
                    Standing::Member(String::new())
                } else {
                    Standing::Nobody
                }
            }
            None => {
                let speaker = Speaker { name: speaker.clone(), member };
                let hears = self.vouched.hears(&speaker, clock::now());
                if matches!(hears, Hears::YesAsks | Hears::Asks) {
                    // With many waiting it is asked about when it speaks again.
                    let _ = self.asks.try_send(speaker);
                }
                match hears {
                    Hears::Yes | Hears::YesAsks => Standing::Vouched,
                    Hears::No | Hears::Asks => Standing::Unknown,
                }
            }
        }
    }

    /// What answers, of so many who were asked, say of a node.
    fn word(&self, speaker: &Speaker, count: usize, answers: &[Answer]) -> Word {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let mut known = metrics.membership_config.membership().nodes();
        let is_new_name = !known.any(|(_, node)| node.name == speaker.name.as_str());
        Word::of(Asked { speaker, is_new_name, count, term: metrics.current_term }, answers)
    }

    /// Who knows the group; who is asked about says nothing of itself, unless it let this member in.
    fn knowing(&self, me: &NodeName, about: Option<&NodeName>) -> Vec<NodeName> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        knowing(metrics.membership_config.membership(), me, about, &self.invited)
    }

    /// Whether this member has heard of no group yet.
    fn is_new(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().nodes().next().is_none()
    }

    /// Whether the group's leader was heard so lately that it may lead still.
    fn is_led(&self) -> bool {
        self.heard.lock().is_some_and(|at| at.elapsed() < self.silence)
    }
}

impl Gate for Guard {
    fn admit(
        &self,
        peer: &PeerIdentity,
        to: &ActorName,
        message: &'static str,
    ) -> Result<(), Refusal> {
        let is_open = to.as_str() != RAFT_ACTOR && OF_OTHERS.contains(&message);
        if is_open || peer.role == PeerRole::Control {
            return Ok(());
        }
        Err(Refusal::new(format!("{} may not send {message}: {}", peer.node, Denied::Role)))
    }

    fn permit(
        &self,
        peer: &PeerIdentity,
        to: &ActorName,
        message: &'static str,
        body: &dyn Any,
    ) -> Result<(), Refusal> {
        let said = Said { to: to.as_str(), message, body };
        let judged = match messages::sender(body).filter(|_| to.as_str() == RAFT_ACTOR) {
            Some(sender) => seated(peer, &self.standing(sender.member, &peer.node, body)),
            None => judge(peer, &said, |name| self.is_member(name)),
        };
        judged.map_err(|denied| {
            Refusal::new(format!("{} may not send {message}: {denied}", peer.node))
        })
    }
}

/// Whether a message shows that its sender leads, in this term or a later one. One that was removed and runs on asks
/// those for votes whose log still has it: it must not keep them from hearing who leads now.
fn is_by_leader(body: &dyn Any, sender: MemberId, term: u64) -> bool {
    messages::leads(body).is_some_and(|(leader, led)| leader == sender && led >= term)
}

/// Who knows the group: the other voters that this member's log has. Until it has a vote itself, its log may end long
/// before they were replaced, and those who let it in are asked as well.
fn knowing(
    group: &Membership<MemberId, MemberNode>,
    me: &NodeName,
    about: Option<&NodeName>,
    invited: &[NodeName],
) -> Vec<NodeName> {
    let named = |id| Some(NodeName::from(group.get_node(&id)?.name.as_str()));
    let voters: BTreeSet<NodeName> = group.voter_ids().filter_map(named).collect();
    let others: &[NodeName] = if voters.contains(me) { &[] } else { invited };
    let mut knowing: BTreeSet<_> =
        voters.into_iter().filter(|voter| Some(voter) != about).collect();
    knowing.extend(others.iter().cloned());
    knowing.remove(me);
    knowing.into_iter().collect()
}

/// What others than control members may say to the registry.
const OF_OTHERS: [&str; 3] = [Status::NAME, Heartbeat::NAME, Remove::NAME];

/// What somebody wants.
struct Said<'m> {
    to: &'m str,
    message: &'static str,
    body: &'m dyn Any,
}

/// What the group has under a member's number.
enum Standing {
    /// The member on this node.
    Member(String),
    /// One that was removed.
    Retired,
    /// Nobody, as far as this member has heard, and the others count the speaker among the group.
    Vouched,
    /// Nobody, as far as this member has heard.
    Unknown,
    /// Nobody, and this member has heard of everyone.
    Nobody,
}

/// Whether the holder of a certificate may say a raft message under a number.
fn seated(peer: &PeerIdentity, standing: &Standing) -> Result<(), Denied> {
    match standing {
        _ if peer.role != PeerRole::Control => Err(Denied::Role),
        Standing::Member(node) if node == peer.node.as_str() => Ok(()),
        Standing::Member(_) => Err(Denied::Another),
        Standing::Retired | Standing::Nobody => Err(Denied::NoMember),
        // A member that lags may not have heard of the one that leads: who may vote is what votes are judged by.
        Standing::Vouched => Ok(()),
        Standing::Unknown => Err(Denied::Unheard),
    }
}

fn judge(
    peer: &PeerIdentity,
    said: &Said<'_>,
    is_member: impl Fn(&str) -> bool,
) -> Result<(), Denied> {
    let name = peer.node.as_str();
    let is_control = peer.role == PeerRole::Control;
    if said.to == RAFT_ACTOR {
        return Err(if is_control { Denied::NoMember } else { Denied::Role });
    }
    // Who asks to be let in asks who is there first.
    let is_open = said.message == Status::NAME || (is_control && said.message == Group::NAME);
    if is_open || (is_control && is_member(name)) {
        return Ok(());
    }
    let body = said.body;
    if let Some(beat) = body.downcast_ref::<Heartbeat>() {
        return if beat.node == name { Ok(()) } else { Err(Denied::Another) };
    }
    if body.is::<Remove>() && peer.role == PeerRole::Admin {
        return Ok(());
    }
    if !is_control {
        return Err(Denied::Role);
    }
    let applicant = None
        .or_else(|| body.downcast_ref::<Join>().map(|join| &join.node))
        .or_else(|| body.downcast_ref::<Enrol>().map(|enrol| &enrol.node.name));
    match applicant {
        Some(applicant) if applicant == name => Ok(()),
        Some(_) => Err(Denied::Another),
        None => Err(Denied::NoMember),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Consistency, Key, Life, Transaction,
        protocol::{Get, LeadTransact, REGISTRY_ACTOR, Transact},
        raft::{
            Vote,
            messages::{AskVote, Beat, Route, Seat},
        },
    };
    use openraft::raft::{AppendEntriesRequest, VoteRequest};
    use std::collections::BTreeMap;

    fn peer(name: &str, role: PeerRole) -> PeerIdentity {
        PeerIdentity { node: name.into(), role, cluster: "test".into(), fingerprint: "ab".into() }
    }

    #[test]
    fn until_a_member_has_a_vote_those_who_let_it_in_are_asked_beside_the_voters_of_its_log() {
        let nodes = |ids: &[MemberId]| -> BTreeMap<MemberId, MemberNode> {
            let node =
                |id: &MemberId| MemberNode { name: format!("m{id}"), ..MemberNode::default() };
            ids.iter().map(|id| (*id, node(id))).collect()
        };
        let group = |voters: &[MemberId], nodes: BTreeMap<MemberId, MemberNode>| {
            Membership::new(vec![voters.iter().copied().collect()], nodes).unwrap()
        };
        let names = |names: &[&str]| -> Vec<NodeName> {
            names.iter().map(|name| NodeName::from(*name)).collect()
        };
        let (me, invited) = (NodeName::from("m5"), names(&["m2", "m3", "m5"]));
        let ask = |group: &Membership<_, _>, about: &str| {
            knowing(group, &me, Some(&about.into()), &invited)
        };
        // The beginning of the log: its founder was replaced long ago.
        assert_eq!(ask(&group(&[1], nodes(&[1])), "m4"), names(&["m1", "m2", "m3"]));
        assert_eq!(ask(&group(&[1], nodes(&[1])), "m2"), names(&["m1", "m2", "m3"]));
        assert_eq!(ask(&Membership::default(), "m4"), names(&["m2", "m3"]));
        let votes = group(&[1, 2, 5], nodes(&[1, 2, 5]));
        assert_eq!(ask(&votes, "m4"), names(&["m1", "m2"]));
        assert_eq!(ask(&votes, "m2"), names(&["m1"]));
    }

    #[test]
    fn a_leader_is_heard_by_what_leaders_say_and_not_by_who_asks_for_votes() {
        let seat = |member| Seat { member, disk: 1, generation: Life::default() };
        let route = Route { from: seat(2), to: seat(1) };
        let ask = |pre| AskVote {
            route,
            pre,
            request: VoteRequest {
                vote: Vote::new(9, 2),
                last_log_id: None,
                leadership_transfer: false,
            },
        };
        for pre in [true, false] {
            assert!(!is_by_leader(&ask(pre), 2, 5));
        }
        let beat = |vote| Beat {
            route,
            request: AppendEntriesRequest {
                vote,
                prev_log_id: None,
                entries: Vec::new(),
                leader_commit: None,
            },
        };
        assert!(is_by_leader(&beat(Vote::new_committed(5, 2)), 2, 5));
        assert!(is_by_leader(&beat(Vote::new_committed(6, 2)), 2, 5));
        assert!(!is_by_leader(&beat(Vote::new_committed(4, 2)), 2, 5), "it led once");
        assert!(!is_by_leader(&beat(Vote::new(6, 2)), 2, 5), "it has not won");
        assert!(!is_by_leader(&beat(Vote::new_committed(6, 3)), 2, 5), "another one leads");
    }

    #[test]
    fn raft_is_spoken_in_one_s_own_name_and_not_by_who_was_removed() {
        let m1 = peer("m1", PeerRole::Control);
        assert_eq!(seated(&m1, &Standing::Member("m1".into())), Ok(()));
        assert_eq!(seated(&m1, &Standing::Member("m2".into())), Err(Denied::Another));
        assert_eq!(seated(&m1, &Standing::Retired), Err(Denied::NoMember));
        assert_eq!(seated(&m1, &Standing::Vouched), Ok(()));
        assert_eq!(seated(&m1, &Standing::Unknown), Err(Denied::Unheard));
        assert_eq!(seated(&m1, &Standing::Nobody), Err(Denied::NoMember));
        let node = peer("m1", PeerRole::Node);
        assert_eq!(seated(&node, &Standing::Member("m1".into())), Err(Denied::Role));
    }

    fn said<M: Message>(name: &str, role: PeerRole, body: &M) -> Result<(), Denied> {
        let peer = peer(name, role);
        let said = Said { to: REGISTRY_ACTOR, message: M::NAME, body };
        judge(&peer, &said, |name| name == "m1")
    }

    #[test]
    fn raw_reads_and_writes_are_for_members_by_role_and_by_membership() {
        let write = Transact(Transaction::new());
        let lead = LeadTransact(Transaction::new());
        let read = Get { key: Key::new("secrets", "d", "a"), consistency: Consistency::Local };
        assert_eq!(said("m1", PeerRole::Control, &write), Ok(()));
        assert_eq!(said("m1", PeerRole::Control, &lead), Ok(()));
        assert_eq!(said("m1", PeerRole::Control, &read), Ok(()));
        let guest = PeerRole::Guest { scope: "j".into() };
        for role in [PeerRole::Node, PeerRole::Client, PeerRole::Admin, guest] {
            // Of a member's name, and yet of another role.
            assert_eq!(said("m1", role.clone(), &write), Err(Denied::Role), "{role:?}");
            assert_eq!(said("m1", role.clone(), &lead), Err(Denied::Role), "{role:?}");
            assert_eq!(said("m1", role.clone(), &read), Err(Denied::Role), "{role:?}");
        }
        for denied in [
            said("removed", PeerRole::Control, &write),
            said("removed", PeerRole::Control, &lead),
            said("removed", PeerRole::Control, &read),
            said("removed", PeerRole::Control, &Remove { node: "m1".into(), force: false }),
        ] {
            assert_eq!(denied, Err(Denied::NoMember));
        }
    }

    #[test]
    fn who_is_no_member_applies_as_itself_alone() {
        let enrol = |name: &str| Enrol {
            member: 4,
            node: MemberNode { name: name.into(), ..MemberNode::default() },
            lives: Vec::new(),
        };
        let join = |name: &str| Join { disk: 7, node: name.into() };
        let beat = |name: &str| Heartbeat { node: name.into(), incarnation: 1, ready: true };
        assert_eq!(said("m4", PeerRole::Control, &enrol("m4")), Ok(()));
        assert_eq!(said("m4", PeerRole::Control, &join("m4")), Ok(()));
        assert_eq!(said("m4", PeerRole::Control, &enrol("m1")), Err(Denied::Another));
        assert_eq!(said("m4", PeerRole::Control, &join("m1")), Err(Denied::Another));
        assert_eq!(said("n1", PeerRole::Node, &join("n1")), Err(Denied::Role));
        assert_eq!(said("n1", PeerRole::Node, &beat("n1")), Ok(()));
        assert_eq!(said("n1", PeerRole::Node, &beat("n2")), Err(Denied::Another));
        assert_eq!(said("m1", PeerRole::Control, &beat("n2")), Ok(()), "brought to the leader");
        assert_eq!(
            said("admin", PeerRole::Admin, &Remove { node: "m2".into(), force: false }),
            Ok(())
        );
        assert_eq!(
            said("n1", PeerRole::Node, &Remove { node: "m2".into(), force: false }),
            Err(Denied::Role)
        );
        assert_eq!(said("anybody", PeerRole::Client, &Status), Ok(()));
    }
}
