//! The start of a container. An attempt is begun once: where the answer to its start was lost, what is there decides,
//! not that it was not heard of.

use super::{
    CALL_LIMIT, DockerDriver, Refused, call, refusal, source::Sources, translate, unsure::Begun,
};
use crate::container::{
    ContainerId, ContainerSpec, ContainerState, DriverError, Mount, StartError, Started,
};
use crate::private::nodes_of_this_machine;
use bollard::{
    models::ContainerStateStatusEnum,
    query_parameters::{
        CreateContainerOptionsBuilder, InspectContainerOptions, RemoveContainerOptionsBuilder,
        StartContainerOptions,
    },
};
use impresario_ambient::clock;
use jiff::Timestamp;
use std::path::PathBuf;

/// What other nodes of this machine hide.
fn others() -> Result<Vec<PathBuf>, DriverError> {
    nodes_of_this_machine().map_err(DriverError::io("keeping other nodes' files from containers"))
}

impl DockerDriver {
    pub(super) async fn begin(&self, mut spec: ContainerSpec) -> Result<Started, StartError> {
        let name = self.container_name(&spec.pod.uid, &format!("{}-{}", spec.name, spec.attempt));
        if let Some(started) = self.earlier(&name, &spec).await? {
            return Ok(started);
        }
        drop(self.unsure.known(&name));
        let (known, wanted) = (others()?, spec.mounts);
        spec.mounts = Vec::new();
        let (mounts, pinned) = self.sources(&spec).pinned(wanted.clone(), &self.openings).await?;
        spec.mounts = mounts;
        self.image(&spec.image, spec.pull).await?;
        self.refuse_root(&spec).await?;
        let network = self.sandbox(&spec.pod).await?;
        let gpus = self.gpus.take(&spec.gpus).await?;
        // Held until it is known that the engine has mounted them, or that it never will.
        self.unsure.hold(&name, Begun { sources: pinned, gpus });
        let created = match self.create(&name, &spec, &network).await {
            // An earlier request was slow to come.
            Err(Refused { code: 409, .. }) => match self.earlier(&name, &spec).await? {
                Some(started) => return Ok(started),
                None => self.create(&name, &spec, &network).await,
            },
            other => other,
        };
        let (id, warnings) = created.map_err(|refused| {
            drop(self.unsure.known(&name)); // what is only made later is never started
            refusal(&spec, refused)
        })?;
        if let Err(error) = self.look_again(&spec, &wanted, &known).await {
            self.discard(&id.0).await?;
            drop(self.unsure.known(&name));
            return Err(error);
        }
        let start = self.docker.start_container(&id.0, None::<StartContainerOptions>);
        if let Err(refused) = call("start a container", CALL_LIMIT, start).await {
            // Who has no answer does not know whether it runs: the next try of this attempt looks, or `settle` ends it.
            if refused.code != 0 {
                match self.discard(&id.0).await {
                    Ok(()) => drop(self.unsure.known(&name)),
                    Err(error) => {
                        tracing::warn!(%id, %error, "a container that did not start is left behind");
                    }
                }
            }
            return Err(refusal(&spec, refused));
        }
        self.gpus.keep(&id.0, self.unsure.known(&name).gpus);
        // Who writes itself down after this finds the container with the engine, and covers itself in it.
        if let Err(error) = self.look_again(&spec, &wanted, &known).await {
            self.discard(&id.0).await?;
            return Err(error);
        }
        let started_at = began(&self.look(&id).await?);
        Ok(Started { id, started_at, warnings })
    }

    fn sources(&self, spec: &ContainerSpec) -> Sources {
        Sources {
            config: self.config.clone(),
            uid: spec.pod.uid.clone(),
            container: format!("{}-{}", spec.name, spec.attempt),
            is_privileged: spec.security.privileged,
        }
    }

    /// Looks again at what was mounted where a node of this machine is new since then: an image may have taken its time.
    async fn look_again(
        &self,
        spec: &ContainerSpec,
        wanted: &[Mount],
        known: &[PathBuf],
    ) -> Result<(), StartError> {
        if others()?.iter().all(|path| known.contains(path)) {
            return Ok(());
        }
        self.sources(spec).pinned(wanted.to_vec(), &self.openings).await.map(drop)
    }

    async fn create(
        &self,
        name: &str,
        spec: &ContainerSpec,
        network: &str,
    ) -> Result<(ContainerId, Vec<String>), Refused> {
        let mut labels = self.labels(&spec.pod.uid);
        labels.insert(translate::CONTAINER.into(), spec.name.clone());
        labels.insert(translate::ATTEMPT.into(), spec.attempt.to_string());
        if !spec.gpus.is_empty() {
            labels.insert(translate::GPUS.into(), spec.gpus.join(","));
        }
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        let body = translate::body(spec, labels, network.to_owned());
        let create = self.docker.create_container(Some(options), body);
        let created = call("create a container", CALL_LIMIT, create).await?;
        Ok((ContainerId(created.id), created.warnings))
    }

    /// This attempt, if it was started already. One that was only made goes, so that it is made as its pod is now.
    async fn earlier(
        &self,
        name: &str,
        spec: &ContainerSpec,
    ) -> Result<Option<Started>, StartError> {
        let inspect = self.docker.inspect_container(name, None::<InspectContainerOptions>);
        let found = match call("inspect a container", CALL_LIMIT, inspect).await {
            Ok(found) => found,
            Err(Refused { code: 404, .. }) => return Ok(None),
            Err(refused) => return Err(DriverError::from(refused).into()),
        };
        let id = ContainerId(found.id.unwrap_or_default());
        let labels = found.config.and_then(|config| config.labels).unwrap_or_default();
        if self.labels(&spec.pod.uid).iter().any(|(label, own)| labels.get(label) != Some(own)) {
            return Err(StartError::Exists { id });
        }
        let again = |cause: &str| {
            let what = format!("start {name} once more");
            Err(DriverError::Engine { what, cause: cause.to_owned() }.into())
        };
        let state = found.state.unwrap_or_default();
        if matches!(
            state.status,
            Some(ContainerStateStatusEnum::REMOVING | ContainerStateStatusEnum::DEAD)
        ) {
            return again("the one before is being removed");
        }
        let state = translate::state(&state);
        if matches!(state, ContainerState::Created) {
            // Not by force: its start may be under way.
            let options = RemoveContainerOptionsBuilder::new().v(true).build();
            let remove = self.docker.remove_container(&id.0, Some(options));
            return match call("remove a container", CALL_LIMIT, remove).await {
                Ok(()) | Err(Refused { code: 404, .. }) => Ok(None),
                Err(Refused { code: 409, message, .. }) => again(&message),
                Err(refused) => Err(DriverError::from(refused).into()),
            };
        }
        let begun = self.unsure.known(name);
        if matches!(state, ContainerState::Running { .. }) {
            self.gpus.keep(&id.0, begun.gpus);
            self.gpus.take_again(&id, &labels);
        }
        tracing::info!(%id, name, "a container was started already");
        Ok(Some(Started { id, started_at: began(&state), warnings: Vec::new() }))
    }
}

fn began(state: &ContainerState) -> Timestamp {
    match state {
        ContainerState::Running { started_at, .. } => *started_at,
        ContainerState::Exited(exit) => exit.started_at.unwrap_or(exit.finished_at),
        ContainerState::Created => clock::timestamp(),
    }
}
