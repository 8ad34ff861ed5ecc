//! JSON text into a value, with the paths of fields said twice.
//!
//! Depth and nodes are bounded while reading, so that a small body cannot become a
//! large value. Of a doubled field the last value counts, as in Go.

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt::{self, Write};

/// Objects and lists may nest this deep.
pub const MAX_DEPTH: usize = 100;
/// A document may hold this many values.
pub(super) const MAX_NODES: usize = 500_000;
/// So many doubled fields are told, and no more.
pub(super) const MAX_REPORTED: usize = 100;

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
    serde_json::from_slice(body).map_err(|error| format!("json parse error: {error}"))
}

/// The first document of a YAML stream, as Kubernetes reads it.
pub(super) fn from_yaml(body: &[u8]) -> Result<Document, String> {
    let text = std::str::from_utf8(body).map_err(|error| format!("yaml: {error}"))?;
    let first = super::yaml::documents(text, 1)?.into_iter().next();
    Ok(first.unwrap_or(Document { value: Value::Null, duplicates: Vec::new() }))
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut reader = Reader { path: String::new(), duplicates: Vec::new(), nodes: 0 };
        let value = Node { reader: &mut reader, depth: 0 }.deserialize(deserializer)?;
        Ok(Self { value, duplicates: reader.duplicates })
    }
}

struct Reader {
    path: String,
    duplicates: Vec<String>,
    nodes: usize,
}

struct Node<'a> {
    reader: &'a mut Reader,
    depth: usize,
}

impl Node<'_> {
    fn enter<E: Error>(&self) -> Result<usize, E> {
        if self.depth >= MAX_DEPTH {
            return Err(E::custom(format_args!(
                "exceeded max depth of {MAX_DEPTH} at {:?}",
                self.reader.path
            )));
        }
        Ok(self.depth + 1)
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.reader.nodes += 1;
        if self.reader.nodes > MAX_NODES {
            return Err(D::Error::custom(format_args!(
                "more than {MAX_NODES} values in one document"
            )));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
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

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
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
            if !self.reader.path.is_empty() {
                self.reader.path.push('.');
            }
            self.reader.path.push_str(&key);
            let value = entries.next_value_seed(Node { reader: &mut *self.reader, depth })?;
            if map.insert(key, value).is_some() && self.reader.duplicates.len() < MAX_REPORTED {
                self.reader.duplicates.push(self.reader.path.clone());
            }
            self.reader.path.truncate(here);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
