//! How a driver fails: [`StartError`] for what a pod's owner can mend, [`DriverError`] for the rest.

use super::id::ContainerId;
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;

/// Why a container was not started. Nothing of it is running.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The command is not there.
    #[error("{command}: no such file: correct the container's command or its image")]
    NotFound {
        /// What was to be run.
        command: String,
    },
    /// The command may not be run.
    #[error("{command}: permission denied: make it executable for the container's user")]
    PermissionDenied {
        /// What was to be run.
        command: String,
    },
    /// Neither the pod nor, for this driver, the image says what to run.
    #[error("no command: the process driver runs what spec.containers[].command says")]
    NoCommand,
    /// The image is not on this machine and must not be fetched.
    #[error("container image {image} is not present with pull policy of Never")]
    ImageNeverPull {
        /// The image.
        image: String,
    },
    /// The image could not be fetched; try again later.
    #[error("failed to pull image {image}: {cause}")]
    ImagePull {
        /// The image.
        image: String,
        /// What the registry or the daemon said.
        cause: String,
    },
    /// The image's name cannot be one.
    #[error("invalid image name {image:?}: {cause}")]
    ImageName {
        /// The image.
        image: String,
        /// What is wrong with it.
        cause: String,
    },
    /// A mount could not be made.
    #[error("cannot mount volume {volume} at {}: {cause}", target.display())]
    Mount {
        /// The volume.
        volume: String,
        /// Where it was to be seen.
        target: PathBuf,
        /// What failed.
        cause: String,
    },
    /// The pod, the name, a path or an id cannot be used as it is.
    #[error("{what}: correct the pod's specification")]
    Config {
        /// What is wrong.
        what: String,
    },
    /// A container of this pod, name and attempt is there already.
    #[error("{id} exists: ask for the next attempt, or remove it first")]
    Exists {
        /// Its id.
        id: ContainerId,
    },
    /// The machine or the daemon failed; nothing is wrong with the container.
    #[error(transparent)]
    Driver(#[from] DriverError),
}

impl StartError {
    /// The reason that Kubernetes shows.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotFound { .. } | Self::PermissionDenied { .. } => "StartError",
            Self::NoCommand | Self::Mount { .. } | Self::Exists { .. } => "CreateContainerError",
            Self::Config { .. } => "CreateContainerConfigError",
            Self::ImageNeverPull { .. } => "ErrImageNeverPull",
            Self::ImagePull { .. } => "ErrImagePull",
            Self::ImageName { .. } => "InvalidImageName",
            Self::Driver(_) => "RunContainerError",
        }
    }

    /// The exit code that stands for it, where a shell has one.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::NotFound { .. } => 127,
            Self::PermissionDenied { .. } => 126,
            _ => 128,
        }
    }
}

/// Why a driver could not do what it was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DriverError {
    /// There is no such container (any more).
    #[error("no container {id}: list them again")]
    NoContainer {
        /// What was asked for.
        id: ContainerId,
    },
    /// It still runs.
    #[error("{id} is running: stop it first")]
    Running {
        /// Which one.
        id: ContainerId,
    },
    /// It does not run (any more), so that nothing can be run in it.
    #[error("{id} is not running: look at what it is now")]
    NotRunning {
        /// Which one.
        id: ContainerId,
    },
    /// A command in it took too long.
    #[error("the command in {id} timed out after {waited:?}: give it more time, or let it do less")]
    TooLong {
        /// Which one.
        id: ContainerId,
        /// For how long it was waited.
        waited: Duration,
    },
    /// The driver does not do this, and says what to do instead.
    #[error("{what}")]
    NotDone {
        /// What it does not do, and what to do instead.
        what: String,
    },
    /// A file or a system call of this machine failed.
    #[error("{what}: {cause}")]
    Io {
        /// What was attempted.
        what: String,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The daemon did not answer, or not in time; it may have done what it was asked.
    #[error("the container engine did not {what}: {cause}; it may have been done, look again")]
    Engine {
        /// What was attempted.
        what: String,
        /// What it said.
        cause: String,
    },
    /// A process outlived SIGKILL: it hangs in the kernel.
    #[error("{id} outlived SIGKILL for {waited:?}: the machine needs a look")]
    Unkillable {
        /// Which one.
        id: ContainerId,
        /// For how long it was waited.
        waited: Duration,
    },
}

impl DriverError {
    /// Wraps an IO error with what was attempted.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |cause| Self::Io { what, cause }
    }
}
