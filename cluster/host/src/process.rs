//! The `process` driver: a container is a command of this machine, kept by a small process.
//!
//! - The keeper ([`crate::shim`]) outlives the node's process; what a predecessor left is found
//!   again by the files in the data directory, never by a bare pid, and goes on undisturbed (P8).
//! - The image is ignored. With root a container has control groups and a mount namespace; else
//!   it has a session of its own and is ended through its reaper.
//! - Everything is below the data directory and goes with the pod.

pub mod cgroup;
pub mod identity;
pub mod record;

use crate::{
    container::{
        Answer, ContainerDriver, ContainerId, ContainerSpec, ContainerState, ContainerStats,
        DriverError, Exit, Found, LogOptions, LogStream, PodSandbox, StartError, Started, cri_log,
        is_path_component,
    },
    descriptor, volumes,
};
use cgroup::Cgroup;
use futures_util::{FutureExt, StreamExt, stream};
use identity::ProcessKey;
use jiff::Timestamp;
use parking_lot::Mutex;
use record::{Born, Failed, Order, Report};
use rustix::process::Signal;
use std::{
    collections::{BTreeSet, HashSet},
    ffi::OsString,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::AsyncReadExt,
    process::{Child, Command},
    task::JoinSet,
    time::timeout,
};

/// How long a container may take from its order to its command.
const START_LIMIT: Duration = Duration::from_secs(90);
/// How long SIGKILL may take.
const KILL_LIMIT: Duration = Duration::from_secs(20);
/// How long a keeper may take from its order to its first file, in seconds.
const TAKEN_LIMIT_S: i64 = 10;
/// How often it is looked where the kernel has no pidfd.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Where and how containers are run.
#[derive(Debug, Clone)]
pub struct ProcessConfig {
    /// The node's data directory; the driver's files are in `pods` below it.
    pub data: PathBuf,
    /// The command that runs [`crate::shim::main`], such as `["/proc/self/exe", "__shim"]`.
    pub shim: Vec<OsString>,
    /// Files and folders that no container may see, where the machine lets us hide them; the
    /// files of pods are among them anyway.
    pub hidden: Vec<PathBuf>,
}

/// Runs commands of this machine as containers.
pub struct ProcessDriver {
    inner: Arc<Inner>,
}

struct Inner {
    config: ProcessConfig,
    /// Tells the groups of this node's containers from those of another node on this machine.
    tag: String,
    /// Containers between their order and its answer.
    starting: Mutex<HashSet<ContainerId>>,
    /// Waits for the keepers that are children of this process.
    reapers: Mutex<JoinSet<()>>,
}

impl ProcessDriver {
    /// A driver over a data directory, which may hold what a predecessor left.
    pub fn new(config: ProcessConfig) -> Result<Self, DriverError> {
        let pods = config.data.join("pods");
        make_folder(&pods, 0o755).map_err(DriverError::io(format!("making {}", pods.display())))?;
        let data = fs::canonicalize(&config.data)
            .map_err(DriverError::io(format!("finding {}", config.data.display())))?;
        let mut hasher = DefaultHasher::new();
        data.hash(&mut hasher);
        let tag = format!("{:016x}", hasher.finish());
        let mut config = ProcessConfig { data, ..config };
        // The volumes of other pods are none of a container's business; its own are mounted.
        config.hidden.push(config.data.join("pods"));
        let (starting, reapers) = Default::default();
        Ok(Self { inner: Arc::new(Inner { config, tag, starting, reapers }) })
    }

    /// Where a pod's files are: its volumes and its containers.
    pub fn pod_folder(&self, uid: &str) -> PathBuf {
        self.inner.pods().join(uid)
    }
}

fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(mode).create(path)
}

impl Inner {
    fn pods(&self) -> PathBuf {
        self.config.data.join("pods")
    }

    /// A container's folder; an id that could mean another place is the id of no container.
    fn folder(&self, id: &ContainerId) -> Result<PathBuf, DriverError> {
        let (uid, name, attempt) =
            parse(id).ok_or_else(|| DriverError::NoContainer { id: id.clone() })?;
        let folder = self.pods().join(uid).join("containers").join(name).join(attempt.to_string());
        if folder.is_dir() { Ok(folder) } else { Err(DriverError::NoContainer { id: id.clone() }) }
    }

    async fn start(&self, spec: ContainerSpec) -> Result<Started, StartError> {
        for part in [&spec.pod.uid, &spec.name] {
            if !is_path_component(part) {
                return Err(StartError::Config { what: format!("{part:?} cannot name a folder") });
            }
        }
        if spec.command.is_empty() && spec.args.is_empty() {
            return Err(StartError::NoCommand);
        }
        let id = ContainerId(format!("{}/{}/{}", spec.pod.uid, spec.name, spec.attempt));
        let above = self.pods().join(&spec.pod.uid).join("containers").join(&spec.name);
        let folder = above.join(spec.attempt.to_string());
        make_folder(&above, 0o700)
            .map_err(DriverError::io(format!("making {}", above.display())))?;
        let _starting = Starting::begin(self, &id)?;
        match fs::DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(StartError::Exists { id: id.clone() });
            }
            Err(error) => {
                return Err(DriverError::io(format!("making {}", folder.display()))(error).into());
            }
        }
        let started = self.order(&id, &folder, spec).await;
        if started.is_err() {
            let _ = fs::remove_dir_all(&folder);
        }
        started
    }

    async fn order(
        &self,
        id: &ContainerId,
        folder: &Path,
        spec: ContainerSpec,
    ) -> Result<Started, StartError> {
        let leaf = format!("{}-{}", spec.name, spec.attempt);
        let cgroup = Path::new(&self.tag).join(&spec.pod.uid).join(leaf);
        let root = nix::unistd::Uid::effective().is_root();
        let order = Order {
            spec,
            folder: folder.to_owned(),
            shim: self.config.shim.clone(),
            cgroup: root.then(|| Cgroup::plan(&cgroup)).flatten(),
            hidden: self.config.hidden.clone(),
        };
        let write = record::write(folder, "order.json", &order);
        write.map_err(DriverError::io(format!("writing {}/order.json", folder.display())))?;
        let mut child = self.spawn_keeper(folder)?;
        let mut bytes = Vec::new();
        let heard = match child.stdout.take() {
            Some(mut out) => timeout(START_LIMIT, out.read_to_end(&mut bytes)).await,
            None => Ok(Ok(0)),
        };
        let report = match heard {
            Ok(Ok(_)) => serde_json::from_slice(&bytes).map_err(io::Error::from),
            Ok(Err(error)) => Err(error),
            Err(elapsed) => Err(io::Error::new(io::ErrorKind::TimedOut, elapsed)),
        };
        if report.is_err() {
            let _ = child.start_kill();
        }
        self.reap(child);
        match report {
            Ok(Report::Born(born)) => {
                Ok(Started { id: id.clone(), started_at: born.started_at, warnings: born.warnings })
            }
            Ok(Report::Failed(failed)) => Err(failed.into()),
            Err(error) => {
                let said = cri_log::last_line(&folder.join("keeper.err"), 4096).unwrap_or_default();
                end_orphans(folder);
                Err(DriverError::io(format!("the keeper of {id} gave no answer ({said})"))(error)
                    .into())
            }
        }
    }

    fn spawn_keeper(&self, folder: &Path) -> Result<Child, DriverError> {
        let [program, args @ ..] = self.config.shim.as_slice() else {
            let cause = io::ErrorKind::InvalidInput.into();
            return Err(DriverError::Io { what: "no shim command is configured".into(), cause });
        };
        let errors = fs::File::create(folder.join("keeper.err"))
            .map_err(DriverError::io("making keeper.err"))?;
        Command::new(program)
            .args(args)
            .arg("keep")
            .arg(folder)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .map_err(DriverError::io(format!("starting the keeper {}", program.display())))
    }

    /// A keeper that is our child must be waited for when it ends, or it stays as a zombie.
    fn reap(&self, mut child: Child) {
        let mut reapers = self.reapers.lock();
        while reapers.try_join_next().is_some() {}
        reapers.spawn(async move {
            let _ = child.wait().await;
        });
    }

    fn state(&self, id: &ContainerId) -> Result<ContainerState, DriverError> {
        let folder = self.folder(id)?;
        let read = DriverError::io(format!("reading {}", folder.display()));
        self.state_in(id, &folder).map_err(read)
    }

    fn state_in(&self, id: &ContainerId, folder: &Path) -> io::Result<ContainerState> {
        // The keeper is looked at first: if it goes after that, its exit is there to be read.
        let keeper: Option<ProcessKey> = record::read(folder, "keeper.json")?;
        let runs = keeper.as_ref().is_some_and(ProcessKey::is_running);
        if let Some(exit) = record::read::<Exit>(folder, "exit.json")? {
            return Ok(ContainerState::Exited(exit));
        }
        if self.starting.lock().contains(id) {
            return Ok(ContainerState::Created);
        }
        let born: Option<Born> = record::read(folder, "born.json")?;
        match (runs, born) {
            (true, Some(born)) => {
                Ok(ContainerState::Running { started_at: born.started_at, pid: born.process.pid })
            }
            (true, None) => Ok(ContainerState::Created),
            (false, born) => {
                // An order that no keeper took: whoever renames it first decides.
                let order = folder.join("order.json");
                let called_off = fs::rename(&order, folder.join("abandoned.json")).is_ok();
                let taken = folder.join("taken.json");
                if !called_off && keeper.is_none() && is_fresh(&taken) {
                    return Ok(ContainerState::Created); // taken this very moment
                }
                end_orphans(folder);
                let exit = lost(born.as_ref());
                record::write(folder, "exit.json", &exit)?;
                Ok(ContainerState::Exited(exit))
            }
        }
    }

    async fn wait(&self, id: &ContainerId) -> Result<Exit, DriverError> {
        let folder = self.folder(id)?;
        loop {
            if let ContainerState::Exited(exit) = self.state(id)? {
                return Ok(exit);
            }
            let keeper: Option<ProcessKey> = record::read(&folder, "keeper.json")
                .map_err(DriverError::io(format!("reading {}", folder.display())))?;
            let pidfd = keeper.as_ref().map(ProcessKey::open).transpose();
            match pidfd {
                Ok(Some(Some(fd))) => {
                    let fd =
                        descriptor::readable(fd).map_err(DriverError::io("watching a process"))?;
                    let gone = fd.readable().await;
                    gone.map_err(DriverError::io("watching a process"))?.retain_ready();
                }
                // Gone since: the next look sees its exit. Or not begun yet, or no pidfds here.
                Ok(Some(None)) => tokio::task::yield_now().await,
                Ok(None) | Err(_) => tokio::time::sleep(LOOK_INTERVAL).await,
            }
        }
    }

    async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<Exit, DriverError> {
        let begun = timeout(START_LIMIT, self.begun(id)).await;
        let Ok(keeper) = begun else {
            return Err(DriverError::Unkillable { id: id.clone(), waited: START_LIMIT });
        };
        let Some(keeper) = keeper? else { return self.wait(id).await };
        let send = |signal| {
            keeper.signal(signal).map_err(DriverError::io(format!("signalling the keeper of {id}")))
        };
        if !grace.is_zero() {
            send(Signal::TERM)?;
            if let Ok(exit) = timeout(grace, self.wait(id)).await {
                return exit;
            }
        }
        send(Signal::USR1)?;
        if let Ok(exit) = timeout(KILL_LIMIT, self.wait(id)).await {
            return exit;
        }
        // The keeper itself hangs: without it the container's first process dies, and what else
        // there is of it is found by its groups.
        send(Signal::KILL)?;
        let Ok(exit) = timeout(KILL_LIMIT, self.wait(id)).await else {
            return Err(DriverError::Unkillable { id: id.clone(), waited: 2 * KILL_LIMIT });
        };
        exit
    }

    /// The keeper of a container whose command executes; `None` when it has ended.
    async fn begun(&self, id: &ContainerId) -> Result<Option<ProcessKey>, DriverError> {
        let folder = self.folder(id)?;
        loop {
            match self.state(id)? {
                ContainerState::Exited(_) => return Ok(None),
                ContainerState::Running { .. } => {
                    return record::read(&folder, "keeper.json")
                        .map_err(DriverError::io(format!("reading {}", folder.display())));
                }
                ContainerState::Created => tokio::time::sleep(LOOK_INTERVAL).await,
            }
        }
    }

    /// The containers of these pods.
    fn list(&self, pods: Vec<String>) -> Result<Vec<Found>, DriverError> {
        let mut found = Vec::new();
        for pod_uid in pods {
            let containers = self.pods().join(&pod_uid).join("containers");
            for container in names(&containers) {
                for attempt in names(&containers.join(&container)) {
                    let Ok(attempt) = attempt.parse::<u32>() else { continue };
                    let id = ContainerId(format!("{pod_uid}/{container}/{attempt}"));
                    let state = match self.state(&id) {
                        Err(DriverError::NoContainer { .. }) => continue, // removed meanwhile
                        state => state?,
                    };
                    let (pod_uid, container) = (pod_uid.clone(), container.clone());
                    found.push(Found { id, pod_uid, container, attempt, state });
                }
            }
        }
        found.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(found)
    }

    fn stats(&self, id: &ContainerId) -> Result<ContainerStats, DriverError> {
        let folder = self.folder(id)?;
        let read = DriverError::io(format!("reading {}", folder.display()));
        let born: Option<Born> = record::read(&folder, "born.json").map_err(read)?;
        let Some(born) = born else { return Ok(ContainerStats::default()) };
        if let Some(stats) = born.cgroup.as_ref().and_then(Cgroup::stats) {
            return Ok(stats);
        }
        Ok(if born.process.is_running() {
            session_stats(born.process.pid)
        } else {
            ContainerStats::default()
        })
    }
}

/// Whether a file got its name just now: its keeper may not have written its own yet.
fn is_fresh(path: &Path) -> bool {
    let Ok(found) = fs::metadata(path) else { return false };
    let age = Timestamp::now().as_second() - std::os::unix::fs::MetadataExt::ctime(&found);
    (0..TAKEN_LIMIT_S).contains(&age)
}

/// Marks a container as being started, as long as it lives.
struct Starting<'a>(&'a Inner, &'a ContainerId);

impl<'a> Starting<'a> {
    fn begin(inner: &'a Inner, id: &'a ContainerId) -> Result<Self, StartError> {
        if inner.starting.lock().insert(id.clone()) {
            Ok(Self(inner, id))
        } else {
            Err(StartError::Exists { id: id.clone() })
        }
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        self.0.starting.lock().remove(self.1);
    }
}

fn parse(id: &ContainerId) -> Option<(&str, &str, u32)> {
    let mut parts = id.0.split('/');
    let (uid, name, attempt) = (parts.next()?, parts.next()?, parts.next()?.parse().ok()?);
    let plain = parts.next().is_none() && is_path_component(uid) && is_path_component(name);
    plain.then_some((uid, name, attempt))
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_path_component(name))
        .collect()
}

/// Ends what a keeper left that was killed itself.
fn end_orphans(folder: &Path) {
    let Ok(Some(born)) = record::read::<Born>(folder, "born.json") else { return };
    let _ = born.process.signal(Signal::KILL);
    let leader = born.process.pid;
    let reused = identity::stat(leader).is_some_and(|s| s.start_ticks != born.process.start_ticks);
    if !reused {
        // While a process of the session lives, its number is given to no other session.
        for pid in identity::all() {
            if identity::stat(pid).is_some_and(|s| s.session == leader) {
                let key = ProcessKey::of(pid);
                let _ = key.map(|key| key.signal(Signal::KILL));
            }
        }
    }
    if let Some(cgroup) = &born.cgroup {
        cgroup.kill_all(Duration::from_secs(2));
        cgroup.remove();
    }
}

fn lost(born: Option<&Born>) -> Exit {
    Exit {
        code: 137,
        signal: Some(9),
        started_at: born.map(|born| born.started_at),
        finished_at: Timestamp::now(),
        reason: "ContainerStatusUnknown".into(),
        message: "its keeper ended without saying how the container did: killed, or the machine \
                  was restarted"
            .into(),
    }
}

fn session_stats(session: u32) -> ContainerStats {
    const TICKS_PER_SECOND: u64 = 100; // USER_HZ, the same on every Linux that we run on
    let page = rustix::param::page_size() as u64;
    let of_session = identity::all().into_iter().filter_map(identity::stat);
    of_session.filter(|s| s.session == session).fold(ContainerStats::default(), |sum, s| {
        ContainerStats {
            cpu: sum.cpu + Duration::from_millis(s.cpu_ticks * 1000 / TICKS_PER_SECOND),
            memory_bytes: sum.memory_bytes + s.resident_pages * page,
            processes: sum.processes + 1,
        }
    })
}

impl From<Failed> for StartError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::NotFound { command } => Self::NotFound { command },
            Failed::PermissionDenied { command } => Self::PermissionDenied { command },
            Failed::Mount { volume, target, cause } => Self::Mount { volume, target, cause },
            Failed::Config { what } => Self::Config { what },
            Failed::System { what, cause } => {
                Self::Driver(DriverError::Io { what, cause: io::Error::other(cause) })
            }
        }
    }
}

/// Runs what touches many files where it may block.
async fn blocking<T: Send + 'static>(
    inner: &Arc<Inner>,
    work: impl FnOnce(&Inner) -> Result<T, DriverError> + Send + 'static,
) -> Result<T, DriverError> {
    let inner = Arc::clone(inner);
    let done = tokio::task::spawn_blocking(move || work(&inner)).await;
    done.unwrap_or_else(|error| {
        Err(DriverError::Io { what: "working on files".into(), cause: io::Error::other(error) })
    })
}

impl ContainerDriver for ProcessDriver {
    fn name(&self) -> &'static str {
        "process"
    }

    fn prepare_pod(&self, pod: PodSandbox) -> Answer<'_, ()> {
        async move {
            if !is_path_component(&pod.uid) {
                let what = format!("{:?} cannot name a folder", pod.uid);
                return Err(DriverError::Io { what, cause: io::ErrorKind::InvalidInput.into() });
            }
            blocking(&self.inner, move |inner| {
                let folder = inner.pods().join(&pod.uid);
                let prepared = make_folder(&folder.join("containers"), 0o755)
                    .and_then(|()| record::write(&folder, "pod.json", &pod));
                prepared.map_err(DriverError::io(format!("preparing {}", folder.display())))
            })
            .await
        }
        .boxed()
    }

    fn remove_pod<'a>(&'a self, uid: &'a str) -> Answer<'a, ()> {
        async move {
            if !is_path_component(uid) {
                return Ok(());
            }
            let this = vec![uid.to_owned()];
            let found = blocking(&self.inner, move |inner| inner.list(this)).await?;
            let ended = stream::iter(found)
                .map(async |found| self.inner.stop(&found.id, Duration::ZERO).await)
                .buffer_unordered(16)
                .collect::<Vec<_>>()
                .await;
            for outcome in ended {
                match outcome {
                    Ok(_) | Err(DriverError::NoContainer { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            let uid = uid.to_owned();
            blocking(&self.inner, move |inner| {
                let folder = inner.pods().join(uid);
                volumes::remove(&folder)
                    .map_err(DriverError::io(format!("removing {}", folder.display())))
            })
            .await
        }
        .boxed()
    }

    fn start(&self, spec: ContainerSpec) -> Answer<'_, Started, StartError> {
        self.inner.start(spec).boxed()
    }

    fn stop<'a>(&'a self, id: &'a ContainerId, grace: Duration) -> Answer<'a, Exit> {
        self.inner.stop(id, grace).boxed()
    }

    fn inspect<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, ContainerState> {
        async move { self.inner.state(id) }.boxed()
    }

    fn wait<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, Exit> {
        self.inner.wait(id).boxed()
    }

    fn logs<'a>(&'a self, id: &'a ContainerId, options: LogOptions) -> Answer<'a, LogStream> {
        async move {
            let log = self.inner.folder(id)?.join("log");
            let (inner, id) = (Arc::clone(&self.inner), id.clone());
            cri_log::read(log, options, async move {
                let _ = inner.wait(&id).await;
            })
        }
        .boxed()
    }

    fn remove<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, ()> {
        async move {
            let folder = self.inner.folder(id)?;
            if !matches!(self.inner.state(id)?, ContainerState::Exited(_)) {
                return Err(DriverError::Running { id: id.clone() });
            }
            blocking(&self.inner, move |_| {
                fs::remove_dir_all(&folder)
                    .map_err(DriverError::io(format!("removing {}", folder.display())))
            })
            .await
        }
        .boxed()
    }

    fn list(&self) -> Answer<'_, Vec<Found>> {
        blocking(&self.inner, |inner| inner.list(names(&inner.pods()))).boxed()
    }

    fn pods(&self) -> Answer<'_, BTreeSet<String>> {
        let uids = |inner: &Inner| Ok(names(&inner.pods()).into_iter().collect());
        blocking(&self.inner, uids).boxed()
    }

    fn stats<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, ContainerStats> {
        async move { self.inner.stats(id) }.boxed()
    }
}
