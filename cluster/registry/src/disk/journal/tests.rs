use super::*;
use crate::disk::volume::{Machine, Space, Volume};
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    os::unix::fs::MetadataExt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// A disk of so many bytes, all of them the journal's.
#[derive(Debug)]
struct Small {
    directory: PathBuf,
    total: AtomicU64,
    /// Overwriting takes as much room as writing, as on btrfs and ZFS.
    copies: bool,
    /// How long each file was at its last sync, by its inode.
    synced: Mutex<BTreeMap<u64, u64>>,
}

impl Small {
    fn below(directory: &Path, copies: bool) -> Arc<Self> {
        let (directory, total) = (directory.to_owned(), AtomicU64::new(u64::MAX));
        Arc::new(Self { directory, total, copies, synced: Mutex::default() })
    }

    /// A file that is not the newest is read as one without a torn end: it must have been synced as long as it is.
    fn check_others(&self, file: &File) -> io::Result<()> {
        let written = file.metadata()?.ino();
        for other in fs::read_dir(&self.directory)?.map(Result::unwrap) {
            let found = other.metadata()?;
            if other.path().extension().is_some() && found.ino() != written {
                let synced = self.synced.lock().get(&found.ino()).copied();
                assert_eq!(
                    synced,
                    Some(found.len()),
                    "{} was cut and not synced",
                    other.path().display()
                );
            }
        }
        Ok(())
    }

    fn used(&self) -> u64 {
        let files = fs::read_dir(&self.directory).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
    }

    fn left(&self) -> u64 {
        self.total.load(Ordering::SeqCst).saturating_sub(self.used())
    }
}

impl Volume for Small {
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.check_others(file)?;
        let end = offset + bytes.len() as u64;
        let grows = end.saturating_sub(file.metadata()?.len());
        let more = if self.copies { bytes.len() as u64 } else { grows };
        let missing = more.saturating_sub(self.left()).min(bytes.len() as u64);
        Machine.write(file, &bytes[..bytes.len() - missing as usize], offset)?;
        if missing == 0 { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        let found = file.metadata()?;
        self.synced.lock().insert(found.ino(), found.len());
        Machine.sync(file)
    }

    fn space(&self, _: &Path) -> io::Result<Space> {
        let total = self.total.load(Ordering::SeqCst);
        Ok(Space { total: total.min(16 << 20), available: self.left() })
    }
}

fn replayed(directory: &Path) -> Result<(Journal, Vec<Vec<u8>>), DiskError> {
    let mut records = Vec::new();
    let room = Room::new(std::sync::Arc::new(Machine), directory);
    let journal = Journal::open(directory, room, |_, record| {
        records.push(record.to_vec());
        Ok(())
    })?;
    Ok((journal, records))
}

fn numbers(range: std::ops::Range<u8>) -> Vec<Vec<u8>> {
    range.map(|n| vec![n; 30]).collect()
}

#[test]
fn a_journal_cut_at_any_byte_opens_with_what_was_whole_and_goes_on() {
    let source = tempfile::tempdir().unwrap();
    let (mut journal, _) = replayed(source.path()).unwrap();
    journal.roll(&numbers(0..1)).unwrap();
    journal.append(&numbers(1..3)).unwrap();
    journal.append(&numbers(3..4)).unwrap();
    let whole = fs::read(journal.path(1)).unwrap();
    for cut in 0..=whole.len() {
        let target = tempfile::tempdir().unwrap();
        fs::write(target.path().join(format!("{:020}.log", 1)), &whole[..cut]).unwrap();
        let (mut journal, mut records) = replayed(target.path()).unwrap();
        assert!(numbers(0..4).starts_with(&records), "cut at {cut}");
        if journal.is_full() {
            journal.roll(&[]).unwrap();
        }
        journal.append(&numbers(9..10)).unwrap();
        records.extend(numbers(9..10));
        assert_eq!(replayed(target.path()).unwrap().1, records, "cut at {cut}");
    }
}

/// Fills disks of all sorts of sizes, with a look at what a power cut would leave.
fn fill(copies: bool) {
    for room in (0..200).step_by(13) {
        let directory = tempfile::tempdir().unwrap();
        let small = Small::below(directory.path(), copies);
        // A power cut at this moment: what is there, read by another life.
        let after_a_cut = || {
            let copy = tempfile::tempdir().unwrap();
            for file in fs::read_dir(directory.path()).unwrap().map(Result::unwrap) {
                fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
            }
            replayed(copy.path()).unwrap().1
        };
        let whole = Room::new(small.clone(), directory.path());
        let mut journal = Journal::open(directory.path(), whole, |_, _| Ok(())).unwrap();
        journal.roll(&[]).unwrap();
        small.total.store(small.used() + room, Ordering::SeqCst);
        let mut kept = Vec::new();
        let mut refused = 0;
        for n in 0..40 {
            let records = numbers(n..n + 1);
            while let Err(error) = journal.append(&records) {
                assert!(matches!(error, DiskError::Full { .. }), "{error}");
                refused += 1;
                assert!(refused < 4, "the reserve has room for more than that");
                // There is none any more where its room was given up for what grows.
                let rolled = journal.roll_into_reserve(&[]);
                assert!(matches!(rolled, Ok(_) | Err(DiskError::Full { .. })), "{rolled:?}");
            }
            kept.extend(records);
            if n % 10 == 1 {
                assert_eq!(after_a_cut(), kept, "with room for {room}, after {n}");
            }
        }
        assert!(refused == 1 || copies, "{refused}");
        assert!(!journal.room.takes(0), "nothing else is taken now");
        small.total.store(u64::MAX, Ordering::SeqCst);
        journal.tend().unwrap();
        assert!(journal.room.takes(1 << 10) && journal.reserve.is_there());
        journal.roll(&[]).unwrap();
        journal.append(&numbers(201..202)).unwrap();
        kept.extend(numbers(201..202));
        assert_eq!(after_a_cut(), kept, "with room for {room}");
    }
}

#[test]
fn at_whatever_byte_the_disk_is_full_what_was_acknowledged_stays_and_it_goes_on_in_the_reserve() {
    fill(false);
}

#[test]
fn a_disk_that_copies_on_write_gives_the_reserve_s_room_to_the_next_file() {
    fill(true);
}

#[test]
fn a_reserve_without_room_of_its_own_breaks_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let small = Small::below(directory.path(), true);
    let room = Room::new(small.clone(), directory.path());
    let mut journal = Journal::open(directory.path(), room, |_, _| Ok(())).unwrap();
    journal.roll(&[]).unwrap();
    journal.append(&numbers(0..1)).unwrap();
    // Its zeros were compressed to nothing, and somebody else has the rest.
    small.total.store(0, Ordering::SeqCst);
    for _ in 0..3 {
        let full = journal.append(&numbers(1..2)).unwrap_err();
        assert!(matches!(full, DiskError::Full { .. }), "{full}");
        let full = journal.roll_into_reserve(&[]).unwrap_err();
        assert!(matches!(full, DiskError::Full { .. }), "{full}");
    }
    small.total.store(u64::MAX, Ordering::SeqCst);
    journal.append(&numbers(1..2)).unwrap();
    assert_eq!(replayed(directory.path()).unwrap().1, numbers(0..2));
}

#[test]
fn a_missing_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, _) = replayed(directory.path()).unwrap();
    for n in 0..3 {
        journal.roll(&numbers(n..n + 1)).unwrap();
    }
    fs::remove_file(journal.path(2)).unwrap();
    let error = replayed(directory.path()).unwrap_err().to_string();
    assert!(error.contains("00003.log") && error.contains("missing"), "{error}");
}

#[test]
fn a_flipped_byte_in_an_older_file_is_refused_with_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, _) = replayed(directory.path()).unwrap();
    journal.roll(&numbers(0..1)).unwrap();
    journal.roll(&numbers(1..2)).unwrap();
    let path = journal.path(1);
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = replayed(directory.path()).unwrap_err().to_string();
    assert!(error.contains(path.to_str().unwrap()), "{error}");
}

#[test]
fn old_files_go_and_the_rest_is_replayed() {
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, _) = replayed(directory.path()).unwrap();
    for n in 0..4 {
        journal.roll(&numbers(n..n + 1)).unwrap();
    }
    journal.remove_before(3).unwrap();
    assert_eq!(replayed(directory.path()).unwrap().1, numbers(2..4));
}
