//! Why a volume is not there.

use std::{io, path::PathBuf};
use thiserror::Error;

/// Why a volume is not there.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VolumeError {
    /// An object that it is made from is missing, and not optional. Try again when it appears.
    #[error("{kind} {name:?} not found")]
    Missing {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A key of it is missing.
    #[error("references non-existent {kind} key: {key}")]
    MissingKey {
        /// `config` or `secret`.
        kind: &'static str,
        /// The key.
        key: String,
    },
    /// A path, a field or a mode is not one that can be given.
    #[error("volume {volume}: {what}")]
    Invalid {
        /// Its name.
        volume: String,
        /// What is wrong.
        what: String,
    },
    /// `hostPath` finds something else than the pod wants.
    #[error("hostPath type check failed: {} is not a {wanted}", path.display())]
    HostPath {
        /// The path on the host.
        path: PathBuf,
        /// What was to be there.
        wanted: String,
    },
    /// What `hostPath` or a `subPath` names cannot be looked at now.
    #[error("volume {volume}: {cause}")]
    Unreached {
        /// Its name.
        volume: String,
        /// What stands in the way, and what to look at.
        cause: String,
    },
    /// The folder of a volume that has had one is not there: it is not begun anew, empty.
    #[error(
        "volume {volume}: its folder {} is not there, and was before: mount its disk again or bring its files back; if they are lost, delete the PersistentVolume and its claim",
        path.display()
    )]
    Lost {
        /// Its name.
        volume: String,
        /// Where it was.
        path: PathBuf,
    },
    /// This kind of volume does not exist here.
    #[error("volume {volume}: this node has no volumes of kind {kind}")]
    Unsupported {
        /// Its name.
        volume: String,
        /// Its kind.
        kind: String,
    },
    /// A container mounts a volume that the pod does not have.
    #[error("container {container} mounts volume {volume}, which the pod does not have")]
    NoVolume {
        /// The container.
        container: String,
        /// The volume.
        volume: String,
    },
    /// The machine failed.
    #[error("{what}: {cause}")]
    Io {
        /// What was attempted.
        what: String,
        /// What the system said.
        cause: io::Error,
    },
}

impl VolumeError {
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |cause| Self::Io { what, cause }
    }

    /// The reason of the event that Kubernetes would show.
    pub fn reason(&self) -> &'static str {
        "FailedMount"
    }

    /// Whether the same pod can succeed later without being changed.
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Missing { .. }
                | Self::MissingKey { .. }
                | Self::Io { .. }
                | Self::HostPath { .. }
                | Self::Unreached { .. }
                | Self::Lost { .. }
        )
    }
}
