//! Process numbers of the container's own, so that it can neither see nor signal what else this machine runs.
//!
//! The keeper makes the namespace and stays outside; the second stage, its only child, is process 1 of it. Without
//! root a user namespace comes first: it gives the right to all others, and to nothing of the machine.

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    configure_capability_in_ambient_set, set_capabilities,
};
use std::{fs, io, process::ExitCode};

/// Makes the namespaces that the next child is born in.
pub(super) fn isolate_children() -> io::Result<()> {
    let (uid, gid) = (Uid::effective(), Gid::effective());
    if uid.is_root() {
        return Ok(unshare(CloneFlags::CLONE_NEWPID)?);
    }
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWPID)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
    keep_over_execve()
}

/// Tries whether namespaces can be had, in a process that is good for nothing else afterwards.
pub(super) fn trial() -> ExitCode {
    match isolate_children() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Whether the children of this process are in a namespace of process numbers of their own. Asked when there is one.
pub(super) fn children_are_apart() -> bool {
    let namespace = |name: &str| fs::read_link(format!("/proc/self/ns/{name}")).ok();
    let of_children = namespace("pid_for_children");
    of_children.is_some() && of_children != namespace("pid")
}

/// Whether this process is the first of a namespace of process numbers.
pub(super) fn is_first() -> bool {
    std::process::id() == 1
}

/// What the user namespace gives must reach the second stage, which is executed as an ordinary user.
fn keep_over_execve() -> io::Result<()> {
    let CapabilitySets { effective, permitted, .. } = capabilities(None)?;
    set_capabilities(None, CapabilitySets { effective, permitted, inheritable: permitted })?;
    for one in permitted.intersection(known()).iter() {
        configure_capability_in_ambient_set(one, true)?;
    }
    Ok(())
}

/// All capabilities that this program knows, up to Linux 6.18.
pub(super) fn known() -> CapabilitySet {
    CapabilitySet::from_bits_truncate((CapabilitySet::CHECKPOINT_RESTORE.bits() << 1) - 1)
}

/// Gives up what [`keep_over_execve`] kept.
pub(super) fn keep_nothing_over_execve() -> io::Result<()> {
    clear_ambient_capability_set()?;
    let sets = capabilities(None)?;
    Ok(set_capabilities(None, CapabilitySets { inheritable: CapabilitySet::empty(), ..sets })?)
}
