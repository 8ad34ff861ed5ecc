//! The objects that the cluster has to keep while it is broken: two replication controllers and a
//! job, whose pods fill the nodes nearly to the brim; and somebody who deletes pods and scales.
//!
//! Every pod asks for a quarter of the smallest node, so three nodes have room for twelve, and
//! eleven are wanted: whoever counts wrongly over-commits a node.

use crate::cluster::{HarnessError, Session};
use impresario_api::admission::{DeleteOptions, Door};
use impresario_api::resource::Resource;
use impresario_objects::{Objects, WriteOptions};
use impresario_registry_api::{ListRequest, Selection};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// The replication controllers, and how many pods each promises.
pub const CONTROLLERS: [(&str, i64); 2] = [("chaos", STEADY), ("crowd", CROWD)];
const STEADY: i64 = 3;
const CROWD: i64 = 6;
/// The name of the job.
pub const JOB: &str = "job";
/// The namespace of all.
pub const NAMESPACE: &str = "default";
/// Pods of a node of the smallest size.
const PER_NODE: u64 = 4;
/// Completions of the job for each second that faults go on: it ends when they end, at the earliest.
const COMPLETIONS_PER_SECOND: f64 = 0.5;
/// The mean pause between two things that a user does.
const CHURN: Duration = Duration::from_secs(3);
/// How long a user waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many completions the job of a run promises.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "seconds of a run are few")]
pub fn completions(duration: Duration) -> i64 {
    ((duration.as_secs_f64() * COMPLETIONS_PER_SECOND) as i64).max(3)
}

fn served(group: &str, plural: &str) -> Result<&'static Resource, HarnessError> {
    impresario_api::resource::find(group, "v1", plural)
        .ok_or_else(|| HarnessError::Workload { reason: format!("{plural} are not served") })
}

/// The millicores that every pod asks for.
async fn portion(session: &Session) -> Result<u64, HarnessError> {
    let failed = |reason: String| HarnessError::Workload { reason };
    let list = ListRequest::of(Selection::all("nodes"));
    let page = session.registry.list(list).await.map_err(|error| failed(error.to_string()))?;
    let sizes = page.entries.iter().map(|entry| {
        let node: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
        millicores(node["status"]["allocatable"]["cpu"].as_str().unwrap_or_default())
    });
    let smallest = sizes.min().filter(|size| *size > 0);
    smallest.map(|size| size / PER_NODE).ok_or_else(|| failed("no node has room".into()))
}

/// The millicores of a quantity; 0 of one that is none.
pub(crate) fn millicores(text: &str) -> u64 {
    text.parse::<impresario_api::quantity::Quantity>()
        .ok()
        .and_then(|quantity| u64::try_from(quantity.millis()).ok())
        .unwrap_or(0)
}

/// Creates the replication controllers and the job.
pub async fn set_up(session: &Session, completions: i64) -> Result<(), HarnessError> {
    let objects = Objects::new(session.registry.clone());
    let cpu = format!("{}m", portion(session).await?);
    let pod = |app: &str, restart: &str, command: &[&str]| {
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
                    "name": "c", "image": "none", "command": command,
                    "resources": { "requests": { "cpu": cpu, "memory": "1Mi" } },
                }],
            },
        })
    };
    let mut all = Vec::new();
    for (name, replicas) in CONTROLLERS {
        let controller = json!({
            "apiVersion": "v1", "kind": "ReplicationController", "metadata": { "name": name },
            "spec": {
                "replicas": replicas,
                "selector": { "app": name },
                "template": pod(name, "Always", &["sleep", "100000"]),
            },
        });
        all.push((served("", "replicationcontrollers")?, controller));
    }
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": JOB },
        "spec": {
            "completions": completions,
            "parallelism": 2,
            // A pod that a fault kills is a failure of the pod, not of the job.
            "backoffLimit": 1000,
            "template": pod(JOB, "OnFailure", &["sleep", "2"]),
        },
    });
    all.push((served("batch", "jobs")?, job));
    for (resource, object) in all {
        let created = objects.create(resource, NAMESPACE, object, &WriteOptions::default()).await;
        created.map_err(|status| HarnessError::Workload { reason: status.to_string() })?;
    }
    Ok(())
}

/// Somebody who deletes pods, of the job and of the controllers, and scales the crowd.
pub struct Churn {
    task: JoinHandle<()>,
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
            loop {
                let pause = CHURN.mul_f64(random.random_range(0.5..1.5));
                if timeout(pause, stopping.wait_for(|stop| *stop)).await.is_ok() {
                    return;
                }
                let done = timeout(PATIENCE, disturb(&working, &mut random)).await;
                if let Ok(Err(reason)) = done {
                    tracing::debug!(reason, "a user was refused");
                }
            }
        });
        Self { task, stop, session: session.clone() }
    }

    /// Ends, and asks for as many pods as are promised.
    pub async fn finish(mut self) -> Result<(), HarnessError> {
        let _ = self.stop.send(true);
        let _ = (&mut self.task).await;
        scale(&self.session, CROWD).await.map_err(|reason| HarnessError::Cluster {
            what: "scaling after healing".into(),
            reason,
        })
    }
}

impl Drop for Churn {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn disturb(session: &Session, random: &mut StdRng) -> Result<(), String> {
    let what = random.random_range(0..6);
    let place: usize = random.random_range(0..1_000);
    let app = match what {
        0 => return scale(session, random.random_range(2..=CROWD)).await,
        1..=2 => JOB,
        3..=4 => CONTROLLERS[0].0,
        _ => CONTROLLERS[1].0,
    };
    let list = ListRequest::of(Selection::all("pods").within(NAMESPACE));
    let page = session.registry.list(list).await.map_err(|error| error.to_string())?;
    let of_app: Vec<&str> = page
        .entries
        .iter()
        .filter(|entry| {
            let pod: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
            let labels = &pod["metadata"]["labels"];
            labels["app"] == app && pod["metadata"]["deletionTimestamp"].is_null()
        })
        .map(|entry| entry.key.name.as_str())
        .collect();
    let Some(name) = of_app.get(place.checked_rem(of_app.len()).unwrap_or(0)) else {
        return Ok(());
    };
    let pods = served("", "pods").map_err(|error| error.to_string())?;
    let objects = Objects::new(session.registry.clone());
    let (options, write) = (DeleteOptions::default(), WriteOptions::default());
    let deleted = objects.delete(pods, NAMESPACE, name, &options, &write).await;
    deleted.map(drop).map_err(|status| status.to_string())
}

async fn scale(session: &Session, replicas: i64) -> Result<(), String> {
    let controllers = served("", "replicationcontrollers").map_err(|error| error.to_string())?;
    let objects = Objects::new(session.registry.clone());
    let (name, options) = (CONTROLLERS[1].0, WriteOptions::default());
    let scaled = objects
        .modify(controllers, Door::Main, NAMESPACE, name, &options, |old| {
            let mut new = old.clone();
            new["spec"]["replicas"] = replicas.into();
            Ok(new)
        })
        .await;
    scaled.map(drop).map_err(|status| status.to_string())
}
