//! The index beside a filter of a few naive lines: the same watchers, the same events.

use super::*;
use crate::{
    Selection, Transaction, WatchBatch, WatchEvent, WatchRequest,
    condition::{Condition, Demand},
    key::{Entry, Key},
    replica::Replica,
    store::RingLimits,
};
use futures_util::{FutureExt, StreamExt};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::sync::watch;

const NODE: &str = "/spec/nodeName";

fn field(value: &str, equal: bool) -> Condition {
    let (pointer, absent) = (NODE.to_owned(), String::new());
    Condition::Field { pointer, absent, value: value.to_owned(), equal }
}

fn label(key: &str, demand: Demand) -> Condition {
    Condition::Label { key: key.to_owned(), demand }
}

fn values(of: &[&str]) -> std::collections::BTreeSet<String> {
    of.iter().map(|&value| value.to_owned()).collect()
}

fn interests() -> impl Strategy<Value = Interest> {
    let conditions = vec![
        field("m1", true),
        field("m2", true),
        field("m1", false),
        field("", true),
        field("", false),
        label("app", Demand::In(values(&["a"]))),
        label("app", Demand::In(values(&["a", "b"]))),
        label("app", Demand::In(values(&[]))),
        label("tier", Demand::In(values(&["a"]))),
        label("app", Demand::NotIn(values(&["a"]))),
        label("app", Demand::Exists),
        label("tier", Demand::Exists),
        label("tier", Demand::Absent),
    ];
    let conditions = prop::collection::vec(prop::sample::select(conditions), 0..4);
    (any::<bool>(), prop::option::of(0_u8..2), prop::option::weighted(0.2, 0_u8..2), conditions)
        .prop_map(|(pods, namespace, name, conditions)| {
            let select = Selection {
                resource: if pods { "pods" } else { "batch/jobs" }.to_owned(),
                namespace: namespace.map(|namespace| format!("n{namespace}")),
                name: name.map(|name| format!("o{name}")),
                // As nodes ask for their pods.
                field: conditions
                    .first()
                    .filter(|it| **it == field("m2", true))
                    .map(|_| (NODE.to_owned(), "m2".to_owned())),
            };
            Interest::new(select, conditions)
        })
}

fn objects() -> impl Strategy<Value = Option<Value>> {
    let one = || prop::sample::select(vec![Value::Null, json!("a"), json!("b"), json!(1)]);
    let node = prop::sample::select(vec![Value::Null, json!("m1"), json!("m2")]);
    let object = (one(), one(), node, any::<u8>()).prop_map(|(app, tier, node, noise)| {
        let mut labels = serde_json::Map::new();
        labels.extend((!app.is_null()).then(|| ("app".to_owned(), app)));
        labels.extend((!tier.is_null()).then(|| ("tier".to_owned(), tier)));
        json!({"metadata": {"labels": labels}, "spec": {"nodeName": node}, "noise": noise})
    });
    prop::option::weighted(0.8, object)
}

/// One transaction: what becomes of some objects.
fn steps() -> impl Strategy<Value = Vec<(Key, Option<Value>)>> {
    let key = (any::<bool>(), 0_u8..2, 0_u8..2).prop_map(|(pods, namespace, name)| {
        let resource = if pods { "pods" } else { "batch/jobs" };
        Key::new(resource, format!("n{namespace}"), format!("o{name}"))
    });
    prop::collection::btree_map(key, objects(), 1..4)
        .prop_map(|written| written.into_iter().collect())
}

fn write(replica: &Replica, step: &[(Key, Option<Value>)]) {
    let transaction = step.iter().fold(Transaction::new(), |made, (key, value)| match value {
        Some(value) => made.put(key.clone(), value.to_string()),
        None => made.delete(key.clone()),
    });
    replica.write(|store| store.transact(&transaction)).unwrap();
}

fn wants(interest: &Interest, entry: &Entry) -> bool {
    let value: Value = serde_json::from_slice(&entry.value).unwrap();
    let select = &interest.select;
    entry.key.resource == select.resource
        && select.namespace.as_ref().is_none_or(|namespace| *namespace == entry.key.namespace)
        && select.name.as_ref().is_none_or(|name| *name == entry.key.name)
        && select.field.as_ref().is_none_or(|(_, node)| value["spec"]["nodeName"] == **node)
        && interest.conditions.iter().all(|condition| match condition {
            Condition::Field { value: node, equal, .. } => {
                (value["spec"]["nodeName"].as_str().unwrap_or_default() == node) == *equal
            }
            Condition::Label { key, demand } => {
                let found = value["metadata"]["labels"][key].as_str();
                match demand {
                    Demand::In(values) => found.is_some_and(|found| values.contains(found)),
                    Demand::NotIn(values) => found.is_none_or(|found| !values.contains(found)),
                    Demand::Exists => found.is_some(),
                    Demand::Absent => found.is_none(),
                }
            }
        })
}

/// What filtering everything that happened after a revision gives.
fn filtered(replica: &Replica, interest: &Interest, after: Revision) -> Vec<WatchBatch> {
    let recent = replica.read(|store| store.recent(after)).unwrap();
    let batches = recent.iter().map(|batch| {
        let events = batch.1.iter().filter_map(|change| {
            let matching = |record: &Option<crate::store::Record>| {
                let entry = record.as_ref()?.entry(change.key.clone());
                wants(interest, &entry).then_some(entry)
            };
            match (matching(&change.before), matching(&change.after)) {
                (previous, Some(entry)) => Some(WatchEvent::Put { entry, previous }),
                (Some(previous), None) => Some(WatchEvent::Delete { previous, revision: batch.0 }),
                (None, None) => None,
            }
        });
        WatchBatch { revision: batch.0, events: events.collect() }
    });
    batches.filter(|batch| !batch.events.is_empty()).collect()
}

fn replica() -> Replica {
    Replica::new(Store::new(RingLimits::default()))
}

proptest! {
    #[test]
    fn who_is_concerned_is_told_and_nobody_else_is(
        interests in prop::collection::vec(interests(), 1..30),
        steps in prop::collection::vec(steps(), 1..30),
        leave in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let replica = replica();
        let mut places: Vec<_> =
            interests.into_iter().map(|interest| replica.subscribe(interest, 0)).collect();
        for place in &places {
            prop_assert_eq!(place.take(), Some(Told::from(1)), "what is there already is to be looked at");
        }
        let mut leave = leave.into_iter();
        for step in &steps {
            let before = replica.read(Store::revision);
            write(&replica, step);
            for place in &places {
                let told = filtered(&replica, place.interest(), before);
                let at: Vec<_> = told.iter().map(|batch| batch.revision).collect();
                let told = (!at.is_empty()).then_some(Told { at, from: None });
                prop_assert_eq!(place.take(), told, "{:?} of {:?}", place.interest(), step);
            }
            if let Some(index) = leave.next() && places.len() > 1 {
                places.swap_remove(index.index(places.len()));
            }
        }
        let watchers = places[0].watchers.clone();
        drop(places);
        prop_assert!(watchers.index.lock().is_empty(), "nothing is left of who went");
    }

    #[test]
    fn a_watch_tells_what_filtering_everything_would_whenever_it_is_read(
        interests in prop::collection::vec(interests(), 1..10),
        steps in prop::collection::vec((steps(), any::<u16>()), 1..30),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _entered = runtime.enter();
        let replica = replica();
        let stop = watch::Sender::new(false);
        let mut watches = Vec::new();
        for interest in &interests {
            let (select, conditions) = (interest.select.clone(), interest.conditions.clone());
            let request = WatchRequest { select, after: 0, bookmarks: false };
            watches.push(crate::watch::follow(&replica, request, conditions, stop.subscribe()).unwrap());
        }
        let mut told = vec![Vec::new(); watches.len()];
        let mut read = |reads: u16| {
            for (number, watch) in watches.iter_mut().enumerate() {
                while reads & (1 << number) != 0
                    && let Some(Some(batch)) = watch.next().now_or_never()
                {
                    told[number].push(batch.unwrap());
                }
            }
        };
        for (step, reads) in &steps {
            write(&replica, step);
            read(*reads);
        }
        read(u16::MAX);
        for (interest, told) in interests.iter().zip(told) {
            prop_assert_eq!(told, filtered(&replica, interest, 0), "{:?}", interest);
        }
    }
}

#[test]
fn a_watch_that_has_not_looked_at_all_that_it_was_told_misses_nothing_when_more_comes() {
    const WRITES: usize = 40;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let (replica, stop) = (replica(), watch::Sender::new(false));
        let request = WatchRequest { select: Selection::all("pods"), after: 0, bookmarks: false };
        let mut watch =
            crate::watch::follow(&replica, request, Vec::new(), stop.subscribe()).unwrap();
        // More than one look takes.
        let put = |number: usize| {
            let value = json!({"padding": "x".repeat(20 * 1024), "number": number});
            write(&replica, &[(Key::new("pods", "ns", format!("p{number}")), Some(value))]);
        };
        (0..WRITES).for_each(put);
        let mut told = vec![watch.next().await.unwrap().unwrap().revision];
        put(WRITES);
        while told.len() <= WRITES {
            told.push(watch.next().await.unwrap().unwrap().revision);
        }
        assert_eq!(told, (1..=WRITES as u64 + 1).collect::<Vec<_>>());
    });
}

#[test]
fn a_watch_that_reads_late_looks_at_what_it_was_told_and_then_through_all_that_is_left() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let (replica, stop) = (replica(), watch::Sender::new(false));
        let select = Selection::all("pods").with_field(NODE, "m1");
        let request = WatchRequest { select: select.clone(), after: 0, bookmarks: false };
        let mut watch =
            crate::watch::follow(&replica, request, Vec::new(), stop.subscribe()).unwrap();
        let place = replica.subscribe(Interest::new(select, Vec::new()), 0);
        let put = |number: u64, node: &str| {
            let value = json!({"spec": {"nodeName": node}});
            write(&replica, &[(Key::new("pods", "ns", format!("p{number}")), Some(value))]);
        };
        put(0, "m1");
        assert_eq!(watch.next().await.unwrap().unwrap().revision, 1);
        assert!(watch.next().now_or_never().is_none(), "it has looked through what was there");
        assert_eq!(place.take(), Some(Told::from(1)));
        // Every other one concerns it.
        (1..=400).for_each(|number| put(number, if number % 2 == 0 { "m1" } else { "m2" }));
        let concerned: Vec<u64> =
            (1..=400).filter(|number| number % 2 == 0).map(|it| it + 1).collect();
        let told = place.take().unwrap();
        assert_eq!(told.at, concerned[..told.at.len()]);
        assert_eq!(told.from, Some(concerned[told.at.len()]));
        for revision in concerned {
            assert_eq!(watch.next().await.unwrap().unwrap().revision, revision);
        }
        put(7, "m1");
        assert_eq!(watch.next().await.unwrap().unwrap().revision, 402);
    });
}

#[test]
fn whoever_asks_for_thousands_of_values_of_a_label_takes_one_place() {
    let replica = replica();
    let values: std::collections::BTreeSet<String> = (0..15_000).map(|n| n.to_string()).collect();
    let conditions = vec![label("app", Demand::In(values))];
    let place = replica.subscribe(Interest::new(Selection::all("pods"), conditions), 0);
    place.take();
    let pod = |app: &str| Some(json!({"metadata": {"labels": {"app": app}}}));
    write(&replica, &[(Key::new("pods", "ns", "a"), pod("none"))]);
    assert_eq!(place.take(), None);
    write(&replica, &[(Key::new("pods", "ns", "a"), pod("7"))]);
    assert_eq!(place.take(), Some(Told { at: vec![2], from: None }));
    assert_eq!(place.watchers.index.lock().places(), 1);
}

#[test]
fn what_many_ask_of_a_value_is_looked_up_once() {
    let replica = replica();
    let of_node = |number: usize| {
        Interest::new(Selection::all("pods").with_field(NODE, format!("m{number}")), Vec::new())
    };
    let places: Vec<_> = (0..100).map(|number| replica.subscribe(of_node(number), 0)).collect();
    let pod = json!({"spec": {"nodeName": "m7"}});
    write(&replica, &[(Key::new("pods", "d", "a"), Some(pod))]);
    let batch = replica.read(|store| store.recent(0)).unwrap().remove(0);
    let seen = places[7].seen(&batch);
    assert!(seen.changes[0].get().is_some(), "it was looked up when it was written");
    for place in &places {
        assert!(Arc::ptr_eq(&place.seen(&batch), &seen), "and is shared");
    }
}

#[test]
fn pointers_beyond_the_bound_are_looked_up_by_who_asks_for_them() {
    let replica = replica();
    let of = |number: usize| {
        let select = Selection::all("pods").with_field(format!("/spec/f{number}"), "x");
        replica.subscribe(Interest::new(select, Vec::new()), 0)
    };
    let mut places: Vec<_> = (0..40).map(of).collect();
    for place in &places {
        place.take();
    }
    let pods: Vec<_> = [3, 39]
        .map(|number: usize| {
            let key = Key::new("pods", "d", format!("p{number}"));
            (key, Some(json!({"spec": {(format!("f{number}")): "x"}})))
        })
        .into();
    write(&replica, &pods);
    let concerned = |places: &[Subscription]| -> Vec<usize> {
        (0..places.len()).filter(|number| places[*number].take().is_some()).collect()
    };
    // Whoever has none of the places is told of all, and looks for itself: it holds up nobody who writes.
    let beyond = index::MOST_POINTERS..40;
    assert_eq!(concerned(&places), std::iter::once(3).chain(beyond).collect::<Vec<_>>());
    // Places that become free are given again, and who had none keeps none: all are still told.
    places.drain(..20);
    places.extend((0..4).map(of));
    for place in &places {
        place.take();
    }
    write(&replica, &pods);
    assert_eq!(concerned(&places), (0..20).chain([23]).collect::<Vec<_>>());
}

#[test]
fn whoever_watches_a_state_that_is_replaced_looks_again() {
    let replica = replica();
    let place = replica.subscribe(Interest::new(Selection::all("pods"), Vec::new()), 0);
    assert_eq!(place.take(), Some(Told::from(1)));
    let mut other = Store::new(RingLimits { revisions: 1, ..RingLimits::default() });
    for _ in 0..5 {
        other.transact(&Transaction::new().put(Key::new("pods", "d", "a"), "{}")).unwrap();
    }
    drop(replica.write(|store| std::mem::replace(store, other)));
    assert_eq!((place.take(), place.through()), (Some(Told::from(1)), 5));
}
