//! The keeper of one container: a small single-threaded process that outlives the node.
//!
//! ```text
//! node ──spawns──> keeper (own session) ──spawns──> process 1 ──spawns──> the container's command
//!                    │ log, exit code: files          │ session, groups, mounts, limits, user
//! ```
//! - The keeper inherits no descriptor of the node but its report channel, and holds nothing of
//!   the node's terminal or session; its standard files are `/dev/null` once it has reported.
//! - Process 1 lives in the container: in namespaces of process numbers and mounts (and of users, where the node is not
//!   root), without the rights that a container has no need of. Where the machine permits none of that it becomes the
//!   command itself, and a warning says what the container can reach.
//! - When the command ends, all other processes of the container are ended too, and only then is the exit written,
//!   whole, to its file.
//! - SIGTERM to the keeper is passed to the command, SIGUSR1 ends the container
//!   at once. Only who reaps signals by number: a number is never another's by then.
//! - A further command in a running container (a probe, a hook, what a user runs there) is a third kind of process, a child of the
//!   node: it joins the container's groups and mounts, and executes the command.
//! - A fourth kind hides the folders of a node that was made after a container from it, and goes.
//! - If the keeper is killed the container dies with it (parent death signal), also where that happens before the second
//!   stage has asked for the signal: it looks whether it is kept, and starts nothing else.
//! - What hangs in the kernel outlives SIGKILL. As long as a process is left the container has not ended: its keeper stays.

mod bind;
mod exec;
mod first;
pub(crate) mod gpu_lock;
mod hide;
mod init;
mod keep;
mod line;
mod mounts;
mod namespaces;
mod privileges;
mod second;
mod view;

use std::{ffi::OsString, process::ExitCode};

/// Runs as a keeper, or as its second stage; `args` are those behind the hidden subcommand.
/// Must be called first thing in a program: it closes every descriptor that it was left.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<_> = args.into_iter().collect();
    match args.as_slice() {
        [stage, folder] if stage == "keep" => keep::run(folder.as_ref()),
        [stage] if stage == "init" => init::run(),
        [stage, folder] if stage == "exec" => exec::run(folder.as_ref()),
        [stage, folder] if stage == "session" => exec::run_for_somebody(folder.as_ref()),
        [stage] if stage == "hide" => hide::run(),
        [stage] if stage == "trial" => namespaces::trial(),
        _ => ExitCode::from(64),
    }
}
