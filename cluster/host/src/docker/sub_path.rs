//! Parts of volumes that are mounted: what was found to lie in its volume is what the engine mounts.
//!
//! The engine takes paths only, and looks them up later and as root. A path that was checked could be another by then:
//! who may write to the volume exchanges a folder for a link to anywhere (CVE-2021-25741). So that the part is opened,
//! beneath its volume, and the engine is given this process's name for what was opened.

use crate::container::{Mount, StartError};
use crate::volumes::open_source;
use std::os::fd::{AsRawFd, OwnedFd};

/// Replaces every volume of which a part is mounted by that part. It is the one that was found as long as what is
/// returned lives.
pub(super) fn pin(mounts: &mut [Mount]) -> Result<Vec<OwnedFd>, StartError> {
    let mut pinned = Vec::new();
    for mount in mounts.iter_mut().filter(|mount| mount.sub_path.is_some()) {
        let part = open_source(mount).map_err(|cause| StartError::Mount {
            volume: mount.volume.clone(),
            target: mount.target.clone(),
            cause,
        })?;
        mount.sub_path = None;
        mount.source = format!("/proc/{}/fd/{}", std::process::id(), part.as_raw_fd()).into();
        pinned.push(part);
    }
    Ok(pinned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    #[test]
    fn a_part_that_is_exchanged_after_it_was_looked_at_is_still_the_one_that_is_mounted() {
        let folder = tempfile::tempdir().unwrap();
        let (volume, secret) = (folder.path().join("volume"), folder.path().join("secret"));
        fs::create_dir_all(volume.join("part")).unwrap();
        fs::create_dir(&secret).unwrap();
        fs::write(volume.join("part/own"), "").unwrap();
        let mount = |part: &str| Mount {
            volume: "v".into(),
            source: volume.clone(),
            sub_path: Some(part.into()),
            target: "/v".into(),
            read_only: false,
        };
        let mut mounts = [mount("part")];
        let pinned = pin(&mut mounts).unwrap();
        fs::rename(volume.join("part"), volume.join("aside")).unwrap();
        symlink(&secret, volume.join("part")).unwrap();
        assert!(mounts[0].source.join("own").exists());
        drop(pinned);
        for part in ["part", "../secret", "none"] {
            let refused = pin(&mut [mount(part)]);
            assert!(matches!(refused, Err(StartError::Mount { .. })), "{part}");
        }
    }
}
