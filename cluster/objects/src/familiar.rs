//! Objects that nearly every write has to look at and that seldom change: namespaces, accounts, classes, definitions.
//!
//! The entry is read of the registry each time, so that what is told is never older than asked for; what is kept is
//! only what its bytes say, for as long as they are those bytes.

use impresario_api::status::Status;
use impresario_client::objects::Stored;
use impresario_registry_api::{Entry, Key, Revision};
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// So many objects are kept; with one more, all are read anew.
const MOST_KEPT: usize = 1024;
/// Larger ones are not kept.
const MOST_BYTES: usize = 16 * 1024;

/// An object as it is at a revision.
#[derive(Debug, Clone)]
pub(super) struct Familiar {
    /// With its resourceVersion.
    pub(super) object: Arc<Value>,
    pub(super) revision: Revision,
}

/// What was read of late. Shared by its clones.
#[derive(Clone, Default)]
pub(super) struct Familiars(Arc<Mutex<HashMap<Key, Familiar>>>);

impl fmt::Debug for Familiars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Familiars").field("kept", &self.0.lock().len()).finish()
    }
}

impl Familiars {
    /// What an entry says.
    pub(super) fn read(&self, entry: &Entry) -> Result<Familiar, Status> {
        if let Some(kept) = self.0.lock().get(&entry.key)
            && kept.revision == entry.mod_revision
        {
            return Ok(kept.clone());
        }
        let Stored { object, revision } = Stored::read(entry)?;
        let read = Familiar { object: Arc::new(object), revision };
        if entry.value.len() <= MOST_BYTES {
            let mut kept = self.0.lock();
            if kept.len() >= MOST_KEPT && !kept.contains_key(&entry.key) {
                kept.clear();
            }
            kept.insert(entry.key.clone(), read.clone());
        }
        Ok(read)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry(name: &str, revision: Revision, value: &Value) -> Entry {
        Entry {
            key: Key::new("namespaces", "", name),
            value: serde_json::to_vec(value).unwrap().into(),
            create_revision: 1,
            mod_revision: revision,
        }
    }

    #[test]
    fn an_object_is_parsed_once_for_each_of_its_revisions() {
        let familiars = Familiars::default();
        let value = |said: &str| json!({"metadata": {"name": "a"}, "said": said});
        let first = familiars.read(&entry("a", 3, &value("x"))).unwrap();
        assert_eq!(first.object["metadata"]["resourceVersion"], "3");
        let again = familiars.read(&entry("a", 3, &value("x"))).unwrap();
        assert!(Arc::ptr_eq(&first.object, &again.object));
        let later = familiars.read(&entry("a", 4, &value("y"))).unwrap();
        assert_eq!((later.revision, &later.object["said"]), (4, &json!("y")));
        // A replica that is behind tells what it has.
        let behind = familiars.read(&entry("a", 3, &value("x"))).unwrap();
        assert_eq!((behind.revision, &behind.object["said"]), (3, &json!("x")));
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for_and_nothing_large() {
        let familiars = Familiars::default();
        for number in 0..=MOST_KEPT {
            familiars.read(&entry(&format!("n{number}"), 1, &json!({}))).unwrap();
        }
        assert_eq!(familiars.0.lock().len(), 1);
        let large = json!({"metadata": {}, "said": "x".repeat(MOST_BYTES)});
        familiars.read(&entry("large", 1, &large)).unwrap();
        assert_eq!(familiars.0.lock().len(), 1);
    }
}
