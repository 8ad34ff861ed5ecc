//! Keeps as many pods alive as a `ReplicationController` object asks for.
//!
//! Holds no truth: [`plan`] decides from the mirrors, this module does what it says. Each action is
//! fenced and compares what was seen; what another was quicker at is seen by the next look.

mod failures;
pub mod plan;

use super::control::{Look, LookError, Next};
use super::mirror::Seen;
use super::owned::{self, Owner};
use super::view::{Assignment, replace};
use super::wrote::Wrote;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use impresario_registry_api::{Compare, Operation, Transaction};
use k8s_openapi::api::core::v1::{Pod, ReplicationController, ReplicationControllerStatus};
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
        let [wrote_pods, wrote_self] = [(); 2].map(|()| Wrote::since(about.since));
        Self { about, wrote_pods, wrote_self }
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
        let mut wait = None;
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
                Action::Wait(until) => {
                    wait = Some(until);
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
        let reason = if creations > 0 { plan::FAILED_CREATE } else { plan::FAILED_DELETE };
        let refused = match &made {
            Err(error) if error.is_of_one_object() => Some((reason, error.to_string())),
            _ => wait.and_then(|until| plan::waiting(until, Timestamp::now())),
        };
        let was = seen.object.status.as_ref().and_then(|status| status.conditions.as_ref());
        let conditions = plan::conditions(was, refused, Timestamp::now());
        if conditions.as_ref() != was {
            let status =
                status.get_or_insert_with(|| seen.object.status.clone().unwrap_or_default());
            status.conditions = conditions;
        }
        // What failed is said before it is tried again.
        let told = match status {
            Some(status) => self.report(&seen, &status).await,
            None => Ok(()),
        };
        owned.and(made).and(told)?;
        Ok(match (availability(&seen.object), wait) {
            (Next::At(one), Some(other)) => Next::At(one.min(other)),
            (Next::WhenTold, Some(until)) => Next::At(until),
            (next, None) => next,
        })
    }
}

impl ReplicationControllerLook {
    async fn report(
        &self,
        seen: &Seen<ReplicationController>,
        status: &ReplicationControllerStatus,
    ) -> Result<(), LookError> {
        let write = replace(seen, &["status"], status)?;
        self.wrote_self.at(self.about.transact([write]).await?);
        Ok(())
    }

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
    use impresario_registry_api::transaction::MAX_ITEMS;
    use impresario_registry_api::{
        Around, Key, ListRequest, Registry, Selection, Watch, WatchError, WatchRequest,
    };
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

    fn look(view: &View, uid: &str) -> ReplicationControllerLook {
        let fence = impresario_registry_api::Fence {
            shard: impresario_registry_api::shard_of(uid),
            epoch: impresario_registry_api::Epoch(1),
        };
        ReplicationControllerLook::new(Assignment {
            view: view.clone(),
            fence,
            since: std::time::Instant::now(),
            namespace: "default".into(),
            name: "web".into(),
            uid: uid.into(),
        })
    }

    async fn founded(registry: &MemoryRegistry) -> Objects {
        registry.assign_shards(&["test".to_owned()]);
        let objects = Objects::new(Arc::new(registry.clone()));
        objects.lay_foundation("pem", 6443).await.unwrap();
        objects
    }

    #[tokio::test]
    async fn looking_again_and_again_creates_no_more_pods_than_are_asked_for() {
        let objects = founded(&MemoryRegistry::default()).await;
        let uid = controller(&objects, 3).await;
        let view = View::start(objects, "test");
        let look = look(&view, &uid);
        for _ in 0..5 {
            look.look_once().await.unwrap();
        }
        assert_eq!(view.pods.within("default").len(), 3);
        let seen = view.replication_controllers.get("default", "web").unwrap();
        assert_eq!(seen.object.status.as_ref().unwrap().replicas, 3);
    }

    #[tokio::test]
    async fn why_no_pod_can_be_created_stands_in_the_controller_until_one_can() {
        let registry = MemoryRegistry::default();
        let objects = founded(&registry).await;
        let uid = controller(&objects, 2).await;
        let view = View::start(objects.clone(), "test");
        let look = look(&view, &uid);
        let condition = async || {
            look.wrote_self.seen_by(&view.replication_controllers).await.unwrap();
            let seen = view.replication_controllers.get("default", "web").unwrap();
            let conditions = seen.object.status.as_ref()?.conditions.as_ref()?;
            let [said] = conditions.as_slice() else { panic!("{conditions:?}") };
            Some((said.type_.clone(), said.reason.clone()?, said.message.clone()?))
        };
        let namespace = Key::new("namespaces", "", "default");
        registry.transact(Transaction::new().delete(namespace)).await.unwrap();
        let refused = look.look_once().await.unwrap_err();
        let failure = ("ReplicaFailure".into(), "FailedCreate".into(), refused.to_string());
        assert_eq!(condition().await, Some(failure));
        objects.lay_foundation("pem", 6443).await.unwrap();
        look.look_once().await.unwrap();
        assert_eq!(condition().await, None);
    }

    #[tokio::test]
    async fn more_orphans_than_one_transaction_takes_are_adopted_at_once() {
        let registry = MemoryRegistry::default();
        let objects = founded(&registry).await;
        let orphans = i32::try_from(MAX_ITEMS).unwrap() + 76;
        for number in 0..orphans {
            let pod = json!({
                "apiVersion": "v1", "kind": "Pod", "status": { "phase": "Pending" },
                "metadata": { "name": format!("p{number}"), "namespace": "default",
                    "uid": format!("u{number}"), "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "c", "image": "i" }] },
            });
            let key = Key::new("pods", "default", format!("p{number}"));
            registry.transact(Transaction::create(key, pod.to_string())).await.unwrap();
        }
        let uid = controller(&objects, orphans).await;
        let view = View::start(objects, "test");
        let look = look(&view, &uid);
        look.look_once().await.unwrap();
        look.wrote_pods.seen_by(&view.pods).await.unwrap();
        let pods = view.pods.within("default");
        assert_eq!(pods.len(), MAX_ITEMS + 76, "none had to be created");
        for pod in pods {
            let owners = pod.object.metadata.owner_references.clone().unwrap_or_default();
            let owner = owners.first().map(|owner| owner.uid.as_str());
            assert_eq!(owner, Some(uid.as_str()), "{}", pod.entry.key);
        }
    }

    /// A registry whose watches of pods tell nothing until it is opened.
    struct Late {
        registry: MemoryRegistry,
        open: tokio::sync::watch::Receiver<bool>,
    }

    impl Around for Late {
        fn inner(&self) -> &dyn Registry {
            &self.registry
        }

        fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Watch, WatchError>> {
            async move {
                let (mut open, is_late) = (self.open.clone(), request.select.resource == "pods");
                let watch = self.registry.watch(request).await?;
                let opened = async move {
                    if is_late {
                        let _ = open.wait_for(|open| *open).await;
                    }
                    watch
                };
                Ok(Watch::new(opened.flatten_stream()))
            }
            .boxed()
        }
    }

    #[tokio::test]
    async fn a_new_activation_creates_nothing_before_it_sees_what_the_one_before_created() {
        let registry = MemoryRegistry::default();
        let objects = founded(&registry).await;
        let uid = controller(&objects, 3).await;
        let (opener, open) = tokio::sync::watch::channel(false);
        let late = Objects::new(Arc::new(Late { registry, open }));
        let view = View::start(late.clone(), "test");
        view.pods.reached(1, std::time::Duration::from_secs(60)).await.unwrap();

        // Its view is its own, and sees everything at once.
        look(&View::start(objects, "before"), &uid).look_once().await.unwrap();

        let after = look(&view, &uid);
        let mut looking = after.look_once().boxed();
        assert!(futures_util::poll!(&mut looking).is_pending());
        opener.send_replace(true);
        looking.await.unwrap();
        after.look_once().await.unwrap();
        let all = late.registry().list(ListRequest::of(Selection::all("pods"))).await.unwrap();
        assert_eq!(all.entries.len(), 3);
    }
}
