//! The quotas of a namespace as they were read, and what is charged to them.

use impresario_api::policy::amounts::Amounts;
use impresario_api::policy::quota::Quota;
use impresario_api::resource::Resource;
use impresario_api::status::Status;
use impresario_client::objects::refuse::read_refused;
use impresario_client::objects::stored::bytes_of;
use impresario_registry_api::{
    Compare, Consistency, Entry, Key, ListRequest, Operation, RegistryHandle, Revision, Selection,
};
use serde_json::Value;
use std::collections::BTreeSet;

/// The resource of the keys that say when the quotas of a namespace last asked for something else.
const MARKS: &str = "impresario.dev/quotamarks";
/// The resource of quotas.
pub(super) const QUOTAS: &str = "resourcequotas";

/// The key that is written whenever a quota comes to a namespace or asks for something else than before.
pub(crate) fn mark_of(namespace: &str) -> Key {
    Key::new(MARKS, "", namespace)
}

#[derive(Debug, Clone)]
struct Page {
    key: Key,
    revision: Revision,
    quota: Quota,
    is_charged: bool,
}

/// The quotas of one namespace.
#[derive(Debug, Clone)]
pub(super) struct Book {
    mark: Key,
    marked: Revision,
    pages: Vec<Page>,
}

/// The object of an entry as it is kept.
pub(super) fn object_of(entry: &Entry) -> Result<Value, Status> {
    serde_json::from_slice(&entry.value)
        .map_err(|error| Status::internal(format!("{} cannot be read: {error}", entry.key)))
}

impl Book {
    /// Reads the quotas of a namespace.
    pub(super) async fn read(
        registry: &RegistryHandle,
        namespace: &str,
        consistency: Consistency,
    ) -> Result<Self, Status> {
        let mark = mark_of(namespace);
        // The mark first: a quota that comes in between is one that the condition on the mark does not know.
        let read = registry.get(mark.clone(), consistency).await;
        let (found, _) = read.map_err(|error| read_refused(&error))?;
        // Where there never was one, one look is all that it costs: revision 0 stands for nothing.
        let Some(marked) = found.map(|entry| entry.mod_revision) else {
            return Ok(Self { mark, marked: 0, pages: Vec::new() });
        };
        let select = Selection::all(QUOTAS).within(namespace);
        let request = ListRequest { consistency, ..ListRequest::of(select) };
        let listed = registry.list(request).await.map_err(|error| read_refused(&error))?;
        let page = |entry: Entry| {
            let quota = Quota::read(object_of(&entry)?);
            Ok(Page { key: entry.key, revision: entry.mod_revision, quota, is_charged: false })
        };
        let pages = listed.entries.into_iter().map(page).collect::<Result<_, Status>>()?;
        Ok(Self { mark, marked, pages })
    }

    /// The condition that no quota has come, and none asks for something else.
    fn condition(&self) -> Compare {
        Compare::Revision { key: self.mark.clone(), revision: self.marked }
    }

    /// Charges all that are about an object with what it needs more than before. The error says why one may not be; then
    /// none is charged.
    pub(super) fn charge(
        &mut self,
        resource: &Resource,
        object: &Value,
        grown: &Amounts,
        is_new: bool,
    ) -> Result<(), String> {
        let mut charged = Vec::new();
        for (index, page) in self.pages.iter().enumerate() {
            if let Some(used) = page.quota.room_for(resource, object, grown, is_new)? {
                charged.push((index, used));
            }
        }
        for (index, used) in charged {
            self.pages[index].quota.use_up(used);
            self.pages[index].is_charged = true;
        }
        Ok(())
    }

    /// The names of what they bound, and the revision of the mark as long as which that is so. Not the kinds: which ones
    /// are served changes without the mark.
    pub(super) fn bounded(&self) -> (Revision, BTreeSet<String>) {
        let names = self.pages.iter().flat_map(|page| page.quota.hard().keys().cloned());
        (self.marked, names.collect())
    }

    /// What must hold for what was charged to be written.
    pub(super) fn compares(&self) -> Vec<Compare> {
        let charged = self.pages.iter().filter(|page| page.is_charged);
        let as_read =
            |page: &Page| Compare::Revision { key: page.key.clone(), revision: page.revision };
        [self.condition()].into_iter().chain(charged.map(as_read)).collect()
    }

    /// What writes down what was charged.
    pub(super) fn operations(&self) -> Result<Vec<Operation>, Status> {
        let charged = self.pages.iter().filter(|page| page.is_charged);
        charged
            .map(|page| {
                let value = bytes_of(&page.quota.object())?;
                Ok(Operation::Put { key: page.key.clone(), value })
            })
            .collect()
    }

    /// What was charged is written.
    pub(super) fn written(&mut self, revision: Revision) {
        for page in self.pages.iter_mut().filter(|page| page.is_charged) {
            page.revision = revision;
            page.is_charged = false;
        }
    }
}
