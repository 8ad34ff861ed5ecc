//! The desk of a job in a real cluster: objects of the registry, written under the shard's fence.

use super::desk::{Desk, DeskError, Sight};
use super::pods::JOB_LABEL;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::{BoxStream, StreamExt as _};
use impresario_api::resource::{Resource, find};
use impresario_api::selector::LabelSelector;
use impresario_api::status::Status;
use impresario_objects::events::{Recorder, Severity};
use impresario_objects::{
    DeleteOptions, Door, Filter, ListQuery, ObjectEvent, Objects, WatchQuery, WriteOptions,
};
use impresario_runtime::Backoff;
use rand::Rng as _;
use serde_json::{Value, json};
use std::collections::BTreeMap;
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
    namespace: String,
    name: String,
}

impl ClusterDesk {
    /// The desk of the job of this name. `objects` must write under the fence of the job's shard.
    pub fn new(objects: Objects, events: Recorder, namespace: &str, name: &str) -> Self {
        Self { objects, events, namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

impl ClusterDesk {
    /// The job's object, as of every write that was acknowledged before.
    async fn job(&self) -> Result<Value, DeskError> {
        let jobs = resource("training.impresario.dev", "trainingjobs")?;
        match self.objects.get(jobs, &self.namespace, &self.name).await {
            Ok(job) => Ok(job),
            Err(gone) if gone.code() == 404 => Err(DeskError::JobDeleted),
            Err(status) => Err(later(status)),
        }
    }
}

fn write() -> WriteOptions {
    WriteOptions { manager: "trainingjob".to_owned(), ..WriteOptions::default() }
}

fn resource(group: &str, plural: &str) -> Result<&'static Resource, DeskError> {
    find(group, "v1", plural)
        .ok_or_else(|| DeskError::Later { cause: format!("{plural} are not served") })
}

fn later(status: Status) -> DeskError {
    DeskError::Later { cause: status.to_string() }
}

impl Desk for ClusterDesk {
    fn follow(&self) -> BoxStream<'static, Sight> {
        let (sender, sights) = mpsc::channel(SIGHTS);
        let job = Following {
            desk: self.clone(),
            group: "training.impresario.dev",
            plural: "trainingjobs",
            filter: Filter { name: Some(self.name.clone()), ..Filter::default() },
            sight: |jobs| jobs.into_iter().next().map(Sight::Job),
        };
        let labels = LabelSelector::from_map(&json!({ JOB_LABEL: self.name }));
        let pods = Following {
            desk: self.clone(),
            group: "",
            plural: "pods",
            filter: Filter { labels: Some(labels), ..Filter::default() },
            sight: |pods| Some(Sight::Pods(pods)),
        };
        // Both end when the actor no longer looks.
        tokio::spawn(job.run(sender.clone()));
        tokio::spawn(pods.run(sender));
        ReceiverStream::new(sights).boxed()
    }

    fn create_pod(&self, pod: Value) -> BoxFuture<'static, Result<(), DeskError>> {
        let desk = self.clone();
        async move {
            let (pods, job) = (resource("", "pods")?, desk.job().await?);
            let owner = &pod["metadata"]["ownerReferences"][0]["uid"];
            if *owner != job["metadata"]["uid"] || !job["metadata"]["deletionTimestamp"].is_null() {
                return Err(DeskError::JobDeleted);
            }
            desk.objects.create(pods, &desk.namespace, pod, &write()).await.map_err(later)?;
            Ok(())
        }
        .boxed()
    }

    fn delete_pod(&self, name: String, uid: String) -> BoxFuture<'static, Result<(), DeskError>> {
        let desk = self.clone();
        async move {
            let pods = resource("", "pods")?;
            let options = DeleteOptions { uid: Some(uid), ..DeleteOptions::default() };
            match desk.objects.delete(pods, &desk.namespace, &name, &options, &write()).await {
                Ok(_) => Ok(()),
                // Gone, or another of the same name by now.
                Err(status) if matches!(status.code(), 404 | 409) => Ok(()),
                Err(status) => Err(later(status)),
            }
        }
        .boxed()
    }

    fn confirm(&self) -> BoxFuture<'static, Result<(), DeskError>> {
        let desk = self.clone();
        async move { desk.job().await.map(|_| ()) }.boxed()
    }

    fn write_status(&self, status: Value) -> BoxFuture<'static, Result<(), DeskError>> {
        let desk = self.clone();
        async move {
            let jobs = resource("training.impresario.dev", "trainingjobs")?;
            let change = |job: &Value| {
                let mut job = job.clone();
                job["status"] = status.clone();
                Ok(job)
            };
            let (namespace, name, options) = (&desk.namespace, &desk.name, write());
            let written =
                desk.objects.modify(jobs, Door::Status, namespace, name, &options, change);
            match written.await {
                Ok(_) => Ok(()),
                Err(gone) if gone.code() == 404 => Ok(()),
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

/// Follows the objects of one kind, as a whole picture each time.
struct Following {
    desk: ClusterDesk,
    group: &'static str,
    plural: &'static str,
    filter: Filter,
    sight: fn(Vec<Value>) -> Option<Sight>,
}

impl Following {
    async fn run(self, sender: mpsc::Sender<Sight>) {
        let mut failures = 0;
        loop {
            tokio::select! {
                () = sender.closed() => return,
                outcome = self.follow(&sender) => match outcome {
                    Ok(()) => failures = 0,
                    Err(error) => {
                        tracing::debug!(%error, plural = self.plural, "following again");
                        failures += 1;
                    }
                },
            }
            let wait = BACKOFF.wait(failures, rand::rng().random_range(0.0..1.0));
            tokio::select! {
                () = sender.closed() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn follow(&self, sender: &mpsc::Sender<Sight>) -> Result<(), DeskError> {
        let resource = resource(self.group, self.plural)?;
        let namespace = Some(self.desk.namespace.clone());
        let query = ListQuery {
            namespace: namespace.clone(),
            filter: self.filter.clone(),
            ..ListQuery::default()
        };
        let listed = self.desk.objects.list(resource, &query).await.map_err(later)?;
        let mut seen: BTreeMap<String, Value> =
            listed.items.into_iter().map(|object| (name_of(&object), object)).collect();
        let query = WatchQuery {
            namespace,
            filter: self.filter.clone(),
            version: Some(listed.revision),
            ..WatchQuery::default()
        };
        let mut watch = self.desk.objects.watch(resource, query).await.map_err(later)?;
        self.tell(&seen, sender).await;
        while let Some(event) = watch.next().await {
            match event.map_err(later)? {
                ObjectEvent::Added(object) | ObjectEvent::Modified(object) => {
                    seen.insert(name_of(&object), object);
                }
                ObjectEvent::Deleted(object) => {
                    seen.remove(&name_of(&object));
                }
                ObjectEvent::Bookmark { .. } => continue,
            }
            self.tell(&seen, sender).await;
        }
        Ok(())
    }

    async fn tell(&self, seen: &BTreeMap<String, Value>, sender: &mpsc::Sender<Sight>) {
        if let Some(sight) = (self.sight)(seen.values().cloned().collect()) {
            // When nobody looks any more, `closed` ends the task.
            let _ = sender.send(sight).await.is_ok();
        }
    }
}

fn name_of(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}
