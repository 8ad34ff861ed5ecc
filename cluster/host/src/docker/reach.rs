//! Which containers of engines have files of this machine: what is made later below a folder that they have is in them
//! as well.

use super::{
    CALL_LIMIT, Refused, call,
    translate::{CLUSTER, CONTAINER, POD_UID},
};
use crate::{private::Target, process::identity::ProcessKey};
use bollard::{
    API_DEFAULT_VERSION, Docker,
    models::ContainerSummary,
    query_parameters::{InspectContainerOptions, ListContainersOptionsBuilder},
};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::timeout;

/// How long all engines together may take to tell.
const LIMIT: Duration = Duration::from_secs(20);

/// The containers of pods that run on these engines, given by their sockets, and have a folder of the machine. One that
/// cannot be asked is warned of.
pub(crate) async fn running(engines: &[PathBuf]) -> Vec<Target> {
    let mut found = Vec::new();
    for socket in engines {
        let told = timeout(LIMIT, told(socket)).await;
        let told = told.unwrap_or_else(|_| Err(format!("no answer within {LIMIT:?}")));
        match told {
            Ok(targets) => found.extend(targets),
            Err(error) => {
                tracing::warn!(engine = ?socket, error, "its containers may see what is made below their volumes");
            }
        }
    }
    found
}

async fn told(socket: &Path) -> Result<Vec<Target>, String> {
    let said = |refused: Refused| format!("{}: {}", refused.what, refused.message);
    let at = socket.display().to_string();
    let docker = Docker::connect_with_unix(&at, LIMIT.as_secs(), API_DEFAULT_VERSION);
    let docker = docker.map_err(|error| error.to_string())?;
    let agreed = call("agree on a version", CALL_LIMIT, docker.negotiate_version()).await;
    let docker = agreed.map_err(said)?;
    let labels = vec![CLUSTER.to_owned(), CONTAINER.to_owned()];
    let filters = HashMap::from([("label", labels)]);
    let options = ListContainersOptionsBuilder::new().filters(&filters).build();
    let list = docker.list_containers(Some(options));
    let all = call("list containers", CALL_LIMIT, list).await.map_err(said)?;
    let mut found = Vec::new();
    for summary in all.into_iter().filter(has_more_than_its_own) {
        let Some(id) = summary.id else { continue };
        let inspect = docker.inspect_container(&id, None::<InspectContainerOptions>);
        let process = match call("inspect a container", CALL_LIMIT, inspect).await {
            Ok(found) => found.state.and_then(|state| state.pid),
            Err(Refused { code: 404, .. }) => continue,
            Err(refused) => return Err(said(refused)),
        };
        // None that runs has the number 0, nor has one of an engine on another machine a process here.
        let process = process.and_then(|pid| u32::try_from(pid).ok()).and_then(ProcessKey::of);
        let names = summary.names.unwrap_or_default();
        let name = names.first().map_or(id.as_str(), |name| name.trim_start_matches('/'));
        found.extend(process.map(|process| Target {
            name: name.to_owned(),
            process,
            own: Vec::new(),
        }));
    }
    Ok(found)
}

/// Whether a container has more of the machine than what lies in its pod's own folder. What was looked at for it (a
/// place in `sources` of that folder) may be any folder of the machine.
fn has_more_than_its_own(summary: &ContainerSummary) -> bool {
    let uid = summary.labels.as_ref().and_then(|labels| labels.get(POD_UID));
    let is_own =
        |source: &str| uid.is_some_and(|uid| source.contains(&format!("/pods/{uid}/volumes/")));
    let mounts = summary.mounts.iter().flatten();
    mounts
        .filter(|mount| mount.typ.as_deref() == Some("bind"))
        .any(|mount| !mount.source.as_deref().is_some_and(is_own))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::MountPoint;

    #[test]
    fn who_has_nothing_but_its_pod_s_own_volumes_sees_nothing_that_is_made() {
        let container = |source: Option<&str>| ContainerSummary {
            labels: Some(HashMap::from([(POD_UID.to_owned(), "u-1".to_owned())])),
            mounts: source.map(|source| {
                vec![MountPoint {
                    typ: Some("bind".to_owned()),
                    source: Some(source.to_owned()),
                    ..MountPoint::default()
                }]
            }),
            ..ContainerSummary::default()
        };
        let own = container(Some("/d/nodes/n/pods/u-1/volumes/v"));
        assert!(!has_more_than_its_own(&own) && !has_more_than_its_own(&container(None)));
        for source in
            ["/root", "/d/nodes/n/pods/u-1/sources/a-0-0", "/d/nodes/n/pods/u-2/volumes/v"]
        {
            assert!(has_more_than_its_own(&container(Some(source))), "{source}");
        }
    }
}
