//! What of the machine is mounted: what was looked at is what the engine mounts.
//!
//! The engine takes paths only, and looks them up later and as root. A path that was checked could be another by then:
//! who may write to a volume, or where it lies, exchanges a folder for a link to anywhere (CVE-2021-25741). So
//! that the source is opened, a part of a volume beneath it, what was opened is mounted in the pod's folder, and the
//! engine is given that place, as the kubelet does.
//!
//! What the pod's own folder has is the pod's. Of the machine's other files no container is given the keys of a
//! node: nothing in a hidden folder, by whichever path, and nothing that holds one, since the engine cannot cover
//! what lies in a volume. The engine's socket, which is the machine, is for privileged containers alone.

use super::config::DockerConfig;
use crate::container::{DriverError, Mount, StartError};
use crate::mount_table::{Mounted, mount_points, mount_table};
use crate::opening::{Opening, Openings, Unanswered};
use crate::private::{nodes_of_this_machine, places};
use crate::volumes::{FOLDERS, open_source, unmount_below};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::socket::{getsockopt, sockopt},
};
use parking_lot::Mutex;
use rustix::{
    fs::{CWD, FileType, fstat},
    mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree},
};
use std::{
    cmp::Reverse,
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        linux::fs::MetadataExt as _,
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

/// What was opened is at these places of the pod's folder, for as long as this lives: what the engine has mounted by
/// then is its container's.
#[derive(Debug, Default)]
pub(super) struct Pinned(Vec<PathBuf>);

impl Drop for Pinned {
    fn drop(&mut self) {
        for place in &self.0 {
            // One that stays goes with the pod's folder.
            if let Err(error) = unmount(place).and_then(|()| remove(place)) {
                tracing::debug!(?place, %error, "a source of a mount stays for now");
            }
        }
    }
}

/// The volumes of this driver for a container.
pub(super) struct Sources {
    pub config: DockerConfig,
    /// The pod's uid.
    pub uid: String,
    /// The container, as one of all of the pod's.
    pub container: String,
    pub is_privileged: bool,
}

impl Sources {
    /// Replaces the sources that could be exchanged: they are those that were looked at as long as what is
    /// returned lives. A file system that does not answer is not waited for longer than the limit of `openings`, and
    /// by no thread that anything else needs.
    pub(super) async fn pinned(
        self,
        mut mounts: Vec<Mount>,
        openings: &Openings,
    ) -> Result<(Vec<Mount>, Pinned), StartError> {
        let at = Arc::new(Mutex::new(None::<Mount>));
        let asked = at.clone();
        let work = move |opening: &Opening| {
            let pinned = self.pin(&mut mounts, opening, &asked)?;
            Ok((mounts, pinned))
        };
        // What it has mounted when it comes back, where nobody waits any more, goes then.
        match openings.ask(work).await {
            Ok(pinned) => pinned,
            Err(Unanswered::Silent(cause)) => Err(match at.lock().clone() {
                Some(mount) => refused(&mount, cause),
                None => {
                    let what = "show the sources of mounts".to_owned();
                    DriverError::Engine { what, cause }.into()
                }
            }),
            Err(Unanswered::Lost(cause)) => {
                let what = "opening the sources of mounts".to_owned();
                Err(DriverError::Io { what, cause: io::Error::other(cause) }.into())
            }
        }
    }

    fn pin(
        &self,
        mounts: &mut [Mount],
        opening: &Opening,
        asked: &Mutex<Option<Mount>>,
    ) -> Result<Pinned, StartError> {
        let own = self.config.pods.join(&self.uid);
        // The folders of volumes that outlive pods: the node gives one to those pods alone that have its claim, and lets
        // no `hostPath` name it.
        let folders = self.config.pods.with_file_name(FOLDERS);
        let real = fs::canonicalize(&folders).ok();
        let is_kept = |mount: &Mount, at: &Path| {
            let its =
                real.as_ref().zip(mount.source.file_name()).map(|(real, name)| real.join(name));
            mount.source.parent() == Some(folders.as_path())
                && its.is_some_and(|its| at.starts_with(its))
        };
        let mut kept = self.config.hidden.clone();
        let others = nodes_of_this_machine();
        kept.extend(others.map_err(DriverError::io("keeping other nodes' files from it"))?);
        if !self.is_privileged {
            kept.push(self.config.socket.clone());
        }
        // Without it what is kept would be looked for at one of its places alone.
        let table = mount_table().map_err(DriverError::io("reading the table of mounts"))?;
        let mut pinned = Pinned::default();
        for (number, mount) in mounts.iter_mut().enumerate() {
            let is_own = mount.source.starts_with(&own);
            if is_own && mount.sub_path.is_none() {
                continue;
            }
            *asked.lock() = Some(mount.clone());
            let path = mount.sub_path.as_ref().map(|part| mount.source.join(part));
            let opened = opening
                .approach(path.as_ref().unwrap_or(&mount.source), &table)
                .and_then(|()| look(mount, |at| is_own || is_kept(mount, at), &kept, &table));
            let at = opened.and_then(|(opened, at)| {
                // Its own: one who was slow to open its sources may still take its places away.
                let place = format!("{}-{}-{number}", self.container, opening.number);
                let place = own.join("sources").join(place);
                // Nobody waits for this any more where that took too long.
                opening.in_time(&mount.source)?;
                match show(&opened, &place) {
                    Ok(()) => {
                        pinned.0.push(place.clone());
                        if sees(&self.config.socket, &place, &opened) != Some(false) {
                            Ok(place)
                        } else if mount.sub_path.is_none() {
                            Ok(at)
                        } else {
                            Err("the engine does not see what this node mounts (it runs in a mount namespace of its \
                                 own), so that a part of a volume cannot be given to it"
                                .to_owned())
                        }
                    }
                    // As an ordinary user, who may not mount: it is what was looked at unless somebody who may write
                    // to a folder on the way exchanges it, and nobody else than that pod may write to a volume.
                    Err(error) if is_refused(&error) && mount.sub_path.is_none() => Ok(at),
                    Err(error) if is_refused(&error) => Err(format!(
                        "a part of a volume is mounted by nodes that run as root alone ({error})"
                    )),
                    Err(error) => Err(format!("{}: {error}", place.display())),
                }
            });
            mount.source = at.map_err(|cause| refused(mount, cause))?;
            mount.sub_path = None;
        }
        Ok(pinned)
    }
}

fn refused(mount: &Mount, cause: String) -> StartError {
    let (volume, target) = (mount.volume.clone(), mount.target.clone());
    StartError::Mount { volume, target, cause }
}

/// What is to be mounted, and its name without links.
fn look(
    mount: &Mount,
    is_own: impl Fn(&Path) -> bool,
    kept: &[PathBuf],
    table: &[Mounted],
) -> Result<(OwnedFd, PathBuf), String> {
    let opened = open_source(mount)?;
    let at = fs::read_link(format!("/proc/self/fd/{}", opened.as_raw_fd()))
        .map_err(|error| error.to_string())?;
    match kept_from(&at, kept, table).filter(|_| !is_own(&at)) {
        Some(path) => Err(format!(
            "{} may not be mounted: it holds, or lies in, {}, which no pod of this node may have",
            at.display(),
            path.display()
        )),
        None => Ok((opened, at)),
    }
}

fn is_refused(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// Mounts what was opened, with all that is mounted below it, at a place that is made for it.
fn show(opened: &OwnedFd, place: &Path) -> io::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(opened, "", flags)?;
    // A copy of what is shared (as all of a machine with systemd is) is one with it: what is unmounted in the copy is
    // unmounted there as well. It is made its own while it is nowhere: if it comes to a shared place, each other mount
    // namespace gets copies that follow it, down to the last one of them when it goes. Made private at its place, it
    // would leave those with mounts below them there for good.
    let is_own = make_private(Path::new(&format!("/proc/self/fd/{}", tree.as_raw_fd()))).is_ok();
    place.parent().map(fs::create_dir_all).transpose()?;
    if FileType::from_raw_mode(fstat(opened)?.st_mode).is_dir() {
        fs::create_dir_all(place)?;
    } else {
        fs::OpenOptions::new().create(true).append(true).open(place)?;
    }
    move_mount(tree, "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    // Some kernels of summer 2025 change no tree that is nowhere.
    if !is_own && let Err(error) = make_private(place) {
        unmount_below(place)?;
        return Err(error);
    }
    Ok(())
}

/// With all that is mounted below it.
fn make_private(tree: &Path) -> io::Result<()> {
    let flags = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    Ok(mount(None::<&str>, tree, None::<&str>, flags, None::<&str>)?)
}

/// Takes away what [`show`] has mounted, the deepest first, in each mount namespace that has a copy. Asks no file
/// system that is mounted there.
fn unmount(place: &Path) -> io::Result<()> {
    let (Some(folder), Some(name)) = (place.parent(), place.file_name()) else { return Ok(()) };
    let place = fs::canonicalize(folder)?.join(name);
    let mut points = mount_points()?;
    points.retain(|point| point.starts_with(&place));
    points.sort_by_key(|point| Reverse(point.as_os_str().len()));
    for point in points {
        umount2(&point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
    }
    Ok(())
}

/// Whether the engine has at a place what was opened. One with a mount namespace of its own (as a snap has) would take
/// the empty folder beneath, and what a container writes there would go with the pod. None where that cannot be told.
fn sees(socket: &Path, place: &Path, opened: &OwnedFd) -> Option<bool> {
    let engine = UnixStream::connect(socket).ok()?;
    let pid = getsockopt(&engine, sockopt::PeerCredentials).ok()?.pid();
    let opened = fstat(opened).ok()?;
    match fs::metadata(format!("/proc/{pid}/root{}", place.display())) {
        Ok(seen) => Some((seen.st_dev(), seen.st_ino()) == (opened.st_dev, opened.st_ino)),
        Err(error) => (error.kind() == io::ErrorKind::NotFound).then_some(false),
    }
}

fn remove(place: &Path) -> io::Result<()> {
    if place.is_dir() { fs::remove_dir(place) } else { fs::remove_file(place) }
}

/// Which of what is kept from containers would be had with `source`.
fn kept_from<'a>(source: &Path, kept: &'a [PathBuf], table: &[Mounted]) -> Option<&'a Path> {
    let leads = |place: &PathBuf| source.starts_with(place) || place.starts_with(source);
    kept.iter().find(|path| places(path, table).iter().any(leads)).map(PathBuf::as_path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::opening::silent_file_system;
    use std::{os::unix::fs::symlink, sync::mpsc, thread, time::Duration};
    use tokio::time::timeout;

    fn as_volume(source: &Path, part: Option<&str>) -> Mount {
        Mount {
            volume: "v".into(),
            source: source.to_owned(),
            sub_path: part.map(PathBuf::from),
            target: "/v".into(),
            read_only: false,
        }
    }

    /// An engine that is never asked.
    fn config(folder: &Path) -> DockerConfig {
        DockerConfig {
            socket: folder.join("engine/docker.sock"),
            cluster: "c".into(),
            node: "n".into(),
            network: "none".into(),
            pods: folder.join("node/pods"),
            hidden: vec![folder.join("node")],
        }
    }

    fn sources(config: &DockerConfig, is_privileged: bool) -> Sources {
        let (uid, container) = ("uid".to_owned(), "a-0".to_owned());
        Sources { config: config.clone(), uid, container, is_privileged }
    }

    fn pin(sources: &Sources, mounts: &mut [Mount]) -> Result<Pinned, StartError> {
        sources.pin(mounts, &Openings::new(Duration::MAX).begin(), &Mutex::default())
    }

    fn is_refused(config: &DockerConfig, privileged: bool, mount: Mount) -> bool {
        match pin(&sources(config, privileged), &mut [mount]) {
            Ok(_) => false,
            Err(StartError::Mount { .. }) => true,
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn a_part_that_is_exchanged_after_it_was_looked_at_is_still_the_one_that_is_mounted() {
        let folder = tempfile::tempdir().unwrap();
        let (volume, secret) = (folder.path().join("volume"), folder.path().join("secret"));
        fs::create_dir_all(volume.join("part")).unwrap();
        fs::create_dir(&secret).unwrap();
        fs::write(volume.join("part/own"), "").unwrap();
        let config = config(folder.path());
        if !nix::unistd::Uid::effective().is_root() {
            return crate::left_out::leave_out("it takes root");
        }
        let mut mounts = [as_volume(&volume, Some("part")), as_volume(&volume.join("part"), None)];
        let pinned = pin(&sources(&config, false), &mut mounts).unwrap();
        fs::rename(volume.join("part"), volume.join("aside")).unwrap();
        symlink(&secret, volume.join("part")).unwrap();
        assert!(mounts.iter().all(|mount| mount.source.join("own").exists()));
        drop(pinned);
        assert_eq!(fs::read_dir(folder.path().join("node/pods/uid/sources")).unwrap().count(), 0);
        for part in ["part", "../secret", "none"] {
            assert!(is_refused(&config, false, as_volume(&volume, Some(part))), "{part}");
        }
    }

    #[test]
    fn what_is_mounted_below_a_volume_of_a_shared_mount_stays_when_the_container_has_it() {
        if !nix::unistd::Uid::effective().is_root() {
            return crate::left_out::leave_out("it takes root");
        }
        let folder = tempfile::tempdir().unwrap();
        let (data, below) = (folder.path().join("data"), folder.path().join("data/below"));
        let tmpfs = |place: &Path| {
            fs::create_dir_all(place).unwrap();
            mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
            mount(None::<&str>, place, None::<&str>, MsFlags::MS_SHARED, None::<&str>).unwrap();
        };
        tmpfs(&data);
        tmpfs(&below);
        fs::write(below.join("own"), "").unwrap();
        let config = config(folder.path());
        let mut mounts = [as_volume(&data, None)];
        let pinned = pin(&sources(&config, false), &mut mounts).unwrap();
        assert!(mounts[0].source.join("below/own").exists());
        drop(pinned);
        let stays = below.join("own").exists();
        let gone = fs::read_dir(folder.path().join("node/pods/uid/sources")).unwrap().count() == 0;
        unmount_below(folder.path()).unwrap();
        assert!(stays && gone, "{stays} {gone}");
    }

    #[test]
    fn another_mount_namespace_keeps_nothing_of_a_volume_with_mounts_below_it() {
        if !nix::unistd::Uid::effective().is_root() {
            return crate::left_out::leave_out("it takes root");
        }
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let shared = |place: &Path| {
            fs::create_dir_all(place).unwrap();
            mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
            mount(None::<&str>, place, None::<&str>, MsFlags::MS_SHARED, None::<&str>).unwrap();
        };
        let (base, data) = (root.join("base"), root.join("base/data"));
        shared(&base);
        shared(&data);
        shared(&data.join("below"));
        let (config, (said, asked)) = (config(&base), mpsc::channel());
        let (go, wait) = mpsc::channel::<()>();
        // As a service of systemd has it: it is told of what is mounted, and tells nothing.
        let service = thread::spawn(move || {
            use nix::sched::{CloneFlags, unshare};
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS).unwrap();
            let slave = MsFlags::MS_SLAVE | MsFlags::MS_REC;
            mount(None::<&str>, "/", None::<&str>, slave, None::<&str>).unwrap();
            let mounts = || {
                let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
                table.lines().filter(|line| line.contains("/uid/sources/")).count()
            };
            said.send(mounts()).unwrap();
            for () in wait {
                said.send(mounts()).unwrap();
            }
        });
        let mut seen = vec![asked.recv().unwrap()];
        let pinned = pin(&sources(&config, false), &mut [as_volume(&data, None)]).unwrap();
        go.send(()).unwrap();
        seen.push(asked.recv().unwrap());
        drop(pinned);
        go.send(()).unwrap();
        seen.push(asked.recv().unwrap());
        drop(go);
        service.join().unwrap();
        let stays = mount_points().unwrap().contains(&data.join("below"));
        unmount_below(&root).unwrap();
        assert!(stays && seen == [0, 2, 0], "{stays} {seen:?}");
    }

    #[tokio::test]
    async fn a_file_system_that_does_not_answer_holds_up_nothing_but_the_container_that_wants_it() {
        let folder = tempfile::tempdir().unwrap();
        let (silent, fine) = (folder.path().join("silent"), folder.path().join("fine"));
        fs::create_dir(&silent).unwrap();
        fs::create_dir(&fine).unwrap();
        let Some(server) = silent_file_system(&silent) else {
            return crate::left_out::leave_out("it takes root and FUSE");
        };
        let (done, waits) = mpsc::channel::<()>();
        // Should it be waited for after all, this ends it, and the test fails.
        let watchdog = thread::spawn(move || {
            let _ = waits.recv_timeout(Duration::from_mins(2));
            drop(server);
        });
        let config = config(folder.path());
        let openings = Openings::new(Duration::from_secs(3));
        let want = async |path: &Path, part: Option<&str>| {
            sources(&config, false).pinned(vec![as_volume(path, part)], &openings).await
        };
        // By whichever path in it.
        for (path, part) in [
            (silent.join("data"), None),
            (silent.join("data"), None),
            (silent.join("other"), None),
            (folder.path().to_owned(), Some("silent/data")),
        ] {
            let error = want(&path, part).await.unwrap_err();
            assert!(error.to_string().contains("does not answer within 3s"), "{error}");
        }
        assert_eq!(openings.count(), 1, "one thread waits for it");
        // Another part of the same folder.
        want(folder.path(), Some("fine")).await.unwrap();
        let patient = Openings::new(Duration::from_mins(2));
        let fine = sources(&config, false).pinned(vec![as_volume(&fine, None)], &patient).await;
        fine.unwrap();
        drop(done);
        watchdog.join().unwrap();
        let ended = timeout(Duration::from_mins(1), async {
            while openings.count() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        ended.await.expect("the thread comes back");
        unmount_below(folder.path()).unwrap();
    }

    #[test]
    fn no_volume_of_the_host_holds_the_keys_of_a_node_or_lies_among_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let made = ["node/pki", "node/pods/uid/volumes/v", "node/pods/other/v", "engine", "data"];
        for name in made.into_iter().chain(["node/volumes/pvc-1/part"]) {
            fs::create_dir_all(path(name)).unwrap();
        }
        symlink(path("node/pki"), path("node/volumes/pvc-1/link")).unwrap();
        symlink(path("node/pki"), path("node/volumes/pvc-2")).unwrap();
        fs::write(path("engine/docker.sock"), "").unwrap();
        symlink(path("node/pki"), path("data/link")).unwrap();
        let config = config(folder.path());
        for source in
            ["", "node", "node/pki", "node/pods", "node/pods/other/v", "data/link", "absent"]
        {
            for privileged in [true, false] {
                assert!(
                    is_refused(&config, privileged, as_volume(&path(source), None)),
                    "{source}"
                );
            }
        }
        assert!(is_refused(&config, false, as_volume(Path::new("/"), None)));
        assert!(is_refused(&config, false, as_volume(&path(""), Some("node"))));
        for source in ["engine", "engine/docker.sock"] {
            assert!(is_refused(&config, false, as_volume(&path(source), None)), "{source}");
            assert!(!is_refused(&config, true, as_volume(&path(source), None)), "{source}");
        }
        for source in ["node/volumes", "node/volumes/pvc-1/part", "node/volumes/pvc-2"] {
            assert!(is_refused(&config, false, as_volume(&path(source), None)), "{source}");
        }
        let of_claim = path("node/volumes/pvc-1");
        assert!(is_refused(&config, false, as_volume(&of_claim, Some("link"))));
        for source in ["data", "node/pods/uid/volumes/v", "node/volumes/pvc-1"] {
            assert!(!is_refused(&config, false, as_volume(&path(source), None)), "{source}");
        }
    }
}
