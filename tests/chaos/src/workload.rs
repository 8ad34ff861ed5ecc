//! The objects that the cluster has to keep while it is broken: three replication controllers, a service of one of
//! them and a job, whose pods fill the nodes nearly to the brim; and users: one deletes pods, scales, and binds pods
//! by hand, another one deletes pods of the job as soon as they have succeeded.
//!
//! Every pod asks for a quarter of the processors and of the memory of the smallest node, so three nodes
//! have room for twelve. Eleven are wanted, and now and then for some seconds twenty: whoever counts
//! wrongly over-commits a node. The pods of one controller have a scheduler of their own ([`crate::rival`]). Where nodes have GPUs, one for each of these places, every pod asks for its
//! share of them, too.

use crate::cluster::{HarnessError, Session, end};
use crate::effects;
use futures_util::StreamExt as _;
use impresario_api::admission::{DeleteOptions, Door};
use impresario_api::quantity;
use impresario_api::resource::Row;
use impresario_client::protocol::resources::GPU;
use impresario_objects::{Binding, Objects, WriteOptions};
use impresario_registry_api::{ListRequest, Selection, WatchEvent, WatchRequest};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// The replication controllers, and how many pods each promises.
pub const CONTROLLERS: [(&str, i64); 3] = [("chaos", STEADY), ("crowd", CROWD), (RIVAL, CONTESTED)];
const STEADY: i64 = 2;
const CROWD: i64 = 6;
/// The scheduler that pods of the last of them ask for, and their name.
pub(crate) const RIVAL: &str = "rival";
/// Pods of the rival scheduler.
const CONTESTED: i64 = 1;
/// How many more of both a user wants now and then: more than all nodes have room for together.
const TOO_MANY: [i64; 2] = [6, 3];
/// The name of the job.
pub const JOB: &str = "job";
/// The labels `app` of all pods.
pub const APPS: [&str; 4] = [CONTROLLERS[0].0, CONTROLLERS[1].0, CONTROLLERS[2].0, JOB];
/// The service of the controller that users scale most; both have one name.
pub const SERVICE: &str = CONTROLLERS[1].0;
/// The namespace of all.
pub const NAMESPACE: &str = "default";
/// Pods of a node of the smallest size.
const PER_NODE: i64 = 4;
/// Completions of the job for each second that faults go on: it ends when they end, at the earliest.
const COMPLETIONS_PER_SECOND: f64 = 0.5;
/// The mean pause between two things that a user does.
const CHURN: Duration = Duration::from_secs(2);
/// How long a user who was cut off waits before the next try.
const LOOK: Duration = Duration::from_millis(200);
/// How long a user waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many completions the job of a run promises.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "seconds of a run are few")]
pub fn completions(duration: Duration) -> i64 {
    ((duration.as_secs_f64() * COMPLETIONS_PER_SECOND) as i64).max(3)
}

fn served(group: &str, plural: &str) -> Result<Row, HarnessError> {
    impresario_api::catalog::find(group, "v1", plural)
        .ok_or_else(|| HarnessError::Workload { reason: format!("{plural} are not served") })
}

/// What every pod asks for: a share of whatever the smallest node has of each.
async fn portion(session: &Session) -> Result<Value, HarnessError> {
    let failed = |reason: String| HarnessError::Workload { reason };
    let list = ListRequest::of(Selection::all("nodes"));
    let page = session.registry.list(list).await.map_err(|error| failed(error.to_string()))?;
    let nodes: Vec<Value> = page
        .entries
        .iter()
        .map(|entry| serde_json::from_slice(&entry.value).unwrap_or_default())
        .collect();
    let smallest = |resource: &str| {
        let of = |node: &Value| {
            quantity::parse(&node["status"]["allocatable"][resource])
                .map_or(0, quantity::Quantity::millis)
        };
        nodes.iter().map(of).min().unwrap_or(0) / PER_NODE
    };
    let (cpu, memory, gpus) = (smallest("cpu"), smallest("memory") / 1000, smallest(GPU) / 1000);
    if cpu == 0 || memory == 0 {
        return Err(failed("no node has room".into()));
    }
    let mut portion =
        json!({ "requests": { "cpu": format!("{cpu}m"), "memory": memory.to_string() } });
    if gpus > 0 {
        portion["limits"] = json!({ GPU: gpus.to_string() });
        portion["requests"][GPU] = gpus.to_string().into();
    }
    Ok(portion)
}

/// Creates the replication controllers, the job and the service.
///
/// Their containers leave lines in files of `scratch` ([`crate::effects`]).
pub async fn set_up(
    session: &Session,
    completions: i64,
    scratch: &Path,
) -> Result<(), HarnessError> {
    let objects = Objects::new(session.registry.clone());
    let portion = portion(session).await?;
    let pod = |app: &str, restart: &str, work: &str| {
        json!({
            "metadata": { "labels": { "app": app } },
            "spec": {
                "restartPolicy": restart,
                "terminationGracePeriodSeconds": 1,
                // Nobody waits five minutes for a node that is lost.
                "tolerations": [{
                    "key": "node.kubernetes.io/unreachable", "operator": "Exists",
                    "effect": "NoExecute", "tolerationSeconds": 1,
                }],
                "containers": [{
                    "name": "c", "image": "none",
                    "command": effects::command(scratch, app, work),
                    "env": [{
                        "name": "POD", "valueFrom": { "fieldRef": { "fieldPath": "metadata.uid" } },
                    }],
                    "resources": portion,
                }],
            },
        })
    };
    let mut all = Vec::new();
    for (name, replicas) in CONTROLLERS {
        let mut controller = json!({
            "apiVersion": "v1", "kind": "ReplicationController", "metadata": { "name": name },
            "spec": {
                "replicas": replicas,
                "selector": { "app": name },
                "template": pod(name, "Always", "sleep 100000"),
            },
        });
        if name == RIVAL {
            controller["spec"]["template"]["spec"]["schedulerName"] = name.into();
        }
        all.push((served("", "replicationcontrollers")?, controller));
    }
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": JOB },
        "spec": {
            "completions": completions,
            "parallelism": 2,
            // A pod that a fault kills is a failure of the pod, not of the job.
            "backoffLimit": 1000,
            "template": pod(JOB, "Never", "sleep 2"),
        },
    });
    all.push((served("batch", "jobs")?, job));
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": SERVICE },
        "spec": { "selector": { "app": SERVICE }, "ports": [{ "port": 8080 }] },
    });
    all.push((served("", "services")?, service));
    for (resource, object) in all {
        let created = objects.create(&resource, NAMESPACE, object, &WriteOptions::default()).await;
        created.map_err(|status| HarnessError::Workload { reason: status.to_string() })?;
    }
    Ok(())
}

/// Users who delete pods, of the job and of the controllers, scale two of them, and bind pods.
pub struct Churn {
    task: JoinHandle<()>,
    reaper: JoinHandle<()>,
    stop: watch::Sender<bool>,
    session: Session,
}

impl Churn {
    /// Starts.
    #[must_use]
    pub fn start(session: &Session, seed: u64) -> Self {
        let (stop, mut stopping) = watch::channel(false);
        // Not the stream of any client.
        let mut random = StdRng::seed_from_u64(!seed);
        let working = Session { registry: session.roaming(), ..session.clone() };
        let task = tokio::spawn(async move {
            for act in 0_u32.. {
                let pause = CHURN.mul_f64(random.random_range(0.5..1.5));
                if timeout(pause, stopping.wait_for(|stop| *stop)).await.is_ok() {
                    return;
                }
                let done = timeout(PATIENCE, async {
                    match act % 4 {
                        0 => scale_both(&working, TOO_MANY).await,
                        1 => bind_again(&working).await,
                        2 => scale_both(&working, [0, 0]).await,
                        _ => disturb(&working, &mut random).await,
                    }
                })
                .await;
                if let Ok(Err(reason)) = done {
                    tracing::debug!(reason, "a user was refused");
                }
            }
        });
        let reaper = tokio::spawn(reap(Session { registry: session.roaming(), ..session.clone() }));
        Self { task, reaper, stop, session: session.clone() }
    }

    /// Ends, and asks for as many pods as are promised. A cluster that cannot even be asked is found out
    /// by the checks.
    pub async fn finish(mut self) -> Result<(), HarnessError> {
        let _ = self.stop.send(true); // it may have ended
        (&mut self.task).await.map_err(HarnessError::lost("using the cluster"))?;
        end(&mut self.reaper, "deleting pods of the job").await?;
        let until = Instant::now() + PATIENCE;
        while let Err(reason) = scale_both(&self.session, [0, 0]).await {
            tracing::debug!(reason, "scaling after healing");
            if Instant::now() > until {
                break;
            }
            sleep(LOOK).await;
        }
        Ok(())
    }
}

impl Drop for Churn {
    fn drop(&mut self) {
        self.task.abort();
        self.reaper.abort();
    }
}

/// Deletes every second pod of the job in the moment in which it has succeeded: whoever has not counted it
/// must still be able to.
async fn reap(session: Session) {
    let mut place = 0_u64;
    loop {
        let list = ListRequest::of(Selection::all("pods").within(NAMESPACE));
        if let Ok(page) = session.registry.list(list).await {
            let request = WatchRequest {
                select: Selection::all("pods").within(NAMESPACE),
                after: page.revision,
                bookmarks: false,
            };
            if let Ok(mut watch) = session.registry.watch(request).await {
                while let Some(Ok(batch)) = watch.next().await {
                    for event in batch.events {
                        let WatchEvent::Put { entry, .. } = event else { continue };
                        let pod: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
                        let succeeded = pod["status"]["phase"] == "Succeeded"
                            && pod["metadata"]["labels"]["app"] == JOB
                            && pod["metadata"]["deletionTimestamp"].is_null();
                        if succeeded {
                            place += 1;
                        }
                        if succeeded && place % 2 == 1 {
                            let deleted =
                                timeout(PATIENCE, delete(&session, &entry.key.name)).await;
                            tracing::debug!(pod = entry.key.name, ?deleted, "reaped");
                        }
                    }
                }
            }
        }
        sleep(LOOK).await;
    }
}

async fn delete(session: &Session, pod: &str) -> Result<(), String> {
    let pods = served("", "pods").map_err(|error| error.to_string())?;
    let objects = Objects::new(session.registry.clone());
    let (options, write) = (DeleteOptions::default(), WriteOptions::default());
    let deleted = objects.delete(&pods, NAMESPACE, pod, &options, &write).await;
    deleted.map(drop).map_err(|status| status.to_string())
}

/// The pods of a label `app` that nobody has asked to end, and their nodes.
async fn pods_of(session: &Session, app: &str) -> Result<Vec<(String, Value)>, String> {
    let list = ListRequest::of(Selection::all("pods").within(NAMESPACE));
    let page = session.registry.list(list).await.map_err(|error| error.to_string())?;
    let pods = page.entries.iter().filter_map(|entry| {
        let pod: Value = serde_json::from_slice(&entry.value).ok()?;
        let is_of = pod["metadata"]["labels"]["app"] == app
            && pod["metadata"]["deletionTimestamp"].is_null();
        is_of.then(|| (entry.key.name.clone(), pod["spec"]["nodeName"].clone()))
    });
    Ok(pods.collect())
}

/// Binds a pod that has a node to another one, as somebody would who is behind: refused.
async fn bind_again(session: &Session) -> Result<(), String> {
    let pods = pods_of(session, CONTROLLERS[1].0).await?;
    let Some((pod, on)) = pods.iter().find(|(_, node)| node.is_string()) else { return Ok(()) };
    let Some(node) = session.members.iter().find(|node| *on != node.as_str()) else {
        return Ok(());
    };
    let objects = Objects::new(session.registry.clone());
    let bound = objects.bind(NAMESPACE, pod, &Binding::to(node), &WriteOptions::default()).await;
    bound.map(drop).map_err(|status| status.to_string())
}

/// Deletes a pod, or scales the crowd within what there is room for.
async fn disturb(session: &Session, random: &mut StdRng) -> Result<(), String> {
    let app = match random.random_range(0..6) {
        0 => return scale(session, CONTROLLERS[1].0, random.random_range(2..=CROWD)).await,
        1..=2 => JOB,
        3..=4 => CONTROLLERS[0].0,
        _ => CONTROLLERS[1].0,
    };
    let place: usize = random.random_range(0..1_000);
    let pods = pods_of(session, app).await?;
    match pods.get(place.checked_rem(pods.len()).unwrap_or(0)) {
        Some((name, _)) => delete(session, name).await,
        None => Ok(()),
    }
}

/// Scales the crowd and the rival's controller to so many more than they promise.
async fn scale_both(session: &Session, [crowd, contested]: [i64; 2]) -> Result<(), String> {
    scale(session, CONTROLLERS[1].0, CROWD + crowd).await?;
    scale(session, CONTROLLERS[2].0, CONTESTED + contested).await
}

async fn scale(session: &Session, name: &str, replicas: i64) -> Result<(), String> {
    let controllers = served("", "replicationcontrollers").map_err(|error| error.to_string())?;
    let objects = Objects::new(session.registry.clone());
    let options = WriteOptions::default();
    let scaled = objects
        .modify(&controllers, Door::Main, NAMESPACE, name, &options, |old| {
            let mut new = old.clone();
            new["spec"]["replicas"] = replicas.into();
            Ok(new)
        })
        .await;
    scaled.map(drop).map_err(|status| status.to_string())
}
