//! A control member with one job, and pods that are threads with actor nodes of their own.

use crate::line::Line;
use actix::Addr;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::{self, BoxStream, StreamExt as _};
use impresario_actors::training::guest::{self, GuestConfig, Method};
use impresario_actors::training::model::{Model, ModelError};
use impresario_actors::training_job::TrainingJob;
use impresario_actors::training_job::desk::{Desk, DeskError, Sight};
use impresario_client::protocol::training::{
    Describe, Description, Member, OptimizerKind, Scale, Size, TrainingJobRole, job_actor,
};
use impresario_runtime::{
    ActorNode, ClusterAuthority, NodeConfig, NodeName, PeerRole, Registration,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

const JOB: &str = "job-uid";
const DAY: Duration = Duration::from_secs(86_400);
const CONTROL: &str = "control";

pub struct Cluster {
    node: ActorNode,
    pods: Arc<Pods>,
    job: Value,
    running: Option<(Addr<TrainingJob>, Registration)>,
}

/// The stand-in for registry and nodes.
struct Pods {
    authority: ClusterAuthority,
    control: SocketAddr,
    by_name: Mutex<BTreeMap<String, Pod>>,
    status: watch::Sender<Value>,
    remarks: Mutex<Vec<String>>,
    changed: watch::Sender<u64>,
}

struct Pod {
    object: Value,
    stop: watch::Sender<bool>,
}

impl Cluster {
    pub async fn start(max: Size, epochs: u64) -> Self {
        let authority = ClusterAuthority::create("test").unwrap();
        let sans = ["127.0.0.1".to_owned()];
        let credential = authority.issue(CONTROL, PeerRole::Control, &sans, DAY).unwrap();
        let node = ActorNode::start(NodeConfig::new(credential)).await.unwrap();
        let pods = Arc::new(Pods {
            authority,
            control: node.local_addr(),
            by_name: Mutex::default(),
            status: watch::Sender::new(json!({})),
            remarks: Mutex::default(),
            changed: watch::Sender::new(0),
        });
        let template = json!({ "spec": { "containers": [{ "name": "main", "image": "none" }] } });
        let role = |max: u32| json!({ "min": 1, "max": max, "template": template });
        let job = json!({
            "metadata": { "name": "line", "namespace": "default", "uid": JOB },
            "spec": {
                "mode": "async",
                "parameterServer": role(max.parameter_servers),
                "trainer": role(max.trainers),
                "stop": { "epochs": epochs },
            },
        });
        let mut cluster = Self { node, pods, job, running: None };
        cluster.activate(false);
        cluster.until("awake", Duration::from_secs(10), |seen| seen.wanted.trainers > 0).await;
        cluster
    }

    fn activate(&mut self, pods_first: bool) {
        let mut job = self.job.clone();
        job["status"] = self.pods.status.borrow().clone();
        let desk: Arc<dyn Desk> = Arc::new(Door { pods: self.pods.clone(), job, pods_first });
        let actor = TrainingJob::new(self.node.clone(), desk, JOB);
        let address = actix::Actor::start(actor);
        let name =
            self.node.register::<TrainingJobRole, _>(job_actor(JOB), address.clone()).unwrap();
        self.running = Some((address, name));
    }

    /// The job's actor is gone, and another takes its place.
    pub async fn fail_over(&mut self) {
        self.running = None;
        self.activate(true);
        self.until("awake", Duration::from_secs(10), |seen| seen.wanted.trainers > 0).await;
    }

    pub async fn describe(&self) -> Description {
        let job = self.node.local::<TrainingJobRole>(job_actor(JOB));
        job.ask(Describe, Duration::from_secs(5)).await.unwrap()
    }

    pub async fn until(
        &self,
        what: &str,
        limit: Duration,
        holds: impl Fn(&Description) -> bool,
    ) -> Description {
        let started = Instant::now();
        loop {
            let seen = self.describe().await;
            if holds(&seen) {
                return seen;
            }
            assert!(started.elapsed() < limit, "{what}: not within {limit:?}; last seen {seen:?}");
            // The description has no watch of its own; this asks again, it does not wait for luck.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn status(&self, phase: &str, limit: Duration) -> Value {
        let mut status = self.pods.status.subscribe();
        let wait = status.wait_for(|status| status["phase"] == phase);
        tokio::time::timeout(limit, wait).await.expect(phase).unwrap().clone()
    }

    pub async fn scale(&self, round: u64, size: Size, reason: &str) {
        let job = self.node.local::<TrainingJobRole>(job_actor(JOB));
        let scale = Scale { round, size, reason: reason.to_owned() };
        job.ask(scale, Duration::from_secs(5)).await.unwrap().unwrap();
    }

    /// One running pod of a role is gone without a word.
    pub fn kill(&self, role: &str) {
        let label =
            |pod: &Pod| pod.object["metadata"]["labels"]["training.impresario.dev/role"] == role;
        let pods = self.pods.by_name.lock();
        let pod = pods.values().find(|pod| label(pod)).expect("a pod to kill");
        pod.stop.send_replace(true);
    }

    pub fn remarks(&self) -> Vec<String> {
        self.pods.remarks.lock().clone()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for pod in self.pods.by_name.lock().values() {
            pod.stop.send_replace(true);
        }
    }
}

struct Door {
    pods: Arc<Pods>,
    job: Value,
    /// In which order the two are seen first is chance in a real cluster.
    pods_first: bool,
}

impl Desk for Door {
    fn follow(&self) -> BoxStream<'static, Sight> {
        let (pods, changes) = (self.pods.clone(), self.pods.changed.subscribe());
        let (seen, job) = (Sight::Pods(self.pods.objects()), Sight::Job(self.job.clone()));
        let first = stream::iter(if self.pods_first { [seen, job] } else { [job, seen] });
        let sights = stream::unfold((pods, changes), |(pods, mut changes)| async move {
            changes.changed().await.ok()?;
            changes.borrow_and_update();
            Some((Sight::Pods(pods.objects()), (pods, changes)))
        });
        first.chain(sights).boxed()
    }

    fn create_pod(&self, pod: Value) -> BoxFuture<'static, Result<(), DeskError>> {
        let pods = self.pods.clone();
        async move {
            pods.run(pod);
            Ok(())
        }
        .boxed()
    }

    fn delete_pod(&self, name: String, _: String) -> BoxFuture<'static, Result<(), DeskError>> {
        let pods = self.pods.clone();
        async move {
            if let Some(pod) = pods.by_name.lock().remove(&name) {
                pod.stop.send_replace(true);
            }
            pods.changed.send_modify(|serial| *serial += 1);
            Ok(())
        }
        .boxed()
    }

    fn write_status(&self, status: Value) -> BoxFuture<'static, Result<(), DeskError>> {
        self.pods.status.send_replace(status);
        async { Ok(()) }.boxed()
    }

    fn record(&self, _: &Value, _: bool, reason: &str, _: &str) {
        self.pods.remarks.lock().push(reason.to_owned());
    }
}

impl Pods {
    fn objects(&self) -> Vec<Value> {
        self.by_name.lock().values().map(|pod| pod.object.clone()).collect()
    }

    fn run(self: &Arc<Self>, mut pod: Value) {
        let serial = *self.changed.borrow();
        let name = format!("{}{serial}", pod["metadata"]["generateName"].as_str().unwrap());
        let member =
            match pod["metadata"]["labels"]["training.impresario.dev/role"].as_str().unwrap() {
                "trainer" => Member::Trainer,
                _ => Member::ParameterServer,
            };
        pod["metadata"]["name"] = json!(name);
        pod["metadata"]["uid"] = json!(format!("uid-{name}"));
        pod["spec"]["nodeName"] = json!("somewhere");
        pod["status"] = json!({ "phase": "Running" });
        let guest = PeerRole::Guest { scope: JOB.to_owned() };
        let sans = ["127.0.0.1".to_owned()];
        let config = GuestConfig {
            credential: self.authority.issue(&name, guest, &sans, DAY).unwrap(),
            addresses: vec![(NodeName::from(CONTROL), self.control)],
            control: vec![NodeName::from(CONTROL)],
            address: Ipv4Addr::LOCALHOST.into(),
            pod_uid: format!("uid-{name}"),
            job: JOB.to_owned(),
            member,
        };
        let (stop, mut stopped) = watch::channel(false);
        self.by_name.lock().insert(name.clone(), Pod { object: pod, stop });
        self.changed.send_modify(|serial| *serial += 1);
        let pods = self.clone();
        std::thread::spawn(move || {
            let system = actix::System::new();
            let phase = system.block_on(async move {
                let optimizer = OptimizerKind::Momentum { rate: 0.05, decay: 0.0, momentum: 0.5 };
                let method = Method { batch: 8, optimizer, seed: 3 };
                let model = || -> Result<Box<dyn Model>, ModelError> {
                    Ok(Box::new(Line { pace: Duration::from_millis(2) }))
                };
                tokio::select! {
                    outcome = guest::run(config, method, model) => {
                        if let Ok(Ok(())) = outcome { "Succeeded" } else { "Failed" }
                    }
                    _ = stopped.wait_for(|stop| *stop) => "Failed",
                }
            });
            if let Some(pod) = pods.by_name.lock().get_mut(&name) {
                pod.object["status"]["phase"] = json!(phase);
            }
            pods.changed.send_modify(|serial| *serial += 1);
        });
    }
}
