//! Entries as clients read them.

use super::entries::{Entries, kept};
use super::update::put;
use crate::resource::Resource;
use serde::Deserialize;
use serde_json::{Value, json};

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
    let object = entries_alone(bytes).or_else(|| serde_json::from_slice(bytes).ok())?;
    told_of(row, &object)
}

/// The same of an object that was read.
pub fn told_of(row: &Resource, object: &Value) -> Option<Vec<u8>> {
    serde_json::to_vec(&spelt(row, object)?.to_told()).ok()
}

/// The object with nothing but its entries, where those say all their fields: then nothing else of it is asked for.
/// `None` too where its bytes are not all JSON.
fn entries_alone(bytes: &[u8]) -> Option<Value> {
    #[derive(Deserialize)]
    struct Object {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        managed_fields: Vec<Value>,
    }
    // Most have an entry of the rest alone, and are not worth a look.
    if !std::str::from_utf8(bytes).is_ok_and(|text| text.contains("\"fieldsV1\"")) {
        return None;
    }
    let Object { metadata: Metadata { managed_fields } } = serde_json::from_slice(bytes).ok()?;
    let says_all = managed_fields.iter().all(|entry| entry.get("fieldsV1").is_some());
    says_all.then(|| json!({ "metadata": { "managedFields": managed_fields } }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::catalog::find;

    #[test]
    fn of_an_object_whose_entries_say_all_their_fields_nothing_else_is_read() {
        let entry = json!({ "manager": "a", "operation": "Apply", "fieldsV1": { "f:data": { "f:x": {} } } });
        let mut object =
            json!({ "metadata": { "name": "a", "managedFields": [entry] }, "data": { "x": "1" } });
        let row = find("", "v1", "configmaps").unwrap();
        let bytes = |object: &Value| serde_json::to_vec(object).unwrap();
        let alone = entries_alone(&bytes(&object)).unwrap();
        assert_eq!(alone, json!({ "metadata": { "managedFields": [entry] } }));
        assert_eq!(told_of_bytes(&row, &bytes(&object)), told_of(&row, &object));
        let rest = json!({ "manager": "b", "operation": "Update" });
        object["metadata"]["managedFields"] = json!([entry, rest]);
        assert_eq!(entries_alone(&bytes(&object)), None);
        assert_eq!(entries_alone(br#"{"metadata":{"managedFields":[{"fieldsV1":{}}]},"#), None);
    }
}
