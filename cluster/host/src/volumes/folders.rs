//! Volumes that are folders of this node and outlive their pods: one for each by its name, below one folder that is closed to
//! other users of the machine.
//!
//! Nothing outside that folder is made or removed, whatever a volume is called, and no link is followed: what a pod has put
//! in its volume is removed as what it is.

use super::error::VolumeError;
use super::group::give_to_group;
use super::{Placed, remove};
use crate::container::is_path_component;
use parking_lot::Mutex;
use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// What the folder that holds them is called, beside that of the node's pods.
pub const FOLDERS: &str = "volumes";

/// In it: what is being made, whose each folder is, and what is being removed. No volume's name begins so.
const NEW: &str = ".new";
const MARKS: &str = ".uids";
const NEW_MARK: &str = ".uid.new";
const GOING: &str = ".going";

/// Two pods of one volume make one folder, and none that is being removed is given to anybody.
static ALONE: Mutex<()> = Mutex::new(());

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

/// What is asked of the folder of a volume.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The volume's name.
    pub name: &'a str,
    /// The uid of its object: another of the same name does not remove it.
    pub uid: &'a str,
    /// Whether it was there before: then it is not made again, since what was in it is elsewhere.
    pub was_made: bool,
    /// The group that it belongs to when it is made.
    pub group: Option<u32>,
}

/// The folder of a volume, which is made where it was never made before. Blocks on the disk.
pub fn folder(folders: &Path, wanted: &Wanted<'_>) -> Result<Placed, VolumeError> {
    let Wanted { name, uid, was_made, group } = *wanted;
    let path = place_of(folders, name)?;
    let failed = |cause| VolumeError::Io { what: format!("making {}", path.display()), cause };
    let _alone = ALONE.lock();
    make_closed(folders).map_err(failed)?;
    match fs::symlink_metadata(&path) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => {
            let what = format!("{} is no folder: move it away", path.display());
            return Err(VolumeError::Invalid { volume: name.to_owned(), what });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && was_made => {
            return Err(VolumeError::Lost { volume: name.to_owned(), path });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Whole or not at all: what pods make of it later is left as it is.
            let new = folders.join(NEW);
            let made = || {
                make_closed(&new)?;
                let new = new.join(name);
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
    mark(folders, name, uid).map_err(failed)?;
    Ok(Placed { path, read_only: false, warnings: Vec::new() })
}

/// Writes down whose the folder of this name is.
fn mark(folders: &Path, name: &str, uid: &str) -> io::Result<()> {
    let marks = folders.join(MARKS);
    make_closed(&marks)?;
    let at = marks.join(name);
    match fs::read_to_string(&at) {
        Ok(is) if is == uid => return Ok(()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let new = folders.join(NEW_MARK);
    fs::write(&new, uid)?;
    fs::rename(&new, &at)
}

fn make_closed(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Removes the folder of a volume with all that is in it; one that is not there is fine, and one that another volume of this
/// name has by now stays. Blocks on the disk.
pub fn remove_folder(folders: &Path, name: &str, uid: &str) -> Result<(), VolumeError> {
    let path = place_of(folders, name)?;
    let failed = |cause| VolumeError::Io { what: format!("removing {}", path.display()), cause };
    if !is_path_component(uid) {
        let what = "its uid cannot name a folder".to_owned();
        return Err(VolumeError::Invalid { volume: name.to_owned(), what });
    }
    let aside = folders.join(GOING);
    // By its uid: one of the same name may be made while it is being removed.
    let going = aside.join(uid);
    put_aside(folders, name, uid, &going).map_err(failed)?;
    let removed = match fs::symlink_metadata(&going) {
        Ok(found) if found.is_dir() => remove(&going),
        Ok(_) => fs::remove_file(&going),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    removed.map_err(failed)
}

/// Takes the folder of a volume away from its place, if it is still this volume's.
fn put_aside(folders: &Path, name: &str, uid: &str, going: &Path) -> io::Result<()> {
    let _alone = ALONE.lock();
    let at = folders.join(MARKS).join(name);
    match fs::read_to_string(&at) {
        Ok(is) if is != uid => return Ok(()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        // Its own, or of a time when none was marked.
        _ => {}
    }
    match fs::symlink_metadata(folders.join(name)) {
        Ok(_) => {
            make_closed(&folders.join(GOING))?;
            let path = folders.join(name);
            let mut moved = fs::rename(&path, going);
            if moved.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
                // Without root one that its pod has closed cannot be moved.
                fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
                moved = fs::rename(&path, going);
            }
            moved?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    match fs::remove_file(&at) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn wanted(name: &str) -> Wanted<'_> {
        Wanted { name, uid: "u1", was_made: false, group: None }
    }

    #[test]
    fn a_folder_that_was_there_once_is_not_made_again_in_its_absence() {
        let data = tempfile::tempdir().unwrap();
        let folders = data.path().join("volumes");
        let again = Wanted { was_made: true, ..wanted("v") };
        let error = folder(&folders, &again).unwrap_err();
        assert!(matches!(error, VolumeError::Lost { .. }) && error.may_pass(), "{error}");
        assert!(!folders.join("v").exists());
        let made = folder(&folders, &wanted("v")).unwrap();
        assert_eq!(folder(&folders, &again).unwrap(), made, "it is back");
    }

    #[test]
    fn a_folder_is_removed_for_the_volume_alone_whose_it_is() {
        let data = tempfile::tempdir().unwrap();
        let folders = data.path().join("volumes");
        let path = folder(&folders, &wanted("v")).unwrap().path;
        fs::write(path.join("kept"), "x").unwrap();
        // The volume was made anew, and has the folder that was kept.
        folder(&folders, &Wanted { uid: "u2", was_made: true, ..wanted("v") }).unwrap();
        remove_folder(&folders, "v", "u1").unwrap();
        assert!(path.join("kept").exists(), "it is another's by now");
        remove_folder(&folders, "v", "u2").unwrap();
        assert!(!path.exists() && !folders.join(".uids/v").exists());
        // Of an earlier version, which marked none; and one whose removal was begun.
        fs::create_dir(&path).unwrap();
        fs::create_dir_all(folders.join(".going/u3/deep")).unwrap();
        remove_folder(&folders, "v", "u4").unwrap();
        remove_folder(&folders, "v", "u3").unwrap();
        assert_eq!(fs::read_dir(folders.join(".going")).unwrap().count(), 0);
        assert!(!path.exists());
        assert!(remove_folder(&folders, "v", "../v").is_err());
    }

    #[test]
    fn two_pods_that_make_a_folder_at_once_have_one() {
        let data = tempfile::tempdir().unwrap();
        let folders = data.path().join("volumes");
        let make = |number: usize| {
            let path = folder(&folders, &wanted("v")).unwrap().path;
            fs::write(path.join(number.to_string()), "x").unwrap();
        };
        std::thread::scope(|scope| {
            for number in 0..16 {
                let make = &make;
                scope.spawn(move || make(number));
            }
        });
        assert_eq!(fs::read_dir(folders.join("v")).unwrap().count(), 16);
    }

    #[test]
    fn a_folder_is_made_once_open_to_its_containers_and_closed_to_the_machine() {
        let data = tempfile::tempdir().unwrap();
        let folders = data.path().join("volumes");
        let made = folder(&folders, &wanted("pvc-1")).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&made.path), mode(&folders)), (0o777, 0o700));
        fs::write(made.path.join("kept"), "x").unwrap();
        fs::set_permissions(&made.path, fs::Permissions::from_mode(0o750)).unwrap();
        let again = folder(&folders, &wanted("pvc-1")).unwrap();
        assert_eq!((again, mode(&made.path)), (made.clone(), 0o750));
        assert!(made.path.join("kept").exists());
        remove_folder(&folders, "pvc-1", "u1").unwrap();
        remove_folder(&folders, "pvc-1", "u1").unwrap();
        assert!(!made.path.exists());
    }

    #[test]
    fn nothing_outside_is_made_or_removed_whatever_the_name_or_the_links() {
        let data = tempfile::tempdir().unwrap();
        let (folders, other) = (data.path().join("volumes"), data.path().join("other"));
        fs::create_dir(&other).unwrap();
        fs::write(other.join("kept"), "x").unwrap();
        for name in ["..", ".", "", "../other", "a/b", ".a.new", "/etc"] {
            assert!(folder(&folders, &wanted(name)).is_err(), "{name:?}");
            assert!(remove_folder(&folders, name, "u1").is_err(), "{name:?}");
        }
        // A pod has put a link to what is outside into its volume; another stands in the place of one.
        let path = folder(&folders, &wanted("a")).unwrap().path;
        symlink(&other, path.join("link")).unwrap();
        symlink(&other, folders.join("b")).unwrap();
        assert!(folder(&folders, &wanted("b")).is_err(), "it is followed by nobody");
        remove_folder(&folders, "a", "u1").unwrap();
        remove_folder(&folders, "b", "u1").unwrap();
        assert!(other.join("kept").exists() && !folders.join("b").exists());
        let alias = data.path().join("alias");
        symlink(data.path(), &alias).unwrap();
        let below = |folders: &Path, path: &Path| is_below(folders, &path.join("a"));
        assert!(below(&folders, &folders) && below(&alias.join("volumes"), &folders));
        assert!(!below(&folders, &other));
    }
}
