//! In which order the entries of a merged list stand.
//!
//! Entries that the patch names keep the order of the patch, the others keep the order of the
//! object, and the two are interleaved as the object had them, as far as that is possible.

use super::error::PatchError;
use serde_json::Value;
use std::collections::HashMap;

/// What tells entries apart: the value under a key, or the entry itself where there is no key.
pub(super) fn identity(entry: &Value, key: &str) -> Result<String, PatchError> {
    if key.is_empty() {
        return Ok(plain(entry));
    }
    entry.get(key).map(plain).ok_or_else(|| missing_key(entry, key))
}

/// The text of a value as Go prints it, so that `80` and `"80"` are the same key.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn missing_key(entry: &Value, key: &str) -> PatchError {
    PatchError::Unmergeable(format!("map: {entry} does not contain declared merge key: {key}"))
}

/// Orders `merged` by the list `wanted`, entries beside it by the list `before`.
pub(super) fn arrange(
    merged: Vec<Value>,
    wanted: &[Value],
    before: &[Value],
    key: &str,
) -> Result<Vec<Value>, PatchError> {
    // Of several entries with one identity the first gives the place.
    let places = |list: &[Value]| -> Result<HashMap<String, usize>, PatchError> {
        let mut places = HashMap::with_capacity(list.len());
        for (at, entry) in list.iter().enumerate() {
            places.entry(identity(entry, key)?).or_insert(at);
        }
        Ok(places)
    };
    let (wanted, before) = (places(wanted)?, places(before)?);

    // Each with its place in the object as it was, if it had one.
    let (mut named, mut others) = (Vec::new(), Vec::new());
    for entry in merged {
        let id = identity(&entry, key)?;
        let was = before.get(&id).copied();
        match wanted.get(&id) {
            Some(&at) => named.push((at, was, entry)),
            None => others.push((was.unwrap_or(usize::MAX), was, entry)),
        }
    }
    named.sort_by_key(|(at, ..)| *at);
    others.sort_by_key(|(at, ..)| *at);

    let mut ordered = Vec::with_capacity(named.len() + others.len());
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    loop {
        let other_first = match (others.peek(), named.peek()) {
            (None, None) => return Ok(ordered),
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some((_, left, _)), Some((_, right, _))) => {
                matches!((left, right), (Some(left), Some(right)) if left < right)
            }
        };
        let next = if other_first { others.next() } else { named.next() };
        ordered.extend(next.map(|(.., entry)| entry));
    }
}
