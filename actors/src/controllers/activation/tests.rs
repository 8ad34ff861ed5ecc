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
