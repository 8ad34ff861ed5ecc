//! A control member: the raft group's share on this machine, and the actors through which others reach it.
//!
//! [`Member::start`] claims the directory, refuses what is damaged or not its own, starts raft and registers the
//! actors `registry` and `registry/raft` on its node. The first member founds the group; the others are given a
//! number by the log, catch up as learners and are promoted. Everything that a member starts, it stops.

mod actor;
mod config;
mod door;
mod enrol;
mod guard;
mod handle;
mod intake;
mod keeper;
pub mod leases;
mod place;
mod returns;
mod shared;
mod start;
mod timing;
mod vouch;

pub use config::{Beginning, MemberConfig, StartError};
use impresario_runtime::tasks;

use crate::{
    RegistryHandle,
    disk::{DiskError, volume::Machine as Files},
    error::ReadError,
    key::Revision,
    life::Life,
    protocol::{Heartbeat, Heartbeats, MemberStatus, MembershipError, NotLeader},
    raft::{MemberId, MemberNode, machine::Machine, snapshot},
    shard::ShardTable,
};
use guard::Guard;
use openraft::async_runtime::WatchReceiver;
use shared::Shared;
use start::Running;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};
use thiserror::Error;
pub use timing::RaftTiming;
use tokio::sync::{Mutex, watch};

/// A running control member.
#[derive(Debug)]
pub struct Member {
    shared: Arc<Shared>,
    guard: Arc<Guard>,
    directory: PathBuf,
    /// What is to be stopped; none once it is.
    running: Mutex<Option<Running>>,
}

impl Member {
    /// Starts a member. Returns when it takes part; it may take longer until it has a vote.
    pub async fn start(config: MemberConfig) -> Result<Self, StartError> {
        let directory = config.directory.clone();
        let mut running = Running::new(config.node.clone());
        match start::begin(config, &mut running).await {
            Ok((shared, guard)) => {
                Ok(Self { shared, guard, directory, running: Mutex::new(Some(running)) })
            }
            Err(error) => {
                running.end().await;
                Err(error)
            }
        }
    }

    /// The registry through this member: writes and fresh reads go to the leader, everything else stays here.
    pub fn handle(&self) -> RegistryHandle {
        Arc::new(handle::LocalRegistry(self.shared.clone()))
    }

    /// The shard table, as it changes.
    pub fn shards(&self) -> watch::Receiver<ShardTable> {
        self.shared.replica.shards()
    }

    /// How this member stands.
    pub fn status(&self) -> MemberStatus {
        self.shared.status()
    }

    /// Which life of its directory a member is in, as the group knows it; none if there is no such member.
    pub fn generation_of(&self, node: &str) -> Option<Life> {
        let metrics = self.shared.raft.metrics().borrow_watched().clone();
        let mut members = metrics.membership_config.membership().nodes();
        members.find(|(_, known)| known.name == node).map(|(_, known)| known.generation)
    }

    /// Tells whether a node is one of the group's members, as far as this member knows; one that has no vote yet is.
    pub fn membership(&self) -> impl Fn(&str) -> bool + Send + Sync + 'static {
        let guard = self.guard.clone();
        move |name| guard.is_member(name)
    }

    /// Tells of each node that ceases to be a member, as far as this one hears. Runs until raft has stopped.
    pub fn departures(
        &self,
        told: impl Fn(&str) + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let mut metrics = self.shared.raft.server_metrics();
        let mut seen = metrics.borrow_watched().membership_config.clone();
        async move {
            while metrics.changed().await.is_ok() {
                let now = metrics.borrow_watched().membership_config.clone();
                if now == seen {
                    continue;
                }
                let is_left =
                    |name: &str| now.membership().nodes().any(|(_, node)| node.name == name);
                for (_, node) in seen.membership().nodes().filter(|(_, node)| !is_left(&node.name))
                {
                    told(&node.name);
                }
                seen = now;
            }
        }
    }

    /// Its number in the group.
    pub fn id(&self) -> MemberId {
        self.shared.id
    }

    /// The directory that it has claimed.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The heartbeats of all nodes, if this member leads.
    pub fn heartbeats(&self) -> Option<Heartbeats> {
        self.shared.heartbeats()
    }

    /// The members whose disks have no room for writes, or for the snapshot that they need, as far as the leader has heard;
    /// none where this member does not lead.
    pub fn without_room(&self) -> BTreeSet<String> {
        self.shared.lead(|leases| leases.without_room()).unwrap_or_default()
    }

    /// Takes a heartbeat to the leader, be it this member or another.
    pub async fn heartbeat(&self, beat: Heartbeat) -> Result<(), NotLeader> {
        self.shared.heartbeat(beat).await
    }

    /// Lets a member with this number in: it catches up as a learner and becomes a voter.
    /// Members that are started to join do this themselves.
    pub async fn add_member(
        &self,
        member: MemberId,
        node: MemberNode,
    ) -> Result<(), MembershipError> {
        let lives = vec![node.generation];
        self.shared.enrol(crate::protocol::Enrol { member, node, lives }).await
    }

    /// Takes the member on a node out of the group for good. Its directory is refused from then on. Refused, unless it is
    /// forced, where those that are left and are heard could not go on.
    pub async fn remove_member(&self, node: &str, force: bool) -> Result<(), MembershipError> {
        self.shared.remove(node, force).await
    }

    /// Writes a snapshot of what has been acknowledged to a file of its own, durably.
    pub async fn snapshot_save(&self, path: PathBuf) -> Result<Revision, SaveError> {
        self.shared.read_barrier().await.map_err(SaveError::Read)?;
        let raft = self.shared.raft.clone();
        let state = raft
            .with_state_machine(|machine: &mut Machine| Box::pin(async move { machine.capture() }))
            .await;
        let (meta, image) = state.map_err(|error| SaveError::Stopped(error.to_string()))?;
        let revision = image.revision();
        let save = move || {
            let aside = path.with_extension("tmp");
            snapshot::save(&Files, &aside, &meta, &image)?;
            snapshot::put_in_place(&aside, &path)
        };
        tasks::spawn_blocking(save)
            .await
            .map_err(|error| SaveError::Stopped(error.to_string()))??;
        Ok(revision)
    }

    /// Resolves when this member has failed for good, with the reason: a broken disk, above all, or a directory
    /// that the group has no place for.
    pub fn failed(&self) -> impl Future<Output = String> + Send + 'static {
        let mut metrics = self.shared.raft.metrics();
        let refused = self.shared.place.refused();
        let broken = async move {
            loop {
                let state = metrics.borrow_watched().running_state.clone();
                if let Err(fatal) = state {
                    return fatal.to_string();
                }
                if metrics.changed().await.is_err() {
                    return "raft stopped".to_owned();
                }
            }
        };
        async move {
            tokio::select! {
                reason = broken => reason,
                reason = refused => reason.to_string(),
            }
        }
    }

    /// Stops everything that the member started. The directory is free when this returns; a second call does nothing.
    pub async fn stop(&self) {
        self.shared.stop.send_replace(true);
        if let Some(running) = self.running.lock().await.take() {
            running.end().await;
        }
    }
}

/// Why a snapshot was not saved.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SaveError {
    /// It would not have held all that was acknowledged.
    #[error("what is newest could not be read: {0}")]
    Read(ReadError),
    /// The file could not be written.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The member has stopped.
    #[error("the member has stopped: {0}")]
    Stopped(String),
}

#[cfg(test)]
mod tests;
