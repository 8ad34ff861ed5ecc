//! Process 1 of a container: starts its command, passes the request to stop on, reaps what its processes leave behind.
//!
//! The command itself is not process 1, since the kernel withholds most signals from that one: a program that ends on
//! SIGTERM on a machine ends on it here too. When the command has ended this process says how and goes; the kernel
//! ends with it whatever else the container still runs.

use super::line::{Line, send, system};
use crate::process::record::Failed;
use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::SignalFd,
};
use rustix::process::{Pid, WaitOptions, WaitStatus};
use std::{fs::File, os::unix::net::UnixStream, process::Command, process::ExitCode};

/// Runs the command to its end.
pub(super) fn supervise(command: &mut Command, channel: &UnixStream) -> Result<ExitCode, Spawned> {
    let child = command.spawn().map_err(Spawned::Not)?;
    let main = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let main = main.ok_or_else(|| {
        Spawned::Failed(Failed::System { what: "starting".into(), cause: "no number".into() })
    })?;
    let mut mask = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM] {
        mask.add(signal);
    }
    let failed = |errno| Spawned::Failed(system("watching signals")(errno));
    mask.thread_block().map_err(failed)?;
    let signals = SignalFd::new(&mask).map_err(failed)?;
    // The output is the command's alone: it is at its end when nothing of the container has it open.
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stdout(&null);
        let _ = nix::unistd::dup2_stderr(&null);
    }
    send(channel, &Line::Began);
    loop {
        // What ended before it was watched for is found by looking first.
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if pid == main {
                let (code, signal) = in_words(status);
                send(channel, &Line::Ended { code, signal });
                return Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)));
            }
        }
        let heard = signals.read_signal().ok().flatten();
        if heard.is_some_and(|info| info.ssi_signo == Signal::SIGTERM as u32) {
            let _ = rustix::process::kill_process(main, rustix::process::Signal::TERM);
        }
    }
}

/// Why nothing is supervised.
pub(super) enum Spawned {
    /// The command does not execute.
    Not(std::io::Error),
    /// The machine failed.
    Failed(Failed),
}

/// An exit code as a shell tells it, and the signal behind it.
pub(super) fn in_words(status: WaitStatus) -> (i32, Option<i32>) {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => (code, None),
        (None, signal) => (128 + signal.unwrap_or(0), signal),
    }
}
