//! Taking hollow nodes away: their process ends, then their objects go, and last their files, so that what was cut off
//! can be done again.

use super::error::{HollowUpError, UpError};
use super::nodes::nodes;
use crate::down::end_process;
use crate::layout::{ClusterDir, HollowDir, LayoutError};
use crate::rest::{Rest, RestError};
use futures_util::stream::{StreamExt as _, TryStreamExt as _, iter};
use serde_json::Value;
use std::collections::HashSet;
use std::time::Duration;

/// How many objects are deleted at a time.
const DELETING: usize = 8;
/// How often objects are looked for: one may still come that its node has asked for with its last breath.
const LOOKS: usize = 3;
const BETWEEN: Duration = Duration::from_millis(300);

/// Takes the nodes of these groups away, those that were made last first, and says how many they were. The cluster runs.
pub(super) async fn take_away(groups: &[HollowDir]) -> Result<usize, UpError> {
    let Some(first) = groups.first() else { return Ok(0) };
    let (mut names, mut ended) = (HashSet::new(), Vec::new());
    for group in groups.iter().rev() {
        let file = match group.load() {
            Ok(file) => file,
            // Noted, and not written yet.
            Err(LayoutError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        end_process(group.process()).await?;
        names.extend(file.nodes.into_iter().map(|node| node.name));
        ended.push(group);
    }
    if ended.is_empty() {
        return Ok(0);
    }
    delete_objects(&first.cluster(), &names).await.map_err(HollowUpError::Left)?;
    for group in ended {
        group.remove()?;
    }
    Ok(names.len())
}

async fn delete_objects(dir: &ClusterDir, names: &HashSet<String>) -> Result<(), RestError> {
    let rest = Rest::from_kubeconfig(&dir.kubeconfig())?;
    for look in 0..LOOKS {
        if look > 0 {
            tokio::time::sleep(BETWEEN).await;
        }
        let paths: Vec<String> = nodes(&rest)
            .await?
            .iter()
            .filter(|node| pretends(node))
            .filter_map(|node| node["metadata"]["name"].as_str())
            .filter(|name| names.contains(*name))
            .map(|name| format!("/api/v1/nodes/{name}"))
            .collect();
        let deleted = iter(&paths).map(|path| delete(&rest, path));
        deleted.buffer_unordered(DELETING).try_collect::<()>().await?;
    }
    Ok(())
}

async fn delete(rest: &Rest, path: &str) -> Result<(), RestError> {
    match rest.delete(path).await {
        Ok(_) | Err(RestError::Status { code: 404, .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether this is the object of a hollow node: the node itself says what runs its containers. Labels and taints can be
/// on any.
pub(super) fn pretends(node: &Value) -> bool {
    let runtime = node["status"]["nodeInfo"]["containerRuntimeVersion"].as_str();
    runtime.is_some_and(|runtime| runtime.starts_with("hollow://"))
}
