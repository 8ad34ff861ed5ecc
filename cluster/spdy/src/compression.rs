//! The zlib streams of a session: one for the headers of each direction, from its first frame to its last
//! (draft, 2.6.10.1). A block that is refused half-way ends the session, since nothing after it could be read.

use crate::dictionary::{DICTIONARY, ID};
use crate::error::{SessionError, Violation};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// What is made room for at once, at most.
const STEP: usize = 4 << 10;

/// Takes header blocks apart.
pub(crate) struct Inflater {
    zlib: Decompress,
    has_dictionary: bool,
}

impl Inflater {
    pub(crate) fn new() -> Self {
        Self { zlib: Decompress::new(true), has_dictionary: false }
    }

    /// A block as it was before the peer compressed it. No more than `limit` and one byte of it are ever made.
    pub(crate) fn block(&mut self, block: &[u8], limit: usize) -> Result<Vec<u8>, Violation> {
        let mut plain = Vec::new();
        let mut rest = block;
        loop {
            if plain.len() > limit {
                return Err(Violation::HeadersTooLong { limit });
            }
            if plain.len() == plain.capacity() {
                plain.reserve_exact(STEP.min(limit + 1 - plain.len()));
            }
            let (read, written) = (self.zlib.total_in(), plain.len());
            let outcome = self.zlib.decompress_vec(rest, &mut plain, FlushDecompress::Sync);
            // A slice's length at most.
            let read = (self.zlib.total_in() - read) as usize;
            rest = rest.get(read..).unwrap_or_default();
            match outcome {
                Ok(Status::StreamEnd) => return Err(Violation::Compression),
                Ok(_) if plain.len() == plain.capacity() => {}
                // All that could be made of what was there.
                Ok(_) if rest.is_empty() => return Ok(plain),
                Ok(_) if read == 0 && plain.len() == written => return Err(Violation::Compression),
                Ok(_) => {}
                Err(error) => {
                    let found = error.needs_dictionary().ok_or(Violation::Compression)?;
                    if found != ID || self.has_dictionary {
                        return Err(Violation::Dictionary { found });
                    }
                    let set = self.zlib.set_dictionary(&DICTIONARY);
                    set.map_err(|_| Violation::Dictionary { found })?;
                    self.has_dictionary = true;
                }
            }
        }
    }
}

/// Puts header blocks together.
pub(crate) struct Deflater {
    zlib: Compress,
    has_dictionary: bool,
}

impl Deflater {
    pub(crate) fn new() -> Self {
        Self { zlib: Compress::new(Compression::default(), true), has_dictionary: false }
    }

    /// A block as the peer can read it once it has read all before it.
    pub(crate) fn block(&mut self, plain: &[u8]) -> Result<Vec<u8>, SessionError> {
        if !self.has_dictionary {
            self.zlib.set_dictionary(&DICTIONARY).map_err(|_| SessionError::Compressor)?;
            self.has_dictionary = true;
        }
        let mut block = Vec::new();
        let mut rest = plain;
        loop {
            block.reserve(STEP);
            let (read, written) = (self.zlib.total_in(), block.len());
            let outcome = self.zlib.compress_vec(rest, &mut block, FlushCompress::Sync);
            outcome.map_err(|_| SessionError::Compressor)?;
            // A slice's length at most.
            let read = (self.zlib.total_in() - read) as usize;
            rest = rest.get(read..).unwrap_or_default();
            // Room that is left over says that the flush is complete.
            if rest.is_empty() && block.len() < block.capacity() {
                return Ok(block);
            }
            if read == 0 && block.len() == written {
                return Err(SessionError::Compressor);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_would_inflate_beyond_the_limit_is_refused_at_the_limit() {
        let limit = 16 << 10;
        let mut deflater = Deflater::new();
        let bomb = deflater.block(&vec![0; 8 << 20]).unwrap();
        assert!(bomb.len() < limit, "{} bytes come", bomb.len());
        let mut inflater = Inflater::new();
        let outcome = inflater.block(&bomb, limit);
        assert_eq!(outcome, Err(Violation::HeadersTooLong { limit }));
        assert!(inflater.zlib.total_out() <= limit as u64 + 1, "{}", inflater.zlib.total_out());
    }

    #[test]
    fn blocks_go_on_with_the_stream_and_one_that_is_missing_is_seen() {
        let mut deflater = Deflater::new();
        let blocks: Vec<_> = (0..3_u8)
            .map(|at| {
                deflater.block(&[&b"streamtype: stdin, of a kind "[..], &[at; 3000]].concat())
            })
            .map(Result::unwrap)
            .collect();
        assert!(blocks[1].len() < blocks[0].len(), "it says what it said before in fewer bytes");
        let mut inflater = Inflater::new();
        for (at, block) in blocks.iter().enumerate() {
            let plain = inflater.block(block, 4000).unwrap();
            assert_eq!(plain[29..], [at as u8; 3000]);
        }
        let mut late = Inflater::new();
        assert_eq!(late.block(&blocks[1], 4000), Err(Violation::Compression));
    }

    #[test]
    fn another_dictionary_is_named_in_the_error() {
        let mut other = Compress::new(Compression::default(), true);
        other.set_dictionary(b"not SPDY").unwrap();
        let mut block = Vec::with_capacity(100);
        other.compress_vec(b"not SPDY", &mut block, FlushCompress::Sync).unwrap();
        let outcome = Inflater::new().block(&block, 100);
        assert!(matches!(outcome, Err(Violation::Dictionary { .. })), "{outcome:?}");
    }

    #[test]
    fn the_end_of_the_zlib_stream_is_not_the_end_of_a_block() {
        let mut other = Compress::new(Compression::default(), true);
        other.set_dictionary(&DICTIONARY).unwrap();
        let mut block = Vec::with_capacity(100);
        other.compress_vec(b"url", &mut block, FlushCompress::Finish).unwrap();
        assert_eq!(Inflater::new().block(&block, 100), Err(Violation::Compression));
    }
}
