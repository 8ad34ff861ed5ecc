//! Volumes that are folders of this node and outlive their pods: one for each by its name, below one folder that is closed to
//! other users of the machine.
//!
//! Nothing outside that folder is made or removed, whatever a volume is called, and no link is followed: what a pod has put
//! in its volume is removed as what it is.

use super::error::VolumeError;
use super::group::give_to_group;
use super::{Placed, remove};
use crate::container::is_path_component;
use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// What the folder that holds them is called, beside that of the node's pods.
pub const FOLDERS: &str = "volumes";

/// Whether a path names something in the folder that holds them, by its words: a `hostPath` may not.
pub fn is_below(folders: &Path, path: &Path) -> bool {
    let real = fs::canonicalize(folders);
    path.starts_with(folders) || real.is_ok_and(|real| path.starts_with(real))
}

/// Where the folder of a volume is.
fn place_of(folders: &Path, name: &str) -> Result<PathBuf, VolumeError> {
    if !is_path_component(name) || name.starts_with('.') {
        let what = "its name cannot name a folder".to_owned();
        return Err(VolumeError::Invalid { volume: name.to_owned(), what });
    }
    Ok(folders.join(name))
}

/// The folder of a volume, which is made where it is not there yet. Blocks on the disk.
pub fn folder(folders: &Path, name: &str, group: Option<u32>) -> Result<Placed, VolumeError> {
    let path = place_of(folders, name)?;
    let failed = |cause| VolumeError::Io { what: format!("making {}", path.display()), cause };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folders).map_err(failed)?;
    match fs::symlink_metadata(&path) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => {
            let what = format!("{} is no folder: move it away", path.display());
            return Err(VolumeError::Invalid { volume: name.to_owned(), what });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Whole or not at all: what pods make of it later is left as it is. No volume's name begins so.
            let new = folders.join(format!(".{name}.new"));
            let made = || {
                fs::DirBuilder::new().recursive(true).create(&new)?;
                // The umask has no say in what its containers may do there.
                fs::set_permissions(&new, fs::Permissions::from_mode(0o777))?;
                give_to_group(&new, group)?;
                fs::rename(&new, &path)
            };
            made().map_err(failed)?;
        }
        Err(error) => return Err(failed(error)),
    }
    Ok(Placed { path, read_only: false, warnings: Vec::new() })
}

/// Removes the folder of a volume with all that is in it; one that is not there is fine. Blocks on the disk.
pub fn remove_folder(folders: &Path, name: &str) -> Result<(), VolumeError> {
    let path = place_of(folders, name)?;
    let removed = match fs::symlink_metadata(&path) {
        Ok(found) if found.is_dir() => remove(&path),
        Ok(_) => fs::remove_file(&path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    removed.map_err(VolumeError::io(format!("removing {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_folder_is_made_once_open_to_its_containers_and_closed_to_the_machine() {
        let data = tempfile::tempdir().unwrap();
        let folders = data.path().join("volumes");
        let made = folder(&folders, "pvc-1", None).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&made.path), mode(&folders)), (0o777, 0o700));
        fs::write(made.path.join("kept"), "x").unwrap();
        fs::set_permissions(&made.path, fs::Permissions::from_mode(0o750)).unwrap();
        let again = folder(&folders, "pvc-1", None).unwrap();
        assert_eq!((again, mode(&made.path)), (made.clone(), 0o750));
        assert!(made.path.join("kept").exists());
        remove_folder(&folders, "pvc-1").unwrap();
        remove_folder(&folders, "pvc-1").unwrap();
        assert!(!made.path.exists());
    }

    #[test]
    fn nothing_outside_is_made_or_removed_whatever_the_name_or_the_links() {
        let data = tempfile::tempdir().unwrap();
        let (folders, other) = (data.path().join("volumes"), data.path().join("other"));
        fs::create_dir(&other).unwrap();
        fs::write(other.join("kept"), "x").unwrap();
        for name in ["..", ".", "", "../other", "a/b", ".a.new", "/etc"] {
            assert!(folder(&folders, name, None).is_err(), "{name:?}");
            assert!(remove_folder(&folders, name).is_err(), "{name:?}");
        }
        // A pod has put a link to what is outside into its volume; another stands in the place of one.
        let path = folder(&folders, "a", None).unwrap().path;
        symlink(&other, path.join("link")).unwrap();
        symlink(&other, folders.join("b")).unwrap();
        assert!(folder(&folders, "b", None).is_err(), "it is followed by nobody");
        remove_folder(&folders, "a").unwrap();
        remove_folder(&folders, "b").unwrap();
        assert!(other.join("kept").exists() && !folders.join("b").exists());
        let alias = data.path().join("alias");
        symlink(data.path(), &alias).unwrap();
        let below = |folders: &Path, path: &Path| is_below(folders, &path.join("a"));
        assert!(below(&folders, &folders) && below(&alias.join("volumes"), &folders));
        assert!(!below(&folders, &other));
    }
}
