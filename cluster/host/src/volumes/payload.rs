//! Files that appear, change and go together.
//!
//! ```text
//! volume/..data -> ..20261124T070000.123456789Z    swapped by one rename
//! volume/..20261124T070000.123456789Z/key          the files
//! volume/key -> ..data/key                         what the container opens
//! ```
//! A reader that opens `..data` once sees one state only; so does the volume after a crash.

use super::group::give_to_group;
use impresario_ambient::clock;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink},
    path::{Component, Path, PathBuf},
};

/// The content of a projected volume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Payload {
    files: BTreeMap<PathBuf, (Vec<u8>, u32)>,
}

const DATA: &str = "..data";

impl Payload {
    /// Adds a file; a later one at the same path wins. `false` when the path would leave the volume.
    #[must_use]
    pub fn add(&mut self, path: &str, bytes: Vec<u8>, mode: u32) -> bool {
        let path = PathBuf::from(path);
        let mut components = path.components();
        let plain = components.clone().all(|c| matches!(c, Component::Normal(_)));
        let first = components.next().map(|c| c.as_os_str().to_owned());
        // A first name that begins with two dots would be taken for one of ours.
        let free = first.is_some_and(|name| !name.to_string_lossy().starts_with(".."));
        if plain && free {
            self.files.insert(path, (bytes, mode & 0o777));
        }
        plain && free
    }

    /// Makes the volume show exactly this.
    pub(super) fn write(&self, volume: &Path, group: Option<u32>) -> io::Result<()> {
        fs::create_dir_all(volume)?;
        fs::set_permissions(volume, fs::Permissions::from_mode(0o755))?;
        let now = clock::timestamp();
        let current = fs::read_link(volume.join(DATA)).ok();
        if !current.as_ref().is_some_and(|name| self.is_at(&volume.join(name))) {
            let name = format!("..{}", now.strftime("%Y%m%dT%H%M%S.%fZ"));
            self.write_files(&volume.join(&name), group)?;
            let new = volume.join("..data_new");
            let _ = fs::remove_file(&new);
            symlink(&name, &new)?;
            fs::rename(&new, volume.join(DATA))?;
        }
        self.show(volume)?;
        give_to_group(volume, group)
    }

    fn is_at(&self, folder: &Path) -> bool {
        let mut found = BTreeMap::new();
        collect(folder, Path::new(""), &mut found).is_ok() && found == self.files
    }

    fn write_files(&self, folder: &Path, group: Option<u32>) -> io::Result<()> {
        fs::create_dir(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
        for (path, (bytes, mode)) in &self.files {
            let path = folder.join(path);
            path.parent().map(fs::create_dir_all).transpose()?;
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(&path)?;
            file.write_all(bytes)?;
            file.set_permissions(fs::Permissions::from_mode(*mode))?;
            give_to_group(&path, group)?;
        }
        Ok(())
    }

    /// Links the first names, and takes away links and folders that nothing stands behind.
    fn show(&self, volume: &Path) -> io::Result<()> {
        let first = |path: &PathBuf| path.components().next().map(|c| PathBuf::from(c.as_os_str()));
        let wanted: BTreeSet<PathBuf> = self.files.keys().filter_map(first).collect();
        let current = fs::read_link(volume.join(DATA))?;
        for name in &wanted {
            let (link, target) = (volume.join(name), Path::new(DATA).join(name));
            if fs::read_link(&link).ok().as_ref() != Some(&target) {
                symlink(target, link)?;
            }
        }
        for entry in fs::read_dir(volume)? {
            let entry = entry?;
            let name = PathBuf::from(entry.file_name());
            if name.as_os_str() == DATA || name == current || wanted.contains(&name) {
                continue;
            }
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

fn collect(
    folder: &Path,
    below: &Path,
    found: &mut BTreeMap<PathBuf, (Vec<u8>, u32)>,
) -> io::Result<()> {
    for entry in fs::read_dir(folder.join(below))? {
        let entry = entry?;
        let name = below.join(entry.file_name());
        let kind = entry.metadata()?;
        if kind.is_dir() {
            collect(folder, &name, found)?;
        } else {
            // The group's right to read is not part of what was asked.
            found.insert(name, (fs::read(entry.path())?, kind.permissions().mode() & 0o777));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let mut payload = Payload::default();
        for (path, text) in files {
            assert!(payload.add(path, text.as_bytes().to_vec(), 0o640));
        }
        payload
    }

    #[test]
    fn files_change_together_and_none_that_was_taken_away_stays() {
        let folder = tempfile::tempdir().unwrap();
        let volume = folder.path().join("v");
        payload(&[("a", "1"), ("deep/b", "2")]).write(&volume, None).unwrap();
        assert_eq!(fs::read_to_string(volume.join("deep/b")).unwrap(), "2");
        assert_eq!(fs::metadata(volume.join("a")).unwrap().permissions().mode() & 0o777, 0o640);
        let before = fs::read_link(volume.join(DATA)).unwrap();

        payload(&[("a", "1"), ("deep/b", "2")]).write(&volume, None).unwrap();
        assert_eq!(fs::read_link(volume.join(DATA)).unwrap(), before, "nothing changed");

        payload(&[("a", "3"), ("c", "4")]).write(&volume, None).unwrap();
        assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "3");
        let mut names: Vec<_> =
            fs::read_dir(&volume).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names.len(), 4, "{names:?}");
        assert!(!volume.join(before).exists() && !volume.join("deep").exists());
    }

    #[test]
    fn a_crash_between_any_two_steps_is_repaired_by_the_next_write() {
        let folder = tempfile::tempdir().unwrap();
        let volume = folder.path().join("v");
        payload(&[("a", "1")]).write(&volume, None).unwrap();
        fs::create_dir(volume.join("..20000101T000000.0Z")).unwrap();
        symlink("..20000101T000000.0Z", volume.join("..data_new")).unwrap();
        fs::remove_file(volume.join("a")).unwrap();
        payload(&[("a", "1")]).write(&volume, None).unwrap();
        assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "1");
        assert_eq!(fs::read_dir(&volume).unwrap().count(), 3);
    }

    #[test]
    fn a_path_that_leaves_the_volume_is_refused() {
        for path in ["../x", "/etc/passwd", "a/../../x", "..data", "..", ""] {
            assert!(!Payload::default().add(path, vec![], 0o644), "{path}");
        }
        assert!(Payload::default().add(".hidden/x", vec![], 0o644));
    }
}
