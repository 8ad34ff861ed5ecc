//! `imp member`: who takes part in the registry.
//!
//! `remove` takes a control member out of the group for good, so that a new disk can take its name.

pub mod add;

use crate::admin::{Admin, AdminError};
use crate::layout::ClusterDir;
use crate::output::say;
use impresario_registry::protocol::{MembershipError, Remove};
use impresario_registry::{REGISTRY_ACTOR, RegistryRole};
use impresario_runtime::{ActorPath, AskError, NodeName};
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
    /// The group refused.
    #[error(transparent)]
    Refused(#[from] MembershipError),
}

/// Removes the member and says what comes next.
pub async fn remove(dir: &ClusterDir, name: &str, force: bool) -> Result<(), MemberError> {
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
                return Ok(());
            }
            Ok(Err(error @ MembershipError::Unavailable { .. })) => last = error.into(),
            Ok(Err(error)) => return Err(error.into()),
            Err(error) => last = MemberError::Ask(error),
        }
    }
    Err(last)
}
