//! Second stage: makes what a container lives in, and starts its command.
//!
//! Takes the order from its standard input, in the control groups that its keeper has put it into by then, makes what
//! else the container is to live in (session, mounts, limits, user), and starts the command: as process 1 of the container, or, where there are
//! no namespaces, by becoming it. What goes wrong is told on
//! the same socket, which closes by itself when this process ends or becomes the command.

use super::{
    first::{self, Spawned},
    line::{Line, send, system},
    mounts::{self, Seen},
    namespaces, privileges,
};
use crate::process::{
    oom,
    record::{Failed, Order},
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::{
    resource::{Resource, setrlimit},
    signal::{SigSet, Signal},
    stat::{Mode, umask},
};
use std::{
    fs::File,
    io::{self, Read},
    os::{
        fd::AsFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    path::Path,
    process::{Command, ExitCode, Stdio},
};

/// Where commands are looked for when the pod does not say.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) fn run() -> ExitCode {
    let Ok(channel) = take_channel() else { return ExitCode::from(66) };
    match run_command(&channel) {
        Ok(code) => code,
        Err(failed) => {
            send(&channel, &Line::Failed(failed));
            ExitCode::from(67)
        }
    }
}

/// Moves the socket from standard input to a descriptor that execve closes.
fn take_channel() -> io::Result<UnixStream> {
    let channel = io::stdin().as_fd().try_clone_to_owned()?;
    nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
    Ok(channel.into())
}

/// Whether nobody has the other end any more. The keeper has finished its order, and no more is to come from it: that alone
/// does not count.
fn has_hung_up(channel: &UnixStream) -> nix::Result<bool> {
    let mut ends = [PollFd::new(channel.as_fd(), PollFlags::empty())];
    poll(&mut ends, PollTimeout::ZERO)?;
    Ok(ends[0].revents().is_some_and(|found| found.contains(PollFlags::POLLHUP)))
}

fn run_command(mut channel: &UnixStream) -> Result<ExitCode, Failed> {
    let mut bytes = Vec::new();
    channel
        .read_to_end(&mut bytes)
        .map_err(|e| Failed::System { what: "reading the order".into(), cause: e.to_string() })?;
    let order: Order = serde_json::from_slice(&bytes)
        .map_err(|e| Failed::Config { what: format!("the order cannot be read: {e}") })?;
    let spec = &order.spec;
    let mut words = spec.command.iter().chain(&spec.args);
    let program = words.next().ok_or(Failed::Config { what: "no command".into() })?;

    nix::unistd::setsid().map_err(system("making a session"))?;
    let seen = mounts::make(&order, |warning| send(channel, &Line::Warning(warning)))?;
    limit(&order);
    privileges::give_up(&order)?;
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(system("tying it to its keeper"))?;
    // The signal comes from one that dies from now on.
    if has_hung_up(channel).map_err(system("looking for its keeper"))? {
        let what = "its keeper was killed while it was started".to_owned();
        return Err(Failed::System { what, cause: "nobody would keep it".into() });
    }
    let mut command = prepared(&order, program, words, &seen)?;
    if !namespaces::is_first() {
        return Err(not_executed(program, &command.exec()));
    }
    match first::supervise(&mut command, channel) {
        Ok(code) => Ok(code),
        Err(Spawned::Not(error)) => Err(not_executed(program, &error)),
        Err(Spawned::Failed(failed)) => Err(failed),
    }
}

/// A command as the container's: with its directory, its environment, nothing blocked.
pub(super) fn prepared<'a>(
    order: &Order,
    program: &str,
    words: impl IntoIterator<Item = &'a String>,
    seen: &Seen,
) -> Result<Command, Failed> {
    let spec = &order.spec;
    umask(Mode::from_bits_truncate(0o022));
    SigSet::empty().thread_set_mask().map_err(system("clearing the signal mask"))?;
    let folder = spec.working_dir.as_deref().unwrap_or(Path::new("/"));
    nix::unistd::chdir(folder).map_err(|errno| Failed::Config {
        what: format!("working directory {}: {errno}", folder.display()),
    })?;

    let gpus = if spec.gpus.is_empty() { "void".to_owned() } else { spec.gpus.join(",") };
    let mut command = Command::new(program);
    command
        .args(words)
        .env_clear()
        .env("PATH", PATH)
        .env("HOSTNAME", &spec.pod.hostname)
        // What the GPU's own libraries heed; with none given they are to find none.
        .env("CUDA_VISIBLE_DEVICES", spec.gpus.join(","))
        .env("NVIDIA_VISIBLE_DEVICES", gpus)
        .envs(spec.mounts.iter().map(|mount| (variable(&mount.volume), seen.path(mount))))
        .envs(spec.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::inherit());
    Ok(command)
}

/// Why the command does not execute.
pub(super) fn not_executed(program: &str, error: &io::Error) -> Failed {
    let command = program.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Failed::NotFound { command },
        io::ErrorKind::PermissionDenied => Failed::PermissionDenied { command },
        _ => Failed::System { what: format!("executing {command}"), cause: error.to_string() },
    }
}

/// The variable that tells where a volume is.
fn variable(volume: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    format!("IMPRESARIO_VOLUME_{}", volume.chars().map(plain).collect::<String>())
}

/// Limits per process, as far as the kernel lets us: they stand in for groups that are missing.
pub(super) fn limit(order: &Order) {
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    let memory = crate::machine::memory().unwrap_or(u64::MAX);
    // Up is open to everybody; down, for pods that are spared, to root alone.
    let _ = oom::set(oom::score(&order.spec.resources, memory));
    if let (None, Some(bytes)) = (&order.cgroup, order.spec.resources.memory_limit_bytes) {
        // Refused only where a tighter limit stands already.
        let _ = setrlimit(Resource::RLIMIT_DATA, bytes, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_has_a_variable_that_a_shell_can_name() {
        assert_eq!(variable("my-data.1"), "IMPRESARIO_VOLUME_MY_DATA_1");
    }
}
