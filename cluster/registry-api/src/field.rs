//! Looks one string up in a JSON document without building the document.
//!
//! Filtered watches ask this of every change, so everything beside the path is skipped, not parsed into values.

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// Whether the string at `pointer` (RFC 6901) is `wanted`. A missing field, `null` or a document that is not
/// JSON counts as the empty string; numbers and booleans compare as they are written.
pub fn equals(document: &[u8], pointer: &str, wanted: &str) -> bool {
    string_at(document, pointer).unwrap_or_default() == wanted
}

/// The scalar at `pointer`, as text.
pub fn string_at(document: &[u8], pointer: &str) -> Option<String> {
    let path: Vec<String> = pointer
        .split('/')
        .skip(1)
        .map(|token| token.replace("~1", "/").replace("~0", "~"))
        .collect();
    let mut json = serde_json::Deserializer::from_slice(document);
    Step { path: &path }.deserialize(&mut json).ok().flatten()
}

/// What is left of the path at this depth.
struct Step<'p> {
    path: &'p [String],
}

impl<'de> DeserializeSeed<'de> for Step<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Step<'_> {
    fn scalar(&self, text: impl ToString) -> Option<String> {
        self.path.is_empty().then(|| text.to_string())
    }
}

impl<'de> Visitor<'de> for Step<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(self.scalar(text))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(self.scalar(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(self.scalar(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(self.scalar(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(self.scalar(value))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(name) = map.next_key::<String>()? {
            match self.path.split_first() {
                Some((first, rest)) if *first == name => {
                    found = map.next_value_seed(Step { path: rest })?;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let wanted = self
            .path
            .split_first()
            .and_then(|(first, rest)| Some((first.parse::<usize>().ok()?, rest)));
        let mut found = None;
        for index in 0.. {
            match wanted {
                Some((place, rest)) if place == index => {
                    match items.next_element_seed(Step { path: rest })? {
                        Some(value) => found = value,
                        None => break,
                    }
                }
                _ => {
                    if items.next_element::<IgnoredAny>()?.is_none() {
                        break;
                    }
                }
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_finds_what_serde_json_finds() {
        let document = br#"{"spec":{"nodeName":"n1","a/b":{"~":[1,{"x":true}]},"n":2.5},"metadata":{"name":"n"},"z":null}"#;
        let value: serde_json::Value = serde_json::from_slice(document).unwrap();
        for pointer in [
            "/spec/nodeName",
            "/spec/a~1b/~0/1/x",
            "/spec/a~1b/~0/0",
            "/spec/n",
            "/z",
            "/spec",
            "/none/x",
        ] {
            let expected = value.pointer(pointer).and_then(|found| match found {
                serde_json::Value::String(text) => Some(text.clone()),
                serde_json::Value::Number(number) => Some(number.to_string()),
                serde_json::Value::Bool(value) => Some(value.to_string()),
                _ => None,
            });
            assert_eq!(string_at(document, pointer), expected, "at {pointer}");
        }
    }

    #[test]
    fn a_missing_field_is_the_empty_string() {
        assert!(equals(br#"{"spec":{}}"#, "/spec/nodeName", ""));
        assert!(!equals(br#"{"spec":{"nodeName":"a"}}"#, "/spec/nodeName", ""));
        assert!(equals(b"no json", "/spec/nodeName", ""));
    }
}
