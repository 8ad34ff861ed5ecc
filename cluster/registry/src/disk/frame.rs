//! The format of the journal: batches of records, each batch what one sync made durable.
//!
//! ```text
//! batch  = magic u32 | payload length u32 | sequence u64 | payload crc32 u32 | header crc32 u32 | payload | end u32
//! payload = (record length u32 | record)*           all numbers little endian
//! ```
//!
//! A batch is written only after the one before it was synced. So of all batches only the last can be torn
//! by a crash: what is broken and followed by a sound batch was damaged later. A torn batch shows as a short
//! file or as sectors that were never written and read as zeros; a complete last batch with a wrong checksum
//! and no such sector is damage too. Of the first and the last sector a batch may have only a few bytes; magic and
//! end are never zero, so that these prove something too. [`scan`] decides this without IO.

use thiserror::Error;

/// Bytes of a batch before its payload.
pub const HEADER: usize = 24;
/// The most payload that a batch may have; a length above it is damage.
pub const MAX_PAYLOAD: usize = 256 * 1024 * 1024;
const MAGIC: [u8; 4] = *b"IMPJ";
/// What every batch ends with.
const END: [u8; 4] = *b"JPMI";
/// The unit in which disks lose unsynced writes.
const SECTOR: usize = 512;
/// Fewer zero bytes than this prove nothing about the inside of a batch.
const EVIDENCE: usize = 16;

/// Records that do not fit into one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{size} bytes are over the limit of {MAX_PAYLOAD} for one batch")]
pub struct Oversized {
    /// Their bytes.
    pub size: usize,
}

/// How many bytes records take in a batch.
pub fn payload_bytes(records: &[impl AsRef<[u8]>]) -> usize {
    records.iter().map(|record| record.as_ref().len() + 4).sum()
}

/// Encodes records as one batch; what could not be read back is refused.
pub fn encode(sequence: u64, records: &[impl AsRef<[u8]>]) -> Result<Vec<u8>, Oversized> {
    let size = payload_bytes(records);
    if size > MAX_PAYLOAD {
        return Err(Oversized { size });
    }
    let mut batch = vec![0; HEADER];
    batch.reserve(size + END.len());
    for record in records {
        let record = record.as_ref();
        batch.extend_from_slice(&(record.len() as u32).to_le_bytes());
        batch.extend_from_slice(record);
    }
    let payload_crc = crc32fast::hash(&batch[HEADER..]);
    batch[0..4].copy_from_slice(&MAGIC);
    batch[4..8].copy_from_slice(&(size as u32).to_le_bytes());
    batch[8..16].copy_from_slice(&sequence.to_le_bytes());
    batch[16..20].copy_from_slice(&payload_crc.to_le_bytes());
    let header_crc = crc32fast::hash(&batch[..20]);
    batch[20..24].copy_from_slice(&header_crc.to_le_bytes());
    batch.extend_from_slice(&END);
    Ok(batch)
}

/// The end of a readable file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tail {
    /// The file ends with a whole batch.
    Clean,
    /// A crash cut the last batch; everything before this byte is whole.
    Torn {
        /// The length to cut the file to.
        keep: usize,
    },
}

/// Where and how a file is damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The first byte of the damaged batch.
    pub offset: usize,
    /// What does not fit.
    pub what: &'static str,
}

/// A whole batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch<'f> {
    /// Its number; batches are numbered without gaps through all files.
    pub sequence: u64,
    /// What it holds.
    pub records: Vec<&'f [u8]>,
}

/// Reads all batches of a file. Only the newest file of a journal may be torn.
pub fn scan(file: &[u8], newest: bool) -> Result<(Vec<Batch<'_>>, Tail), Damage> {
    let (mut batches, mut at) = (Vec::new(), 0);
    while at < file.len() {
        match read(&file[at..]) {
            Ok((batch, size)) => {
                batches.push(batch);
                at += size;
            }
            Err(what) => {
                let torn = newest && !sound_batch_within(&file[at + 1..]) && looks_torn(file, at);
                return if torn {
                    Ok((batches, Tail::Torn { keep: at }))
                } else {
                    Err(Damage { offset: at, what })
                };
            }
        }
    }
    Ok((batches, Tail::Clean))
}

/// How many bytes follow a header, if it is sound.
pub fn following(bytes: &[u8]) -> Option<usize> {
    header(bytes).ok().map(|head| head.size + END.len())
}

struct Header {
    size: usize,
    sequence: u64,
    payload_crc: u32,
}

fn header(bytes: &[u8]) -> Result<Header, &'static str> {
    let head = bytes.get(..HEADER).ok_or("the file ends in a header")?;
    if head[..4] != MAGIC {
        return Err("no batch begins here");
    }
    let number =
        |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if crc32fast::hash(&head[..20]) != number(20) {
        return Err("the checksum of a header is wrong");
    }
    let size = number(4) as usize;
    if size > MAX_PAYLOAD {
        return Err("a length is impossible");
    }
    let sequence = u64::from(number(8)) | u64::from(number(12)) << 32;
    Ok(Header { size, sequence, payload_crc: number(16) })
}

fn read(bytes: &[u8]) -> Result<(Batch<'_>, usize), &'static str> {
    let Header { size, sequence, payload_crc } = header(bytes)?;
    let payload = bytes.get(HEADER..HEADER + size).ok_or("the file ends in a batch")?;
    let end = HEADER + size + END.len();
    if bytes.get(HEADER + size..end).ok_or("the file ends in a batch")? != END {
        return Err("the end of a batch is wrong");
    }
    if crc32fast::hash(payload) != payload_crc {
        return Err("the checksum of a batch is wrong");
    }
    let (mut records, mut rest) = (Vec::new(), payload);
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<4>().ok_or("a record is cut")?;
        let length = u32::from_le_bytes(*length) as usize;
        records.push(after.get(..length).ok_or("a record is cut")?);
        rest = &after[length..];
    }
    Ok((Batch { sequence, records }, end))
}

/// Whether a whole batch begins anywhere in these bytes.
fn sound_batch_within(bytes: &[u8]) -> bool {
    let candidates = bytes.windows(MAGIC.len()).enumerate().filter(|(_, window)| *window == MAGIC);
    candidates.into_iter().any(|(at, _)| read(&bytes[at..]).is_ok())
}

/// Whether what begins at `at` and runs to the end of the file can be an interrupted write.
fn looks_torn(file: &[u8], at: usize) -> bool {
    let bytes = &file[at..];
    if bytes.len() < HEADER {
        return true;
    }
    let whole = following(bytes).map(|more| HEADER + more);
    if whole.is_some_and(|whole| bytes.len() < whole) {
        return true;
    }
    let mut start = at;
    while start < file.len() {
        let end = ((start / SECTOR + 1) * SECTOR).min(file.len());
        let edge = start == at || whole.is_some_and(|whole| end == at + whole);
        if (edge || end - start >= EVIDENCE) && file[start..end].iter().all(|byte| *byte == 0) {
            return true;
        }
        start = end;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn three() -> (Vec<u8>, Vec<usize>) {
        let (mut file, mut ends) = (Vec::new(), vec![0]);
        for sequence in 0..3_u64 {
            let records = [vec![sequence as u8 + 1; 700], b"x".to_vec(), Vec::new()];
            file.extend(encode(sequence, &records).unwrap());
            ends.push(file.len());
        }
        (file, ends)
    }

    #[test]
    fn a_file_cut_anywhere_gives_the_batches_before_the_cut() {
        let (file, ends) = three();
        for cut in 0..=file.len() {
            let (batches, tail) = scan(&file[..cut], true).unwrap();
            let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
            assert_eq!(batches.len(), whole, "cut at {cut}");
            let expected =
                if ends.contains(&cut) { Tail::Clean } else { Tail::Torn { keep: ends[whole] } };
            assert_eq!(tail, expected, "cut at {cut}");
        }
    }

    #[test]
    fn an_older_file_may_not_be_cut() {
        let (file, ends) = three();
        assert!(scan(&file, false).is_ok());
        let damage = scan(&file[..file.len() - 1], false).unwrap_err();
        assert_eq!(damage.offset, ends[2]);
    }

    #[test]
    fn a_flipped_byte_anywhere_is_refused_where_it_is() {
        let (file, ends) = three();
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 0x55;
            let begin = ends.iter().rev().find(|end| **end <= at).unwrap();
            match scan(&damaged, true) {
                Err(damage) => assert_eq!(damage.offset, *begin, "flipped {at}"),
                Ok(seen) => panic!("flipping byte {at} went unseen: {seen:?}"),
            }
        }
    }

    #[test]
    fn sectors_that_were_never_written_are_a_torn_end() {
        let (mut file, ends) = three();
        let first = ends[2].div_ceil(SECTOR) * SECTOR;
        file[first..].fill(0);
        assert_eq!(scan(&file, true).unwrap().1, Tail::Torn { keep: ends[2] });
        let (mut file, ends) = three();
        file[ends[2]..].fill(0);
        assert_eq!(scan(&file, true).unwrap().1, Tail::Torn { keep: ends[2] });
    }

    #[test]
    fn any_one_sector_that_was_never_written_is_a_torn_end_however_little_of_it_the_batch_has() {
        for first in 480..530 {
            // The batch that is torn begins at `first` and ends a few bytes behind a boundary of sectors.
            for last in 1505..1556 {
                let before = encode(0, &[vec![7; first - HEADER - 8]]).unwrap();
                let torn = encode(1, &[vec![8; last - first - HEADER - 8]]).unwrap();
                let file = [before, torn].concat();
                assert_eq!(file.len(), last);
                for sector in first / SECTOR..=(last - 1) / SECTOR {
                    let mut file = file.clone();
                    let begin = (sector * SECTOR).max(first);
                    file[begin..((sector + 1) * SECTOR).min(last)].fill(0);
                    let (batches, tail) = scan(&file, true).unwrap_or_else(|damage| {
                        panic!("batch {first}..{last} without sector {sector}: {damage:?}")
                    });
                    assert_eq!((batches.len(), tail), (1, Tail::Torn { keep: first }));
                }
            }
        }
    }

    #[test]
    fn what_could_not_be_read_back_is_not_written() {
        let half = vec![0; MAX_PAYLOAD / 2];
        assert_eq!(
            encode(0, &[half.clone(), half]),
            Err(Oversized { size: MAX_PAYLOAD + 8 }),
            "its own reader would call it damage"
        );
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_scanned(
            batches in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..5), 0..6)
        ) {
            let mut file = Vec::new();
            for (sequence, records) in batches.iter().enumerate() {
                file.extend(encode(sequence as u64, records).unwrap());
            }
            let (read, tail) = scan(&file, false).unwrap();
            prop_assert_eq!(tail, Tail::Clean);
            let read: Vec<Vec<Vec<u8>>> =
                read.iter().map(|batch| batch.records.iter().map(|record| record.to_vec()).collect()).collect();
            prop_assert_eq!(read, batches);
        }

        #[test]
        fn scanning_rubbish_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let _ = scan(&bytes, true);
        }
    }
}
