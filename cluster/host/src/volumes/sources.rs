//! What volumes are filled from.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use std::collections::BTreeMap;

/// What the objects of a pod, and its node, say.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The pod as it is in the registry, for `downwardAPI`.
    pub pod: serde_json::Value,
    /// What the node can give, as in its status: stands in where a container names no limit.
    pub allocatable: BTreeMap<String, String>,
    /// The config maps of the pod's namespace that it names.
    pub config_maps: BTreeMap<String, ConfigMap>,
    /// The secrets of the pod's namespace that it names.
    pub secrets: BTreeMap<String, Secret>,
    /// Tokens by the volume, and the path in it, at which a projection wants them.
    pub tokens: BTreeMap<(String, String), String>,
    /// The group that volumes belong to, when the pod asks for one.
    pub fs_group: Option<u32>,
}
