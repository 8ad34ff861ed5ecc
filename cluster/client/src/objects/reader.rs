//! Reading objects through a handle: one, a list, a watch.

use super::refuse::read_refused;
use super::states::States;
use super::{Stored, key_of};
use impresario_api::resource::Row;
use impresario_api::status::Status;
use impresario_registry_api::{Consistency, RegistryHandle};
use serde_json::Value;
use std::fmt;
use std::sync::Arc;

/// Reads objects of a registry, wherever it is.
#[derive(Clone)]
pub struct Reader {
    registry: RegistryHandle,
    states: Option<Arc<States>>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

impl Reader {
    /// Objects of this registry.
    pub fn new(registry: RegistryHandle) -> Self {
        Self { registry, states: None }
    }

    /// The same for many watches of one process, whose registry gives all of them the same bytes: what one of them reads
    /// and writes of these is not read and written again by the others.
    pub fn shared(self) -> Self {
        Self { states: Some(Arc::default()), ..self }
    }

    pub(super) fn states(&self) -> Option<Arc<States>> {
        self.states.clone()
    }

    /// The registry underneath.
    pub fn registry(&self) -> &RegistryHandle {
        &self.registry
    }

    /// One object, as fresh as asked for.
    pub async fn get(
        &self,
        resource: &Row,
        namespace: &str,
        name: &str,
        consistency: Consistency,
    ) -> Result<Value, Status> {
        let found = self.find(resource, namespace, name, consistency).await?;
        found.map(|stored| stored.object).ok_or_else(|| Status::not_found(resource, name))
    }

    /// One object with its revision, or nothing.
    pub async fn find(
        &self,
        resource: &Row,
        namespace: &str,
        name: &str,
        consistency: Consistency,
    ) -> Result<Option<Stored>, Status> {
        let key = key_of(resource, namespace, name);
        let (entry, _) =
            self.registry.get(key, consistency).await.map_err(|error| read_refused(&error))?;
        entry.as_ref().map(Stored::read).transpose()
    }
}
