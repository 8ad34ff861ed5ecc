//! The credential of a guest: a pod whose own process joins the cluster as an actor node.
//!
//! A pod annotated with [`GUEST_ANNOTATION`] gets a folder that only its owner can read, with a
//! certificate that lets it talk to its own job alone, and variables that say where things are.

use super::ask_authority::{NoAuthority, ask_authority};
use super::kit::Kit;
use impresario_client::protocol::authority::{GuestError, IssueGuest, Peer};
use impresario_host::container::Mount;
use impresario_runtime::{Credential, tasks};
use k8s_openapi::api::core::v1;
use std::{net::IpAddr, path::Path};
use thiserror::Error;

/// Names the uid of the job that a pod works for as a guest.
pub const GUEST_ANNOTATION: &str = "impresario.dev/guest";
/// Tells which role of its job a guest plays.
const ROLE_LABEL: &str = "training.impresario.dev/role";
/// Where a guest's containers see their credential, where mounts can be made.
const SEEN_AT: &str = "/var/run/impresario/guest";
/// And its name as a volume, for where they cannot: `IMPRESARIO_VOLUME_IMPRESARIO_GUEST`.
const VOLUME: &str = "impresario-guest";

/// Why a guest has no credential.
#[derive(Debug, Error)]
pub enum GuestFailure {
    /// The authority said no.
    #[error(transparent)]
    Refused(#[from] GuestError),
    /// No control member answered.
    #[error(transparent)]
    Unreachable(#[from] NoAuthority),
    /// The credential could not be kept.
    #[error("the credential cannot be kept: {cause}")]
    Files {
        /// What went wrong.
        cause: String,
    },
}

/// What a guest's containers are given.
#[derive(Debug, Clone, Default)]
pub(super) struct Given {
    /// Variables that say where things are.
    pub(super) variables: Vec<(String, String)>,
    /// The folder of the credential, which is hidden from containers otherwise.
    pub(super) mounts: Vec<Mount>,
}

/// Gets the pod's credential and keeps it below its folder. Nothing for a pod that is no guest.
pub(super) async fn credential(
    kit: &Kit,
    pod: &v1::Pod,
    folder: &Path,
    address: IpAddr,
) -> Result<Given, GuestFailure> {
    let meta = &pod.metadata;
    let annotation =
        meta.annotations.as_ref().and_then(|annotations| annotations.get(GUEST_ANNOTATION));
    let Some(job) = annotation else { return Ok(Given::default()) };
    let request = IssueGuest {
        node: kit.node_name().to_owned(),
        namespace: meta.namespace.clone().unwrap_or_default(),
        pod: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        job: job.clone(),
        subjects: Vec::new(),
    };
    let issued = ask_authority(kit, &request).await??;
    let files = |error: String| GuestFailure::Files { cause: error };
    let credential =
        Credential::from_pem(&issued.certificate_pem, &issued.key_pem, &issued.authority_pem)
            .map_err(|error| files(error.to_string()))?;
    let folder = folder.join("guest");
    let place = folder.clone();
    tasks::spawn_blocking(move || credential.save(&place))
        .await
        .map_err(|error| files(error.to_string()))?
        .map_err(|error| files(error.to_string()))?;
    let role =
        meta.labels.as_ref().and_then(|labels| labels.get(ROLE_LABEL)).cloned().unwrap_or_default();
    let variables = [
        ("IMPRESARIO_CREDENTIAL", SEEN_AT.to_owned()),
        ("IMPRESARIO_ADDRESSES", addresses(&issued.peers)),
        ("IMPRESARIO_CONTROL", control(&issued.peers)),
        ("IMPRESARIO_NODE", kit.node_name().to_owned()),
        ("IMPRESARIO_POD_UID", request.uid),
        ("IMPRESARIO_POD_NAME", request.pod),
        ("IMPRESARIO_POD_NAMESPACE", request.namespace),
        ("IMPRESARIO_POD_IP", address.to_string()),
        ("IMPRESARIO_JOB", job.clone()),
        ("IMPRESARIO_ROLE", role),
    ];
    let mount = Mount {
        volume: VOLUME.to_owned(),
        source: folder,
        sub_path: None,
        target: SEEN_AT.into(),
        read_only: true,
    };
    let variables = variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Ok(Given { variables, mounts: vec![mount] })
}

/// `name=address,name=address`: whom the guest can dial.
fn addresses(peers: &[Peer]) -> String {
    let all: Vec<_> = peers.iter().map(|peer| format!("{}={}", peer.name, peer.address)).collect();
    all.join(",")
}

/// The names of the control members among them.
fn control(peers: &[Peer]) -> String {
    let names: Vec<_> =
        peers.iter().filter(|peer| peer.control).map(|peer| peer.name.as_str()).collect();
    names.join(",")
}
