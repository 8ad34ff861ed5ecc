//! One step of a path through an object, spelt as `FieldsV1` spells it.
//!
//! `f:NAME` is a field, `k:{…}` the entry of a list with these keys, `v:…` the entry of a set with this value, `i:N`
//! the entry of a list at a place. A step is kept in that spelling, in the one form that equal steps have.

use serde_json::{Map, Value};
use std::fmt;
use thiserror::Error;

/// Why a step cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StepError {
    /// What stands behind `k:` are no keys with plain values.
    #[error("{0:?} is no step of a path: behind `k:` stands an object of keys with plain values")]
    Keys(String),
    /// What stands behind `v:` is no JSON.
    #[error("{0:?} is no step of a path: behind `v:` stands a value as JSON")]
    Value(String),
    /// What stands behind `i:` is no whole number.
    #[error("{0:?} is no step of a path: behind `i:` stands a whole number")]
    Index(String),
}

/// The most that people are told of a path, in bytes: the key of an entry may be as long as an object.
const MOST_TOLD: usize = 512;

/// A path as people are told it, of a long one the beginning.
pub(super) fn beginning(path: &str) -> String {
    let short = &path[..path.floor_char_boundary(MOST_TOLD)];
    let more = if short.len() < path.len() { "..." } else { "" };
    format!("{short}{more}")
}

/// The same of a path that is given as its steps, of which no more are written than are told.
pub(super) fn shown(path: &[&Step]) -> String {
    let mut text = String::new();
    for step in path {
        if text.len() > MOST_TOLD {
            break;
        }
        text.push_str(&step.to_string());
    }
    beginning(&text)
}

/// One step of a path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Step(Box<str>);

impl Step {
    /// Into a field.
    pub fn field(name: &str) -> Self {
        let mut text = String::with_capacity(name.len() + 2);
        text.push_str("f:");
        text.push_str(name);
        Self(text.into())
    }

    /// Into the entry of a set.
    pub fn value(value: &Value) -> Self {
        let mut text = "v:".to_owned();
        spell(value, &mut text);
        Self(text.into())
    }

    /// Into the entry of a list that has these keys, in order of their names.
    pub fn keys<'a>(keys: impl IntoIterator<Item = (&'a str, &'a Value)>) -> Self {
        let mut text = "k:".to_owned();
        spell_members(keys, &mut text);
        Self(text.into())
    }

    /// Into the entry at a place.
    pub fn index(index: usize) -> Self {
        Self(format!("i:{index}").into())
    }

    /// Reads a step. `None` for one of a kind that nobody knows yet.
    pub fn parse(text: &str) -> Result<Option<Self>, StepError> {
        let short = || text.chars().take(100).collect::<String>();
        Ok(Some(match text.split_at_checked(2) {
            Some(("f:", _)) => Self(text.into()),
            Some(("k:", keys)) => {
                let keys: Map<String, Value> =
                    serde_json::from_str(keys).map_err(|_| StepError::Keys(short()))?;
                if keys.is_empty() || keys.values().any(|key| key.is_object() || key.is_array()) {
                    return Err(StepError::Keys(short()));
                }
                let mut keys: Vec<_> = keys.iter().map(|(key, value)| (&**key, value)).collect();
                keys.sort_by_key(|(key, _)| *key);
                Self::keys(keys)
            }
            Some(("v:", value)) => {
                let value = serde_json::from_str(value).map_err(|_| StepError::Value(short()))?;
                Self::value(&value)
            }
            Some(("i:", index)) => {
                let index: i64 = index.parse().map_err(|_| StepError::Index(short()))?;
                Self(format!("i:{index}").into())
            }
            _ => return Ok(None),
        }))
    }

    /// As `FieldsV1` spells it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the field, if it goes into one.
    pub fn name(&self) -> Option<&str> {
        self.0.strip_prefix("f:")
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// As paths are told to people: `.spec`, `[name="a"]`, `[="v"]`, `[0]`.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, rest) = self.0.split_at(2);
        match kind {
            "f:" => write!(f, ".{rest}"),
            "v:" => write!(f, "[={rest}]"),
            "k:" => {
                let keys: Map<String, Value> = serde_json::from_str(rest).unwrap_or_default();
                let mut keys: Vec<_> = keys.iter().collect();
                keys.sort_by_key(|(key, _)| *key);
                for (at, (key, value)) in keys.into_iter().enumerate() {
                    let before = if at == 0 { "[" } else { "," };
                    write!(f, "{before}{key}={value}")?;
                }
                f.write_str("]")
            }
            _ => write!(f, "[{rest}]"),
        }
    }
}

/// Writes a value as JSON in the one form that equal values have.
fn spell(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut members: Vec<_> = map.iter().map(|(name, value)| (&**name, value)).collect();
            members.sort_by_key(|(name, _)| *name);
            spell_members(members, out);
        }
        Value::Array(list) => {
            out.push('[');
            for (at, entry) in list.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                spell(entry, out);
            }
            out.push(']');
        }
        Value::Number(number) => match number.as_f64() {
            // 1.0 and 1 are one number.
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 1e15 => {
                out.push_str(&(float as i64).to_string());
            }
            _ => out.push_str(&number.to_string()),
        },
        other => out.push_str(&other.to_string()),
    }
}

fn spell_members<'a>(members: impl IntoIterator<Item = (&'a str, &'a Value)>, out: &mut String) {
    out.push('{');
    for (at, (name, value)) in members.into_iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(&Value::from(name).to_string());
        out.push(':');
        spell(value, out);
    }
    out.push('}');
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn equal_steps_have_one_spelling_and_are_shown_as_paths() {
        let table = [
            ("f:spec", "f:spec", ".spec"),
            ("f:", "f:", "."),
            (
                r#"k:{"protocol":"TCP", "port":80}"#,
                r#"k:{"port":80,"protocol":"TCP"}"#,
                r#"[port=80,protocol="TCP"]"#,
            ),
            ("v: 1.0", "v:1", "[=1]"),
            (r#"v:"a b""#, r#"v:"a b""#, r#"[="a b"]"#),
            (
                r#"v:{"b":[1,2],"a":null}"#,
                r#"v:{"a":null,"b":[1,2]}"#,
                r#"[={"a":null,"b":[1,2]}]"#,
            ),
            ("i:+7", "i:7", "[7]"),
        ];
        for (text, spelt, shown) in table {
            let step = Step::parse(text).unwrap().unwrap();
            assert_eq!((step.as_str(), step.to_string().as_str()), (spelt, shown), "{text}");
            assert_eq!(Step::parse(spelt).unwrap().unwrap(), step);
        }
        assert_eq!(
            Step::keys([("port", &json!(80)), ("protocol", &json!("TCP"))]).as_str(),
            table[2].1
        );
        assert_eq!(Step::index(3).to_string(), "[3]");
    }

    #[test]
    fn what_is_no_step_is_refused_and_what_nobody_knows_is_passed_over() {
        for wrong in ["k:", "k:{}", "k:[1]", r#"k:{"a":{}}"#, "v:", "v:{", "i:", "i:a", "i:1.5"] {
            assert!(Step::parse(wrong).is_err(), "{wrong}");
        }
        for unknown in ["", "f", "x:a", ".", "fé:"] {
            assert_eq!(Step::parse(unknown), Ok(None), "{unknown}");
        }
    }
}
