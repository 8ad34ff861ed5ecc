//! Volumes that containers write to: `emptyDir` below the pod, `hostPath` where it is.

use super::{error::VolumeError, group::give_to_group};
use crate::{mount_table::mount_points, opening::Opening};
use impresario_api::quantity::Quantity;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, HostPathVolumeSource};
use nix::mount::{MsFlags, mount};
use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, PermissionsExt},
    path::{Component, Path, PathBuf},
};

/// Makes the folder, in memory if that is asked for and we may; returns what is not as asked.
pub(super) fn empty_dir(
    path: &Path,
    source: &EmptyDirVolumeSource,
    group: Option<u32>,
) -> io::Result<Vec<String>> {
    let mode = source.mode.map_or(0o777, |mode| mode as u32);
    if !path.is_dir() {
        // Whole or not at all: what the pod makes of it later is left as it is.
        let new = path.with_added_extension("new");
        fs::DirBuilder::new().recursive(true).create(&new)?;
        // The umask has no say in what the pod's containers may do there.
        fs::set_permissions(&new, fs::Permissions::from_mode(mode))?;
        give_to_group(&new, group)?;
        fs::rename(&new, path)?;
    }
    let mut warnings = Vec::new();
    let in_memory = source.medium.as_deref() == Some("Memory");
    if in_memory && !mount_points()?.contains(&fs::canonicalize(path)?) {
        let limit = source.size_limit.as_ref().and_then(|q| q.0.parse::<Quantity>().ok());
        let size = limit.map(|limit| format!(",size={}", limit.units())).unwrap_or_default();
        let options = format!("mode={mode:04o}{size}");
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        if let Err(errno) = mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options.as_str()))
        {
            warnings.push(format!("the volume is on disk, not in memory: {errno}"));
        } else {
            give_to_group(path, group)?;
        }
    }
    Ok(warnings)
}

/// Checks that the host has what the pod wants, and makes it where the type says so. Without a type nothing is looked at.
pub(super) fn host_path(
    volume: &str,
    source: &HostPathVolumeSource,
    opening: &Opening,
) -> Result<PathBuf, VolumeError> {
    let path = PathBuf::from(&source.path);
    if !path.is_absolute() || path.components().any(|c| matches!(c, Component::ParentDir)) {
        let wanted = "absolute path without '..'".into();
        return Err(VolumeError::HostPath { path, wanted });
    }
    let kind = source.type_.as_deref().unwrap_or_default();
    if kind.is_empty() {
        return Ok(path);
    }
    opening
        .reach(&path)
        .map_err(|cause| VolumeError::Unreached { volume: volume.to_owned(), cause })?;
    let made = match kind {
        "DirectoryOrCreate" => fs::DirBuilder::new().recursive(true).mode(0o755).create(&path),
        "FileOrCreate" if !path.exists() => {
            fs::OpenOptions::new().create(true).append(true).mode(0o644).open(&path).map(drop)
        }
        _ => Ok(()),
    };
    let wanted = VolumeError::HostPath { path: path.clone(), wanted: kind.to_owned() };
    if let Err(cause) = made {
        return match cause.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => Err(wanted),
            _ => Err(VolumeError::Io { what: format!("making {}", path.display()), cause }),
        };
    }
    let found = fs::metadata(&path).map(|m| m.file_type());
    let fits = match (kind, &found) {
        ("Directory" | "DirectoryOrCreate", Ok(found)) => found.is_dir(),
        ("File" | "FileOrCreate", Ok(found)) => found.is_file(),
        ("Socket", Ok(found)) => found.is_socket(),
        ("CharDevice", Ok(found)) => found.is_char_device(),
        ("BlockDevice", Ok(found)) => found.is_block_device(),
        _ => false,
    };
    if fits { Ok(path) } else { Err(wanted) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::opening::{Openings, silent_file_system};
    use std::time::Duration;

    #[test]
    fn a_host_path_is_given_only_if_it_is_what_the_pod_wants() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let missing = folder.path().join("missing");
        let table = [
            (folder.path(), "Directory", true),
            (folder.path(), "File", false),
            (&file, "File", true),
            (&file, "Directory", false),
            (&file, "DirectoryOrCreate", false),
            (&file, "Socket", false),
            (&missing, "", true),
            (&missing, "File", false),
            (&missing, "DirectoryOrCreate", true),
            (&missing, "Directory", true),
            (Path::new("relative"), "", false),
            (Path::new("/tmp/../etc"), "", false),
            (Path::new("/dev/null"), "CharDevice", true),
        ];
        for (path, kind, fits) in table {
            let path = path.to_str().unwrap().to_owned();
            let source = HostPathVolumeSource { path, type_: Some(kind.into()) };
            let given = host_path("v", &source, &Openings::default().begin());
            assert_eq!(given.is_ok(), fits, "{source:?}");
        }
    }

    #[tokio::test]
    async fn a_host_path_that_does_not_answer_costs_one_thread_and_not_one_for_each_pod() {
        let folder = tempfile::tempdir().unwrap();
        let silent = folder.path().join("silent");
        fs::create_dir(&silent).unwrap();
        let Some(server) = silent_file_system(&silent) else {
            return crate::left_out::leave_out("it takes root and FUSE");
        };
        let openings = Openings::new(Duration::from_secs(2));
        for (name, kind) in [("run-1", "Directory"), ("run-2", "DirectoryOrCreate"), ("run-3", "")]
        {
            let path = silent.join(name).to_str().unwrap().to_owned();
            let source = HostPathVolumeSource { path, type_: Some(kind.into()) };
            let asked = openings.ask(move |opening| host_path("v", &source, opening)).await;
            let told = match asked {
                Ok(Ok(_)) => String::new(),
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            assert_eq!(told.contains("does not answer"), !kind.is_empty(), "{name}: {told}");
        }
        assert_eq!(openings.count(), 1, "one thread waits for it");
        drop(server);
        let freed = tokio::time::timeout(Duration::from_mins(1), async {
            while openings.count() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        freed.await.expect("the thread comes back");
        super::super::unmount_below(folder.path()).unwrap();
    }

    #[test]
    fn an_empty_dir_is_writable_for_all_and_memory_is_mounted_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("volume");
        let medium = Some("Memory".to_owned());
        let source = EmptyDirVolumeSource { medium, ..EmptyDirVolumeSource::default() };
        for _ in 0..2 {
            empty_dir(&path, &source, None).unwrap();
        }
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o777);
        // A database has closed it since, and its node starts anew.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        empty_dir(&path, &source, None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        let here = fs::canonicalize(&path).unwrap();
        assert!(mount_points().unwrap().iter().filter(|point| **point == here).count() <= 1);
        super::super::unmount_below(folder.path()).unwrap();
        assert!(!mount_points().unwrap().contains(&here));
    }
}
