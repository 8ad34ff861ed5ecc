//! What the members of the registry's raft group say: our envelope, openraft's requests in it.

use crate::record::{Record, every};
use impresario_registry::raft::messages::{
    Append, AskVote, Beat, Declined, Route, Seat, SnapshotChunk, Transfer,
};
use impresario_registry::raft::{
    Command, Entry, LogId, MemberNode, SnapshotMeta, StoredMembership, Types, Vote,
};
use impresario_registry::shard::ShardMove;
use impresario_registry::{Epoch, Life, Shard, Transaction};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError,
    TransferLeaderRequest, VoteRequest, VoteResponse,
};
use openraft::vote::RaftLeaderId as _;
use openraft::{EntryPayload, Membership};
use std::collections::{BTreeMap, BTreeSet};

fn seat() -> Seat {
    Seat { member: 2, disk: u128::MAX, generation: Life::numbered(300) }
}

fn route() -> Route {
    Route { from: Seat { member: 1, disk: 7, generation: Life::numbered(2) }, to: seat() }
}

fn vote() -> Vote {
    Vote::new_committed(300, 1)
}

fn at(index: u64) -> LogId {
    LogId { leader_id: vote().leader_id.to_committed(), index }
}

fn membership() -> Membership<u64, MemberNode> {
    let node = MemberNode {
        name: "n1".into(),
        address: "10.0.0.1:7443".into(),
        disk: 7,
        generation: Life::numbered(2),
    };
    Membership::new(vec![BTreeSet::from([1])], BTreeMap::from([(1, node)])).unwrap()
}

fn declined() -> [Declined; 6] {
    every([
        Declined::OtherSeat(seat()),
        Declined::StaleSender(seat()),
        Declined::TooLarge(70_000),
        Declined::Stopped("disk full".into()),
        Declined::Snapshot("a gap".into()),
        Declined::NoRoom(70_000),
    ])
}

fn entries() -> Vec<Entry> {
    let commands = every([
        Command::Transact(Transaction::default()),
        Command::MoveShards(vec![ShardMove {
            shard: Shard(63),
            seen: Epoch(300),
            to: Some("n1".into()),
        }]),
        Command::Admit { disk: u128::MAX },
        Command::Retire { member: 2 },
    ]);
    let [first, others @ ..] = commands;
    let payloads = every([
        EntryPayload::Blank,
        EntryPayload::Normal(first),
        EntryPayload::Membership(membership()),
    ]);
    let payloads = payloads.into_iter().chain(others.map(EntryPayload::Normal));
    (301..)
        .zip(payloads)
        .map(|(index, payload)| openraft::Entry { log_id: at(index), payload })
        .collect()
}

fn request(entries: Vec<Entry>) -> AppendEntriesRequest<Types> {
    AppendEntriesRequest {
        vote: vote(),
        prev_log_id: Some(at(300)),
        entries,
        leader_commit: Some(at(299)),
    }
}

/// openraft compares votes and entries, but no requests of them.
fn same(one: &AppendEntriesRequest<Types>, other: &AppendEntriesRequest<Types>) -> bool {
    one.vote == other.vote
        && one.prev_log_id == other.prev_log_id
        && one.entries == other.entries
        && one.leader_commit == other.leader_commit
}

fn appended() -> impl Iterator<Item = Result<AppendEntriesResponse<Types>, Declined>> {
    let answers = every([
        AppendEntriesResponse::Success,
        AppendEntriesResponse::PartialSuccess(Some(at(300))),
        AppendEntriesResponse::Conflict,
        AppendEntriesResponse::HigherVote(vote()),
    ]);
    answers.map(Ok).into_iter().chain(declined().map(Err))
}

pub fn record() -> Record {
    let votes = [true, false].map(|pre| AskVote {
        route: route(),
        pre,
        request: VoteRequest::new(Vote::new(301, 2), Some(at(300))),
    });
    let refusals = every([
        TransferLeaderError::VoteChanged { expected: vote(), actual: Vote::new(301, 2) },
        TransferLeaderError::LogNotFlushed { expected: Some(at(300)), actual: None },
    ]);
    let meta = SnapshotMeta {
        last_log_id: Some(at(300)),
        last_membership: StoredMembership::new(Some(at(299)), membership()),
    };
    let chunks = [None, Some((vote(), meta))].map(|end| SnapshotChunk {
        route: route(),
        transfer: 5,
        size: 90_000,
        offset: 70_000,
        bytes: "ab".into(),
        end,
    });
    let beats =
        |one: &Beat, other: &Beat| one.route == other.route && same(&one.request, &other.request);
    let appends = |one: &Append, other: &Append| {
        one.route == other.route && same(&one.request, &other.request)
    };
    Record::of("raft")
        .ask(
            votes,
            [Ok(VoteResponse::new(vote(), Some(at(300)), true))]
                .into_iter()
                .chain(declined().map(Err)),
        )
        .ask_same([Beat { route: route(), request: request(vec![]) }], appended(), beats)
        .ask_same([Append { route: route(), request: request(entries()) }], appended(), appends)
        .ask(
            [Transfer {
                route: route(),
                request: TransferLeaderRequest::new(vote(), 2, Some(at(300))),
            }],
            [Ok(Ok(()))]
                .into_iter()
                .chain(refusals.map(|refusal| Ok(Err(refusal))))
                .chain(declined().map(Err)),
        )
        .ask(
            chunks,
            [Ok(None), Ok(Some(SnapshotResponse::new(vote())))]
                .into_iter()
                .chain(declined().map(Err)),
        )
}
