//! Furnishes a namespace, and empties it when it is deleted.
//!
//! A namespace that is there gets what every namespace has (`Objects::furnish`), again if somebody
//! takes it away or changes it. One that is being deleted loses its pods, then all other objects, then
//! its finalizer `kubernetes`, and with that it is gone; until then its conditions say what holds it
//! up (API reference, Namespace v1).

pub mod conditions;

use super::control::{Look, LookError, Next};
use super::mirror::Seen;
use super::owned;
use super::view::{Assignment, replace, served};
use super::wrote::Wrote;
use conditions::{Remains, conditions};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use impresario_api::catalog::resources;
use impresario_api::resource::{Resource, Verb};
use impresario_api::status::Status;
use impresario_objects::{DeleteOptions, Door, ListQuery, WriteOptions};
use impresario_registry_api::Consistency;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::sync::Arc;

/// The config map in each namespace by which pods know the cluster's authority.
pub const AUTHORITY_MAP: &str = "kube-root-ca.crt";
/// How long until a namespace that still has objects is looked at again, at least and at most.
const EMPTYING: (SignedDuration, SignedDuration) =
    (SignedDuration::from_millis(500), SignedDuration::from_secs(5));

/// The controller of one namespace.
pub struct NamespaceLook {
    about: Assignment,
    authority_pem: Arc<str>,
    wrote_self: Wrote,
}

impl NamespaceLook {
    /// A look at this namespace, in the cluster of this authority.
    #[must_use]
    pub fn new(about: Assignment, authority_pem: Arc<str>) -> Self {
        Self { about, authority_pem, wrote_self: Wrote::default() }
    }

    /// The look, ready for a control actor.
    #[must_use]
    pub fn shared(self) -> Arc<dyn Look> {
        Arc::new(self)
    }

    async fn look_once(&self) -> Result<Next, LookError> {
        self.wrote_self.seen_by(&self.about.view.namespaces).await?;
        let Some(seen) = self.about.view.namespaces.get("", &self.about.name) else {
            return Ok(Next::WhenTold);
        };
        if seen.object.metadata.uid.as_deref() != Some(&self.about.uid) {
            return Ok(Next::WhenTold);
        }
        if seen.object.metadata.deletion_timestamp.is_none() {
            let objects = self.about.objects();
            objects.furnish(&self.about.name, &self.authority_pem).await?;
            self.restore().await?;
            return Ok(Next::WhenTold);
        }
        if !self.is_ours().await? {
            return Ok(Next::WhenTold);
        }
        let remains = self.empty().await?;
        if remains.is_empty() {
            self.finalize().await?;
            return Ok(Next::WhenTold);
        }
        self.tell(&seen, &remains).await?;
        Ok(Next::At(next_try(&seen, Timestamp::now())))
    }

    /// Whether the registry still has the namespace that this is about, and it is being deleted. A mirror
    /// may show it after its end, when another has its name.
    async fn is_ours(&self) -> Result<bool, LookError> {
        let (objects, name) = (self.about.objects(), &self.about.name);
        let found =
            objects.find(served("", "namespaces"), "", name, Consistency::Linearizable).await?;
        Ok(found.is_some_and(|stored| self.is_this(&stored.object)))
    }

    fn is_this(&self, namespace: &Value) -> bool {
        let metadata = &namespace["metadata"];
        metadata["uid"] == self.about.uid && !metadata["deletionTimestamp"].is_null()
    }

    /// Lets the namespace go; not another of its name.
    async fn finalize(&self) -> Result<(), LookError> {
        let (objects, options) = (self.about.objects(), WriteOptions::default());
        let namespaces = served("", "namespaces");
        let name = &self.about.name;
        let finalized = objects
            .modify(namespaces, Door::Finalize, "", name, &options, |namespace| {
                if !self.is_this(namespace) {
                    return Err(Status::not_found(namespaces, name));
                }
                let mut namespace = namespace.clone();
                namespace["spec"]["finalizers"] = json!([]);
                Ok(namespace)
            })
            .await;
        match finalized {
            Ok(namespace) => self.wrote_self.at(owned::revision_of(&namespace)),
            Err(status) if status.code() == 404 => {}
            Err(status) => return Err(status.into()),
        }
        Ok(())
    }

    /// Deletes what is in the namespace, and tells what is left. Pods go first: nothing that they use
    /// is taken from them while they end. What cannot be deleted keeps nothing else from going.
    async fn empty(&self) -> Result<Remains, LookError> {
        let mut remains = Remains::default();
        self.empty_of(served("", "pods"), &mut remains).await?;
        if !remains.is_empty() {
            return Ok(remains);
        }
        let deletable =
            |verbs: &[Verb]| verbs.contains(&Verb::List) && verbs.contains(&Verb::Delete);
        for resource in resources().iter().filter(|r| r.namespaced && deletable(r.verbs)) {
            self.empty_of(resource, &mut remains).await?;
        }
        Ok(remains)
    }

    async fn empty_of(
        &self,
        resource: &'static Resource,
        remains: &mut Remains,
    ) -> Result<(), LookError> {
        let objects = self.about.objects();
        let query = ListQuery { namespace: Some(self.about.name.clone()), ..ListQuery::default() };
        let name = format!("{}.{}", resource.plural, resource.group);
        let left = async {
            let found = objects.list(resource, &query).await?.items;
            if found.is_empty() {
                return Ok((found, Vec::new()));
            }
            // Whatever was there while this namespace still is was in this one and in no other.
            if !self.is_ours().await? {
                return Ok((Vec::new(), Vec::new()));
            }
            let failures = self.delete(resource, &found).await?;
            Ok::<_, LookError>((objects.list(resource, &query).await?.items, failures))
        };
        match left.await {
            Ok((items, failures)) => {
                for object in items {
                    let finalizers = object["metadata"]["finalizers"].as_array();
                    let finalizers = finalizers.into_iter().flatten().filter_map(Value::as_str);
                    remains.add(&name, finalizers);
                }
                if let Some(first) = failures.first() {
                    remains.failures.push(format!("{name}: {}", first.message));
                }
            }
            Err(error) if error.is_fenced() => return Err(error),
            Err(LookError::Refused(status)) => {
                remains.failures.push(format!("{name}: {}", status.message));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Deletes these very objects, and no others of their names. Gives what went wrong: all are tried.
    async fn delete(
        &self,
        resource: &'static Resource,
        found: &[Value],
    ) -> Result<Vec<Status>, LookError> {
        let objects = self.about.objects();
        let write = WriteOptions::default();
        let deletions = found.iter().map(|object| {
            let metadata = &object["metadata"];
            let uid = metadata["uid"].as_str().unwrap_or_default().to_owned();
            let options = DeleteOptions { uid: Some(uid), ..DeleteOptions::default() };
            let name = metadata["name"].as_str().unwrap_or_default();
            let (objects, write) = (&objects, &write);
            async move { objects.delete(resource, &self.about.name, name, &options, write).await }
                .boxed()
        });
        let deletions: Vec<BoxFuture<'_, _>> = deletions.collect();
        let mut outcomes =
            futures_util::stream::iter(deletions).buffer_unordered(owned::CONCURRENT);
        let mut failures = Vec::new();
        while let Some(outcome) = outcomes.next().await {
            match outcome {
                Ok(_) => {}
                Err(status) if matches!(status.code(), 404 | 409) => {}
                // The registry itself cannot be reached: nothing else would go better.
                Err(status) if matches!(status.code(), 429 | 503 | 504) => {
                    return Err(status.into());
                }
                Err(status) => failures.push(status),
            }
        }
        Ok(failures)
    }

    /// Writes into the conditions what holds the deletion up.
    async fn tell(&self, seen: &Seen<Namespace>, remains: &Remains) -> Result<(), LookError> {
        let now = Timestamp::now();
        let status = seen.object.status.as_ref();
        let old = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let Some(conditions) = conditions(old, remains, now) else { return Ok(()) };
        let write = replace(seen, &["status", "conditions"], &conditions)?;
        self.wrote_self.at(self.about.transact([write]).await?);
        Ok(())
    }

    /// Puts the authority's certificate back where somebody changed it.
    async fn restore(&self) -> Result<(), LookError> {
        let objects = self.about.objects();
        let maps = served("", "configmaps");
        let (namespace, options) = (&self.about.name, WriteOptions::default());
        let data = json!({ "ca.crt": *self.authority_pem });
        objects
            .modify(maps, Door::Main, namespace, AUTHORITY_MAP, &options, |map| {
                let mut map = map.clone();
                if let Some(fields) = map.as_object_mut() {
                    fields.insert("data".into(), data.clone());
                    fields.remove("binaryData");
                }
                Ok(map)
            })
            .await?;
        Ok(())
    }
}

/// When a namespace that still has objects is looked at again: the longer it lasts, the later.
fn next_try(seen: &Seen<Namespace>, now: Timestamp) -> Timestamp {
    let since = seen.object.metadata.deletion_timestamp.as_ref().map_or(now, |time| time.0);
    let lasted = now.duration_since(since) / 8;
    now + lasted.clamp(EMPTYING.0, EMPTYING.1)
}

impl Look for NamespaceLook {
    fn look(&self) -> BoxFuture<'_, Result<Next, LookError>> {
        self.look_once().boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::View;
    use super::*;
    use impresario_objects::Objects;
    use impresario_registry::{
        Epoch, Fence, Key, MemoryRegistry, Registry as _, Shard, Transaction,
    };

    fn namespace(uid: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x", "uid": uid},
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}})
    }

    fn going(uid: &str) -> Value {
        let mut namespace = namespace(uid);
        namespace["metadata"]["deletionTimestamp"] = "2024-01-01T00:00:00Z".into();
        namespace["status"]["phase"] = "Terminating".into();
        namespace
    }

    async fn registry(namespace: &Value) -> MemoryRegistry {
        let registry = MemoryRegistry::default();
        registry.assign_shards(&["test".to_owned()]);
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "m", "namespace": "x", "uid": "m"}});
        for (key, object) in
            [(Key::new("namespaces", "", "x"), namespace), (Key::new("configmaps", "x", "m"), &map)]
        {
            registry.transact(Transaction::create(key, object.to_string())).await.unwrap();
        }
        registry
    }

    /// A look at the namespace of this uid in `now`, with mirrors that show `before`.
    fn look(now: &MemoryRegistry, before: &MemoryRegistry, uid: &str) -> NamespaceLook {
        let mut view = View::start(Objects::new(Arc::new(before.clone())), "test");
        view.objects = Objects::new(Arc::new(now.clone()));
        let about = Assignment {
            view,
            fence: Fence { shard: Shard(0), epoch: Epoch(1) },
            since: std::time::Instant::now(),
            namespace: String::new(),
            name: "x".into(),
            uid: uid.into(),
        };
        NamespaceLook::new(about, "authority".into())
    }

    async fn held(registry: &MemoryRegistry, key: Key) -> Option<Value> {
        let entry = registry.get(key, Consistency::Local).await.unwrap().0?;
        Some(serde_json::from_slice(&entry.value).unwrap())
    }

    #[tokio::test]
    async fn a_namespace_that_was_made_again_is_not_emptied_for_the_one_before() {
        let (before, now) = (registry(&going("old")).await, registry(&namespace("new")).await);
        let look = look(&now, &before, "old");
        assert_eq!(look.look_once().await.unwrap(), Next::WhenTold);
        assert!(held(&now, Key::new("configmaps", "x", "m")).await.is_some());
        // Not by the actions of a look that was under way, either.
        look.empty().await.unwrap();
        look.finalize().await.unwrap();
        assert!(held(&now, Key::new("configmaps", "x", "m")).await.is_some());
        let kept = held(&now, Key::new("namespaces", "", "x")).await.unwrap();
        assert_eq!(kept["spec"]["finalizers"], json!(["kubernetes"]));
    }

    #[tokio::test]
    async fn a_namespace_that_goes_is_emptied_and_then_gone() {
        let now = registry(&going("old")).await;
        let look = look(&now, &now, "old");
        assert_eq!(look.look_once().await.unwrap(), Next::WhenTold);
        assert!(held(&now, Key::new("configmaps", "x", "m")).await.is_none());
        assert!(held(&now, Key::new("namespaces", "", "x")).await.is_none());
    }
}
