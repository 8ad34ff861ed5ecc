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
/// A group that cannot be ended stays as it is, and the others go all the same.
pub(super) async fn take_away(groups: &[HollowDir]) -> Result<usize, UpError> {
    let Some(first) = groups.first() else { return Ok(0) };
    let Ended { names, groups, mut all } = end(groups).await;
    if !groups.is_empty() {
        delete_objects(&first.cluster(), &names).await.map_err(HollowUpError::Left)?;
    }
    for group in groups {
        all = all.and(group.remove().map_err(UpError::from));
    }
    all.map(|()| names.len())
}

/// Groups whose process has ended.
struct Ended<'g> {
    /// Their nodes.
    names: HashSet<String>,
    groups: Vec<&'g HollowDir>,
    /// Whether they are all; the first that is not among them says why.
    all: Result<(), UpError>,
}

async fn end(groups: &[HollowDir]) -> Ended<'_> {
    let mut ended = Ended { names: HashSet::new(), groups: Vec::new(), all: Ok(()) };
    for group in groups.iter().rev() {
        let file = match group.load() {
            Ok(file) => file,
            // Noted, and not written yet.
            Err(LayoutError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                continue;
            }
            Err(error) => {
                ended.all = ended.all.and(Err(error.into()));
                continue;
            }
        };
        if let Err(error) = end_process(group.process()).await {
            ended.all = ended.all.and(Err(error.into()));
            continue;
        }
        ended.names.extend(file.nodes.into_iter().map(|node| node.name));
        ended.groups.push(group);
    }
    ended
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{ClusterDir, HollowFile, HollowNode, HollowSize};

    #[tokio::test]
    async fn a_group_whose_file_is_damaged_keeps_no_other_from_going() {
        let folder = tempfile::tempdir().unwrap();
        let dir = ClusterDir::new(folder.path().to_owned());
        let at = "127.0.0.1".parse().unwrap();
        for number in 1..=3 {
            let name = format!("hollow-{number}");
            let (certificate, key) = (String::new(), String::new());
            let file = HollowFile {
                listen: at,
                address: at,
                size: HollowSize { cpu_milli: 1, memory_bytes: 1, pods: 1 },
                chaos: false,
                authority: String::new(),
                nodes: vec![HollowNode { name, number: number as u32, certificate, key }],
            };
            dir.hollow_group(number).save(&file).unwrap();
        }
        let damaged = dir.hollow_group(2);
        std::fs::write(damaged.process().path().join("hollow.json"), "{").unwrap();
        let groups = dir.hollow().unwrap();
        let ended = end(&groups).await;
        assert_eq!(ended.names, ["hollow-1", "hollow-3"].map(String::from).into());
        assert_eq!(ended.groups.len(), 2);
        let said = ended.all.unwrap_err().to_string();
        assert!(said.contains("group-2/hollow.json"), "{said}");
    }
}
