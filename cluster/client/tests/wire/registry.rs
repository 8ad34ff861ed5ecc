//! What a control member's registry is asked, and what its members ask its leader.

use crate::record::{Record, every};
use impresario_registry::protocol::{
    Enrol, Follow, Get, Group, GroupMembers, Heartbeat, Heartbeats, Join, LeadAlive,
    LeadHeartbeats, LeadReadIndex, LeadTransact, List, MemberStatus, MembershipError, NodeBeat,
    NotLeader, Remove, Return, Status, Transact,
};
use impresario_registry::raft::MemberNode;
use impresario_registry::{
    Committed, Compare, Consistency, Entry, Epoch, Fence, Key, Life, ListRequest, Operation, Page,
    ReadError, RequestId, Selection, Shard, TransactError, Transaction, WatchBatch, WatchError,
    WatchEvent, WatchRequest,
};
use std::time::Duration;

pub fn key() -> Key {
    Key::new("batch/jobs", "ns", "j")
}

pub fn entry() -> Entry {
    Entry { key: key(), value: "{}".into(), create_revision: 3, mod_revision: 300 }
}

pub fn selection() -> Selection {
    Selection::all("pods").within("ns").named("p").with_field("/spec/nodeName", "n1")
}

fn transaction() -> Transaction {
    let compares = every([
        Compare::Revision { key: key(), revision: 300 },
        Compare::Absent { key: key() },
        Compare::Exists { key: key() },
    ]);
    let operations = every([
        Operation::Put { key: key(), value: "{}".into() },
        Operation::Delete { key: Key::new("nodes", "", "n1") },
    ]);
    Transaction {
        compares: compares.into(),
        operations: operations.into(),
        fence: Some(Fence { shard: Shard(63), epoch: Epoch(300) }),
        request: Some(RequestId { client: u128::MAX, serial: 2 }),
    }
}

pub fn transact_errors() -> [TransactError; 12] {
    every([
        TransactError::Conflict { key: key(), expected: u64::MAX, found: 0 },
        TransactError::Fenced { shard: Shard(1), held: Epoch(2), current: Epoch(3) },
        TransactError::TooLarge { key: key(), size: 70_000, limit: 300 },
        TransactError::TooMany { items: 300, limit: 2 },
        TransactError::WrittenTwice { key: key() },
        TransactError::Unavailable { reason: "no leader".into() },
        TransactError::Unknown { key: key(), waited: Duration::from_millis(2500) },
        TransactError::Refused { reason: "not yours".into() },
        TransactError::KeyTooLong { size: 70_000, limit: 300 },
        TransactError::NoSuchShard { shard: Shard(64) },
        TransactError::Forgotten { heard: 300 },
        TransactError::NoSpace { member: "n1, n2".into() },
    ])
}

pub fn read_errors() -> [ReadError; 4] {
    every([
        ReadError::Gone { requested: 1, oldest: 300 },
        ReadError::Future { requested: 300, current: 1 },
        ReadError::Unavailable { reason: "no leader".into() },
        ReadError::Refused { reason: "not yours".into() },
    ])
}

fn not_leader() -> NotLeader {
    NotLeader { leader: Some("n1".into()) }
}

fn beat() -> Heartbeat {
    Heartbeat { node: "n2".into(), incarnation: 70_000, ready: true }
}

fn membership_errors() -> [MembershipError; 10] {
    every([
        MembershipError::NameTaken { node: "n1".into(), member: 1 },
        MembershipError::Retired { member: 2 },
        MembershipError::OtherDisk { member: 3 },
        MembershipError::Unknown { node: "n9".into() },
        MembershipError::LastVoter { node: "n1".into() },
        MembershipError::Copied { node: "n1".into(), known: 300, shown: 7 },
        MembershipError::RunsAlready { node: "n1".into(), member: 3 },
        MembershipError::TooManyDisks { count: 4096 },
        MembershipError::Unavailable { reason: "no leader".into() },
        MembershipError::WouldStop { node: "n1".into(), silent: vec!["n2".into()] },
    ])
}

pub fn record() -> Record {
    leading(members(objects(Record::of("registry"))))
}

fn objects(record: Record) -> Record {
    let freshness = every([Consistency::Linearizable, Consistency::Local]);
    let list = ListRequest {
        select: selection(),
        after: Some(("ns".into(), "o".into())),
        limit: Some(500),
        at: Some(300),
        consistency: Consistency::Local,
    };
    let page = Page { entries: vec![entry()], revision: 300, remaining: 7 };
    let events = every([
        WatchEvent::Put { entry: entry(), previous: Some(entry()) },
        WatchEvent::Delete { previous: entry(), revision: 301 },
    ]);
    let ends = every([
        WatchError::Gone { oldest: 300 },
        WatchError::Closed,
        WatchError::Refused { reason: "not yours".into() },
        WatchError::Removed { resource: "example.com/things".into() },
    ]);
    let batch = WatchBatch { revision: 301, events: events.into() };
    record
        .ask(
            freshness.map(|consistency| Get { key: key(), consistency }),
            [Ok((Some(entry()), 300)), Ok((None, 300))].into_iter().chain(read_errors().map(Err)),
        )
        .ask(
            [List(ListRequest::default()), List(list)],
            [Ok(page)].into_iter().chain(read_errors().map(Err)),
        )
        .ask(
            [Transact(Transaction::default()), Transact(transaction())],
            [Ok(Committed { revision: 301 })].into_iter().chain(transact_errors().map(Err)),
        )
        .stream(
            [Follow(WatchRequest { select: selection(), after: 300, bookmarks: true })],
            [Ok(batch)].into_iter().chain(ends.map(Err)),
        )
}

fn members(record: Record) -> Record {
    let node = MemberNode {
        name: "n1".into(),
        address: "10.0.0.1:7443".into(),
        disk: 1 << 100,
        generation: Life::numbered(300),
    };
    let status = MemberStatus {
        id: 1,
        node: "n1".into(),
        leader: Some("n2".into()),
        term: 300,
        revision: 70_000,
        applied: 70_001,
        voters: vec!["n1".into(), "n2".into()],
        learners: vec!["n3".into()],
        failure: Some("disk full".into()),
    };
    let group = GroupMembers {
        members: [(1, "n1".to_owned()), (300, "n2".to_owned())].into(),
        leader: Some(300),
        term: 70_000,
    };
    record
        .ask([beat()], [Ok(()), Err(not_leader()), Err(NotLeader { leader: None })])
        .ask([Status], [status])
        .ask([Group], [group])
        .ask(
            [Join { disk: u128::MAX, node: "n1".into() }],
            [Ok(1)].into_iter().chain(membership_errors().map(Err)),
        )
        .ask(
            [Enrol { member: 1, node: node.clone(), lives: vec![Life::numbered(300)] }],
            [Ok(())].into_iter().chain(membership_errors().map(Err)),
        )
        .ask(
            [Return { member: 1, node, lives: vec![Life::numbered(300)] }],
            [Ok(())].into_iter().chain(membership_errors().map(Err)),
        )
        .ask(
            [Remove { node: "n1".into(), force: true }],
            [Ok(())].into_iter().chain(membership_errors().map(Err)),
        )
}

fn leading(record: Record) -> Record {
    let heard = Heartbeats {
        leading_for: Duration::from_secs(70),
        nodes: vec![NodeBeat { beat: beat(), age: Duration::from_millis(2500) }],
    };
    record
        .ask(
            [LeadTransact(transaction())],
            [Ok(Ok(Committed { revision: 301 })), Err(not_leader())]
                .into_iter()
                .chain(transact_errors().map(|error| Ok(Err(error)))),
        )
        .ask([LeadReadIndex], [Ok(300), Err(not_leader())])
        .ask(
            [LeadAlive { node: "n1".into(), generation: Life::numbered(300), room: true }],
            [Ok(()), Err(not_leader())],
        )
        .ask([LeadHeartbeats], [Ok(heard), Err(not_leader())])
}
