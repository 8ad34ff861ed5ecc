//! Keeps as many pods alive as a `ReplicationController` object asks for.
//!
//! Holds no truth: [`plan`] decides from the mirrors, this module does what it says. Each action is
//! fenced and compares what was seen; what another was quicker at is seen by the next look.

pub mod plan;

use super::control::{Look, LookError, Next};
use super::mirror::Seen;
use super::owned::{self, Owner};
use super::view::{Assignment, replace};
use super::wrote::Wrote;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use impresario_registry_api::{Compare, Operation, Transaction};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::jiff::Timestamp;
use plan::Action;
use serde_json::Value;
use std::sync::Arc;

/// The controller of one object.
pub struct ReplicationControllerLook {
    about: Assignment,
    wrote_pods: Wrote,
    wrote_self: Wrote,
}

impl ReplicationControllerLook {
    /// A look at this replication controller.
    #[must_use]
    pub fn new(about: Assignment) -> Self {
        Self { about, wrote_pods: Wrote::default(), wrote_self: Wrote::default() }
    }

    /// The look, ready for a control actor.
    #[must_use]
    pub fn shared(self) -> Arc<dyn Look> {
        Arc::new(self)
    }

    async fn look_once(&self) -> Result<Next, LookError> {
        let view = &self.about.view;
        self.wrote_self.seen_by(&view.replication_controllers).await?;
        self.wrote_pods.seen_by(&view.pods).await?;
        let Some(seen) = view.replication_controllers.get(&self.about.namespace, &self.about.name)
        else {
            return Ok(Next::WhenTold);
        };
        if seen.object.metadata.uid.as_deref() != Some(&self.about.uid) {
            return Ok(Next::WhenTold);
        }
        let stored: Value = serde_json::from_slice(&seen.entry.value).map_err(|error| {
            LookError::Damaged { key: seen.entry.key.to_string(), cause: error.to_string() }
        })?;
        let owner = Owner { object: &stored, api_version: "v1", kind: "ReplicationController" };
        let concerned = |pod: &Pod| plan::concerns(&seen.object, pod);
        let pods = view.pods.picked_within(&self.about.namespace, concerned);
        let objects: Vec<_> = pods.iter().map(|pod| pod.object.clone()).collect();
        let pod = |name: &str, uid: &str| {
            let found = pods.iter().find(|pod| pod.entry.key.name == name);
            found.filter(|pod| pod.object.metadata.uid.as_deref() == Some(uid))
        };

        let mut writes = Vec::new();
        let mut creations = 0;
        let mut deletions = Vec::new();
        let mut status = None;
        for action in plan::reconcile(&seen.object, &objects, Timestamp::now()) {
            writes.push(match action {
                Action::Adopt { pod: name, uid } => match pod(&name, &uid) {
                    Some(pod) => owned::adopt(pod, &owner)?,
                    None => continue,
                },
                Action::Release { pod: name, uid } => match pod(&name, &uid) {
                    Some(pod) => owned::release(pod, &self.about.uid)?,
                    None => continue,
                },
                Action::Create(count) => {
                    creations = count;
                    continue;
                }
                Action::Delete { pod, uid } => {
                    deletions.push((pod, uid));
                    continue;
                }
                Action::Report(new) => {
                    status = Some(new);
                    continue;
                }
            });
        }
        // Each on its own: one that somebody else changed keeps no other from its owner, and no
        // transaction grows with the pods.
        let owned = self.change_owners(&seen, writes).await;

        let template = &stored["spec"]["template"];
        let pods =
            (0..creations).map(|_| owned::pod_from(template, &owner, &self.about.name)).collect();
        let made = owned::change_pods(&self.about, &seen, pods, deletions, &self.wrote_pods).await;
        owned.and(made)?;
        if let Some(status) = status {
            let write = replace(&seen, &["status"], &status)?;
            self.wrote_self.at(self.about.transact([write]).await?);
        }
        Ok(availability(&seen.object))
    }
}

impl ReplicationControllerLook {
    /// Applies these writes to pods as long as the controller is as it was seen: one that is being
    /// deleted meanwhile, and leaves its pods alone, must adopt nobody. All are tried; then the first
    /// failure counts.
    async fn change_owners(
        &self,
        controller: &Seen<ReplicationController>,
        writes: Vec<(Compare, Operation)>,
    ) -> Result<(), LookError> {
        let unchanged = Compare::Revision {
            key: controller.entry.key.clone(),
            revision: controller.entry.mod_revision,
        };
        let each = writes.into_iter().map(|(compare, operation)| {
            let transaction = Transaction {
                compares: vec![compare, unchanged.clone()],
                operations: vec![operation],
                fence: Some(self.about.fence),
                ..Transaction::default()
            };
            self.about.view.registry().transact(transaction)
        });
        let mut outcomes = futures_util::stream::iter(each).buffer_unordered(owned::CONCURRENT);
        let mut failed = None;
        while let Some(outcome) = outcomes.next().await {
            match outcome {
                Ok(committed) => self.wrote_pods.at(committed.revision),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }
}

/// A pod becomes available by time alone when `minReadySeconds` is set.
fn availability(controller: &ReplicationController) -> Next {
    let patience = controller.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0);
    let status = controller.status.as_ref();
    let waiting = status.is_some_and(|s| s.ready_replicas != s.available_replicas);
    if patience > 0 && waiting {
        Next::At(Timestamp::now() + k8s_openapi::jiff::SignedDuration::from_secs(1))
    } else {
        Next::WhenTold
    }
}

impl Look for ReplicationControllerLook {
    fn look(&self) -> BoxFuture<'_, Result<Next, LookError>> {
        self.look_once().boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::{View, served};
    use super::*;
    use impresario_objects::{Objects, WriteOptions};
    use impresario_registry::MemoryRegistry;
    use serde_json::json;

    async fn controller(objects: &Objects, replicas: i32) -> String {
        let labels = json!({ "app": "web" });
        let object = json!({
            "apiVersion": "v1", "kind": "ReplicationController", "metadata": { "name": "web" },
            "spec": { "replicas": replicas, "selector": labels, "template": {
                "metadata": { "labels": labels },
                "spec": { "containers": [{ "name": "c", "image": "i" }] } } },
        });
        let resource = served("", "replicationcontrollers");
        let made = objects.create(resource, "default", object, &WriteOptions::default()).await;
        made.unwrap()["metadata"]["uid"].as_str().unwrap().to_owned()
    }

    #[tokio::test]
    async fn looking_again_and_again_creates_no_more_pods_than_are_asked_for() {
        let registry = MemoryRegistry::default();
        registry.assign_shards(&["test".to_owned()]);
        let objects = Objects::new(Arc::new(registry));
        objects.lay_foundation("pem", 6443).await.unwrap();
        let uid = controller(&objects, 3).await;
        let view = View::start(objects, "test");
        let fence = impresario_registry_api::Fence {
            shard: impresario_registry_api::shard_of(&uid),
            epoch: impresario_registry_api::Epoch(1),
        };
        let look = ReplicationControllerLook::new(Assignment {
            view: view.clone(),
            fence,
            namespace: "default".into(),
            name: "web".into(),
            uid,
        });
        for _ in 0..5 {
            look.look_once().await.unwrap();
        }
        assert_eq!(view.pods.within("default").len(), 3);
        let seen = view.replication_controllers.get("default", "web").unwrap();
        assert_eq!(seen.object.status.as_ref().unwrap().replicas, 3);
    }
}
