//! Entries as clients read them.

use super::entries::{Entries, kept};
use super::update::put;
use crate::resource::Resource;
use serde_json::Value;

/// Whether an object has entries, by its bytes: those are not told as they are kept. It may say yes of one that has none.
pub fn may_have_entries(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| text.contains("\"managedFields\""))
}

/// What the entries of an object are, with all their fields; `None` where it has none.
fn spelt(row: &Resource, object: &Value) -> Option<Entries> {
    if kept(object).is_empty() {
        return None;
    }
    let mut entries = Entries::kept(row, object);
    entries.spell_out(row, object);
    entries.sort();
    Some(entries)
}

/// Writes the entries of an object out.
pub fn tell(row: &Resource, object: &mut Value) {
    let Some(entries) = spelt(row, object) else { return };
    // What consists of names and sets can be written.
    if let Ok(told) = serde_json::to_value(entries.to_told()) {
        put(object, told);
    }
}

/// The same of an object that is shown in the bytes in which it is kept: what stands there in place of its entries. `None`
/// where nothing does, or it cannot be read.
pub fn told_of_bytes(row: &Resource, bytes: &[u8]) -> Option<Vec<u8>> {
    if !may_have_entries(bytes) {
        return None;
    }
    let object = serde_json::from_slice(bytes).ok()?;
    serde_json::to_vec(&spelt(row, &object)?.to_told()).ok()
}
