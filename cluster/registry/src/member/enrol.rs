//! How a disk becomes a member: a number from the log, a place as learner, a vote.
//!
//! The number is written into the directory before it is used. A name that another disk holds is refused, so that
//! an emptied directory cannot vote again; a disk that was removed is refused for good. A directory that has been a
//! member asks before it takes part again (`returns`): one that was copied or restored is refused while it has not yet
//! voted. Where nobody answers, as when all start at once, the members find out by each other's messages.

use super::{
    Beginning, StartError,
    door::has,
    handle::CALL_LIMIT,
    leases::Leases,
    place::copied,
    returns::{Judges, NoPlace, Said},
    shared::Shared,
};
use crate::{
    clock::BootTime,
    disk::identity::Claimed,
    error::ReadError,
    life::{Life, goes_on},
    members::Pauses,
    protocol::{
        Enrol, Join, MembershipError, NotLeader, REGISTRY_ACTOR, RegistryRole, Remove, Return,
        Status,
    },
    raft::{Answer, Command, MemberId, MemberNode, Raft, heard::EARLIER_LIFE},
    store::{Admission, FOUNDER},
};
use impresario_runtime::{ActorNode, ActorPath, NodeName, random};
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

/// How long an empty directory tries to be let in.
const JOIN_LIMIT: Duration = Duration::from_mins(1);
/// How long a founder listens for a group that exists already.
const LOOK_LIMIT: Duration = Duration::from_secs(2);
/// How long the leader waits for a learner to catch up, and for each change.
const CHANGE_LIMIT: Duration = Duration::from_secs(30);
/// A member that no leader has heard for this long may have been taken out without hearing of it.
const UNHEARD: Duration = Duration::from_secs(10);
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
        if (!shared.is_enrolled() || shared.is_unheard())
            && let Err(refused) = shared.ask_for_vote(&invited).await
        {
            // The member ends, and says why, rather than serve what is old without end.
            shared.place.refuse(&refused);
            return;
        }
        tokio::time::sleep(LOOK_EVERY.mul_f64(random::random_range(0.8..1.2))).await;
    }
}

impl Shared {
    /// Asks for this member's vote once, at the leader or else at all others, until one of them has seen to it.
    async fn ask_for_vote(&self, invited: &[NodeName]) -> Result<(), NoPlace> {
        let leader = self.leader().filter(|_| !self.is_unheard());
        let mut doors = match &leader {
            Some(leader) => vec![leader.clone()],
            // Before the first message of a leader nobody but those who invited it is known.
            None => self.others(invited),
        };
        // Whoever says of itself that it has seen to it is not the first one each time.
        let first = random::random_range(0..doors.len().max(1));
        doors.rotate_left(first);
        let mut said = Said::new();
        for door in doors {
            let (node, lives) = (self.me.clone(), self.lives.clone());
            let enrol = Enrol { member: self.id, node, lives };
            match self.registry_at(door.clone()).ask(enrol, CHANGE_LIMIT).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error @ MembershipError::Unavailable { .. })) if self.is_enrolled() => {
                    tracing::debug!(%error, "nobody says whether this member is one still");
                }
                Ok(Err(error @ MembershipError::Unavailable { .. })) => {
                    tracing::info!(%error, "this member has no vote yet");
                }
                Ok(Err(why)) if leader.as_ref() == Some(&door) => {
                    return Err(NoPlace { why, for_good: true });
                }
                Ok(Err(why)) => {
                    tracing::info!(%door, %why, "a member that may not be one still refuses this one");
                    said.insert(door, Err(why));
                }
                Err(error) => {
                    tracing::debug!(%error, "nobody heard that this member wants its vote");
                }
            }
        }
        let group = self.raft.metrics().borrow_watched().membership_config.clone();
        match Judges::among(self.node.name(), &group, invited).weigh(&said, &BTreeSet::new()) {
            // Of few it counts where no leader has been heard for long: it may be one that was removed who says it.
            Err(NoPlace { for_good: false, why })
                if !self.is_unheard() && group.membership().nodes().next().is_some() =>
            {
                tracing::debug!(%why, "the leader has not said so yet");
                Ok(())
            }
            judged => judged,
        }
    }

    /// Whether no leader has heard this member for long.
    fn is_unheard(&self) -> bool {
        self.unheard.lock().is_some_and(|since| since.elapsed() >= UNHEARD)
    }

    /// Those who invited this member and all other members that it knows.
    fn others(&self, invited: &[NodeName]) -> Vec<NodeName> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let members = metrics.membership_config.membership().nodes();
        let known = members.map(|(_, node)| NodeName::from(node.name.as_str()));
        let mut others: Vec<NodeName> = invited.iter().cloned().chain(known).collect();
        others.sort_unstable();
        others.dedup();
        others.retain(|other| other != self.node.name());
        others
    }

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
        let Enrol { member, node, lives } = enrol;
        if let Some((holder, known)) = self.holder(&node.name)
            && (holder != member || known.disk != node.disk)
        {
            return Err(MembershipError::NameTaken { node: node.name, member: holder });
        }
        self.has_applied().await?;
        self.judge(member, &node, &lives)?;
        let known = self.holder(&node.name).map(|(_, known)| known);
        if known.as_ref() == Some(&node) && self.voter_names().contains(&node.name) {
            return Ok(());
        }
        match known {
            None => {
                let add = self.raft.add_learner(member, node, true);
                settle(timeout(CHANGE_LIMIT, add).await)?;
            }
            Some(known) if known != node => {
                if self.lives_elsewhere(&node).await {
                    return Err(MembershipError::RunsAlready { node: node.name, member });
                }
                let nodes = BTreeMap::from([(member, node)]);
                self.change(ChangeMembers::SetNodes(nodes)).await?;
            }
            Some(_) => {}
        }
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([member]))).await
    }

    /// A leader that was elected a moment ago may not have applied who was let in before; whom it then refused would
    /// end for good.
    async fn has_applied(&self) -> Result<(), MembershipError> {
        let unavailable =
            |error: ReadError| MembershipError::Unavailable { reason: error.to_string() };
        self.read_barrier().await.map_err(unavailable)
    }

    /// Whether the group has this disk under this name and number.
    pub(super) fn has(&self, member: MemberId, node: &MemberNode) -> bool {
        has(&self.raft.metrics().borrow_watched().membership_config, member, node)
    }

    /// Refuses a directory that is not the member that it says it is, as far as this member knows.
    fn judge(
        &self,
        member: MemberId,
        node: &MemberNode,
        lives: &[Life],
    ) -> Result<(), MembershipError> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let known = metrics.membership_config.membership().get_node(&member).cloned();
        let (retired, admitted) =
            self.replica.read(|store| (store.is_retired(member), store.member_of(node.disk)));
        if retired {
            return Err(MembershipError::Retired { member });
        }
        match (&known, admitted) {
            (_, Some(Admission::Retired(member))) => Err(MembershipError::Retired { member }),
            (Some(known), _) if known.disk != node.disk || known.name != node.name => {
                Err(MembershipError::OtherDisk { member })
            }
            (Some(known), _) if !goes_on(lives, known.generation) => {
                Err(copied(node, known.generation))
            }
            // The founder's disk never asked for its number; the membership has known it from the first entry on.
            (Some(_), None) if member == FOUNDER => Ok(()),
            (_, Some(Admission::Member(number))) if number == member => Ok(()),
            _ => Err(MembershipError::OtherDisk { member }),
        }
    }

    /// Whether a member may take part in the life of its directory that begins.
    pub(super) async fn may_return(&self, asks: &Return) -> Result<(), MembershipError> {
        let Return { member, node, lives } = asks;
        let member = *member;
        if self.raft.metrics().borrow_watched().membership_config.membership().nodes().count() == 0
        {
            let reason = "this member knows of no group yet".to_owned();
            return Err(MembershipError::Unavailable { reason });
        }
        let leads = self.raft.is_leader();
        if leads {
            self.has_applied().await?;
        }
        match self.judge(member, node, lives) {
            // A member that lags may not have heard of the other's admission.
            Err(MembershipError::OtherDisk { .. }) if !leads => return Ok(()),
            judged => judged?,
        }
        if self.lives_elsewhere(node).await {
            return Err(MembershipError::RunsAlready { node: node.name.clone(), member });
        }
        Ok(())
    }

    /// Whether an earlier life of a member goes on being heard by this one. One that does not lead hears none.
    async fn lives_elsewhere(&self, node: &MemberNode) -> bool {
        let earlier = || {
            let now = BootTime::now();
            let look = |leases: &mut Leases| {
                (leases.is_new(now), leases.earlier_life(&node.name, node.generation, now))
            };
            self.lead(look).unwrap_or_default()
        };
        let (is_new, before) = earlier();
        if !is_new && before.is_none() {
            return false;
        }
        tokio::time::sleep(EARLIER_LIFE).await;
        earlier().1.is_some_and(|later| before.is_none_or(|before| later > before))
    }

    pub(super) async fn remove(&self, name: &str, force: bool) -> Result<(), MembershipError> {
        if let Some(answer) = self.at_leader(Remove { node: name.to_owned(), force }).await? {
            return answer;
        }
        let (member, _) =
            self.holder(name).ok_or_else(|| MembershipError::Unknown { node: name.to_owned() })?;
        let voters = self.voter_names();
        if voters.iter().all(|voter| voter == name) {
            return Err(MembershipError::LastVoter { node: name.to_owned() });
        }
        let missing = || {
            let look = |leases: &mut Leases| leases.silent(&voters, BootTime::now());
            self.lead(look).map(|silent| missing(&voters, &silent, name))
        };
        let unavailable =
            |error: NotLeader| MembershipError::Unavailable { reason: error.to_string() };
        if !force && missing().map_err(unavailable)?.is_some() {
            // A leader that is new to it has not heard everyone yet.
            tokio::time::sleep(EARLIER_LIFE).await;
            if let Some(silent) = missing().map_err(unavailable)? {
                return Err(MembershipError::WouldStop { node: name.to_owned(), silent });
            }
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

/// Which members would be waited for if a member left: the silent ones, where the others are no majority of those that
/// are left, or of all, whose word it takes to change the group. None if the group could go on.
fn missing(
    voters: &BTreeSet<String>,
    silent: &BTreeSet<String>,
    leaves: &str,
) -> Option<Vec<String>> {
    let heard = voters.difference(silent).count();
    let left = voters.iter().filter(|voter| *voter != leaves);
    let (gone, left): (Vec<&String>, Vec<&String>) =
        left.partition(|voter| silent.contains(*voter));
    let can = 2 * heard > voters.len() && left.len() > gone.len();
    (!can && !gone.is_empty()).then(|| gone.into_iter().cloned().collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn who_is_down_may_leave_and_who_is_up_only_while_the_others_can_go_on() {
        let three = names(&["a", "b", "c"]);
        let down = names(&["c"]);
        assert_eq!(missing(&three, &names(&[]), "b"), None);
        assert_eq!(missing(&three, &down, "c"), None);
        assert_eq!(missing(&three, &down, "b"), Some(vec!["c".to_owned()]));
        let five = names(&["a", "b", "c", "d", "e"]);
        assert_eq!(missing(&five, &down, "b"), None);
        let two_down = names(&["c", "d"]);
        assert_eq!(missing(&five, &two_down, "b"), Some(vec!["c".to_owned(), "d".to_owned()]));
        assert_eq!(missing(&five, &two_down, "c"), None);
        assert_eq!(missing(&names(&["a", "c"]), &down, "c"), None, "there is no other way");
    }
}
