//! Files of tensors (safetensors: eight bytes of length, a JSON header, the values), written in pieces, with the
//! hash of what was written.

use impresario_client::protocol::training::CheckpointError;
use ring::digest;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

/// A header is padded to a multiple of this, so that the values lie where a program may map them.
const ALIGNMENT: usize = 8;
/// Bytes that are read or turned into numbers at a time.
const PIECE: usize = 64 << 10;

/// A disk's word, with the place that it is about.
pub(super) fn refused(path: &Path) -> impl FnOnce(io::Error) -> CheckpointError {
    let path = path.display().to_string();
    move |error| CheckpointError::Folder { path, cause: error.to_string() }
}

/// Why a file of a checkpoint cannot be read. What is not there, or is no file, is a checkpoint's own fault; whatever
/// else the disk says may pass, and says nothing of the checkpoint.
pub(super) fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> CheckpointError {
    let path = path.to_owned();
    move |error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
            let (path, cause) = (path.display().to_string(), error.to_string());
            CheckpointError::Unusable { path, cause }
        }
        _ => refused(&path)(error),
    }
}

/// A digest in hexadecimal.
pub(super) fn hexadecimal(digest: &digest::Digest) -> String {
    digest.as_ref().iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// SHA-256 of bytes, in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&digest::digest(&digest::SHA256, bytes))
}

/// SHA-256 of a file, read in pieces, and how long it is.
pub(super) fn sha256_of(path: &Path) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let mut context = digest::Context::new(&digest::SHA256);
    let mut piece = vec![0; PIECE];
    let mut bytes = 0;
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            return Ok((bytes, hexadecimal(&context.finish())));
        }
        bytes += read as u64;
        context.update(&piece[..read]);
    }
}

/// A file of tensors that is being written. It is on the disk once [`Writing::finish`] has said so.
pub(crate) struct Writing {
    file: BufWriter<File>,
    context: digest::Context,
    bytes: u64,
}

impl Writing {
    /// Begins a file with tensors of these names and lengths, each a row of 32-bit numbers. What is there under this
    /// path is written over.
    pub(crate) fn begin<'a>(
        path: &Path,
        tensors: impl IntoIterator<Item = (&'a str, u64)>,
        about: &[(&str, String)],
    ) -> io::Result<Self> {
        let mut header = serde_json::Map::new();
        if !about.is_empty() {
            let about = about.iter().map(|(key, value)| ((*key).to_owned(), value.clone().into()));
            header.insert("__metadata__".to_owned(), serde_json::Value::Object(about.collect()));
        }
        let mut at = 0;
        for (name, length) in tensors {
            let end = at + length * size_of::<f32>() as u64;
            let tensor = serde_json::json!({
                "dtype": "F32", "shape": [length], "data_offsets": [at, end]
            });
            header.insert(name.to_owned(), tensor);
            at = end;
        }
        let mut header = serde_json::Value::Object(header).to_string();
        while !header.len().is_multiple_of(ALIGNMENT) {
            header.push(' ');
        }
        let file = BufWriter::with_capacity(PIECE, File::create(path)?);
        let context = digest::Context::new(&digest::SHA256);
        let mut writing = Self { file, context, bytes: 0 };
        writing.raw(&(header.len() as u64).to_le_bytes())?;
        writing.raw(header.as_bytes())?;
        Ok(writing)
    }

    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.context.update(bytes);
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    /// The next values. They come in the order in which the tensors were named.
    pub(crate) fn values(&mut self, values: &[f32]) -> io::Result<()> {
        let mut piece = Vec::with_capacity(PIECE);
        for some in values.chunks(PIECE / size_of::<f32>()) {
            piece.clear();
            piece.extend(some.iter().flat_map(|value| value.to_le_bytes()));
            self.raw(&piece)?;
        }
        Ok(())
    }

    /// All has been written: its length and its SHA-256.
    pub(crate) fn finish(mut self) -> io::Result<(u64, String)> {
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        Ok((self.bytes, hexadecimal(&self.context.finish())))
    }
}

/// The numbers of a tensor's bytes.
pub(super) fn numbers(bytes: &[u8]) -> Vec<f32> {
    let (values, _) = bytes.as_chunks::<4>();
    values.iter().map(|value| f32::from_le_bytes(*value)).collect()
}
