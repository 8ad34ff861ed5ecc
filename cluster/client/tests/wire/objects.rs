//! What a control member's objects are asked.

use crate::record::{Record, every};
use crate::registry::{entry, key, read_errors, selection, transact_errors};
use bytes::Bytes;
use impresario_client::objects::protocol::{
    Bind, Change, CountRefusals, Create, Delete, FencedChange, Follow, Form, Get, Gone, List, Part,
    Refusal, Refused, Sender, Settle, sender,
};
use impresario_registry_api::{
    Committed, Consistency, Epoch, Fence, Key, ListRequest, Page, Shard, WatchBatch, WatchError,
    WatchEvent, WatchRequest,
};
use impresario_runtime::{PeerRole, decode, encode};
use proptest::prelude::*;
use serde::{Serialize, de::DeserializeOwned};
use std::any::Any;
use std::fmt::Debug;

fn senders() -> [Sender; 5] {
    let roles = every([
        PeerRole::Control,
        PeerRole::Node,
        PeerRole::Guest { scope: "j1".into() },
        PeerRole::Client,
        PeerRole::Admin,
    ]);
    roles.map(|role| Sender { name: "n1".into(), role })
}

fn node() -> Sender {
    Sender { name: "n1".into(), role: PeerRole::Node }
}

fn refusal() -> Refusal {
    Refusal {
        reason: "Invalid".into(),
        message: "no".into(),
        name: "p".into(),
        group: "batch".into(),
        kind: "jobs".into(),
        causes: vec![("spec".into(), "FieldValueInvalid".into(), "is wrong".into())],
        retry_after: Some(300),
    }
}

pub fn record() -> Record {
    writes(reads(Record::of("objects")))
}

fn reads(record: Record) -> Record {
    let get = |sender| Get { sender, key: key(), consistency: Consistency::Local };
    let request = ListRequest {
        select: selection(),
        after: Some(("ns".into(), "o".into())),
        limit: Some(500),
        at: Some(300),
        consistency: Consistency::Linearizable,
    };
    let page = Page { entries: vec![entry()], revision: 300, remaining: 7 };
    let request_to_follow = WatchRequest { select: selection(), after: 300, bookmarks: true };
    let events = every([
        WatchEvent::Put { entry: entry(), previous: Some(entry()) },
        WatchEvent::Delete { previous: entry(), revision: 301 },
    ]);
    let ends = every([
        WatchError::Gone { oldest: 300 },
        WatchError::Closed,
        WatchError::Refused { reason: "not yours".into() },
    ]);
    record
        .ask(
            senders().map(get),
            [Ok((Some(entry()), 300)), Ok((None, 300))].into_iter().chain(read_errors().map(Err)),
        )
        .ask(
            [List { sender: node(), request }],
            [Ok(page)].into_iter().chain(read_errors().map(Err)),
        )
        .stream(
            [Follow { sender: node(), request: request_to_follow }],
            [Ok(WatchBatch { revision: 301, events: events.into() })]
                .into_iter()
                .chain(ends.map(Err)),
        )
        .ask(
            [CountRefusals],
            [vec![Refused { role: "node".into(), rule: "OwnPods".into(), count: 300 }]],
        )
}

fn fence() -> Fence {
    Fence { shard: Shard(7), epoch: Epoch(300) }
}

fn writes(record: Record) -> Record {
    let settle = |value| Settle { sender: node(), key: key(), at: 300, value };
    let change = |part, form| Change {
        sender: node(),
        resource: "batch/jobs".into(),
        namespace: "ns".into(),
        name: "j".into(),
        part,
        form,
        body: "{}".into(),
        dry_run: false,
    };
    let parts = every([Part::Main, Part::Status, Part::Scale, Part::Finalize]);
    let forms = every([Form::Whole, Form::Json, Form::Merge, Form::Strategic]);
    let changes: Vec<_> = parts
        .map(|part| change(part, Form::Whole))
        .into_iter()
        .chain(forms.map(|form| change(Part::Main, form)))
        .collect();
    record
        .ask(
            [settle(Some("{}".into())), settle(None)],
            [Ok(Committed { revision: 301 })].into_iter().chain(transact_errors().map(Err)),
        )
        .ask(
            [Create {
                sender: node(),
                resource: "events".into(),
                namespace: "ns".into(),
                object: "{}".into(),
                dry_run: true,
            }],
            [Ok("{}".into()), Err(refusal())],
        )
        .ask(changes, [Ok("{}".into()), Err(refusal())])
        .ask(
            [FencedChange { change: change(Part::Scale, Form::Json), fence: fence() }],
            [Ok("{}".into()), Err(refusal())],
        )
        .ask(
            [Delete {
                sender: node(),
                resource: "pods".into(),
                namespace: "ns".into(),
                name: "p".into(),
                grace_period_seconds: Some(-1),
                propagation: "Orphan".into(),
                uid: Some("u".into()),
                resource_version: Some("300".into()),
                dry_run: false,
            }],
            [Ok(Gone { object: "{}".into(), lingers: true }), Err(refusal())],
        )
        .ask(
            [Bind {
                sender: node(),
                namespace: "ns".into(),
                pod: "p".into(),
                node: "n2".into(),
                uid: None,
                resource_version: Some("300".into()),
                dry_run: false,
            }],
            [Ok("{}".into()), Err(refusal())],
        )
}

fn text() -> impl Strategy<Value = String> {
    // Any letters, of any script, and none.
    proptest::string::string_regex(".{0,40}").unwrap()
}

fn any_sender() -> impl Strategy<Value = Sender> {
    let role = prop_oneof![
        Just(PeerRole::Control),
        Just(PeerRole::Node),
        text().prop_map(|scope| PeerRole::Guest { scope }),
        Just(PeerRole::Client),
        Just(PeerRole::Admin),
    ];
    (text(), role).prop_map(|(name, role)| Sender { name, role })
}

fn body() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from)
}

/// It arrives as it was sent, says who sent it, and not at all when it is cut short or goes on.
fn arrives<T: Serialize + DeserializeOwned + PartialEq + Debug + Any>(
    value: &T,
    from: &Sender,
) -> Result<(), TestCaseError> {
    let mut bytes = encode(value).unwrap();
    let arrived = decode::<T>(&bytes).unwrap();
    prop_assert_eq!(&arrived, value);
    prop_assert_eq!(sender(&arrived), Some(from));
    for end in 0..bytes.len() {
        prop_assert!(decode::<T>(&bytes[..end]).is_err(), "cut after {} bytes", end);
    }
    bytes.push(0);
    prop_assert!(decode::<T>(&bytes).is_err(), "with more behind it");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_asked_of_objects_survives_its_journey(
        from in any_sender(),
        [resource, namespace, name, other] in [text(), text(), text(), text()],
        value in proptest::option::of(body()),
        (at, dry_run) in (any::<u64>(), any::<bool>()),
        grace_period_seconds in any::<Option<i64>>(),
    ) {
        let key = Key::new(&resource, &namespace, &name);
        let consistency = Consistency::Linearizable;
        arrives(&Get { sender: from.clone(), key: key.clone(), consistency }, &from)?;
        arrives(&Settle { sender: from.clone(), key, at, value: value.clone() }, &from)?;
        let object = value.unwrap_or_default();
        arrives(&Create {
            sender: from.clone(),
            resource: resource.clone(),
            namespace: namespace.clone(),
            object: object.clone(),
            dry_run,
        }, &from)?;
        let change = Change {
            sender: from.clone(),
            resource: resource.clone(),
            namespace: namespace.clone(),
            name: name.clone(),
            part: Part::Status,
            form: Form::Json,
            body: object,
            dry_run,
        };
        arrives(&change, &from)?;
        arrives(&FencedChange { change, fence: fence() }, &from)?;
        arrives(&Delete {
            sender: from.clone(),
            resource,
            namespace: namespace.clone(),
            name: name.clone(),
            grace_period_seconds,
            propagation: other.clone(),
            uid: Some(other.clone()),
            resource_version: None,
            dry_run,
        }, &from)?;
        arrives(&Bind {
            sender: from.clone(),
            namespace,
            pod: name,
            node: other.clone(),
            uid: None,
            resource_version: Some(other),
            dry_run,
        }, &from)?;
    }

    #[test]
    fn bytes_of_anybody_s_making_are_refused_or_read_and_never_more(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        // What is read from so few bytes is small: a length that they claim takes no memory by itself.
        if let Ok(read) = decode::<Create>(&bytes) {
            prop_assert!(read.object.len() + read.resource.len() <= bytes.len());
        }
        if let Ok(read) = decode::<List>(&bytes) {
            prop_assert!(read.request.select.resource.len() <= bytes.len());
        }
        if let Ok(read) = decode::<Page>(&bytes) {
            prop_assert!(read.entries.len() <= bytes.len());
        }
        let _ = (decode::<Get>(&bytes), decode::<Change>(&bytes), decode::<Delete>(&bytes));
        let _ = (decode::<Bind>(&bytes), decode::<Settle>(&bytes), decode::<Follow>(&bytes));
        let _ = decode::<WatchBatch>(&bytes);
    }
}

#[test]
fn a_length_beyond_the_bytes_that_follow_takes_no_memory() {
    // A body of 2^60 bytes is announced, and none comes: behind the sender, the resource and the namespace.
    let create = Create {
        sender: node(),
        resource: String::new(),
        namespace: String::new(),
        object: Bytes::new(),
        dry_run: false,
    };
    let mut bytes = encode(&create).unwrap();
    assert_eq!(&bytes[bytes.len() - 2..], [0, 0], "the body's length, and the flag");
    bytes.truncate(bytes.len() - 2);
    bytes.push(253); // a length of eight bytes follows
    bytes.extend((1_u64 << 60).to_le_bytes());
    assert!(decode::<Create>(&bytes).is_err());
    bytes.truncate(bytes.len() - 9);
    bytes.push(252); // of four bytes
    bytes.extend((60_u32 << 20).to_le_bytes());
    assert!(decode::<Create>(&bytes).is_err());
}
