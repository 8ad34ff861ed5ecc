//! A further command in a container that runs.
//!
//! Takes the command as JSON from its standard input (all of it, or its first line where the command has an input of
//! its own), goes where the container is (control groups, mounts, limits, user), and runs it. What hinders it is
//! written to standard error, as a shell would, and the exit code tells: 126 or 127 where the command is to blame,
//! 125 otherwise.
//!
//! Only a child can be among the container's processes, so that this one waits for it. Both are of one group, by which
//! the node ends them.

use super::{
    first::in_words,
    init::{limit, not_executed, prepared},
    keep::close_inherited,
    line::system,
    mounts::Seen,
    privileges,
};
use crate::process::asked::Asked;
use crate::process::identity::ProcessKey;
use crate::process::record::{self, Born, Failed, Order};
use nix::sched::{CloneFlags, setns};
use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, waitpid};
use std::{
    fs::{self, File},
    io::{self, Read},
    os::{fd::AsFd, unix::process::CommandExt},
    path::Path,
    process::{Command, ExitCode},
};

/// Most bytes of the line that says what is to be run.
const LINE_BYTES: usize = 1 << 20;

/// Runs a command that nobody writes to.
pub(super) fn run(folder: &Path) -> ExitCode {
    close_inherited();
    told(
        read_command()
            .and_then(|command| run_command(folder, &Asked { command, stdin: false, tty: false })),
    )
}

/// Runs a command that somebody writes to and reads from.
pub(super) fn run_for_somebody(folder: &Path) -> ExitCode {
    close_inherited();
    told(read_line().and_then(|asked| {
        if asked.tty {
            lead_session()?;
        }
        run_command(folder, &asked)
    }))
}

/// The exit code, and what hindered it in words.
fn told(outcome: Result<ExitCode, Failed>) -> ExitCode {
    let failed = match outcome {
        Ok(code) => return code,
        Err(failed) => failed,
    };
    let (code, words) = match failed {
        Failed::NotFound { command } => (127, format!("{command}: not found")),
        Failed::PermissionDenied { command } => (126, format!("{command}: permission denied")),
        Failed::Config { what } => (125, what),
        Failed::System { what, cause } => (125, format!("{what}: {cause}")),
        Failed::Mount { volume, cause, .. } => (125, format!("{volume}: {cause}")),
    };
    eprintln!("{words}");
    ExitCode::from(code)
}

fn failed(what: &str) -> impl FnOnce(io::Error) -> Failed {
    let what = what.to_owned();
    move |cause| Failed::System { what, cause: cause.to_string() }
}

/// The command, which is all that comes.
fn read_command() -> Result<Vec<String>, Failed> {
    let mut bytes = Vec::new();
    io::stdin().read_to_end(&mut bytes).map_err(failed("reading the command"))?;
    serde_json::from_slice(&bytes).map_err(|error| unreadable(&error))
}

/// What is asked; not a byte of what follows its line is taken.
fn read_line() -> Result<Asked, Failed> {
    let input = io::stdin().as_fd().try_clone_to_owned().map_err(failed("opening the input"))?;
    let mut input = File::from(input);
    let (mut line, mut byte) = (Vec::new(), [0]);
    loop {
        let read = input.read(&mut byte).map_err(failed("reading the command"))?;
        if read == 0 || byte == [b'\n'] || line.len() == LINE_BYTES {
            break;
        }
        line.push(byte[0]);
    }
    serde_json::from_slice(&line).map_err(|error| unreadable(&error))
}

fn unreadable(error: &serde_json::Error) -> Failed {
    Failed::Config { what: format!("the command cannot be read: {error}") }
}

/// Makes the terminal that the output is the controlling one of a session of its own, and the input.
fn lead_session() -> Result<(), Failed> {
    let errno = |what: &str| {
        let what = what.to_owned();
        move |errno: rustix::io::Errno| Failed::System { what, cause: errno.to_string() }
    };
    rustix::process::setsid().map_err(errno("making a session"))?;
    nix::unistd::dup2_stdin(io::stdout()).map_err(system("opening the terminal"))?;
    rustix::process::ioctl_tiocsctty(io::stdin()).map_err(errno("taking the terminal"))
}

fn run_command(folder: &Path, asked: &Asked) -> Result<ExitCode, Failed> {
    let [program, words @ ..] = asked.command.as_slice() else {
        return Err(Failed::Config { what: "no command".into() });
    };
    if !asked.stdin && !asked.tty {
        let null = File::open("/dev/null").map_err(failed("opening /dev/null"))?;
        nix::unistd::dup2_stdin(null).map_err(system("closing the input"))?;
    }
    let missing = || io::Error::from(io::ErrorKind::NotFound);
    let order: Order = record::read(folder, "taken.json")
        .and_then(|order| order.ok_or_else(missing))
        .map_err(failed("reading the container's order"))?;
    let born: Born = record::read(folder, "born.json")
        .and_then(|born| born.ok_or_else(missing))
        .map_err(failed("finding the container's process"))?;
    if let Some(cgroup) = &born.cgroup {
        cgroup.join().map_err(failed("joining the control group"))?;
    }
    let order = Order { cgroup: born.cgroup.clone(), ..order };
    // Before: what is mounted at /proc in there does not know this process.
    limit(&order);
    let (seen, is_apart) = enter(&born.process)?;
    privileges::give_up(&order)?;
    let mut command = prepared(&order, program, words, &seen)?;
    if asked.tty && !order.spec.env.iter().any(|(name, _)| name == "TERM") {
        command.env("TERM", "xterm");
    }
    if !is_apart {
        return Err(not_executed(program, &command.exec()));
    }
    wait(&mut command, asked.tty).map_err(|error| not_executed(program, &error))
}

fn wait(command: &mut Command, tty: bool) -> io::Result<ExitCode> {
    if tty {
        command.process_group(0);
    }
    let child = command.spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let (true, Some(pid)) = (tty, pid) {
        // The session's leader is out here, where a shell in the container does not see it: the terminal is the
        // shell's from the beginning, so that it need not ask whose it is. It may have ended by now.
        let _ = rustix::termios::tcsetpgrp(io::stdin(), pid);
        let _ = kill_process_group(pid, Signal::CONT);
    }
    // One that looked at the terminal before that was stopped by it.
    let options = if tty { WaitOptions::UNTRACED } else { WaitOptions::empty() };
    loop {
        let Some((_, status)) = waitpid(pid, options)? else { continue };
        match (status.stopped(), pid) {
            (true, Some(pid)) => {
                let _ = kill_process_group(pid, Signal::CONT);
            }
            _ => {
                let (code, _) = in_words(status);
                return Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)));
            }
        }
    }
}

/// Goes into the namespaces of the container's process that are others than ours; whether children are born among its
/// processes.
pub(super) fn enter(process: &ProcessKey) -> Result<(Seen, bool), Failed> {
    let (mut seen, mut is_apart) = (Seen::AsOnHost, false);
    let mut entered = Vec::new();
    // A user namespace gives the right to enter what belongs to it.
    let kinds = [
        ("user", CloneFlags::CLONE_NEWUSER),
        ("pid", CloneFlags::CLONE_NEWPID),
        ("mnt", CloneFlags::CLONE_NEWNS),
    ];
    for (name, kind) in kinds {
        let path = format!("/proc/{}/ns/{name}", process.pid);
        let what = format!("entering the container ({name})");
        let failed =
            |cause: io::Error| Failed::System { what: what.clone(), cause: cause.to_string() };
        let theirs = fs::read_link(&path).map_err(failed)?;
        if theirs != fs::read_link(format!("/proc/self/ns/{name}")).map_err(failed)? {
            entered.push((File::open(&path).map_err(failed)?, kind, what));
        }
    }
    // Checked after opening: what was opened is that of the container, not of who has its number now.
    if !process.is_running() {
        return Err(Failed::Config { what: "the container has ended".into() });
    }
    for (file, kind, what) in entered {
        setns(file, kind).map_err(system(&what))?;
        match kind {
            CloneFlags::CLONE_NEWNS => seen = Seen::Mounted,
            CloneFlags::CLONE_NEWPID => is_apart = true,
            _ => {}
        }
    }
    Ok((seen, is_apart))
}
