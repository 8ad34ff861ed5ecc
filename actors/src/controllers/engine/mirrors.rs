//! One mirror for each resource that anybody on this member looks at.

use super::super::any_mirror::AnyMirror;
use super::super::mirror::{Mirror, Mirrored};
use super::super::partial::Partial;
use super::kind_name::KindName;
use impresario_registry_api::{RegistryHandle, Selection};
use parking_lot::Mutex;
use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

/// The mirrors of a member. Cheap to clone; each follows as long as one clone lives.
#[derive(Clone)]
pub struct Mirrors {
    registry: RegistryHandle,
    started: Arc<Mutex<HashMap<String, Vec<Started>>>>,
}

/// A mirror, as it is and as one of any kind.
struct Started {
    typed: Box<dyn Any + Send>,
    any: Arc<dyn AnyMirror>,
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
        self.typed(&KindName::of::<K>().key())
    }

    /// The mirror of those objects of a kind that have this name, one in each namespace at the most. Of the others
    /// nothing is read or kept.
    #[must_use]
    pub fn named<K: Mirrored>(&self, name: &'static str) -> Mirror<K> {
        let resource = KindName::of::<K>().key();
        // No resource has a space in its name: nobody takes it for the mirror of all.
        self.started_as(format!("{resource} {name}"), Selection::all(resource).named(name))
    }

    /// The mirror of the metadata of a resource, by its name in the registry, where nobody looks at more.
    #[must_use]
    pub fn partial(&self, resource: &str) -> Mirror<Partial> {
        self.typed(resource)
    }

    /// The mirror of a resource, by its name in the registry, for who looks at the metadata alone: the one that there
    /// is, whoever started it. Who wants more of it asks first.
    #[must_use]
    pub fn any(&self, resource: &str) -> Arc<dyn AnyMirror> {
        let known =
            self.started.lock().get(resource).and_then(|all| Some(all.first()?.any.clone()));
        known.unwrap_or_else(|| Arc::new(self.partial(resource)))
    }

    /// Lets the mirrors of a resource go that is not served any more: each ends with the last who still holds it.
    pub fn forget(&self, resource: &str) {
        self.started.lock().remove(resource);
    }

    fn typed<K: Mirrored>(&self, resource: &str) -> Mirror<K> {
        self.started_as(resource.to_owned(), Selection::all(resource))
    }

    fn started_as<K: Mirrored>(&self, what: String, select: Selection) -> Mirror<K> {
        let mut started = self.started.lock();
        let all = started.entry(what).or_default();
        if let Some(mirror) = all.iter().find_map(|one| one.typed.downcast_ref::<Mirror<K>>()) {
            return mirror.clone();
        }
        let mirror = Mirror::<K>::over(self.registry.clone(), select);
        let any = Arc::new(mirror.clone());
        all.push(Started { typed: Box::new(mirror.clone()), any });
        mirror
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use impresario_registry::{Key, MemoryRegistry, Registry as _, Transaction};
    use k8s_openapi::api::core::v1::Pod;
    use std::time::Duration;

    /// No passing test spends it.
    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn who_looks_at_metadata_shares_the_mirror_of_who_looks_at_more() {
        let registry = MemoryRegistry::default();
        let mirrors = Mirrors::over(Arc::new(registry.clone()));
        let _pods = mirrors.of::<Pod>();
        let _again = (mirrors.of::<Pod>(), mirrors.any("pods"), mirrors.any("things"));
        let shown = mirrors.any("things");
        let counts = |resource: &str| mirrors.started.lock()[resource].len();
        assert_eq!((counts("pods"), counts("things")), (1, 1));

        let thing = r#"{"metadata": {"name": "a", "namespace": "ns", "uid": "u"}, "spec": 1}"#;
        let create = Transaction::create(Key::new("things", "ns", "a"), thing);
        let revision = registry.transact(create).await.unwrap().revision;
        shown.reached(revision, LIMIT).await.unwrap();
        let seen = shown.get("ns", "a").unwrap();
        assert_eq!(seen.object.meta().uid.as_deref(), Some("u"));
    }

    #[tokio::test]
    async fn who_looks_at_one_name_holds_no_others() {
        let registry = MemoryRegistry::default();
        let mirrors = Mirrors::over(Arc::new(registry.clone()));
        let named: Mirror<Pod> = mirrors.named("a");
        let mut revision = 1;
        for (namespace, name) in [("x", "a"), ("x", "b"), ("y", "a"), ("z", "b")] {
            let pod = format!(r#"{{"metadata": {{"name": "{name}"}}}}"#);
            let create = Transaction::create(Key::new("pods", namespace, name), pod);
            let created = registry.transact(create).await.unwrap().revision;
            revision = if name == "a" { created } else { revision };
        }
        named.reached(revision, LIMIT).await.unwrap();
        assert!(named.get("x", "a").is_some() && named.get("y", "a").is_some());
        assert_eq!(named.all().len(), 2);
        let all = mirrors.any("pods");
        all.reached(1, LIMIT).await.unwrap();
        assert_eq!(all.picked(&|_, _| true).len(), 4, "it is not the mirror of all");
    }
}
