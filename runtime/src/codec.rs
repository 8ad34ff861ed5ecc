//! The one place that knows how a value becomes bytes.
//!
//! bincode (varint, little endian) behind [`encode`] and [`decode`]; a change of format is a change of this file.
//! Decoding takes at most [`MESSAGE_LIMIT_BYTES`], allocates no more than the input can fill, wants the whole input
//! used, and never panics, whatever the bytes.

pub(crate) mod weigh;

use bincode::{config, serde as binary};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::marker::PhantomData;
use thiserror::Error;
use weigh::{Scale, Whole};

/// The largest value that is encoded or decoded.
pub const MESSAGE_LIMIT_BYTES: usize = 64 << 20;

/// Why a value has no bytes.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The value is over the limit.
    #[error("{size} bytes are over the limit of {limit}: send it in parts, as a stream")]
    TooLarge {
        /// The size of the encoded value.
        size: usize,
        /// The limit that it is over.
        limit: usize,
    },
    /// The type cannot be written in this format.
    #[error(
        "the value has no binary form ({detail}): its Serialize must suit a format that is not self-describing"
    )]
    Unsupported {
        /// What the serializer said.
        detail: String,
    },
}

/// Why bytes are not a value.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// More bytes than any value may have.
    #[error("{size} bytes are over the limit of {limit}")]
    TooLarge {
        /// The number of bytes.
        size: usize,
        /// The limit that it is over.
        limit: usize,
    },
    /// Bytes are left over after the value.
    #[error("{left} bytes are left after the value: the sender's type differs from ours")]
    Trailing {
        /// How many.
        left: usize,
    },
    /// The value takes more memory than is held for its sender at a time.
    #[error("the value takes more memory than its sender may have here now")]
    Heavy,
    /// The bytes are not such a value.
    #[error("not such a value ({detail}): the sender's type differs from ours")]
    Malformed {
        /// What the deserializer said.
        detail: String,
    },
}

/// The bytes of `value`.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, EncodeError> {
    encode_behind(value, 0)
}

/// The bytes of `value`, behind `head` zero bytes that the caller fills in.
pub(crate) fn encode_behind<T: Serialize + ?Sized>(
    value: &T,
    head: usize,
) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = vec![0; head];
    binary::encode_into_std_write(value, &mut bytes, config::standard())
        .map_err(|error| EncodeError::Unsupported { detail: error.to_string() })?;
    let size = bytes.len() - head;
    if size > MESSAGE_LIMIT_BYTES {
        return Err(EncodeError::TooLarge { size, limit: MESSAGE_LIMIT_BYTES });
    }
    Ok(bytes)
}

/// The value of `bytes`, all of them.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    if bytes.len() > MESSAGE_LIMIT_BYTES {
        return Err(DecodeError::TooLarge { size: bytes.len(), limit: MESSAGE_LIMIT_BYTES });
    }
    // Strings claim their length against this limit before they allocate; a length beyond the input fails there or at
    // the end of the input, and sequences grow as elements arrive.
    let limited = config::standard().with_limit::<MESSAGE_LIMIT_BYTES>();
    let (value, used) = binary::decode_from_slice(bytes, limited)
        .map_err(|error| DecodeError::Malformed { detail: error.to_string() })?;
    match bytes.len() - used {
        0 => Ok(value),
        left => Err(DecodeError::Trailing { left }),
    }
}

/// The value of `bytes`, all of them, as far as the scale has room for it.
pub(crate) fn decode_weighed<T: DeserializeOwned>(
    bytes: &[u8],
    scale: &Scale<'_>,
) -> Result<T, DecodeError> {
    if bytes.len() > MESSAGE_LIMIT_BYTES {
        return Err(DecodeError::TooLarge { size: bytes.len(), limit: MESSAGE_LIMIT_BYTES });
    }
    let limited = config::standard().with_limit::<MESSAGE_LIMIT_BYTES>();
    let whole = Whole { scale, value: PhantomData };
    let (value, used) = binary::seed_decode_from_slice(whole, bytes, limited).map_err(|error| {
        if scale.is_over() {
            DecodeError::Heavy
        } else {
            DecodeError::Malformed { detail: error.to_string() }
        }
    })?;
    match bytes.len() - used {
        0 => Ok(value),
        left => Err(DecodeError::Trailing { left }),
    }
}

/// The value of `bytes`, all of them, which it may borrow from.
pub(crate) fn decode_borrowed<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, DecodeError> {
    if bytes.len() > MESSAGE_LIMIT_BYTES {
        return Err(DecodeError::TooLarge { size: bytes.len(), limit: MESSAGE_LIMIT_BYTES });
    }
    let limited = config::standard().with_limit::<MESSAGE_LIMIT_BYTES>();
    let (value, used) = binary::borrow_decode_from_slice(bytes, limited)
        .map_err(|error| DecodeError::Malformed { detail: error.to_string() })?;
    match bytes.len() - used {
        0 => Ok(value),
        left => Err(DecodeError::Trailing { left }),
    }
}

/// The value that `bytes` begin with.
pub(crate) fn decode_beginning<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    // No more than names and numbers are read so.
    const LIMIT_BYTES: usize = 4096;
    let limited = config::standard().with_limit::<LIMIT_BYTES>();
    match binary::decode_from_slice(bytes, limited) {
        Ok((value, _)) => Ok(value),
        Err(error) => Err(DecodeError::Malformed { detail: error.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::{Account, Pool};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    enum Sample {
        Unit,
        Number(i64),
        Text { text: String, maybe: Option<u32> },
        Many(Vec<Vec<u8>>, BTreeMap<String, f64>),
    }

    fn sample() -> impl Strategy<Value = Sample> {
        prop_oneof![
            Just(Sample::Unit),
            any::<i64>().prop_map(Sample::Number),
            (".*", any::<Option<u32>>()).prop_map(|(text, maybe)| Sample::Text { text, maybe }),
            (
                prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..9),
                prop::collection::btree_map(".*", -1e9..1e9, 0..5)
            )
                .prop_map(|(lists, map)| Sample::Many(lists, map)),
        ]
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_itself(value in sample()) {
            let bytes = encode(&value).unwrap();
            let weighed = decode_weighed::<Sample>(&bytes, &Scale::new(None)).unwrap();
            prop_assert_eq!(&weighed, &value);
            prop_assert_eq!(decode::<Sample>(&bytes).unwrap(), value);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = decode::<Sample>(&bytes);
            let _ = decode::<Vec<String>>(&bytes);
            let _ = decode::<bytes::Bytes>(&bytes);
            let _ = decode_weighed::<Sample>(&bytes, &Scale::new(None));
        }

        #[test]
        fn a_value_with_bytes_after_it_is_refused(value in sample(), extra in 1usize..9) {
            let mut bytes = encode(&value).unwrap();
            bytes.extend(std::iter::repeat_n(0, extra));
            let refused = matches!(decode::<Sample>(&bytes), Err(DecodeError::Trailing { left }) if left == extra);
            prop_assert!(refused);
        }
    }

    #[test]
    fn what_a_value_takes_is_on_an_account_before_it_is_taken() {
        #[derive(Debug, PartialEq, Clone, Serialize, Deserialize)]
        enum Entry {
            Blank,
            Full([u64; 16]),
        }
        let account = Account::new(&Pool::new(64 << 20, 0), 1 << 20);
        // 1 byte each on the wire and 136 in memory.
        let fits = vec![Entry::Blank; 5_000];
        let scale = Scale::new(Some(&account));
        assert_eq!(decode_weighed::<Vec<Entry>>(&encode(&fits).unwrap(), &scale).unwrap(), fits);
        let holds = scale.into_holds();
        let weight = 5_000 * size_of::<Entry>();
        assert!(account.held() >= weight - (8 << 10), "{} of {weight}", account.held());
        drop(holds);
        assert_eq!(account.held(), 0);
        let bombs = [
            encode(&vec![Entry::Blank; 100_000]).unwrap(),
            encode(&vec![String::new(); 500_000]).unwrap(),
            encode(&vec![0; 2 << 20]).unwrap(),
        ];
        let heavy = |bytes: &[u8]| {
            let scale = Scale::new(Some(&account));
            let strings = decode_weighed::<Vec<String>>(bytes, &scale).map(drop);
            let scale = Scale::new(Some(&account));
            (strings, decode_weighed::<Vec<Entry>>(bytes, &scale).map(drop))
        };
        assert!(matches!(heavy(&bombs[0]).1, Err(DecodeError::Heavy)));
        assert!(matches!(heavy(&bombs[1]).0, Err(DecodeError::Heavy)));
        assert!(matches!(heavy(&bombs[2]).0, Err(DecodeError::Heavy)));
        assert_eq!(account.held(), 0, "nothing is kept of what was refused");
    }

    #[test]
    fn a_length_that_promises_more_than_there_is_is_refused() {
        let huge = [253, 255, 255, 255, 255, 255, 255, 255, 127];
        assert!(decode::<String>(&huge).is_err());
        assert!(decode::<Vec<u64>>(&huge).is_err());
        assert!(decode::<bytes::Bytes>(&huge).is_err());
    }
}
