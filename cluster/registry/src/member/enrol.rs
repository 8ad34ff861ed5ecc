//! How a disk becomes a member: a number from the log, a place as learner, a vote.
//!
//! The number is written into the directory before it is used. A name that another disk holds is refused, so that
//! an emptied directory cannot vote again; a disk that was removed is refused for good. A directory that has been a
//! member asks before it takes part again: one that was copied or restored is refused while it has not yet voted.
//! Where nobody answers, as when all start at once, the members find out by each other's messages.

use super::{Beginning, Shared, StartError, handle::CALL_LIMIT};
use crate::{
    clock::BootTime,
    disk::identity::Claimed,
    members::Pauses,
    protocol::{
        Enrol, Join, MembershipError, REGISTRY_ACTOR, RegistryRole, Remove, Return, Status,
    },
    raft::{Answer, Command, MemberId, MemberNode, Raft, StoredMembership},
    store::{Admission, FOUNDER},
};
use futures_util::future::join_all;
use impresario_runtime::{ActorNode, ActorPath, NodeName};
use openraft::{
    ChangeMembers,
    async_runtime::WatchReceiver,
    errors::{ClientWriteError, RaftError},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, timeout};

/// How long a member that returns listens for what the others know of it.
const RETURN_LIMIT: Duration = Duration::from_secs(3);
/// How long the leader listens whether an earlier life goes on speaking: each says so every half second.
const EARLIER_LIFE: Duration = Duration::from_millis(1200);
/// How long an empty directory tries to be let in.
const JOIN_LIMIT: Duration = Duration::from_mins(1);
/// How long a founder listens for a group that exists already.
const LOOK_LIMIT: Duration = Duration::from_secs(2);
/// How long the leader waits for a learner to catch up, and for each change.
const CHANGE_LIMIT: Duration = Duration::from_secs(30);
/// How often a member looks whether the group knows it as it is.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The number under which a directory that is new takes part.
pub(super) async fn number(
    node: &ActorNode,
    claim: &mut Claimed,
    beginning: &Beginning,
) -> Result<MemberId, StartError> {
    let member = match beginning {
        Beginning::Found { peers } => {
            for peer in peers.iter().filter(|peer| *peer != node.name()) {
                let registry =
                    node.actor::<RegistryRole>(ActorPath::new(peer.clone(), REGISTRY_ACTOR));
                if let Ok(status) = registry.ask(Status, LOOK_LIMIT).await
                    && !status.voters.is_empty()
                {
                    return Err(StartError::GroupExists { node: peer.clone() });
                }
            }
            FOUNDER
        }
        Beginning::Join { members } => ask_in(node, claim.identity().disk, members).await?,
    };
    claim.become_member(member)?;
    Ok(member)
}

/// Those who may know of a directory that has been a member: whom it was told of, and its group as it last knew it.
pub(super) fn others(
    node: &ActorNode,
    beginning: &Beginning,
    group: &StoredMembership,
) -> BTreeSet<NodeName> {
    let (Beginning::Found { peers: told } | Beginning::Join { members: told }) = beginning;
    let mut others: BTreeSet<NodeName> = told.iter().cloned().collect();
    for (_, member) in
        group.membership().nodes().filter(|(_, known)| known.name != node.name().as_str())
    {
        let name = NodeName::from(member.name.as_str());
        if let Ok(address) = member.address.parse() {
            node.addresses().set(name.clone(), address);
        }
        others.insert(name);
    }
    others
}

/// Asks the others whether a directory that has been a member may take part again.
pub(super) async fn may_return(
    node: &ActorNode,
    member: MemberId,
    me: &MemberNode,
    others: &BTreeSet<NodeName>,
) -> Result<(), StartError> {
    let asked = others.iter().filter(|other| *other != node.name()).map(|other| {
        let registry = node.actor::<RegistryRole>(ActorPath::new(other.clone(), REGISTRY_ACTOR));
        registry.ask(Return { member, node: me.clone() }, RETURN_LIMIT)
    });
    for answer in join_all(asked).await {
        match answer {
            Ok(Ok(()) | Err(MembershipError::Unavailable { .. })) => {}
            Ok(Err(refused)) => return Err(StartError::Refused(refused)),
            Err(error) => {
                tracing::debug!(%error, "a member does not say what it knows of this one");
            }
        }
    }
    Ok(())
}

async fn ask_in(
    node: &ActorNode,
    disk: u128,
    members: &[NodeName],
) -> Result<MemberId, StartError> {
    let mut reason = "nobody was named".to_owned();
    if members.is_empty() {
        return Err(StartError::NobodyAnswers {
            asked: Vec::new(),
            waited: Duration::ZERO,
            reason,
        });
    }
    let mut pauses = Pauses::until(Instant::now() + JOIN_LIMIT);
    while let Some(left) = pauses.left() {
        for member in members {
            let registry =
                node.actor::<RegistryRole>(ActorPath::new(member.clone(), REGISTRY_ACTOR));
            let join = Join { disk, node: node.name().to_string() };
            match registry.ask(join, left.min(CALL_LIMIT)).await {
                Ok(Ok(number)) => return Ok(number),
                Ok(Err(MembershipError::Unavailable { reason: why })) => reason = why,
                Ok(Err(refused)) => return Err(StartError::Refused(refused)),
                Err(error) => reason = error.to_string(),
            }
        }
        pauses.pause().await;
    }
    Err(StartError::NobodyAnswers { asked: members.to_vec(), waited: JOIN_LIMIT, reason })
}

/// Founds the group with one voter, unless this directory has done so before.
pub(super) async fn found(
    raft: &Raft,
    member: MemberId,
    me: &MemberNode,
) -> Result<(), StartError> {
    let failed = |error: String| StartError::Raft(error);
    if raft.is_initialized().await.map_err(|error| failed(error.to_string()))? {
        return Ok(());
    }
    let first = BTreeMap::from([(member, me.clone())]);
    raft.initialize(first).await.map_err(|error| failed(error.to_string()))
}

/// Sees to it that the group knows this member, with its vote and its address. Runs until the member aborts it.
pub(super) async fn stay_enrolled(shared: Arc<Shared>, beginning: Beginning) {
    let invited = match beginning {
        Beginning::Found { .. } => Vec::new(),
        Beginning::Join { members } => members,
    };
    loop {
        if !shared.is_enrolled() {
            // Before the first message of a leader nobody but those who invited it is known.
            let doors = shared.leader().map_or_else(|| invited.clone(), |leader| vec![leader]);
            for door in doors {
                let enrol = Enrol { member: shared.id, node: shared.me.clone() };
                match shared.registry_at(door).ask(enrol, CHANGE_LIMIT).await {
                    Ok(Ok(())) => break,
                    Ok(Err(error @ MembershipError::Unavailable { .. })) => {
                        tracing::info!(%error, "this member has no vote yet");
                    }
                    Ok(Err(refused)) => {
                        tracing::error!(%refused, "this member gets no vote");
                        // For good: the member ends, and says why, rather than serve what is old without end.
                        if matches!(
                            refused,
                            MembershipError::Copied { .. } | MembershipError::Retired { .. }
                        ) {
                            shared.refused.send_replace(Some(refused));
                        }
                        return;
                    }
                    Err(error) => {
                        tracing::debug!(%error, "nobody heard that this member wants its vote");
                    }
                }
            }
        }
        tokio::time::sleep(LOOK_EVERY.mul_f64(rand::random_range(0.8..1.2))).await;
    }
}

impl Shared {
    fn is_enrolled(&self) -> bool {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        let votes = membership.voter_ids().any(|id| id == self.id);
        votes && membership.get_node(&self.id) == Some(&self.me)
    }

    /// Who holds a name in the group.
    fn holder(&self, name: &str) -> Option<(MemberId, MemberNode)> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let nodes =
            metrics.membership_config.membership().nodes().map(|(id, node)| (*id, node.clone()));
        nodes.into_iter().find(|(_, node)| node.name == name)
    }

    /// Forwards to the leader what only it may do; none when this member leads.
    async fn at_leader<M>(&self, message: M) -> Result<Option<M::Reply>, MembershipError>
    where
        M: impresario_runtime::Message,
        RegistryRole: impresario_runtime::Accepts<M>,
    {
        if self.raft.is_leader() {
            return Ok(None);
        }
        let unavailable = |reason: String| MembershipError::Unavailable { reason };
        let leader = self.leader().filter(|leader| leader != self.node.name());
        let leader = leader.ok_or_else(|| unavailable("there is no leader".to_owned()))?;
        let answer = self.registry_at(leader).ask(message, CHANGE_LIMIT).await;
        answer.map(Some).map_err(|error| unavailable(error.to_string()))
    }

    pub(super) async fn join(&self, join: Join) -> Result<MemberId, MembershipError> {
        if let Some(answer) = self.at_leader(join.clone()).await? {
            return answer;
        }
        if let Some((member, known)) = self.holder(&join.node)
            && known.disk != join.disk
        {
            return Err(MembershipError::NameTaken { node: join.node, member });
        }
        let answer =
            timeout(CALL_LIMIT, self.raft.client_write(Command::Admit { disk: join.disk })).await;
        match answer {
            Ok(Ok(response)) => match response.data {
                Answer::Admitted(Admission::Member(member)) => Ok(member),
                Answer::Admitted(Admission::Retired(member)) => {
                    Err(MembershipError::Retired { member })
                }
                Answer::Admitted(Admission::Full(count)) => {
                    Err(MembershipError::TooManyDisks { count })
                }
                other => Err(MembershipError::Unavailable {
                    reason: format!("the log answered {other:?}"),
                }),
            },
            Ok(Err(error)) => Err(MembershipError::Unavailable { reason: error.to_string() }),
            Err(late) => Err(MembershipError::Unavailable { reason: late.to_string() }),
        }
    }

    pub(super) async fn enrol(&self, enrol: Enrol) -> Result<(), MembershipError> {
        if let Some(answer) = self.at_leader(enrol.clone()).await? {
            return answer;
        }
        let Enrol { member, node } = enrol;
        if let Some((holder, known)) = self.holder(&node.name)
            && (holder != member || known.disk != node.disk)
        {
            return Err(MembershipError::NameTaken { node: node.name, member: holder });
        }
        self.judge(member, &node)?;
        let known = self.holder(&node.name).map(|(_, known)| known);
        match known {
            None => {
                let add = self.raft.add_learner(member, node, true);
                settle(timeout(CHANGE_LIMIT, add).await)?;
            }
            Some(known) if known != node => {
                let nodes = BTreeMap::from([(member, node)]);
                self.change(ChangeMembers::SetNodes(nodes)).await?;
            }
            Some(_) => {}
        }
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([member]))).await
    }

    /// Refuses a directory that is not the member that it says it is, as far as this member knows.
    fn judge(&self, member: MemberId, node: &MemberNode) -> Result<(), MembershipError> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let known = metrics.membership_config.membership().get_node(&member).cloned();
        let (retired, admitted) =
            self.replica.read(|store| (store.is_retired(member), store.member_of(node.disk)));
        if retired {
            return Err(MembershipError::Retired { member });
        }
        match (&known, admitted) {
            (_, Some(Admission::Retired(member))) => Err(MembershipError::Retired { member }),
            (Some(known), _) if known.disk != node.disk => {
                Err(MembershipError::OtherDisk { member })
            }
            (Some(known), _) if known.generation > node.generation => {
                Err(MembershipError::Copied {
                    node: node.name.clone(),
                    known: known.generation,
                    shown: node.generation,
                })
            }
            // The founder's disk never asked for its number; the membership has known it from the first entry on.
            (Some(_), None) if member == FOUNDER => Ok(()),
            (_, Some(Admission::Member(number))) if number == member => Ok(()),
            _ => Err(MembershipError::OtherDisk { member }),
        }
    }

    /// Whether a member may take part in the life of its directory that begins.
    pub(super) async fn may_return(&self, asks: Return) -> Result<(), MembershipError> {
        let Return { member, node } = asks;
        if self.raft.metrics().borrow_watched().membership_config.membership().nodes().count() == 0
        {
            let reason = "this member knows of no group yet".to_owned();
            return Err(MembershipError::Unavailable { reason });
        }
        let leads = self.raft.is_leader();
        match self.judge(member, &node) {
            // A member that lags may not have heard of the other's admission.
            Err(MembershipError::OtherDisk { .. }) if !leads => return Ok(()),
            judged => judged?,
        }
        let metrics = self.raft.metrics().borrow_watched().clone();
        let known = metrics.membership_config.membership().get_node(&member).cloned();
        if let Some(known) = known.filter(|known| known.generation == node.generation) {
            let (known, shown) = (known.generation, node.generation);
            return Err(MembershipError::Copied { node: node.name, known, shown });
        }
        let earlier = |now| {
            let alive =
                |leases: &mut super::Leases| leases.earlier_life(&node.name, node.generation, now);
            self.lead(alive).ok().flatten()
        };
        if let Some(heard) = earlier(BootTime::now()) {
            tokio::time::sleep(EARLIER_LIFE).await;
            if earlier(BootTime::now()).is_some_and(|later| later > heard) {
                return Err(MembershipError::RunsAlready { node: node.name, member });
            }
        }
        Ok(())
    }

    pub(super) async fn remove(&self, name: &str) -> Result<(), MembershipError> {
        if let Some(answer) = self.at_leader(Remove { node: name.to_owned() }).await? {
            return answer;
        }
        let (member, _) =
            self.holder(name).ok_or_else(|| MembershipError::Unknown { node: name.to_owned() })?;
        if self.voter_names().iter().all(|voter| voter == name) {
            return Err(MembershipError::LastVoter { node: name.to_owned() });
        }
        // Retired first: once it is out, nothing must let its disk in again.
        let retire = timeout(CALL_LIMIT, self.raft.client_write(Command::Retire { member })).await;
        settle(retire)?;
        let gone = BTreeSet::from([member]);
        // Not retained: a voter that loses its vote leaves the membership with the same change.
        let change = if self.voter_names().contains(name) {
            ChangeMembers::RemoveVoters(gone)
        } else {
            ChangeMembers::RemoveNodes(gone)
        };
        settle(timeout(CHANGE_LIMIT, self.raft.change_membership(change, false)).await)
    }

    async fn change(
        &self,
        change: ChangeMembers<MemberId, MemberNode>,
    ) -> Result<(), MembershipError> {
        settle(timeout(CHANGE_LIMIT, self.raft.change_membership(change, true)).await)
    }
}

type Written<T> = Result<
    Result<T, RaftError<crate::raft::Types, ClientWriteError<crate::raft::Types>>>,
    tokio::time::error::Elapsed,
>;

fn settle<T>(written: Written<T>) -> Result<(), MembershipError> {
    match written {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(MembershipError::Unavailable { reason: error.to_string() }),
        Err(late) => Err(MembershipError::Unavailable { reason: late.to_string() }),
    }
}
