//! The container's view of the file system, in a mount namespace of its own.
//!
//! As root (or where a user may have namespaces) each volume is seen at its mount path, and what
//! is hidden (the data directories of the machine's nodes) is covered, by whichever path or volume it is
//! looked for, also where its file system is mounted a second time. Root's containers read the machine's files and write none but in `/tmp` and `/var/tmp`;
//! `/run`, where the machine's own programs listen, is each container's own. Both but for a privileged one.
//! Nothing is written to the host for all that: a mount point that is missing is made in a *mirror*, a small
//! tmpfs that holds every entry of the
//! folder as a bind mount. All of it goes with the container's last process.
//!
//! Without namespaces the container sees the host as it is, keys included; a volume is found through
//! `IMPRESARIO_VOLUME_<NAME>`, and warnings say so.

use super::bind::{bind, make_read_only};
use super::view;
use crate::{
    container::Mount,
    mount_table::{Mounted, mount_table},
    private,
    process::record::{Failed, Order},
};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    unistd::{Uid, pivot_root},
};
use rustix::{
    fs::{CWD, FileType, fstat},
    mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree},
};
use std::{
    collections::BTreeSet,
    fs, io,
    os::fd::OwnedFd,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Component, Path, PathBuf},
};

/// Entries of a folder that is mirrored; each becomes a mount, of which a namespace may have 100,000
/// (`fs.mount-max`). `/usr/bin` and `/usr/lib` of a desktop have some thousands.
const MIRROR_LIMIT: usize = 10_000;
/// Where mirrors are put together, on the container's own root.
const STAGE: &str = "/.impresario";
/// Where the new root is put together: a folder of every machine that is not taken over as it is.
const NEW_ROOT: &str = "/sys";
/// What of the machine's root every container has its own of.
const OWN: [&str; 3] = ["proc", "sys", "dev"];
/// Where the machine's programs wait for others (sockets of its managers and engines), and what they know of
/// each other: of that too a container has its own, unless it is privileged.
const RUN: &str = "run";
/// What root's containers may write of the machine, besides volumes: what everybody may.
const WRITABLE: [&str; 2] = ["tmp", "var/tmp"];
/// What is read in `/run` by every program that looks for names.
const RESOLV_CONF: &str = "/etc/resolv.conf";

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
    if let Err(error) = enter_namespace() {
        for mount in mounts.iter().filter(|m| m.sub_path.is_some()) {
            // What the namespace would have refused is refused here too.
            drop(open_source(mount)?);
        }
        warn(format!(
            "this machine permits no namespaces ({error}): the container can read the keys of its node and \
             signal its processes. Run the node as root, or permit user namespaces (sysctl \
             user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns)"
        ));
        for mount in mounts.iter().filter(|m| m.target != m.source) {
            warn(format!(
                "volume {} is not at {} but where its variable says: no mount namespace ({error})",
                mount.volume,
                mount.target.display()
            ));
        }
        return Ok(Seen::AsOnHost);
    }
    let sources = open_and_hide(order)?;
    make_root(order).map_err(|error| Failed::System {
        what: "making the container's root".into(),
        cause: error.to_string(),
    })?;
    let mut shallow_first: Vec<_> = mounts.iter().zip(sources).collect();
    shallow_first.sort_by_key(|(mount, _)| mount.target.components().count());
    let own = own_devices(order.spec.security.privileged).map_err(|error| Failed::System {
        what: "looking at the container's root".into(),
        cause: error.to_string(),
    })?;
    for (mount, source) in shallow_first {
        attach(mount, source, &own).map_err(|error| Failed::Mount {
            volume: mount.volume.clone(),
            target: mount.target.clone(),
            cause: error.to_string(),
        })?;
    }
    let _ = fs::remove_dir(STAGE);
    Ok(Seen::Mounted)
}

fn enter_namespace() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    Ok(mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?)
}

/// The sources of all mounts. The pod's own, and the folders of volumes that outlive it, are among what is hidden, so that they
/// are copied before, and all others after: no volume leads to what is hidden. The node lets no `hostPath` name such a
/// folder; one that leads there by a link is copied afterwards.
fn open_and_hide(order: &Order) -> Result<Vec<OwnedFd>, Failed> {
    let (own, mounts) = (order.own(&order.folder), &order.spec.mounts);
    let mut sources: Vec<Option<OwnedFd>> = Vec::new();
    for mount in mounts {
        let is_own = own.iter().any(|own| mount.source.starts_with(own));
        sources.push(is_own.then(|| copy_source(mount)).transpose()?);
    }
    let table = mount_table().map_err(|error| Failed::System {
        what: "reading the table of mounts".into(),
        cause: error.to_string(),
    })?;
    for path in order.hidden.iter().flat_map(|path| private::places(path, &table)) {
        view::mask(&path).map_err(|error| Failed::System {
            what: format!("hiding {}", path.display()),
            cause: error.to_string(),
        })?;
    }
    let opened = mounts.iter().zip(sources);
    opened.map(|(mount, source)| source.map_or_else(|| copy_source(mount), Ok)).collect()
}

/// Opens what is mounted.
fn open_source(mount: &Mount) -> Result<OwnedFd, Failed> {
    crate::volumes::open_source(mount).map_err(|cause| Failed::Mount {
        volume: mount.volume.clone(),
        target: mount.target.clone(),
        cause,
    })
}

/// The same, copied with all that is mounted below it: it can be put elsewhere when its old place is gone.
fn copy_source(mount: &Mount) -> Result<OwnedFd, Failed> {
    let source = open_source(mount)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    open_tree(&source, "", flags).map_err(|errno| Failed::Mount {
        volume: mount.volume.clone(),
        target: mount.target.clone(),
        cause: errno.to_string(),
    })
}

fn make_root(order: &Order) -> io::Result<()> {
    let root = Path::new(NEW_ROOT);
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    let sys = open_tree(CWD, "/sys", flags)?;
    let is_privileged = order.spec.security.privileged;
    let own: Vec<_> = OWN.into_iter().chain((!is_privileged).then_some(RUN)).collect();
    mirror(Path::new("/"), root, &own)?;
    if !is_privileged {
        make_run(&root.join(RUN))?;
        // Without root nobody writes what is another's.
        if Uid::effective().is_root() {
            protect(root)?;
        }
    }
    view::make(root, sys, order)?;
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

/// An empty folder for what runs in the container, with the machine's list of name servers if that is there.
fn make_run(at: &Path) -> io::Result<()> {
    fs::create_dir(at)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some("mode=755,size=64m"))?;
    let lock = at.join("lock");
    fs::create_dir(&lock)?;
    fs::set_permissions(&lock, fs::Permissions::from_mode(0o1777))?;
    let Ok(servers) = fs::canonicalize(RESOLV_CONF) else { return Ok(()) };
    if let Ok(below) = servers.strip_prefix("/run") {
        let to = at.join(below);
        to.parent().map(fs::create_dir_all).transpose()?;
        fs::File::create_new(&to)?;
        bind(&servers, &to)?;
    }
    Ok(())
}

/// Refuses writes to everything of the machine's that is seen below `root`, but where everybody writes.
fn protect(root: &Path) -> io::Result<()> {
    let writable: Vec<_> = WRITABLE.iter().map(|name| root.join(name)).collect();
    for path in writable.iter().filter(|path| path.is_dir()) {
        bind(path, path)?;
    }
    let run = root.join(RUN);
    for Mounted { point, options, .. } in mount_table()? {
        let is_own = point == root
            || !point.starts_with(root)
            || point.starts_with(&run)
            || writable.iter().any(|path| point.starts_with(path));
        if is_own {
            continue;
        }
        let flags =
            MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | flags_in(&options);
        match mount(None::<&str>, &point, None::<&str>, flags, None::<&str>) {
            // Of what was there before, or another mount of the same place that is read-only already.
            Ok(()) | Err(nix::Error::ENOENT) => {}
            // What cannot even be looked at is not shown.
            Err(_) => umount2(&point, MntFlags::MNT_DETACH)?,
        }
    }
    Ok(())
}

/// Mounts a tmpfs at `at` that shows every entry of `folder` but `without`, mounts below it included.
fn mirror(folder: &Path, at: &Path, without: &[&str]) -> io::Result<()> {
    let entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    if entries.len() > MIRROR_LIMIT {
        let what = format!("{} has more than {MIRROR_LIMIT} entries", folder.display());
        return Err(io::Error::new(io::ErrorKind::ArgumentListTooLong, what));
    }
    let meta = fs::metadata(folder)?;
    let mode = format!("mode={:o},size=4m", meta.mode() & 0o7777);
    mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some(mode.as_str()))?;
    if Uid::effective().is_root() {
        // Who could enter it can do so still.
        std::os::unix::fs::chown(at, Some(meta.uid()), Some(meta.gid()))?;
    }
    for entry in entries {
        if entry.file_name().to_str().is_some_and(|name| without.contains(&name)) {
            continue;
        }
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
        if let Err(error) = bind(&from, &to) {
            if !is_out_of_reach(&error) {
                return Err(error);
            }
            // Gone since, or a file system that does not answer: nothing that this container asked for.
            let _ = if kind.is_dir() { fs::remove_dir(&to) } else { fs::remove_file(&to) };
        }
    }
    Ok(())
}

/// Whether something is not there for anybody, rather than not for us.
fn is_out_of_reach(error: &io::Error) -> bool {
    use io::ErrorKind::{NotConnected, NotFound, PermissionDenied, StaleNetworkFileHandle};
    matches!(error.kind(), NotFound | StaleNetworkFileHandle | NotConnected | PermissionDenied)
}

/// What the machine's table of mounts says is set on one.
fn flags_in(options: &str) -> MsFlags {
    let flag = |option: &str| match option {
        "nosuid" => MsFlags::MS_NOSUID,
        "nodev" => MsFlags::MS_NODEV,
        "noexec" => MsFlags::MS_NOEXEC,
        "noatime" => MsFlags::MS_NOATIME,
        "nodiratime" => MsFlags::MS_NODIRATIME,
        "relatime" => MsFlags::MS_RELATIME,
        _ => MsFlags::empty(),
    };
    options.split(',').map(flag).collect()
}

fn attach(mount_: &Mount, source: OwnedFd, own: &BTreeSet<u64>) -> io::Result<()> {
    let is_folder = FileType::from_raw_mode(fstat(&source)?.st_mode).is_dir();
    let target = make_target(&mount_.target, is_folder, own)?;
    move_mount(source, "", CWD, &target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    if mount_.read_only {
        make_read_only(&target)?;
    }
    Ok(())
}

/// Makes sure that there is something to mount on, without writing to the host.
fn make_target(target: &Path, folder: bool, own: &BTreeSet<u64>) -> io::Result<PathBuf> {
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
    if !own.contains(&fs::metadata(&existing)?.dev()) {
        let stage = PathBuf::from(STAGE);
        mirror(&existing, &stage, &[])?;
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

/// The devices of what was made for this container alone: its root, `/run` and `/dev`. A mount point that is missing
/// there is made in place.
fn own_devices(is_privileged: bool) -> io::Result<BTreeSet<u64>> {
    let paths: &[&str] = if is_privileged { &["/"] } else { &["/", "/run", "/dev"] };
    paths.iter().map(|path| Ok(fs::metadata(path)?.dev())).collect()
}
