//! What every Pod actor of a node works with, handed to it by its Node actor.

use super::backoff::BackoffScale;
use super::owners::Owners;
use crate::events::Recorder;
use impresario_client::protocol::resources::Resources;
use impresario_host::{
    ContainerDriver,
    address::AddressPool,
    container::{DriverError, is_path_component},
    devices::GpuPool,
    opening::Openings,
    volumes,
};
use impresario_registry_api::{Entry, RegistryHandle};
use impresario_runtime::{ActorNode, NodeName, tasks};
use parking_lot::Mutex;
use std::{net::IpAddr, path::PathBuf, sync::Arc};

/// The tools of one node's pods.
pub struct Kit {
    /// This process's actor node; its name is the node's.
    pub node: ActorNode,
    /// What runs the containers.
    pub driver: Arc<dyn ContainerDriver>,
    /// Where the objects are.
    pub registry: RegistryHandle,
    /// The control members.
    pub members: tokio::sync::watch::Receiver<Vec<NodeName>>,
    /// Who tells the pods' controllers what was written of these.
    pub owners: Owners,
    /// Where what happens is told.
    pub events: Recorder,
    /// Where pods get their addresses.
    pub addresses: Mutex<AddressPool>,
    /// Where pods get their GPUs.
    pub gpus: Mutex<GpuPool>,
    /// The folder with one folder per pod uid: volumes and credentials.
    pub pods_folder: PathBuf,
    /// The file systems of the machine that are being asked for what pods name.
    pub openings: Openings,
    /// The node's own address.
    pub host: IpAddr,
    /// The first port that the node may open.
    pub first_port: u16,
    /// What the node has to give.
    pub allocatable: Resources,
    /// How long containers wait before they are started again.
    pub scale: BackoffScale,
    /// The address of the cluster's DNS, for pods that ask for it.
    pub dns: Option<IpAddr>,
}

impl Kit {
    /// Ends what still runs of a pod, and removes every trace of it, its volumes last.
    pub async fn remove_pod(&self, uid: &str) -> Result<(), DriverError> {
        self.driver.remove_pod(uid).await?;
        if !is_path_component(uid) || self.driver.is_hollow() {
            return Ok(()); // it never had a folder
        }
        let folder = self.pods_folder.join(uid);
        let what = format!("removing {}", folder.display());
        let removed = tasks::spawn_blocking(move || volumes::remove(&folder)).await;
        removed.unwrap_or_else(|lost| Err(lost.into())).map_err(DriverError::io(what))
    }

    /// The folder with one folder for each volume that outlives its pods: beside that of the pods.
    #[must_use]
    pub fn volumes_folder(&self) -> PathBuf {
        self.pods_folder.with_file_name(volumes::FOLDERS)
    }

    /// The node's name.
    pub fn node_name(&self) -> &str {
        self.node.name().as_str()
    }

    /// A pod needs its GPUs no more: before its resources are free, so that whoever gets these
    /// finds those.
    pub fn take_back_gpus(&self, uid: &str) {
        if let Err(error) = self.gpus.lock().take_back(uid) {
            tracing::warn!(%uid, %error, "the pod's GPUs are not given back");
        }
    }
}

/// What a Pod actor should make true; the Node actor keeps it up to date from its watch.
#[derive(Debug, Clone)]
pub struct Desired {
    /// The object as it was last read.
    pub entry: Entry,
    /// Whether it is gone from the registry, or bound elsewhere.
    pub gone: bool,
    /// Why the node does not take the pod, if it does not.
    pub refused: Option<(String, String)>,
}

/// How far a Pod actor is; it only ever rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Progress {
    /// Containers run or are about to.
    Active,
    /// Nothing of it runs or will; its resources are free.
    Over,
    /// No trace of it is left on the machine, and the actor has stopped.
    Finished,
}
