//! The store beside a model of a few naive lines: the same commands, the same answers, the same views.

use super::*;
use crate::error::{ANY_REVISION, ReadError};
use crate::shard::Shard;
use crate::{
    query::{ListRequest, WatchEvent},
    transaction::RequestId,
};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};

/// Every state there ever was.
#[derive(Default)]
struct Model {
    history: Vec<BTreeMap<Key, Record>>,
    epochs: [u64; 2],
    answers: HashMap<RequestId, Result<Committed, TransactError>>,
}

impl Model {
    fn new() -> Self {
        Self { history: vec![BTreeMap::new()], ..Self::default() }
    }

    fn apply(&mut self, transaction: &Transaction) -> Result<Committed, TransactError> {
        if let Some(answer) = transaction.request.and_then(|request| self.answers.get(&request)) {
            return answer.clone();
        }
        let answer = self.apply_anew(transaction);
        if let Some(request) = transaction.request {
            self.answers.insert(request, answer.clone());
        }
        answer
    }

    fn apply_anew(&mut self, transaction: &Transaction) -> Result<Committed, TransactError> {
        let mut state = self.history.last().unwrap().clone();
        let revision = self.history.len() as u64;
        for (index, operation) in transaction.operations.iter().enumerate() {
            if transaction.operations[..index].iter().any(|other| other.key() == operation.key()) {
                return Err(TransactError::WrittenTwice { key: operation.key().clone() });
            }
        }
        if let Some(Fence { shard, epoch: held }) = transaction.fence {
            let current = Epoch(self.epochs[usize::from(shard.0)]);
            if held != current || held == Epoch(0) {
                return Err(TransactError::Fenced { shard, held, current });
            }
        }
        for compare in &transaction.compares {
            let key = compare.key().clone();
            let found = state.get(&key).map_or(0, |record| record.mod_revision);
            match compare {
                Compare::Revision { revision, .. } if *revision != found => {
                    return Err(TransactError::Conflict { key, expected: *revision, found });
                }
                Compare::Absent { .. } if found > 0 => {
                    return Err(TransactError::Conflict { key, expected: 0, found });
                }
                Compare::Exists { .. } if found == 0 => {
                    return Err(TransactError::Conflict { key, expected: ANY_REVISION, found });
                }
                _ => {}
            }
        }
        for operation in &transaction.operations {
            match operation {
                Operation::Put { key, value } => {
                    let create_revision =
                        state.get(key).map_or(revision, |record| record.create_revision);
                    state.insert(
                        key.clone(),
                        Record { value: value.clone(), create_revision, mod_revision: revision },
                    );
                }
                Operation::Delete { key } => {
                    state.remove(key);
                }
            }
        }
        if state != *self.history.last().unwrap() {
            self.history.push(state);
        }
        Ok(Committed { revision: self.history.len() as u64 - 1 })
    }

    fn matching(&self, select: &Selection, revision: Revision) -> Vec<Entry> {
        let state = &self.history[revision as usize];
        let kept = state
            .iter()
            .filter(|(key, record)| select.covers(key) && select.accepts(&record.value));
        kept.map(|(key, record)| record.entry(key.clone())).collect()
    }
}

fn keys() -> impl Strategy<Value = Key> {
    (prop::sample::select(vec!["pods", "batch/jobs"]), 0_u8..3, 0_u8..3).prop_map(
        |(resource, namespace, name)| {
            Key::new(resource, format!("n{namespace}"), format!("o{name}"))
        },
    )
}

fn values() -> impl Strategy<Value = Bytes> {
    (0_u8..3, 0_u32..1000).prop_map(|(node, noise)| {
        let node = if node == 0 { String::new() } else { format!(r#""nodeName":"m{node}""#) };
        Bytes::from(format!(r#"{{"x":{noise},"spec":{{{node}}}}}"#))
    })
}

fn transactions() -> impl Strategy<Value = Transaction> {
    let compare = (keys(), 0_u8..3, 0_u64..20).prop_map(|(key, kind, revision)| match kind {
        0 => Compare::Revision { key, revision },
        1 => Compare::Absent { key },
        _ => Compare::Exists { key },
    });
    let operation =
        (keys(), prop::option::weighted(0.7, values())).prop_map(|(key, value)| match value {
            Some(value) => Operation::Put { key, value },
            None => Operation::Delete { key },
        });
    let fence = (0_u8..2, 0_u64..3)
        .prop_map(|(shard, epoch)| Fence { shard: Shard(shard), epoch: Epoch(epoch) });
    let request = (0_u128..2, 0_u64..30).prop_map(|(client, serial)| RequestId { client, serial });
    (
        prop::collection::vec(compare, 0..2),
        prop::collection::vec(operation, 0..4),
        prop::option::weighted(0.2, fence),
        prop::option::weighted(0.5, request),
    )
        .prop_map(|(compares, operations, fence, request)| Transaction {
            compares,
            operations,
            fence,
            request,
        })
}

#[derive(Debug, Clone)]
enum Step {
    Transact(Transaction),
    MoveShard(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        20 => transactions().prop_map(Step::Transact),
        1 => (0_u8..2).prop_map(Step::MoveShard),
    ];
    prop::collection::vec(step, 1..60)
}

fn selections() -> impl Strategy<Value = Selection> {
    (
        prop::sample::select(vec!["pods", "batch/jobs"]),
        prop::option::of(0_u8..3),
        prop::option::weighted(0.2, 0_u8..3),
        prop::option::of(0_u8..3),
    )
        .prop_map(|(resource, namespace, name, node)| Selection {
            resource: resource.to_owned(),
            namespace: namespace.map(|n| format!("n{n}")),
            name: name.map(|n| format!("o{n}")),
            field: node.map(|n| {
                ("/spec/nodeName".to_owned(), if n == 0 { String::new() } else { format!("m{n}") })
            }),
        })
}

fn run(steps: &[Step], limits: RingLimits) -> Result<(Store, Model), TestCaseError> {
    let (mut store, mut model) = (Store::new(limits), Model::new());
    let mut named: HashMap<RequestId, Transaction> = HashMap::new();
    for step in steps {
        match step {
            Step::Transact(transaction) => {
                // A request id names one transaction for ever: a later one with its id is a retry of it.
                let transaction = match transaction.request {
                    Some(request) => named.entry(request).or_insert_with(|| transaction.clone()),
                    None => transaction,
                };
                prop_assert_eq!(store.transact(transaction), model.apply(transaction));
            }
            Step::MoveShard(shard) => {
                let seen = store.shards().lease(Shard(*shard)).unwrap().epoch;
                let to = Some(format!("m{}", seen.0));
                store.move_shards(&[ShardMove { shard: Shard(*shard), seen, to }]);
                model.epochs[usize::from(*shard)] += 1;
            }
        }
        prop_assert_eq!(store.revision(), model.history.len() as u64 - 1);
    }
    Ok((store, model))
}

const SHORT: RingLimits = RingLimits { revisions: 12, bytes: 1 << 20 };

proptest! {
    #[test]
    fn every_answer_is_that_of_the_model(steps in steps()) {
        run(&steps, RingLimits::default())?;
    }

    #[test]
    fn a_list_shows_the_state_of_its_revision_or_says_why_not(
        steps in steps(), select in selections(), at in prop::option::of(0_u64..40),
        limit in prop::option::of(1_usize..4),
    ) {
        let (store, model) = run(&steps, SHORT)?;
        let revision = at.unwrap_or(store.revision());
        let mut request = ListRequest { select: select.clone(), at, limit, ..ListRequest::default() };
        if revision > store.revision() {
            let ahead = matches!(store.list(&request), Err(ReadError::Future { .. }));
            prop_assert!(ahead);
            return Ok(());
        }
        if revision < store.oldest() {
            let gone = matches!(store.list(&request), Err(ReadError::Gone { .. }));
            prop_assert!(gone);
            return Ok(());
        }
        let expected = model.matching(&select, revision);
        let mut listed = Vec::new();
        loop {
            let page = store.list(&request).unwrap();
            prop_assert_eq!(page.revision, revision);
            let behind = expected.len() - listed.len() - page.entries.len();
            // To count what matches by value each value would have to be read: that there is more is said.
            let told = if select.field.is_some() { behind.min(1) } else { behind };
            prop_assert_eq!(page.remaining, told);
            let counted = store.count(&request, usize::MAX).unwrap().count;
            prop_assert!(counted >= page.entries.len() + told);
            listed.extend(page.entries);
            if page.remaining == 0 { break }
            let last = &listed.last().unwrap().key;
            request.after = Some((last.namespace.clone(), last.name.clone()));
        }
        prop_assert_eq!(listed, expected);
    }

    #[test]
    fn a_list_in_parts_of_a_few_keys_is_the_list_now_and_in_the_past(
        steps in steps(), select in selections(), at in 0_u64..40, most in 1_usize..5,
    ) {
        let (store, _) = run(&steps, SHORT)?;
        let at = Some(at.clamp(store.oldest(), store.revision()));
        let mut request = ListRequest { select, at, ..ListRequest::default() };
        let whole = store.part(&request, usize::MAX, usize::MAX).unwrap().records;
        let mut records = Vec::new();
        loop {
            let part = store.part(&request, most, usize::MAX).unwrap();
            records.extend(part.records);
            let Some(next) = part.next else { break };
            prop_assert!(request.after.as_ref() < Some(&next), "it comes on");
            request.after = Some(next);
        }
        prop_assert_eq!(records, whole);
    }

    #[test]
    fn a_watch_replays_from_any_kept_revision_to_the_present(
        steps in steps(), select in selections(), from in 0_u64..40,
    ) {
        let (store, model) = run(&steps, SHORT)?;
        let changes = store.changes(&select, from);
        if from < store.oldest() {
            prop_assert_eq!(changes, Err(WatchError::Gone { oldest: store.oldest() }));
            return Ok(());
        }
        let changes = changes.unwrap();
        prop_assert_eq!(changes.cursor, from.max(store.revision()));
        if from > store.revision() {
            prop_assert!(changes.batches.is_empty());
            return Ok(());
        }
        let mut view: BTreeMap<Key, Entry> =
            model.matching(&select, from).into_iter().map(|entry| (entry.key.clone(), entry)).collect();
        let mut last = from;
        for batch in changes.batches {
            prop_assert!(batch.revision > last, "revisions rise");
            for skipped in last + 1..batch.revision {
                prop_assert_eq!(model.matching(&select, skipped), model.matching(&select, last), "a gap");
            }
            for event in batch.events {
                match event {
                    WatchEvent::Put { entry, previous } => {
                        prop_assert_eq!(entry.mod_revision, batch.revision);
                        prop_assert_eq!(view.insert(entry.key.clone(), entry), previous);
                    }
                    WatchEvent::Delete { previous, revision } => {
                        prop_assert_eq!(revision, batch.revision);
                        prop_assert_eq!(view.remove(&previous.key), Some(previous));
                    }
                }
            }
            last = batch.revision;
            prop_assert_eq!(view.values().cloned().collect::<Vec<_>>(), model.matching(&select, last), "atomic");
        }
        prop_assert_eq!(view.into_values().collect::<Vec<_>>(), model.matching(&select, store.revision()));
    }

    #[test]
    fn an_image_restores_the_store_and_its_memory(steps in steps(), more in steps()) {
        let (mut store, _) = run(&steps, SHORT)?;
        let mut copy = Store::restore(store.image(), SHORT);
        prop_assert_eq!(copy.oldest(), store.oldest());
        for step in more {
            if let Step::Transact(transaction) = step {
                prop_assert_eq!(store.transact(&transaction), copy.transact(&transaction));
            }
        }
        prop_assert_eq!(store.image(), copy.image());
        prop_assert_eq!(store.bytes(), copy.bytes());
    }
}

#[test]
fn a_refused_request_stays_refused_when_its_copy_comes_late() {
    let mut store = Store::default();
    let key = Key::new("pods", "a", "b");
    let mut late =
        Transaction::new().when(Compare::Exists { key: key.clone() }).put(key.clone(), "{}");
    late.request = Some(RequestId { client: 7, serial: 1 });
    assert!(store.transact(&late).is_err());
    store.transact(&Transaction::create(key, "{}")).unwrap();
    assert!(store.transact(&late).is_err());
    assert_eq!(store.revision(), 1);
}

#[test]
fn a_request_older_than_the_memory_of_its_client_is_unknown_and_not_applied() {
    let mut store = Store::default();
    let put = |serial| {
        let mut put = Transaction::new().put(Key::new("pods", "a", "b"), "{}");
        put.request = Some(RequestId { client: 7, serial });
        put
    };
    for serial in 1..=crate::serials::ANSWERS as u64 + 1 {
        store.transact(&put(serial)).unwrap();
    }
    let revision = store.revision();
    assert!(matches!(store.transact(&put(1)), Err(TransactError::Forgotten { .. })));
    assert_eq!(store.transact(&put(2)), Ok(Committed { revision: 2 }));
    assert_eq!(store.revision(), revision);
}

#[test]
fn the_past_is_bounded_by_bytes_too() {
    let mut store = Store::new(RingLimits { revisions: 1000, bytes: 10_000 });
    for _ in 0..100 {
        store
            .transact(&Transaction::new().put(Key::new("pods", "a", "b"), vec![b'x'; 1000]))
            .unwrap();
    }
    assert!(store.oldest() > 90 && store.oldest() < 100, "the oldest is {}", store.oldest());
}

#[test]
fn a_fence_on_a_shard_that_nobody_holds_or_that_is_none_is_refused() {
    let mut store = Store::default();
    let fenced = |shard, epoch| {
        let fence = Fence { shard: Shard(shard), epoch: Epoch(epoch) };
        Transaction::create(Key::new("pods", "a", "b"), "{}").fenced(fence)
    };
    for shard in [64, 65, 255] {
        let refused = store.transact(&fenced(shard, 0)).unwrap_err();
        assert_eq!(refused, TransactError::NoSuchShard { shard: Shard(shard) });
    }
    let nobody = store.transact(&fenced(63, 0)).unwrap_err();
    assert!(matches!(nobody, TransactError::Fenced { .. }), "{nobody}");
    let to = |to: Option<&str>, seen| ShardMove {
        shard: Shard(63),
        seen: Epoch(seen),
        to: to.map(str::to_owned),
    };
    store.move_shards(&[to(Some("m"), 0)]);
    store.transact(&fenced(63, 1)).unwrap();
    store.move_shards(&[to(None, 1)]);
    assert!(matches!(store.transact(&fenced(63, 2)), Err(TransactError::Fenced { .. })));
}

#[test]
fn refused_transactions_with_long_keys_neither_grow_the_memory_nor_the_image() {
    let mut store = Store::default();
    let empty = impresario_runtime::encode(&store.image().parts().0).unwrap().len();
    let refused = |key: Key, serial| {
        let mut refused =
            Transaction::new().when(Compare::Exists { key: key.clone() }).put(key, "");
        refused.request = Some(RequestId { client: 7, serial });
        refused
    };
    for serial in 1..=200 {
        let long = store.transact(&refused(Key::new("pods", "d", "x".repeat(1 << 20)), serial));
        assert!(matches!(long, Err(TransactError::KeyTooLong { .. })), "{long:?}");
    }
    let after = impresario_runtime::encode(&store.image().parts().0).unwrap().len();
    assert_eq!(after, empty, "what is never possible is not remembered");
    for serial in 1..=200 {
        let absent = store.transact(&refused(Key::new("pods", "d", "x".repeat(1000)), serial));
        assert!(matches!(absent, Err(TransactError::Conflict { .. })), "{absent:?}");
    }
    let after = impresario_runtime::encode(&store.image().parts().0).unwrap().len();
    assert!(after < empty + 200 * 24, "an answer is small whatever was asked: {after} bytes");
}

#[test]
fn a_change_that_no_watcher_could_be_told_of_in_one_piece_is_refused() {
    let mut store = Store::default();
    let key = |n: usize| Key::new("pods", "d", n.to_string());
    for n in 0..30 {
        store.transact(&Transaction::create(key(n), vec![b'x'; 3 << 19])).unwrap();
    }
    let all = (0..30).fold(Transaction::new(), |all, n| all.delete(key(n)));
    assert!(matches!(store.transact(&all), Err(TransactError::TooLarge { .. })));
    assert_eq!((store.len(), store.revision()), (30, 30));
    let some = (0..20).fold(Transaction::new(), |some, n| some.delete(key(n)));
    store.transact(&some).unwrap();
}
