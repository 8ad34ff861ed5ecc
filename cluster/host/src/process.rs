//! The `process` driver: a container is a command of this machine, kept by a small process.
//!
//! - The keeper ([`crate::shim`]) outlives the node's process; what a predecessor left is found
//!   again by the files in the data directory, never by a bare pid, and goes on undisturbed (P8).
//! - The image is ignored. With root a container has control groups and a mount namespace; else
//!   it has a session of its own and is ended through its reaper.
//! - Everything is below the data directory and goes with the pod.

pub(crate) mod asked;
pub mod cgroup;
mod end;
mod exec;
pub mod identity;
pub mod oom;
mod orphans;
pub mod record;
mod session;
mod start;
mod usage;

use crate::{
    container::{
        Answer, Attached, ContainerDriver, ContainerId, ContainerSpec, ContainerState,
        ContainerStats, DriverError, Executed, Exit, Found, LogOptions, LogStream, PodSandbox,
        StartError, Started, Used, Wanted, cri_log, is_path_component,
    },
    private,
    program::Program,
    volumes,
};
use futures_util::{FutureExt, StreamExt, stream};
use identity::ProcessKey;
use impresario_ambient::{clock, tasks};
use orphans::{end_orphans, lost};
use parking_lot::Mutex;
use record::Born;
use std::{
    collections::{BTreeSet, HashSet},
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, ErrorKind},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};
use tokio::task::JoinSet;

/// How long a keeper may take from its order to its first file, in seconds.
const TAKEN_LIMIT_S: i64 = 10;

/// How long what a keeper has left may take to end.
const KILL_LIMIT: Duration = Duration::from_secs(2);

/// Where and how containers are run.
#[derive(Debug, Clone)]
pub struct ProcessConfig {
    /// The node's data directory; the driver's files are in `pods` below it.
    pub data: PathBuf,
    /// The command that runs [`crate::shim::main`].
    pub shim: Program,
    /// Files and folders that no container may see, where the machine lets us hide them; the
    /// data directory is among them anyway.
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
    /// Whether containers may have namespaces.
    namespaces: bool,
    /// Containers between their order and its answer.
    starting: Mutex<HashSet<ContainerId>>,
    /// Those whose keepers are gone and of whom something outlived SIGKILL.
    unkillable: Mutex<HashSet<ContainerId>>,
    /// Waits for the keepers that are children of this process.
    reapers: Mutex<JoinSet<()>>,
}

impl ProcessDriver {
    /// A driver over a data directory, which may hold what a predecessor left. Blocks, for seconds where many
    /// containers run from which the directory was not hidden yet: for threads that may.
    pub fn new(config: ProcessConfig) -> Result<Self, DriverError> {
        let pods = config.data.join("pods");
        make_folder(&pods, 0o755).map_err(DriverError::io(format!("making {}", pods.display())))?;
        let data = fs::canonicalize(&config.data)
            .map_err(DriverError::io(format!("finding {}", config.data.display())))?;
        let mut hasher = DefaultHasher::new();
        data.hash(&mut hasher);
        let tag = format!("{:016x}", hasher.finish());
        let mut config = ProcessConfig { data, ..config };
        // The node's files and the volumes of other pods are none of a container's business; its own are mounted.
        config.hidden.push(config.data.clone());
        let announced = private::announce_to_all(&config.shim, &tag, &config.hidden, &pods);
        if let Err(error) = announced {
            tracing::warn!(%error, "containers of this user's other nodes on this machine can see this one's files");
        }
        let namespaces = has_namespaces(&config.shim);
        let (starting, unkillable, reapers) = Default::default();
        let inner = Inner { config, tag, namespaces, starting, unkillable, reapers };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Where a pod's files are: its volumes and its containers.
    pub fn pod_folder(&self, uid: &str) -> PathBuf {
        self.inner.pods().join(uid)
    }
}

/// Whether this user's containers may have namespaces. Where a machine lets users make one and then refuses to say who
/// is who in it (Ubuntu's `kernel.apparmor_restrict_unprivileged_userns`), whoever tried is nobody for good: so
/// that another process tries.
fn has_namespaces(shim: &Program) -> bool {
    let Ok(mut trial) = shim.command("trial") else { return true };
    trial.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // Only what the trial itself says counts. One that cannot be run at all says so when a container is started; one
    // for which there was no process or memory says nothing of namespaces.
    trial.status().map_or(true, |status| status.code() != Some(1))
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

    fn state(&self, id: &ContainerId) -> Result<ContainerState, DriverError> {
        let folder = self.folder(id)?;
        // The keeper is looked at first: if it goes after that, its exit is there to be read.
        let keeper: Option<ProcessKey> = record::read_or_put_aside(&folder, "keeper.json");
        let runs = keeper.as_ref().filter(|keeper| keeper.is_running());
        if let Some(exit) = record::read_or_put_aside::<Exit>(&folder, "exit.json") {
            return Ok(ContainerState::Exited(exit));
        }
        if self.starting.lock().contains(id) {
            return Ok(ContainerState::Created);
        }
        let is_told = folder.join("born.json").exists();
        let born: Option<Born> = record::read_or_put_aside(&folder, "born.json");
        match (runs, born) {
            (Some(_), Some(born)) => {
                Ok(ContainerState::Running { started_at: born.started_at, pid: born.process.pid })
            }
            (Some(keeper), None) => {
                if is_told {
                    // Its record is damaged: it is ended by its keeper, who still knows it.
                    let _ = keeper.signal(rustix::process::Signal::USR1);
                }
                Ok(ContainerState::Created)
            }
            (None, born) => {
                // An order that no keeper took: whoever renames it first decides.
                let order = folder.join("order.json");
                let called_off = fs::rename(&order, folder.join("abandoned.json")).is_ok();
                let taken = folder.join("taken.json");
                if !called_off && keeper.is_none() && is_fresh(&taken) {
                    return Ok(ContainerState::Created); // taken this very moment
                }
                if !self.has_ended(id, &folder) {
                    return Ok(match born {
                        Some(Born { started_at, process, .. }) => {
                            ContainerState::Running { started_at, pid: process.pid }
                        }
                        None => ContainerState::Created,
                    });
                }
                let exit = lost(born.as_ref());
                if let Err(error) = record::keep(&folder, "exit.json", &exit) {
                    tracing::warn!(container = %id, %error, "its end is not kept, and found out anew");
                }
                Ok(ContainerState::Exited(exit))
            }
        }
    }

    /// Whether nothing is left of a container whose keeper is gone, after it was tried to end that. As long as a process
    /// of it is left it has not ended: it has the memory, the ports and the GPUs that the next one would be given.
    fn has_ended(&self, id: &ContainerId, folder: &Path) -> bool {
        // What has outlived it once is not waited for again at each look.
        let is_known = self.unkillable.lock().contains(id);
        let limit = if is_known { Duration::ZERO } else { KILL_LIMIT };
        let has_ended = end_orphans(folder, limit);
        let mut unkillable = self.unkillable.lock();
        if has_ended {
            unkillable.remove(id);
        } else if unkillable.insert(id.clone()) {
            tracing::warn!(container = %id, "a process of it outlives SIGKILL: it hangs in the kernel, and its container has not ended");
        }
        has_ended
    }

    /// The containers of these pods.
    fn list(&self, pods: Vec<String>) -> Result<Vec<Found>, DriverError> {
        let mut found = Vec::new();
        for pod_uid in pods {
            let containers = self.pods().join(&pod_uid).join("containers");
            for container in names(&containers)? {
                for attempt in names(&containers.join(&container))? {
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
}

/// Whether a file got its name just now: its keeper may not have written its own yet.
fn is_fresh(path: &Path) -> bool {
    let Ok(found) = fs::metadata(path) else { return false };
    let age = clock::timestamp().as_second() - std::os::unix::fs::MetadataExt::ctime(&found);
    (0..TAKEN_LIMIT_S).contains(&age)
}

fn parse(id: &ContainerId) -> Option<(&str, &str, u32)> {
    let mut parts = id.0.split('/');
    let (uid, name, attempt) = (parts.next()?, parts.next()?, parts.next()?.parse().ok()?);
    let plain = parts.next().is_none() && is_path_component(uid) && is_path_component(name);
    plain.then_some((uid, name, attempt))
}

/// What is in a folder. One that is not there has nothing; of one that cannot be read it is not known: who took that for
/// nothing would start its containers a second time.
fn names(folder: &Path) -> Result<Vec<String>, DriverError> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let entries = match entries {
        Ok(entries) => entries,
        // A file beside the folders of pods has none either.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Vec::new()
        }
        Err(cause) => {
            let what = format!("looking for containers in {}", folder.display());
            return Err(DriverError::Io { what, cause });
        }
    };
    let names = entries.into_iter().filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.filter(|name| is_path_component(name)).collect())
}

/// Runs what touches many files where it may block.
async fn blocking<T: Send + 'static>(
    inner: &Arc<Inner>,
    work: impl FnOnce(&Inner) -> Result<T, DriverError> + Send + 'static,
) -> Result<T, DriverError> {
    let inner = Arc::clone(inner);
    let done = tasks::spawn_blocking(move || work(&inner)).await;
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

    fn exec<'a>(
        &'a self,
        id: &'a ContainerId,
        command: Vec<String>,
        limit: Duration,
    ) -> Answer<'a, Executed> {
        self.inner.exec(id, command, limit).boxed()
    }

    fn run<'a>(&'a self, id: &'a ContainerId, wanted: Wanted) -> Answer<'a, Attached> {
        async move { self.inner.run(id, wanted) }.boxed()
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
        blocking(&self.inner, |inner| inner.list(names(&inner.pods())?)).boxed()
    }

    fn pods(&self) -> Answer<'_, BTreeSet<String>> {
        let uids = |inner: &Inner| Ok(names(&inner.pods())?.into_iter().collect());
        blocking(&self.inner, uids).boxed()
    }

    fn stats<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, ContainerStats> {
        async move { self.inner.stats(id) }.boxed()
    }

    fn usage(&self) -> Answer<'_, Vec<Used>> {
        blocking(&self.inner, Inner::usage).boxed()
    }
}
