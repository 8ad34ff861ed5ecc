//! Looks strings up in a JSON document without building the document.
//!
//! This is asked of every change that filtered watches may be concerned by, so everything beside the paths is skipped,
//! not parsed into values.

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::{collections::BTreeMap, fmt, sync::Arc};

/// Where an object has its labels.
pub const LABELS: &str = "/metadata/labels";

/// Whether the string at `pointer` (RFC 6901) is `wanted`. A missing field, `null` or a document that is not
/// JSON counts as the empty string; numbers and booleans compare as they are written.
pub fn equals(document: &[u8], pointer: &str, wanted: &str) -> bool {
    string_at(document, pointer).unwrap_or_default() == wanted
}

/// The scalar at `pointer`, as text.
pub fn string_at(document: &[u8], pointer: &str) -> Option<String> {
    let mut looked = look(document, &[pointer.into()], false);
    looked.fields.pop().and_then(|(_, found)| found)
}

/// What one look at a document found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Looked {
    fields: Vec<(Arc<str>, Option<String>)>,
    labels: Option<BTreeMap<String, String>>,
}

impl Looked {
    /// The scalar at a pointer; `None` where nobody looked.
    #[allow(clippy::option_option)] // "Nobody looked" and "is not there" are two things.
    pub fn field(&self, pointer: &str) -> Option<Option<&str>> {
        let found = self.fields.iter().find(|(looked, _)| &**looked == pointer);
        found.map(|(_, value)| value.as_deref())
    }

    /// Everything that was looked for by its pointer.
    pub fn fields(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.fields.iter().map(|(pointer, value)| (&**pointer, value.as_deref()))
    }

    /// The labels that are strings; `None` where nobody looked.
    pub fn labels(&self) -> Option<&BTreeMap<String, String>> {
        self.labels.as_ref()
    }
}

/// The scalars at these pointers, and the labels if they are asked for, in one pass. In a document that is not JSON
/// nothing is found.
pub fn look(document: &[u8], pointers: &[Arc<str>], labels: bool) -> Looked {
    let paths: Vec<Vec<String>> = pointers.iter().map(|pointer| path(pointer)).collect();
    let own = path(LABELS);
    let targets = paths.iter().enumerate().map(|(number, path)| (Target::Field(number), &path[..]));
    let targets = targets.chain(labels.then_some((Target::Labels, &own[..]))).collect();
    let mut found = Found::new(pointers.len());
    let mut json = serde_json::Deserializer::from_slice(document);
    let looked = Step { targets, label: None, found: &mut found }.deserialize(&mut json);
    if looked.is_err() || json.end().is_err() {
        found = Found::new(pointers.len());
    }
    Looked {
        fields: pointers.iter().cloned().zip(found.fields).collect(),
        labels: labels.then_some(found.labels),
    }
}

fn path(pointer: &str) -> Vec<String> {
    let tokens = pointer.split('/').skip(1);
    tokens.map(|token| token.replace("~1", "/").replace("~0", "~")).collect()
}

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    /// The scalar of this number.
    Field(usize),
    /// The map of labels.
    Labels,
}

struct Found {
    fields: Vec<Option<String>>,
    labels: BTreeMap<String, String>,
}

impl Found {
    fn new(fields: usize) -> Self {
        Self { fields: vec![None; fields], labels: BTreeMap::new() }
    }
}

/// What is left of the paths at this depth.
struct Step<'p, 'f> {
    targets: Vec<(Target, &'p [String])>,
    /// The label whose value this is, if it is one.
    label: Option<String>,
    found: &'f mut Found,
}

impl<'p> Step<'p, '_> {
    fn scalar(self, text: impl ToString) {
        for (target, path) in &self.targets {
            if let (Target::Field(number), true) = (target, path.is_empty()) {
                self.found.fields[*number] = Some(text.to_string());
            }
        }
    }

    /// The targets behind the part of this name.
    fn behind(&self, is_named: impl Fn(&str) -> bool) -> Vec<(Target, &'p [String])> {
        let behind = self.targets.iter().filter_map(|(target, path)| {
            let (first, rest) = path.split_first()?;
            is_named(first).then_some((*target, rest))
        });
        behind.collect()
    }

    /// Reads the part that these targets are behind. Of a name that is there twice the last one counts.
    fn enter<'s>(
        &'s mut self,
        targets: Vec<(Target, &'p [String])>,
        label: Option<String>,
    ) -> Step<'p, 's> {
        for (target, _) in &targets {
            match target {
                Target::Field(number) => self.found.fields[*number] = None,
                Target::Labels => self.found.labels.clear(),
            }
        }
        if let Some(label) = &label {
            self.found.labels.remove(label);
        }
        Step { targets, label, found: &mut *self.found }
    }
}

impl<'de> DeserializeSeed<'de> for Step<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.targets.is_empty() && self.label.is_none() {
            return deserializer.deserialize_ignored_any(IgnoredAny).map(drop);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Step<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_str<E>(mut self, text: &str) -> Result<(), E> {
        if let Some(label) = self.label.take() {
            self.found.labels.insert(label, text.to_owned());
        }
        self.scalar(text);
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.scalar(value);
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.scalar(value);
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.scalar(value);
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.scalar(value);
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let is_labels =
            |(target, path): &(Target, &[String])| *target == Target::Labels && path.is_empty();
        let has_labels = self.targets.iter().any(is_labels);
        while let Some(name) = map.next_key::<String>()? {
            let targets = self.behind(|first| first == name);
            let label = has_labels.then_some(name);
            map.next_value_seed(self.enter(targets, label))?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        for index in 0_usize.. {
            let targets = self.behind(|first| first.parse::<usize>() == Ok(index));
            if items.next_element_seed(self.enter(targets, None))?.is_none() {
                break;
            }
        }
        Ok(())
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

    #[test]
    fn one_look_finds_what_several_would() {
        let document = br#"{"a":[1,{"b":"x"}],"metadata":{"labels":{"app":"web","n":1,"app2":"","t":"1","t":2},"name":"p"},
            "a2":true,"metadata2":{"labels":{"no":"no"}}}"#;
        let pointers: Vec<Arc<str>> =
            ["/a/1/b", "/a/0", "/metadata/labels/app", "/metadata/name", "/none", "/a2", "/a"]
                .map(Arc::<str>::from)
                .to_vec();
        let looked = look(document, &pointers, true);
        let found: Vec<_> = looked.fields().map(|(_, value)| value).collect();
        let expected = [Some("x"), Some("1"), Some("web"), Some("p"), None, Some("true"), None];
        assert_eq!(found, expected);
        let labels = [("app", "web"), ("app2", "")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(looked.labels(), Some(&BTreeMap::from(labels)));
        assert_eq!(looked.field("/other"), None, "nobody looked");
        assert_eq!(look(document, &[], false).labels(), None);
        for broken in [
            &b"{"[..],
            b"{\"metadata\":{\"labels\":{\"a\":\"b\"}}",
            b"{\"metadata\":{\"labels\":{\"a\":\"b\"}}} x",
        ] {
            let looked = look(broken, &["/metadata/labels/a".into()], true);
            assert_eq!(looked.field("/metadata/labels/a"), Some(None));
            assert!(looked.labels().unwrap().is_empty());
        }
        let twice = br#"{"metadata":{"labels":{"a":"b"},"name":"x"},"metadata":{}}"#;
        let looked = look(twice, &["/metadata/name".into()], true);
        assert_eq!(
            looked,
            Looked { fields: vec![("/metadata/name".into(), None)], labels: Some(BTreeMap::new()) }
        );
    }
}
