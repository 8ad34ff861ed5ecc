//! An append-only journal in files of bounded size, synced at every append.
//!
//! What [`Journal::append`] returned from is on the disk. Files begin with a checkpoint that their owner gives,
//! so that the oldest can be removed once nothing in them is needed. After an error of the disk the journal
//! stays broken and is not written again: a sync that failed once may claim success the next time.
//!
//! A disk without room is no such error: what was written of a batch is cut off again, the answer is
//! [`DiskError::Full`], and the same may be appended later. For what cannot wait there is a reserve, a file whose
//! blocks were written beforehand: it becomes the next file of the journal, and nobody else can take its room.

mod reserve;

use super::{
    DiskError, durable, frame,
    volume::{Room, is_full},
};
pub use reserve::RESERVE;
use reserve::Reserve;
use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io,
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
    room: Room,
    reserve: Reserve,
    files: VecDeque<FileNumber>,
    active: Option<File>,
    active_bytes: u64,
    /// The active file was cut after its last sync.
    is_cut: bool,
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
            reserve: Reserve::new(directory, room.clone()),
            room,
            files: VecDeque::new(),
            active: None,
            active_bytes: 0,
            is_cut: false,
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
            // In the reserve the rest of a batch lies before zeros, and the next batch over it, or it is torn. Where
            // the zeros would have held it and did not, overwriting takes room of its own: they are better given up.
            let end = self.active_bytes + batch.len() as u64;
            let copies = || file.metadata().is_ok_and(|found| end <= found.len());
            if is_full(&error) && (!self.in_reserve || copies()) {
                file.set_len(self.active_bytes).map_err(DiskError::io("cut", &path))?;
                (self.in_reserve, self.is_cut) = (false, true);
            }
            self.broken = !is_full(&error);
            return Err(DiskError::io("append to", &path)(error));
        }
        self.sync(file, &path)?;
        (self.broken, self.is_cut) = (false, false);
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
    /// After [`DiskError::Full`] the journal is as it was before.
    pub fn roll_into_reserve(&mut self, checkpoint: &[Vec<u8>]) -> Result<FileNumber, DiskError> {
        if !self.reserve.is_there() {
            return Err(DiskError::Full { path: self.path(self.newest()) });
        }
        let (number, path, batch) = self.next_file(checkpoint)?;
        self.broken = true;
        let file = self.reserve.become_file(&path)?;
        let written = self.room.volume().write(&file, &batch, 0);
        match written.map_err(DiskError::io("write into the reserve", &path)) {
            Ok(()) => self.begin(number, file, batch.len() as u64, true),
            // Overwriting takes new blocks on a disk that copies on write (btrfs, ZFS). What the zeros took is free
            // once they are gone, and a file that only grows has it, unless another was faster.
            Err(DiskError::Full { .. }) => {
                drop(file);
                fs::remove_file(&path).map_err(DiskError::io("remove", &path))?;
                durable::sync_directory(&self.directory)?;
                self.broken = false;
                self.roll(checkpoint)
            }
            Err(error) => Err(error),
        }
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
        if let (true, Some(file)) = (self.in_reserve || self.is_cut, &self.active) {
            // Only the newest file may have a torn end, so the cut is on the disk before there is a newer one.
            let old = self.path(self.newest());
            file.set_len(self.active_bytes).map_err(DiskError::io("cut", &old))?;
            self.room.volume().sync(file).map_err(DiskError::io("sync", &old))?;
            (self.in_reserve, self.is_cut) = (false, false);
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
        (self.in_reserve, self.is_cut) = (in_reserve, false);
        self.next_sequence += 1;
        Ok(number)
    }

    /// Makes the reserve where it is missing and there is room for it.
    pub fn tend(&mut self) -> Result<(), DiskError> {
        self.reserve.tend()
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
mod tests;
