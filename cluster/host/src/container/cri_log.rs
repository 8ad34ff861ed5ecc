//! The log format of the Container Runtime Interface: `TIME STREAM TAG BYTES`, one line each.
//!
//! Written by the shim through [`Writer`], which bounds what is kept; read by [`read`], which
//! follows a file over its rotation and wakes on changes of the folder (inotify).
//! `TAG` is `F` for a full line and `P` for a piece of a longer one, cut at [`LINE_LIMIT`].

use super::{
    DriverError, LogLimit, LogLine, LogOptions, LogStream, Stream, folder_watch::FolderWatch,
    last_lines::LastLines,
};
use bytes::Bytes;
use futures_util::StreamExt;
use jiff::Timestamp;
use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    future::Future,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};
use tokio::sync::mpsc;

/// Bytes of one line before it is cut in pieces.
pub const LINE_LIMIT: usize = 16 << 10;

/// The name of file number `back` of a rotated log; zero is the current one.
pub fn rotated(path: &Path, back: u32) -> PathBuf {
    if back == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{back}"));
    name.into()
}

/// Cuts output into lines and appends them, each with its time.
pub struct Writer {
    path: PathBuf,
    limit: LogLimit,
    file: Option<File>,
    size: u64,
    pending: [Vec<u8>; 2],
    /// Lines that could not be written, because the disk was full.
    pub lost: u64,
}

impl Writer {
    /// Appends to the file at `path`, which is readable for its owner alone.
    pub fn open(path: PathBuf, limit: LogLimit) -> io::Result<Self> {
        let file = Self::create(&path)?;
        let size = file.metadata()?.len();
        Ok(Self { path, limit, file: Some(file), size, pending: [vec![], vec![]], lost: 0 })
    }

    fn create(path: &Path) -> io::Result<File> {
        OpenOptions::new().append(true).create(true).mode(0o600).open(path)
    }

    /// Takes bytes as they came; complete lines are written at once.
    pub fn push(&mut self, stream: Stream, mut bytes: &[u8], now: Timestamp) {
        let mut out = Vec::with_capacity(bytes.len() + 64);
        let mut pending = std::mem::take(&mut self.pending[stream as usize]);
        while !bytes.is_empty() {
            let room = LINE_LIMIT - pending.len();
            let end = bytes.iter().take(room).position(|b| *b == b'\n');
            let taken = end.unwrap_or(room.min(bytes.len()));
            pending.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken + usize::from(end.is_some())..];
            if end.is_some() || pending.len() == LINE_LIMIT {
                encode(&mut out, stream, &pending, end.is_none(), now);
                pending.clear();
                // Small beside a file, so that the bound on files is one on bytes.
                if out.len() as u64 >= (self.limit.file_bytes / 4).min(64 << 10) {
                    self.append(&out);
                    out.clear();
                }
            }
        }
        self.pending[stream as usize] = pending;
        self.append(&out);
    }

    /// Writes what is left without a line feed.
    pub fn finish(&mut self, now: Timestamp) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let pending = std::mem::take(&mut self.pending[stream as usize]);
            if !pending.is_empty() {
                let mut out = Vec::new();
                encode(&mut out, stream, &pending, false, now);
                self.append(&out);
            }
        }
    }

    fn append(&mut self, out: &[u8]) {
        if out.is_empty() {
            return;
        }
        if self.size > 0 && self.size + out.len() as u64 > self.limit.file_bytes {
            self.rotate();
        }
        let written = match &mut self.file {
            Some(file) => file.write_all(out),
            None => Self::create(&self.path).and_then(|mut file| {
                let result = file.write_all(out);
                self.file = Some(file);
                result
            }),
        };
        match written {
            Ok(()) => self.size += out.len() as u64,
            // A container must not hang because its log cannot be kept.
            Err(_) => self.lost += out.split(|b| *b == b'\n').count() as u64 - 1,
        }
    }

    fn rotate(&mut self) {
        self.file = None;
        self.size = 0;
        let oldest = self.limit.files.max(1) - 1;
        if oldest == 0 {
            let _ = std::fs::remove_file(&self.path);
            return;
        }
        for back in (0..oldest).rev() {
            // Those that are not there yet; one that stays is written over.
            let _ = std::fs::rename(rotated(&self.path, back), rotated(&self.path, back + 1));
        }
    }
}

fn encode(out: &mut Vec<u8>, stream: Stream, line: &[u8], partial: bool, now: Timestamp) {
    let name = match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    };
    let tag = if partial { 'P' } else { 'F' };
    // Writing to a Vec does not fail.
    let _ = write!(out, "{now:.9} {name} {tag} ");
    out.extend_from_slice(line);
    out.push(b'\n');
}

/// One line of the file, without its line feed; `None` when it is not in this format.
pub fn decode(line: &[u8]) -> Option<LogLine> {
    let mut parts = line.splitn(4, |b| *b == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    let stream = match parts.next()? {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    let partial = parts.next()?.starts_with(b"P");
    let bytes = Bytes::copy_from_slice(parts.next().unwrap_or_default());
    Some(LogLine { time, stream, bytes, partial })
}

/// Lines waiting for a slow reader.
const QUEUE: usize = 256;

/// The lines of a log, oldest file first. With `follow` it goes on until `ended` resolves and
/// everything that was written by then was given.
pub fn read(
    path: PathBuf,
    options: LogOptions,
    ended: impl Future<Output = ()> + Send + 'static,
) -> Result<LogStream, DriverError> {
    let what = format!("reading {}", path.display());
    let watch = options.follow.then(|| FolderWatch::new(path.parent().unwrap_or(Path::new("/"))));
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let outcome = tokio::select! {
            outcome = pump(path, options, watch, ended, &sender) => outcome,
            () = sender.closed() => Ok(()),
        };
        if let Err(cause) = outcome {
            let _ = sender.send(Err(DriverError::Io { what, cause })).await;
        }
    });
    Ok(futures_util::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|line| (line, receiver))
    })
    .boxed())
}

async fn pump(
    path: PathBuf,
    options: LogOptions,
    mut watch: Option<FolderWatch>,
    ended: impl Future<Output = ()> + Send,
    sender: &mpsc::Sender<Result<LogLine, DriverError>>,
) -> io::Result<()> {
    let mut budget = options.limit_bytes.unwrap_or(u64::MAX);
    let mut tail = Tail::open(path);
    let mut history = LastLines::default();
    tokio::pin!(ended);
    let mut over = watch.is_none();
    let mut first = true;
    loop {
        // Blocking reads of at most one chunk: the page cache holds what was just written.
        loop {
            let lines = tail.next_lines()?;
            if lines.is_empty() {
                break;
            }
            for line in lines {
                if options.since.is_some_and(|since| line.time < since) {
                    continue;
                }
                match (first, options.tail) {
                    (true, Some(count)) => history.push(line, count),
                    _ => {
                        if !give(sender, line, &mut budget).await {
                            return Ok(());
                        }
                    }
                }
            }
            tokio::task::yield_now().await;
        }
        first = false;
        for line in std::mem::take(&mut history).into_lines() {
            if !give(sender, line, &mut budget).await {
                return Ok(());
            }
        }
        if over {
            return Ok(());
        }
        if let Some(watch) = &mut watch {
            tokio::select! {
                () = &mut ended => over = true, // one more look at what was written before
                () = watch.changed() => {}
            }
        }
    }
}

/// Whether more is wanted after this line.
async fn give(
    sender: &mpsc::Sender<Result<LogLine, DriverError>>,
    mut line: LogLine,
    budget: &mut u64,
) -> bool {
    let size = line.bytes.len() as u64 + u64::from(!line.partial);
    if size > *budget {
        line.bytes.truncate(*budget as usize);
        line.partial = true;
    }
    *budget = budget.saturating_sub(size);
    sender.send(Ok(line)).await.is_ok() && *budget > 0
}

/// Reads a log and the files it was turned over to, each byte once.
struct Tail {
    path: PathBuf,
    /// Files still to be read, oldest first.
    files: VecDeque<BufReader<File>>,
    inode: Option<u64>,
    rest: Vec<u8>,
}

/// Lines that are decoded before they are handed on.
const BATCH: usize = 512;

impl Tail {
    fn open(path: PathBuf) -> Self {
        let mut files = VecDeque::new();
        let mut inode = None;
        // Current file first: what is turned over while we look is then found again by its inode.
        for back in 0..64 {
            let Ok(file) = File::open(rotated(&path, back)) else {
                if back == 0 {
                    continue;
                }
                break;
            };
            if back == 0 {
                inode = file.metadata().ok().map(|m| m.ino());
            } else if files.len() == 1 && file.metadata().ok().map(|m| m.ino()) == inode {
                continue;
            }
            files.push_front(BufReader::new(file));
        }
        Self { path, files, inode, rest: Vec::new() }
    }

    fn next_lines(&mut self) -> io::Result<Vec<LogLine>> {
        let mut lines = Vec::new();
        while lines.len() < BATCH {
            if self.files.is_empty() {
                self.find_newer();
            }
            let Some(file) = self.files.front_mut() else { break };
            // A torn last line is completed by a later read of the same file.
            let read =
                file.by_ref().take(2 * LINE_LIMIT as u64).read_until(b'\n', &mut self.rest)?;
            if read > 0 && self.rest.ends_with(b"\n") {
                self.rest.pop();
                lines.extend(decode(&self.rest));
                self.rest.clear();
            } else if read == 0 {
                let more = self.files.len() > 1 || self.find_newer();
                if !more {
                    break;
                }
                self.rest.clear();
                self.files.pop_front();
            }
        }
        Ok(lines)
    }

    /// Opens the files that were begun since; whether there are any.
    fn find_newer(&mut self) -> bool {
        let mut newer = Vec::new();
        for back in 0..64 {
            let Ok(file) = File::open(rotated(&self.path, back)) else {
                if back == 0 {
                    continue;
                }
                break;
            };
            let inode = file.metadata().ok().map(|m| m.ino());
            if inode == self.inode && inode.is_some() {
                break;
            }
            newer.push((inode, BufReader::new(file)));
        }
        if let Some((inode, _)) = newer.first() {
            self.inode = *inode;
        }
        let found = !newer.is_empty();
        self.files.extend(newer.into_iter().rev().map(|(_, file)| file));
        found
    }
}

/// The last line of a file, for messages about how something ended; at most `limit` bytes.
pub fn last_line(path: &Path, limit: u64) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(limit))).ok()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    let line = bytes.split(|b| *b == b'\n').rfind(|line| !line.is_empty())?;
    Some(String::from_utf8_lossy(line).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn lines(path: &Path) -> Vec<LogLine> {
        let mut tail = Tail::open(path.to_owned());
        let mut all = Vec::new();
        loop {
            let more = tail.next_lines().unwrap();
            if more.is_empty() {
                return all;
            }
            all.extend(more);
        }
    }

    proptest! {
        #[test]
        fn output_cut_anywhere_is_read_back_byte_for_byte(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20),
            long in 0usize..40_000,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("log");
            let mut writer = Writer::open(path.clone(), LogLimit::default()).unwrap();
            let mut all = Vec::new();
            for chunk in chunks.iter().chain([&vec![b'x'; long]]) {
                writer.push(Stream::Stdout, chunk, Timestamp::now());
                all.extend_from_slice(chunk);
            }
            writer.finish(Timestamp::now());
            let mut read = Vec::new();
            for line in lines(&path) {
                read.extend_from_slice(&line.bytes);
                if !line.partial { read.push(b'\n'); }
            }
            if !all.is_empty() && !all.ends_with(b"\n") && read.ends_with(b"\n") { all.push(b'\n'); }
            prop_assert_eq!(read, all);
        }
    }

    #[test]
    fn a_log_keeps_only_the_files_it_may_and_is_read_over_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let limit = LogLimit { file_bytes: 2000, files: 3 };
        let mut writer = Writer::open(path.clone(), limit).unwrap();
        for n in 0..200 {
            writer.push(Stream::Stderr, format!("line {n}\n").as_bytes(), Timestamp::now());
        }
        let files = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(files, 3);
        let kept = lines(&path);
        assert_eq!(kept.last().unwrap().bytes, "line 199");
        assert!(kept.len() < 200 && kept.len() > 50, "{} lines", kept.len());
        assert!(kept.windows(2).all(|pair| pair[0].time <= pair[1].time));
    }

    #[tokio::test]
    async fn a_follower_sees_lines_over_rotations_until_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let limit = LogLimit { file_bytes: 3000, files: 30 };
        let mut writer = Writer::open(path.clone(), limit).unwrap();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let options = LogOptions { follow: true, ..LogOptions::default() };
        let mut stream = read(path, options, async { drop(ended.await) }).unwrap();
        for n in 0..100 {
            writer.push(Stream::Stdout, format!("{n}\n").as_bytes(), Timestamp::now());
            let line = tokio::time::timeout(Duration::from_secs(20), stream.next()).await;
            assert_eq!(line.unwrap().unwrap().unwrap().bytes, n.to_string());
        }
        end.send(()).unwrap();
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn tail_counts_lines_and_not_the_pieces_that_long_ones_are_kept_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut writer = Writer::open(path.clone(), LogLimit::default()).unwrap();
        let long = "x".repeat(3 * LINE_LIMIT + 10);
        let all = format!("first\n{long}\nlast\n");
        writer.push(Stream::Stdout, all.as_bytes(), Timestamp::now());
        for (count, expected) in
            [(0, String::new()), (1, "last".into()), (2, format!("{long}last"))]
        {
            let options = LogOptions { tail: Some(count), ..LogOptions::default() };
            let lines: Vec<_> = read(path.clone(), options, async {}).unwrap().collect().await;
            let text: Vec<u8> = lines.into_iter().flat_map(|line| line.unwrap().bytes).collect();
            assert!(text == expected.as_bytes(), "{count}: {} bytes", text.len());
        }
    }

    #[tokio::test]
    async fn tail_and_limit_choose_the_last_lines_and_cut_the_last_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut writer = Writer::open(path.clone(), LogLimit::default()).unwrap();
        writer.push(Stream::Stdout, b"one\ntwo\nthree\n", Timestamp::now());
        let options = LogOptions { tail: Some(2), limit_bytes: Some(6), ..LogOptions::default() };
        let lines: Vec<_> = read(path, options, async {}).unwrap().collect().await;
        let text: Vec<_> = lines.into_iter().map(|line| line.unwrap().bytes).collect();
        assert_eq!(text, ["two", "th"]);
    }
}
