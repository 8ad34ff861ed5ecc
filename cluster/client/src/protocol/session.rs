//! What is opened at a pod and goes both ways: a command in a container, a container itself, a port.
//!
//! ```text
//!  control member ──Session──> Pod actor          the pod's output comes back as items
//!  entrance/…     <──Input──── Pod actor          the pod's node takes the input, as items too
//! ```
//!
//! Each direction is a stream of its own, held back by whoever reads it. The input is asked for at an actor that is there
//! for one session alone, under a name that nobody can guess. Losing either stream cuts the session.

use impresario_runtime::{ActorPath, role, stream_message};
use serde::{Deserialize, Serialize};
use thiserror::Error;

role! {
    /// Where a pod's node gets what is written to one session.
    pub EntranceRole = "entrance" {
        asks: [],
        streams: [Input]
    }
}

/// Opens a session at a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// With what.
    pub with: With,
    /// Where the input comes from; `None` where there is none.
    pub input: Option<ActorPath>,
}
stream_message!(Session => Output, "pod.Session");

/// What a session is with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum With {
    /// A command that is run in a container.
    Command {
        /// The container.
        container: String,
        /// The command and its arguments.
        command: Vec<String>,
        /// Whether it reads the input.
        stdin: bool,
        /// Whether it has a terminal.
        tty: bool,
    },
    /// What a container itself writes from now on, and reads.
    Container {
        /// The container.
        container: String,
        /// Whether something is to be written to it.
        stdin: bool,
    },
    /// A TCP port of the pod.
    Port(u16),
}

/// What comes from a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Output {
    /// Bytes of the standard output, of the terminal or from the port.
    Stdout(Vec<u8>),
    /// Bytes of the standard error.
    Stderr(Vec<u8>),
    /// It is over, with this exit code. Nothing follows.
    Ended(i32),
}

/// Takes what is written to a session: who asks first has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The node that asks, which is the pod's.
    pub node: String,
}
stream_message!(Input => Typed, "entrance.Input");

/// What is written to a session. Its end without [`End`](Self::End) says that whoever wrote is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Typed {
    /// Bytes for the standard input, or for the port.
    Bytes(Vec<u8>),
    /// Nothing more is written; what comes is still read.
    End,
    /// The terminal has this size from now on.
    Resize {
        /// Columns.
        width: u16,
        /// Rows.
        height: u16,
    },
}

/// Why there is no session. One that cannot begin is refused with one of these.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum SessionError {
    /// The pod has no such container.
    #[error("container {container} is not valid for pod {pod}")]
    NoSuchContainer {
        /// The pod's name.
        pod: String,
        /// The name that was asked for.
        container: String,
    },
    /// The container does not run.
    #[error("container {container} in pod {pod} is not running ({state}): wait until it is")]
    NotRunning {
        /// The pod's name.
        pod: String,
        /// The container's name.
        container: String,
        /// What it is instead.
        state: String,
    },
    /// The pod has no address yet, or pretends to have one.
    #[error("pod {pod} has no address that can be connected to: wait until it runs")]
    NoAddress {
        /// The pod's name.
        pod: String,
    },
    /// The port does not take a connection.
    #[error("port {port} of pod {pod} takes no connection: {cause}")]
    NoConnection {
        /// The pod's name.
        pod: String,
        /// The port.
        port: u16,
        /// What the system said.
        cause: String,
    },
    /// The pod has as many sessions as it may.
    #[error("pod {pod} has {most} sessions already: end one of them first")]
    TooMany {
        /// The pod's name.
        pod: String,
        /// How many it may have.
        most: usize,
    },
}
