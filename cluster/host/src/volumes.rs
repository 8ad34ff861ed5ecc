//! A pod's volumes, made below its folder (or found on the host) before its containers start.
//!
//! - `emptyDir`, `hostPath`, `configMap`, `secret`, `downwardAPI` and `projected`; any other kind is
//!   refused by name. Objects are handed in by the caller: nothing here talks to a registry.
//! - [`folder`] gives a volume that outlives its pods, by its name.
//! - [`place`] may be repeated with newer objects: a projected volume then changes as a whole, by
//!   one rename, and not at all when its content is the same.
//! - A `subPath` is looked up beneath its volume without following links (CVE-2021-25741).
//! - The folder that holds all volumes is closed to other users of the machine, whatever modes
//!   the files in it have.

mod content;
mod downward;
mod error;
mod folders;
mod group;
mod host;
mod part;
mod payload;
mod sources;

pub use downward::{field, resource};
pub use error::VolumeError;
pub use folders::{FOLDERS, Wanted, folder, is_below, remove_folder};
pub(crate) use part::open_source;
pub use payload::Payload;
pub use sources::Sources;

use crate::container::{Mount, expand_all, is_path_component};
use crate::mount_table::mount_points;
use crate::opening::Opening;
use k8s_openapi::api::core::v1::{Container, HostPathVolumeSource, Volume};
use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Component, Path, PathBuf},
};

/// A volume that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Where it is on this machine.
    pub path: PathBuf,
    /// Whether what a container sees can never be written, whatever its mount says.
    pub read_only: bool,
    /// What could not be given as asked, in words.
    pub warnings: Vec<String>,
}

/// The names of the objects that a pod's volumes are filled from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Config maps.
    pub config_maps: Vec<String>,
    /// Secrets.
    pub secrets: Vec<String>,
}

/// What must be fetched before [`place`] is called for these volumes.
pub fn needs(volumes: &[Volume]) -> Needs {
    let mut needs = Needs::default();
    for volume in volumes {
        needs.config_maps.extend(volume.config_map.iter().map(|source| source.name.clone()));
        needs.secrets.extend(volume.secret.iter().filter_map(|s| s.secret_name.clone()));
        let projected = volume.projected.iter().flat_map(|p| p.sources.iter().flatten());
        for source in projected {
            needs.config_maps.extend(source.config_map.iter().map(|s| s.name.clone()));
            needs.secrets.extend(source.secret.iter().map(|s| s.name.clone()));
        }
    }
    for names in [&mut needs.config_maps, &mut needs.secrets] {
        names.sort();
        names.dedup();
    }
    needs
}

/// Looks for a volume that the machine has (`hostPath`), or makes it there. May wait for as long as the file system does
/// that it lies in: to be done in [`Openings::ask`](crate::opening::Openings::ask).
pub fn find(
    name: &str,
    source: &HostPathVolumeSource,
    opening: &Opening,
) -> Result<Placed, VolumeError> {
    let path = host::host_path(name, source, opening)?;
    Ok(Placed { path, read_only: false, warnings: vec![] })
}

/// Makes a volume below the pod's folder, or refreshes it; one of the machine's own is for [`find`]. Blocks on the disk.
pub fn place(pod_folder: &Path, volume: &Volume, sources: &Sources) -> Result<Placed, VolumeError> {
    if !is_path_component(&volume.name) {
        let what = "its name cannot name a folder".to_owned();
        return Err(VolumeError::Invalid { volume: volume.name.clone(), what });
    }
    let above = pod_folder.join("volumes");
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&above)
        .map_err(VolumeError::io(format!("making {}", above.display())))?;
    let path = above.join(&volume.name);
    if let Some(source) = &volume.empty_dir {
        let warnings = host::empty_dir(&path, source, sources.fs_group)
            .map_err(VolumeError::io(format!("making {}", path.display())))?;
        return Ok(Placed { path, read_only: false, warnings });
    }
    let Some(payload) = content::of(volume, sources)? else {
        let kind = kind_of(volume);
        return Err(VolumeError::Unsupported { volume: volume.name.clone(), kind });
    };
    payload
        .write(&path, sources.fs_group)
        .map_err(VolumeError::io(format!("writing {}", path.display())))?;
    Ok(Placed { path, read_only: true, warnings: vec![] })
}

fn kind_of(volume: &Volume) -> String {
    let value = serde_json::to_value(volume).unwrap_or_default();
    let fields = value.as_object().into_iter().flatten();
    fields.map(|(key, _)| key).find(|key| *key != "name").cloned().unwrap_or_else(|| "none".into())
}

/// What a container sees of the volumes that were placed. `env` is for `subPathExpr`. May wait as [`find`] does.
pub fn mounts(
    container: &Container,
    placed: &BTreeMap<String, Placed>,
    env: &BTreeMap<String, String>,
    opening: &Opening,
) -> Result<Vec<Mount>, VolumeError> {
    let wanted = container.volume_mounts.iter().flatten();
    wanted
        .map(|mount| {
            let volume = placed.get(&mount.name).ok_or_else(|| VolumeError::NoVolume {
                container: container.name.clone(),
                volume: mount.name.clone(),
            })?;
            let expanded = mount.sub_path_expr.as_ref().map(|text| expand_all(text, env));
            let expanded = expanded.transpose().map_err(|unknown| {
                let text = mount.sub_path_expr.as_deref().unwrap_or_default();
                let what = format!(
                    "subPathExpr {text:?}: the container has no variable {unknown}: set it in env"
                );
                VolumeError::Invalid { volume: mount.name.clone(), what }
            })?;
            let part = expanded.or_else(|| mount.sub_path.clone()).filter(|part| !part.is_empty());
            if let Some(part) = &part {
                let reached = opening.reach(&volume.path.join(part));
                reached.map_err(|cause| VolumeError::Unreached {
                    volume: mount.name.clone(),
                    cause: format!("subPath {part}: {cause}"),
                })?;
                make_sub_path(&volume.path, Path::new(part)).map_err(|cause| {
                    let what = format!("subPath {part}: {cause}");
                    VolumeError::Invalid { volume: mount.name.clone(), what }
                })?;
            }
            Ok(Mount {
                volume: mount.name.clone(),
                source: volume.path.clone(),
                sub_path: part.map(PathBuf::from),
                target: Path::new("/").join(&mount.mount_path),
                read_only: volume.read_only || mount.read_only.unwrap_or(false),
            })
        })
        .collect()
}

/// Makes the folders of a `subPath` that are missing, none of them outside its volume.
fn make_sub_path(volume: &Path, part: &Path) -> io::Result<()> {
    use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, open, openat2};
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = open(volume, flags, Mode::empty())?;
    let beneath = |path: &Path| {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        openat2(&root, path, flags, Mode::empty(), resolve)
    };
    let mut above = PathBuf::from(".");
    for component in part.components() {
        let Component::Normal(name) = component else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it must stay in its volume"));
        };
        let path = above.join(name);
        match beneath(&path) {
            Ok(_) => {}
            Err(rustix::io::Errno::NOENT) => {
                match mkdirat(beneath(&above)?, name, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(rustix::io::Errno::EXIST) => drop(beneath(&path)?),
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error.into()),
        }
        above = path;
    }
    Ok(())
}

/// Removes a pod's folder with all that is in it and mounted there; not what `hostPath` names.
pub fn remove(pod_folder: &Path) -> io::Result<()> {
    unmount_below(pod_folder)?;
    let mut removed = fs::remove_dir_all(pod_folder);
    if removed.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
        open_folders(pod_folder)?;
        removed = fs::remove_dir_all(pod_folder);
    }
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Opens every folder to its owner: without root a folder that its pod has closed (as caches of packages are)
/// keeps what is in it from being removed. Nothing of the pod runs any more.
fn open_folders(folder: &Path) -> io::Result<()> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path()); // of links it is the link's own type
            }
        }
    }
    Ok(())
}

/// Takes away every mount at or below `folder`, the deepest first.
pub fn unmount_below(folder: &Path) -> io::Result<()> {
    let Ok(folder) = fs::canonicalize(folder) else { return Ok(()) };
    let mut points = mount_points()?;
    points.retain(|point| point.starts_with(&folder));
    points.sort_by_key(|point| std::cmp::Reverse(point.as_os_str().len()));
    // A mount of ours that is one with a mount of the machine (a crash came before it was made private) takes what
    // is mounted below it away there too.
    for point in &points {
        nix::mount::mount(
            None::<&str>,
            point,
            None::<&str>,
            nix::mount::MsFlags::MS_PRIVATE,
            None::<&str>,
        )?;
    }
    for point in points {
        nix::mount::umount2(&point, nix::mount::MntFlags::MNT_DETACH)?;
    }
    Ok(())
}
