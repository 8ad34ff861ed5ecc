//! The headers of a stream, and the block of them that is compressed (draft, 2.6.10).

use crate::error::{HeaderError, Violation};
use std::collections::BTreeSet;
use std::str;

/// The headers of a stream or of its reply. Names are lower-case; one may have several values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, Vec<String>)>);

/// Visible ASCII, and none of the letters that a name cannot have.
fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.iter().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase())
}

impl Headers {
    /// None.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// With one value more. The name is made lower-case.
    pub fn with(mut self, name: &str, value: &str) -> Result<Self, HeaderError> {
        let name = name.to_ascii_lowercase();
        if !is_name(name.as_bytes()) {
            return Err(HeaderError::Name { name });
        }
        if value.contains('\0') {
            return Err(HeaderError::Value { name });
        }
        match self.0.iter_mut().find(|(one, _)| *one == name) {
            Some((_, values)) if value.is_empty() || values.iter().any(String::is_empty) => {
                return Err(HeaderError::Value { name });
            }
            Some((_, values)) => values.push(value.to_owned()),
            None => self.0.push((name, vec![value.to_owned()])),
        }
        Ok(self)
    }

    /// The first value of this name, which is lower-case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find_map(|(one, value)| (one == name).then_some(value))
    }

    /// All names with their values, as they came.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|(name, values)| values.iter().map(|value| (&**name, &**value)))
    }

    /// The block as it is before it is compressed.
    pub(crate) fn block(&self) -> Vec<u8> {
        let mut block = Vec::new();
        put(&mut block, self.0.len(), &[]);
        for (name, values) in &self.0 {
            put(&mut block, name.len(), name.as_bytes());
            let values = values.join("\0");
            put(&mut block, values.len(), values.as_bytes());
        }
        block
    }

    /// Whether the peer may be sent these: within the limits that it is held to itself.
    pub(crate) fn within(&self, bytes: usize, pairs: usize) -> Result<(), HeaderError> {
        let length = self.block().len();
        if length > bytes || self.0.len() > pairs {
            return Err(HeaderError::TooLong { bytes: length, pairs: self.0.len() });
        }
        Ok(())
    }

    /// The headers of a block that is no longer than the limit of its session.
    pub(crate) fn of_block(mut block: &[u8], most_pairs: usize) -> Result<Self, Violation> {
        let pairs = number(&mut block)?;
        if pairs > most_pairs {
            return Err(Violation::TooManyHeaders { pairs, limit: most_pairs });
        }
        let mut headers = Self::default();
        let mut seen = BTreeSet::new();
        for _ in 0..pairs {
            let name = text(&mut block)?;
            if !is_name(name) {
                return Err(Violation::Headers("a name is empty, or not of lower-case ASCII"));
            }
            if !seen.insert(name) {
                return Err(Violation::Headers("a name is there twice"));
            }
            let value = utf8(text(&mut block)?)?;
            let values: Vec<String> = value.split('\0').map(str::to_owned).collect();
            if values.len() > 1 && values.iter().any(String::is_empty) {
                return Err(Violation::Headers("one of several values is empty"));
            }
            headers.0.push((utf8(name)?.to_owned(), values));
        }
        if !block.is_empty() {
            return Err(Violation::Headers("something stands behind the last of them"));
        }
        Ok(headers)
    }
}

/// A length in four bytes, and what has that length.
fn put(block: &mut Vec<u8>, length: usize, text: &[u8]) {
    // Headers are far below 4 GiB, see `Limits::header_bytes`.
    block.extend_from_slice(&(length as u32).to_be_bytes());
    block.extend_from_slice(text);
}

fn number(block: &mut &[u8]) -> Result<usize, Violation> {
    let (number, rest) = block.split_first_chunk().ok_or(Violation::Headers("they end early"))?;
    *block = rest;
    Ok(u32::from_be_bytes(*number) as usize)
}

fn text<'a>(block: &mut &'a [u8]) -> Result<&'a [u8], Violation> {
    let length = number(block)?;
    let (text, rest) =
        block.split_at_checked(length).ok_or(Violation::Headers("one ends beyond the block"))?;
    *block = rest;
    Ok(text)
}

fn utf8(text: &[u8]) -> Result<&str, Violation> {
    str::from_utf8(text).map_err(|_| Violation::Headers("one is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &[u8], value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        put(&mut bytes, name.len(), name);
        put(&mut bytes, value.len(), value);
        bytes
    }

    fn block(pairs: &[(&[u8], &[u8])]) -> Vec<u8> {
        let mut bytes = (pairs.len() as u32).to_be_bytes().to_vec();
        bytes.extend(pairs.iter().flat_map(|(name, value)| pair(name, value)));
        bytes
    }

    #[test]
    fn headers_that_the_draft_forbids_are_refused() {
        let long = [0, 0, 0, 1, 0, 0, 0, 9, b'a'];
        let behind = [&block(&[(b"a", b"1")])[..], b"x"].concat();
        for (bytes, why) in [
            (block(&[(b"", b"x")]), "an empty name"),
            (block(&[(b"StreamType", b"stdin")]), "capitals"),
            (block(&[(b"a b", b"x")]), "a space"),
            (block(&[(b"a", b"1"), (b"a", b"2")]), "twice"),
            (block(&[(b"a", b"\x001")]), "begins with 0"),
            (block(&[(b"a", b"1\x00")]), "ends with 0"),
            (block(&[(b"a", b"1\x00\x002")]), "an empty value between"),
            (block(&[(b"a", b"\xff")]), "not UTF-8"),
            (long.to_vec(), "a name beyond the end"),
            (vec![0, 0], "half a count"),
            (behind, "something behind"),
        ] {
            let outcome = Headers::of_block(&bytes, 64);
            assert!(matches!(outcome, Err(Violation::Headers(_))), "{why}: {outcome:?}");
        }
    }

    #[test]
    fn a_count_beyond_the_limit_is_refused_before_anything_is_read() {
        let outcome = Headers::of_block(&u32::MAX.to_be_bytes(), 64);
        let pairs = u32::MAX as usize;
        assert_eq!(outcome, Err(Violation::TooManyHeaders { pairs, limit: 64 }));
    }

    #[test]
    fn several_values_of_a_name_and_an_empty_one_come_through() {
        let headers = Headers::new()
            .with("Port", "8080")
            .and_then(|headers| headers.with("port", "9090"))
            .and_then(|headers| headers.with("empty", ""))
            .unwrap();
        let again = Headers::of_block(&headers.block(), 64).unwrap();
        let pairs: Vec<_> = again.iter().collect();
        assert_eq!(pairs, [("port", "8080"), ("port", "9090"), ("empty", "")]);
        assert_eq!(again.get("port"), Some("8080"));
    }

    #[test]
    fn what_would_be_refused_by_the_peer_is_refused_here() {
        for (name, value) in [("", "x"), ("a b", "x"), ("ä", "x"), ("a", "1\0b")] {
            assert!(Headers::new().with(name, value).is_err(), "{name}: {value}");
        }
        let twice = Headers::new().with("a", "1").unwrap();
        assert!(twice.clone().with("A", "").is_err());
        assert!(twice.within(1, 64).is_err() && twice.within(64, 0).is_err());
        assert_eq!(twice.within(64, 1), Ok(()));
    }
}
