//! One mirror for each kind that anybody on this member looks at.

use super::super::mirror::{Mirror, Mirrored};
use super::kind_name::KindName;
use impresario_registry_api::RegistryHandle;
use parking_lot::Mutex;
use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;

/// The mirrors of a member. Cheap to clone; each follows as long as one clone lives.
#[derive(Clone)]
pub struct Mirrors {
    registry: RegistryHandle,
    started: Arc<Mutex<HashMap<TypeId, Box<dyn Any + Send>>>>,
}

impl Mirrors {
    /// None yet: each is started by the first who asks for it.
    #[must_use]
    pub fn over(registry: RegistryHandle) -> Self {
        Self { registry, started: Arc::default() }
    }

    /// The mirror of a kind. Must be called within a tokio runtime.
    #[must_use]
    pub fn of<K: Mirrored>(&self) -> Mirror<K> {
        let mut started = self.started.lock();
        let known = started.get(&TypeId::of::<K>()).and_then(|any| any.downcast_ref::<Mirror<K>>());
        if let Some(mirror) = known {
            return mirror.clone();
        }
        let mirror = Mirror::start(self.registry.clone(), &KindName::of::<K>().key());
        started.insert(TypeId::of::<K>(), Box::new(mirror.clone()));
        mirror
    }
}
