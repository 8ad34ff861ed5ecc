//! A further command in a container that runs.
//!
//! Takes the command as JSON from its standard input, goes where the container is (control groups, mounts,
//! limits, user), and runs it. What hinders it is written to standard error, as a shell would, and the exit
//! code tells: 126 or 127 where the command is to blame, 125 otherwise.
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
use crate::process::identity::ProcessKey;
use crate::process::record::{self, Born, Failed, Order};
use nix::sched::{CloneFlags, setns};
use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, ExitCode},
};

pub(super) fn run(folder: &Path) -> ExitCode {
    close_inherited();
    let failed = match run_command(folder) {
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

fn run_command(folder: &Path) -> Result<ExitCode, Failed> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |cause: io::Error| Failed::System { what, cause: cause.to_string() }
    };
    let mut bytes = Vec::new();
    io::stdin().read_to_end(&mut bytes).map_err(failed("reading the command"))?;
    let command: Vec<String> = serde_json::from_slice(&bytes)
        .map_err(|error| Failed::Config { what: format!("the command cannot be read: {error}") })?;
    let [program, words @ ..] = command.as_slice() else {
        return Err(Failed::Config { what: "no command".into() });
    };
    let null = File::open("/dev/null").map_err(failed("opening /dev/null"))?;
    nix::unistd::dup2_stdin(null).map_err(system("closing the input"))?;
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
    if !is_apart {
        return Err(not_executed(program, &command.exec()));
    }
    wait(&mut command).map_err(|error| not_executed(program, &error))
}

fn wait(command: &mut Command) -> io::Result<ExitCode> {
    let child = command.spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    let ended = rustix::process::waitpid(pid, rustix::process::WaitOptions::empty())?;
    let (code, _) = ended.map_or((125, None), |(_, status)| in_words(status));
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
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
