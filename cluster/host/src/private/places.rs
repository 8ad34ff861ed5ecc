//! Where a file or folder is seen: by the table of mounts of this machine, or of a container.

use crate::mount_table::{Mounted, mount_of};
use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Something that is to be hidden, as this machine has it.
#[derive(Debug)]
pub(crate) struct Hidden {
    /// Its path without links.
    pub path: PathBuf,
    /// The number of the device of its file system, in the table of mounts.
    device: String,
    /// Where it lies in that file system.
    inside: PathBuf,
    /// What it is.
    identity: (u64, u64),
}

impl Hidden {
    /// None if it is not there. `table` is of the mounts that this process sees.
    pub fn find(path: &Path, table: &[Mounted]) -> io::Result<Option<Self>> {
        let found = fs::canonicalize(path).and_then(|path| Ok((fs::metadata(&path)?, path)));
        let (meta, path) = match found {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            // What cannot be looked at may show everything.
            Err(error) => {
                return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display())));
            }
        };
        let Some((device, inside)) = in_file_system(&path, table) else { return Ok(None) };
        Ok(Some(Self { device, inside, identity: (meta.dev(), meta.ino()), path }))
    }

    /// Where a table of mounts may show it. What is `own` lies in its container by right: parts of it are left out.
    pub fn places(&self, table: &[Mounted], own: &[Self]) -> Vec<Place> {
        let is_own = |mounted: &Mounted| {
            own.iter()
                .any(|own| own.device == mounted.device && mounted.root.starts_with(&own.inside))
        };
        let places = shown(&self.device, &self.inside, table.iter().enumerate());
        let is_left = |(number, place): &(usize, Place)| match place {
            Place::Whole(_) => true,
            // Another mount at its point covers it.
            Place::Part(at) => {
                !is_own(&table[*number]) && !table[number + 1..].iter().any(|m| m.point == *at)
            }
        };
        places.filter(is_left).map(|(_, place)| place).collect()
    }

    /// Whether what is at a place is this, where all of it may be.
    pub fn is_at(&self, place: &Path) -> io::Result<bool> {
        match fs::metadata(place) {
            Ok(meta) => Ok((meta.dev(), meta.ino()) == self.identity),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

/// A place of a folder.
#[derive(Debug, PartialEq)]
pub(crate) enum Place {
    /// All of it, if nothing else is mounted over that.
    Whole(PathBuf),
    /// A folder in it, as the root of a mount.
    Part(PathBuf),
}

/// Where a file or folder is seen: at its path, and wherever else its file system or a part of it is mounted, whole
/// or in part. None if it is not there.
pub(crate) fn places(path: &Path, table: &[Mounted]) -> Vec<PathBuf> {
    let Ok(path) = fs::canonicalize(path) else { return Vec::new() };
    let same = |other: &Path| {
        let [a, b] = [&path, other].map(|path| fs::metadata(path).ok());
        a.zip(b).is_some_and(|(a, b)| (a.dev(), a.ino()) == (b.dev(), b.ino()))
    };
    let mut all = vec![path.clone()];
    for place in elsewhere(&path, table) {
        let is_there = match &place {
            Place::Whole(at) => same(at),
            Place::Part(_) => true,
        };
        let (Place::Whole(at) | Place::Part(at)) = place;
        if is_there && !at.starts_with(&path) && !all.contains(&at) {
            all.push(at);
        }
    }
    all
}

/// By the table of mounts alone.
fn elsewhere(path: &Path, table: &[Mounted]) -> Vec<Place> {
    let Some(own) = mount_of(path, table) else { return Vec::new() };
    let Some((device, inside)) = in_file_system(path, table) else { return Vec::new() };
    let others = table.iter().enumerate().filter(|(_, mounted)| *mounted != own);
    shown(&device, &inside, others).map(|(_, place)| place).collect()
}

/// Where mounts show what lies at a place of a file system, each with the number of its mount.
fn shown<'a>(
    device: &str,
    inside: &Path,
    mounts: impl Iterator<Item = (usize, &'a Mounted)>,
) -> impl Iterator<Item = (usize, Place)> {
    mounts.filter(move |(_, mounted)| mounted.device == device).filter_map(
        move |(number, mounted)| match inside.strip_prefix(&mounted.root) {
            Ok(below) => Some((number, Place::Whole(mounted.point.join(below)))),
            Err(_) if mounted.root.starts_with(inside) => {
                Some((number, Place::Part(mounted.point.clone())))
            }
            Err(_) => None,
        },
    )
}

/// The device of the file system that a path lies in, and where in it.
fn in_file_system(path: &Path, table: &[Mounted]) -> Option<(String, PathBuf)> {
    let mounted = mount_of(path, table)?;
    let below = path.strip_prefix(&mounted.point).ok()?;
    Some((mounted.device.clone(), mounted.root.join(below)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounted(device: &str, root: &str, point: &str) -> Mounted {
        let (device, options) = (device.to_owned(), "rw".to_owned());
        Mounted { device, root: root.into(), point: point.into(), options }
    }

    #[test]
    fn what_is_mounted_twice_is_found_at_each_of_its_places() {
        let table = [
            mounted("8:1", "/", "/"),
            mounted("8:2", "/", "/"),
            mounted("8:2", "/home", "/home"),
            mounted("8:2", "/", "/sysroot"),
            mounted("8:2", "/home/a/keys/pki", "/srv/pki"),
            mounted("8:2", "/other", "/other"),
            mounted("0:5", "/", "/tmp"),
        ];
        let found = elsewhere(Path::new("/home/a/keys"), &table);
        let expected = [
            Place::Whole("/home/a/keys".into()),
            Place::Whole("/sysroot/home/a/keys".into()),
            Place::Part("/srv/pki".into()),
        ];
        assert_eq!(found, expected);
        assert!(elsewhere(Path::new("/tmp/x"), &table).is_empty());
    }

    #[test]
    fn a_container_is_left_its_own_volumes_and_what_is_covered_already() {
        let hidden = |inside: &str| Hidden {
            path: inside.into(),
            device: "8:1".into(),
            inside: inside.into(),
            identity: (0, 0),
        };
        let table = [
            mounted("0:9", "/", "/"),
            mounted("8:1", "/", "/host"),
            mounted("8:1", "/data/pods/uid/volumes/v", "/v"),
            mounted("8:1", "/data/pods/other/volumes/v", "/other"),
            mounted("8:1", "/data/volumes/pvc-1/part", "/kept"),
            mounted("8:1", "/data/volumes/pvc-2", "/anothers"),
            mounted("8:1", "/data/keys", "/covered"),
            mounted("0:10", "/", "/covered"),
            mounted("8:2", "/data/keys", "/no"),
        ];
        let own = [hidden("/data/pods/uid"), hidden("/data/volumes/pvc-1")];
        let found = hidden("/data").places(&table, &own);
        let part = |at: &str| Place::Part(at.into());
        let whole = Place::Whole("/host/data".into());
        assert_eq!(found, [whole, part("/other"), part("/anothers")]);
    }
}
