//! Mounts of what is there already.

use nix::{
    mount::{MsFlags, mount},
    sys::statvfs::{FsFlags, statvfs},
};
use std::{io, path::Path};

/// Shows a file or folder at another place too, with all that is mounted below it.
pub(super) fn bind(from: &Path, to: &Path) -> io::Result<()> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    Ok(mount(Some(from), to, None::<&str>, flags, None::<&str>)?)
}

/// Refuses writes through what is mounted at `at`.
pub(super) fn make_read_only(at: &Path) -> io::Result<()> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | flags_of(at)?;
    Ok(mount(None::<&str>, at, None::<&str>, flags, None::<&str>)?)
}

/// What is set on a mount stays set: the kernel lets nobody without root take it away (mount_namespaces(7),
/// on locked flags).
fn flags_of(at: &Path) -> io::Result<MsFlags> {
    let set = statvfs(at)?.flags();
    let pairs = [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ];
    Ok(pairs.into_iter().filter(|(on, _)| set.contains(*on)).map(|(_, flag)| flag).collect())
}
