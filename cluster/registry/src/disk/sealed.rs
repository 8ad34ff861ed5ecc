//! Small files with a checksum over all of them: identity and snapshots.
//!
//! `magic u32 | kind u32 | length u64 | crc32 u32 | bytes`. They are replaced whole, so none may be torn.

use super::{DiskError, durable};
use std::{fs, io, path::Path};

const MAGIC: [u8; 4] = *b"IMPS";
const HEADER: usize = 20;

/// Puts a checksum before `bytes`.
pub fn seal(kind: [u8; 4], bytes: &[u8]) -> Vec<u8> {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&kind);
    crc.update(bytes);
    let mut sealed = Vec::with_capacity(HEADER + bytes.len());
    sealed.extend_from_slice(&MAGIC);
    sealed.extend_from_slice(&kind);
    sealed.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    sealed.extend_from_slice(&crc.finalize().to_le_bytes());
    sealed.extend_from_slice(bytes);
    sealed
}

/// Takes the checksum off again, or says what is wrong.
pub fn unseal(kind: [u8; 4], sealed: &[u8]) -> Result<&[u8], &'static str> {
    let (head, bytes) = sealed.split_first_chunk::<HEADER>().ok_or("the file is cut")?;
    if head[..4] != MAGIC || head[4..8] != kind {
        return Err("it is not a file of this kind");
    }
    let mut length = [0; 8];
    length.copy_from_slice(&head[8..16]);
    if u64::from_le_bytes(length) != bytes.len() as u64 {
        return Err("its length is wrong");
    }
    let mut crc = crc32fast::Hasher::new();
    crc.update(&kind);
    crc.update(bytes);
    if crc.finalize().to_le_bytes() != head[16..20] {
        return Err("its checksum is wrong");
    }
    Ok(bytes)
}

/// Writes a sealed file durably in place of the old one.
pub fn write(path: &Path, kind: [u8; 4], bytes: &[u8]) -> Result<(), DiskError> {
    durable::replace(path, &seal(kind, bytes))
}

/// Reads a sealed file; none if there is no file.
pub fn read(path: &Path, kind: [u8; 4]) -> Result<Option<Vec<u8>>, DiskError> {
    let sealed = match fs::read(path) {
        Ok(sealed) => sealed,
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DiskError::io("read", path)(error)),
    };
    let bytes = unseal(kind, &sealed);
    let bytes =
        bytes.map_err(|what| DiskError::Corrupt { path: path.to_owned(), offset: 0, what })?;
    Ok(Some(bytes.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flip_and_any_cut_of_a_sealed_file_is_refused() {
        let sealed = seal(*b"TEST", b"what was acknowledged");
        assert_eq!(unseal(*b"TEST", &sealed), Ok(&b"what was acknowledged"[..]));
        assert!(unseal(*b"ELSE", &sealed).is_err());
        for at in 0..sealed.len() {
            assert!(unseal(*b"TEST", &sealed[..at]).is_err(), "cut at {at}");
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert!(unseal(*b"TEST", &damaged).is_err(), "flipped {at}");
        }
    }

    #[test]
    fn a_damaged_file_is_named_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("snapshot");
        assert_eq!(read(&path, *b"TEST").unwrap(), None);
        write(&path, *b"TEST", b"abc").unwrap();
        assert_eq!(read(&path, *b"TEST").unwrap().unwrap(), b"abc");
        let mut sealed = fs::read(&path).unwrap();
        sealed[21] ^= 1;
        fs::write(&path, sealed).unwrap();
        let error = read(&path, *b"TEST").unwrap_err().to_string();
        assert!(
            error.contains(path.to_str().unwrap()) && error.contains("remove this member"),
            "{error}"
        );
    }
}
