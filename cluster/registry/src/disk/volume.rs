//! The operations that a disk may refuse for want of room, behind a trait: what runs on a small or broken disk
//! in a test is the code that runs on a good one.

use std::{
    fmt::Debug,
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// How large a disk is and what is left of it, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total: u64,
    /// What this process may still write.
    pub available: u64,
}

/// Where a member keeps its files.
pub trait Volume: Debug + Send + Sync {
    /// Writes all of `bytes` at an offset. After an error some of them may be there.
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Returns when the file's bytes, and its length, are on the disk.
    fn sync(&self, file: &File) -> io::Result<()>;

    /// The room that there is.
    fn space(&self, directory: &Path) -> io::Result<Space>;
}

/// The operating system's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct Machine;

impl Volume for Machine {
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn space(&self, directory: &Path) -> io::Result<Space> {
        let found = rustix::fs::statvfs(directory)?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Ok(Space { total: bytes(found.f_blocks), available: bytes(found.f_bavail) })
    }
}

/// Whether an error says that there is no room, so that the same may work later.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// What a member knows of the room that it has. Cheap to clone; all clones know the same.
#[derive(Debug, Clone)]
pub struct Room {
    volume: Arc<dyn Volume>,
    directory: Arc<Path>,
    /// The reserve is not there: it was used, or there was no room for it.
    spent: Arc<AtomicBool>,
    /// The log waits for room.
    stalled: Arc<AtomicBool>,
    /// The bytes of a snapshot that there was no room for.
    wanted: Arc<AtomicU64>,
    /// What is taken before the disk is asked again: it had far more room than that.
    ample: Arc<AtomicU64>,
}

const MIB: u64 = 1 << 20;
/// A disk with so much room beside what it must keep has ample room.
const AMPLE: u64 = 1 << 30;
/// What is then taken unasked. Others write on the same disk, so it is little beside the ample room.
const UNASKED: u64 = 16 * MIB;
/// What a write counts at least: small ones are many.
const COUNTS: u64 = 64 * 1024;

impl Room {
    /// The room of a directory.
    pub fn new(volume: Arc<dyn Volume>, directory: &Path) -> Self {
        let (spent, stalled, wanted) = (Arc::default(), Arc::default(), Arc::default());
        let ample = Arc::default();
        Self { volume, directory: directory.into(), spent, stalled, wanted, ample }
    }

    /// The volume.
    pub fn volume(&self) -> &Arc<dyn Volume> {
        &self.volume
    }

    /// Whether so many bytes more can be written and the margin, and the reserve, are left over.
    /// A disk that does not tell its room is taken at its word when it refuses.
    pub fn takes(&self, bytes: u64) -> bool {
        let spent = self.spent.load(Ordering::Acquire);
        let wanted = self.wanted.load(Ordering::Acquire);
        !self.stalled.load(Ordering::Acquire)
            && (wanted == 0 || self.fits(wanted))
            && (self.takes_unasked(bytes) || self.has_room(bytes, spent))
    }

    /// Each write would ask the operating system, which takes longer than the rest of the question.
    fn takes_unasked(&self, bytes: u64) -> bool {
        let counts = bytes.max(COUNTS);
        let less = |ample: u64| ample.checked_sub(counts);
        self.ample.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).is_ok()
    }

    fn has_room(&self, bytes: u64, spent: bool) -> bool {
        let Some(space) = self.space() else { return true };
        let is_ample = takes(space, bytes.saturating_add(AMPLE), spent);
        self.ample.store(if is_ample { UNASKED } else { 0 }, Ordering::Release);
        takes(space, bytes, spent)
    }

    /// Whether so many bytes can be written at all: for what frees more than it takes.
    pub fn fits(&self, bytes: u64) -> bool {
        let needed = bytes.saturating_add(bytes / 8).saturating_add(MIB / 4);
        self.space().is_none_or(|space| space.available > needed)
    }

    /// How many bytes the reserve has: what deletions and marks may take when nothing else is taken any more.
    pub fn reserve_bytes(&self) -> u64 {
        self.space().map_or(MIB, |space| reserve_bytes(space.total))
    }

    /// Whether there is room for the reserve beside the margin.
    pub fn takes_reserve(&self) -> bool {
        self.space().is_none_or(|space| takes(space, 0, true))
    }

    pub(super) fn set_spent(&self, spent: bool) {
        self.ample.store(0, Ordering::Release);
        self.spent.store(spent, Ordering::Release);
    }

    /// Says whether the log waits for room. True if that is news.
    pub(crate) fn set_stalled(&self, stalled: bool) -> bool {
        self.ample.store(0, Ordering::Release);
        self.stalled.swap(stalled, Ordering::AcqRel) != stalled
    }

    /// Says how many bytes a snapshot has that there is no room for; 0 where there is. True if that is news.
    pub(crate) fn set_wanted(&self, bytes: u64) -> bool {
        let before = self.wanted.swap(bytes, Ordering::AcqRel);
        (before == 0) != (bytes == 0)
    }

    fn space(&self) -> Option<Space> {
        self.volume.space(&self.directory).ok()
    }
}

/// The reserve of a disk of this size: a sixteenth of it, within bounds.
fn reserve_bytes(total: u64) -> u64 {
    (total / 16).clamp(MIB, 8 * MIB)
}

/// What stays free beside the reserve, for snapshots above all: they free more than they take.
fn margin_bytes(total: u64) -> u64 {
    (total / 16).clamp(MIB, 64 * MIB)
}

fn takes(space: Space, bytes: u64, spent: bool) -> bool {
    let reserve = if spent { reserve_bytes(space.total) } else { 0 };
    space.available >= margin_bytes(space.total) + reserve + bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_takes_writes_until_its_margin_and_again_when_the_reserve_fits_too() {
        let space = |available| Space { total: 64 * MIB, available };
        assert!(takes(space(5 * MIB), MIB, false));
        assert!(!takes(space(5 * MIB - 1), MIB, false));
        assert!(!takes(space(8 * MIB), MIB, true), "the reserve comes first");
        assert!(takes(space(9 * MIB), MIB, true));
        let large = Space { total: 1 << 40, available: 64 * MIB };
        assert!(takes(large, 0, false), "of a large disk no more than a fixed margin stays free");
    }

    #[derive(Debug, Default)]
    struct Counted {
        available: AtomicU64,
        asked: AtomicU64,
    }

    impl Volume for Counted {
        fn write(&self, _: &File, _: &[u8], _: u64) -> io::Result<()> {
            Ok(())
        }

        fn sync(&self, _: &File) -> io::Result<()> {
            Ok(())
        }

        fn space(&self, _: &Path) -> io::Result<Space> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            Ok(Space { total: 1 << 40, available: self.available.load(Ordering::Relaxed) })
        }
    }

    #[test]
    fn a_disk_with_ample_room_is_asked_now_and_then_and_a_small_one_each_time() {
        let disk = Arc::new(Counted { available: (1 << 40).into(), ..Counted::default() });
        let room = Room::new(disk.clone(), Path::new("/"));
        let asked = || disk.asked.swap(0, Ordering::Relaxed);
        assert!((0..1000).all(|_| room.takes(1024)));
        assert_eq!(asked(), 1000_u64.div_ceil(1 + UNASKED / COUNTS));
        disk.available.store(AMPLE, Ordering::Relaxed);
        while room.takes_unasked(1024) {}
        assert!((0..100).all(|_| room.takes(1024)));
        assert_eq!(asked(), 100);
        disk.available.store(MIB, Ordering::Relaxed);
        assert!(!room.takes(1024));
        // A large write is not taken on the account of small ones.
        disk.available.store(1 << 40, Ordering::Relaxed);
        assert!(room.takes(1) && room.takes(2 * UNASKED));
        assert_eq!(asked(), 3);
    }

    #[test]
    fn the_machine_tells_its_room() {
        let directory = tempfile::tempdir().unwrap();
        let space = Machine.space(directory.path()).unwrap();
        assert!(space.total > 0 && space.available <= space.total, "{space:?}");
    }
}
