//! What raft members say to each other.
//!
//! Every message names the disk that it comes from and the one that it is meant for, and which life of it, so that
//! a member whose disk was emptied, copied or restored, or whose number is another's, takes no part. Votes and heartbeats go before everything else; entries share the work lane; snapshots
//! take streams of their own.

use super::{MemberId, SnapshotMeta, Types, Vote};
use crate::Life;
use bytes::Bytes;
use impresario_runtime::{Lane, message, role};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::vote::RaftLeaderId;
use serde::{Deserialize, Serialize};
use std::any::Any;
use thiserror::Error;

/// The most that entries may have together: the largest piece that a fast link is given (`pace`), and an entry more.
const APPEND_BYTES: usize = 16 << 20;
/// The most that a piece of a snapshot may have, with what is said around it.
const CHUNK_BYTES: usize = 1 << 20;

/// A member's number, the disk that it was given to, and which life of the disk's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// The number.
    pub member: MemberId,
    /// The disk.
    pub disk: u128,
    /// The life of its directory.
    pub generation: Life,
}

/// Who sends a message and who is meant, as far as the sender knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The sender, as it is.
    pub from: Seat,
    /// The receiver; it may have begun a later life since.
    pub to: Seat,
}

/// Why a member did not take a raft message.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum Declined {
    /// The message was meant for another disk.
    #[error(
        "this is member {}, disk {:032x}, life {}, not the one that is meant", .0.member, .0.disk, .0.generation
    )]
    OtherSeat(Seat),
    /// The sender is not the member that the group knows under its number, or an earlier life of it.
    #[error(
        "the group knows member {} as disk {:032x} in life {}: the sender's directory is a copy or was restored",
        .0.member, .0.disk, .0.generation
    )]
    StaleSender(Seat),
    /// An entry is larger than any may be.
    #[error(
        "an entry of {0} bytes is over the limits of a transaction: nothing of the message was taken"
    )]
    TooLarge(usize),
    /// The member has stopped.
    #[error("the member has stopped: {0}")]
    Stopped(String),
    /// A part of a snapshot did not fit, or could not be kept.
    #[error("the snapshot was not taken: {0}")]
    Snapshot(String),
    /// There is no room for a snapshot of so many bytes. Nothing of it was written.
    #[error("there is no room for a snapshot of {0} bytes: free some space on that member's disk")]
    NoRoom(u64),
}

/// Asks for a vote, or whether one would be given.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct AskVote {
    /// Who asks whom.
    pub route: Route,
    /// Only whether.
    pub pre: bool,
    /// openraft's request.
    pub request: VoteRequest<Types>,
}
message!(AskVote => Result<VoteResponse<Types>, Declined>, "raft.Vote", Lane::Control);

/// Says that the leader lives: an append without entries.
#[derive(Debug, Serialize, Deserialize)]
pub struct Beat {
    /// Who asks whom.
    pub route: Route,
    /// openraft's request.
    pub request: AppendEntriesRequest<Types>,
}
message!(Beat => Result<AppendEntriesResponse<Types>, Declined>, "raft.Beat", Lane::Control);

/// Brings entries.
#[derive(Debug, Serialize, Deserialize)]
pub struct Append {
    /// Who asks whom.
    pub route: Route,
    /// openraft's request.
    pub request: AppendEntriesRequest<Types>,
}
message!(Append => Result<AppendEntriesResponse<Types>, Declined>, "raft.Append", Lane::Work, APPEND_BYTES);

/// Hands leadership over.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Transfer {
    /// Who asks whom.
    pub route: Route,
    /// openraft's request.
    pub request: TransferLeaderRequest<Types>,
}
message!(Transfer => Result<TransferLeaderResponse<Types>, Declined>, "raft.Transfer", Lane::Control);

/// A piece of a snapshot; the last one has it installed.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct SnapshotChunk {
    /// Who asks whom.
    pub route: Route,
    /// Names the transfer; a new one replaces the old one.
    pub transfer: u128,
    /// The bytes of the whole snapshot, so that nothing is begun for which there is no room.
    pub size: u64,
    /// Where the piece belongs.
    pub offset: u64,
    /// The piece.
    pub bytes: Bytes,
    /// Set with the last piece: the leader's vote and what the snapshot is of.
    pub end: Option<(Vote, SnapshotMeta)>,
}
message!(SnapshotChunk => Result<Option<SnapshotResponse<Types>>, Declined>, "raft.Snapshot", Lane::Bulk, CHUNK_BYTES);

role! {
    /// A member of the registry's raft group, as the other members see it.
    pub RaftRole = "registry/raft" { asks: [AskVote, Beat, Append, Transfer, SnapshotChunk] }
}

/// Who says a message of [`RaftRole`], by its own word.
pub fn sender(body: &dyn Any) -> Option<Seat> {
    let route = None
        .or_else(|| body.downcast_ref::<Beat>().map(|beat| beat.route))
        .or_else(|| body.downcast_ref::<Append>().map(|append| append.route))
        .or_else(|| body.downcast_ref::<AskVote>().map(|asks| asks.route))
        .or_else(|| body.downcast_ref::<SnapshotChunk>().map(|chunk| chunk.route))
        .or_else(|| body.downcast_ref::<Transfer>().map(|transfer| transfer.route));
    route.map(|route| route.from)
}

/// Who leads in which term by the word of a message that leaders alone send; none of any other message. Votes are asked
/// for by whomever runs, be it that the group has removed it.
pub fn leads(body: &dyn Any) -> Option<(MemberId, u64)> {
    let vote = None
        .or_else(|| body.downcast_ref::<Beat>().map(|beat| beat.request.vote))
        .or_else(|| body.downcast_ref::<Append>().map(|append| append.request.vote))
        .or_else(|| body.downcast_ref::<SnapshotChunk>()?.end.as_ref().map(|(vote, _)| *vote));
    let leader = *vote.filter(Vote::is_committed)?.leader_id();
    Some((*leader.node_id(), leader.term()))
}

/// The name of the actor that serves [`RaftRole`].
pub const RAFT_ACTOR: &str = "registry/raft";
