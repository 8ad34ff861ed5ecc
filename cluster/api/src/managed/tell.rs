//! Entries as clients read them.

use super::entries::{Entries, has_rest, kept};
use super::update::put;
use crate::resource::Resource;
use serde_json::Value;

/// Whether an object has entries, by its bytes: those are not told as they are kept. It may say yes of one that has none.
pub fn may_have_entries(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| text.contains("\"managedFields\""))
}

/// Writes the entries of an object out.
pub fn tell(row: &Resource, object: &mut Value) {
    if kept(object).is_empty() {
        return;
    }
    if !has_rest(kept(object)) {
        // Nothing has to be looked for: what is said once for all of them is said for each.
        let version = row.api_version();
        let entries = object.pointer_mut("/metadata/managedFields").and_then(Value::as_array_mut);
        for entry in entries.into_iter().flatten().filter_map(Value::as_object_mut) {
            entry.entry("apiVersion").or_insert_with(|| version.as_str().into());
            entry.insert("fieldsType".into(), "FieldsV1".into());
        }
        return;
    }
    let mut entries = Entries::kept(row, object);
    entries.spell_out(row, object);
    entries.sort();
    put(object, entries.to_told());
}
