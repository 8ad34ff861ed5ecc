//! What the driver asks of the child that runs a command for somebody.

use serde::{Deserialize, Serialize};

/// What is to be run for somebody who writes to it and reads from it, as a line of JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Asked {
    /// The command and its arguments.
    pub command: Vec<String>,
    /// Whether what follows the line is its standard input; else that is at its end.
    pub stdin: bool,
    /// Whether the standard output is a terminal, which is to be its controlling one and its input as well.
    pub tty: bool,
}
