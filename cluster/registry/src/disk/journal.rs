//! An append-only journal in files of bounded size, synced at every append.
//!
//! What [`Journal::append`] returned from is on the disk. Files begin with a checkpoint that their owner gives,
//! so that the oldest can be removed once nothing in them is needed. After an error of the disk the journal
//! stays broken and is not written again: a sync that failed once may claim success the next time.

use super::{DiskError, durable, frame};
use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

/// A file is followed by the next one when it is larger than this.
pub const FILE_BYTES: u64 = 8 * 1024 * 1024;

/// The number of a file of the journal; later files have higher numbers.
pub type FileNumber = u64;

/// A journal that is open for appending.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    files: VecDeque<FileNumber>,
    active: Option<File>,
    active_bytes: u64,
    next_sequence: u64,
    broken: bool,
}

impl Journal {
    /// Opens the journal of a directory and hands every record to `replay`, which may refuse one.
    pub fn open(
        directory: &Path,
        mut replay: impl FnMut(FileNumber, &[u8]) -> Result<(), &'static str>,
    ) -> Result<Self, DiskError> {
        durable::create_directory(directory)?;
        let files = numbered(directory)?;
        let mut journal = Self {
            directory: directory.to_owned(),
            files: VecDeque::new(),
            active: None,
            active_bytes: 0,
            next_sequence: 0,
            broken: false,
        };
        let newest = files.last().copied();
        for number in files {
            journal.read(number, Some(number) == newest, &mut replay)?;
        }
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
            let file = OpenOptions::new()
                .append(true)
                .open(&path)
                .map_err(DiskError::io("open", &path))?;
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

    /// Appends one batch durably.
    pub fn append(&mut self, records: &[Vec<u8>]) -> Result<(), DiskError> {
        let path = self.path(self.newest());
        self.guard(&path)?;
        let batch = frame::encode(self.next_sequence, records);
        let Some(file) = self.active.as_mut() else {
            return Err(DiskError::io("append to", &path)(std::io::Error::other(
                "the journal has no file yet",
            )));
        };
        self.broken = true;
        file.write_all(&batch).map_err(DiskError::io("append to", &path))?;
        file.sync_data().map_err(DiskError::io("sync", &path))?;
        self.broken = false;
        self.next_sequence += 1;
        self.active_bytes += batch.len() as u64;
        Ok(())
    }

    /// Whether the next file should begin.
    pub fn is_full(&self) -> bool {
        self.active.is_none() || self.active_bytes > FILE_BYTES
    }

    /// Begins the next file with records from which, and from what follows, the state can be rebuilt.
    pub fn roll(&mut self, checkpoint: &[Vec<u8>]) -> Result<FileNumber, DiskError> {
        let number = self.files.back().map_or(1, |last| last + 1);
        let path = self.path(number);
        self.guard(&path)?;
        self.broken = true;
        let batch = frame::encode(self.next_sequence, checkpoint);
        let mut options = OpenOptions::new();
        let mut file = options
            .append(true)
            .create_new(true)
            .open(&path)
            .map_err(DiskError::io("create", &path))?;
        file.write_all(&batch).map_err(DiskError::io("write", &path))?;
        file.sync_all().map_err(DiskError::io("sync", &path))?;
        durable::sync_directory(&self.directory)?;
        self.broken = false;
        self.files.push_back(number);
        self.active = Some(file);
        self.active_bytes = batch.len() as u64;
        self.next_sequence += 1;
        Ok(number)
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
            let again = std::io::Error::other("an earlier write failed; it is not tried again");
            return Err(DiskError::io("append to", path)(again));
        }
        Ok(())
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

    fn replayed(directory: &Path) -> Result<(Journal, Vec<Vec<u8>>), DiskError> {
        let mut records = Vec::new();
        let journal = Journal::open(directory, |_, record| {
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
