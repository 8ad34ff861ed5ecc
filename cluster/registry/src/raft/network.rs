//! Carries openraft's messages over the runtime's connections.
//!
//! Votes and heartbeats that are not answered in openraft's time limit are given up; entries are given the time
//! that their size takes on the link (see [`Pace`]). What is answered "not me" counts as unreachable, so that
//! openraft backs off. A batch of entries that is too large for one message is cut, and openraft is told how far
//! it went.

use super::{
    Command, Entry, MemberId, MemberNode, Types, Vote,
    messages::{
        Append, AskVote, Beat, Declined, RAFT_ACTOR, RaftRole, Route, Seat, SnapshotChunk, Transfer,
    },
    pace::Pace,
    snapshot::SnapshotFile,
};
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
use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

/// A piece of a snapshot.
const CHUNK_BYTES: usize = 512 * 1024;
/// How long the last piece may take, the installation included.
const INSTALL_LIMIT: Duration = Duration::from_mins(1);

/// Makes links to other members.
#[derive(Clone)]
pub struct Network {
    node: ActorNode,
    me: Seat,
    refuted: Refuted,
}

/// Hears of the seat that another member knows in place of this one.
pub type Refuted = Arc<dyn Fn(Seat) + Send + Sync>;

impl Network {
    /// The network as this member sees it.
    pub fn new(node: ActorNode, me: Seat, refuted: Refuted) -> Self {
        Self { node, me, refuted }
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
            route: Route {
                from: self.me,
                to: Seat { member: target, disk: node.disk, generation: node.generation },
            },
            refuted: self.refuted.clone(),
            pace: Pace::default(),
        }
    }
}

/// A link to one member.
pub struct Link {
    actor: ActorRef<RaftRole>,
    route: Route,
    refuted: Refuted,
    pace: Pace,
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
            Ok(Err(declined)) => {
                if let Declined::StaleSender(known) = declined {
                    (self.refuted)(known);
                }
                Err(unreachable(&declined))
            }
            Err(AskError::Deadline { waited }) => Err(Timeout {
                action: kind,
                id: self.route.from.member,
                target: self.route.to.member,
                timeout: waited,
            }
            .into()),
            Err(error) => Err(unreachable(&error)),
        }
    }

    async fn send_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<Types, SnapshotFile>,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let transfer = rand::random();
        let size = snapshot.snapshot.size().map_err(|error| NetworkError::new(&error))?;
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
            let limit = if end.is_some() { INSTALL_LIMIT } else { self.pace.limit(bytes.len()) };
            let chunk = SnapshotChunk {
                route: self.route,
                transfer,
                size,
                offset,
                bytes: bytes.into(),
                end,
            };
            let asked = Instant::now();
            match self.ask(chunk, limit, RPCTypes::InstallSnapshot).await {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => self.pace.answered(sent as usize, asked.elapsed()),
                Err(error) => {
                    if matches!(error, RPCError::Timeout(_)) {
                        self.pace.missed(sent as usize);
                    }
                    return Err(error.into());
                }
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
        let route = self.route;
        if request.entries.is_empty() {
            let beat = Beat { route, request };
            return self.ask(beat, option.hard_ttl(), RPCTypes::AppendEntries).await;
        }
        let (fitting, bytes) = fitting(&request.entries, self.pace.piece());
        let cut = fitting < request.entries.len();
        request.entries.truncate(fitting);
        let last = request.entries.last().map(RaftEntry::log_id);
        let (limit, asked) = (self.pace.limit(bytes), Instant::now());
        let answer = self.ask(Append { route, request }, limit, RPCTypes::AppendEntries).await;
        match &answer {
            Ok(_) => self.pace.answered(bytes, asked.elapsed()),
            Err(RPCError::Timeout(_)) => self.pace.missed(bytes),
            Err(_) => {}
        }
        match answer? {
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
        self.ask(
            AskVote { route: self.route, pre: false, request },
            option.hard_ttl(),
            RPCTypes::Vote,
        )
        .await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask(
            AskVote { route: self.route, pre: true, request },
            option.hard_ttl(),
            RPCTypes::Vote,
        )
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
        self.ask(
            Transfer { route: self.route, request },
            option.hard_ttl(),
            RPCTypes::TransferLeader,
        )
        .await
    }
}

/// How many entries go into one message, and their bytes; one goes always.
fn fitting(entries: &[Entry], most: usize) -> (usize, usize) {
    let (mut count, mut bytes) = (0, 0);
    for entry in entries {
        let more = weight(entry);
        if count > 0 && bytes + more > most {
            break;
        }
        (count, bytes) = (count + 1, bytes + more);
    }
    (count, bytes)
}

/// About how many bytes an entry has as a message, and never less.
fn weight(entry: &Entry) -> usize {
    let EntryPayload::Normal(Command::Transact(transaction)) = &entry.payload else { return 1024 };
    let items = transaction.compares.len() + transaction.operations.len();
    // Lengths, revisions and kinds take less than 32 bytes an item.
    transaction.bytes() + 128 + items * 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::LogId;
    use impresario_registry_api::{Compare, Key, Transaction};
    use openraft::vote::leader_id_adv::LeaderId;

    /// An entry that writes so many keys with names of this length, each with a value of this length.
    fn entry(keys: usize, name: usize, value: usize) -> Entry {
        let key = |number| Key::new("pods", "default", format!("{number:0>name$}"));
        let mut transaction = (0..keys)
            .fold(Transaction::new(), |written, number| written.put(key(number), vec![7; value]));
        let compares =
            (0..keys).map(|number| Compare::Revision { key: key(number), revision: 1 << 40 });
        transaction.compares = compares.collect();
        let id = LogId { leader_id: LeaderId { term: 1, node_id: 1 }, index: 1 };
        Entry::new(id, EntryPayload::Normal(Command::Transact(transaction)))
    }

    #[test]
    fn an_entry_weighs_no_less_than_its_message_and_little_more() {
        for (keys, name, value) in [(1, 3, 0), (1_000, 3, 0), (1_000, 900, 0), (3, 3, 1 << 20)] {
            let entry = entry(keys, name, value);
            let (weight, bytes) =
                (weight(&entry), impresario_runtime::encode(&entry).unwrap().len());
            assert!(weight >= bytes, "{keys} keys of {name}: {weight} for {bytes}");
            // Else batches of many small objects would be cut for nothing.
            assert!(weight <= 3 * bytes + 128, "{keys} keys of {name}: {weight} for {bytes}");
        }
    }

    #[test]
    fn as_many_entries_go_into_one_message_as_fit_and_one_always() {
        let entries = [entry(1, 3, 1_000), entry(1, 3, 1_000), entry(1, 3, 1_000)];
        let one = weight(&entries[0]);
        assert_eq!(fitting(&entries, 3 * one), (3, 3 * one));
        assert_eq!(fitting(&entries, 3 * one - 1), (2, 2 * one));
        assert_eq!(fitting(&entries, 1), (1, one));
        assert_eq!(fitting(&[], 1), (0, 0));
    }
}
