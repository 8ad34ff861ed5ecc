//! What a member is started with, and why it may not start.

use super::timing::RaftTiming;
use crate::{
    disk::{
        DiskError,
        volume::{Machine, Volume},
    },
    protocol::MembershipError,
    store::RingLimits,
};
use impresario_runtime::{ActorNode, NodeName, SpawnError};
use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use thiserror::Error;

/// How the group comes about for a directory that belongs to no member yet. A directory that does goes on as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beginning {
    /// This member founds the group, unless one of these nodes says that there is one.
    Found {
        /// Nodes that may know of a group.
        peers: Vec<NodeName>,
    },
    /// This member asks one of these nodes to be let in.
    Join {
        /// Control members.
        members: Vec<NodeName>,
    },
}

impl Beginning {
    /// The other members that it names.
    pub(super) fn told(&self) -> &[NodeName] {
        let (Self::Found { peers: told } | Self::Join { members: told }) = self;
        told
    }
}

/// What a member is started with.
#[derive(Debug, Clone)]
pub struct MemberConfig {
    /// Its own directory.
    pub directory: PathBuf,
    /// The actor node that it lives on; the node's addresses must lead to the nodes of `beginning`.
    pub node: ActorNode,
    /// Where other members reach that node.
    pub address: SocketAddr,
    /// What to do with an empty directory.
    pub beginning: Beginning,
    /// How much of the past is kept for watches.
    pub history: RingLimits,
    /// Raft's clock.
    pub timing: RaftTiming,
    /// The disk that the directory is on; tests give a small one.
    pub volume: Arc<dyn Volume>,
    /// The harness of a cluster that is tested: its control certificate reads and writes as a member's does.
    pub harness: Option<String>,
}

impl MemberConfig {
    /// A member with the usual history and timing.
    pub fn new(
        directory: impl Into<PathBuf>,
        node: ActorNode,
        address: SocketAddr,
        beginning: Beginning,
    ) -> Self {
        let (history, timing) = (RingLimits::default(), RaftTiming::default());
        let volume = Arc::new(Machine);
        let directory = directory.into();
        Self { directory, node, address, beginning, history, timing, volume, harness: None }
    }
}

/// Why a member does not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The directory cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The group does not let this directory in.
    #[error("the group does not admit this member: {0}")]
    Refused(MembershipError),
    /// Nobody of those who were to be asked answered.
    #[error(
        "none of {asked:?} could admit this member within {waited:?} ({reason}): are they running?"
    )]
    NobodyAnswers {
        /// Who was asked.
        asked: Vec<NodeName>,
        /// For how long.
        waited: Duration,
        /// What was answered last.
        reason: String,
    },
    /// There is a group already, and this empty directory was to found another one.
    #[error(
        "{node} belongs to a registry with a leader, so this empty directory does not found another one: if the \
         directory of a member was lost, remove that member and start this one to join"
    )]
    GroupExists {
        /// Who said so.
        node: NodeName,
    },
    /// The registry has gone on without this directory.
    #[error(
        "this directory has entry {last} of the registry as its last and knows of no other member, and {node} has \
         entry {applied}. If {node} was removed for good, take it out of the peers that this node knows: this directory may \
         be all there is of the registry. Only if other members run it is an older state, or a copy: then move it away \
         and start with an empty one to join"
    )]
    LeftBehind {
        /// Who said so.
        node: NodeName,
        /// The last entry that it has applied.
        applied: u64,
        /// The last entry of this directory.
        last: u64,
    },
    /// openraft did not start.
    #[error("raft did not start: {0}; the log of this member says more")]
    Raft(String),
    /// The actors could not be started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
}
