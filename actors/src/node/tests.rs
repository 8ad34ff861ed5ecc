//! The node, its pods and an in-memory machine, together.

use crate::{
    change,
    testing::{LIMIT, Machine, MemoryDriver, eventually},
};
use futures_util::StreamExt;
use impresario_client::protocol::{
    node::{Describe, Grant, PodReservation, Reserve},
    pod::{self, Logs, PodRole, Stop},
    resources::Resources,
};
use impresario_registry::{Key, MemoryRegistry};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

fn phase(pod: &Value) -> &str {
    pod["status"]["phase"].as_str().unwrap_or_default()
}

fn runs(commands: &[&str], policy: &str) -> Value {
    let containers = commands.iter().enumerate().map(|(n, command)| {
        let words: Vec<_> = command.split(' ').collect();
        json!({"name": format!("c{n}"), "image": "i", "command": words,
            "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]})
    });
    let containers: Vec<_> = containers.collect();
    json!({"nodeName": "n1", "restartPolicy": policy, "containers": containers})
}

async fn delete(machine: &Machine, key: &Key) {
    change::change(&machine.registry, key, None, None, |pod| {
        pod["metadata"]["deletionTimestamp"] = "2024-01-01T00:00:30Z".into();
        pod["metadata"]["deletionGracePeriodSeconds"] = 30.into();
    })
    .await
    .unwrap();
}

#[actix::test]
async fn a_bound_pod_runs_and_its_object_goes_only_after_its_last_trace() {
    let machine = Machine::start(4000).await;
    let key = machine.create("web", runs(&["serve", "side"], "Always")).await;
    let pod = machine.until(&key, "running", |pod| phase(pod) == "Running").await;
    assert_eq!(pod["status"]["podIP"].as_str().unwrap(), machine.driver.env("web/c0/0")["IP"]);
    let ready = machine
        .until(&key, "ready", |pod| {
            pod["status"]["conditions"].as_array().is_some_and(|all| {
                all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
            })
        })
        .await;
    assert_eq!(ready["status"]["containerStatuses"][1]["containerID"], "memory://web/c1/0");

    delete(&machine, &key).await;
    machine.until(&key, "gone", Value::is_null).await;
    assert_eq!(machine.driver.known(), 0);
}

#[actix::test]
async fn a_job_s_pod_ends_as_its_exit_codes_say() {
    let machine = Machine::start(4000).await;
    for (name, commands, policy, expected) in [
        ("good", &["exit 0", "exit 0"], "Never", "Succeeded"),
        ("bad", &["exit 0", "exit 3"], "Never", "Failed"),
        ("odd", &["missing", "exit 0"], "Never", "Failed"),
    ] {
        let key = machine.create(name, runs(commands, policy)).await;
        let pod =
            machine.until(&key, name, |pod| matches!(phase(pod), "Succeeded" | "Failed")).await;
        assert_eq!(phase(&pod), expected, "{name}");
    }
}

#[actix::test]
async fn a_container_that_crashes_is_started_again_and_counted() {
    let machine = Machine::start(4000).await;
    let key = machine.create("crash", runs(&["exit 7"], "Always")).await;
    let restarts =
        |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].as_i64().unwrap_or(0);
    let pod = machine
        .until(&key, "three restarts, waiting", |pod| {
            restarts(pod) >= 3
                && pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"]
                    == "CrashLoopBackOff"
        })
        .await;
    let container = &pod["status"]["containerStatuses"][0];
    assert_eq!(container["state"]["waiting"]["reason"], "CrashLoopBackOff");
    assert_eq!(container["lastState"]["terminated"]["exitCode"], 7);
    // No more than the current life and the one before it are kept.
    machine.until_driver("earlier lives removed", |driver| driver.known() <= 3).await;
}

#[actix::test]
async fn a_new_process_takes_running_pods_over_and_ends_the_others() {
    let machine = Machine::start(4000).await;
    let stays = machine.create("stays", runs(&["serve"], "Always")).await;
    let goes = machine.create("goes", runs(&["serve"], "Always")).await;
    for key in [&stays, &goes] {
        machine.until(key, "running", |pod| phase(pod) == "Running").await;
    }
    let (registry, driver) = (machine.registry.clone(), machine.driver.clone());
    machine.node.stop(LIMIT).await;
    assert_eq!(driver.running().len(), 2, "containers outlive their node's process");
    change::remove(&registry, &goes, "goes", |_| true).await.unwrap();

    let again = Machine::over(registry, driver, 4000).await;
    again.until_driver("the orphan ended", |driver| driver.running() == ["stays/c0/0"]).await;
    let pod = again.until(&stays, "still running", |pod| phase(pod) == "Running").await;
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
    again.driver.end("stays/c0/0", 1);
    again.until_driver("restarted", |driver| driver.running() == ["stays/c0/1"]).await;
}

#[actix::test]
async fn a_pod_that_was_bound_past_the_node_and_does_not_fit_fails_and_says_why() {
    let machine = Machine::start(1000).await;
    let asks = |cpu: &str| {
        let mut spec = runs(&["serve"], "Always");
        spec["containers"][0]["resources"] = json!({"requests": {"cpu": cpu}});
        spec
    };
    let fits = machine.create("fits", asks("800m")).await;
    machine.until(&fits, "running", |pod| phase(pod) == "Running").await;
    let more = machine.create("more", asks("300m")).await;
    let pod = machine.until(&more, "refused", |pod| phase(pod) == "Failed").await;
    assert_eq!(pod["status"]["reason"], "OutOfcpu");
    assert_eq!(
        pod["status"]["message"],
        "Node didn't have enough resource: cpu, requested: 300, used: 800, capacity: 1000"
    );
}

#[actix::test]
async fn room_is_kept_for_a_reservation_and_returns_when_nobody_comes() {
    let machine = Machine::start(1000).await;
    let ask = |uid: &str, ttl: Duration| Reserve {
        pods: vec![PodReservation {
            uid: uid.to_owned(),
            resources: Resources { cpu_milli: 700, pods: 1, ..Resources::default() },
        }],
        ttl,
    };
    let reserve = async |message: Reserve| {
        eventually("an answer of a node that knows what runs on it", async || {
            let grants = machine.actor.ask(message.clone(), LIMIT).await.unwrap();
            match &grants[0] {
                Grant::Refused { reason, .. } if reason.contains("does not know yet") => {
                    Err(grants)
                }
                _ => Ok(grants),
            }
        })
        .await
    };
    assert!(matches!(reserve(ask("a", Duration::from_secs(3))).await[0], Grant::Reserved { .. }));
    assert!(matches!(reserve(ask("b", LIMIT)).await[0], Grant::Refused { .. }));
    eventually("the room is free again", async || {
        let free = machine.actor.ask(Describe, LIMIT).await.unwrap().free;
        if free.cpu_milli == 1000 { Ok(()) } else { Err(free) }
    })
    .await;
}

#[actix::test]
async fn logs_are_streamed_and_an_ambiguous_question_is_refused() {
    let machine = Machine::start(1000).await;
    let key = machine.create("two", runs(&["serve", "side"], "Always")).await;
    machine.until(&key, "running", |pod| phase(pod) == "Running").await;
    let actor = machine.node.local::<PodRole>(pod::actor_name("two"));
    let refused = actor.open(Logs::default(), LIMIT).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "refused: a container name must be specified for pod two, choose one of: [c0 c1]"
    );
    let logs = Logs {
        container: Some("c1".into()),
        tail_lines: Some(2),
        timestamps: true,
        ..Logs::default()
    };
    let chunks: Vec<_> = actor.open(logs, LIMIT).await.unwrap().collect().await;
    let bytes: Vec<u8> = chunks.into_iter().flat_map(|chunk| chunk.unwrap().bytes).collect();
    assert_eq!(
        String::from_utf8(bytes).unwrap(),
        "1970-01-01T00:00:00.000000000Z line 2\n1970-01-01T00:00:00.000000000Z line 3\n"
    );
}

#[actix::test]
async fn a_long_line_of_one_output_is_not_given_within_one_of_the_other() {
    let machine = Machine::start(1000).await;
    let key = machine.create("p", runs(&["interleave"], "Always")).await;
    machine.until(&key, "running", |pod| phase(pod) == "Running").await;
    let actor = machine.node.local::<PodRole>(pod::actor_name("p"));
    let chunks: Vec<_> = actor.open(Logs::default(), LIMIT).await.unwrap().collect().await;
    let bytes: Vec<u8> = chunks.into_iter().flat_map(|chunk| chunk.unwrap().bytes).collect();
    assert_eq!(String::from_utf8(bytes).unwrap(), "stderr's line\nstdout's line\n");
}

#[actix::test]
async fn an_evicted_pod_fails_and_its_object_stays() {
    let machine = Machine::start(1000).await;
    let key = machine.create("p", runs(&["serve"], "Always")).await;
    machine.until(&key, "running", |pod| phase(pod) == "Running").await;
    let stop = Stop { grace: None, reason: "Evicted".into(), message: "the node drains".into() };
    machine.node.local::<PodRole>(pod::actor_name("p")).ask(stop, LIMIT).await.unwrap();
    let pod = machine.until(&key, "failed", |pod| phase(pod) == "Failed").await;
    assert_eq!(
        (pod["status"]["reason"].as_str(), pod["status"]["message"].as_str()),
        (Some("Evicted"), Some("the node drains"))
    );
    assert!(machine.driver.running().is_empty());
}

#[actix::test]
async fn no_gpu_has_two_pods_and_a_restarted_node_takes_none_away() {
    let on_gpus = |count: &str, command: &str| {
        json!({"nodeName": "n1", "restartPolicy": "Never", "containers": [{"name": "c", "image": "i",
            "command": command.split(' ').collect::<Vec<_>>(),
            "resources": {"limits": {"nvidia.com/gpu": count}}}]})
    };
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let (registry, driver) = (Arc::new(MemoryRegistry::new()), MemoryDriver::default());
    let start = async || {
        Machine::with_gpus(registry.clone(), driver.clone(), 4000, 2, folder.clone()).await
    };
    let machine = start().await;
    let running = |pod: &Value| phase(pod) == "Running";
    let short = machine.create("short", on_gpus("1", "exit 0")).await;
    machine.until(&short, "over", |pod| phase(pod) == "Succeeded").await;
    assert_eq!(driver.gpus("short/c/0"), ["GPU-0"]);
    let a = machine.create("a", on_gpus("1", "serve")).await;
    machine.until(&a, "running", running).await;
    let none = machine.create("none", runs(&["serve"], "Always")).await;
    machine.until(&none, "running", running).await;
    assert_eq!(driver.gpus("a/c/0"), ["GPU-0"], "the one that was given back");
    assert!(driver.gpus("none/c0/0").is_empty());

    machine.node.stop(LIMIT).await;
    let machine = start().await;
    let b = machine.create("b", on_gpus("1", "serve")).await;
    machine.until(&b, "running", running).await;
    assert_eq!(driver.gpus("b/c/0"), ["GPU-1"]);
    let more = machine.create("more", on_gpus("1", "serve")).await;
    let refused = machine.until(&more, "refused", |pod| phase(pod) == "Failed").await;
    assert_eq!(refused["status"]["reason"], "OutOfnvidia.com/gpu");
    delete(&machine, &a).await;
    machine.until(&a, "gone", Value::is_null).await;
    let c = machine.create("c", on_gpus("1", "serve")).await;
    machine.until(&c, "running", running).await;
    assert_eq!(driver.gpus("c/c/0"), ["GPU-0"]);
}

#[actix::test]
async fn a_deadline_that_is_set_while_the_pod_runs_ends_it() {
    let machine = Machine::start(4000).await;
    let key = machine.create("late", runs(&["serve"], "Always")).await;
    machine.until(&key, "running", |pod| phase(pod) == "Running").await;
    change::change(&machine.registry, &key, None, None, |pod| {
        pod["spec"]["activeDeadlineSeconds"] = 1.into();
    })
    .await
    .unwrap();
    let pod = machine.until(&key, "ended", |pod| phase(pod) == "Failed").await;
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
}

#[actix::test]
async fn a_container_that_runs_although_nobody_heard_of_its_start_ends_when_its_pod_fails() {
    let machine = Machine::start(1000).await;
    let key = machine.create("p", runs(&["unheard"], "Never")).await;
    machine.until_driver("it runs", |driver| driver.running().len() == 1).await;
    change::change(&machine.registry, &key, None, None, |pod| {
        pod["spec"]["activeDeadlineSeconds"] = 1.into();
    })
    .await
    .unwrap();
    machine.until(&key, "failed", |pod| phase(pod) == "Failed").await;
    assert!(machine.driver.running().is_empty(), "its room is given to others by now");
}
