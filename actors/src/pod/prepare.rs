//! Makes what a pod's containers share: its address, its volumes, its sandbox, and a guest's
//! credential. Repeating it does no harm; a failure is tried again after a backoff.

use super::{
    AGAIN, AGAIN_AT_MOST, PodActor, account, claims,
    filling::filling,
    guest,
    kit::Kit,
    life::{Ending, Sandbox},
    not_done::not_done,
    prepared::Prepared,
    resolver, sources,
};
use crate::{change::ChangeError, requests};
use actix::prelude::*;
use impresario_host::{
    ContainerDriver, PodSandbox,
    container::{DriverError, Mount, is_path_component},
    opening::Unanswered,
    volumes::{self, VolumeError},
};
use impresario_runtime::{clock, tasks};
use k8s_openapi::{api::core::v1, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use std::{
    collections::BTreeMap, fs, io, net::IpAddr, os::unix::fs::PermissionsExt as _, path::Path,
    sync::Arc, time::Duration,
};
use thiserror::Error;

/// Where resolvers look for their servers.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Why a pod's containers cannot be started yet.
#[derive(Debug, Error)]
pub(super) enum PrepareError {
    #[error("the pod's uid {0:?} cannot name a folder: create the pod anew")]
    Uid(String),
    #[error(transparent)]
    Address(#[from] impresario_host::address::AddressError),
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error(transparent)]
    Host(#[from] Unanswered),
    #[error(transparent)]
    Driver(#[from] DriverError),
    #[error(transparent)]
    Objects(#[from] ChangeError),
    #[error(transparent)]
    Claim(#[from] claims::ClaimError),
    #[error(transparent)]
    Guest(#[from] guest::GuestFailure),
    #[error(transparent)]
    Account(#[from] account::AccountFailure),
    #[error("the pod's resolv.conf cannot be made: {0}")]
    Resolver(io::Error),
    #[error(
        "the {driver} driver does not do {fields}: take it out of the pod, or run the pod on a node that does"
    )]
    NotDone { fields: String, driver: &'static str },
    #[error("the task that makes the volumes was lost: {0}")]
    Lost(String),
}

impl PrepareError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Volume(error) => error.reason(),
            Self::Guest(_) => "FailedGuestCredential",
            Self::Account(_) | Self::Host(_) | Self::Claim(_) => "FailedMount",
            Self::NotDone { .. } => "NotSupported",
            _ => "FailedCreatePodSandBox",
        }
    }

    /// Whether the same pod can succeed later.
    fn may_pass(&self) -> bool {
        match self {
            Self::Uid(_) | Self::NotDone { .. } => false,
            Self::Volume(error) => error.may_pass(),
            _ => true,
        }
    }
}

impl PodActor {
    /// Says which of the pod's fields have no effect here.
    fn tell_what_is_not_done(&self) {
        let driver = self.kit.driver.name();
        let fields = self.object.spec.as_ref().map(|spec| not_done(spec, driver).warned);
        let fields = fields.unwrap_or_default().join(", ");
        if !fields.is_empty() {
            let message = format!("no effect here (the {driver} driver does not do it): {fields}");
            self.kit.events.warning(self.key(), &self.uid, "NotAsAsked", &message);
        }
    }

    pub(super) fn prepare(&mut self, ctx: &mut Context<Self>) {
        self.life.sandbox = Sandbox::Preparing;
        let work = prepared(self.kit.clone(), self.object.clone(), self.uid.clone());
        ctx.spawn(work.into_actor(self).map(|prepared, pod, ctx| {
            match prepared {
                Ok((prepared, renew_in, warnings)) => {
                    pod.renew_tokens_in(renew_in, ctx);
                    pod.tell_what_is_not_done();
                    for warning in warnings {
                        pod.kit.events.warning(pod.key(), &pod.uid, "VolumeWarning", &warning);
                    }
                    pod.failed_preparations = 0;
                    pod.prepared = Some(prepared);
                    pod.life.sandbox = Sandbox::Ready;
                    let names: Vec<_> = pod
                        .life
                        .containers
                        .iter()
                        .filter(|c| c.is_running())
                        .map(|c| c.name.clone())
                        .collect();
                    for name in names {
                        pod.watch_probes(&name, ctx); // of those that were taken over
                    }
                }
                Err(error) => {
                    let message = error.to_string();
                    pod.kit.events.warning(pod.key(), &pod.uid, error.reason(), &message);
                    let wait = AGAIN
                        .saturating_mul(1 << pod.failed_preparations.min(8))
                        .min(AGAIN_AT_MOST);
                    pod.failed_preparations += 1;
                    pod.life.sandbox = Sandbox::Absent { retry: Some(clock::now() + wait) };
                    if !error.may_pass() {
                        pod.life.end(
                            Ending::Failed { reason: error.reason().to_owned(), message },
                            pod.life.grace,
                        );
                    }
                }
            }
            pod.step(ctx);
        }));
    }
}

async fn prepared(
    kit: Arc<Kit>,
    object: v1::Pod,
    uid: String,
) -> Result<(Prepared, Option<Duration>, Vec<String>), PrepareError> {
    if !is_path_component(&uid) {
        return Err(PrepareError::Uid(uid));
    }
    let meta = &object.metadata;
    let (namespace, name) =
        (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
    let no_spec = v1::PodSpec::default();
    let spec = object.spec.as_ref().unwrap_or(&no_spec);
    let driver = kit.driver.name();
    let fields = not_done(spec, driver).refused.join(", ");
    if !fields.is_empty() {
        return Err(PrepareError::NotDone { fields, driver });
    }
    let host_network = spec.host_network == Some(true);
    let address =
        if host_network { kit.host } else { IpAddr::V4(kit.addresses.lock().give(&uid)?) };
    let sandbox = PodSandbox {
        uid: uid.clone(),
        namespace,
        hostname: spec.hostname.clone().unwrap_or_else(|| name.clone()),
        name,
        address: Some(address),
        host_network,
        cpu_request_milli: requests::of_pod(spec).cpu_milli,
        annotations: asked_of(&*kit.driver, meta),
    };
    kit.driver.prepare_pod(sandbox.clone()).await?;
    let (address, sandbox) = match kit.driver.pod_address(&uid).await? {
        Some(own) if !host_network => {
            // Its driver has addresses of its own, and ours are few.
            kit.addresses.lock().take_back(&uid)?;
            (own, PodSandbox { address: Some(own), ..sandbox })
        }
        _ => (address, sandbox),
    };
    let fetched = sources::of_volumes(&kit.registry, &object).await?;
    let claimed = claims::of(&kit, &object).await?;
    let folder = kit.pods_folder.join(&uid);
    if kit.driver.is_hollow() {
        // The cluster is asked for all that the pod needs; none of it is put on this machine.
        let tokens = account::tokens(&kit, &object).await?;
        let (volumes, guest) = (BTreeMap::new(), guest::Given::default());
        let prepared = Prepared { address, sandbox, volumes, guest, resolver: None };
        return Ok((prepared, tokens.replace_in, Vec::new()));
    }
    let guest = guest::credential(&kit, &object, &folder, address).await?;
    let wanted = spec.volumes.clone().unwrap_or_default();
    let is_claimed = |volume: &v1::Volume| {
        volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some()
    };
    let wanted = wanted.into_iter().filter(|volume| !is_claimed(volume));
    let (of_machine, wanted): (Vec<_>, Vec<_>) =
        wanted.partition(|volume| volume.host_path.is_some());
    let mut of_machine: Vec<_> =
        of_machine.into_iter().filter_map(|it| Some((it.name, it.host_path?, false))).collect();
    let mut folders = Vec::new();
    for claims::Found { volume, source, read_only, uid, was_made } in claimed {
        match source {
            claims::Source::Folder(name) => folders.push((volume, name, read_only, uid, was_made)),
            claims::Source::Path(path) => of_machine.push((volume, path, read_only)),
        }
    }
    let mut placed = BTreeMap::new();
    // Most pods have none, and wait for no thread then.
    if !of_machine.is_empty() {
        let kept = kit.volumes_folder();
        let found = kit.openings.ask(move |opening| {
            let found = of_machine.into_iter().map(|(name, source, read_only)| {
                if volumes::is_below(&kept, Path::new(&source.path)) {
                    let what =
                        format!("{}: volumes of others are mounted by their claims", source.path);
                    return Err(VolumeError::Invalid { volume: name, what });
                }
                let at = volumes::find(&name, &source, opening)?;
                Ok((name, volumes::Placed { read_only, ..at }))
            });
            found.collect::<Result<BTreeMap<_, _>, VolumeError>>()
        });
        placed = found.await??;
    }
    let tokens = account::tokens(&kit, &object).await?;
    let from = filling(&kit, &object, address, fetched, &tokens);
    let volumes_folder = kit.volumes_folder();
    let (pod_spec, server, namespace) = (spec.clone(), kit.dns, sandbox.namespace.clone());
    let place = tasks::spawn_blocking(move || {
        let resolver = match server {
            Some(server) => name_servers(&folder, &pod_spec, &namespace, server)
                .map_err(PrepareError::Resolver)?,
            None => None,
        };
        let mut made = Vec::new();
        for (volume, name, read_only, uid, was_made) in folders {
            let wanted = volumes::Wanted { name: &name, uid: &uid, was_made, group: from.fs_group };
            let at = volumes::folder(&volumes_folder, &wanted)?;
            placed.insert(volume, volumes::Placed { read_only, ..at });
            if !was_made {
                made.push((name, uid));
            }
        }
        for volume in &wanted {
            placed.insert(volume.name.clone(), volumes::place(&folder, volume, &from)?);
        }
        Ok::<_, PrepareError>((placed, resolver, made))
    });
    let (volumes, resolver, made) =
        place.await.map_err(|error| PrepareError::Lost(error.to_string()))??;
    // Before anything is written there: a folder that is said to have been made is never made again.
    for (name, uid) in made {
        claims::folder_made(&kit, &name, &uid).await?;
    }
    let warnings = volumes.values().flat_map(|placed| placed.warnings.clone()).collect();
    let prepared = Prepared { address, sandbox, volumes, guest, resolver };
    Ok((prepared, tokens.replace_in, warnings))
}

/// What a pod says to the driver.
fn asked_of(driver: &dyn ContainerDriver, meta: &ObjectMeta) -> BTreeMap<String, String> {
    let read = driver.annotations();
    let all = meta.annotations.iter().flatten();
    all.filter(|(name, _)| read.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Writes the pod's resolv.conf below its folder, where it has one of its own.
fn name_servers(
    folder: &Path,
    spec: &v1::PodSpec,
    namespace: &str,
    server: IpAddr,
) -> io::Result<Option<Mount>> {
    let machine = fs::read_to_string(RESOLV_CONF).unwrap_or_default();
    let Some(text) = resolver::resolv_conf(spec, namespace, server, &machine) else {
        return Ok(None);
    };
    fs::create_dir_all(folder)?;
    let source = folder.join("resolv.conf");
    fs::write(&source, text)?;
    // Whoever a container runs as reads it.
    fs::set_permissions(&source, fs::Permissions::from_mode(0o644))?;
    Ok(Some(Mount {
        volume: "resolv.conf".to_owned(),
        source,
        sub_path: None,
        target: RESOLV_CONF.into(),
        read_only: true,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use impresario_host::hollow::{HollowDriver, RUN_FOR};

    #[test]
    fn a_driver_is_told_the_annotations_that_it_reads_and_no_others() {
        let annotations = [(RUN_FOR, "5s"), ("other", "x")];
        let annotations = annotations.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let meta = ObjectMeta { annotations: Some(annotations.into()), ..ObjectMeta::default() };
        let told = asked_of(&HollowDriver::new(), &meta);
        assert_eq!(told, BTreeMap::from([(RUN_FOR.to_owned(), "5s".to_owned())]));
        assert!(asked_of(&crate::testing::MemoryDriver::default(), &meta).is_empty());
    }
}
