//! From a container's specification to its command: a folder, an order in it, a keeper.
//!
//! A folder is made once, so that no container is started twice; one that did not start leaves
//! none.

use super::cgroup::Cgroup;
use super::record::{self, Born, Failed, Order, Report};
use super::{Inner, KILL_LIMIT, make_folder};
use crate::container::{
    ContainerId, ContainerSpec, ContainerState, DriverError, StartError, Started, cri_log,
    is_path_component,
};
use crate::private::{Target, cover, nodes_of_this_machine};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use std::{fs, io};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// How long a container may take from its order to its command.
pub(super) const START_LIMIT: Duration = Duration::from_secs(90);

impl Inner {
    pub(super) async fn start(&self, spec: ContainerSpec) -> Result<Started, StartError> {
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
        if let Some(id) = self.unkillable_before(&spec) {
            return Err(DriverError::Unkillable { id, waited: KILL_LIMIT }.into());
        }
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
        // What is left of it is found by its folder, until that is gone.
        if started.is_err()
            && !self.unkillable.lock().contains(&id)
            && let Err(error) = fs::remove_dir_all(&folder)
        {
            // It would be taken for a container that is there.
            tracing::warn!(container = %id, %error, "the folder of what did not start is left behind");
        }
        started
    }

    /// An attempt at the same container of which something outlives SIGKILL still: a second one would have what it has.
    fn unkillable_before(&self, spec: &ContainerSpec) -> Option<ContainerId> {
        let of_same = format!("{}/{}/", spec.pod.uid, spec.name);
        let known = self.unkillable.lock().clone();
        let mut attempts = known.into_iter().filter(|id| id.0.starts_with(&of_same));
        attempts.find(|id| !matches!(self.state(id), Ok(ContainerState::Exited(_)) | Err(_)))
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
        let mut hidden = self.config.hidden.clone();
        let others =
            nodes_of_this_machine().map_err(DriverError::io("hiding other nodes' files"))?;
        hidden.extend(others.into_iter().filter(|path| !self.config.hidden.contains(path)));
        let order = Order {
            spec,
            folder: folder.to_owned(),
            program: self.config.shim.clone(),
            cgroup: root.then(|| Cgroup::plan(&cgroup)).flatten(),
            hidden,
            namespaces: self.namespaces,
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
            // One that hangs in the kernel starts nothing any more.
            let _ = timeout(KILL_LIMIT, child.wait()).await;
        }
        self.reap(child);
        match report {
            Ok(Report::Born(born)) => {
                self.hide_what_came_meanwhile(id, folder, &order).await;
                Ok(Started { id: id.clone(), started_at: born.started_at, warnings: born.warnings })
            }
            Ok(Report::Failed(failed)) => Err(failed.into()),
            Err(error) => {
                let said = cri_log::last_line(&folder.join("keeper.err"), 4096).unwrap_or_default();
                let has_ended = self.has_ended(id, folder);
                // It was started, and has ended now: it is not started a second time.
                if let Ok(Some(born)) = record::read::<Born>(folder, "born.json") {
                    tracing::warn!(container = %id, %error, "its keeper is lost, and it is ended");
                    let (started_at, warnings) = (born.started_at, born.warnings);
                    return Ok(Started { id: id.clone(), started_at, warnings });
                }
                if !has_ended {
                    return Err(
                        DriverError::Unkillable { id: id.clone(), waited: KILL_LIMIT }.into()
                    );
                }
                Err(DriverError::io(format!("the keeper of {id} gave no answer ({said})"))(error)
                    .into())
            }
        }
    }

    /// A node that came after the list was read, and before this container was there to be found by it.
    async fn hide_what_came_meanwhile(&self, id: &ContainerId, folder: &Path, order: &Order) {
        let mut new = match nodes_of_this_machine() {
            Ok(new) => new,
            Err(error) => {
                tracing::warn!(container = %id, %error, "it may see the files of another node of this machine");
                return;
            }
        };
        new.retain(|path| !order.hidden.iter().any(|hidden| path.starts_with(hidden)));
        if new.is_empty() {
            return;
        }
        let (shim, folder) = (order.program.clone(), folder.to_owned());
        let work = move || {
            Target::in_folder(&folder)?.map_or(Ok(()), |target| cover(&shim, &target, &new))
        };
        let covered = tokio::task::spawn_blocking(work).await;
        if let Err(error) = covered.unwrap_or_else(|error| Err(io::Error::other(error))) {
            tracing::warn!(container = %id, %error, "it can see the files of another node of this machine");
        }
    }

    fn spawn_keeper(&self, folder: &Path) -> Result<Child, DriverError> {
        let errors = fs::File::create(folder.join("keeper.err"))
            .map_err(DriverError::io("making keeper.err"))?;
        let spawned = self.config.shim.command("keep").and_then(|keeper| {
            let mut keeper = Command::from(keeper);
            keeper.arg(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
            keeper.spawn()
        });
        let words = &self.config.shim.words;
        spawned.map_err(DriverError::io(format!("starting the keeper {words:?}")))
    }

    /// A keeper that is our child must be waited for when it ends, or it stays as a zombie.
    fn reap(&self, mut child: Child) {
        let mut reapers = self.reapers.lock();
        while reapers.try_join_next().is_some() {}
        reapers.spawn(async move {
            let _ = child.wait().await;
        });
    }
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
