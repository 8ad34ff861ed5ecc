//! Furnishes a namespace, and empties it when it is deleted.
//!
//! A namespace that is there gets what every namespace has (`Objects::furnish`), again if somebody
//! takes it away or changes it. One that is being deleted loses its pods, then all other objects, then
//! its finalizer `kubernetes`, and with that it is gone; until then its conditions say what holds it
//! up (API reference, Namespace v1).

pub mod conditions;

use super::control::{Look, LookError, Next};
use super::mirror::Seen;
use super::view::{Assignment, CATCH_UP, replace, served};
use conditions::{Remains, conditions};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use impresario_api::resource::{Resource, Verb, resources};
use impresario_api::status::Status;
use impresario_objects::{DeleteOptions, Door, ListQuery, WriteOptions};
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
}

impl NamespaceLook {
    /// A look at this namespace, in the cluster of this authority.
    #[must_use]
    pub fn new(about: Assignment, authority_pem: Arc<str>) -> Self {
        Self { about, authority_pem }
    }

    /// The look, ready for a control actor.
    #[must_use]
    pub fn shared(self) -> Arc<dyn Look> {
        Arc::new(self)
    }

    async fn look_once(&self) -> Result<Next, LookError> {
        self.about.view.namespaces.reached(1, CATCH_UP).await?;
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
        let remains = self.empty().await?;
        if remains.is_empty() {
            let objects = self.about.objects();
            let options = WriteOptions::default();
            let namespaces = served("", "namespaces");
            objects
                .modify(namespaces, Door::Finalize, "", &self.about.name, &options, |namespace| {
                    let mut namespace = namespace.clone();
                    namespace["spec"]["finalizers"] = json!([]);
                    Ok(namespace)
                })
                .await?;
            return Ok(Next::WhenTold);
        }
        self.tell(&seen, &remains).await?;
        Ok(Next::At(next_try(&seen, Timestamp::now())))
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
        let (options, write) = (DeleteOptions::default(), WriteOptions::default());
        let left = async {
            if objects.list(resource, &query).await?.items.is_empty() {
                return Ok(Vec::new());
            }
            objects.delete_collection(resource, &query, &options, &write).await?;
            Ok::<_, Status>(objects.list(resource, &query).await?.items)
        };
        match left.await {
            Ok(items) => {
                for object in items {
                    let finalizers = object["metadata"]["finalizers"].as_array();
                    let finalizers = finalizers.into_iter().flatten().filter_map(Value::as_str);
                    remains.add(&name, finalizers);
                }
            }
            Err(status) => remains.failures.push(format!("{name}: {}", status.message)),
        }
        Ok(())
    }

    /// Writes into the conditions what holds the deletion up.
    async fn tell(&self, seen: &Seen<Namespace>, remains: &Remains) -> Result<(), LookError> {
        let now = Timestamp::now();
        let status = seen.object.status.as_ref();
        let old = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let Some(conditions) = conditions(old, remains, now) else { return Ok(()) };
        let write = replace(seen, &["status", "conditions"], &conditions)?;
        self.about.transact([write]).await?;
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
