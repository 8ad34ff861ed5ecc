//! What all parts of a member share, and what can be said of it at once.

use super::{RaftTiming, intake, leases, leases::Leases, place::Place};
use crate::{
    clock::{BootTime, Sleep},
    disk::volume::Room,
    life::Life,
    protocol::{
        GroupMembers, Heartbeat, LeadAlive, MemberStatus, NotLeader, REGISTRY_ACTOR, RegistryRole,
    },
    raft::{MemberId, MemberNode, Raft, log::LogTender},
    replica::Replica,
    serials::Serials,
    store::Store,
};
use impresario_runtime::{ActorNode, ActorPath, ActorRef, NodeName};
use openraft::async_runtime::WatchReceiver;
use parking_lot::Mutex;
use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::AtomicBool},
};
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};

/// What all parts of a member share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) node: ActorNode,
    pub(super) id: MemberId,
    pub(super) me: MemberNode,
    pub(super) raft: Raft,
    pub(super) replica: Replica,
    pub(super) leases: Mutex<Option<Leases>>,
    pub(super) log: LogTender,
    pub(super) room: Room,
    pub(super) intake: intake::Intake,
    pub(super) sleep: Sleep,
    /// Lists that are being put together.
    pub(super) lists: Semaphore,
    /// Everything that an earlier life may have shown is applied or given up.
    pub(super) caught_up: AtomicBool,
    pub(super) timing: RaftTiming,
    pub(super) client: Serials,
    pub(super) stop: watch::Sender<bool>,
    /// The last lives of its directory, oldest first, with this one.
    pub(super) lives: Vec<Life>,
    pub(super) place: Arc<Place>,
    /// Since when no leader has heard that this member lives.
    pub(super) unheard: Mutex<Option<Instant>>,
}

impl Shared {
    pub(super) fn status(&self) -> MemberStatus {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        let name = |id: MemberId| {
            membership.get_node(&id).map_or_else(|| id.to_string(), |node| node.name.clone())
        };
        MemberStatus {
            id: self.id,
            node: self.me.name.clone(),
            leader: metrics.current_leader.map(name),
            term: metrics.current_term,
            revision: self.replica.read(Store::revision),
            applied: metrics.last_applied.map_or(0, |log_id| log_id.index),
            voters: membership.voter_ids().map(name).collect(),
            learners: membership.learner_ids().map(name).collect(),
            failure: metrics.running_state.err().map(|fatal| fatal.to_string()),
        }
    }

    /// Whom this member counts among the group.
    pub(super) fn group(&self) -> GroupMembers {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let members = metrics.membership_config.membership().nodes();
        GroupMembers {
            members: members.map(|(id, node)| (*id, node.name.clone())).collect(),
            leader: metrics.current_leader,
            term: metrics.current_term,
        }
    }

    /// The node of the leader, as far as this member knows.
    pub(super) fn leader(&self) -> Option<NodeName> {
        let metrics = self.raft.server_metrics().borrow_watched().clone();
        let leader = metrics.current_leader?;
        let node = metrics.membership_config.membership().get_node(&leader)?;
        Some(NodeName::from(node.name.as_str()))
    }

    pub(super) fn not_leader(&self) -> NotLeader {
        NotLeader { leader: self.leader().map(|leader| leader.to_string()) }
    }

    /// Whether what openraft counts in waking time can be trusted: the machine has not slept within a lease.
    pub(super) fn was_awake(&self) -> bool {
        !self.sleep.was_within(self.timing.election_most.max(leases::LEASE))
    }

    pub(super) fn disk(&self) -> intake::Disk<'_> {
        let state_bytes = self.replica.read(Store::bytes);
        intake::Disk {
            room: &self.room,
            replica: &self.replica,
            state_bytes,
            member: &self.me.name,
        }
    }

    /// Whether this member's disk takes writes.
    pub(super) fn has_room(&self) -> bool {
        let disk = self.disk();
        disk.room.takes(disk.state_bytes)
    }

    pub(super) fn alive_now(&self) -> LeadAlive {
        LeadAlive {
            node: self.me.name.clone(),
            generation: self.me.generation,
            room: self.has_room(),
        }
    }

    pub(super) fn registry_at(&self, node: NodeName) -> ActorRef<RegistryRole> {
        self.node.actor(ActorPath::new(node, REGISTRY_ACTOR))
    }

    pub(super) fn voter_names(&self) -> BTreeSet<String> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        membership
            .voter_ids()
            .filter_map(|id| Some(membership.get_node(&id)?.name.clone()))
            .collect()
    }

    /// Runs on the leases of the current term, if this member leads.
    pub(super) fn lead<T>(&self, with: impl FnOnce(&mut Leases) -> T) -> Result<T, NotLeader> {
        let term = self.raft.as_leader().map_err(|_| self.not_leader())?.leader_id().term;
        let mut leases = self.leases.lock();
        let current = leases.take().filter(|leases| leases.term() == term);
        let answer =
            with(leases.insert(current.unwrap_or_else(|| Leases::new(term, BootTime::now()))));
        Ok(answer)
    }

    pub(super) async fn heartbeat(&self, beat: Heartbeat) -> Result<(), NotLeader> {
        if self.raft.is_leader() {
            return self.lead(|leases| leases.node_beat(beat, BootTime::now()));
        }
        let leader = self.leader().filter(|leader| leader != self.node.name());
        let leader = leader.ok_or_else(|| self.not_leader())?;
        match self.registry_at(leader).ask(beat, leases::BEAT_LIMIT).await {
            Ok(answer) => answer,
            Err(_) => Err(NotLeader { leader: None }),
        }
    }
}
