//! Keeps the Endpoints of a `Service` the addresses of the pods that its selector selects.

pub mod endpoints;

use super::control::{Look, LookError, Next};
use super::owned::{Owner, revision_of};
use super::view::{CATCH_UP, View, replace, served};
use super::wrote::Wrote;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use impresario_client::objects::WriteOptions;
use impresario_registry::{Fence, Transaction};
use serde_json::{Value, json};
use std::sync::Arc;

/// The controller of one service.
pub struct ServiceLook {
    view: View,
    fence: Fence,
    namespace: String,
    name: String,
    uid: String,
    wrote: Wrote,
}

impl ServiceLook {
    /// A look at the service of this name and uid.
    #[must_use]
    pub fn new(view: View, fence: Fence, namespace: &str, name: &str, uid: &str) -> Self {
        Self {
            view,
            fence,
            namespace: namespace.into(),
            name: name.into(),
            uid: uid.into(),
            wrote: Wrote::default(),
        }
    }

    /// The look, ready for a control actor.
    #[must_use]
    pub fn shared(self) -> Arc<dyn Look> {
        Arc::new(self)
    }

    async fn look_once(&self) -> Result<Next, LookError> {
        let view = &self.view;
        view.services.reached(1, CATCH_UP).await?;
        view.pods.reached(1, CATCH_UP).await?;
        self.wrote.seen_by(&view.endpoints).await?;
        let Some(service) = view.services.get(&self.namespace, &self.name) else {
            return Ok(Next::WhenTold);
        };
        let metadata = &service.object.metadata;
        if metadata.uid.as_deref() != Some(&self.uid) || metadata.deletion_timestamp.is_some() {
            return Ok(Next::WhenTold);
        }
        let pods: Vec<_> =
            view.pods.within(&self.namespace).into_iter().map(|pod| pod.object).collect();
        let Some(subsets) = endpoints::subsets(&service.object, &pods) else {
            return Ok(Next::WhenTold);
        };
        let revision = match view.endpoints.get(&self.namespace, &self.name) {
            Some(seen) => {
                if seen.object.subsets.as_deref().unwrap_or_default() == subsets {
                    return Ok(Next::WhenTold);
                }
                let (compare, operation) = replace(&seen, &["subsets"], &subsets)?;
                let transaction = Transaction {
                    compares: vec![compare],
                    operations: vec![operation],
                    fence: Some(self.fence),
                    ..Transaction::default()
                };
                view.registry().transact(transaction).await?.revision
            }
            None => {
                let stored: Value =
                    serde_json::from_slice(&service.entry.value).map_err(|error| {
                        let key = service.entry.key.to_string();
                        LookError::Damaged { key, cause: error.to_string() }
                    })?;
                let owner = Owner { object: &stored, api_version: "v1", kind: "Service" };
                let mut labels = stored["metadata"]["labels"].clone();
                if !labels.is_object() {
                    labels = json!({});
                }
                labels["endpoints.kubernetes.io/managed-by"] = "endpoint-controller".into();
                let object = json!({
                    "apiVersion": "v1",
                    "kind": "Endpoints",
                    "metadata": {
                        "name": self.name,
                        "labels": labels,
                        "ownerReferences": [owner.reference()],
                    },
                    "subsets": subsets,
                });
                let objects = view.objects.fenced(self.fence);
                let options = WriteOptions::default();
                let made = objects
                    .create(served("", "endpoints"), &self.namespace, object, &options)
                    .await?;
                revision_of(&made)
            }
        };
        self.wrote.at(revision);
        Ok(Next::WhenTold)
    }
}

impl Look for ServiceLook {
    fn look(&self) -> BoxFuture<'_, Result<Next, LookError>> {
        self.look_once().boxed()
    }
}
