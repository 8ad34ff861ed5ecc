//! Furnishes a namespace, and empties it when it is deleted.
//!
//! A namespace that is there gets what every namespace has (`Objects::furnish`). One
//! that is being deleted loses all its objects, then its finalizer `kubernetes`, and with that it
//! is gone (API reference, Namespace v1).

use super::control::{Look, LookError, Next};
use super::view::{Assignment, CATCH_UP, served};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use impresario_api::resource::{Verb, resources};
use impresario_client::objects::{DeleteOptions, Door, ListQuery, WriteOptions};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::json;
use std::sync::Arc;

/// How long until a namespace that still has objects is looked at again.
const EMPTYING: SignedDuration = SignedDuration::from_millis(500);

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
            return Ok(Next::WhenTold);
        }
        if self.empty().await? {
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
        Ok(Next::At(Timestamp::now() + EMPTYING))
    }

    /// Deletes what is in the namespace. True if nothing is left.
    async fn empty(&self) -> Result<bool, LookError> {
        let objects = self.about.objects();
        let mut is_empty = true;
        let deletable =
            |verbs: &[Verb]| verbs.contains(&Verb::List) && verbs.contains(&Verb::Delete);
        for resource in resources().iter().filter(|r| r.namespaced && deletable(r.verbs)) {
            let query =
                ListQuery { namespace: Some(self.about.name.clone()), ..ListQuery::default() };
            if objects.list(resource, &query).await?.items.is_empty() {
                continue;
            }
            objects
                .delete_collection(
                    resource,
                    &query,
                    &DeleteOptions::default(),
                    &WriteOptions::default(),
                )
                .await?;
            is_empty &= objects.list(resource, &query).await?.items.is_empty();
        }
        Ok(is_empty)
    }
}

impl Look for NamespaceLook {
    fn look(&self) -> BoxFuture<'_, Result<Next, LookError>> {
        self.look_once().boxed()
    }
}
