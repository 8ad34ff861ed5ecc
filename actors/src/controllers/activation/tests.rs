//! Nothing that changes is missed between two hints.

use super::*;
use crate::controllers::control::{Look, LookError, Next};
use crate::controllers::engine::mirrors::Mirrors;
use crate::controllers::looking;
use crate::testing::Machine;
use impresario_registry::{MemoryRegistry, Registry as _};
use impresario_registry_api::{Key, Transaction};
use k8s_openapi::api::core::v1::{Pod, ReplicationController, Service};
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
        Change::Deleted { .. } | Change::Everything => Hint::Kind(0),
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

/// Says whom it looks for.
struct Saying(String, mpsc::UnboundedSender<String>);

impl Look for Saying {
    fn look(&self) -> BoxFuture<'_, Result<Next, LookError>> {
        // Who does not listen any more has ended.
        let _ = self.1.send(self.0.clone());
        async { Ok(Next::WhenTold) }.boxed()
    }
}

#[actix::test]
async fn what_was_missed_of_one_kind_makes_no_actor_of_another_look() {
    let machine = Machine::start(1000).await;
    let registry = MemoryRegistry::default();
    registry.assign_shards(&[machine.node.name().to_string()]);
    let mirrors = Mirrors::over(Arc::new(registry.clone()));
    let (services, replication_controllers) =
        (mirrors.of::<Service>(), mirrors.of::<ReplicationController>());
    let mut last = 0;
    for (resource, name) in [("services", "web"), ("replicationcontrollers", "rc")] {
        let object = json!({"metadata": {"name": name, "namespace": "ns", "uid": name}});
        let create = Transaction::create(Key::new(resource, "ns", name), object.to_string());
        last = registry.transact(create).await.unwrap().revision;
        if resource == "services" {
            services.reached(last, LIMIT).await.unwrap();
        }
    }
    replication_controllers.reached(last, LIMIT).await.unwrap();

    let (looked, mut looks) = mpsc::unbounded_channel();
    let kind = |objects, prefix: &'static str| {
        let looked = looked.clone();
        let start = looking(move |a| Arc::new(Saying(a.name.clone(), looked.clone())));
        Kind::Each { objects, prefix: prefix.into(), start, sources: Vec::new() }
    };
    let kinds = vec![
        kind(Subjects::of(&services), "service"),
        kind(Subjects::of(&replication_controllers), "replicationcontroller"),
    ];
    let held = Held::new(machine.node.name().clone(), registry.shards());
    let (dead, _deaths) = mpsc::channel(1);
    let node = machine.node.clone();
    let (running, untold) = (HashMap::new(), BTreeSet::new());
    let mut state = State { node, kinds, held, running, dead, serial: 0, untold };
    let mut next =
        async || tokio::time::timeout(LIMIT, looks.recv()).await.expect("a look in time").unwrap();
    state.sync(None);
    let mut begun = [next().await, next().await];
    begun.sort_unstable();
    assert_eq!(begun, ["rc", "web"]);
    for (number, name) in [(0, "web"), (0, "web"), (1, "rc"), (1, "rc"), (0, "web")] {
        state.follow(Hint::Kind(number));
        assert_eq!(next().await, name);
    }
}

/// Says that it looks, and then holds up its thread until it may go on.
struct Stuck(mpsc::UnboundedSender<()>, std::sync::Mutex<std::sync::mpsc::Receiver<()>>);

impl Look for Stuck {
    fn look(&self) -> BoxFuture<'_, Result<Next, LookError>> {
        // Who does not listen any more has ended.
        let _ = self.0.send(());
        let _ = self.1.lock().unwrap().recv();
        async { Ok(Next::WhenTold) }.boxed()
    }
}

#[actix::test]
async fn an_actor_that_has_no_room_for_a_hint_is_told_again() {
    let machine = Machine::start(1000).await;
    let registry = MemoryRegistry::default();
    registry.assign_shards(&[machine.node.name().to_string()]);
    let (looked, mut looks) = mpsc::unbounded_channel();
    let (may, goes_on) = std::sync::mpsc::channel();
    let look: Arc<dyn Look> = Arc::new(Stuck(looked, std::sync::Mutex::new(goes_on)));
    let kinds = vec![Kind::One {
        name: "stuck",
        start: looking(move |_| look.clone()),
        sources: Vec::new(),
    }];
    let held = Held::new(machine.node.name().clone(), registry.shards());
    let (dead, deaths) = mpsc::channel(1);
    let (node, running, untold) = (machine.node.clone(), HashMap::new(), BTreeSet::new());
    let mut state = State { node, kinds, held, running, dead, serial: 0, untold };
    let mut next =
        async || tokio::time::timeout(LIMIT, looks.recv()).await.expect("a look in time").unwrap();
    state.sync(None);
    next().await;
    let mut told = 0;
    while state.untold.is_empty() {
        assert!(told < 100_000, "its mailbox has no end");
        state.tell("stuck");
        told += 1;
    }
    drop(may);
    // What it had room for is one look.
    next().await;
    let (_hints, inbox) = mpsc::channel(1);
    let (_woken, woken) = mpsc::channel(1);
    tokio::select! {
        () = state.keep(inbox, woken, deaths) => panic!("it ends with its keeper"),
        () = next() => {}
    }
}
