//! What a container may do at most, whoever it runs as: the right to read everything, to trace others or to
//! mount is not among it.

use super::line::system;
use super::namespaces::{keep_nothing_over_execve, known};
use crate::container::{Security, User};
use crate::process::record::{Failed, Order};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};
use std::io;

/// What Docker and Kubernetes leave to a container (Docker Engine, "Runtime privilege and Linux capabilities"),
/// but `MKNOD`: without control groups for devices it would open the machine's disks.
const DEFAULT: CapabilitySet = CapabilitySet::AUDIT_WRITE
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SYS_CHROOT);

/// What may be had under `security`; a name that is none is an error that says so.
fn allowed(security: &Security) -> Result<CapabilitySet, Failed> {
    if security.privileged {
        return Ok(known());
    }
    let added = named(&security.add)?;
    let dropped = named(&security.drop)?;
    // As in Kubernetes: what is added by name stays, whatever `ALL` takes away.
    Ok(DEFAULT.difference(dropped).union(added))
}

fn named(names: &[String]) -> Result<CapabilitySet, Failed> {
    let mut set = CapabilitySet::empty();
    for name in names {
        let plain = name.to_ascii_uppercase();
        let plain = plain.strip_prefix("CAP_").unwrap_or(&plain);
        set |= match plain {
            "ALL" => known(),
            other => CapabilitySet::from_name(other).ok_or_else(|| Failed::Config {
                what: format!("capability {name:?}: Linux has none of this name"),
            })?,
        };
    }
    Ok(set)
}

/// Becomes the container's user with no more than it may have. Nothing can be mounted any more after this.
pub(super) fn give_up(order: &Order) -> Result<(), Failed> {
    let security = &order.spec.security;
    let allowed = allowed(security)?;
    let failed = |what: &'static str| {
        move |errno: rustix::io::Errno| Failed::System {
            what: what.to_owned(),
            cause: errno.to_string(),
        }
    };
    let has = capabilities(None).map_err(failed("reading the capabilities"))?.permitted;
    if has.contains(CapabilitySet::SETPCAP) {
        for one in known().difference(allowed).iter() {
            match remove_capability_from_bounding_set(one) {
                // An older kernel does not know it.
                Ok(()) | Err(rustix::io::Errno::INVAL) => {}
                Err(errno) => return Err(failed("limiting the capabilities")(errno)),
            }
        }
    }
    become_user(&order.spec.user)?;
    let cause = |error: io::Error| Failed::System {
        what: "giving up capabilities".into(),
        cause: error.to_string(),
    };
    keep_nothing_over_execve().map_err(cause)?;
    let has = capabilities(None).map_err(failed("reading the capabilities"))?.permitted;
    // An ordinary user has none, in a namespace of its own neither.
    let kept = if Uid::effective().is_root() { has & allowed } else { CapabilitySet::empty() };
    let sets =
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).map_err(failed("giving up capabilities"))?;
    if !security.may_gain() {
        set_no_new_privs(true).map_err(failed("refusing new privileges"))?;
    }
    // Neither this process nor the file that it was started from is to be had through /proc.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed("closing /proc/self"))
}

fn become_user(user: &User) -> Result<(), Failed> {
    let (uid, gid) = (Uid::effective(), Gid::effective());
    let wanted = user.uid.map_or(uid, Uid::from_raw);
    if user.must_not_be_root && wanted.is_root() {
        let what = match user.uid {
            Some(_) => "container's runAsUser breaks non-root policy",
            None => "container has runAsNonRoot and would run as root: set runAsUser",
        };
        return Err(Failed::Config { what: what.into() });
    }
    if !uid.is_root() {
        let same = wanted == uid && user.gid.is_none_or(|g| g == gid.as_raw());
        let what =
            format!("user {:?}: this node runs as {uid} and cannot become another", user.uid);
        return if same { Ok(()) } else { Err(Failed::Config { what }) };
    }
    let groups: Vec<_> = user.groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups).map_err(system("setting the groups"))?;
    let gid = user.gid.map_or(gid, Gid::from_raw);
    setresgid(gid, gid, gid).map_err(system("becoming the group"))?;
    setresuid(wanted, wanted, wanted).map_err(system("becoming the user"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(add: &[&str], drop: &[&str]) -> Result<CapabilitySet, Failed> {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        allowed(&Security { add: words(add), drop: words(drop), ..Security::default() })
    }

    #[test]
    fn nothing_that_reaches_beyond_the_container_is_among_the_default() {
        let set = of(&[], &[]).unwrap();
        for never in [
            CapabilitySet::SYS_ADMIN,
            CapabilitySet::SYS_PTRACE,
            CapabilitySet::DAC_READ_SEARCH,
            CapabilitySet::SYS_MODULE,
            CapabilitySet::SYS_RAWIO,
            CapabilitySet::MKNOD,
            CapabilitySet::BPF,
            CapabilitySet::PERFMON,
            CapabilitySet::NET_ADMIN,
            CapabilitySet::CHECKPOINT_RESTORE,
        ] {
            assert!(!set.contains(never), "{never:?}");
        }
    }

    #[test]
    fn capabilities_are_added_and_dropped_by_name() {
        assert_eq!(of(&[], &["ALL"]).unwrap(), CapabilitySet::empty());
        assert_eq!(of(&["NET_ADMIN"], &["ALL"]).unwrap(), CapabilitySet::NET_ADMIN);
        assert!(!of(&[], &["CAP_CHOWN"]).unwrap().contains(CapabilitySet::CHOWN));
        assert!(matches!(of(&["FLY"], &[]), Err(Failed::Config { .. })));
    }
}
