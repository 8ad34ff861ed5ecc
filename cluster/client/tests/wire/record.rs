//! The record of one area: the bytes of samples, compared with a file that is checked in.
//!
//! ```text
//! node.Release > 0103        a request
//! node.Release <             a reply, here an empty one
//! ```

use impresario_runtime::{Message, StreamMessage, decode, encode};
use serde::{Serialize, de::DeserializeOwned};
use std::collections::BTreeSet;
use std::fmt::{Debug, Write};
use std::path::{Path, PathBuf};

/// Set to `write`, it has the files written anew.
const SWITCH: &str = "IMPRESARIO_GOLDEN";

/// The messages of one area, with the bytes of their samples.
pub struct Record {
    area: &'static str,
    names: BTreeSet<&'static str>,
    text: String,
}

impl Record {
    pub fn of(area: &'static str) -> Self {
        Self { area, names: BTreeSet::new(), text: String::new() }
    }

    /// Samples of a message, and of what answers it.
    pub fn ask<M>(
        mut self,
        requests: impl IntoIterator<Item = M>,
        replies: impl IntoIterator<Item = M::Reply>,
    ) -> Self
    where
        M: Message + PartialEq + Debug,
        M::Reply: PartialEq + Debug,
    {
        self.add(M::NAME, requests, replies, M::eq);
        self
    }

    /// Samples of a message that has no equality of its own.
    pub fn ask_same<M>(
        mut self,
        requests: impl IntoIterator<Item = M>,
        replies: impl IntoIterator<Item = M::Reply>,
        same: impl Fn(&M, &M) -> bool,
    ) -> Self
    where
        M: Message + Debug,
        M::Reply: PartialEq + Debug,
    {
        self.add(M::NAME, requests, replies, same);
        self
    }

    /// Samples of a request, and of the items of the stream that answers it.
    pub fn stream<M>(
        mut self,
        requests: impl IntoIterator<Item = M>,
        items: impl IntoIterator<Item = M::Item>,
    ) -> Self
    where
        M: StreamMessage + PartialEq + Debug,
        M::Item: PartialEq + Debug,
    {
        self.add(M::NAME, requests, items, M::eq);
        self
    }

    fn add<A, B>(
        &mut self,
        name: &'static str,
        requests: impl IntoIterator<Item = A>,
        replies: impl IntoIterator<Item = B>,
        same: impl Fn(&A, &A) -> bool,
    ) where
        A: Serialize + DeserializeOwned + Debug,
        B: Serialize + DeserializeOwned + PartialEq + Debug,
    {
        assert!(self.names.insert(name), "{name} is on record twice");
        let requests: Vec<_> =
            requests.into_iter().map(|sample| travels(name, &sample, &same)).collect();
        let replies: Vec<_> =
            replies.into_iter().map(|sample| travels(name, &sample, B::eq)).collect();
        assert!(!requests.is_empty() && !replies.is_empty(), "{name} has no samples");
        for (sign, samples) in [('>', requests), ('<', replies)] {
            for bytes in samples {
                let line = format!("{name} {sign} {}", hex(&bytes));
                self.text += line.trim_end();
                self.text.push('\n');
            }
        }
    }

    /// The messages that are on record here.
    pub fn names(&self) -> impl Iterator<Item = String> {
        self.names.iter().map(|name| (*name).to_owned())
    }

    /// The first difference to the file, in words, if there is one.
    pub fn differences(&self) -> Option<String> {
        let file = file(self.area);
        if std::env::var(SWITCH).as_deref() == Ok("write") {
            std::fs::write(&file, &self.text).unwrap();
        }
        let golden = std::fs::read_to_string(&file).unwrap_or_default();
        if golden == self.text {
            return None;
        }
        let (mut ours, mut kept) = (self.text.lines(), golden.lines());
        let (our, was) = loop {
            match (ours.next(), kept.next()) {
                (ours, kept) if ours == kept && ours.is_some() => {}
                (ours, kept) => break (ours.unwrap_or_default(), kept.unwrap_or_default()),
            }
        };
        Some(format!(
            "{}: nodes of the last version do not understand\n  {our}\nthey have\n  {was}\nIf that is meant, raise the \
             wire version (ALPN_NODE) where an old message changed, and write the file anew with {SWITCH}=write",
            file.display()
        ))
    }
}

fn file(area: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire/golden").join(format!("{area}.txt"))
}

/// The bytes of a value that arrives as it was sent, and not at all when it is cut short.
fn travels<T: Serialize + DeserializeOwned + Debug>(
    name: &str,
    value: &T,
    same: impl Fn(&T, &T) -> bool,
) -> Vec<u8> {
    let bytes = encode(value).unwrap();
    let arrived = decode::<T>(&bytes).unwrap();
    assert!(same(&arrived, value), "{name}: {value:?} arrived as {arrived:?}");
    for end in 0..bytes.len() {
        let cut = decode::<T>(&bytes[..end]);
        assert!(cut.is_err(), "{name} cut after {end} of {} bytes is {cut:?}", bytes.len());
    }
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// One sample of every variant of an enum: a variant that has none is refused, and so a new one is
/// not forgotten.
pub fn every<T: Serialize + DeserializeOwned, const N: usize>(samples: [T; N]) -> [T; N] {
    let of = std::any::type_name::<T>();
    // A number that no variant has makes the codec say how many there are.
    let refusal = decode::<T>(&[200]).err().expect("no enum has 200 variants").to_string();
    let count = refusal
        .split_once("variant index 0 <= i < ")
        .and_then(|(_, rest)| {
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<usize>().ok()
        })
        .unwrap_or_else(|| panic!("{of} is no enum to the codec: {refusal}"));
    let seen: BTreeSet<_> =
        samples.iter().map(|sample| usize::from(encode(sample).unwrap()[0])).collect();
    let missing: Vec<_> = (0..count).filter(|n| !seen.contains(n)).collect();
    assert!(missing.is_empty(), "{of}: no sample of variants {missing:?}, counted from 0");
    samples
}
