//! An object as readers see it, without reading it: the bytes that the registry keeps, cut and joined.
//!
//! What is put between them is the resourceVersion; what is left out is the type, where a list says it for all. Who owns
//! what of an object is kept shorter than it is told, so it is replaced. Nothing else is copied: the pieces are parts of
//! the registry's own bytes.

use bytes::Bytes;
use impresario_registry_api::Entry;
use serde::de::IgnoredAny;
use std::ops::Range;

/// The pieces of an entry's object as an item of a list: with its resourceVersion, without its type, and with this in
/// place of its managed fields, where that is given: by who has read all of the object's bytes as JSON. `None` where the object has to be read to make that, or cannot be
/// read.
pub fn item(entry: &Entry, managed: Option<Vec<u8>>) -> Option<Vec<Bytes>> {
    pieces(entry, false, managed)
}

/// The pieces of an entry's object as it is shown alone: with its resourceVersion and its type. `None` as for
/// [`item`].
pub fn whole(entry: &Entry, managed: Option<Vec<u8>>) -> Option<Vec<Bytes>> {
    pieces(entry, true, managed)
}

fn pieces(entry: &Entry, typed: bool, mut managed: Option<Vec<u8>>) -> Option<Vec<Bytes>> {
    let text = &entry.value;
    // What a client gets is JSON, whatever lies in the store. Who says the managed fields has read it.
    if managed.is_none() {
        serde_json::from_slice::<IgnoredAny>(text).ok()?;
    }
    let mut pieces = Vec::with_capacity(8);
    let mut before = "{";
    let mut has_metadata = false;
    for member in members(text, 0)? {
        match &text[member.name.clone()] {
            b"kind" | b"apiVersion" if !typed => continue,
            b"metadata" => {
                let inside = members(text, member.value.start)?;
                if has_metadata
                    || inside.iter().any(|one| &text[one.name.clone()] == b"resourceVersion")
                {
                    return None;
                }
                let separator = if inside.is_empty() { "" } else { "," };
                let version = entry.mod_revision;
                let put =
                    format!("{before}\"metadata\":{{\"resourceVersion\":\"{version}\"{separator}");
                pieces.push(put.into());
                let mut from = member.value.start + 1;
                let is_managed = |one: &&Member| &text[one.name.clone()] == b"managedFields";
                if let Some(place) = inside.iter().find(is_managed)
                    && let Some(managed) = managed.take()
                {
                    pieces.push(text.slice(from..place.value.start));
                    pieces.push(managed.into());
                    from = place.value.end;
                }
                pieces.push(text.slice(from..member.value.end));
                has_metadata = true;
            }
            _ => {
                pieces.push(Bytes::from_static(before.as_bytes()));
                pieces.push(text.slice(member.whole()));
            }
        }
        before = ",";
    }
    pieces.push(Bytes::from_static(b"}"));
    // What has found no place would not be told.
    (has_metadata && managed.is_none()).then_some(pieces)
}

/// A member of a JSON object: where its name is, without the quotes, and its value.
struct Member {
    name: Range<usize>,
    value: Range<usize>,
}

impl Member {
    fn whole(&self) -> Range<usize> {
        self.name.start - 1..self.value.end
    }
}

/// The members of the JSON object that begins at or behind `at`, of text that is JSON. `None` where it is no object,
/// or a name is written with escapes.
fn members(text: &[u8], at: usize) -> Option<Vec<Member>> {
    let mut at = blank(text, at);
    if *text.get(at)? != b'{' {
        return None;
    }
    at = blank(text, at + 1);
    let mut members = Vec::new();
    while *text.get(at)? != b'}' {
        let end = string(text, at)?;
        let name = at + 1..end - 1;
        if text[name.clone()].contains(&b'\\') {
            return None;
        }
        at = blank(text, end);
        if *text.get(at)? != b':' {
            return None;
        }
        let start = blank(text, at + 1);
        at = value(text, start)?;
        members.push(Member { name, value: start..at });
        at = blank(text, at);
        if *text.get(at)? == b',' {
            at = blank(text, at + 1);
        }
    }
    Some(members)
}

/// Where the blanks end that begin here.
fn blank(text: &[u8], mut at: usize) -> usize {
    while text.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}

/// Where the string ends that begins here.
fn string(text: &[u8], at: usize) -> Option<usize> {
    if *text.get(at)? != b'"' {
        return None;
    }
    let mut at = at + 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Where the value ends that begins here.
fn value(text: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    loop {
        match text.get(at)? {
            b'"' => at = string(text, at)?,
            b'{' | b'[' => (depth, at) = (depth + 1, at + 1),
            b'}' | b']' => (depth, at) = (depth.checked_sub(1)?, at + 1),
            b',' | b':' => at += 1,
            byte if byte.is_ascii_whitespace() => at += 1,
            // A number, or a word such as `true`.
            _ => {
                let ends =
                    |byte: &u8| matches!(byte, b',' | b'}' | b']') || byte.is_ascii_whitespace();
                at += text[at..].iter().position(ends)?;
            }
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::objects::stored::object_at;
    use impresario_registry_api::Key;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn entry(value: impl Into<Bytes>) -> Entry {
        let key = Key::new("things", "default", "a");
        Entry { key, value: value.into(), create_revision: 3, mod_revision: 7 }
    }

    fn read_back(pieces: &[Bytes]) -> Value {
        serde_json::from_slice(&pieces.concat()).expect("it is JSON")
    }

    fn joined(entry: &Entry) -> Option<Value> {
        item(entry, None).map(|pieces| read_back(&pieces))
    }

    fn as_read(entry: &Entry) -> Value {
        let mut object = object_at(entry, entry.mod_revision).unwrap();
        let fields = object.as_object_mut().unwrap();
        fields.remove("kind");
        fields.remove("apiVersion");
        object
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[ -~äß\\\\\"{}:,\n\\[\\]]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            let name = prop_oneof!["[a-z]{1,4}", Just("kind".to_owned()), "[\\\\\"{},:]{1,3}"];
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::btree_map(name, inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_joined_is_what_would_be_read(
            metadata in proptest::collection::btree_map("[a-z]{1,8}", any_value(), 0..4),
            spec in any_value(),
            pretty: bool,
        ) {
            let object = json!({"kind": "Thing", "apiVersion": "v1", "metadata": metadata, "spec": spec, "z": 1.5e3});
            let bytes = if pretty { serde_json::to_vec_pretty(&object) } else { serde_json::to_vec(&object) };
            let entry = entry(bytes.unwrap());
            prop_assert_eq!(joined(&entry), Some(as_read(&entry)));
            let shown = whole(&entry, None).map(|pieces| read_back(&pieces));
            prop_assert_eq!(shown, Some(object_at(&entry, entry.mod_revision).unwrap()));
        }

        #[test]
        fn what_is_no_such_object_is_left_to_the_reader(text in "[ -~]{0,40}") {
            if let Some(made) = joined(&entry(text.clone())) {
                prop_assert_eq!(made, as_read(&entry(text)));
            }
        }
    }

    #[test]
    fn managed_fields_are_told_in_place_of_what_is_kept_of_them() {
        let kept = r#"{"metadata":{"a":1,"managedFields":[{"manager":"a"}],"z":2},"spec":{"managedFields":[]}}"#;
        let told = || Some(b"[3]".to_vec());
        let shown = item(&entry(kept), told()).map(|pieces| read_back(&pieces)).unwrap();
        let wanted = json!({"metadata": {"a": 1, "managedFields": [3], "z": 2, "resourceVersion": "7"},
            "spec": {"managedFields": []}});
        assert_eq!(shown, wanted);
        let alone = r#"{"metadata":{"managedFields":[]}}"#;
        let shown = whole(&entry(alone), told()).map(|pieces| read_back(&pieces)).unwrap();
        assert_eq!(shown["metadata"]["managedFields"], json!([3]));
        assert_eq!(
            item(&entry(r#"{"metadata":{"a":1}}"#), told()),
            None,
            "there is no place for it"
        );
    }

    #[test]
    fn what_has_a_version_or_no_metadata_or_is_torn_is_not_joined() {
        for text in [
            "",
            "{}",
            "[]",
            r#"{"metadata":[]}"#,
            r#"{"metadata":{"resourceVersion":"1"}}"#,
            r#"{"metadata":{},"metadata":{}}"#,
            r#"{"metadata":{}"#,
            r#"{"metadata":{},"spec":tru}"#,
            r#"{"m\u0065tadata":{}}"#,
        ] {
            assert_eq!(item(&entry(text), None), None, "{text}");
        }
    }
}
