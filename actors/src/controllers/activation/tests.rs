//! Nothing that changes is missed between two hints.

use super::*;
use impresario_registry::{MemoryRegistry, Registry as _};
use impresario_registry_api::Transaction;
use serde_json::json;

/// No passing test spends it.
const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn what_changes_while_a_hint_waits_for_its_reader_is_hinted_at_afterwards() {
    let registry = MemoryRegistry::default();
    let create = async |name: &str| {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": []},
            "metadata": {"name": name, "namespace": "ns", "uid": name}});
        let create = Transaction::create(Key::new("pods", "ns", name), pod.to_string());
        registry.transact(create).await.unwrap().revision
    };
    let first = create("before").await;
    let mirror: Mirror<Pod> = Mirror::start(Arc::new(registry.clone()), "pods");
    mirror.reached(first, LIMIT).await.unwrap();

    let (hints, mut inbox) = mpsc::channel(1);
    let mut forwarding = forward(mirror.clone(), hints, |change| match change {
        Change::Put { now, .. } => Hint::Object(0, Subject::of(&now), true),
        Change::Deleted { .. } | Change::Everything => Hint::Everything,
    })
    .boxed();
    assert!(futures_util::poll!(&mut forwarding).is_pending(), "it waits for what comes");
    let names = ["a", "b", "c", "d"];
    let mut last = first;
    for name in names {
        last = create(name).await;
    }
    mirror.reached(last, LIMIT).await.unwrap();
    assert!(futures_util::poll!(&mut forwarding).is_pending(), "there is room for one hint");
    let mut told = Vec::new();
    let reading = async {
        while told.len() < names.len() {
            match inbox.recv().await {
                Some(Hint::Object(_, subject, true)) => told.push(subject.name),
                Some(_) => panic!("another hint"),
                None => break,
            }
        }
    };
    tokio::select! {
        () = forwarding => panic!("it ends with the mirror"),
        in_time = tokio::time::timeout(LIMIT, reading) => in_time.expect("all are told of"),
    }
    assert_eq!(told, names);
}

#[tokio::test]
async fn who_misses_changes_of_one_mirror_is_hinted_at_that_one_and_not_at_everything() {
    let registry = MemoryRegistry::default();
    let mirror: Mirror<Pod> = Mirror::start(Arc::new(registry.clone()), "pods");
    mirror.reached(1, LIMIT).await.unwrap();
    let (hints, mut inbox) = mpsc::channel(1);
    let subjects = Subjects::of(&mirror);
    let mut forwarding = (subjects.forward)(7, hints);
    assert!(futures_util::poll!(&mut forwarding).is_pending(), "it waits for what comes");
    // Nobody reads the hints meanwhile.
    let mut last = 0;
    for number in 0..2_000 {
        let pod = json!({"metadata": {"name": format!("p{number}"), "namespace": "ns", "uid": number.to_string()}});
        let key = Key::new("pods", "ns", format!("p{number}"));
        last = registry.transact(Transaction::create(key, pod.to_string())).await.unwrap().revision;
    }
    mirror.reached(last, LIMIT).await.unwrap();
    let reading = async {
        loop {
            match inbox.recv().await.expect("it ends with the mirror") {
                Hint::Object(7, ..) => {}
                Hint::Kind(7) => return,
                _ => panic!("another hint"),
            }
        }
    };
    tokio::select! {
        () = forwarding => panic!("it ends with the mirror"),
        in_time = tokio::time::timeout(LIMIT, reading) => in_time.expect("it hints at the kind"),
    }
}
