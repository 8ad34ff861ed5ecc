//! An append-only journal in files of bounded size, synced at every append.
//!
//! What [`Journal::append`] returned from is on the disk. Files begin with a checkpoint that their owner gives,
//! so that the oldest can be removed once nothing in them is needed. After an error of the disk the journal
//! stays broken and is not written again: a sync that failed once may claim success the next time.
//!
//! A disk without room is no such error: what was written of a batch is cut off again, the answer is
//! [`DiskError::Full`], and the same may be appended later. For what cannot wait there is a reserve, a file whose
//! blocks were written beforehand: it becomes the next file of the journal, and nobody else can take its room.

use super::{
    DiskError, durable, frame,
    volume::{Room, is_full},
};
use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

/// A file is followed by the next one when it is larger than this.
pub const FILE_BYTES: u64 = 8 * 1024 * 1024;

/// The name of the reserve in the journal's directory.
pub const RESERVE: &str = "reserve";

/// The number of a file of the journal; later files have higher numbers.
pub type FileNumber = u64;

/// The reserve is written in pieces of this size.
const ZEROS: usize = 256 * 1024;

/// A journal that is open for appending.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    room: Room,
    files: VecDeque<FileNumber>,
    active: Option<File>,
    active_bytes: u64,
    /// The active file was the reserve: behind what was appended it has zeros.
    in_reserve: bool,
    next_sequence: u64,
    broken: bool,
}

impl Journal {
    /// Opens the journal of a directory and hands every record to `replay`, which may refuse one.
    pub fn open(
        directory: &Path,
        room: Room,
        mut replay: impl FnMut(FileNumber, &[u8]) -> Result<(), &'static str>,
    ) -> Result<Self, DiskError> {
        durable::create_directory(directory)?;
        let files = numbered(directory)?;
        let mut journal = Self {
            directory: directory.to_owned(),
            room,
            files: VecDeque::new(),
            active: None,
            active_bytes: 0,
            in_reserve: false,
            next_sequence: 0,
            broken: false,
        };
        let newest = files.last().copied();
        for number in files {
            journal.read(number, Some(number) == newest, &mut replay)?;
        }
        journal.tend()?;
        Ok(journal)
    }

    fn read(
        &mut self,
        number: FileNumber,
        newest: bool,
        replay: &mut impl FnMut(FileNumber, &[u8]) -> Result<(), &'static str>,
    ) -> Result<(), DiskError> {
        let path = self.path(number);
        let bytes = fs::read(&path).map_err(DiskError::io("read", &path))?;
        let damage = |offset: usize, what| DiskError::Corrupt {
            path: path.clone(),
            offset: offset as u64,
            what,
        };
        let (batches, tail) =
            frame::scan(&bytes, newest).map_err(|found| damage(found.offset, found.what))?;
        if let (Some(last), false) = (self.files.back(), batches.is_empty())
            && *last + 1 != number
        {
            return Err(damage(0, "the file before it is missing"));
        }
        for batch in &batches {
            if !self.files.is_empty() && batch.sequence != self.next_sequence {
                return Err(damage(0, "batches are missing before or in it"));
            }
            if self.files.back() != Some(&number) {
                self.files.push_back(number);
            }
            self.next_sequence = batch.sequence + 1;
            for record in &batch.records {
                replay(number, record).map_err(|what| damage(0, what))?;
            }
        }
        if batches.is_empty() {
            // A crash between making the file and its first sync; nothing was promised yet.
            fs::remove_file(&path).map_err(DiskError::io("remove", &path))?;
            return durable::sync_directory(&self.directory);
        }
        if newest {
            let file = OpenOptions::new().write(true).open(&path);
            let file = file.map_err(DiskError::io("open", &path))?;
            self.active_bytes = bytes.len() as u64;
            if let frame::Tail::Torn { keep } = tail {
                tracing::warn!(path = %path.display(), keep, "the end of the journal was torn by a crash and is cut");
                file.set_len(keep as u64).map_err(DiskError::io("cut", &path))?;
                self.active_bytes = keep as u64;
            }
            // A batch can be whole and still not on the disk; nobody may build on it before it is.
            file.sync_all().map_err(DiskError::io("sync", &path))?;
            self.active = Some(file);
        }
        Ok(())
    }

    /// Appends one batch durably. After [`DiskError::Full`] the journal is as it was before.
    pub fn append(&mut self, records: &[impl AsRef<[u8]>]) -> Result<(), DiskError> {
        let path = self.path(self.newest());
        self.guard(&path)?;
        let batch = self.encode(&path, records)?;
        let Some(file) = self.active.as_ref() else {
            return Err(DiskError::io("append to", &path)(io::Error::other(
                "the journal has no file yet",
            )));
        };
        self.broken = true;
        if let Err(error) = self.room.volume().write(file, &batch, self.active_bytes) {
            if is_full(&error) && !self.in_reserve {
                file.set_len(self.active_bytes).map_err(DiskError::io("cut", &path))?;
            }
            // In the reserve the rest of a batch lies before zeros, and the next batch over it, or it is torn.
            self.broken = !is_full(&error);
            return Err(DiskError::io("append to", &path)(error));
        }
        self.sync(file, &path)?;
        self.broken = false;
        self.next_sequence += 1;
        self.active_bytes += batch.len() as u64;
        Ok(())
    }

    /// What was appended before this returns is on the disk.
    fn sync(&self, file: &File, path: &Path) -> Result<(), DiskError> {
        // Room that is missing only now is a failure like any other: nobody knows what is on the disk.
        self.room.volume().sync(file).map_err(|source| DiskError::Io {
            action: "sync",
            path: path.to_owned(),
            source,
        })
    }

    fn encode(&self, path: &Path, records: &[impl AsRef<[u8]>]) -> Result<Vec<u8>, DiskError> {
        frame::encode(self.next_sequence, records).map_err(|over| DiskError::Oversized {
            path: path.to_owned(),
            size: over.size,
            limit: frame::MAX_PAYLOAD,
        })
    }

    /// Whether the next file should begin.
    pub fn is_full(&self) -> bool {
        self.active.is_none() || self.active_bytes > FILE_BYTES
    }

    /// Whether the active file is so large that its room is worth beginning the next one for.
    pub fn is_worth_leaving(&self) -> bool {
        self.active_bytes > FILE_BYTES / 8
    }

    /// Begins the next file with records from which, and from what follows, the state can be rebuilt.
    /// After [`DiskError::Full`] the journal is as it was before.
    pub fn roll(&mut self, checkpoint: &[Vec<u8>]) -> Result<FileNumber, DiskError> {
        let (number, path, batch) = self.next_file(checkpoint)?;
        self.broken = true;
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        let written = file.map_err(DiskError::io("create", &path)).and_then(|file| {
            let written = self.room.volume().write(&file, &batch, 0);
            written.map(|()| file).map_err(DiskError::io("write", &path))
        });
        match written {
            Ok(file) => self.begin(number, file, batch.len() as u64, false),
            Err(full @ DiskError::Full { .. }) => {
                if path.exists() {
                    fs::remove_file(&path).map_err(DiskError::io("remove", &path))?;
                }
                self.broken = false;
                Err(full)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes the reserve the next file, so that it begins without more room; an error if there is none.
    pub fn roll_into_reserve(&mut self, checkpoint: &[Vec<u8>]) -> Result<FileNumber, DiskError> {
        let reserve = self.reserve();
        if !reserve.exists() {
            return Err(DiskError::Full { path: self.path(self.newest()) });
        }
        let (number, path, batch) = self.next_file(checkpoint)?;
        self.broken = true;
        fs::rename(&reserve, &path).map_err(DiskError::io("rename", &reserve))?;
        self.room.set_spent(true);
        let file = OpenOptions::new().write(true).open(&path);
        let file = file.map_err(DiskError::io("open", &path))?;
        self.room
            .volume()
            .write(&file, &batch, 0)
            .map_err(DiskError::io("write into the reserve", &path))?;
        self.begin(number, file, batch.len() as u64, true)
    }

    /// The number, the name and the first bytes of the next file. What the one before it has behind its end goes.
    fn next_file(
        &mut self,
        checkpoint: &[Vec<u8>],
    ) -> Result<(FileNumber, PathBuf, Vec<u8>), DiskError> {
        let number = self.files.back().map_or(1, |last| last + 1);
        let path = self.path(number);
        self.guard(&path)?;
        let batch = self.encode(&path, checkpoint)?;
        if let (true, Some(file)) = (self.in_reserve, &self.active) {
            let old = self.path(self.newest());
            file.set_len(self.active_bytes).map_err(DiskError::io("cut", &old))?;
            file.sync_all().map_err(DiskError::io("sync", &old))?;
            self.in_reserve = false;
        }
        Ok((number, path, batch))
    }

    fn begin(
        &mut self,
        number: FileNumber,
        file: File,
        bytes: u64,
        in_reserve: bool,
    ) -> Result<FileNumber, DiskError> {
        self.sync(&file, &self.path(number))?;
        durable::sync_directory(&self.directory)?;
        self.broken = false;
        self.files.push_back(number);
        self.active = Some(file);
        self.active_bytes = bytes;
        self.in_reserve = in_reserve;
        self.next_sequence += 1;
        Ok(number)
    }

    /// Makes the reserve where it is missing and there is room for it.
    pub fn tend(&mut self) -> Result<(), DiskError> {
        let (path, size) = (self.reserve(), self.room.reserve_bytes());
        let whole = fs::metadata(&path).is_ok_and(|found| found.len() >= size);
        let there = whole || (self.room.takes_reserve() && self.make_reserve(&path, size)?);
        self.room.set_spent(!there);
        Ok(())
    }

    /// False if there was no room after all.
    fn make_reserve(&self, path: &Path, size: u64) -> Result<bool, DiskError> {
        let made = File::create(path).map_err(DiskError::io("create", path)).and_then(|file| {
            for offset in (0..size).step_by(ZEROS) {
                let piece = vec![0; ZEROS.min((size - offset) as usize)];
                let written = self.room.volume().write(&file, &piece, offset);
                written.map_err(DiskError::io("write", path))?;
            }
            self.room.volume().sync(&file).map_err(DiskError::io("sync", path))
        });
        match made {
            Ok(()) => {
                durable::sync_directory(&self.directory)?;
                Ok(true)
            }
            Err(DiskError::Full { .. }) => {
                if path.exists() {
                    fs::remove_file(path).map_err(DiskError::io("remove", path))?;
                }
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Removes files older than `first`; the newest stays in any case.
    pub fn remove_before(&mut self, first: FileNumber) -> Result<(), DiskError> {
        let mut removed = false;
        while self.files.len() > 1 && self.files.front().is_some_and(|oldest| *oldest < first) {
            if let Some(oldest) = self.files.pop_front() {
                let path = self.path(oldest);
                fs::remove_file(&path).map_err(DiskError::io("remove", &path))?;
                removed = true;
            }
        }
        if removed { durable::sync_directory(&self.directory) } else { Ok(()) }
    }

    /// The number of the file that is appended to; 0 before there is one.
    pub fn newest(&self) -> FileNumber {
        self.files.back().copied().unwrap_or_default()
    }

    fn guard(&self, path: &Path) -> Result<(), DiskError> {
        if self.broken {
            let again = io::Error::other("an earlier write failed; it is not tried again");
            return Err(DiskError::io("append to", path)(again));
        }
        Ok(())
    }

    fn reserve(&self) -> PathBuf {
        self.directory.join(RESERVE)
    }

    fn path(&self, number: FileNumber) -> PathBuf {
        self.directory.join(format!("{number:020}.log"))
    }
}

fn numbered(directory: &Path) -> Result<Vec<FileNumber>, DiskError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(DiskError::io("list", directory))? {
        let name = entry.map_err(DiskError::io("list", directory))?.file_name();
        let number: Option<FileNumber> = name
            .to_str()
            .and_then(|name| name.strip_suffix(".log"))
            .and_then(|name| name.parse().ok());
        files.extend(number);
    }
    files.sort_unstable();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::volume::{Machine, Space, Volume};
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

    /// A disk of so many bytes, all of them the journal's.
    #[derive(Debug)]
    struct Small {
        directory: PathBuf,
        total: AtomicU64,
    }

    impl Small {
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
            let end = offset + bytes.len() as u64;
            let more = end.saturating_sub(file.metadata()?.len());
            let missing = more.saturating_sub(self.left()).min(bytes.len() as u64);
            Machine.write(file, &bytes[..bytes.len() - missing as usize], offset)?;
            if missing == 0 { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
        }

        fn sync(&self, file: &File) -> io::Result<()> {
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

    #[test]
    fn at_whatever_byte_the_disk_is_full_what_was_acknowledged_stays_and_it_goes_on_in_the_reserve()
    {
        for room in (0..200).step_by(13) {
            let directory = tempfile::tempdir().unwrap();
            let small = Arc::new(Small {
                directory: directory.path().to_owned(),
                total: AtomicU64::new(u64::MAX),
            });
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
                match journal.append(&records) {
                    Ok(()) => kept.extend(records),
                    Err(DiskError::Full { .. }) => {
                        refused += 1;
                        journal.roll_into_reserve(&[]).unwrap();
                        journal.append(&records).unwrap();
                        kept.extend(records);
                    }
                    Err(error) => panic!("{error}"),
                }
                if n % 10 == 1 {
                    assert_eq!(after_a_cut(), kept, "with room for {room}, after {n}");
                }
            }
            assert_eq!(refused, 1, "the reserve has room for more than that");
            assert!(!journal.room.takes(0), "nothing else is taken now");
            small.total.store(u64::MAX, Ordering::SeqCst);
            journal.tend().unwrap();
            assert!(journal.room.takes(1 << 10) && journal.reserve().exists());
            journal.roll(&[]).unwrap();
            journal.append(&numbers(201..202)).unwrap();
            kept.extend(numbers(201..202));
            assert_eq!(after_a_cut(), kept, "with room for {room}");
        }
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
}
