//! The scheduler against a real Node actor over an in-memory machine.

mod auction;
mod preemption;

use super::{Members, Scheduler, SchedulerSettings};
use crate::{
    change,
    testing::{LIMIT, Machine, eventually},
};
use impresario_client::protocol::node::Describe;
use impresario_client::protocol::resources::Resources;
use impresario_client::protocol::scheduler::{
    Examine, Explain, NodeSummary, SchedulerRole, Status, SummaryChanged, actor_name,
};
use impresario_runtime::{ActorRef, SpawnOptions};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

fn schedule(machine: &Machine) -> ActorRef<SchedulerRole> {
    schedule_with(machine, SchedulerSettings::default())
}

fn schedule_with(machine: &Machine, settings: SchedulerSettings) -> ActorRef<SchedulerRole> {
    schedule_among(machine, settings, Arc::new(Vec::new))
}

fn schedule_among(
    machine: &Machine,
    settings: SchedulerSettings,
    members: Members,
) -> ActorRef<SchedulerRole> {
    let (node, registry) = (machine.node.clone(), machine.registry.clone());
    let name = actor_name(&settings.name);
    machine
        .node
        .spawn::<SchedulerRole, _>(name, SpawnOptions::default(), move |_| {
            let (settings, members) = (settings.clone(), members.clone());
            Scheduler::new(settings, node.clone(), registry.clone(), None, members)
        })
        .unwrap()
}

fn asks(cpu: &str) -> Value {
    json!({"restartPolicy": "Never", "containers": [
        {"name": "c", "image": "i", "command": ["serve"], "resources": {"requests": {"cpu": cpu}}}
    ]})
}

fn scheduled(pod: &Value) -> Option<&Value> {
    pod["status"]["conditions"]
        .as_array()?
        .iter()
        .find(|condition| condition["type"] == "PodScheduled")
}

#[actix::test]
async fn pods_are_placed_and_run_and_none_is_over_what_the_node_has() {
    const NO_ROOM: &str = "0/1 nodes are available: 1 Insufficient cpu.";
    let machine = Machine::start(1000).await;
    // Of no node at all the scheduler says something else.
    let node = impresario_registry_api::Key::new("nodes", "", "n1");
    machine.until(&node, "registered", |node| !node.is_null()).await;
    let scheduler = schedule(&machine);
    let mut keys = Vec::new();
    for n in 0..4 {
        keys.push(machine.create(&format!("p{n}"), asks("300m")).await);
    }
    machine.until_driver("three run", |driver| driver.running().len() == 3).await;
    let mut waiting = None;
    for key in &keys {
        let pod = machine
            .until(key, "placed or told why not", |pod| {
                pod["status"]["phase"] == "Running"
                    || scheduled(pod)
                        .is_some_and(|c| c["status"] == "False" && c["message"] == NO_ROOM)
            })
            .await;
        if pod["spec"]["nodeName"].is_null() {
            let condition = scheduled(&pod).unwrap();
            assert_eq!(condition["reason"], "Unschedulable");
            assert!(waiting.replace(key.clone()).is_none(), "two wait");
        }
    }
    let waiting = waiting.expect("one waits");
    // It is tried again from time to time, and hears of the pods that run by a watch.
    eventually("three are bound, one waits and is told why", async || {
        let explain = Explain { namespace: "ns".into(), pod: waiting.name.clone() };
        let told = scheduler.ask(explain, LIMIT).await.unwrap().unwrap();
        let status = scheduler.ask(Status, LIMIT).await.unwrap();
        let is_told = told.message == NO_ROOM && (status.bound, status.pending) == (3, 1);
        if is_told { Ok(()) } else { Err((told, status)) }
    })
    .await;

    // Room becomes free: the one that waited is placed by itself.
    let first = machine.driver.running()[0].clone();
    machine.driver.end(&first, 0);
    machine.until(&waiting, "placed at last", |pod| pod["status"]["phase"] == "Running").await;
}

#[actix::test]
async fn a_cordoned_node_takes_no_pod_until_it_is_uncordoned() {
    let machine = Machine::start(1000).await;
    let key = impresario_registry_api::Key::new("nodes", "", "n1");
    machine.until(&key, "registered", |node| !node.is_null()).await;
    let cordon = async |is_cordoned: bool| {
        change::change(&machine.registry, &key, None, None, |node| {
            node["spec"]["unschedulable"] = is_cordoned.into();
        })
        .await
        .unwrap();
    };
    cordon(true).await;
    let _scheduler = schedule(&machine);
    let pod = machine.create("p", asks("100m")).await;
    let told = machine.until(&pod, "told why not", |pod| scheduled(pod).is_some()).await;
    assert_eq!(
        scheduled(&told).unwrap()["message"],
        "0/1 nodes are available: 1 node(s) were unschedulable."
    );
    cordon(false).await;
    machine.until(&pod, "running", |pod| pod["status"]["phase"] == "Running").await;
}

#[actix::test]
async fn a_pod_does_not_wait_long_for_room_of_which_the_scheduler_was_not_told() {
    let machine = Machine::start(1000).await;
    let never = Duration::from_hours(1);
    let settings = SchedulerSettings { follow_again: never, ..SchedulerSettings::default() };
    let scheduler = schedule_with(&machine, settings);
    let first = machine.create("first", asks("100m")).await;
    machine.until(&first, "running", |pod| pod["status"]["phase"] == "Running").await;
    // The node's last word that arrived says that it has nothing, and what it said after it was lost.
    let now = machine.actor.ask(Describe, LIMIT).await.unwrap();
    let nothing = NodeSummary { free: Resources::default(), serial: now.serial + 2, ..now };
    scheduler.tell(SummaryChanged { summary: nothing }).unwrap();
    let second = machine.create("second", asks("100m")).await;
    machine
        .until(&second, "told why not", |pod| {
            scheduled(pod).is_some_and(|condition| condition["status"] == "False")
        })
        .await;
    // Long before all nodes are asked again.
    machine.until(&second, "running", |pod| pod["status"]["phase"] == "Running").await;
}

/// A node that is Ready and that nobody runs: it is asked in vain.
async fn without_an_actor(machine: &Machine, name: &str) -> Value {
    let labels = json!({"kubernetes.io/hostname": name});
    let node = json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "uid": name, "labels": labels},
        "status": {"conditions": [{"type": "Ready", "status": "True"}],
            "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}}});
    let key = impresario_registry_api::Key::new("nodes", "", name);
    let create = impresario_registry_api::Transaction::create(key, node.to_string());
    machine.registry.transact(create).await.unwrap();
    labels
}

#[actix::test]
async fn a_node_that_does_not_answer_gets_no_pods_though_it_has_most_room() {
    let machine = Machine::start(1000).await;
    without_an_actor(&machine, "n2").await;
    let _scheduler = schedule(&machine);
    let pod = machine.create("p", asks("100m")).await;
    let pod = machine.until(&pod, "running", |pod| pod["status"]["phase"] == "Running").await;
    assert_eq!(pod["spec"]["nodeName"], "n1");
}

#[actix::test]
async fn a_pod_that_fits_only_on_a_node_that_does_not_answer_is_told_so() {
    let machine = Machine::start(1000).await;
    let hostname = without_an_actor(&machine, "n2").await;
    let silence_told = Duration::ZERO;
    let settings = SchedulerSettings { silence_told, ..SchedulerSettings::default() };
    let _scheduler = schedule_with(&machine, settings);
    let mut spec = asks("100m");
    spec["nodeSelector"] = hostname;
    let pod = machine.create("p", spec).await;
    let told = |pod: &Value| {
        let message = scheduled(pod).and_then(|condition| condition["message"].as_str());
        message.is_some_and(|message| message.contains("1 node(s) did not answer"))
    };
    machine.until(&pod, "told why not", told).await;
}
