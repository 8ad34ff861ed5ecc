//! How a process runs the program that it is itself as one of the kinds that [`crate::shim`] has.

use serde::{Deserialize, Serialize};
use std::{ffi::OsString, io, process::Command};

/// The command that runs [`crate::shim::main`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Program {
    /// The program and its first arguments, such as `["/proc/self/exe", "__shim"]`.
    pub words: Vec<OsString>,
    /// All of its environment: what the program itself heeds before its first line. No container sees it.
    pub env: Vec<(OsString, OsString)>,
}

impl Program {
    /// A program that needs nothing in its environment.
    pub fn new(words: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self { words: words.into_iter().map(Into::into).collect(), env: Vec::new() }
    }

    /// A command of this kind, which is given its further arguments and its files.
    pub(crate) fn command(&self, kind: &str) -> io::Result<Command> {
        let [program, args @ ..] = self.words.as_slice() else {
            let what = "no command is configured that keeps containers";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        };
        let mut command = Command::new(program);
        command.args(args).arg(kind).env_clear();
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }
}
