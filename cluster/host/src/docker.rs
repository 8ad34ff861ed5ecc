//! The `docker` driver: containers of Docker Engine, over its socket.
//!
//! - A pod is a *sandbox* container that holds the network and does nothing (`pause`); the pod's
//!   containers join it, so that one may restart without the others losing their address.
//! - All that this node started carries labels (`impresario.dev/cluster`, `node`, `pod-uid`,
//!   `container`, `attempt`); by them it is found again, and nothing else is ever touched.
//! - Every call has a deadline. While the engine is away, `wait` waits with growing pauses: its
//!   containers may well go on.

mod begin;
mod call;
mod config;
mod exec;
mod gpus;
mod image;
mod output;
mod pause;
mod reach;
mod session;
mod source;
mod translate;
mod unsure;
mod usage;

use crate::container::{
    Answer, Attached, ContainerDriver, ContainerId, ContainerSpec, ContainerState, ContainerStats,
    DriverError, Executed, Exit, Found, LogOptions, LogStream, PodSandbox, StartError, Started,
    Used, Wanted,
};
use crate::opening::Openings;
use crate::private;
use crate::process::cgroup::cpu_shares;
use bollard::{
    API_DEFAULT_VERSION, Docker,
    errors::Error,
    models::{ContainerCreateBody, ContainerSummary, HostConfig},
    query_parameters::{
        CreateContainerOptionsBuilder, InspectContainerOptions, KillContainerOptionsBuilder,
        ListContainersOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions,
        StatsOptionsBuilder, WaitContainerOptions,
    },
};
use call::{CALL_LIMIT, PULL_LIMIT, Refused, call};
pub use config::DockerConfig;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use gpus::Gpus;
use impresario_ambient::random;
pub(crate) use reach::running;
use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    time::Duration,
};
use tokio::time::timeout;
use unsure::Unsure;

/// How long SIGKILL may take.
const KILL_LIMIT: Duration = Duration::from_secs(30);
/// The longest pause before the engine is asked again.
const RETRY_LIMIT: Duration = Duration::from_secs(5);

/// Runs containers through Docker Engine.
#[derive(Debug, Clone)]
pub struct DockerDriver {
    docker: Docker,
    config: DockerConfig,
    gpus: Gpus,
    unsure: Unsure,
    openings: Openings,
}

impl DockerDriver {
    /// Connects to the engine and agrees on a version of its interface.
    pub async fn connect(config: DockerConfig) -> Result<Self, DriverError> {
        let socket = config.socket.display().to_string();
        let seconds = PULL_LIMIT.as_secs(); // ours are tighter, call by call
        let docker = Docker::connect_with_unix(&socket, seconds, API_DEFAULT_VERSION);
        let docker = docker.map_err(|error| DriverError::Engine {
            what: format!("open {socket}"),
            cause: error.to_string(),
        })?;
        let agreed = call("agree on a version", CALL_LIMIT, docker.negotiate_version()).await;
        // The node's name is its own among those of its cluster.
        let tag = format!("{}-{}", config.cluster, config.node);
        if let Err(error) = private::announce(&tag, &config.hidden) {
            tracing::warn!(%error, "pods of this user's other nodes on this machine can be given this one's files");
        }
        Ok(Self {
            docker: agreed?,
            config,
            gpus: Gpus::default(),
            unsure: Unsure::default(),
            openings: Openings::new(CALL_LIMIT),
        })
    }

    fn labels(&self, uid: &str) -> HashMap<String, String> {
        HashMap::from([
            (translate::CLUSTER.to_owned(), self.config.cluster.clone()),
            (translate::NODE.to_owned(), self.config.node.clone()),
            (translate::POD_UID.to_owned(), uid.to_owned()),
        ])
    }

    fn container_name(&self, uid: &str, rest: &str) -> String {
        format!("impresario-{}-{uid}-{rest}", self.config.node)
    }

    /// The containers of this node, or of one pod on it, sandboxes included.
    async fn ours(&self, uid: Option<&str>) -> Result<Vec<ContainerSummary>, Refused> {
        let mut labels = vec![
            format!("{}={}", translate::CLUSTER, self.config.cluster),
            format!("{}={}", translate::NODE, self.config.node),
        ];
        labels.extend(uid.map(|uid| format!("{}={uid}", translate::POD_UID)));
        let filters = HashMap::from([("label", labels)]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        call("list containers", CALL_LIMIT, self.docker.list_containers(Some(options))).await
    }

    async fn look(&self, id: &ContainerId) -> Result<ContainerState, DriverError> {
        let inspect = self.docker.inspect_container(&id.0, None::<InspectContainerOptions>);
        let found = call("inspect a container", CALL_LIMIT, inspect).await;
        let found = found.map_err(|refused| refused.about(id));
        if matches!(found, Err(DriverError::NoContainer { .. })) {
            self.gpus.let_go(&id.0);
        }
        let state = found?.state.as_ref().map_or(ContainerState::Created, translate::state);
        if matches!(state, ContainerState::Exited(_)) {
            self.gpus.let_go(&id.0);
        }
        Ok(state)
    }

    /// Makes sure that something holds the pod's network, and returns the mode to join it.
    async fn sandbox(&self, pod: &PodSandbox) -> Result<String, DriverError> {
        if pod.host_network {
            return Ok("host".into());
        }
        let name = self.container_name(&pod.uid, "sandbox");
        let mode = format!("container:{name}");
        self.import_pause().await?;
        let body = ContainerCreateBody {
            image: Some(pause::IMAGE.into()),
            entrypoint: Some(vec![pause::PROGRAM.into()]),
            hostname: Some(pod.hostname.chars().take(63).collect()),
            labels: Some(self.labels(&pod.uid)),
            host_config: Some(HostConfig {
                network_mode: Some(self.config.network.clone()),
                cpu_shares: Some(cpu_shares(0) as i64),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::new().name(&name).build();
        let create = self.docker.create_container(Some(options), body);
        match call("create a pod's sandbox", CALL_LIMIT, create).await {
            Ok(_) | Err(Refused { code: 409, .. }) => {} // it is there
            Err(refused) => return Err(refused.into()),
        }
        let start = self.docker.start_container(&name, None::<StartContainerOptions>);
        call("start a pod's sandbox", CALL_LIMIT, start).await?; // no error if it runs
        Ok(mode)
    }

    /// Removes a container, running or not; it may be gone already.
    async fn discard(&self, id: &str) -> Result<(), DriverError> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        let remove = self.docker.remove_container(id, Some(options));
        match call("remove a container", CALL_LIMIT, remove).await {
            Ok(()) | Err(Refused { code: 404, .. }) => {
                self.gpus.let_go(id);
                Ok(())
            }
            // Another removal of it is under way.
            Err(Refused { code: 409, message, .. }) if message.contains("already in progress") => {
                Ok(())
            }
            Err(refused) => Err(refused.into()),
        }
    }

    async fn send(&self, id: &ContainerId, signal: &str) -> Result<(), DriverError> {
        let options = KillContainerOptionsBuilder::new().signal(signal).build();
        let kill = self.docker.kill_container(&id.0, Some(options));
        match call("signal a container", CALL_LIMIT, kill).await {
            Ok(()) | Err(Refused { code: 409, .. }) => Ok(()), // it is not running (any more)
            Err(refused) => Err(refused.about(id)),
        }
    }

    async fn until_exit(&self, id: &ContainerId) -> Result<Exit, DriverError> {
        let mut pause = Duration::from_millis(100);
        loop {
            match self.look(id).await {
                Ok(ContainerState::Exited(exit)) => return Ok(exit),
                Err(error @ DriverError::NoContainer { .. }) => return Err(error),
                Ok(ContainerState::Created | ContainerState::Running { .. }) => {
                    // Its end wakes us; so does the engine's, and then the next look tells.
                    let mut ends = self.docker.wait_container(&id.0, None::<WaitContainerOptions>);
                    let told = ends.next().await;
                    let end =
                        matches!(told, Some(Ok(_) | Err(Error::DockerContainerWaitError { .. })));
                    if end {
                        pause = Duration::from_millis(100);
                    }
                }
                Err(error) => tracing::debug!(%id, %error, "the engine is asked again later"),
            }
            if let Ok(ContainerState::Exited(exit)) = self.look(id).await {
                return Ok(exit);
            }
            tokio::time::sleep(pause.mul_f64(random::random_range(0.5..1.0))).await;
            pause = (pause * 2).min(RETRY_LIMIT);
        }
    }

    async fn end(&self, id: &ContainerId, grace: Duration) -> Result<Exit, DriverError> {
        if !grace.is_zero() {
            self.send(id, "SIGTERM").await?;
            if let Ok(exit) = timeout(grace, self.until_exit(id)).await {
                return exit;
            }
        }
        self.send(id, "SIGKILL").await?;
        let Ok(exit) = timeout(KILL_LIMIT, self.until_exit(id)).await else {
            return Err(DriverError::Unkillable { id: id.clone(), waited: KILL_LIMIT });
        };
        exit
    }

    async fn all(&self) -> Result<Vec<Found>, DriverError> {
        let found = stream::iter(self.ours(None).await?)
            .map(|summary| self.found(summary))
            .buffer_unordered(8)
            .try_collect::<Vec<_>>()
            .await?;
        let mut found: Vec<_> = found.into_iter().flatten().collect();
        found.sort_by(|a, b| {
            (&a.pod_uid, &a.container, a.attempt).cmp(&(&b.pod_uid, &b.container, b.attempt))
        });
        Ok(found)
    }

    /// `None` for a sandbox, and for what was removed meanwhile.
    async fn found(&self, summary: ContainerSummary) -> Result<Option<Found>, DriverError> {
        let labels = summary.labels.unwrap_or_default();
        let named = (labels.get(translate::POD_UID), labels.get(translate::CONTAINER));
        let ((Some(pod_uid), Some(container)), Some(id)) = (named, summary.id) else {
            return Ok(None);
        };
        let attempt = labels.get(translate::ATTEMPT).and_then(|n| n.parse().ok()).unwrap_or(0);
        let id = ContainerId(id);
        match self.look(&id).await {
            Ok(state) => {
                if matches!(state, ContainerState::Running { .. }) {
                    self.gpus.take_again(&id, &labels);
                }
                let (pod_uid, container) = (pod_uid.clone(), container.clone());
                Ok(Some(Found { id, pod_uid, container, attempt, state }))
            }
            Err(DriverError::NoContainer { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn address_of(&self, uid: &str) -> Result<Option<IpAddr>, DriverError> {
        let name = self.container_name(uid, "sandbox");
        let inspect = self.docker.inspect_container(&name, None::<InspectContainerOptions>);
        let found = match call("inspect a pod's sandbox", CALL_LIMIT, inspect).await {
            Ok(found) => found,
            Err(Refused { code: 404, .. }) => return Ok(None),
            Err(refused) => return Err(refused.into()),
        };
        let networks = found.network_settings.and_then(|settings| settings.networks);
        let mut networks = networks.into_iter().flatten();
        Ok(networks.find_map(|(_, network)| network.ip_address?.parse().ok()))
    }
}

fn refusal(spec: &ContainerSpec, refused: Refused) -> StartError {
    translate::start_error(spec, &refused.message)
        .unwrap_or_else(|| DriverError::from(refused).into())
}

impl ContainerDriver for DockerDriver {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn prepare_pod(&self, pod: PodSandbox) -> Answer<'_, ()> {
        async move { self.sandbox(&pod).await.map(drop) }.boxed()
    }

    fn remove_pod<'a>(&'a self, uid: &'a str) -> Answer<'a, ()> {
        async move {
            let (mut members, mut sandboxes) = (Vec::new(), Vec::new());
            for found in self.ours(Some(uid)).await? {
                let labels = found.labels.unwrap_or_default();
                let is_member = labels.contains_key(translate::CONTAINER);
                let list = if is_member { &mut members } else { &mut sandboxes };
                list.extend(found.id);
            }
            // The network goes last.
            for id in members.iter().chain(&sandboxes) {
                self.discard(id).await?;
            }
            self.unsure.gone(&self.container_name(uid, ""));
            Ok(())
        }
        .boxed()
    }

    fn start(&self, spec: ContainerSpec) -> Answer<'_, Started, StartError> {
        self.begin(spec).boxed()
    }

    fn settle<'a>(&'a self, uid: &'a str) -> Answer<'a, ()> {
        async move {
            for name in self.unsure.names(&self.container_name(uid, "")) {
                self.discard(&name).await?;
                drop(self.unsure.known(&name));
            }
            Ok(())
        }
        .boxed()
    }

    fn stop<'a>(&'a self, id: &'a ContainerId, grace: Duration) -> Answer<'a, Exit> {
        self.end(id, grace).boxed()
    }

    fn inspect<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, ContainerState> {
        self.look(id).boxed()
    }

    fn wait<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, Exit> {
        self.until_exit(id).boxed()
    }

    fn logs<'a>(&'a self, id: &'a ContainerId, options: LogOptions) -> Answer<'a, LogStream> {
        self.read_logs(id, options).boxed()
    }

    fn exec<'a>(
        &'a self,
        id: &'a ContainerId,
        command: Vec<String>,
        limit: Duration,
    ) -> Answer<'a, Executed> {
        self.run_in(id, command, limit).boxed()
    }

    fn run<'a>(&'a self, id: &'a ContainerId, wanted: Wanted) -> Answer<'a, Attached> {
        self.run_for_somebody(id, wanted).boxed()
    }

    fn remove<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, ()> {
        async move {
            let options = RemoveContainerOptionsBuilder::new().v(true).build();
            let remove = self.docker.remove_container(&id.0, Some(options));
            match call("remove a container", CALL_LIMIT, remove).await {
                Ok(()) => Ok(()),
                Err(Refused { code: 409, .. }) => Err(DriverError::Running { id: id.clone() }),
                Err(refused) => Err(refused.about(id)),
            }
        }
        .boxed()
    }

    fn list(&self) -> Answer<'_, Vec<Found>> {
        self.all().boxed()
    }

    fn pods(&self) -> Answer<'_, BTreeSet<String>> {
        async move {
            let uid = |found: ContainerSummary| found.labels?.remove(translate::POD_UID);
            Ok(self.ours(None).await?.into_iter().filter_map(uid).collect())
        }
        .boxed()
    }

    fn pod_address<'a>(&'a self, uid: &'a str) -> Answer<'a, Option<IpAddr>> {
        self.address_of(uid).boxed()
    }

    fn stats<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, ContainerStats> {
        async move {
            let options = StatsOptionsBuilder::new().stream(false).one_shot(true).build();
            let mut stats = Box::pin(self.docker.stats(&id.0, Some(options)));
            let next = async {
                stats.next().await.unwrap_or_else(|| {
                    let message = "an empty answer".to_owned();
                    Err(Error::DockerResponseServerError { status_code: 0, message })
                })
            };
            let found = call("read a container's figures", CALL_LIMIT, next).await;
            found.map(|found| translate::stats(&found)).map_err(|refused| refused.about(id))
        }
        .boxed()
    }

    fn usage(&self) -> Answer<'_, Vec<Used>> {
        self.used().boxed()
    }
}
