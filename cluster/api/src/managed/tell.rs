//! Entries as clients read them.

use super::entries::{Entries, has_rest, kept};
use super::update::put;
use crate::resource::Resource;
use serde_json::Value;

/// Whether an object has entries, by its bytes: those are not told as they are kept. It may say yes of one that has none.
pub fn may_have_entries(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| text.contains("\"managedFields\""))
}

/// The entries of an object as clients read them; `None` where it has none.
pub fn told(row: &Resource, object: &Value) -> Option<Value> {
    let stored = kept(object);
    if stored.is_empty() {
        return None;
    }
    if has_rest(stored) {
        let mut entries = Entries::kept(row, object);
        entries.spell_out(row, object);
        entries.sort();
        return Some(entries.to_told());
    }
    // Nothing has to be looked for: what is said once for all of them is said for each.
    let version = row.api_version();
    let mut entries = stored.to_vec();
    for entry in entries.iter_mut().filter_map(Value::as_object_mut) {
        entry.entry("apiVersion").or_insert_with(|| version.as_str().into());
        entry.insert("fieldsType".into(), "FieldsV1".into());
    }
    Some(entries.into())
}

/// Writes the entries of an object out.
pub fn tell(row: &Resource, object: &mut Value) {
    if let Some(entries) = told(row, object) {
        put(object, entries);
    }
}

/// The same of an object that is shown in the bytes in which it is kept: what stands there in place of its entries. `None`
/// where nothing does, or it cannot be read.
pub fn told_of_bytes(row: &Resource, bytes: &[u8]) -> Option<Vec<u8>> {
    if !may_have_entries(bytes) {
        return None;
    }
    let object = serde_json::from_slice(bytes).ok()?;
    serde_json::to_vec(&told(row, &object)?).ok()
}
