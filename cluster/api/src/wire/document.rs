//! JSON text into a value, with the paths of fields said twice.
//!
//! Depth and memory are bounded while reading ([`Allowance`]), so that a small body cannot become a
//! large value. Of a doubled field the last value counts, as in Go.

use super::reported::{Reported, beginning};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt::{self, Write};
use thiserror::Error as ThisError;

/// Objects and lists may nest this deep.
pub const MAX_DEPTH: usize = 100;
/// A document may take this much memory once it is read, in bytes, as [`Allowance`] counts them: ten
/// times what the largest body holds as text, so that what nests as usual fits.
pub(super) const MAX_MEMORY: usize = 32 * 1024 * 1024;

/// What one entry of an object takes: its key, its value, its hash and its place in the index, and
/// as much again for the room that maps keep ahead.
const ENTRY: usize = 2 * (size_of::<String>() + size_of::<Value>() + 2 * size_of::<u64>());
/// The smallest allocation that an object or a text makes.
const ALLOCATION: usize = 16;

/// How much memory a document may still take. It is spent before anything is made or copied.
#[derive(Debug)]
pub(super) struct Allowance(usize);

/// A document is larger than [`MAX_MEMORY`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ThisError)]
#[error(
    "the values in this body would take more than {} MiB of memory: send fewer or smaller ones",
    MAX_MEMORY / (1024 * 1024)
)]
pub(super) struct TooMuch;

impl Allowance {
    /// For one body.
    pub(super) fn full() -> Self {
        Self(MAX_MEMORY)
    }

    /// Takes so many bytes.
    pub(super) fn spend(&mut self, bytes: usize) -> Result<(), TooMuch> {
        self.0 = self.0.checked_sub(bytes).ok_or(TooMuch)?;
        Ok(())
    }
}

/// What a value takes in a list, whatever it holds.
pub(super) const fn value_cost() -> usize {
    2 * size_of::<Value>()
}

/// What a text takes besides its value.
pub(super) const fn text_cost(length: usize) -> usize {
    length + ALLOCATION
}

/// What an entry of an object takes besides its value's contents.
pub(super) const fn entry_cost(key: usize) -> usize {
    ENTRY + text_cost(key)
}

/// A value and the fields that were said twice.
pub(super) struct Document {
    value: Value,
    duplicates: Vec<String>,
}

impl Document {
    pub(super) fn new(value: Value, duplicates: Vec<String>) -> Self {
        Self { value, duplicates }
    }

    pub(super) fn into_parts(self) -> (Value, Vec<String>) {
        (self.value, self.duplicates)
    }
}

pub(super) fn from_json(body: &[u8]) -> Result<Document, String> {
    from_json_within(body, &mut Allowance::full())
}

/// The same for JSON inside another body, whose allowance it takes from.
pub(super) fn from_json_within(body: &[u8], left: &mut Allowance) -> Result<Document, String> {
    let failed = |error: serde_json::Error| format!("json parse error: {error}");
    let mut reader = Reader { path: String::new(), duplicates: Reported::default(), left };
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value =
        Node { reader: &mut reader, depth: 0 }.deserialize(&mut deserializer).map_err(failed)?;
    let duplicates = reader.duplicates.into_paths();
    deserializer.end().map_err(failed)?;
    Ok(Document { value, duplicates })
}

struct Reader<'a> {
    path: String,
    duplicates: Reported,
    left: &'a mut Allowance,
}

struct Node<'a, 'b> {
    reader: &'a mut Reader<'b>,
    depth: usize,
}

impl Node<'_, '_> {
    fn spend<E: Error>(&mut self, bytes: usize) -> Result<(), E> {
        self.reader.left.spend(bytes).map_err(E::custom)
    }

    fn enter<E: Error>(&self) -> Result<usize, E> {
        if self.depth >= MAX_DEPTH {
            return Err(E::custom(format_args!(
                "exceeded max depth of {MAX_DEPTH} at {:?}",
                beginning(&self.reader.path)
            )));
        }
        Ok(self.depth + 1)
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_, '_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value that JSON can hold")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("a number that JSON cannot hold"))
    }

    fn visit_str<E: Error>(mut self, value: &str) -> Result<Value, E> {
        self.spend(text_cost(value.len()))?;
        Ok(value.into())
    }

    fn visit_string<E: Error>(mut self, value: String) -> Result<Value, E> {
        self.spend(text_cost(value.len()))?;
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let depth = self.enter()?;
        let mut list = Vec::new();
        let here = self.reader.path.len();
        loop {
            self.reader.left.spend(value_cost()).map_err(A::Error::custom)?;
            let _ = write!(self.reader.path, "[{}]", list.len()); // writing to a string cannot fail
            let entry = entries.next_element_seed(Node { reader: &mut *self.reader, depth })?;
            self.reader.path.truncate(here);
            match entry {
                Some(value) => list.push(value),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let depth = self.enter()?;
        let mut map = Map::new();
        let here = self.reader.path.len();
        while let Some(key) = entries.next_key::<String>()? {
            self.reader.left.spend(entry_cost(key.len())).map_err(A::Error::custom)?;
            if !self.reader.path.is_empty() {
                self.reader.path.push('.');
            }
            self.reader.path.push_str(&key);
            let value = entries.next_value_seed(Node { reader: &mut *self.reader, depth })?;
            if map.insert(key, value).is_some() {
                self.reader.duplicates.add(&self.reader.path);
            }
            self.reader.path.truncate(here);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::yaml::from_yaml;

    #[test]
    fn doubled_fields_are_found_with_their_paths() {
        let body = br#"{"a":1,"b":[{"c":1,"c":2}],"a":3}"#;
        let (value, duplicates) = from_json(body).unwrap().into_parts();
        assert_eq!(duplicates, ["b[0].c", "a"]);
        assert_eq!(value, serde_json::json!({"a": 3, "b": [{"c": 2}]}));
        let (value, duplicates) =
            from_yaml(b"a: 1\nb:\n- c: yes\n  c: 2\n1: x\n").unwrap().into_parts();
        assert_eq!(duplicates, ["b[0].c"]);
        assert_eq!(value, serde_json::json!({"a": 1, "b": [{"c": 2}], "1": "x"}));
    }

    #[test]
    fn doubled_fields_with_long_names_are_told_in_short() {
        let (name, doubled) = ("n".repeat(1_000_000), vec![r#"{"a":1,"a":1}"#; 100].join(","));
        let json = format!("{{\"{name}\":[{doubled}]}}");
        let yaml = format!("? {name}\n: [{doubled}]\n");
        for document in [from_json(json.as_bytes()), from_yaml(yaml.as_bytes())] {
            let (_, duplicates) = document.unwrap().into_parts();
            assert!(duplicates.len() > 10);
            assert!(duplicates.iter().map(String::len).sum::<usize>() < 32 * 1024);
        }
    }

    #[test]
    fn deep_and_blown_up_documents_are_refused() {
        let deep = format!("{}1{}", "[".repeat(MAX_DEPTH + 1), "]".repeat(MAX_DEPTH + 1));
        assert!(from_json(deep.as_bytes()).is_err());
        assert!(from_yaml(deep.as_bytes()).is_err());
        let fits = format!("{}1{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
        assert!(from_json(fits.as_bytes()).is_ok());

        let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for (name, of) in
            [('b', 'a'), ('c', 'b'), ('d', 'c'), ('e', 'd'), ('f', 'e'), ('g', 'f'), ('h', 'g')]
        {
            let all = vec![format!("*{of}"); 10].join(", ");
            bomb = format!("{bomb}{name}: &{name} [{all}]\n");
        }
        assert!(from_yaml(bomb.as_bytes()).is_err());
        for wrong in ["{", "{\"a\":1}x", "", "\u{0}"] {
            assert!(from_json(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
    }
}
