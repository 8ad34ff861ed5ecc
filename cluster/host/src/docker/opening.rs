//! Which files of the machine are being opened, and since when.
//!
//! A file system that does not answer (NFS whose server is gone, FUSE) keeps who asks it in the kernel without an
//! end: that thread is lost until it answers. So that a further one is not lent to a path that has one already.

use parking_lot::Mutex;
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

/// The paths of one driver that are being opened.
#[derive(Debug, Clone)]
pub(super) struct Openings {
    /// From when on a path counts as one that does not answer.
    pub limit: Duration,
    now: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    open: HashMap<u64, (PathBuf, Instant)>,
}

impl Openings {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, now: Arc::default() }
    }

    /// How many open a path.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.now.lock().open.len()
    }

    /// One who opens paths, one after the other, from now on.
    pub(super) fn begin(&self) -> Opening {
        let mut now = self.now.lock();
        now.next += 1;
        Opening { openings: self.clone(), number: now.next, since: Instant::now() }
    }
}

/// One who opens paths. It stands in the table until it is dropped.
#[derive(Debug)]
pub(super) struct Opening {
    openings: Openings,
    /// Its own among those of this process.
    pub number: u64,
    since: Instant,
}

impl Opening {
    /// It asks for this path next. Refused where another one has waited for it too long, or this one has.
    pub(super) fn enter(&self, path: &Path) -> Result<(), String> {
        let (limit, mut now) = (self.openings.limit, self.openings.now.lock());
        let hangs = |(other, since): &(PathBuf, Instant)| other == path && since.elapsed() >= limit;
        let others = now.open.iter().filter(|(number, _)| **number != self.number);
        if self.since.elapsed() >= limit || others.map(|(_, open)| open).any(hangs) {
            return Err(silent(path, limit));
        }
        now.open.insert(self.number, (path.to_owned(), Instant::now()));
        Ok(())
    }

    /// Refused where nobody waits any more for what it opens: that was `path`.
    pub(super) fn in_time(&self, path: &Path) -> Result<(), String> {
        let limit = self.openings.limit;
        if self.since.elapsed() < limit { Ok(()) } else { Err(silent(path, limit)) }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.openings.now.lock().open.remove(&self.number);
    }
}

/// What is said of a path that does not answer.
pub(super) fn silent(path: &Path, limit: Duration) -> String {
    format!("{} does not answer within {limit:?}: look at what serves it", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_a_path_that_another_one_waits_for_is_refused_when_that_has_waited_too_long() {
        let openings = Openings::new(Duration::from_mins(1));
        let (path, other) = (Path::new("/a"), Path::new("/b"));
        let long_ago = Instant::now().checked_sub(openings.limit).unwrap();
        let first = openings.begin();
        first.enter(path).unwrap();
        openings.begin().enter(path).unwrap();
        openings.now.lock().open.get_mut(&first.number).unwrap().1 = long_ago;
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
