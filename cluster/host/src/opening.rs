//! Which file systems of the machine are being asked, and since when.
//!
//! One that does not answer (NFS whose server is gone, FUSE) keeps who asks it in the kernel without an end: that
//! thread is lost until it answers. So that a further one is not lent to it, by whichever path in it. It is known by its
//! mount point, for which nothing is asked but the table of mounts: what lies beside it is not refused for it.
//!
//! Who asks paths that a pod names does so here: in [`Openings::ask`], going to each by [`Opening::reach`] before.

use crate::mount_table::{Mounted, mount_of, mount_table};
use impresario_ambient::{clock, tasks};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    ffi::OsString,
    fs, io,
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use thiserror::Error;
use tokio::time::timeout;

/// From when on a file system counts as one that does not answer, unless it was said otherwise.
const LIMIT: Duration = Duration::from_mins(1);
/// How many links are followed on the way to a file, as by Linux (path_resolution(7)).
const LINKS: usize = 40;

/// Why nothing came of it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Unanswered {
    /// A file system was asked and did not answer.
    #[error("{0}")]
    Silent(String),
    /// The thread was lost.
    #[error("the task that asks the file systems was lost: {0}")]
    Lost(String),
}

/// The file systems that are asked by one driver, or for the pods of one node.
#[derive(Debug, Clone)]
pub struct Openings {
    /// From when on one counts as one that does not answer.
    limit: Duration,
    now: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    /// Since when each is asked by whom; none where nobody waits for that any more.
    open: HashMap<u64, (PathBuf, Option<Instant>)>,
}

impl Default for Openings {
    fn default() -> Self {
        Self::new(LIMIT)
    }
}

impl Openings {
    /// None are asked yet; who does not answer for so long is not waited for.
    pub fn new(limit: Duration) -> Self {
        Self { limit, now: Arc::default() }
    }

    /// How many are asking one.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.now.lock().open.len()
    }

    /// Does what may wait for file systems, by a thread that nothing else needs, and no longer than the limit. A thread
    /// that is given up goes on when it is answered: what it does then must harm nobody.
    pub async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Opening) -> T + Send + 'static,
    ) -> Result<T, Unanswered> {
        let (limit, opening) = (self.limit, self.begin());
        let number = opening.number;
        match timeout(limit, tasks::spawn_blocking(move || work(&opening))).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(Unanswered::Lost(error.to_string())),
            Err(_) => Err(match self.given_up(number) {
                Some(point) => Unanswered::Silent(silent(&point, limit)),
                None => {
                    Unanswered::Silent(format!("the machine did not come to it within {limit:?}"))
                }
            }),
        }
    }

    /// Nobody waits any more for the one of this number: what it asks, whose mount point this is, does not answer.
    fn given_up(&self, number: u64) -> Option<PathBuf> {
        let mut now = self.now.lock();
        let (point, since) = now.open.get_mut(&number)?;
        *since = None;
        Some(point.clone())
    }

    /// One who opens paths, one after the other, from now on.
    pub(crate) fn begin(&self) -> Opening {
        let mut now = self.now.lock();
        now.next += 1;
        Opening { openings: self.clone(), number: now.next, since: clock::now() }
    }
}

/// One who opens paths. It stands in the table until it is dropped.
#[derive(Debug)]
pub struct Opening {
    openings: Openings,
    /// Its own among those of this process.
    pub(crate) number: u64,
    since: Instant,
}

impl Opening {
    /// It asks the file system that is mounted there next. Refused where another one has waited for that too long, or
    /// this one has waited so long for others.
    fn enter(&self, point: &Path) -> Result<(), String> {
        let (limit, mut now) = (self.openings.limit, self.openings.now.lock());
        let hangs = |(other, since): &(PathBuf, Option<Instant>)| {
            other == point && since.is_none_or(|since| since.elapsed() >= limit)
        };
        let others = now.open.iter().filter(|(number, _)| **number != self.number);
        if self.since.elapsed() >= limit || others.map(|(_, open)| open).any(hangs) {
            return Err(silent(point, limit));
        }
        now.open.insert(self.number, (point.to_owned(), Some(clock::now())));
        Ok(())
    }

    /// Goes to a file that is looked at next, link by link: refused, with what to look at, where a file system on the way
    /// does not answer.
    pub fn reach(&self, path: &Path) -> Result<(), String> {
        let table = mount_table().map_err(|error| format!("the table of mounts: {error}"))?;
        self.approach(path, &table)
    }

    /// Goes to a file, link by link, and stays in the file system that it lies in: it is opened next. What is not there
    /// is found out then.
    pub(crate) fn approach(&self, path: &Path, table: &[Mounted]) -> Result<(), String> {
        let mut at = PathBuf::from("/");
        let mut rest: Vec<OsString> = names(path);
        let mut links = 0;
        while let Some(name) = rest.pop() {
            if name == ".." {
                at.pop();
                continue;
            }
            at.push(name);
            // A mount point is no link, and its file system is asked for what is in it alone.
            let Some(mounted) = mount_of(&at, table) else { continue };
            if mounted.point == at {
                continue;
            }
            self.enter(&mounted.point)?;
            match fs::read_link(&at) {
                Ok(_) if links == LINKS => return Err(format!("{}: too many links", at.display())),
                Ok(target) => {
                    links += 1;
                    at.pop();
                    if target.is_absolute() {
                        at = PathBuf::from("/");
                    }
                    rest.extend(names(&target));
                }
                // No link.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
                Err(_) => break,
            }
        }
        mount_of(&at, table).map_or(Ok(()), |mounted| self.enter(&mounted.point))
    }

    /// Refused where nobody waits any more for what it opens: that was `path`.
    pub(crate) fn in_time(&self, path: &Path) -> Result<(), String> {
        let limit = self.openings.limit;
        if self.since.elapsed() < limit { Ok(()) } else { Err(silent(path, limit)) }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.openings.now.lock().open.remove(&self.number);
    }
}

/// The components of a path, the last one first.
fn names(path: &Path) -> Vec<OsString> {
    let plain = |component: &Component<'_>| {
        matches!(component, Component::Normal(_) | Component::ParentDir)
    };
    let names = path.components().filter(plain);
    names.rev().map(|component| component.as_os_str().to_owned()).collect()
}

/// What is said of what does not answer.
fn silent(path: &Path, limit: Duration) -> String {
    format!("{} does not answer within {limit:?}: look at what serves it", path.display())
}

/// A file system whose server never answers, until what is returned is closed. None where it cannot be had.
#[cfg(test)]
pub(crate) fn silent_file_system(place: &Path) -> Option<fs::File> {
    use nix::mount::{MsFlags, mount};
    use std::os::fd::AsRawFd as _;
    let server = fs::File::options().read(true).write(true).open("/dev/fuse").ok()?;
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
    let flags = MsFlags::empty();
    mount(Some("silent"), place, Some("fuse"), flags, Some(options.as_str())).ok()?;
    Some(server)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_asks_what_does_not_answer_is_told_and_no_second_thread_is_lost_to_it() {
        let openings = Openings::new(Duration::from_secs(1));
        let (answer, waits) = std::sync::mpsc::channel::<()>();
        let asked = openings.ask(move |opening| {
            opening.enter(Path::new("/mnt/nfs")).unwrap();
            let _ = waits.recv();
        });
        let told = asked.await.unwrap_err().to_string();
        assert!(told.contains("/mnt/nfs does not answer within 1s"), "{told}");
        let next = openings.ask(|opening| {
            (opening.enter(Path::new("/mnt/nfs")), opening.enter(Path::new("/mnt/other")))
        });
        let (again, other) = next.await.unwrap();
        assert!(again.is_err() && other.is_ok(), "{again:?} {other:?}");
        assert_eq!(openings.count(), 1, "one thread waits for it");
        drop(answer);
        let freed = timeout(Duration::from_mins(1), async {
            while openings.count() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        freed.await.expect("the thread comes back");
        let again = openings.ask(|opening| opening.enter(Path::new("/mnt/nfs")));
        again.await.unwrap().unwrap();
    }

    #[test]
    fn a_file_is_approached_link_by_link_into_the_file_system_that_it_lies_in() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        let mounted = |point: PathBuf| Mounted {
            device: "0:9".into(),
            root: "/".into(),
            point,
            options: "rw".into(),
        };
        let table = ["/".into(), root.join("nfs"), root.join("nfs/deep")].map(mounted);
        fs::create_dir_all(root.join("nfs/deep")).unwrap();
        let link = std::os::unix::fs::symlink::<PathBuf, PathBuf>;
        link(root.join("nfs/deep"), root.join("absolute")).unwrap();
        link("../nfs".into(), root.join("nfs/relative")).unwrap();
        link(root.join("endless"), root.join("endless")).unwrap();
        let openings = Openings::new(Duration::from_mins(1));
        for (path, point) in [
            ("plain", Ok("/")),
            ("nfs/a/b", Ok("nfs")),
            ("nfs", Ok("nfs")),
            ("absolute/a", Ok("nfs/deep")),
            ("nfs/relative/deep/../a", Ok("nfs")),
            ("absent/absolute", Ok("/")),
            ("endless/a", Err(())),
        ] {
            let opening = openings.begin();
            let went = opening.approach(&root.join(path), &table).map_err(drop);
            let asked = openings.now.lock().open[&opening.number].0.clone();
            assert_eq!(went.map(|()| asked), point.map(|point| root.join(point)), "{path}");
        }
    }

    #[test]
    fn who_asks_for_a_path_that_another_one_waits_for_is_refused_when_that_has_waited_too_long() {
        let openings = Openings::new(Duration::from_mins(1));
        let (path, other) = (Path::new("/a"), Path::new("/b"));
        let long_ago = clock::now().checked_sub(openings.limit).unwrap();
        let first = openings.begin();
        first.enter(path).unwrap();
        openings.begin().enter(path).unwrap();
        openings.now.lock().open.get_mut(&first.number).unwrap().1 = Some(long_ago);
        let second = openings.begin();
        assert!(second.enter(path).unwrap_err().contains("/a does not answer"));
        second.enter(other).unwrap();
        drop(first);
        second.enter(path).unwrap();
        let mut late = openings.begin();
        late.since = long_ago;
        late.enter(other).unwrap_err();
        drop((second, late));
        assert!(openings.now.lock().open.is_empty());
    }
}
