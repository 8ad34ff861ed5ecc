//! A further command in a container that runs.
//!
//! Takes the command as JSON from its standard input, goes where the container is (control groups, mounts,
//! limits, user), and executes it. What hinders it is written to standard error, as a shell would, and the exit
//! code tells: 126 or 127 where the command is to blame, 125 otherwise.

use super::{
    init::{become_user, execute, limit, system},
    keep::close_inherited,
    mounts::Seen,
};
use crate::process::record::{self, Born, Failed, Order};
use nix::sched::{CloneFlags, setns};
use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
    process::ExitCode,
};

pub(super) fn run(folder: &Path) -> ExitCode {
    close_inherited();
    let failed = match become_command(folder) {
        Ok(never) => match never {},
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

fn become_command(folder: &Path) -> Result<std::convert::Infallible, Failed> {
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
    let seen = enter(&born)?;
    let order = Order { cgroup: born.cgroup, ..order };
    limit(&order);
    become_user(&order)?;
    execute(&order, program, words, &seen)
}

/// Goes into the namespaces of the container's process that are others than ours.
fn enter(born: &Born) -> Result<Seen, Failed> {
    let mut seen = Seen::AsOnHost;
    let mut entered = Vec::new();
    // A user namespace gives the right to enter the mounts that belong to it.
    for (name, kind) in [("user", CloneFlags::CLONE_NEWUSER), ("mnt", CloneFlags::CLONE_NEWNS)] {
        let path = format!("/proc/{}/ns/{name}", born.process.pid);
        let what = format!("entering the container ({name})");
        let failed =
            |cause: io::Error| Failed::System { what: what.clone(), cause: cause.to_string() };
        let theirs = fs::read_link(&path).map_err(failed)?;
        if theirs != fs::read_link(format!("/proc/self/ns/{name}")).map_err(failed)? {
            entered.push((File::open(&path).map_err(failed)?, kind, what));
        }
    }
    // Checked after opening: what was opened is that of the container, not of who has its number now.
    if !born.process.is_running() {
        return Err(Failed::Config { what: "the container has ended".into() });
    }
    for (file, kind, what) in entered {
        setns(file, kind).map_err(system(&what))?;
        if kind == CloneFlags::CLONE_NEWNS {
            seen = Seen::Mounted;
        }
    }
    Ok(seen)
}
