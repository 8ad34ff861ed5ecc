//! The container's view of the file system, in a mount namespace of its own.
//!
//! As root (or where a user may have namespaces) each volume is seen at its mount path, and what
//! is hidden (the node's keys) is covered. Nothing is written to the host for that: a mount
//! point that is missing is made in a *mirror*, a small tmpfs that holds every entry of the
//! folder as a bind mount. All of it goes with the container's last process.
//!
//! Without namespaces the container sees the host as it is; a volume is found through
//! `IMPRESARIO_VOLUME_<NAME>`, and a warning says so.

use crate::{
    container::Mount,
    process::record::{Failed, Order},
};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    unistd::{Gid, Uid, pivot_root},
};
use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};
use std::{
    fs, io,
    os::fd::{AsRawFd, OwnedFd},
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
};

/// Entries of a folder that is mirrored; each becomes a mount.
const MIRROR_LIMIT: usize = 1000;
/// Where mirrors are put together, on the container's own root.
const STAGE: &str = "/.impresario";

/// Where the container finds its volumes.
pub(super) enum Seen {
    /// At their mount paths.
    Mounted,
    /// Where they are on the host.
    AsOnHost,
}

impl Seen {
    pub(super) fn path(&self, mount: &Mount) -> PathBuf {
        match (self, &mount.sub_path) {
            (Self::Mounted, _) => mount.target.clone(),
            (Self::AsOnHost, Some(part)) => mount.source.join(part),
            (Self::AsOnHost, None) => mount.source.clone(),
        }
    }
}

pub(super) fn make(order: &Order, mut warn: impl FnMut(String)) -> Result<Seen, Failed> {
    let mounts = &order.spec.mounts;
    if mounts.is_empty() && order.hidden.is_empty() {
        return Ok(Seen::AsOnHost);
    }
    if let Err(error) = enter_namespace() {
        for mount in mounts.iter().filter(|m| m.sub_path.is_some()) {
            // What the namespace would have refused is refused here too.
            drop(open_source(mount)?);
        }
        for mount in mounts.iter().filter(|m| m.target != m.source) {
            warn(format!(
                "volume {} is not at {} but where its variable says: no mount namespace ({error})",
                mount.volume,
                mount.target.display()
            ));
        }
        return Ok(Seen::AsOnHost);
    }
    let root = order.folder.join("root");
    enter_mirror_of_root(&root).map_err(|error| Failed::System {
        what: "making the container's root".into(),
        cause: error.to_string(),
    })?;
    // All are opened before anything is covered.
    let sources = mounts.iter().map(open_source).collect::<Result<Vec<_>, _>>()?;
    let mut shallow_first: Vec<_> = mounts.iter().zip(&sources).collect();
    shallow_first.sort_by_key(|(mount, _)| mount.target.components().count());
    for (mount, source) in shallow_first {
        attach(mount, source).map_err(|error| Failed::Mount {
            volume: mount.volume.clone(),
            target: mount.target.clone(),
            cause: error.to_string(),
        })?;
    }
    for path in &order.hidden {
        hide(path).map_err(|error| Failed::System {
            what: format!("hiding {}", path.display()),
            cause: error.to_string(),
        })?;
    }
    let _ = fs::remove_dir(STAGE);
    Ok(Seen::Mounted)
}

fn enter_namespace() -> io::Result<()> {
    let (uid, gid) = (Uid::effective(), Gid::effective());
    if uid.is_root() {
        unshare(CloneFlags::CLONE_NEWNS)?;
    } else {
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
        fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
    }
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    Ok(mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?)
}

/// Opens what is mounted; a part of a volume must lie in it, whatever links were planted there.
fn open_source(mount: &Mount) -> Result<OwnedFd, Failed> {
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
    opened.map_err(|errno| Failed::Mount {
        volume: mount.volume.clone(),
        target: mount.target.clone(),
        cause: match &mount.sub_path {
            Some(part) => format!("subPath {}: {errno}", part.display()),
            None => format!("{}: {errno}", mount.source.display()),
        },
    })
}

fn enter_mirror_of_root(root: &Path) -> io::Result<()> {
    fs::create_dir_all(root)?;
    mirror(Path::new("/"), root)?;
    fs::create_dir(root.join(&STAGE[1..]))?;
    nix::unistd::chdir(root)?;
    // Stacks the old root over the new one, then takes it away: no folder is needed for it.
    match pivot_root(".", ".") {
        Ok(()) => umount2(".", MntFlags::MNT_DETACH)?,
        // The first root file system of a machine cannot be pivoted away.
        Err(nix::Error::EINVAL) => {
            mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)?;
            nix::unistd::chroot(".")?;
        }
        Err(error) => return Err(error.into()),
    }
    Ok(nix::unistd::chdir("/")?)
}

/// Mounts a tmpfs at `at` that shows every entry of `folder`, mounts below it included.
fn mirror(folder: &Path, at: &Path) -> io::Result<()> {
    let entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    if entries.len() > MIRROR_LIMIT {
        let what = format!("{} has more than {MIRROR_LIMIT} entries", folder.display());
        return Err(io::Error::new(io::ErrorKind::ArgumentListTooLong, what));
    }
    let mode = format!("mode={:o},size=4m", fs::metadata(folder)?.mode() & 0o7777);
    mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some(mode.as_str()))?;
    for entry in entries {
        let (from, to, kind) = (entry.path(), at.join(entry.file_name()), entry.file_type()?);
        if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&from)?, &to)?;
            continue;
        }
        if kind.is_dir() {
            fs::create_dir(&to)?;
        } else {
            fs::File::create_new(&to)?;
        }
        bind(&from, &to)?;
    }
    Ok(())
}

fn bind(from: &Path, to: &Path) -> io::Result<()> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    Ok(mount(Some(from), to, None::<&str>, flags, None::<&str>)?)
}

fn attach(mount_: &Mount, source: &OwnedFd) -> io::Result<()> {
    let from = PathBuf::from(format!("/proc/self/fd/{}", source.as_raw_fd()));
    let is_folder = fs::metadata(&from)?.is_dir();
    let target = make_target(&mount_.target, is_folder)?;
    bind(&from, &target)?;
    if mount_.read_only {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(None::<&str>, &target, None::<&str>, flags, None::<&str>)?;
    }
    Ok(())
}

/// Makes sure that there is something to mount on, without writing to the host.
fn make_target(target: &Path, folder: bool) -> io::Result<PathBuf> {
    let plain = target.is_absolute()
        && target.components().all(|c| matches!(c, Component::Normal(_) | Component::RootDir));
    if !plain {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path must be absolute"));
    }
    // Links on the way are followed where they lead: we are in the container's own root by now.
    let mut existing = PathBuf::from("/");
    let mut missing = target.strip_prefix("/").unwrap_or(target);
    while let Some(first) = missing.components().next() {
        match fs::canonicalize(existing.join(first)) {
            Ok(next) => existing = next,
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        }
        missing = missing.strip_prefix(first).unwrap_or(Path::new(""));
    }
    if missing.as_os_str().is_empty() {
        return Ok(existing);
    }
    if !is_ours(&existing)? {
        let stage = PathBuf::from(STAGE);
        mirror(&existing, &stage)?;
        mount(Some(&stage), &existing, None::<&str>, MsFlags::MS_MOVE, None::<&str>)?;
    }
    let path = existing.join(missing);
    if folder {
        fs::create_dir_all(&path)?;
    } else {
        path.parent().map(fs::create_dir_all).transpose()?;
        fs::File::create_new(&path)?;
    }
    Ok(path)
}

/// Whether a folder is on one of our mirrors: on the root's, or on one marked by its own device.
fn is_ours(folder: &Path) -> io::Result<bool> {
    Ok(fs::metadata(folder)?.dev() == fs::metadata("/")?.dev())
}

fn hide(path: &Path) -> io::Result<()> {
    let Ok(kind) = fs::metadata(path) else { return Ok(()) };
    if kind.is_dir() {
        let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        Ok(mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some("mode=755,size=4k"))?)
    } else {
        bind(Path::new("/dev/null"), path)
    }
}
