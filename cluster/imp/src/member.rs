//! `imp member`: who takes part in the registry.
//!
//! `remove` takes a control member out of the group for good, so that a new disk can take its name. No node of the folder
//! begins with it any more: one that is left alone would ask it, or whoever has its key, whether the group has gone on.

pub mod add;

use crate::admin::{Admin, AdminError};
use crate::layout::{ClusterDir, LayoutError, NodeDir, NodeFile};
use crate::output::say;
use impresario_registry::protocol::{MembershipError, Remove};
use impresario_registry::{REGISTRY_ACTOR, RegistryRole};
use impresario_runtime::{ActorPath, AskError, NodeName};
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;

/// How long a change of the membership may take.
const LIMIT: Duration = Duration::from_secs(45);

/// Why the member was not removed.
#[derive(Debug, Error)]
pub enum MemberError {
    /// There is no way in.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// No member answered.
    #[error("no other control member answers ({0}): `imp status` shows what runs")]
    Ask(AskError),
    /// There is nobody to ask.
    #[error("no other control member was set up here: remove it where `imp up` ran")]
    NoMember,
    /// A file of the cluster is unusable.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// It is removed, and a node will still ask it.
    #[error(
        "{name} is no control member any more, but {path} still names it ({source}): take it out of `peers` there"
    )]
    StillNamed {
        /// Who was removed.
        name: String,
        /// The file.
        path: PathBuf,
        /// Why it could not be changed.
        source: LayoutError,
    },
    /// The group refused.
    #[error(transparent)]
    Refused(#[from] MembershipError),
}

/// Removes the member and says what comes next.
pub async fn remove(dir: &ClusterDir, name: &str, force: bool) -> Result<(), MemberError> {
    let _alone = dir.lock().await?;
    let admin = Admin::connect(dir).await?;
    let others = admin.nodes.iter().filter(|node| node.control.is_some() && node.name != name);
    let mut last = MemberError::NoMember;
    for node in others {
        let path = ActorPath::new(NodeName::from(node.name.as_str()), REGISTRY_ACTOR);
        let member = admin.client.actor::<RegistryRole>(path);
        match member.ask(Remove { node: name.to_owned(), force }, LIMIT).await {
            Ok(Ok(())) => {
                say!("{name} is no control member any more");
                let folder = dir.node(name).registry();
                if folder.exists() {
                    say!("to let it join again, with an empty registry:");
                    say!("  mv {0} {0}.removed", folder.display());
                    say!("  imp up --data-dir {}", dir.path().display());
                }
                return forget(dir, name);
            }
            Ok(Err(error @ MembershipError::Unavailable { .. })) => last = error.into(),
            Ok(Err(error)) => return Err(error.into()),
            Err(error) => last = MemberError::Ask(error),
        }
    }
    Err(last)
}

/// Takes the name out of what the nodes of this folder begin with; of one that cannot be changed the others are all the
/// same. Where members are the registry knows.
fn forget(dir: &ClusterDir, name: &str) -> Result<(), MemberError> {
    let mut forgotten = Ok(());
    for node in dir.nodes()? {
        if let Err(source) = forget_at(&node, name) {
            let (name, path) = (name.to_owned(), node.file());
            forgotten = forgotten.and(Err(MemberError::StillNamed { name, path, source }));
        }
    }
    forgotten
}

fn forget_at(node: &NodeDir, name: &str) -> Result<(), LayoutError> {
    let file = node.load()?;
    let peers: Vec<_> = file.peers.iter().filter(|peer| peer.name != name).cloned().collect();
    if peers.len() == file.peers.len() {
        return Ok(());
    }
    node.save(&NodeFile { peers, ..file })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_member_that_is_removed_is_named_by_no_node_of_the_folder_but_the_one_that_cannot_be_changed()
     {
        let folder = tempfile::tempdir().unwrap();
        let dir = ClusterDir::new(folder.path().to_owned());
        let peer = |name: &str| json!({"name": name, "address": "127.0.0.1:9", "control": true});
        for name in ["m1", "m2", "n3"] {
            let others = ["m1", "m2", "n3"].into_iter().filter(|other| *other != name);
            let file = json!({
                "name": name, "cluster": "c", "bind": "127.0.0.1:1", "advertise": "127.0.0.1:1",
                "control": null, "peers": others.map(peer).collect::<Vec<_>>(), "driver": "process",
                "pod_range": "127.128.1.0/24",
            });
            let node = dir.node(name);
            std::fs::create_dir_all(node.path()).unwrap();
            std::fs::write(node.file(), file.to_string()).unwrap();
        }
        let names = |node: &str| -> Vec<String> {
            let peers = dir.node(node).load().unwrap().peers;
            peers.into_iter().map(|peer| peer.name).collect()
        };
        forget(&dir, "m2").unwrap();
        assert_eq!([names("m1"), names("n3")], [["n3"], ["m1"]]);

        std::fs::write(dir.node("m1").file(), "{").unwrap();
        let said = forget(&dir, "m1").unwrap_err().to_string();
        assert!(said.contains("nodes/m1/node.json") && said.contains("`peers`"), "{said}");
        assert_eq!(names("n3"), Vec::<String>::new());
    }
}
