//! The raft log on the disk: openraft's storage interface over our journal.
//!
//! One thread owns the journal. It takes whatever has been asked for since its last sync, writes it as one batch,
//! syncs once and tells everyone: group commit. Entries that are not purged are kept in memory as well, so that
//! readers never touch the disk; the log is kept short by snapshots. After an error of the disk nothing is
//! written any more and every request fails, upon which openraft stops this member. Where there is no room the
//! thread goes on in the journal's reserve, and waits when that is used up: nothing is acknowledged meanwhile, and
//! nothing is lost.

mod files;
mod record;

use super::{Entry, LogId, StoredMembership, Types, Vote};
use crate::disk::{DiskError, frame, journal::Journal, volume::Room};
use files::Files;
use openraft::{
    EntryPayload, LogState, OptionalSend, RaftLogReader,
    entry::RaftEntry,
    storage::{IOFlushed, RaftLogStorage},
};
use parking_lot::RwLock;
use record::Record;
use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Debug,
    io,
    ops::RangeBounds,
    path::Path,
    sync::Arc,
    thread,
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};

/// Requests that may wait for the thread.
const QUEUE: usize = 1024;
/// A batch is closed when it is larger than this, though more is waiting.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// How often the thread tries again where there is no room.
const AGAIN: Duration = Duration::from_millis(200);
/// A reader gets no more than this at once, so that a message to a member that lags stays small.
const READ_BYTES: usize = 4 * 1024 * 1024;

/// Everything but the entries.
#[derive(Debug, Clone, Default)]
struct Marks {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
}

impl Marks {
    fn apply(&mut self, record: &Record) {
        match record {
            Record::Vote(vote) => self.vote = Some(*vote),
            Record::Committed(committed) => self.committed = *committed,
            Record::Purge(purged) => self.purged = self.purged.max(Some(*purged)),
            Record::Append(_) | Record::Truncate(_) => {}
        }
    }

    fn records(&self) -> Vec<Record> {
        let vote = self.vote.map(Record::Vote);
        let purged = self.purged.map(Record::Purge);
        vote.into_iter().chain(purged).chain([Record::Committed(self.committed)]).collect()
    }
}

#[derive(Default)]
struct State {
    marks: Marks,
    entries: BTreeMap<u64, (Entry, usize)>,
    bytes: usize,
    /// The last of the entries that were there when the log was opened and have not been cut off since.
    found: Option<LogId>,
}

impl Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let entries = self.entries.len();
        f.debug_struct("State")
            .field("marks", &self.marks)
            .field("entries", &entries)
            .finish_non_exhaustive()
    }
}

impl State {
    fn apply(&mut self, record: Record, size: usize) {
        self.marks.apply(&record);
        match record {
            Record::Append(entry) => {
                self.bytes += size;
                if let Some((_, old)) = self.entries.insert(entry.index(), (entry, size)) {
                    self.bytes -= old;
                }
            }
            Record::Truncate(last) => {
                let gone = self.entries.split_off(&last.map_or(0, |last| last.index + 1));
                self.bytes -= total(&gone);
                self.found = self.found.min(last);
            }
            Record::Purge(last) => {
                let kept = self.entries.split_off(&(last.index + 1));
                self.bytes -= total(&std::mem::replace(&mut self.entries, kept));
            }
            Record::Vote(_) | Record::Committed(_) => {}
        }
    }

    /// After a replay: what an older file still has of purged entries goes, and the rest has no gap.
    fn settle(&mut self) -> Result<(), &'static str> {
        if let Some(purged) = self.marks.purged {
            self.apply(Record::Purge(purged), 0);
        }
        let first = self.marks.purged.map_or(0, |purged| purged.index + 1);
        let expected = first..first + self.entries.len() as u64;
        if expected.eq(self.entries.keys().copied()) {
            self.found = self.entries.values().next_back().map(|(entry, _)| entry.log_id());
            Ok(())
        } else {
            Err("entries are missing before or in it")
        }
    }
}

fn total(entries: &BTreeMap<u64, (Entry, usize)>) -> usize {
    entries.values().map(|(_, size)| size).sum()
}

enum Done {
    Flushed(IOFlushed<Types>),
    Told(oneshot::Sender<Result<(), io::Error>>),
    /// Nobody waits, and it need not be synced before something else is.
    Whenever,
    /// Nobody waits; the reserve is looked after.
    Tend,
}

struct Job {
    records: Vec<(Record, Vec<u8>)>,
    done: Done,
}

/// Reads the log from memory.
#[derive(Debug, Clone)]
pub struct LogReader {
    state: Arc<RwLock<State>>,
}

/// The log of a member. Dropping it ends its thread after what was asked for is written.
#[derive(Debug)]
pub struct Log {
    reader: LogReader,
    jobs: mpsc::Sender<Job>,
}

impl Log {
    /// Opens the log of a directory. The receiver resolves when the thread has let go of the directory.
    pub fn open(directory: &Path, room: Room) -> Result<(Self, oneshot::Receiver<()>), DiskError> {
        let mut state = State::default();
        let mut files = Files::default();
        let journal = Journal::open(directory, room.clone(), |file, bytes| {
            let record: Record =
                impresario_runtime::decode(bytes).map_err(|_| "a record cannot be read")?;
            files.saw(file, &record);
            state.apply(record, bytes.len());
            Ok(())
        })?;
        let gap = |what| DiskError::Corrupt { path: directory.to_owned(), offset: 0, what };
        state.settle().map_err(gap)?;
        let marks = state.marks.clone();
        let writer = Writer { journal, room, files, marks, unsynced: Vec::new() };
        let (jobs, queue) = mpsc::channel(QUEUE);
        let (ended, end) = oneshot::channel();
        let thread = thread::Builder::new().name("registry-log".to_owned()).spawn(move || {
            writer.run(queue);
            drop(ended);
        });
        thread.map_err(DiskError::io("start the thread that writes", directory))?;
        Ok((Self { reader: LogReader { state: Arc::new(RwLock::new(state)) }, jobs }, end))
    }

    /// What the member's keeper sees and does of it.
    pub fn tender(&self) -> LogTender {
        LogTender { reader: self.reader.clone(), jobs: self.jobs.downgrade() }
    }

    /// The last membership that the log holds, if it holds one.
    pub fn last_membership(&self) -> Option<StoredMembership> {
        let state = self.reader.state.read();
        state.entries.values().rev().find_map(|(entry, _)| match &entry.payload {
            EntryPayload::Membership(membership) => {
                Some(StoredMembership::new(Some(entry.log_id()), membership.clone()))
            }
            _ => None,
        })
    }

    async fn submit(&self, records: Vec<Record>, done: Done) -> Result<(), io::Error> {
        let encode = |record: Record| {
            let bytes = impresario_runtime::encode(&record).map_err(io::Error::other)?;
            if frame::payload_bytes(&[&bytes]) > frame::MAX_PAYLOAD {
                return Err(io::Error::other("a record is too large for the log"));
            }
            Ok::<_, io::Error>((record, bytes))
        };
        let records = records.into_iter().map(encode).collect::<Result<Vec<_>, _>>()?;
        // A place in the queue first: what readers see and what is written keep one order.
        let place = self.jobs.reserve().await.map_err(|_| stopped())?;
        {
            let mut state = self.reader.state.write();
            for (record, bytes) in &records {
                state.apply(record.clone(), bytes.len());
            }
        }
        place.send(Job { records, done });
        Ok(())
    }

    async fn submit_and_wait(&self, records: Vec<Record>) -> Result<(), io::Error> {
        let (told, outcome) = oneshot::channel();
        self.submit(records, Done::Told(told)).await?;
        outcome.await.map_err(|_| stopped())?
    }
}

fn stopped() -> io::Error {
    io::Error::other("the log of this member has stopped after an earlier error: see its log file")
}

/// Tells how large the log is, and has its reserve looked after. Does not keep the log open.
#[derive(Debug, Clone)]
pub struct LogTender {
    reader: LogReader,
    jobs: mpsc::WeakSender<Job>,
}

impl LogTender {
    /// Bytes of the entries that are not purged.
    pub fn bytes(&self) -> usize {
        self.reader.state.read().bytes
    }

    /// Up to which index the log goes on from before this start. An earlier life may have shown what that came to, so
    /// nothing is read here before it is applied again, or cut off because the group went another way.
    pub fn found(&self) -> Option<u64> {
        self.reader.state.read().found.map(|found| found.index)
    }

    /// Has the reserve made again where it is missing and there is room.
    pub fn tend(&self) {
        if let Some(jobs) = self.jobs.upgrade() {
            // A queue that is full is looked after at the next tick.
            let _ = jobs.try_send(Job { records: Vec::new(), done: Done::Tend });
        }
    }
}

impl RaftLogReader<Types> for LogReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let state = self.state.read();
        Ok(state.entries.range(range).map(|(_, (entry, _))| entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.state.read().marks.vote)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        let state = self.state.read();
        let mut bytes = 0;
        let fits = |(_, (_, size)): &(&u64, &(Entry, usize))| {
            bytes += size;
            bytes == *size || bytes <= READ_BYTES
        };
        let entries = state.entries.range(start..end).take_while(fits);
        Ok(entries.map(|(_, (entry, _))| entry.clone()).collect())
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let state = self.reader.state.read();
        let last = state.entries.values().next_back().map(|(entry, _)| entry.log_id());
        let last_purged_log_id = state.marks.purged;
        Ok(LogState { last_purged_log_id, last_log_id: last.or(last_purged_log_id) })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.reader.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.submit_and_wait(vec![Record::Vote(*vote)]).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.submit(vec![Record::Committed(committed)], Done::Whenever).await
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.reader.state.read().marks.committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let records = entries.into_iter().map(Record::Append).collect();
        if impresario_runtime::mutant!(AcknowledgeEarly) {
            callback.io_completed(Ok(()));
            return self.submit(records, Done::Whenever).await;
        }
        self.submit(records, Done::Flushed(callback)).await
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        self.submit_and_wait(vec![Record::Truncate(last_log_id)]).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        self.submit_and_wait(vec![Record::Purge(log_id)]).await
    }
}

struct Writer {
    journal: Journal,
    room: Room,
    files: Files,
    marks: Marks,
    /// Records for which nobody waits.
    unsynced: Vec<(Record, Vec<u8>)>,
}

impl Writer {
    fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        while let Some(job) = queue.blocking_recv() {
            let (mut records, mut waiting) = (std::mem::take(&mut self.unsynced), Vec::new());
            let (mut bytes, mut tend) = (0, false);
            let mut next = Some(job);
            while let Some(job) = next {
                bytes += job.records.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
                records.extend(job.records);
                match job.done {
                    Done::Whenever => {}
                    Done::Tend => tend = true,
                    done => waiting.push(done),
                }
                next = if bytes < BATCH_BYTES { queue.try_recv().ok() } else { None };
            }
            if tend && let Err(error) = self.journal.tend() {
                tracing::warn!(%error, "the log's reserve could not be made");
            }
            if waiting.is_empty() {
                self.unsynced = records;
                continue;
            }
            let outcome = self.write_when_there_is_room(records, &queue);
            if let Err(error) = &outcome {
                tracing::error!(%error, "the registry's log cannot be written: this member stops");
            }
            acknowledge(waiting, &outcome);
        }
        if !self.unsynced.is_empty() {
            let records = std::mem::take(&mut self.unsynced);
            if let Err(error) = self.write(&mut records.into()) {
                tracing::warn!(%error, "how far the log was committed is not written down; it will be found again");
            }
        }
    }

    /// Writes all of the records durably, in the reserve if need be, and waits for room where that is used up.
    fn write_when_there_is_room(
        &mut self,
        records: Vec<(Record, Vec<u8>)>,
        queue: &mpsc::Receiver<Job>,
    ) -> Result<(), DiskError> {
        let mut left = VecDeque::from(records);
        loop {
            let full = match self.write(&mut left) {
                Err(full @ DiskError::Full { .. }) => full,
                done => {
                    if self.room.set_stalled(false) {
                        tracing::info!("there is room for the registry's log again: it goes on");
                    }
                    return done;
                }
            };
            match self.roll(true) {
                Ok(()) => {
                    tracing::warn!(%full, "the registry's log goes on in its reserve: only deletions are taken");
                    continue;
                }
                Err(DiskError::Full { .. }) => {}
                Err(error) => return Err(error),
            }
            if self.room.set_stalled(true) {
                tracing::error!(%full, "the registry's log waits for room: nothing is written");
            }
            if queue.is_closed() {
                return Err(full); // the member stops, and nobody was told that this is written
            }
            thread::sleep(AGAIN);
        }
    }

    /// Writes records in batches of bounded size; what is written is taken off the front.
    fn write(&mut self, records: &mut VecDeque<(Record, Vec<u8>)>) -> Result<(), DiskError> {
        while !records.is_empty() {
            if self.journal.is_full() {
                self.roll(false)?;
            }
            let mut bytes = 0;
            let fits = |(_, record): &&(Record, Vec<u8>)| {
                bytes += record.len();
                bytes == record.len() || bytes <= BATCH_BYTES
            };
            let batch: Vec<&[u8]> =
                records.iter().take_while(fits).map(|(_, bytes)| bytes.as_slice()).collect();
            self.journal.append(&batch)?;
            let written = batch.len();
            let purged_before = self.marks.purged;
            for (record, _) in records.drain(..written) {
                self.files.saw(self.journal.newest(), &record);
                self.marks.apply(&record);
            }
            if self.marks.purged != purged_before {
                // A file that holds nothing that is needed but goes on growing would keep its room.
                if self.files.all_purged(self.marks.purged) && self.journal.is_worth_leaving() {
                    match self.roll(false) {
                        Ok(()) | Err(DiskError::Full { .. }) => {}
                        Err(error) => return Err(error),
                    }
                }
                if let Some(first) = self.files.first_needed(self.marks.purged) {
                    self.journal.remove_before(first)?;
                }
            }
        }
        Ok(())
    }

    /// Begins the next file of the journal, in the reserve or beside it.
    fn roll(&mut self, into_reserve: bool) -> Result<(), DiskError> {
        let checkpoint = self.marks.records();
        let encode = |record: &Record| {
            let encoded = impresario_runtime::encode(record).map_err(io::Error::other);
            encoded.map_err(DiskError::io("encode a record of", Path::new("the log")))
        };
        let encoded = checkpoint.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
        let file = if into_reserve {
            self.journal.roll_into_reserve(&encoded)?
        } else {
            self.journal.roll(&encoded)?
        };
        for record in &checkpoint {
            self.files.saw(file, record);
        }
        Ok(())
    }
}

/// Tells everyone who waits. The one place from which a write is acknowledged: after its sync.
fn acknowledge(waiting: Vec<Done>, outcome: &Result<(), DiskError>) {
    for done in waiting {
        let outcome =
            outcome.as_ref().copied().map_err(|error| io::Error::other(error.to_string()));
        match done {
            Done::Flushed(callback) => callback.io_completed(outcome),
            // The asker may have gone.
            Done::Told(told) => drop(told.send(outcome)),
            Done::Whenever | Done::Tend => {}
        }
    }
}

#[cfg(test)]
mod tests;
