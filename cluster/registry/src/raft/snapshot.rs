//! Snapshots on the disk: frames of parts, ending with a part that says how many objects there were.
//!
//! A snapshot is written aside and renamed when it is synced; a reader that has the old file open keeps it.
//! A file without its end, or with a wrong checksum anywhere, is refused by name.

use super::SnapshotMeta;
use crate::{
    disk::{DiskError, durable, frame, volume::Volume},
    key::{Key, Revision},
    store::{Change, Image, Record, Rest},
};
use imbl::OrdMap;
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

/// A part is closed when it is larger than this.
const PART_BYTES: usize = 1024 * 1024;

#[derive(Debug, Serialize, Deserialize)]
enum Part {
    Head(SnapshotMeta, Box<Rest>),
    Objects(Vec<(Key, Record)>),
    Past(Vec<(Revision, Vec<Change>)>),
    End { objects: u64 },
}

/// A snapshot file that is open; it can be read though a newer one has taken its name.
#[derive(Debug, Clone)]
pub struct SnapshotFile {
    path: PathBuf,
    file: Arc<File>,
}

impl SnapshotFile {
    /// Opens a file that claims to be a snapshot; [`load`] finds out.
    pub fn open(path: &Path) -> Result<Self, DiskError> {
        let file = File::open(path).map_err(DiskError::io("open", path))?;
        Ok(Self { path: path.to_owned(), file: Arc::new(file) })
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many bytes it has.
    pub fn size(&self) -> Result<u64, DiskError> {
        let found = self.file.metadata().map_err(DiskError::io("look at", &self.path))?;
        Ok(found.len())
    }

    /// What it says of itself.
    pub fn head(&self) -> Result<SnapshotMeta, DiskError> {
        let damage = |what| DiskError::Corrupt { path: self.path.clone(), offset: 0, what };
        let header = self.read_at(0, frame::HEADER)?;
        let size =
            frame::following(&header).ok_or_else(|| damage("the checksum of a header is wrong"))?;
        let bytes = self.read_at(0, frame::HEADER + size)?;
        let (batches, _) = frame::scan(&bytes, false).map_err(|found| damage(found.what))?;
        let record = batches.first().and_then(|batch| batch.records.first());
        match record.map(|record| impresario_runtime::decode(record)) {
            Some(Ok(Part::Head(meta, _))) => Ok(meta),
            _ => Err(damage("it has no head")),
        }
    }

    /// Up to `limit` bytes from `offset`; none at the end.
    pub fn read_at(&self, offset: u64, limit: usize) -> Result<Vec<u8>, DiskError> {
        use std::os::unix::fs::FileExt;
        let mut bytes = vec![0; limit];
        let mut filled = 0;
        while filled < limit {
            let read = self.file.read_at(&mut bytes[filled..], offset + filled as u64);
            match read.map_err(DiskError::io("read", &self.path))? {
                0 => break,
                more => filled += more,
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }
}

/// Writes an image to `path` and syncs it. The caller renames it into place. What could not be written whole is
/// removed again.
pub fn save(
    volume: &dyn Volume,
    path: &Path,
    meta: &SnapshotMeta,
    image: &Image,
) -> Result<(), DiskError> {
    let saved = write(volume, path, meta, image);
    if saved.is_err() {
        // It may not even have been made; the error that counts is the first.
        let _ = fs::remove_file(path);
    }
    saved
}

fn write(
    volume: &dyn Volume,
    path: &Path,
    meta: &SnapshotMeta,
    image: &Image,
) -> Result<(), DiskError> {
    let (rest, objects, past) = image.parts();
    let file = File::create(path).map_err(DiskError::io("create", path))?;
    let mut out = Parts { volume, path, file, written: 0, sequence: 0 };
    out.write(&Part::Head(meta.clone(), Box::new(rest.clone())))?;
    let count = objects.len() as u64;
    let objects = objects.iter().map(|(key, record)| (key.clone(), record.clone()));
    for objects in chunks(objects, |(key, record)| record.value.len() + key.bytes()) {
        out.write(&Part::Objects(objects))?;
    }
    let weigh = |(_, changes): &(Revision, Vec<Change>)| changes.iter().map(Change::bytes).sum();
    for past in chunks(past.iter().cloned(), weigh) {
        out.write(&Part::Past(past))?;
    }
    out.write(&Part::End { objects: count })?;
    volume.sync(&out.file).map_err(DiskError::io("sync", path))
}

/// Gives a synced file its final name, durably.
pub fn put_in_place(aside: &Path, path: &Path) -> Result<(), DiskError> {
    fs::rename(aside, path).map_err(DiskError::io("rename into place", path))?;
    path.parent().map_or(Ok(()), durable::sync_directory)
}

/// Reads a whole snapshot and checks all of it; none if there is no file.
pub fn load(path: &Path) -> Result<Option<(SnapshotMeta, Image)>, DiskError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DiskError::io("open", path)(error)),
    };
    let mut reader = BufReader::new(file);
    let mut offset = 0_u64;
    let (mut head, mut objects, mut past, mut sequence) = (None, OrdMap::new(), Vec::new(), 0);
    loop {
        let damage = |what| DiskError::Corrupt { path: path.to_owned(), offset, what };
        let bytes = read_frame(&mut reader).map_err(DiskError::io("read", path))?;
        let bytes = bytes.ok_or_else(|| damage("it has no end"))?;
        let (batches, _) = frame::scan(&bytes, false).map_err(|found| damage(found.what))?;
        let [batch] = &batches[..] else { return Err(damage("a part is cut")) };
        let [record] = &batch.records[..] else { return Err(damage("a part is not one record")) };
        if batch.sequence != sequence {
            return Err(damage("a part is missing"));
        }
        sequence += 1;
        let part: Part =
            impresario_runtime::decode(record).map_err(|_| damage("a part cannot be read"))?;
        match part {
            Part::Head(meta, rest) => head = Some((meta, rest)),
            Part::Objects(more) => objects.extend(more),
            Part::Past(more) => past.extend(more),
            Part::End { objects: count } => {
                let (meta, rest) = head.ok_or_else(|| damage("it has no head"))?;
                if count != objects.len() as u64 {
                    return Err(damage("objects are missing"));
                }
                return Ok(Some((meta, Image::join(*rest, objects, past))));
            }
        }
        offset += bytes.len() as u64;
    }
}

struct Parts<'p> {
    volume: &'p dyn Volume,
    path: &'p Path,
    file: File,
    written: u64,
    sequence: u64,
}

impl Parts<'_> {
    fn write(&mut self, part: &Part) -> Result<(), DiskError> {
        let encoded = impresario_runtime::encode(part).map_err(io::Error::other);
        let encoded = encoded.map_err(DiskError::io("encode a part of", self.path))?;
        let framed = frame::encode(self.sequence, &[encoded]).map_err(io::Error::other);
        let framed = framed.map_err(DiskError::io("encode a part of", self.path))?;
        self.sequence += 1;
        self.volume
            .write(&self.file, &framed, self.written)
            .map_err(DiskError::io("write", self.path))?;
        self.written += framed.len() as u64;
        Ok(())
    }
}

/// The bytes of the next frame, sound or not; none at the end of the file.
fn read_frame(reader: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::with_capacity(frame::HEADER);
    reader.by_ref().take(frame::HEADER as u64).read_to_end(&mut bytes)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    // A header that is unsound has no payload that could be trusted; the scan says what is wrong with it.
    let size = frame::following(&bytes).unwrap_or_default();
    reader.by_ref().take(size as u64).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

fn chunks<T>(
    items: impl Iterator<Item = T>,
    weigh: impl Fn(&T) -> usize,
) -> impl Iterator<Item = Vec<T>> {
    let mut items = items.peekable();
    std::iter::from_fn(move || {
        items.peek()?;
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        while let Some(item) = items.next_if(|_| bytes < PART_BYTES) {
            bytes += weigh(&item) + 64;
            chunk.push(item);
        }
        Some(chunk)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Store, Transaction, disk::volume::Machine};

    fn store() -> Store {
        let mut store = Store::default();
        for n in 0..40 {
            let value = vec![b'a' + n as u8; 100_000];
            store
                .transact(&Transaction::create(Key::new("pods", "d", format!("p{n}")), value))
                .unwrap();
        }
        store
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("snapshot");
        assert!(load(&path).unwrap().is_none());
        let image = store().image();
        save(&Machine, &path, &SnapshotMeta::default(), &image).unwrap();
        assert_eq!(load(&path).unwrap().unwrap().1, image);
    }

    #[test]
    fn a_cut_or_flipped_snapshot_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("snapshot");
        save(&Machine, &path, &SnapshotMeta::default(), &store().image()).unwrap();
        let whole = fs::read(&path).unwrap();
        for step in 0..60 {
            let at = step * whole.len() / 60;
            fs::write(&path, &whole[..at]).unwrap();
            let error = load(&path).unwrap_err().to_string();
            assert!(error.contains(path.to_str().unwrap()), "cut at {at}: {error}");
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            fs::write(&path, damaged).unwrap();
            let error = load(&path).unwrap_err().to_string();
            assert!(error.contains(path.to_str().unwrap()), "flipped {at}: {error}");
        }
    }
}
