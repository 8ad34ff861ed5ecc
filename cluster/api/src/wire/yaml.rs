//! YAML into values, resolved as Go's YAML 1.1 resolves it, so that a manifest means the same here.
//!
//! Plain `0644` is octal, `yes` and `on` are booleans, `<<` merges. Aliases are expanded within
//! the memory that a document may take, counted before anything is copied; an anchor that holds
//! itself is an error. Everything becomes JSON: a key is resolved like any scalar and then written as
//! text, so that `on`, `0x10` and `1.50` are `true`, `16` and `1.5`, and numbers that JSON cannot hold
//! are refused.

use super::document::{Allowance, Document, MAX_DEPTH, entry_cost, text_cost, value_cost};
use super::reported::Reported;
use saphyr_parser::{Event, Parser, ScalarStyle, Tag};
use serde_json::{Map, Number, Value};
use std::borrow::Cow;
use std::collections::HashMap;

/// The first document of a YAML stream, as Kubernetes reads it.
pub(super) fn from_yaml(body: &[u8]) -> Result<Document, String> {
    let text = std::str::from_utf8(body).map_err(|error| format!("yaml: {error}"))?;
    let first = documents(text, 1)?.into_iter().next();
    Ok(first.unwrap_or(Document::new(Value::Null, Vec::new())))
}

/// Reads up to `limit` documents of a stream; the rest is not looked at.
pub(super) fn documents(text: &str, limit: usize) -> Result<Vec<Document>, String> {
    let mut reader = Reader {
        frames: Vec::new(),
        anchors: HashMap::new(),
        left: Allowance::full(),
        duplicates: Reported::default(),
        documents: Vec::new(),
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| format!("yaml: {error}"))?;
        reader.event(event).map_err(|why| format!("yaml: line {}: {why}", span.start.line()))?;
        if reader.documents.len() >= limit {
            break;
        }
    }
    Ok(reader.documents)
}

/// A finished value, with what it costs to copy it.
#[derive(Clone)]
struct Node {
    value: Value,
    /// Bytes of memory.
    cost: usize,
    height: usize,
}

enum Holder {
    List(Vec<Value>),
    Map {
        map: Map<String, Value>,
        /// The key whose value comes next, and whether it is the one that merges.
        key: Option<String>,
        merges: bool,
        merged: Vec<Value>,
    },
}

struct Frame {
    holder: Holder,
    anchor: usize,
    cost: usize,
    height: usize,
}

struct Reader {
    frames: Vec<Frame>,
    /// `None` while the anchored value is still being read.
    anchors: HashMap<usize, Option<Node>>,
    left: Allowance,
    duplicates: Reported,
    documents: Vec<Document>,
}

impl Reader {
    fn event(&mut self, event: Event<'_>) -> Result<(), String> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.scalar(text, style, anchor, tag.as_deref())
            }
            Event::SequenceStart(anchor, _) => self.open(anchor, Holder::List(Vec::new())),
            Event::MappingStart(anchor, _) => self.open(
                anchor,
                Holder::Map { map: Map::new(), key: None, merges: false, merged: Vec::new() },
            ),
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => self.alias(anchor),
            Event::DocumentStart(_) => {
                self.anchors.clear();
                Ok(())
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn spend(&mut self, bytes: usize) -> Result<(), String> {
        self.left.spend(bytes).map_err(|error| error.to_string())
    }

    fn open(&mut self, anchor: usize, holder: Holder) -> Result<(), String> {
        self.spend(value_cost())?;
        if self.frames.len() >= MAX_DEPTH {
            return Err(format!("exceeded max depth of {MAX_DEPTH}"));
        }
        if self.awaits_key() {
            return Err("the key of a mapping must be a scalar".to_owned());
        }
        if anchor > 0 {
            self.anchors.insert(anchor, None);
        }
        self.frames.push(Frame { holder, anchor, cost: value_cost(), height: 1 });
        Ok(())
    }

    fn close(&mut self) -> Result<(), String> {
        let Some(frame) = self.frames.pop() else { return Ok(()) };
        let value = match frame.holder {
            Holder::List(list) => Value::Array(list),
            Holder::Map { mut map, merged, .. } => {
                for source in merged {
                    merge(&mut map, source)?;
                }
                Value::Object(map)
            }
        };
        self.finish(Node { value, cost: frame.cost, height: frame.height }, frame.anchor)
    }

    fn scalar(
        &mut self,
        text: Cow<'_, str>,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<&Tag>,
    ) -> Result<(), String> {
        let cost = value_cost() + text_cost(text.len());
        self.spend(cost)?;
        let plain = style == ScalarStyle::Plain && tag.is_none_or(|tag| !is_text(tag));
        let value = if plain { resolve(&text)? } else { Value::String(text.clone().into_owned()) };
        let node = Node { value, cost, height: 0 };
        if self.awaits_key() {
            if anchor > 0 {
                self.spend(cost)?;
                self.anchors.insert(anchor, Some(node.clone()));
            }
            let exact = plain && is_float(&text);
            return self.key(key_text(node.value, exact)?, plain);
        }
        self.finish(node, anchor)
    }

    /// Whether what comes next is the key of a mapping.
    fn awaits_key(&self) -> bool {
        matches!(self.frames.last(), Some(Frame { holder: Holder::Map { key: None, .. }, .. }))
    }

    /// Takes a scalar as the key of the mapping that is open. Only a plain `<<` merges.
    fn key(&mut self, text: String, plain: bool) -> Result<(), String> {
        let cost = entry_cost(text.len());
        self.spend(cost)?;
        if let Some(frame) = self.frames.last_mut()
            && let Holder::Map { key, merges, .. } = &mut frame.holder
        {
            *merges = plain && text == "<<";
            *key = Some(text);
            frame.cost += cost;
        }
        Ok(())
    }

    fn alias(&mut self, anchor: usize) -> Result<(), String> {
        let (cost, height) = match self.anchors.get(&anchor) {
            Some(Some(node)) => (node.cost, node.height),
            Some(None) => return Err("an anchor holds an alias of itself".to_owned()),
            None => return Err("an alias has no anchor".to_owned()),
        };
        self.spend(cost)?;
        if self.frames.len() + height > MAX_DEPTH {
            return Err(format!("exceeded max depth of {MAX_DEPTH}"));
        }
        match self.anchors.get(&anchor).cloned().flatten() {
            Some(node) if self.awaits_key() => self.key(key_text(node.value, false)?, false),
            Some(node) => self.finish(node, 0),
            None => Ok(()),
        }
    }

    /// Puts a finished value where it belongs.
    fn finish(&mut self, node: Node, anchor: usize) -> Result<(), String> {
        if anchor > 0 {
            self.spend(node.cost)?; // the copy that is kept counts too
            self.anchors.insert(anchor, Some(node.clone()));
        }
        let doubled = match self.frames.last().map(|frame| &frame.holder) {
            Some(Holder::Map { map, key: Some(key), merges: false, .. }) => map.contains_key(key),
            _ => false,
        };
        if doubled && self.duplicates.has_room() {
            let path = self.path();
            self.duplicates.add(&path);
        }
        let Some(frame) = self.frames.last_mut() else {
            let duplicates = std::mem::take(&mut self.duplicates).into_paths();
            self.documents.push(Document::new(node.value, duplicates));
            return Ok(());
        };
        frame.cost += node.cost;
        frame.height = frame.height.max(node.height + 1);
        match &mut frame.holder {
            Holder::List(list) => list.push(node.value),
            Holder::Map { map, key, merges, merged } => {
                let key = key.take().unwrap_or_default();
                if *merges {
                    merged.push(node.value);
                } else {
                    map.insert(key, node.value);
                }
            }
        }
        Ok(())
    }

    /// The path of the value that is finished next.
    fn path(&self) -> String {
        let mut path = String::new();
        for frame in &self.frames {
            match &frame.holder {
                Holder::List(list) => path.push_str(&["[", &list.len().to_string(), "]"].concat()),
                Holder::Map { key, .. } => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(key.as_deref().unwrap_or_default());
                }
            }
        }
        path
    }
}

/// Adds what `<<` names, where the mapping does not say it itself.
fn merge(map: &mut Map<String, Value>, source: Value) -> Result<(), String> {
    match source {
        Value::Object(source) => {
            for (key, value) in source {
                map.entry(key).or_insert(value);
            }
            Ok(())
        }
        Value::Array(sources) => sources.into_iter().try_for_each(|source| merge(map, source)),
        _ => Err("map merge requires map or sequence of maps as the value".to_owned()),
    }
}

/// A key as Go's converter to JSON writes it: the scalar that it is, as text. `float` says that a
/// number was written with a point or an exponent, though it may be whole. A key that is nothing
/// (`~`, or no text at all) cannot be written, there neither.
fn key_text(scalar: Value, float: bool) -> Result<String, String> {
    match scalar {
        Value::String(text) => Ok(text),
        Value::Bool(_) => Ok(scalar.to_string()),
        Value::Number(number) => Ok(match number.as_f64() {
            Some(value) if float || number.is_f64() => short_float(value as f32),
            _ => number.to_string(),
        }),
        Value::Null => Err("unsupported map key of type: null; put it in quotes".to_owned()),
        Value::Array(_) | Value::Object(_) => {
            Err("the key of a mapping must be a scalar".to_owned())
        }
    }
}

/// The fewest digits that tell a number of 32 bits from its neighbours, with an exponent below -4 and
/// from 6 on: Go's `%g`.
fn short_float(value: f32) -> String {
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..6).contains(&exponent) {
        return value.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

fn is_text(tag: &Tag) -> bool {
    matches!(tag.suffix.as_str(), "str" | "binary")
}

/// What a plain scalar stands for.
fn resolve(text: &str) -> Result<Value, String> {
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" | "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => {
            true.into()
        }
        "false" | "False" | "FALSE" | "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            false.into()
        }
        _ => match number(text) {
            Some(Ok(number)) => Value::Number(number),
            Some(Err(())) => {
                return Err(format!("{text} is a number that JSON cannot hold; put it in quotes"));
            }
            None => text.into(),
        },
    })
}

/// The number that a plain scalar is; an error for one that JSON cannot hold.
fn number(text: &str) -> Option<Result<Number, ()>> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN") {
        return Some(Err(()));
    }
    if !unsigned.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return None;
    }
    let digits = unsigned.replace('_', "");
    if let Some(whole) = integer(&digits) {
        let signed = if text.starts_with('-') { -whole } else { whole };
        let exact = i64::try_from(signed)
            .map(Number::from)
            .or_else(|_| u64::try_from(signed).map(Number::from));
        if let Ok(exact) = exact {
            return Some(Ok(exact));
        }
    }
    let decimal = digits.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte));
    let value: f64 = decimal.then(|| digits.parse().ok()).flatten()?;
    let value = if text.starts_with('-') { -value } else { value };
    let whole = value.fract() == 0.0 && value.abs() < 1e15;
    Some(if whole { Ok((value as i64).into()) } else { Number::from_f64(value).ok_or(()) })
}

/// Whether a plain scalar is a number that is written as a fraction or with an exponent.
fn is_float(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text).replace('_', "");
    matches!(number(text), Some(Ok(_))) && integer(&unsigned).is_none()
}

/// Decimal, or with a prefix binary, octal (`0o` or a bare zero) or hexadecimal.
fn integer(digits: &str) -> Option<i128> {
    let radix = |prefix: &str, radix| {
        digits.strip_prefix(prefix).and_then(|rest| i128::from_str_radix(rest, radix).ok())
    };
    if digits.len() > 1 && digits.starts_with('0') {
        radix("0x", 16)
            .or_else(|| radix("0b", 2))
            .or_else(|| radix("0o", 8))
            .or_else(|| radix("0", 8))
    } else {
        digits.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> Result<Value, String> {
        documents(text, 1)
            .map(|found| found.into_iter().next().map_or(Value::Null, |found| found.into_parts().0))
    }

    #[test]
    fn plain_scalars_mean_what_they_mean_to_go() {
        let table = [
            ("0644", json!(420)),
            ("0o644", json!(420)),
            ("0x1F", json!(31)),
            ("08", json!(8)),
            ("1_000", json!(1000)),
            ("-5", json!(-5)),
            ("+5", json!(5)),
            ("18446744073709551615", json!(u64::MAX)),
            ("1.5", json!(1.5)),
            ("1e3", json!(1000)),
            ("1.10", json!(1.1)),
            ("yes", json!(true)),
            ("Off", json!(false)),
            ("~", json!(null)),
            ("\"0644\"", json!("0644")),
            ("'yes'", json!("yes")),
            ("!!str 12", json!("12")),
            ("1.2.3", json!("1.2.3")),
            ("10.0.0.1", json!("10.0.0.1")),
            ("100m", json!("100m")),
            ("0.5Gi", json!("0.5Gi")),
            ("2026-01-01T00:00:00Z", json!("2026-01-01T00:00:00Z")),
            ("-", json!([null])),
            ("e5", json!("e5")),
        ];
        for (text, expected) in table {
            assert_eq!(
                read(&format!("a: {text}"))
                    .or_else(|_| read(text))
                    .map(|v| v.get("a").cloned().unwrap_or(v)),
                Ok(expected),
                "{text}"
            );
        }
        assert!(read("a: .inf").is_err());
    }

    #[test]
    fn keys_are_what_a_scalar_is_written_as_text() {
        let table = [
            ("on", "true"),
            ("n", "false"),
            ("0x10", "16"),
            ("0644", "420"),
            ("1.50", "1.5"),
            ("1e3", "1000"),
            ("1e6", "1e+06"),
            ("0.00001", "1e-05"),
            ("123456.5", "123456.5"),
            ("1.23456789", "1.2345679"),
            ("-1", "-1"),
            ("\"on\"", "on"),
            ("'0x10'", "0x10"),
            ("!!str 1.50", "1.50"),
            ("2026-01-01", "2026-01-01"),
            ("app.kubernetes.io/name", "app.kubernetes.io/name"),
            ("\"<<\"", "<<"),
        ];
        for (key, expected) in table {
            assert_eq!(read(&format!("{key}: x")), Ok(json!({ expected: "x" })), "{key}");
        }
        assert_eq!(read("a: &k on\nb: {*k : x}"), Ok(json!({"a": true, "b": {"true": "x"}})));
        for wrong in ["~: x", "? [a]\n: x", ".inf: x"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_alias_costs_what_it_copies() {
        let long = "x".repeat(100_000);
        let few = format!("a: &a {long}\nb: [{}]", vec!["*a"; 20].join(", "));
        assert!(read(&few).is_ok());
        let many = format!("a: &a {long}\nb: [{}]", vec!["*a"; 2_000].join(", "));
        assert!(read(&many).unwrap_err().contains("MiB of memory"));
        // Each anchor keeps a copy of what it holds, whether it is used or not.
        let nested = format!("{}{long}{}", "&a [".repeat(90), "]".repeat(90));
        assert!(read(&nested).is_ok());
        let nested = format!("{}{}{}", "&a [".repeat(90), "x".repeat(900_000), "]".repeat(90));
        assert!(read(&nested).unwrap_err().contains("MiB of memory"));
    }

    #[test]
    fn blocks_are_text_and_anchors_are_copied() {
        let text = "base: &b\n  x: 0644\n  z: 1\ncopy:\n  <<: *b\n  z: 2\nscript: |\n  chmod 0644 f\nlist: [*b, *b]\n";
        let base = json!({"x": 420, "z": 1});
        let expected = json!({
            "base": base, "copy": {"x": 420, "z": 2}, "script": "chmod 0644 f\n", "list": [base, base],
        });
        assert_eq!(read(text), Ok(expected));
        for wrong in ["a: &a [*a]", "a: *nobody", "? [x]\n: 1", "a: [", "a: b: c", "<<: 1"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_stream_holds_several_documents() {
        let found = documents("a: 1\n---\nb: 2\n---\n", 10).unwrap();
        let values: Vec<Value> = found.into_iter().map(|found| found.into_parts().0).collect();
        assert_eq!(values, [json!({"a": 1}), json!({"b": 2}), Value::Null]);
    }
}
