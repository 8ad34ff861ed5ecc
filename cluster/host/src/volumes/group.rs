//! The group of a pod.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path};

/// Gives a file or folder to the pod's group, when there is one and we may.
pub(crate) fn give_to_group(path: &Path, group: Option<u32>) -> io::Result<()> {
    let Some(group) = group else { return Ok(()) };
    if !nix::unistd::Uid::effective().is_root() {
        return Ok(());
    }
    std::os::unix::fs::lchown(path, None, Some(group))?;
    let kind = fs::symlink_metadata(path)?;
    if kind.is_symlink() {
        return Ok(());
    }
    let more = if kind.is_dir() { 0o2070 } else { 0o040 };
    fs::set_permissions(path, fs::Permissions::from_mode(kind.permissions().mode() | more))
}
