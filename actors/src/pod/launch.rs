//! Starts one container: its environment, its mounts, its limits, then the driver.

use super::{
    PodActor,
    environment::{self, ConfigError, Here},
    kit::Kit,
    last_words,
    prepared::Prepared,
    sources,
    status::qos_class,
};
use crate::{change::ChangeError, requests};
use actix::prelude::*;
use impresario_client::protocol::resources::{CPU, MEMORY};
use impresario_host::{
    ContainerSpec, Exit, StartError,
    container::{LogLimit, Mount, PullPolicy, Qos, Resources, Security, Started, User},
    devices::GpuPoolError,
    opening::Unanswered,
    volumes::{self, VolumeError},
};
use impresario_objects::events::Severity;
use impresario_runtime::{clock, tasks};
use k8s_openapi::api::core::v1;
use std::{ops::Range, path::PathBuf, sync::Arc};
use thiserror::Error;

/// Why a container does not run.
#[derive(Debug, Error)]
enum LaunchError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error(transparent)]
    Host(#[from] Unanswered),
    #[error(transparent)]
    Objects(#[from] ChangeError),
    #[error(transparent)]
    Gpus(#[from] GpuPoolError),
    #[error("the file for the termination message cannot be made: {0}")]
    Words(std::io::Error),
    #[error("the task that makes the mounts was lost: {0}")]
    Lost(String),
    #[error(transparent)]
    Start(#[from] StartError),
}

impl LaunchError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Config(_) | Self::Volume(_) => "CreateContainerConfigError",
            Self::Objects(_) | Self::Gpus(_) | Self::Host(_) | Self::Lost(_) | Self::Words(_) => {
                "CreateContainerError"
            }
            Self::Start(error) => error.reason(),
        }
    }
}

impl PodActor {
    pub(super) fn launch(&mut self, name: &str, ctx: &mut Context<Self>) {
        let (Some(prepared), Some(spec)) =
            (self.prepared.clone(), self.container_spec(name).cloned())
        else {
            return;
        };
        let attempt = self.life.starting(name);
        let name = name.to_owned();
        let image = spec.image.clone().unwrap_or_default();
        let work = start(self.kit.clone(), self.object.clone(), prepared, spec, attempt);
        ctx.spawn(work.into_actor(self).map(move |started, pod, ctx| {
            match started {
                Ok(started) => pod.launched(&name, &image, started, ctx),
                Err(error) => pod.not_launched(&name, error),
            }
            pod.step(ctx);
        }));
    }

    fn launched(&mut self, name: &str, image: &str, started: Started, ctx: &mut Context<Self>) {
        if self.kit.driver.name() != "process" {
            let message = format!("Container image \"{image}\" is present on the machine");
            self.tell(name, Severity::Normal, "Pulled", &message);
        }
        self.tell(name, Severity::Normal, "Created", &format!("Container created: {name}"));
        self.tell(name, Severity::Normal, "Started", &format!("Container started: {name}"));
        for warning in &started.warnings {
            self.tell(name, Severity::Warning, "NotAsAsked", warning);
        }
        self.life.started(name, started.id.clone(), started.started_at, clock::now());
        self.wait_for_end(name.to_owned(), started.id.clone(), ctx);
        self.post_start(name, &started.id, ctx);
    }

    fn not_launched(&mut self, name: &str, error: LaunchError) {
        let (reason, message, now) = (error.reason(), error.to_string(), clock::now());
        self.tell(name, Severity::Warning, "Failed", &format!("Error: {message}"));
        // What was refused does not run; what was not answered may.
        if let LaunchError::Start(error) = &error {
            self.life.doubt(name, matches!(error, StartError::Driver(_)));
        }
        match error {
            // It came as far as a container does that ends at once, and is treated as one.
            LaunchError::Start(
                error @ (StartError::NotFound { .. } | StartError::PermissionDenied { .. }),
            ) => {
                let exit = Exit {
                    code: error.exit_code(),
                    signal: None,
                    started_at: None,
                    finished_at: clock::timestamp(),
                    reason: reason.to_owned(),
                    message,
                };
                self.life.ended(name, None, exit, now);
            }
            LaunchError::Start(StartError::Exists { .. }) => {
                self.life.attempt_taken(name);
                self.life.start_failed(name, reason, &message, now);
            }
            _ => self.life.start_failed(name, reason, &message, now),
        }
    }
}

async fn start(
    kit: Arc<Kit>,
    object: v1::Pod,
    prepared: Prepared,
    container: v1::Container,
    attempt: u32,
) -> Result<Started, LaunchError> {
    let mut sources = sources::of_variables(&kit.registry, &object).await?;
    sources.given.clone_from(&prepared.guest.variables);
    sources.given.insert(0, ("HOSTNAME".to_owned(), prepared.sandbox.hostname.clone()));
    let here = Here {
        pod_ip: Some(prepared.address.to_string()),
        host_ip: Some(kit.host.to_string()),
        allocatable: kit.allocatable.clone(),
        first_port: kit.first_port,
    };
    let env = environment::environment(&container, &object, &sources, &here)?;
    let mut mounts = mounts(&kit, &prepared, &container, attempt, &env).await?;
    mounts.extend(prepared.guest.mounts);
    let gpus = object.spec.as_ref().map_or(0..0, |pod| gpus(pod, &container.name));
    let gpus = if gpus.is_empty() {
        Vec::new()
    } else {
        let all = object.spec.as_ref().map_or(0, |pod| requests::of_pod(pod).gpus());
        let uid = &prepared.sandbox.uid;
        let own = kit.gpus.lock().give(uid, usize::try_from(all).unwrap_or(usize::MAX))?;
        own.get(gpus).map(<[String]>::to_vec).unwrap_or_default()
    };
    // A volume that is mounted there is what the pod wants to see.
    mounts.extend(prepared.resolver.filter(|file| mounts.iter().all(|m| m.target != file.target)));
    let spec = ContainerSpec {
        gpus,
        pod: prepared.sandbox,
        name: container.name.clone(),
        attempt,
        is_init: is_init(&object, &container),
        image: container.image.clone().unwrap_or_default(),
        pull: match container.image_pull_policy.as_deref() {
            Some("Always") => PullPolicy::Always,
            Some("Never") => PullPolicy::Never,
            _ => PullPolicy::IfNotPresent,
        },
        command: environment::expanded(container.command.as_ref(), &env),
        args: environment::expanded(container.args.as_ref(), &env),
        working_dir: container
            .working_dir
            .as_ref()
            .filter(|path| !path.is_empty())
            .map(PathBuf::from),
        env,
        mounts,
        resources: limits(&container, object.spec.as_ref()),
        user: user(&container, object.spec.as_ref()),
        security: security(&container),
        log: LogLimit::default(),
    };
    Ok(kit.driver.start(spec).await?)
}

/// What the container sees of its volumes, and the file for its last words; nothing where nothing is run.
async fn mounts(
    kit: &Kit,
    prepared: &Prepared,
    container: &v1::Container,
    attempt: u32,
    env: &[(String, String)],
) -> Result<Vec<Mount>, LaunchError> {
    if kit.driver.is_hollow() {
        return Ok(Vec::new());
    }
    let known = env.iter().cloned().collect();
    let (volumes, mounted) = (prepared.volumes.clone(), container.clone());
    let asked =
        kit.openings.ask(move |opening| volumes::mounts(&mounted, &volumes, &known, opening));
    let mut mounts = asked.await??;
    let (folder, container) = (kit.pods_folder.join(&prepared.sandbox.uid), container.clone());
    let made = tasks::spawn_blocking(move || last_words::place(&folder, &container, attempt));
    let words = made.await.map_err(|error| LaunchError::Lost(error.to_string()))?;
    let words = words.map_err(LaunchError::Words)?;
    if mounts.iter().all(|mount| mount.target != words.target) {
        mounts.push(words);
    }
    Ok(mounts)
}

/// Whether the others wait for the container's end.
fn is_init(pod: &v1::Pod, container: &v1::Container) -> bool {
    let inits = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let is_sidecar = container.restart_policy.as_deref() == Some("Always");
    !is_sidecar && inits.into_iter().any(|init| init.name == container.name)
}

/// Which of its pod's GPUs a container is given. Containers that run together share none; an init
/// container has those that the main ones get after it.
fn gpus(pod: &v1::PodSpec, name: &str) -> Range<usize> {
    let count = |container: &v1::Container| {
        usize::try_from(requests::of_container(container).gpus()).unwrap_or(usize::MAX)
    };
    let mut next = 0_usize;
    for container in pod.init_containers.iter().flatten() {
        let range = next..next.saturating_add(count(container));
        if container.name == name {
            return range;
        }
        if container.restart_policy.as_deref() == Some("Always") {
            next = range.end;
        }
    }
    for container in &pod.containers {
        let range = next..next.saturating_add(count(container));
        if container.name == name {
            return range;
        }
        next = range.end;
    }
    0..0
}

fn limits(container: &v1::Container, pod: Option<&v1::PodSpec>) -> Resources {
    let resources = container.resources.as_ref();
    let limits = resources.and_then(|resources| resources.limits.as_ref()).map(requests::amounts);
    let requested =
        resources.and_then(|resources| resources.requests.as_ref()).map(requests::amounts);
    let limit =
        |name: &str| limits.as_ref().map(|limits| limits.get(name)).filter(|amount| *amount > 0);
    Resources {
        cpu_request_milli: requested.as_ref().map_or(0, |requested| requested.get(CPU)).max(
            // A limit alone is the request too.
            if resources.is_some_and(|r| r.requests.is_none()) {
                limit(CPU).unwrap_or(0)
            } else {
                0
            },
        ),
        cpu_limit_milli: limit(CPU),
        memory_limit_bytes: limit(MEMORY),
        memory_request_bytes: requested.map_or(0, |requested| requested.get(MEMORY)),
        qos: match pod.map(qos_class) {
            Some("Guaranteed") => Qos::Guaranteed,
            Some("Burstable") => Qos::Burstable,
            _ => Qos::BestEffort,
        },
    }
}

fn user(container: &v1::Container, spec: Option<&v1::PodSpec>) -> User {
    let own = container.security_context.as_ref();
    let pods = spec.and_then(|spec| spec.security_context.as_ref());
    let id = |id: Option<i64>| id.and_then(|id| u32::try_from(id).ok());
    let groups = pods.and_then(|context| context.supplemental_groups.as_ref());
    let fs_group = id(pods.and_then(|context| context.fs_group));
    User {
        uid: id(own.and_then(|c| c.run_as_user).or_else(|| pods.and_then(|c| c.run_as_user))),
        gid: id(own.and_then(|c| c.run_as_group).or_else(|| pods.and_then(|c| c.run_as_group))),
        groups: groups
            .into_iter()
            .flatten()
            .filter_map(|group| id(Some(*group)))
            .chain(fs_group)
            .collect(),
        must_not_be_root: own
            .and_then(|c| c.run_as_non_root)
            .or_else(|| pods.and_then(|c| c.run_as_non_root))
            .unwrap_or(false),
    }
}

fn security(container: &v1::Container) -> Security {
    let Some(context) = &container.security_context else { return Security::default() };
    let capabilities = context.capabilities.clone().unwrap_or_default();
    Security {
        privileged: context.privileged.unwrap_or(false),
        add: capabilities.add.unwrap_or_default(),
        drop: capabilities.drop.unwrap_or_default(),
        allow_escalation: context.allow_privilege_escalation,
    }
}

#[cfg(test)]
mod tests {
    use super::{gpus, is_init};
    use k8s_openapi::api::core::v1;
    use serde_json::json;

    #[test]
    fn others_wait_for_an_init_container_and_not_for_a_sidecar() {
        let pod: v1::Pod = serde_json::from_value(json!({"spec": {
            "initContainers": [{"name": "init"}, {"name": "side", "restartPolicy": "Always"}],
            "containers": [{"name": "main"}]
        }}))
        .unwrap();
        let spec = pod.spec.clone().unwrap();
        let all = spec.init_containers.iter().flatten().chain(&spec.containers);
        let waited: Vec<_> = all.filter(|one| is_init(&pod, one)).map(|one| &*one.name).collect();
        assert_eq!(waited, ["init"]);
    }

    #[test]
    fn containers_that_run_together_share_no_gpu_and_none_is_asked_for_twice() {
        let container = |name: &str, count: u32, policy: Option<&str>| {
            let mut one = json!({"name": name, "resources": {"limits": {"nvidia.com/gpu": count.to_string()}}});
            if let Some(policy) = policy {
                one["restartPolicy"] = policy.into();
            }
            one
        };
        let pod = serde_json::from_value(json!({
            "initContainers": [
                container("load", 2, None), container("side", 1, Some("Always")), container("warm", 1, None)
            ],
            "containers": [container("a", 1, None), container("none", 0, None), container("b", 2, None)]
        }))
        .unwrap();
        let of = |name: &str| gpus(&pod, name);
        assert_eq!((of("load"), of("side"), of("warm")), (0..2, 0..1, 1..2));
        assert_eq!((of("a"), of("none"), of("b")), (1..2, 2..2, 2..4));
        assert_eq!(crate::requests::of_pod(&pod).gpus(), 4);
    }
}
