//! The auction as jobs see it: a job's actor that bids what the test says and keeps the orders that it hears.

use super::*;
use crate::auction::AuctionPolicy;
use crate::scheduler::hall::{Hall, IN_USE};
use crate::scheduler::parties::Pending;
use crate::scheduler::picture;
use actix::prelude::*;
use impresario_client::protocol::node::{PodReservation, Reserve};
use impresario_client::protocol::training::{
    Bid, RequestBid, RequestUnsureBid, Scale, ScaleError, Size, SpeedModel, UnsureBid, job_actor,
};
use impresario_registry_api::{Entry, Key, ListRequest, Selection, Transaction};
use impresario_runtime::{NodeName, ServedBy, clock, role};
use k8s_openapi::api::core::v1;
use parking_lot::Mutex;
use std::collections::BTreeMap;

role! {
    /// What the auction asks of a job.
    BidderRole = "trainingjob" { asks: [RequestBid, Scale], streams: [] }
}

role! {
    /// What the auction of the version before asks of a job.
    OlderBidderRole = "trainingjob" { asks: [RequestUnsureBid, Scale], streams: [] }
}

type Shared<T> = Arc<Mutex<T>>;

/// A job's actor.
struct Bidder {
    bid: Shared<Bid>,
    heard: Shared<Vec<Scale>>,
    /// The round that it has heard of before.
    latest: u64,
}

impl Actor for Bidder {
    type Context = Context<Self>;
}

impl Handler<RequestBid> for Bidder {
    type Result = Option<Bid>;

    fn handle(&mut self, _: RequestBid, _: &mut Self::Context) -> Self::Result {
        Some(self.bid.lock().clone())
    }
}

impl Handler<RequestUnsureBid> for Bidder {
    type Result = Option<UnsureBid>;

    fn handle(&mut self, _: RequestUnsureBid, _: &mut Self::Context) -> Self::Result {
        Some(self.bid.lock().clone().into())
    }
}

impl Handler<Scale> for Bidder {
    type Result = Result<(), ScaleError>;

    fn handle(&mut self, scale: Scale, _: &mut Self::Context) -> Self::Result {
        if scale.round < self.latest {
            return Err(ScaleError::Stale { current: self.latest });
        }
        self.heard.lock().push(scale);
        Ok(())
    }
}

/// A job that runs with one of each, has little left and pays much for a change.
fn costly(job: &str) -> Bid {
    let pod = |cpu_milli| Resources { cpu_milli, pods: 1, ..Resources::default() };
    let one = Size { parameter_servers: 1, trainers: 1 };
    Bid {
        job: job.to_owned(),
        lease: 1,
        namespace: "ns".to_owned(),
        name: job.to_owned(),
        created_unix_seconds: 0,
        remaining_steps: 5.0,
        remaining_uncertainty: 0.0,
        done_steps: 500,
        speed: SpeedModel::Asynchronous { a: [0.1, 0.02, 0.001, 0.001] },
        speed_uncertainty: 0.0,
        measured_trainers: 6,
        current: one,
        wanted: one,
        min: one,
        max: Size { parameter_servers: 1, trainers: 3 },
        parameter_server: pod(100),
        trainer: pod(100),
        rescale_seconds: 60.0,
        rescale_uncertainty: 0.0,
        incomplete_seconds: 0,
    }
}

/// A member of a job.
fn member(job: &str, uid: &str, role: &str) -> Value {
    let owner = json!({"apiVersion": "training.impresario.dev/v1", "kind": "TrainingJob",
        "name": job, "uid": job, "controller": true});
    json!({"apiVersion": "v1", "kind": "Pod", "spec": asks("100m"),
        "metadata": {"namespace": "ns", "name": uid, "uid": uid, "ownerReferences": [owner],
            "labels": {"training.impresario.dev/role": role}}})
}

/// A job in the registry, its members on a node that is not there, and its actor.
async fn job(machine: &Machine, bid: Bid) -> (Shared<Bid>, Shared<Vec<Scale>>) {
    job_as::<BidderRole>(machine, bid, 0).await
}

/// A job whose actor knows the messages of a role, and has heard of a round already.
async fn job_as<R: ServedBy<Bidder>>(
    machine: &Machine,
    bid: Bid,
    latest: u64,
) -> (Shared<Bid>, Shared<Vec<Scale>>) {
    let uid = bid.job.clone();
    let has = bid.current;
    for (role, many) in [("parameterServer", has.parameter_servers), ("trainer", has.trainers)] {
        for number in 0..many {
            let name = format!("{uid}-{}-{number}", role.to_lowercase());
            let mut pod = member(&uid, &name, role);
            pod["spec"]["nodeName"] = json!("elsewhere");
            let create = Transaction::create(Key::new("pods", "ns", &name), pod.to_string());
            machine.registry.transact(create).await.unwrap();
        }
    }
    let object = json!({"apiVersion": "training.impresario.dev/v1", "kind": "TrainingJob",
        "metadata": {"namespace": "ns", "name": uid, "uid": uid}, "spec": {}});
    let key = Key::new(crate::scheduler::hall::JOBS, "ns", &uid);
    let (bid, heard) = (Arc::new(Mutex::new(bid)), Shared::<Vec<Scale>>::default());
    let (bids, hears) = (bid.clone(), heard.clone());
    machine
        .node
        .spawn::<R, _>(job_actor(&uid), SpawnOptions::default(), move |_| Bidder {
            bid: bids.clone(),
            heard: hears.clone(),
            latest,
        })
        .unwrap();
    machine.registry.transact(Transaction::create(key, object.to_string())).await.unwrap();
    (bid, heard)
}

fn hold(machine: &Machine) -> ActorRef<SchedulerRole> {
    let name = machine.node.name().clone();
    schedule_among(machine, SchedulerSettings::default(), Arc::new(move || vec![name.clone()]))
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    eventually(what, async || if holds() { Ok(()) } else { Err(()) }).await;
}

/// What an operator says of the policy.
fn chosen(policy: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"policy": policy},
        "metadata": {"namespace": "kube-system", "name": "training-scheduler", "uid": "u"}})
}

#[actix::test]
async fn a_scheduler_that_begins_goes_on_by_the_last_policy_that_there_was() {
    let key = Key::new("configmaps", "kube-system", "training-scheduler");
    let mut map = {
        let machine = Machine::start(1000).await;
        let create = Transaction::create(key.clone(), chosen("drf").to_string());
        machine.registry.transact(create).await.unwrap();
        let _scheduler = hold(&machine);
        machine.until(&key, "noted", |map| map["metadata"]["annotations"][IN_USE] == "drf").await
    };
    // A name that none has changed nothing, nor does it when another scheduler takes over.
    map["data"]["policy"] = json!("drift");
    let machine = Machine::start(1000).await;
    machine.registry.transact(Transaction::create(key, map.to_string())).await.unwrap();
    let (_, heard) = job(&machine, costly("a")).await;
    let _scheduler = hold(&machine);
    until("drf gives the job all that it wants", || {
        heard.lock().last().is_some_and(|scale| scale.size.trainers == 3)
    })
    .await;
}

#[actix::test]
async fn a_job_of_a_member_of_the_version_before_bids_as_it_did_then() {
    let machine = Machine::start(1000).await;
    let growing = Bid { remaining_steps: 1e6, rescale_seconds: 1.0, ..costly("a") };
    let (_, heard) = job_as::<OlderBidderRole>(&machine, growing, 0).await;
    let _scheduler = hold(&machine);
    until("it is given what pays for itself", || {
        heard.lock().last().is_some_and(|scale| scale.size.trainers > 1)
    })
    .await;
}

#[actix::test]
async fn an_operator_sets_the_policy_and_a_name_that_none_has_changes_nothing() {
    let machine = Machine::start(1000).await;
    let (_, heard) = job(&machine, costly("a")).await;
    // An event is written where its namespace is.
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-system"},
        "status": {"phase": "Active"}});
    let namespace =
        Transaction::create(Key::new("namespaces", "", "kube-system"), namespace.to_string());
    machine.registry.transact(namespace).await.unwrap();
    let key = Key::new("configmaps", "kube-system", "training-scheduler");
    // Nothing that pays for itself: by optimus the job would never hear of a size.
    let create = Transaction::create(key.clone(), chosen("drf").to_string());
    machine.registry.transact(create).await.unwrap();
    let _scheduler = hold(&machine);
    until("drf gives the job all that it wants", || {
        heard.lock().last().is_some_and(|scale| scale.size.trainers == 3)
    })
    .await;
    change::change(&machine.registry, &key, None, None, |map| {
        map["data"]["policy"] = json!("drift");
    })
    .await
    .unwrap();
    let message = eventually("told that there is none", async || {
        let events = ListRequest::of(Selection::all("events"));
        let events = machine.registry.list(events).await.unwrap().entries;
        let events: Vec<Value> =
            events.iter().map(|event| serde_json::from_slice(&event.value).unwrap()).collect();
        let told = events.iter().find(|event| event["reason"] == "NoSuchPolicy");
        told.map(|event| event["message"].as_str().unwrap().to_owned()).ok_or(events)
    })
    .await;
    assert!(message.contains("\"drift\"") && message.contains("drf goes on"), "{message}");
}

/// A job that has not begun and would have all trainers that there are.
fn greedy(job: &str, trainers: u32) -> Bid {
    let max = Size { parameter_servers: 1, trainers };
    Bid {
        done_steps: 0,
        remaining_steps: 50_000.0,
        current: Size::default(),
        wanted: Size::default(),
        max,
        ..costly(job)
    }
}

#[actix::test]
async fn a_node_that_has_less_than_was_thought_is_asked_before_a_job_is_told() {
    let machine = Machine::start(1000).await;
    let key = Key::new("nodes", "", "n1");
    machine.until(&key, "registered", |node| !node.is_null()).await;
    let scheduler = hold(&machine);
    let believes = async |milli: u64| {
        eventually("the picture is as told", async || {
            let status = scheduler.ask(Status, LIMIT).await.unwrap();
            let is_so = status.nodes.get("n1").is_some_and(|free| free.cpu_milli == milli);
            if is_so { Ok(()) } else { Err(status) }
        })
        .await;
    };
    believes(1000).await;
    // Somebody else has all but 450m, and the node's word of it was lost: overtaken by a later one.
    let ask = Reserve {
        pods: vec![PodReservation {
            uid: "other".to_owned(),
            resources: Resources { cpu_milli: 550, pods: 1, ..Resources::default() },
        }],
        ttl: LIMIT,
    };
    machine.actor.ask(ask, LIMIT).await.unwrap();
    believes(450).await;
    let now = machine.actor.ask(Describe, LIMIT).await.unwrap();
    let wrong = NodeSummary { free: now.allocatable.clone(), serial: now.serial + 1_000, ..now };
    scheduler.tell(SummaryChanged { summary: wrong }).unwrap();
    believes(1000).await;
    // It would have nine trainers, and is told of those that there is room for.
    let (_, heard) = job(&machine, greedy("a", 9)).await;
    until("the job hears of a size", || !heard.lock().is_empty()).await;
    let first = heard.lock()[0].size;
    assert_eq!((first.parameter_servers, first.trainers), (1, 3), "four of 100m fit into 450m");
    believes(450).await;
    let reserved = machine.actor.ask(Describe, LIMIT).await.unwrap().reserved;
    assert!(reserved >= 1, "what others have reserved is theirs");
}

#[actix::test]
async fn a_scheduler_that_begins_learns_of_jobs_how_far_the_rounds_are() {
    let machine = Machine::start(1000).await;
    let (_, heard) = job_as::<BidderRole>(&machine, greedy("a", 3), 1_000_000).await;
    let _scheduler = hold(&machine);
    until("the job hears of a size", || !heard.lock().is_empty()).await;
    assert!(heard.lock()[0].round >= 1_000_000);
}

#[actix::test]
async fn a_round_goes_on_without_a_node_that_does_not_answer() {
    let machine = Machine::start(1000).await;
    let key = Key::new("nodes", "", "n1");
    machine.until(&key, "registered", |node| !node.is_null()).await;
    without_an_actor(&machine, "n2").await;
    let (_, heard) = job(&machine, greedy("a", 30)).await;
    let _scheduler = hold(&machine);
    until("the job hears of a size", || !heard.lock().is_empty()).await;
    let first = heard.lock()[0].size;
    assert_eq!((first.parameter_servers, first.trainers), (1, 9), "what the other has is its own");
}

#[test]
fn members_that_are_being_placed_are_what_a_job_has() {
    let mut picture = picture::tests::picture([picture::tests::node("n1", 400)]);
    let mut hall = Hall::default();
    let object = json!({"metadata": {"name": "a", "namespace": "ns", "uid": "a"}});
    let entry = Entry {
        key: Key::new(crate::scheduler::hall::JOBS, "ns", "a"),
        value: object.to_string().into_bytes().into(),
        create_revision: 1,
        mod_revision: 1,
    };
    hall.seen(crate::follow::Followed::All(vec![entry]), clock::timestamp());
    // Whoever makes a pod elsewhere may say of it what he likes.
    let mut elsewhere = member("a", "t9", "trainer");
    elsewhere["metadata"]["namespace"] = "another".into();
    let elsewhere: v1::Pod = serde_json::from_value(elsewhere).unwrap();
    hall.pod_seen(&elsewhere);
    picture.pod_bound(Pending::bound(&elsewhere).unwrap(), "n2", false, None);
    for (uid, role) in
        [("s", "parameterServer"), ("t1", "trainer"), ("t2", "trainer"), ("t3", "trainer")]
    {
        let pod: v1::Pod = serde_json::from_value(member("a", uid, role)).unwrap();
        hall.pod_seen(&pod);
        match uid {
            "s" | "t1" => drop(picture.pod_bound(Pending::bound(&pod).unwrap(), "n1", false, None)),
            _ => picture.assume(&Pending::of(&pod).unwrap(), "n1"),
        }
    }
    let (current, bid) = (hall.held(&picture)["a"], costly("a"));
    assert_eq!(current, bid.max);
    let free: Vec<_> = picture.nodes().map(|node| node.free.clone()).collect();
    assert_eq!(free[0].cpu_milli, 0);
    // It was told three trainers, and two of them have no node yet by what it says itself.
    let bid = Bid { wanted: bid.max, remaining_steps: 50_000.0, rescale_seconds: 0.5, ..bid };
    let hears = |bid: &Bid| {
        let policy = AuctionPolicy::default().policy();
        crate::auction::round(policy.as_ref(), 1, std::slice::from_ref(bid), &free)
    };
    assert_eq!(hears(&Bid { current, ..bid.clone() }), []);
    assert_eq!(hears(&bid)[0].scale.size, bid.current, "it would be told to give them up");
    // One comes to nothing, another is over.
    picture.unassume("t3");
    picture.pod_gone("t1");
    assert_eq!(hall.held(&picture)["a"].trainers, 1);
    hall.pod_gone("t2");
    assert_eq!(hall.held(&picture)["a"].trainers, 0);
}

#[test]
fn a_pod_that_ends_is_reason_for_a_round_while_a_job_waits_or_grows_alone() {
    let mut hall = Hall::default();
    let calm = costly("a");
    let waits = Bid { wanted: Size::default(), current: Size::default(), ..calm.clone() };
    let grows = Bid { wanted: calm.max, ..calm.clone() };
    for (bid, is_hungry) in [(calm, false), (waits, true), (grows, true)] {
        hall.have_bid(BTreeMap::new(), &[bid]);
        assert_eq!((hall.wants_round(true), hall.wants_round(false)), (is_hungry, false));
    }
}

#[test]
fn the_member_where_a_job_bid_last_is_asked_first_and_from_time_to_time_all_are() {
    let mut hall = Hall::default();
    let members: Vec<NodeName> = ["n1", "n2"].map(NodeName::from).into();
    assert_eq!(hall.first_asked("a", &members), None, "nobody has bid");
    hall.have_bid(BTreeMap::from([("a".to_owned(), members[1].clone())]), &[costly("a")]);
    let all = (0..8).filter(|round| {
        hall.round = *round;
        hall.first_asked("a", &members).is_none()
    });
    assert_eq!(all.count(), 1, "from time to time all are asked");
    assert_eq!(hall.first_asked("a", &members), Some(&members[1]));
    assert_eq!(hall.first_asked("a", &members[..1]), None, "it is no member any more");
    assert_eq!(hall.first_asked("b", &members), None);
}
