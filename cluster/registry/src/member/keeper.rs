//! What a member does all the time: say that it lives, and, when it leads, deal out shards and keep the log short.

use super::shared::Shared;
use crate::{
    clock::BootTime,
    protocol::{Heartbeats, LeadAlive},
    raft::Command,
    store::Store,
};
use openraft::async_runtime::{Instant as _, WatchReceiver};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

const TICK: Duration = Duration::from_millis(500);
/// A log of this size is worth a snapshot where room is short.
const SHORT_BYTES: usize = 1024 * 1024;
const MOVE_LIMIT: Duration = Duration::from_secs(3);

/// Runs until the member aborts it.
pub(super) async fn keep(shared: Arc<Shared>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        shared.say_alive().await;
        shared.deal_shards().await;
        shared.cut_log().await;
        shared.log.tend();
    }
}

impl Shared {
    /// The heartbeats of all nodes, if this member leads.
    pub(super) fn heartbeats(&self) -> Option<Heartbeats> {
        // A leader that is cut off from the others hears nothing either: what it has not heard says nothing.
        let alone = self.voter_names().len() == 1;
        let acknowledged = self.raft.as_leader().ok()?.last_quorum_acked();
        let recent = acknowledged.is_some_and(|at| at.elapsed() < super::leases::LEASE);
        let sure = alone || (recent && self.was_awake());
        if !sure {
            return None;
        }
        self.lead(|leases| leases.heartbeats(BootTime::now())).ok()
    }

    pub(super) fn member_alive(&self, alive: LeadAlive) -> Result<(), crate::protocol::NotLeader> {
        self.lead(|leases| leases.member_alive(alive, BootTime::now()))
    }

    async fn say_alive(&self) {
        let is_heard = if self.raft.is_leader() {
            // Losing the lead in between is no matter: the next tick says it to the new leader.
            let _ = self.member_alive(self.alive_now());
            true
        } else if let Some(leader) = self.leader() {
            match self.registry_at(leader).ask(self.alive_now(), super::leases::BEAT_LIMIT).await {
                Ok(_) => true,
                Err(error) => {
                    tracing::debug!(%error, "the leader did not hear that this member lives");
                    false
                }
            }
        } else {
            false
        };
        let mut unheard = self.unheard.lock();
        if is_heard {
            *unheard = None;
        } else {
            unheard.get_or_insert_with(Instant::now);
        }
    }

    async fn deal_shards(&self) {
        let voters = self.voter_names();
        let table = self.replica.shards().borrow().clone();
        let look = |leases: &mut super::leases::Leases| {
            let moves = leases.moves(&table, &voters, BootTime::now());
            (moves, leases.without_room())
        };
        let Ok((moves, without_room)) = self.lead(look) else {
            return;
        };
        if self.intake.hear(&voters, &without_room) {
            tracing::warn!(?without_room, "which members have room for writes has changed");
        }
        if moves.is_empty() {
            return;
        }
        // The state machine skips moves that were decided on an older epoch, so that a late write does no harm.
        tracing::info!(moves = moves.len(), "shards change hands");
        match timeout(MOVE_LIMIT, self.raft.client_write(Command::MoveShards(moves))).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::debug!(%error, "shards were not moved; the next tick looks again");
            }
            Err(_) => tracing::debug!("moving shards takes long; the next tick looks again"),
        }
    }

    /// Entries may be few and large: a long log is cut by size too, and a short one where room is short.
    async fn cut_log(&self) {
        let short = self.log.bytes() >= SHORT_BYTES && !self.has_room();
        // The state machine waits until half as much was written as there is; asked earlier it says so each time.
        let state_bytes = self.replica.read(Store::bytes) as usize;
        if !short && self.log.bytes() < self.timing.snapshot_bytes.max(state_bytes / 16 * 9) {
            return;
        }
        let metrics = self.raft.metrics().borrow_watched().clone();
        let cut = async {
            match metrics.snapshot {
                Some(snapshot) if Some(snapshot) > metrics.purged => {
                    self.raft.trigger().purge_log(snapshot.index).await?;
                }
                _ => {}
            }
            if metrics.last_applied > metrics.snapshot {
                self.raft.trigger().snapshot().await?;
            }
            Ok::<_, openraft::errors::Fatal<crate::raft::Types>>(())
        };
        if let Err(error) = cut.await {
            tracing::debug!(%error, "the log was not cut");
        }
    }
}
