//! Carries openraft's messages over the runtime's connections.
//!
//! A message that is not answered in openraft's time limit is given up; what is answered "not me" counts as
//! unreachable, so that openraft backs off. A batch of entries that is too large for one message is cut, and
//! openraft is told how far it went.

use super::{
    Command, Entry, MemberId, MemberNode, Types, Vote,
    messages::{
        Append, AskVote, Beat, Declined, RAFT_ACTOR, RaftRole, Seat, SnapshotChunk, Transfer,
    },
    snapshot::SnapshotFile,
};
use crate::transaction::Operation;
use futures_util::future::{Either, select};
use impresario_runtime::{Accepts, ActorNode, ActorPath, ActorRef, AskError, Message, NodeName};
use openraft::{
    AnyError, EntryPayload, OptionalSend, RPCTypes, RaftNetworkFactory, RaftNetworkV2,
    entry::RaftEntry,
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
        TransferLeaderResponse, VoteRequest, VoteResponse,
    },
    type_config::alias::SnapshotOf,
};
use std::{future::Future, pin::pin, time::Duration};

/// Entries beyond this wait for the next message.
const MESSAGE_BYTES: usize = 8 * 1024 * 1024;
/// A piece of a snapshot.
const CHUNK_BYTES: usize = 512 * 1024;
/// How long one piece may take; the last one includes the installation.
const CHUNK_LIMIT: Duration = Duration::from_secs(10);
const INSTALL_LIMIT: Duration = Duration::from_mins(1);

/// Makes links to other members.
#[derive(Debug, Clone)]
pub struct Network {
    node: ActorNode,
    me: MemberId,
}

impl Network {
    /// The network as this member sees it.
    pub fn new(node: ActorNode, me: MemberId) -> Self {
        Self { node, me }
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: MemberId, node: &MemberNode) -> Self::Network {
        let name = NodeName::from(node.name.as_str());
        match node.address.parse() {
            Ok(address) => self.node.addresses().set(name.clone(), address),
            Err(error) => {
                tracing::error!(member = target, address = node.address, %error, "not a member's address");
            }
        }
        Link {
            actor: self.node.actor(ActorPath::new(name, RAFT_ACTOR)),
            me: self.me,
            to: Seat { member: target, disk: node.disk },
        }
    }
}

/// A link to one member.
#[derive(Debug)]
pub struct Link {
    actor: ActorRef<RaftRole>,
    me: MemberId,
    to: Seat,
}

impl Link {
    async fn ask<M, T>(
        &self,
        message: M,
        limit: Duration,
        kind: RPCTypes,
    ) -> Result<T, RPCError<Types>>
    where
        M: Message<Reply = Result<T, Declined>>,
        RaftRole: Accepts<M>,
    {
        match self.actor.ask(message, limit).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(declined)) => Err(unreachable(&declined)),
            Err(AskError::Deadline { waited }) => {
                Err(Timeout { action: kind, id: self.me, target: self.to.member, timeout: waited }
                    .into())
            }
            Err(error) => Err(unreachable(&error)),
        }
    }

    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: SnapshotOf<Types, SnapshotFile>,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let transfer = rand::random();
        let mut offset = 0;
        loop {
            let file = snapshot.snapshot.clone();
            let read = tokio::task::spawn_blocking(move || file.read_at(offset, CHUNK_BYTES)).await;
            let bytes = read
                .map_err(|error| NetworkError::new(&error))?
                .map_err(|error| NetworkError::new(&error))?;
            let sent = bytes.len() as u64;
            // The end goes alone, after the last byte, so that no look ahead is needed.
            let end = bytes.is_empty().then(|| (vote, snapshot.meta.clone()));
            let limit = if end.is_some() { INSTALL_LIMIT } else { CHUNK_LIMIT };
            let chunk = SnapshotChunk { to: self.to, transfer, offset, bytes: bytes.into(), end };
            if let Some(answer) = self.ask(chunk, limit, RPCTypes::InstallSnapshot).await? {
                return Ok(answer);
            }
            if sent == 0 {
                return Err(
                    NetworkError::from_string("the snapshot was taken without an answer").into()
                );
            }
            offset += sent;
        }
    }
}

fn unreachable(error: &(impl std::error::Error + 'static)) -> RPCError<Types> {
    Unreachable::new(&AnyError::new(error)).into()
}

impl RaftNetworkV2<Types> for Link {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        mut request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let (to, limit) = (self.to, option.hard_ttl());
        if request.entries.is_empty() {
            return self.ask(Beat { to, request }, limit, RPCTypes::AppendEntries).await;
        }
        let fitting = fitting(&request.entries);
        let cut = fitting < request.entries.len();
        request.entries.truncate(fitting);
        let last = request.entries.last().map(RaftEntry::log_id);
        let answer = self.ask(Append { to, request }, limit, RPCTypes::AppendEntries).await?;
        match answer {
            AppendEntriesResponse::Success if cut => {
                Ok(AppendEntriesResponse::PartialSuccess(last))
            }
            other => Ok(other),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask(AskVote { to: self.to, pre: false, request }, option.hard_ttl(), RPCTypes::Vote)
            .await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask(AskVote { to: self.to, pre: true, request }, option.hard_ttl(), RPCTypes::Vote)
            .await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<Types, SnapshotFile>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        match select(pin!(cancel), pin!(self.send_snapshot(vote, snapshot))).await {
            Either::Left((closed, _)) => Err(closed.into()),
            Either::Right((sent, _)) => sent,
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        self.ask(Transfer { to: self.to, request }, option.hard_ttl(), RPCTypes::TransferLeader)
            .await
    }
}

/// How many entries go into one message; one goes always.
fn fitting(entries: &[Entry]) -> usize {
    let mut bytes = 0;
    let fits = |entry: &&Entry| {
        bytes += weight(entry);
        bytes <= MESSAGE_BYTES
    };
    entries.iter().take_while(fits).count().max(1)
}

fn weight(entry: &Entry) -> usize {
    let EntryPayload::Normal(Command::Transact(transaction)) = &entry.payload else { return 1024 };
    let values = transaction.operations.iter().map(|operation| match operation {
        Operation::Put { value, .. } => value.len() + 512,
        Operation::Delete { .. } => 512,
    });
    512 + transaction.compares.len() * 512 + values.sum::<usize>()
}
