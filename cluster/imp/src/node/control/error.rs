//! Why a control member does not run.

use crate::layout::{LayoutError, NodeDir};
use impresario_gateway::{ListenError, TlsError};
use impresario_objects::accounts::KeyError;
use impresario_registry::member::StartError;
use impresario_runtime::pki::PkiError;
use impresario_runtime::{NodeName, SpawnError};
use std::path::PathBuf;
use thiserror::Error;

/// Why a control member does not run.
#[derive(Debug, Error)]
pub enum ControlError {
    /// Its registry did not start.
    #[error(transparent)]
    Registry(StartError),
    /// The registry has gone on without this member, or a member that was removed says so.
    #[error(
        "{directory} has entry {last} of the registry as its last and knows of no other member, and {other} has entry \
         {applied}. If {other} was removed for good, take it out of `peers` in {file} and start again: {directory} may be \
         all there is of the registry. Only if other members run it is an older state, or a copy: then move it away and \
         start again, and it is fetched anew"
    )]
    LeftBehind {
        /// What this member has of the registry.
        directory: PathBuf,
        /// Who said so.
        other: NodeName,
        /// The last entry that it has applied.
        applied: u64,
        /// The last entry of this member.
        last: u64,
        /// Where the peers stand that this node asks.
        file: PathBuf,
    },
    /// A file of the node is unusable.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A certificate is unusable.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The API's certificate is.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The API's address cannot be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The keys of service accounts cannot be sealed.
    #[error(transparent)]
    Accounts(#[from] KeyError),
    /// An actor did not start.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
}

impl ControlError {
    /// With the files that are to be changed, which the registry does not know.
    pub(super) fn of_registry(error: StartError, dir: &NodeDir) -> Self {
        match error {
            StartError::LeftBehind { node, applied, last } => {
                let (directory, file) = (dir.registry(), dir.file());
                Self::LeftBehind { directory, other: node, applied, last, file }
            }
            error => Self::Registry(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_left_behind_by_a_removed_member_is_told_first_which_file_to_change() {
        let dir = NodeDir::new("/c/nodes/m1".into());
        let behind = StartError::LeftBehind { node: NodeName::from("m2"), applied: 9, last: 3 };
        let said = ControlError::of_registry(behind, &dir).to_string();
        let at = |words: &str| said.find(words).unwrap_or_else(|| panic!("{words}: {said}"));
        let removed = at("take it out of `peers` in /c/nodes/m1/node.json");
        assert!(removed < at("Only if other members run"), "{said}");
        assert!(at("Only if other members run") < at("move it away"), "{said}");
    }
}
