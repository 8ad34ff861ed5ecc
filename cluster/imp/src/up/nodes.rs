//! The nodes of a cluster as its API tells of them.

use crate::layout::ClusterDir;
use crate::rest::{Rest, RestError};
use impresario_actors::node::object::PROCESS;
use serde_json::Value;

/// All nodes of the cluster in this folder.
pub(super) async fn nodes_of(dir: &ClusterDir) -> Result<Vec<Value>, RestError> {
    nodes(&Rest::from_kubeconfig(&dir.kubeconfig())?).await
}

/// All nodes of a cluster.
pub(super) async fn nodes(rest: &Rest) -> Result<Vec<Value>, RestError> {
    let mut list = rest.get("/api/v1/nodes").await?;
    Ok(list["items"].as_array_mut().map(std::mem::take).unwrap_or_default())
}

/// The process that a node's object tells of.
pub(super) fn process(node: &Value) -> Option<i32> {
    node["metadata"]["annotations"][PROCESS].as_str()?.parse().ok()
}

/// Whether a node's object is Ready.
pub(super) fn is_ready(node: &Value) -> bool {
    let conditions = node["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}
