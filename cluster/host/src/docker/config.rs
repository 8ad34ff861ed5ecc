//! Which engine is spoken to.

use std::path::PathBuf;

/// Which engine, and for whom.
#[derive(Debug, Clone)]
pub struct DockerConfig {
    /// The engine's socket, such as `/var/run/docker.sock`.
    pub socket: PathBuf,
    /// The cluster, in the labels.
    pub cluster: String,
    /// The node, in the labels: several may share an engine.
    pub node: String,
    /// The engine's network that pods are attached to: `bridge`, `none`, or one by name.
    pub network: String,
    /// The folder with a folder for each pod, by its uid: what is there may be mounted by that pod.
    pub pods: PathBuf,
    /// Files and folders that no container may be given, nor what holds them.
    pub hidden: Vec<PathBuf>,
}
