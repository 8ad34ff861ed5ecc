//! What a control member's registry can be asked by message.
//!
//! Any member answers; it forwards what only the leader may do. Messages that begin with `Lead` are what it
//! forwards: a member that does not lead answers those with [`NotLeader`].

use crate::{
    error::{ReadError, TransactError, WatchError},
    key::{Entry, Key, Revision},
    life::Life,
    query::{Consistency, ListRequest, Page, WatchBatch, WatchRequest},
    transaction::{Committed, MAX_TRANSACTION_BYTES, Transaction},
};
use impresario_runtime::{Lane, message, role, stream_message};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};
use thiserror::Error;

/// The most that a transaction may have as a message: its keys and values, and what is said around each.
const MAX_REQUEST_BYTES: usize = 2 * MAX_TRANSACTION_BYTES;

/// The name of the actor that serves [`RegistryRole`] on every control member.
pub const REGISTRY_ACTOR: &str = "registry";

/// The name of the actor that serves [`DoorRole`] on every control member, from before it takes part.
pub const DOOR_ACTOR: &str = "registry/door";

/// The number of a member: given by the log, to one disk, once.
pub type MemberId = u64;

/// Who a member is, as the membership says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberNode {
    /// The name of its actor node.
    pub name: String,
    /// The UDP address of its actor node.
    pub address: String,
    /// The id of its disk; a member that shows another one is refused.
    pub disk: u128,
    /// Which life of its directory; one that shows an older one is a copy or was restored, and is refused.
    pub generation: Life,
}

/// Asks for one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Get {
    /// Which.
    pub key: Key,
    /// How fresh.
    pub consistency: Consistency,
}
message!(Get => Result<(Option<Entry>, Revision), ReadError>, "registry.Get");

/// Asks for a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct List(pub ListRequest);
message!(List => Result<Page, ReadError>, "registry.List");

/// Asks for a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transact(pub Transaction);
message!(Transact => Result<Committed, TransactError>, "registry.Transact", Lane::Work, MAX_REQUEST_BYTES);

/// Asks to be told of changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Follow(pub WatchRequest);
stream_message!(Follow => Result<WatchBatch, WatchError>, "registry.Watch");

/// A node says that it lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Its name.
    pub node: String,
    /// Which life of its process.
    pub incarnation: u64,
    /// Whether it takes pods.
    pub ready: bool,
}
message!(Heartbeat => Result<(), NotLeader>, "registry.Heartbeat", Lane::Control);

/// Asks a member how it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status;
message!(Status => MemberStatus, "registry.Status", Lane::Control);

/// Asks a member whom it counts among the group. A reply of its own, as [`MemberStatus`] has no numbers and cannot grow
/// between two versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group;
message!(Group => GroupMembers, "registry.Group", Lane::Control);

/// The group, as a member knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupMembers {
    /// The nodes of all members, with a vote or not yet.
    pub members: BTreeMap<MemberId, String>,
    /// Who leads, if it knows.
    pub leader: Option<MemberId>,
    /// The term it is in.
    pub term: u64,
}

/// A disk asks for a member number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// The id of the disk.
    pub disk: u128,
    /// The name of its node.
    pub node: String,
}
message!(Join => Result<MemberId, MembershipError>, "registry.Join");

/// A member that runs asks to be let in, or to have its address changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrol {
    /// Its number.
    pub member: MemberId,
    /// Its node, address and disk.
    pub node: MemberNode,
    /// The last lives of its directory, oldest first, with the one that it is in.
    pub lives: Vec<Life>,
}
message!(Enrol => Result<(), MembershipError>, "registry.Enrol");

/// A member that has been one before asks whether it may take part again. Any member answers as far as it knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Return {
    /// Its number.
    pub member: MemberId,
    /// Its node, address and disk, in the life that begins.
    pub node: MemberNode,
    /// The last lives of its directory, oldest first, with the one that begins.
    pub lives: Vec<Life>,
}
message!(Return => Result<(), MembershipError>, "registry.Return");

/// Takes a member out of the group for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remove {
    /// The name of its node.
    pub node: String,
    /// Though those that are left are not enough to go on, as far as they are heard.
    pub force: bool,
}
message!(Remove => Result<(), MembershipError>, "registry.Remove");

/// To the leader alone: a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeadTransact(pub Transaction);
message!(LeadTransact => Result<Result<Committed, TransactError>, NotLeader>, "registry.LeadTransact", Lane::Work, MAX_REQUEST_BYTES);

/// To the leader alone: up to which log index a linearizable read must see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeadReadIndex;
message!(LeadReadIndex => Result<u64, NotLeader>, "registry.LeadReadIndex", Lane::Control);

/// To the leader alone: a control member that keeps shards lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeadAlive {
    /// Its name.
    pub node: String,
    /// Which life of its directory.
    pub generation: Life,
    /// Whether its disk takes writes.
    pub room: bool,
}
message!(LeadAlive => Result<(), NotLeader>, "registry.LeadAlive", Lane::Control);

/// To the leader alone: when each node was last heard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeadHeartbeats;
message!(LeadHeartbeats => Result<Heartbeats, NotLeader>, "registry.LeadHeartbeats", Lane::Control);

role! {
    /// The registry of a control member.
    pub RegistryRole = "registry" {
        asks: [Get, List, Transact, Heartbeat, Status, Group, Join, Enrol, Remove, LeadTransact, LeadReadIndex, LeadAlive,
            LeadHeartbeats],
        streams: [Follow]
    }
}

role! {
    /// What a control member is asked by those who return, though it may not take part itself yet.
    pub DoorRole = "registry/door" { asks: [Return] }
}

/// The member that was asked does not lead, or cannot prove that it still does.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[error("this member does not lead; {}", hint(leader.as_deref()))]
pub struct NotLeader {
    /// Who does, as far as it knows.
    pub leader: Option<String>,
}

fn hint(leader: Option<&str>) -> String {
    leader.map_or_else(
        || "no leader is known: try again after a pause".to_owned(),
        |name| format!("ask {name}"),
    )
}

/// Why the membership was not changed.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum MembershipError {
    /// A member of this name has another disk.
    #[error(
        "node {node} is member {member} with another disk: if its old directory is lost, remove it first (`imp member remove {node}`), \
         then start it again"
    )]
    NameTaken {
        /// The name.
        node: String,
        /// The member that has it.
        member: MemberId,
    },
    /// The disk belonged to a member that was removed.
    #[error(
        "this disk was member {member}, which has been removed: start again with an empty directory"
    )]
    Retired {
        /// Its number.
        member: MemberId,
    },
    /// The number was not given to this disk.
    #[error("member {member} is another disk: this directory must not be used under that number")]
    OtherDisk {
        /// The number.
        member: MemberId,
    },
    /// There is no such member.
    #[error("{node} is no member: see `imp status` for the members")]
    Unknown {
        /// The name asked for.
        node: String,
    },
    /// The last voter cannot leave.
    #[error("{node} is the only voter: add another member first")]
    LastVoter {
        /// Its name.
        node: String,
    },
    /// The group knows a later life of the directory.
    #[error(
        "the group knows this directory in life {known}, and this is life {shown}: it is a copy, or was restored from \
         an older state, and may have forgotten what it promised. Remove the member (`imp member remove {node}`), then \
         start it again with an empty directory"
    )]
    Copied {
        /// The name of the node.
        node: String,
        /// The life that the group knows.
        known: u64,
        /// The life that was shown.
        shown: u64,
    },
    /// The directory is in use elsewhere.
    #[error(
        "member {member} on node {node} runs already, and this directory says that it is the same: it is a copy. Stop \
         one of them; a second member needs a node of its own and an empty directory"
    )]
    RunsAlready {
        /// The name of the node.
        node: String,
        /// The member's number.
        member: MemberId,
    },
    /// More disks have asked for a number than a group is made for.
    #[error(
        "{count} disks have been given numbers, which is the limit: restore a saved snapshot into a new group"
    )]
    TooManyDisks {
        /// How many.
        count: usize,
    },
    /// The group did not get to it; it may still happen.
    #[error(
        "the membership could not be changed in time ({reason}): look at `imp status`, then try again"
    )]
    Unavailable {
        /// What stood in the way.
        reason: String,
    },
    /// Those who are left could not go on.
    #[error(
        "without {node} the group would wait for {}, and does not hear from there: start what is down, or remove it \
         first (`imp member remove`). Nothing was changed; `--force` removes {node} all the same",
        silent.join(", ")
    )]
    WouldStop {
        /// The name of the member that was to go.
        node: String,
        /// The members that are not heard.
        silent: Vec<String>,
    },
}

/// How a member stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its number.
    pub id: MemberId,
    /// The name of its node.
    pub node: String,
    /// The name of the leader's node, if it knows one.
    pub leader: Option<String>,
    /// The term it is in.
    pub term: u64,
    /// The revision that it has applied.
    pub revision: Revision,
    /// The log entry that it has applied.
    pub applied: u64,
    /// The names of the voters.
    pub voters: Vec<String>,
    /// The names of the members that do not vote yet.
    pub learners: Vec<String>,
    /// Why it has stopped, if it has.
    pub failure: Option<String>,
}

/// A node as the leader last heard it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeBeat {
    /// The last heartbeat.
    pub beat: Heartbeat,
    /// How long ago it came.
    pub age: Duration,
}

/// The heartbeats of all nodes. Only the leader has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeats {
    /// How long this member has been leading: a node that is not heard of has been silent for this long at most.
    pub leading_for: Duration,
    /// Whoever was heard, by name.
    pub nodes: Vec<NodeBeat>,
}
