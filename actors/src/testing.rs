//! A machine without processes, for the tests of this crate: a driver in memory, a registry in
//! memory, and the real actors on a real actor node.

mod echo;

use crate::{
    follow::{Followed, follow},
    node::{GpuDriver, Heart, NodeParts, NodeSeed, Pulse, object::tests::facts},
    pod::backoff::BackoffScale,
};
use futures_util::{FutureExt, StreamExt, stream};
use impresario_client::protocol::{
    node::{NODE, NodeRole},
    resources::GPU,
};
use impresario_host::{
    ContainerDriver, ContainerId, ContainerSpec, ContainerState, ContainerStats, Exit, Found,
    LogLine, LogOptions, LogStream, PodSandbox, StartError, Stream,
    address::AddressPool,
    container::{
        Answer, Attached, DriverError, Executed, LogLimit, PullPolicy, Resources, Security,
        Started, User, Wanted,
    },
    devices::{Gpu, GpuHealth, GpuPool},
};
use impresario_registry::{
    Entry, Heartbeat, Key, MemoryRegistry, RegistryHandle, Selection, Transaction, WatchEvent,
};
use impresario_runtime::{
    ActorNode, ActorRef, ClusterAuthority, NodeConfig, PeerRole, PermitAll, SpawnOptions, clock,
};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;

/// No passing test spends it.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// How long until it is asked again what nobody tells of.
const AGAIN: Duration = Duration::from_millis(2);

/// Asks until there is an answer, and gives that; what was wrong last is said where it takes too long.
pub(crate) async fn eventually<T, E: Debug>(
    what: &str,
    mut ask: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let mut last = None;
    let answer = tokio::time::timeout(LIMIT, async {
        loop {
            match ask().await {
                Ok(answer) => return answer,
                Err(error) => last = Some(error),
            }
            tokio::time::sleep(AGAIN).await;
        }
    });
    answer.await.unwrap_or_else(|_| panic!("{what}: not within {LIMIT:?}; last {last:?}"))
}

/// Containers that only pretend. `exit N` as command ends at once with N; anything else runs until
/// it is ended.
#[derive(Clone, Default)]
pub(crate) struct MemoryDriver(Arc<Mutex<BTreeMap<ContainerId, Pretended>>>);

struct Pretended {
    spec: ContainerSpec,
    state: watch::Sender<ContainerState>,
}

impl MemoryDriver {
    /// A container that runs, whoever started it.
    pub(crate) fn pretend(&self, uid: &str, name: &str) -> ContainerId {
        let id = ContainerId(format!("{uid}/{name}/0"));
        let spec = ContainerSpec {
            pod: PodSandbox {
                uid: uid.to_owned(),
                namespace: "default".to_owned(),
                name: name.to_owned(),
                hostname: name.to_owned(),
                address: None,
                host_network: false,
                cpu_request_milli: 0,
                annotations: BTreeMap::new(),
            },
            name: name.to_owned(),
            attempt: 0,
            is_init: false,
            image: String::new(),
            pull: PullPolicy::Never,
            command: Vec::new(),
            args: Vec::new(),
            working_dir: None,
            env: Vec::new(),
            mounts: Vec::new(),
            resources: Resources::default(),
            user: User::default(),
            security: Security::default(),
            gpus: Vec::new(),
            log: LogLimit::default(),
        };
        let running = ContainerState::Running { started_at: clock::timestamp(), pid: 1 };
        self.0.lock().insert(id.clone(), Pretended { spec, state: watch::Sender::new(running) });
        id
    }

    /// Ends a container by itself.
    pub(crate) fn end(&self, id: &str, code: i32) {
        if let Some(container) = self.0.lock().get(&ContainerId(id.to_owned())) {
            container.state.send_replace(ContainerState::Exited(exit(code)));
        }
    }

    /// The ids of those that run.
    pub(crate) fn running(&self) -> Vec<String> {
        let all = self.0.lock();
        let running =
            all.iter().filter(|(_, c)| matches!(*c.state.borrow(), ContainerState::Running { .. }));
        running.map(|(id, _)| id.0.clone()).collect()
    }

    /// All that the driver knows.
    pub(crate) fn known(&self) -> usize {
        self.0.lock().len()
    }

    /// The environment of a container.
    pub(crate) fn env(&self, id: &str) -> BTreeMap<String, String> {
        let all = self.0.lock();
        all.get(&ContainerId(id.to_owned()))
            .map(|c| c.spec.env.iter().cloned().collect())
            .unwrap_or_default()
    }

    /// The GPUs of a container.
    pub(crate) fn gpus(&self, id: &str) -> Vec<String> {
        let all = self.0.lock();
        all.get(&ContainerId(id.to_owned())).map(|c| c.spec.gpus.clone()).unwrap_or_default()
    }

    fn state(&self, id: &ContainerId) -> Result<watch::Receiver<ContainerState>, DriverError> {
        let all = self.0.lock();
        all.get(id)
            .map(|c| c.state.subscribe())
            .ok_or_else(|| DriverError::NoContainer { id: id.clone() })
    }
}

fn exit(code: i32) -> Exit {
    Exit {
        code,
        signal: None,
        started_at: None,
        finished_at: clock::timestamp(),
        reason: Exit::reason_for(code, false).to_owned(),
        message: String::new(),
    }
}

impl ContainerDriver for MemoryDriver {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn prepare_pod(&self, _: PodSandbox) -> Answer<'_, ()> {
        async { Ok(()) }.boxed()
    }

    fn remove_pod<'a>(&'a self, uid: &'a str) -> Answer<'a, ()> {
        self.0.lock().retain(|_, container| container.spec.pod.uid != uid);
        async { Ok(()) }.boxed()
    }

    fn start(&self, spec: ContainerSpec) -> Answer<'_, Started, StartError> {
        let id = ContainerId(format!("{}/{}/{}", spec.pod.uid, spec.name, spec.attempt));
        let started_at = clock::timestamp();
        let words: Vec<_> = spec.command.iter().map(String::as_str).collect();
        let is_heard = words.as_slice() != ["unheard"];
        let state = match words.as_slice() {
            ["missing"] => {
                let error = StartError::NotFound { command: "missing".to_owned() };
                return async { Err(error) }.boxed();
            }
            ["exit", code] => ContainerState::Exited(exit(code.parse().unwrap())),
            _ => ContainerState::Running { started_at, pid: 1 },
        };
        self.0.lock().insert(id.clone(), Pretended { spec, state: watch::Sender::new(state) });
        async move {
            if is_heard {
                return Ok(Started { id, started_at, warnings: Vec::new() });
            }
            let (what, cause) = ("start a container".to_owned(), "no answer".to_owned());
            Err(DriverError::Engine { what, cause }.into())
        }
        .boxed()
    }

    fn settle<'a>(&'a self, uid: &'a str) -> Answer<'a, ()> {
        let is_unheard = |spec: &ContainerSpec| spec.pod.uid == uid && spec.command == ["unheard"];
        self.0.lock().retain(|_, container| !is_unheard(&container.spec));
        async { Ok(()) }.boxed()
    }

    fn stop<'a>(&'a self, id: &'a ContainerId, _: Duration) -> Answer<'a, Exit> {
        async move {
            self.state(id)?;
            let is_running = self.running().contains(&id.0);
            if is_running {
                self.end(&id.0, 143);
            }
            self.wait(id).await
        }
        .boxed()
    }

    fn inspect<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, ContainerState> {
        async move { Ok(self.state(id)?.borrow().clone()) }.boxed()
    }

    fn wait<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, Exit> {
        async move {
            let mut state = self.state(id)?;
            let gone = || DriverError::NoContainer { id: id.clone() };
            let ended = state
                .wait_for(|state| matches!(state, ContainerState::Exited(_)))
                .await
                .map_err(|_| gone())?;
            match &*ended {
                ContainerState::Exited(exit) => Ok(exit.clone()),
                _ => Err(gone()),
            }
        }
        .boxed()
    }

    fn logs<'a>(&'a self, id: &'a ContainerId, options: LogOptions) -> Answer<'a, LogStream> {
        async move {
            self.state(id)?;
            let line = |stream, text: &str, partial| LogLine {
                time: Timestamp::UNIX_EPOCH,
                stream,
                bytes: text.to_owned().into(),
                partial,
            };
            let command = self.0.lock().get(id).map(|one| one.spec.command.join(" "));
            let lines = match command.as_deref() {
                // A line of each output, in pieces, as they were written.
                Some("interleave") => vec![
                    line(Stream::Stderr, "stderr's ", true),
                    line(Stream::Stdout, "stdout's ", true),
                    line(Stream::Stdout, "line", false),
                    line(Stream::Stderr, "line", false),
                ],
                _ => (1..=3).map(|n| line(Stream::Stdout, &format!("line {n}"), false)).collect(),
            };
            let skip = lines.len() - options.tail.unwrap_or(lines.len()).min(lines.len());
            Ok(stream::iter(lines.into_iter().skip(skip).map(Ok)).boxed())
        }
        .boxed()
    }

    /// `exit N` ends at once with N; anything else takes too long.
    fn exec<'a>(
        &'a self,
        id: &'a ContainerId,
        command: Vec<String>,
        limit: Duration,
    ) -> Answer<'a, Executed> {
        async move {
            if !self.running().contains(&id.0) {
                return Err(DriverError::NotRunning { id: id.clone() });
            }
            match command.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
                ["exit", code] => {
                    Ok(Executed { code: code.parse().unwrap(), output: "said".to_owned() })
                }
                _ => Err(DriverError::TooLong { id: id.clone(), waited: limit }),
            }
        }
        .boxed()
    }

    fn run<'a>(&'a self, id: &'a ContainerId, wanted: Wanted) -> Answer<'a, Attached> {
        async move {
            if !self.running().contains(&id.0) {
                return Err(DriverError::NotRunning { id: id.clone() });
            }
            Ok(echo::echo(wanted))
        }
        .boxed()
    }

    fn remove<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, ()> {
        self.0.lock().remove(id);
        async { Ok(()) }.boxed()
    }

    fn list(&self) -> Answer<'_, Vec<Found>> {
        let all = self.0.lock();
        let found = all.iter().map(|(id, container)| Found {
            id: id.clone(),
            pod_uid: container.spec.pod.uid.clone(),
            container: container.spec.name.clone(),
            attempt: container.spec.attempt,
            state: container.state.borrow().clone(),
        });
        let found: Vec<_> = found.collect();
        async { Ok(found) }.boxed()
    }

    fn pods(&self) -> Answer<'_, BTreeSet<String>> {
        let uids = self.0.lock().values().map(|c| c.spec.pod.uid.clone()).collect();
        async { Ok(uids) }.boxed()
    }

    fn stats<'a>(&'a self, _: &'a ContainerId) -> Answer<'a, ContainerStats> {
        async { Ok(ContainerStats::default()) }.boxed()
    }
}

fn gpu(index: u32) -> Gpu {
    Gpu {
        index,
        uuid: format!("GPU-{index}"),
        name: "Imaginary".to_owned(),
        memory_bytes: 1 << 34,
        memory_used_bytes: 0,
        utilization_percent: 0,
        health: GpuHealth::Healthy,
    }
}

struct Unchanging(Vec<Gpu>);

impl GpuDriver for Unchanging {
    fn list(&self) -> Vec<Gpu> {
        self.0.clone()
    }
}

struct Deaf;

impl Heart for Deaf {
    fn beat(&self, _: Heartbeat) -> Pulse<'_> {
        async { true }.boxed()
    }
}

/// A node with its actor.
pub(crate) struct Machine {
    pub(crate) registry: RegistryHandle,
    pub(crate) driver: MemoryDriver,
    pub(crate) node: ActorNode,
    pub(crate) actor: ActorRef<NodeRole>,
    _folder: Arc<tempfile::TempDir>,
}

impl Machine {
    /// A node `n1` with so much CPU.
    pub(crate) async fn start(cpu_milli: u64) -> Self {
        Self::over(Arc::new(MemoryRegistry::new()), MemoryDriver::default(), cpu_milli).await
    }

    /// A node over what an earlier one left.
    pub(crate) async fn over(
        registry: RegistryHandle,
        driver: MemoryDriver,
        cpu_milli: u64,
    ) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        Self::with_gpus(registry, driver, cpu_milli, 0, folder).await
    }

    /// A node with this many GPUs, over what an earlier one left in the folder too.
    pub(crate) async fn with_gpus(
        registry: RegistryHandle,
        driver: MemoryDriver,
        cpu_milli: u64,
        gpus: u32,
        folder: Arc<tempfile::TempDir>,
    ) -> Self {
        let authority = ClusterAuthority::create("test").unwrap();
        let credential =
            authority.issue("n1", PeerRole::Control, &[], Duration::from_hours(1)).unwrap();
        let node = ActorNode::start(NodeConfig {
            gate: Arc::new(PermitAll),
            ..NodeConfig::new(credential)
        })
        .await
        .unwrap();
        let mut facts = facts(cpu_milli);
        facts.capacity.set(GPU, gpus.into());
        facts.allocatable.set(GPU, gpus.into());
        let gpus: Vec<_> = (0..gpus).map(gpu).collect();
        let seed = NodeSeed::new(NodeParts {
            node: node.clone(),
            driver: Arc::new(driver.clone()),
            registry: registry.clone(),
            members: tokio::sync::watch::channel(vec![node.name().clone()]).1,
            heart: Arc::new(Deaf),
            addresses: AddressPool::open(folder.path(), "127.1.0.0/24".parse().unwrap()).unwrap(),
            gpus: GpuPool::open(folder.path(), &gpus).unwrap(),
            gpu_driver: Arc::new(Unchanging(gpus)),
            pods_folder: folder.path().join("pods"),
            facts,
            scale: BackoffScale {
                first: Duration::from_millis(20),
                longest: Duration::from_millis(100),
                forgiven_after: Duration::from_mins(10),
            },
            dns: None,
        });
        let actor = node
            .spawn::<NodeRole, _>(NODE, SpawnOptions::default(), move |_| seed.actor())
            .unwrap();
        Self { registry, driver, node, actor, _folder: folder }
    }

    /// Creates a pod; its uid is its name.
    pub(crate) async fn create(&self, name: &str, spec: Value) -> Key {
        let key = Key::new("pods", "ns", name);
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "ns", "uid": name, "creationTimestamp": "2024-01-01T00:00:00Z"},
            "spec": spec, "status": {"phase": "Pending"}
        });
        self.registry.transact(Transaction::create(key.clone(), pod.to_string())).await.unwrap();
        key
    }

    /// Waits until the object with this key (null when it is gone) is as wanted.
    pub(crate) async fn until(
        &self,
        key: &Key,
        what: &str,
        holds: impl Fn(&Value) -> bool,
    ) -> Value {
        let select =
            Selection { namespace: Some(key.namespace.clone()), ..Selection::all(&key.resource) };
        let mut seen = follow(self.registry.clone(), select.named(&key.name));
        let mut last = Value::Null;
        let value = |entry: &Entry| serde_json::from_slice::<Value>(&entry.value).unwrap();
        let waited = tokio::time::timeout(LIMIT, async {
            loop {
                let versions: Vec<_> = match seen.next().await.expect("follow never ends") {
                    Followed::All(entries) => vec![entries.first().map(value).unwrap_or_default()],
                    Followed::Changes(events) => events
                        .iter()
                        .map(|event| match event {
                            WatchEvent::Put { entry, .. } => value(entry),
                            WatchEvent::Delete { .. } => Value::Null,
                        })
                        .collect(),
                };
                for version in versions {
                    last = version;
                    if holds(&last) {
                        return;
                    }
                }
            }
        });
        assert!(waited.await.is_ok(), "{what}: not within {LIMIT:?}; last seen {last:#}");
        last
    }

    /// Waits until the driver is as wanted.
    pub(crate) async fn until_driver(&self, what: &str, holds: impl Fn(&MemoryDriver) -> bool) {
        eventually(
            what,
            async || {
                if holds(&self.driver) { Ok(()) } else { Err(self.driver.running()) }
            },
        )
        .await;
    }
}
