//! A control member with one job, and pods that are threads with actor nodes of their own.

use crate::line::{Counter, LIMIT, Line, Pace};
use actix::Addr;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::{self, BoxStream, StreamExt as _};
use impresario_actors::training::guest::{self, GuestConfig, Method};
use impresario_actors::training::model::{Model, ModelError};
use impresario_actors::training_job::TrainingJob;
use impresario_actors::training_job::desk::{Desk, DeskError, Sight};
use impresario_client::protocol::training::{
    Describe, Description, Doing, Member, OptimizerKind, Scale, ScaleError, Size, TrainerReport,
    TrainingJobRole, guest_node, job_actor,
};
use impresario_runtime::{
    ActorName, ActorNode, ActorPath, ActorRef, ClusterAuthority, Gate, NodeConfig, NodeName,
    PeerIdentity, PeerRole, Refusal, Registration, Role,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::any::Any;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

const JOB: &str = "job-uid";
const DAY: Duration = Duration::from_secs(86_400);
const CONTROL: [&str; 2] = ["control-1", "control-2"];

/// What is learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Learns {
    /// A line through points.
    Line,
    /// How many gradients there were.
    Count,
}

pub struct Cluster {
    nodes: Vec<ActorNode>,
    pods: Arc<Pods>,
    job: Value,
    /// The activations that run: on which control member, and whether that is cut off from the registry. The
    /// last is the one that counts.
    running: Vec<Running>,
    lease: u64,
}

struct Running {
    member: usize,
    cut_off: Arc<AtomicBool>,
    _actor: (Addr<TrainingJob>, Registration),
}

/// The stand-in for registry and nodes.
struct Pods {
    authority: ClusterAuthority,
    control: Vec<(NodeName, SocketAddr)>,
    learns: Learns,
    pace: Pace,
    by_name: Mutex<BTreeMap<String, Pod>>,
    status: watch::Sender<Value>,
    remarks: Mutex<Vec<String>>,
    changed: watch::Sender<u64>,
    /// The step at which a trainer was, as it said last.
    heard: watch::Sender<Option<u64>>,
}

/// Lets everything pass, and notes what trainers say of themselves.
struct Listening(watch::Sender<Option<u64>>);

impl Gate for Listening {
    fn admit(&self, _: &PeerIdentity, _: &ActorName, _: &'static str) -> Result<(), Refusal> {
        Ok(())
    }

    fn permit(
        &self,
        _: &PeerIdentity,
        _: &ActorName,
        _: &'static str,
        body: &dyn Any,
    ) -> Result<(), Refusal> {
        if let Some(TrainerReport { doing: Doing::Training(step), .. }) = body.downcast_ref() {
            self.0.send_replace(Some(*step));
        }
        Ok(())
    }
}

struct Pod {
    object: Value,
    stop: watch::Sender<bool>,
}

impl Cluster {
    pub async fn start(max: Size, epochs: u64, learns: Learns) -> Self {
        Self::start_saving(max, epochs, learns, Value::Null).await
    }

    /// The same, of a job that saves what it learns.
    pub async fn start_saving(max: Size, epochs: u64, learns: Learns, checkpoint: Value) -> Self {
        Self::start_with(max, epochs, learns, json!({ "checkpoint": checkpoint })).await
    }

    /// The same, of a job with these fields of its spec.
    pub async fn start_with(max: Size, epochs: u64, learns: Learns, fields: Value) -> Self {
        let authority = ClusterAuthority::create("test").unwrap();
        let sans = ["127.0.0.1".to_owned()];
        let (mut nodes, heard) = (Vec::new(), watch::Sender::new(None));
        for name in CONTROL {
            let credential = authority.issue(name, PeerRole::Control, &sans, DAY).unwrap();
            let gate = Arc::new(Listening(heard.clone()));
            let config = NodeConfig { gate, ..NodeConfig::new(credential) };
            nodes.push(ActorNode::start(config).await.unwrap());
        }
        let control = nodes.iter().map(|node| (node.name().clone(), node.local_addr())).collect();
        let pods = Arc::new(Pods {
            authority,
            control,
            learns,
            pace: Pace::default(),
            by_name: Mutex::default(),
            status: watch::Sender::new(json!({})),
            remarks: Mutex::default(),
            changed: watch::Sender::new(0),
            heard,
        });
        let template = json!({ "spec": { "containers": [{ "name": "main", "image": "none" }] } });
        let role = |max: u32| json!({ "min": 1, "max": max, "template": template });
        let mut job = json!({
            "metadata": { "name": "line", "namespace": "default", "uid": JOB },
            "spec": {
                "mode": "async",
                "parameterServer": role(max.parameter_servers),
                "trainer": role(max.trainers),
                "stop": { "epochs": epochs },
            },
        });
        for (field, value) in fields.as_object().unwrap() {
            job["spec"][field] = value.clone();
        }
        let mut cluster = Self { nodes, pods, job, running: Vec::new(), lease: 0 };
        cluster.activate(0, false);
        // What the auction does first: it grants the minimum.
        let started = Instant::now();
        while let Err(error) =
            cluster.try_scale(0, Size { parameter_servers: 1, trainers: 1 }, "the minimum").await
        {
            assert_eq!(error, ScaleError::InDoubt, "only until it is awake");
            assert!(started.elapsed() < LIMIT);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        cluster
    }

    fn activate(&mut self, member: usize, pods_first: bool) {
        let mut job = self.job.clone();
        job["status"] = self.pods.status.borrow().clone();
        let cut_off: Arc<AtomicBool> = Arc::default();
        let door = Door { pods: self.pods.clone(), job, pods_first, cut_off: cut_off.clone() };
        self.lease += 1;
        let node = &self.nodes[member];
        let actor = TrainingJob::new(node.clone(), Arc::new(door), JOB, self.lease);
        let address = actix::Actor::start(actor);
        let name = node.register::<TrainingJobRole, _>(job_actor(JOB), address.clone()).unwrap();
        self.running.push(Running { member, cut_off, _actor: (address, name) });
    }

    /// The job's actor is gone, and another takes its place.
    pub async fn fail_over(&mut self) {
        self.running.clear();
        self.activate(0, true);
        self.until("awake", LIMIT, |seen| seen.wanted.trainers > 0).await;
    }

    /// The member that runs the job is cut off from the registry and goes on; another takes the job over.
    pub async fn cut_off(&mut self) {
        self.running[0].cut_off.store(true, Ordering::Release);
        self.activate(1, true);
        self.until("awake", LIMIT, |seen| seen.wanted.trainers > 0).await;
    }

    /// How the activation sees the job that was begun as the `number`th of those that run.
    async fn described_by(&self, number: usize) -> Description {
        let node = &self.nodes[self.running[number].member];
        let job = node.local::<TrainingJobRole>(job_actor(JOB));
        job.ask(Describe, LIMIT).await.unwrap()
    }

    pub async fn describe(&self) -> Description {
        self.described_by(self.running.len() - 1).await
    }

    /// The same, of the member that was cut off.
    pub async fn describe_cut_off(&self) -> Description {
        self.described_by(0).await
    }

    /// The actor of a member of the job.
    pub fn member<R: Role>(&self, role: &str, actor: impl Fn(&str) -> String) -> ActorRef<R> {
        let uid = format!("uid-{}", self.pod(role));
        let path = ActorPath::new(guest_node(&uid), actor(&uid));
        self.nodes[self.running.last().unwrap().member].actor(path)
    }

    fn pod(&self, role: &str) -> String {
        let label =
            |pod: &Pod| pod.object["metadata"]["labels"]["training.impresario.dev/role"] == role;
        let pods = self.pods.by_name.lock();
        pods.iter().find(|(_, pod)| label(pod)).expect("such a pod").0.clone()
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

    pub async fn until_status(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let mut status = self.pods.status.subscribe();
        let wait = status.wait_for(|status| holds(status));
        tokio::time::timeout(LIMIT, wait).await.expect(what).unwrap().clone()
    }

    pub async fn scale(&self, round: u64, size: Size, reason: &str) {
        self.try_scale(round, size, reason).await.unwrap();
    }

    async fn try_scale(&self, round: u64, size: Size, reason: &str) -> Result<(), ScaleError> {
        let node = &self.nodes[self.running.last().unwrap().member];
        let job = node.local::<TrainingJobRole>(job_actor(JOB));
        let (lease, reason) = (self.lease, reason.to_owned());
        let scale = Scale { round, scheduler: 1, lease, size, reason };
        job.ask(scale, LIMIT).await.unwrap()
    }

    /// One running pod of a role is gone without a word.
    pub fn kill(&self, role: &str) {
        let name = self.pod(role);
        self.pods.by_name.lock()[&name].stop.send_replace(true);
    }

    /// Holds the trainers up amid what they compute, and lets them go on.
    pub fn hold(&self, held: bool) {
        self.pods.pace.hold(held);
    }

    /// Waits until a trainer says so often that it lives while it is at one and the same step.
    pub async fn until_reported(&self, times: usize) {
        let mut heard = self.pods.heard.subscribe();
        let (mut step, mut count) = (None, 0);
        let reports = async {
            while count < times {
                heard.changed().await.unwrap();
                let said = *heard.borrow_and_update();
                count = if said == step { count + 1 } else { 1 };
                step = said;
            }
        };
        tokio::time::timeout(LIMIT, reports).await.expect("reports of one step");
    }

    /// What the test wanted to see has been seen: on to the end of the job.
    pub fn hurry(&self) {
        self.pods.pace.hurry();
    }

    /// Waits until the job has said this of what happened to it.
    pub async fn until_remarked(&self, reason: &str) {
        let remarked = |_: &Description| self.remarks().iter().any(|said| said == reason);
        self.until(reason, LIMIT, remarked).await;
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
    /// Its member does not reach the registry.
    cut_off: Arc<AtomicBool>,
}

impl Door {
    fn reached(&self) -> Result<(), DeskError> {
        if self.cut_off.load(Ordering::Acquire) {
            return Err(DeskError::Later { cause: "there is no majority".to_owned() });
        }
        Ok(())
    }
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

    fn create_pod(&self, pod: Value) -> BoxFuture<'static, Result<String, DeskError>> {
        let (pods, reached) = (self.pods.clone(), self.reached());
        async move {
            reached?;
            Ok(pods.run(pod))
        }
        .boxed()
    }

    fn confirm(&self) -> BoxFuture<'static, Result<(), DeskError>> {
        let reached = self.reached();
        async move { reached }.boxed()
    }

    fn delete_pod(&self, name: String, _: String) -> BoxFuture<'static, Result<(), DeskError>> {
        let (pods, reached) = (self.pods.clone(), self.reached());
        async move {
            reached?;
            if let Some(pod) = pods.by_name.lock().remove(&name) {
                pod.stop.send_replace(true);
            }
            pods.changed.send_modify(|serial| *serial += 1);
            Ok(())
        }
        .boxed()
    }

    fn control_members(&self) -> Vec<(NodeName, SocketAddr)> {
        self.pods.control.clone()
    }

    fn write_status(&self, status: Value) -> BoxFuture<'static, Result<(), DeskError>> {
        let reached = self.reached();
        if reached.is_ok() {
            self.pods.status.send_replace(status);
        }
        async move { reached }.boxed()
    }

    fn record(&self, _: &Value, _: bool, reason: &str, _: &str) {
        self.pods.remarks.lock().push(reason.to_owned());
    }
}

impl Pods {
    fn objects(&self) -> Vec<Value> {
        self.by_name.lock().values().map(|pod| pod.object.clone()).collect()
    }

    /// Gives its uid.
    fn run(self: &Arc<Self>, mut pod: Value) -> String {
        let serial = *self.changed.borrow();
        let name = format!("{}{serial}", pod["metadata"]["generateName"].as_str().unwrap());
        let member =
            match pod["metadata"]["labels"]["training.impresario.dev/role"].as_str().unwrap() {
                "trainer" => Member::Trainer,
                _ => Member::ParameterServer,
            };
        pod["metadata"]["name"] = json!(name);
        let uid = format!("uid-{name}");
        pod["metadata"]["uid"] = json!(uid);
        pod["spec"]["nodeName"] = json!("somewhere");
        pod["status"] = json!({ "phase": "Running", "podIP": "127.0.0.1" });
        let guest = PeerRole::Guest { scope: JOB.to_owned() };
        let sans = ["127.0.0.1".to_owned()];
        let config = GuestConfig {
            credential: self
                .authority
                .issue(guest_node(&format!("uid-{name}")).as_str(), guest, &sans, DAY)
                .unwrap(),
            // The others came later: the job says who they are.
            addresses: self.control[..1].into(),
            control: vec![self.control[0].0.clone()],
            address: Ipv4Addr::LOCALHOST.into(),
            pod_uid: format!("uid-{name}"),
            job: JOB.to_owned(),
            member,
        };
        let (stop, mut stopped) = watch::channel(false);
        self.by_name.lock().insert(name.clone(), Pod { object: pod, stop });
        self.changed.send_modify(|serial| *serial += 1);
        let (pods, pods_learn, pace) = (self.clone(), self.learns, self.pace.clone());
        std::thread::spawn(move || {
            let system = actix::System::new();
            let phase = system.block_on(async move {
                let (rate, momentum) = match pods_learn {
                    Learns::Line => (0.05, 0.5),
                    Learns::Count => (1.0, 0.0),
                };
                let optimizer = OptimizerKind::Momentum { rate, decay: 0.0, momentum };
                let method = Method { batch: 8, optimizer, seed: 3 };
                let model = move || -> Result<Box<dyn Model>, ModelError> {
                    let pace = pace.clone();
                    Ok(match pods_learn {
                        Learns::Line => Box::new(Line { pace }),
                        Learns::Count => Box::new(Counter { pace }),
                    })
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
        uid
    }
}
