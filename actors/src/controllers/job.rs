//! Runs the pods of a `Job` to completion and counts each exactly once.
//!
//! [`plan`] decides. The count and the removal of the finalizers are one transaction, and come first: a pod
//! that is counted is not needed any more.

pub mod indexes;
pub mod plan;
mod template;

use super::engine::controller::Controller;
use super::engine::effects::{Draft, Effects, Event};
use super::engine::looks_at::LooksAt;
use super::engine::view::View;
use super::pod_view::PodView as _;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use plan::{Action, PodId, TRACKING};
use std::sync::Arc;

/// Decides for jobs.
#[derive(Debug)]
pub enum Reconciler {}

impl Controller for Reconciler {
    type Object = Job;

    fn looks_at() -> LooksAt<Job> {
        LooksAt::itself().owned::<Pod>()
    }

    fn reconcile(view: &View<'_, Job>, now: Timestamp) -> Effects {
        let pods = view.of::<Pod>();
        let plan = plan::reconcile_sized(view.object, pods, &view.sizes::<Pod>(), now);
        let mut effects = Effects { look_again: plan.look_again, ..Effects::default() };
        let mut job = None;
        for action in plan.actions {
            match action {
                Action::Create(place) => {
                    let job = job.get_or_insert_with(|| Arc::new(view.stored.clone())).clone();
                    effects.create_from::<Pod>(&Draft::new(move || template::pod(&job, place)));
                }
                Action::End(pod) => {
                    if let Some(pod) = find(pods, &pod) {
                        effects.end(pod, TRACKING);
                    }
                }
                Action::Report { status, counted } => {
                    effects.report(&*status);
                    for pod in counted.iter().filter_map(|pod| find(pods, pod)) {
                        effects.count(pod, TRACKING);
                    }
                    tell(&mut effects, view.object, &status);
                }
                Action::DeleteJob => effects.delete_itself = true,
            }
        }
        effects
    }
}

/// Says what a status has that the job had not.
fn tell(effects: &mut Effects, job: &Job, status: &JobStatus) {
    let old = job.status.as_ref();
    let was_suspended = old.is_some_and(|old| holds(old, "Suspended").is_some());
    match (was_suspended, holds(status, "Suspended").is_some()) {
        (false, true) => effects.say(Event::normal("Suspended", "Job suspended")),
        (true, false) => effects.say(Event::normal("Resumed", "Job resumed")),
        _ => {}
    }
    if old.is_some_and(plan::is_finished) || !plan::is_finished(status) {
        return;
    }
    match status.conditions.iter().flatten().find(|condition| condition.type_ == "Failed") {
        Some(failed) => effects.say(Event::warning(
            failed.reason.as_deref().unwrap_or("Failed"),
            failed.message.as_deref().unwrap_or_default(),
        )),
        None => effects.say(Event::normal("Completed", "Job completed")),
    }
}

/// The condition of this type, if it is true.
fn holds<'a>(status: &'a JobStatus, type_: &str) -> Option<&'a JobCondition> {
    let mut all = status.conditions.iter().flatten();
    all.find(|condition| condition.type_ == type_ && condition.status == "True")
}

/// The pod that was seen with this name and uid.
fn find<'a>(pods: &'a [Arc<Pod>], id: &PodId) -> Option<&'a Pod> {
    // They are in order of their names.
    let at = pods.binary_search_by(|pod| pod.name().cmp(&id.name)).ok()?;
    Some(pods[at].as_ref()).filter(|pod| pod.uid() == id.uid)
}

#[cfg(test)]
mod tests {
    use super::super::activation::Activation;
    use super::super::engine::worker::Worker;
    use super::super::late::late;
    use super::super::view::{View as Mirrors, served};
    use super::*;
    use crate::testing::LIMIT;
    use impresario_objects::{Objects, WriteOptions};
    use impresario_registry::{MemoryRegistry, Registry as _};
    use impresario_registry_api::{
        Epoch, Fence, Key, ListRequest, Selection, Transaction, shard_of,
    };
    use serde_json::{Value, json};

    struct World {
        registry: MemoryRegistry,
        view: Mirrors,
        worker: Worker<Reconciler>,
    }

    impl World {
        async fn with(spec: Value) -> Self {
            let registry = MemoryRegistry::default();
            registry.assign_shards(&["test".to_owned()]);
            let objects = Objects::new(Arc::new(registry.clone()));
            objects.lay_foundation("pem", 6443).await.unwrap();
            let job = json!({"metadata": {"name": "work"}, "spec": spec});
            let options = WriteOptions::default();
            objects.create(&served("batch", "jobs"), "default", job, &options).await.unwrap();
            Self::over(registry, objects).await
        }

        /// Over what an earlier one left.
        async fn over(registry: MemoryRegistry, objects: Objects) -> Self {
            let request = ListRequest::of(Selection::all("batch/jobs"));
            let job = registry.list(request).await.unwrap().entries.remove(0);
            let job: Value = serde_json::from_slice(&job.value).unwrap();
            let uid = job["metadata"]["uid"].as_str().unwrap().to_owned();
            let activation = Activation {
                actor: "job/work".into(),
                namespace: "default".into(),
                name: "work".into(),
                fence: Fence { shard: shard_of(&uid), epoch: Epoch(1) },
                uid,
                since: std::time::Instant::now(),
            };
            let view = Mirrors::start(objects, "test");
            let worker = Worker::new(view.shared(), &activation);
            Self { registry, view, worker }
        }

        async fn all(&self, resource: &str) -> Vec<Value> {
            let request = ListRequest::of(Selection::all(resource));
            let entries = self.registry.list(request).await.unwrap().entries;
            entries.iter().map(|entry| serde_json::from_slice(&entry.value).unwrap()).collect()
        }

        async fn look(&self) {
            self.worker.look_once().await.unwrap();
        }

        /// The only pod ends.
        async fn end(&self, phase: &str) {
            let mut pods = self.all("pods").await;
            let [pod] = pods.as_mut_slice() else { panic!("{pods:#?}") };
            pod["status"] = json!({"phase": phase});
            let key = Key::new("pods", "default", pod["metadata"]["name"].as_str().unwrap());
            let put = Transaction::new().put(key, pod.to_string());
            let revision = self.registry.transact(put).await.unwrap().revision;
            self.view.pods.reached(revision, LIMIT).await.unwrap();
        }
    }

    fn spec(more: Value) -> Value {
        let mut spec = json!({"template": {"spec": {"restartPolicy": "Never",
            "containers": [{"name": "c", "image": "i"}]}}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    }

    #[tokio::test]
    async fn a_pod_that_is_counted_loses_its_finalizer_in_the_same_revision() {
        let world = World::with(spec(json!({}))).await;
        world.look().await;
        world.look().await;
        let pods = world.all("pods").await;
        assert_eq!(pods.len(), 1);
        assert_eq!(pods[0]["metadata"]["finalizers"], json!([TRACKING]));
        world.end("Succeeded").await;
        world.look().await;
        let request = |resource| ListRequest::of(Selection::all(resource));
        let pod = world.registry.list(request("pods")).await.unwrap().entries.remove(0);
        let job = world.registry.list(request("batch/jobs")).await.unwrap().entries.remove(0);
        let status: Value = serde_json::from_slice(&job.value).unwrap();
        assert_eq!(status["status"]["succeeded"], 1);
        let ended: Value = serde_json::from_slice(&pod.value).unwrap();
        assert!(ended["metadata"].get("finalizers").is_none());
        assert_eq!(pod.mod_revision, job.mod_revision);
    }

    #[tokio::test]
    async fn a_job_that_is_suspended_ends_its_pods_uncounted_and_is_deleted_when_its_time_is_over()
    {
        let world = World::with(spec(json!({"ttlSecondsAfterFinished": 0}))).await;
        world.look().await;
        let job = Key::new("batch/jobs", "default", "work");
        let set = async |suspend: bool| {
            let mut all = world.all("batch/jobs").await;
            all[0]["spec"]["suspend"] = suspend.into();
            let put = Transaction::new().put(job.clone(), all[0].to_string());
            let revision = world.registry.transact(put).await.unwrap().revision;
            world.view.mirrors.of::<Job>().reached(revision, LIMIT).await.unwrap();
        };
        set(true).await;
        world.look().await;
        assert_eq!(world.all("pods").await, Vec::<Value>::new(), "it was bound to no node");
        let suspended = &world.all("batch/jobs").await[0]["status"];
        assert_eq!(suspended["failed"].as_i64().unwrap_or(0), 0);
        assert_eq!(suspended["conditions"][0]["type"], "Suspended");
        set(false).await;
        world.look().await;
        world.end("Succeeded").await;
        for _ in 0..3 {
            world.look().await;
        }
        assert_eq!(world.all("batch/jobs").await, Vec::<Value>::new());
    }

    #[tokio::test]
    async fn a_job_that_is_to_be_kept_is_not_deleted_by_what_a_late_mirror_says() {
        let before = World::with(spec(json!({}))).await;
        let key = Key::new("batch/jobs", "default", "work");
        let put = async |change: &dyn Fn(&mut Value)| {
            let mut job = before.all("batch/jobs").await.remove(0);
            change(&mut job);
            let put = Transaction::new().put(key.clone(), job.to_string());
            before.registry.transact(put).await.unwrap().revision
        };
        let ended = put(&|job| {
            job["status"] = json!({"startTime": "2020-01-01T00:00:00Z",
                "completionTime": "2020-01-01T00:00:01Z", "succeeded": 1, "ready": 0,
                "conditions": [{"type": "Complete", "status": "True",
                    "lastTransitionTime": "2020-01-01T00:00:01Z"}]});
        })
        .await;
        before.view.mirrors.of::<Job>().reached(ended, LIMIT).await.unwrap();
        before.look().await;
        put(&|job| job["spec"]["ttlSecondsAfterFinished"] = 0.into()).await;
        let (objects, opener) = late(before.registry.clone(), "batch/jobs");
        let world = World::over(before.registry.clone(), objects).await;
        world.worker.caught_up().await.unwrap();
        let kept = put(&|job| job["spec"]["ttlSecondsAfterFinished"] = 1_000_000_000.into()).await;
        let error = world.worker.look_once().await.unwrap_err();
        assert!(error.is_of_one_object(), "{error}");
        opener.send_replace(true);
        world.view.mirrors.of::<Job>().reached(kept, LIMIT).await.unwrap();
        world.look().await;
        assert_eq!(world.all("batch/jobs").await.len(), 1);
    }
}
