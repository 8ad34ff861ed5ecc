//! The desk of a job in a real cluster: objects of the registry, written under the shard's fence.

use super::desk::{Desk, DeskError, Sight};
use super::pods::JOB_LABEL;
use crate::controllers::activation::Activation;
use crate::controllers::mirror::{Change, Mirror, Seen};
use crate::controllers::owned::revision_of;
use crate::controllers::view::CATCH_UP;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::{BoxStream, StreamExt as _};
use impresario_api::catalog::find;
use impresario_api::resource::Row;
use impresario_api::selector::LabelSelector;
use impresario_api::status::Status;
use impresario_objects::events::{Recorder, Severity};
use impresario_objects::{
    DeleteOptions, Door, Filter, ListQuery, ObjectEvent, Objects, WatchQuery, WriteOptions,
};
use impresario_runtime::{Backoff, NodeName};
use k8s_openapi::api::core::v1::Pod;
use rand::Rng as _;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Sights that wait for the actor; while they do, the watches wait.
const SIGHTS: usize = 16;
const BACKOFF: Backoff =
    Backoff { first: Duration::from_millis(100), most: Duration::from_secs(5) };

/// A job's desk.
#[derive(Clone)]
pub struct ClusterDesk {
    objects: Objects,
    events: Recorder,
    pods: Mirror<Pod>,
    namespace: String,
    name: String,
    uid: String,
    control: Reached,
}

/// The control members and where they are reached, as far as they are known.
pub type Reached = Arc<dyn Fn() -> Vec<(NodeName, SocketAddr)> + Send + Sync>;

impl ClusterDesk {
    /// The desk of the job that is activated. `objects` must write under the fence of its shard; `pods` are all
    /// that there are.
    pub fn new(
        objects: Objects,
        events: Recorder,
        pods: Mirror<Pod>,
        activation: &Activation,
        control: Reached,
    ) -> Self {
        let Activation { namespace, name, uid, .. } = activation.clone();
        Self { objects, events, pods, namespace, name, uid, control }
    }
}

impl ClusterDesk {
    /// The job's object, as of every write that was acknowledged before.
    async fn job(&self) -> Result<Value, DeskError> {
        let jobs = resource("training.impresario.dev", "trainingjobs")?;
        match self.objects.get(&jobs, &self.namespace, &self.name).await {
            Ok(job) if job["metadata"]["uid"] == self.uid.as_str() => Ok(job),
            Ok(_another) => Err(DeskError::JobDeleted),
            Err(gone) if gone.code() == 404 => Err(DeskError::JobDeleted),
            Err(status) => Err(later(status)),
        }
    }
}

fn write() -> WriteOptions {
    WriteOptions { manager: "trainingjob".to_owned(), ..WriteOptions::default() }
}

fn resource(group: &str, plural: &str) -> Result<Row, DeskError> {
    find(group, "v1", plural)
        .ok_or_else(|| DeskError::Later { cause: format!("{plural} are not served") })
}

fn later(status: Status) -> DeskError {
    DeskError::Later { cause: status.to_string() }
}

impl Desk for ClusterDesk {
    fn follow(&self) -> BoxStream<'static, Sight> {
        let (sender, sights) = mpsc::channel(SIGHTS);
        // Both end when the actor no longer looks.
        tokio::spawn(self.clone().follow_job(sender.clone()));
        tokio::spawn(self.clone().follow_pods(sender));
        ReceiverStream::new(sights).boxed()
    }

    fn create_pod(&self, pod: Value) -> BoxFuture<'static, Result<String, DeskError>> {
        let desk = self.clone();
        async move {
            let (pods, job) = (resource("", "pods")?, desk.job().await?);
            if !job["metadata"]["deletionTimestamp"].is_null() {
                return Err(DeskError::JobDeleted);
            }
            let made = desk.objects.create(&pods, &desk.namespace, pod, &write()).await;
            let made = made.map_err(later)?;
            Ok(made["metadata"]["uid"].as_str().unwrap_or_default().to_owned())
        }
        .boxed()
    }

    fn delete_pod(&self, name: String, uid: String) -> BoxFuture<'static, Result<(), DeskError>> {
        let desk = self.clone();
        async move {
            let pods = resource("", "pods")?;
            let options = DeleteOptions { uid: Some(uid), ..DeleteOptions::default() };
            match desk.objects.delete(&pods, &desk.namespace, &name, &options, &write()).await {
                Ok(_) => Ok(()),
                // Gone, or another of the same name by now.
                Err(status) if status.is_superseded() => Ok(()),
                Err(status) => Err(later(status)),
            }
        }
        .boxed()
    }

    fn confirm(&self) -> BoxFuture<'static, Result<(), DeskError>> {
        let desk = self.clone();
        async move { desk.job().await.map(|_| ()) }.boxed()
    }

    fn control_members(&self) -> Vec<(NodeName, SocketAddr)> {
        (self.control)()
    }

    fn write_status(&self, status: Value) -> BoxFuture<'static, Result<(), DeskError>> {
        let desk = self.clone();
        async move {
            let jobs = resource("training.impresario.dev", "trainingjobs")?;
            let change = |job: &Value| {
                if job["metadata"]["uid"] != desk.uid.as_str() {
                    return Err(Status::not_found(&*jobs, &desk.name));
                }
                let mut job = job.clone();
                job["status"] = status.clone();
                Ok(job)
            };
            let (namespace, name, options) = (&desk.namespace, &desk.name, write());
            let written =
                desk.objects.modify(&jobs, Door::Status, namespace, name, &options, change);
            match written.await {
                Ok(_) => Ok(()),
                Err(gone) if gone.code() == 404 => Err(DeskError::JobDeleted),
                Err(status) => Err(later(status)),
            }
        }
        .boxed()
    }

    fn record(&self, job: &Value, warning: bool, reason: &str, message: &str) {
        let severity = if warning { Severity::Warning } else { Severity::Normal };
        self.events.record(job, severity, reason, message);
    }
}

impl ClusterDesk {
    async fn follow_job(self, sender: mpsc::Sender<Sight>) {
        let mut failures = 0;
        loop {
            tokio::select! {
                () = sender.closed() => return,
                outcome = self.job_once(&sender) => match outcome {
                    Ok(()) => failures = 0,
                    Err(error) => {
                        tracing::debug!(%error, job = self.name, "following again");
                        failures += 1;
                    }
                },
            }
            if !pause(&sender, failures).await {
                return;
            }
        }
    }

    async fn job_once(&self, sender: &mpsc::Sender<Sight>) -> Result<(), DeskError> {
        let resource = resource("training.impresario.dev", "trainingjobs")?;
        let namespace = Some(self.namespace.clone());
        let filter = Filter { name: Some(self.name.clone()), ..Filter::default() };
        let query = ListQuery {
            namespace: namespace.clone(),
            filter: filter.clone(),
            ..ListQuery::default()
        };
        let listed = self.objects.list(&resource, &query).await.map_err(later)?;
        let version = Some(listed.revision);
        let query = WatchQuery { namespace, filter, version, ..WatchQuery::default() };
        let mut watch = self.objects.watch(&resource, query).await.map_err(later)?;
        for job in listed.items {
            tell(Sight::Job(job), sender).await;
        }
        while let Some(event) = watch.next().await {
            if let ObjectEvent::Added(job) | ObjectEvent::Modified(job) = event.map_err(later)? {
                tell(Sight::Job(job), sender).await;
            }
        }
        Ok(())
    }

    /// The pods that the job owns. Who carries its label is not asked: anybody may.
    async fn follow_pods(self, sender: mpsc::Sender<Sight>) {
        let mut changes = self.pods.changes();
        let mut failures = 0;
        while let Err(error) = self.caught_up().await {
            tracing::debug!(%error, job = self.name, "its pods are not known yet");
            failures += 1;
            if !pause(&sender, failures).await {
                return;
            }
        }
        loop {
            // What has come so far is in the picture that is taken next.
            while changes.try_next().is_some() {}
            let mut pods = Vec::new();
            for seen in self.pods.controlled_by(&self.namespace, &self.uid) {
                match serde_json::from_slice(&seen.entry.value) {
                    Ok(pod) => pods.push(pod),
                    Err(error) => tracing::error!(pod = %seen.entry.key, %error, "left out"),
                }
            }
            tell(Sight::Pods(pods), &sender).await;
            loop {
                let change = tokio::select! {
                    () = sender.closed() => return,
                    change = changes.next() => change,
                };
                match change {
                    Some(change) if !self.concerns(&change) => {}
                    Some(_) => break,
                    None => return,
                }
            }
        }
    }

    /// Waits until the mirror shows every pod of the job that was made before this activation: another would
    /// be made in its place.
    async fn caught_up(&self) -> Result<(), DeskError> {
        let labels = LabelSelector::from_map(&json!({ JOB_LABEL: self.name }));
        let query = ListQuery {
            namespace: Some(self.namespace.clone()),
            filter: Filter { labels: Some(labels), ..Filter::default() },
            ..ListQuery::default()
        };
        let listed = self.objects.list(&resource("", "pods")?, &query).await.map_err(later)?;
        let newest = listed.items.iter().map(revision_of).max().unwrap_or(1);
        let reached = self.pods.reached(newest, CATCH_UP).await;
        reached.map_err(|behind| DeskError::Later { cause: behind.to_string() })
    }

    fn concerns(&self, change: &Change<Pod>) -> bool {
        let owned = |seen: &Seen<Pod>| {
            let mut owners = seen.object.metadata.owner_references.iter().flatten();
            owners.any(|owner| owner.uid == self.uid)
        };
        match change {
            Change::Put { now, before } => owned(now) || before.as_ref().is_some_and(owned),
            Change::Deleted { before } => owned(before),
            Change::Everything => true,
        }
    }
}

/// Waits for the next attempt; false when nobody looks any more.
async fn pause(sender: &mpsc::Sender<Sight>, failures: u32) -> bool {
    let wait = BACKOFF.wait(failures, rand::rng().random_range(0.0..1.0));
    tokio::select! {
        () = sender.closed() => false,
        () = tokio::time::sleep(wait) => true,
    }
}

async fn tell(sight: Sight, sender: &mpsc::Sender<Sight>) {
    // When nobody looks any more, `closed` ends the task.
    let _ = sender.send(sight).await.is_ok();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training_job::pods::Seen as Member;
    use impresario_registry::{
        Epoch, Fence, MemoryRegistry, Operation, Registry as _, Transaction, shard_of,
    };
    use std::sync::Arc;

    fn pod(name: &str, labels: &Value, owners: &Value) -> Operation {
        let pod = json!({
            "metadata": { "name": name, "namespace": "a", "uid": name, "labels": labels,
                "ownerReferences": owners },
            "spec": { "containers": [] },
        });
        let key = impresario_registry::Key::new("pods", "a", name);
        Operation::Put { key, value: pod.to_string().into_bytes().into() }
    }

    fn owner(uid: &str, controller: bool) -> Value {
        json!({ "apiVersion": "training.impresario.dev/v1", "kind": "TrainingJob", "name": "job",
            "uid": uid, "controller": controller })
    }

    fn resource_of(group: &str, plural: &str) -> impresario_api::resource::Row {
        resource(group, plural).unwrap()
    }

    fn desk_of(registry: &MemoryRegistry, uid: &str) -> ClusterDesk {
        let handle: impresario_registry::RegistryHandle = Arc::new(registry.clone());
        let objects = Objects::new(handle.clone());
        let activation = Activation {
            actor: format!("trainingjob/{uid}").into(),
            namespace: "a".into(),
            name: "job".into(),
            uid: uid.into(),
            fence: Fence { shard: shard_of(uid), epoch: Epoch(1) },
            since: std::time::Instant::now(),
        };
        let events = Recorder::start(objects.clone(), "test", "");
        let pods = Mirror::start(handle, "pods");
        ClusterDesk::new(objects, events, pods, &activation, Arc::new(Vec::new))
    }

    #[tokio::test]
    async fn a_job_that_was_made_again_gets_nothing_of_the_one_before() {
        let registry = MemoryRegistry::new();
        let job = json!({ "metadata": { "name": "job", "namespace": "a", "uid": "new" } });
        let resource = "training.impresario.dev/trainingjobs";
        let key = impresario_registry::Key::new(resource, "a", "job");
        let create = Transaction::create(key.clone(), job.to_string());
        registry.transact(create).await.unwrap();
        let desk = desk_of(&registry, "old");
        let written = desk.write_status(json!({ "phase": "Succeeded" })).await;
        assert_eq!(written, Err(DeskError::JobDeleted));
        assert_eq!(desk.confirm().await, Err(DeskError::JobDeleted));
        let made = desk.create_pod(json!({ "metadata": {} })).await;
        assert_eq!(made, Err(DeskError::JobDeleted));
        let stored = registry.get(key, impresario_registry::Consistency::Local).await.unwrap();
        let stored: Value = serde_json::from_slice(&stored.0.unwrap().value).unwrap();
        assert_eq!(stored, job);
    }

    #[tokio::test]
    async fn a_job_that_lingers_while_it_is_deleted_gets_no_pods() {
        let registry = MemoryRegistry::new();
        let mut job = json!({ "metadata": { "name": "job", "namespace": "a", "uid": "u" } });
        let resource = "training.impresario.dev/trainingjobs";
        let key = impresario_registry::Key::new(resource, "a", "job");
        let desk = desk_of(&registry, "u");
        desk.objects.lay_foundation("authority", 6443).await.unwrap();
        let space = json!({ "metadata": { "name": "a" } });
        let namespaces = resource_of("", "namespaces");
        desk.objects.create(&namespaces, "", space, &write()).await.unwrap();
        let pod = json!({ "metadata": { "generateName": "job-" },
            "spec": { "containers": [{ "name": "main", "image": "x" }] } });
        let put = |job: &Value| Transaction::default().put(key.clone(), job.to_string());
        registry.transact(put(&job)).await.unwrap();
        desk.create_pod(pod.clone()).await.expect("as long as it is not deleted");
        job["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        job["metadata"]["finalizers"] = json!(["orphan"]);
        registry.transact(put(&job)).await.unwrap();
        assert_eq!(desk.create_pod(pod).await, Err(DeskError::JobDeleted));
        let pods =
            desk.objects.list(&resource_of("", "pods"), &ListQuery::default()).await.unwrap();
        assert_eq!(pods.items.len(), 1);
    }

    #[tokio::test]
    async fn a_job_has_the_pods_that_it_controls_and_none_that_only_look_like_them() {
        let registry = MemoryRegistry::new();
        let labels = json!({ JOB_LABEL: "job", "training.impresario.dev/role": "trainer" });
        let role = json!({ "training.impresario.dev/role": "trainer" });
        let operations = vec![
            pod("own", &labels, &json!([owner("u1", true)])),
            pod("relabelled", &role, &json!([owner("u1", true)])),
            pod("of-a-user", &labels, &json!([])),
            pod("of-another", &labels, &json!([owner("u2", true)])),
            pod("watched", &labels, &json!([owner("u1", false)])),
        ];
        registry.transact(Transaction { operations, ..Transaction::default() }).await.unwrap();
        let desk = desk_of(&registry, "u1");
        let mut sights = desk.follow();
        let mut next = async || -> Vec<String> {
            loop {
                match sights.next().await.unwrap() {
                    Sight::Pods(pods) => {
                        let members = pods.iter().filter_map(|pod| Member::read(pod, "u1"));
                        return members.map(|member| member.name).collect();
                    }
                    Sight::Job(_) => {}
                }
            }
        };
        assert_eq!(next().await, ["own", "relabelled"]);
        let key = impresario_registry::Key::new("pods", "a", "own");
        let operations = vec![Operation::Delete { key }];
        registry.transact(Transaction { operations, ..Transaction::default() }).await.unwrap();
        assert_eq!(next().await, ["relabelled"]);
    }
}
