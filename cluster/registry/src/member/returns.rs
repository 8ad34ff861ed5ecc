//! How a directory that has been a member asks whether it may take part again, and whose word counts.
//!
//! A member that was removed may go on listening, and answer whatever it likes. So the voters of the directory's own
//! log are asked and nobody else, and what most of them say holds for good.

use super::{Beginning, StartError};
use crate::{
    members::Pauses,
    protocol::{
        DOOR_ACTOR, DoorRole, MembershipError, REGISTRY_ACTOR, RegistryRole, Return, Status,
    },
    raft::StoredMembership,
};
use futures_util::future::join_all;
use impresario_runtime::{ActorNode, ActorPath, AskError, NodeName, Remedy};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::Instant;

/// How long a member that returns listens for what the others know of it.
const RETURN_LIMIT: Duration = Duration::from_secs(3);
/// How long one of the others is given to say who leads.
const STATUS_LIMIT: Duration = Duration::from_secs(1);

/// What was answered, by whom. Who did not answer is not in it.
pub(super) type Said = BTreeMap<NodeName, Result<(), MembershipError>>;

/// Whose word counts where a member's place is in question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Judges {
    /// The other voters of its log.
    Voters(BTreeSet<NodeName>),
    /// Whom it was told of, as its log knows of nobody. Nothing that they say holds for good.
    Told(BTreeSet<NodeName>),
}

/// A member has no place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NoPlace {
    /// Why.
    pub(super) why: MembershipError,
    /// Whether that holds for all later starts, too.
    pub(super) for_good: bool,
}

impl Judges {
    /// Those who may know of a directory that has been a member. The node learns where they are.
    pub(super) fn of(node: &ActorNode, beginning: &Beginning, group: &StoredMembership) -> Self {
        for (_, known) in group.membership().nodes() {
            if let Ok(address) = known.address.parse()
                && known.name != node.name().as_str()
            {
                node.addresses().set(NodeName::from(known.name.as_str()), address);
            }
        }
        Self::among(node.name(), group, beginning.told())
    }

    /// The same, of a node that knows where they are.
    pub(super) fn among(me: &NodeName, group: &StoredMembership, told: &[NodeName]) -> Self {
        let membership = group.membership();
        let named = |id| Some(NodeName::from(membership.get_node(&id)?.name.as_str()));
        if membership.nodes().next().is_none() {
            return Self::Told(told.iter().filter(|name| *name != me).cloned().collect());
        }
        let voters = membership.voter_ids().filter_map(named);
        Self::Voters(voters.filter(|name| name != me).collect())
    }

    /// Whether its log has no other voter.
    pub(super) fn is_alone(&self) -> bool {
        matches!(self, Self::Voters(names) if names.is_empty())
    }

    fn names(&self) -> &BTreeSet<NodeName> {
        let (Self::Voters(names) | Self::Told(names)) = self;
        names
    }

    /// What comes of what was said. One that refuses is enough to keep a member away for now: its place may have
    /// changed with the word of others than those who are heard. The word of most others goes before that, unless it
    /// is one of `leaders` who refuses: who leads knows whether an earlier life of the member is alive still.
    pub(super) fn weigh(&self, said: &Said, leaders: &BTreeSet<NodeName>) -> Result<(), NoPlace> {
        let is_most = |count: usize| 2 * count > self.names().len();
        let heard = said.iter().filter(|(name, _)| self.names().contains(*name));
        let (mut agree, mut copied, mut refused) = (0, Vec::new(), Vec::new());
        for (name, answer) in heard {
            match answer {
                Ok(()) => agree += 1,
                // It does not know.
                Err(MembershipError::Unavailable { .. }) => {}
                Err(why) => {
                    if matches!(why, MembershipError::Copied { .. }) {
                        copied.push(why);
                    }
                    refused.push((name, why));
                }
            }
        }
        if let (Self::Voters(_), Some(why), true) = (self, copied.first(), is_most(copied.len())) {
            return Err(NoPlace { why: (*why).clone(), for_good: true });
        }
        let leads = refused.iter().find(|(name, _)| leaders.contains(*name));
        match leads.or(refused.first().filter(|_| !is_most(agree))) {
            Some((_, why)) => Err(NoPlace { why: (*why).clone(), for_good: false }),
            None => Ok(()),
        }
    }
}

/// Asks the others whether a directory that has been a member may take part again. `election` is how long it takes to
/// elect a leader.
///
/// One refuses, most agree, and none of these knows of a leader: the leader may be the one that refuses, or those who
/// are cut off from it are about to elect another. So they are asked again when that has been possible. Where nobody
/// leads then either, as after a start of all, most of them are believed: what the one that refuses knows of this
/// directory is in too few logs to be agreed on, this one included.
pub(super) async fn may_return(
    node: &ActorNode,
    me: &Return,
    judges: &Judges,
    election: Duration,
) -> Result<(), NoPlace> {
    let mut is_first = true;
    loop {
        let said = ask_all(node, me, judges).await;
        let refused: BTreeMap<_, _> = said
            .iter()
            .filter_map(|(other, answer)| Some((other, answer.as_ref().err()?)))
            .collect();
        if refused.is_empty() {
            return Ok(());
        }
        let agree = said.iter().filter(|(_, answer)| answer.is_ok()).map(|(other, _)| other);
        let leaders = leaders(node, agree).await;
        judges.weigh(&said, &leaders)?;
        if !leaders.is_empty() || !is_first {
            tracing::warn!(?refused, "this member goes on by the word of most others");
            return Ok(());
        }
        is_first = false;
        tokio::time::sleep(election).await;
    }
}

/// What each of the others says of this directory.
async fn ask_all(node: &ActorNode, me: &Return, judges: &Judges) -> Said {
    let asked = judges
        .names()
        .iter()
        .map(async |other| (other.clone(), ask_door(node, other, me.clone()).await));
    let mut said = Said::new();
    for (other, answer) in join_all(asked).await {
        match answer {
            Ok(answer) => {
                said.insert(other, answer);
            }
            // It hears another process with this one's certificate, whose log may hold what this one's does not.
            Err(_) if node.is_turned_away_by(&other) => {
                let (node, member) = (me.node.name.clone(), me.member);
                said.insert(other, Err(MembershipError::RunsAlready { node, member }));
            }
            Err(error) => {
                tracing::debug!(%other, %error, "a member does not say what it knows of this one");
            }
        }
    }
    said
}

/// Whether a member that alone votes, by its log, was left behind by one of those that it was told of: its directory is
/// from before they joined. All that such a group has acknowledged is in that log, and who has applied more belongs to
/// one that went on without it. Who was removed has applied less.
pub(super) async fn left_behind(
    node: &ActorNode,
    told: &[NodeName],
    last: u64,
) -> Result<(), StartError> {
    let asked = told.iter().filter(|other| *other != node.name()).map(async |other| {
        let registry = node.actor::<RegistryRole>(ActorPath::new(other.clone(), REGISTRY_ACTOR));
        let ask = |left| {
            let registry = registry.clone();
            async move { registry.ask(Status, left).await }
        };
        let status = ask_until(RETURN_LIMIT, node, other, ask);
        (other.clone(), status.await)
    });
    for (other, status) in join_all(asked).await {
        match status {
            Ok(status)
                if status.applied > last
                    && status.voters.iter().any(|voter| voter == node.name().as_str()) =>
            {
                let applied = status.applied;
                return Err(StartError::LeftBehind { node: other, applied, last });
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%other, %error, "a node does not say whether there is a group");
            }
        }
    }
    Ok(())
}

/// Whom these members know as their leader.
async fn leaders(node: &ActorNode, members: impl Iterator<Item = &NodeName>) -> BTreeSet<NodeName> {
    let asked = members.map(async |member| {
        let path = ActorPath::new(member.clone(), REGISTRY_ACTOR);
        // One that is starting itself knows of no leader yet.
        match node.actor::<RegistryRole>(path).ask(Status, STATUS_LIMIT).await {
            Ok(status) => status.leader.map(|leader| NodeName::from(leader.as_str())),
            Err(error) => {
                tracing::debug!(%member, %error, "a member does not say who leads");
                None
            }
        }
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// Asks at one door. One that is not there yet is tried again for a while: when all start at once each comes up a
/// moment before or after the others. So is one that hears an earlier process, which may be about to end.
async fn ask_door(
    node: &ActorNode,
    other: &NodeName,
    asks: Return,
) -> Result<Result<(), MembershipError>, AskError> {
    let door = node.actor::<DoorRole>(ActorPath::new(other.clone(), DOOR_ACTOR));
    let ask = |left| {
        let (door, asks) = (door.clone(), asks.clone());
        async move { door.ask(asks, left).await }
    };
    ask_until(RETURN_LIMIT, node, other, ask).await
}

/// Asks one that may come up a moment later, or hear an earlier process for a moment still.
async fn ask_until<T, F: Future<Output = Result<T, AskError>>>(
    limit: Duration,
    node: &ActorNode,
    other: &NodeName,
    ask: impl Fn(Duration) -> F,
) -> Result<T, AskError> {
    let mut pauses = Pauses::until(Instant::now() + limit);
    let mut last = AskError::Deadline { waited: limit };
    while let Some(left) = pauses.left() {
        match ask(left).await {
            Err(error)
                if matches!(error.remedy(), Remedy::Retry | Remedy::Resolve)
                    || node.is_turned_away_by(other) =>
            {
                last = error;
            }
            answer => return answer,
        }
        pauses.pause().await;
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<NodeName> {
        names.iter().map(|name| NodeName::from(*name)).collect()
    }

    fn copied() -> MembershipError {
        MembershipError::Copied { node: "m1".to_owned(), known: 99, shown: 5 }
    }

    fn runs() -> MembershipError {
        MembershipError::RunsAlready { node: "m1".to_owned(), member: 1 }
    }

    fn said(agree: &[&str], refuse: &[&str], why: &MembershipError) -> Said {
        let agree = names(agree).into_iter().map(|name| (name, Ok(())));
        agree.chain(names(refuse).into_iter().map(|name| (name, Err(why.clone())))).collect()
    }

    #[test]
    fn for_good_is_what_most_voters_say_and_nobody_else_is_listened_to() {
        let judges = Judges::Voters(names(&["m2", "m3"]));
        let weigh = |said: Said| judges.weigh(&said, &BTreeSet::new());
        let no = |for_good| Err(NoPlace { why: copied(), for_good });
        assert_eq!(weigh(said(&[], &["m2", "m3"], &copied())), no(true));
        assert_eq!(weigh(said(&["m2"], &["m3"], &copied())), no(false), "one may lag");
        assert_eq!(weigh(said(&[], &["m3"], &copied())), no(false));
        assert_eq!(weigh(said(&["m2"], &["m9"], &copied())), Ok(()), "m9 is not in the group");
        assert_eq!(weigh(said(&[], &["m9"], &copied())), Ok(()));
        let told = Judges::Told(names(&["m9"]));
        assert_eq!(told.weigh(&said(&[], &["m9"], &copied()), &BTreeSet::new()), no(false));
    }

    #[test]
    fn a_voter_that_was_removed_meanwhile_is_overruled_and_the_one_that_leads_is_not() {
        let judges = Judges::Voters(names(&["m2", "m3", "m4", "m9"]));
        let leads = names(&["m2"]);
        let no = |why| Err(NoPlace { why, for_good: false });
        assert_eq!(judges.weigh(&said(&["m2", "m3", "m4"], &["m9"], &copied()), &leads), Ok(()));
        assert_eq!(
            judges.weigh(&said(&["m2", "m3"], &["m9"], &copied()), &leads),
            no(copied()),
            "those who know that it is a copy may be as many as those who do not"
        );
        let alive = said(&["m3", "m4", "m9"], &["m2"], &runs());
        assert_eq!(judges.weigh(&alive, &leads), no(runs()), "it alone hears who is alive");
        assert_eq!(judges.weigh(&alive, &BTreeSet::new()), Ok(()));
    }
}
