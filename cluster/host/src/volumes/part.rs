//! Opens what of a volume is mounted.

use crate::container::Mount;
use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};
use std::os::fd::OwnedFd;

/// Opens what is mounted; a part of a volume must lie in it, whatever links were planted there. An error says what
/// failed.
pub(crate) fn open_source(mount: &Mount) -> Result<OwnedFd, String> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let source = open(&mount.source, flags, Mode::empty());
    let opened = source.and_then(|source| match &mount.sub_path {
        None => Ok(source),
        Some(part) => {
            // Links within the volume are fine (a projected one is made of them), those out of it not.
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
            openat2(&source, part, flags, Mode::empty(), resolve)
        }
    });
    opened.map_err(|errno| match &mount.sub_path {
        Some(part) => format!("subPath {}: {errno}", part.display()),
        None => format!("{}: {errno}", mount.source.display()),
    })
}
