//! Runs the pods of a `Job` to completion and counts each exactly once.
//!
//! [`plan`] decides; this module writes the count and the removal of the finalizers in one
//! transaction, creates and deletes pods, and comes back when a backoff or a deadline is over.

pub mod indexes;
pub mod plan;

use super::control::{Look, LookError, Next};
use super::mirror::Seen;
use super::owned::{self, Owner};
use super::view::{Assignment, replace, served};
use super::wrote::Wrote;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use impresario_client::objects::{DeleteOptions, WriteOptions};
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use plan::{Action, INDEX, PodId, TRACKING};
use serde_json::{Value, json};
use std::sync::Arc;

/// Pods whose end one transaction counts; the rest follows with the next look.
const COUNTED_AT_ONCE: usize = 250;

/// The controller of one job.
pub struct JobLook {
    about: Assignment,
    wrote_pods: Wrote,
    wrote_self: Wrote,
}

impl JobLook {
    /// A look at this job.
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
        self.wrote_self.seen_by(&view.jobs).await?;
        self.wrote_pods.seen_by(&view.pods).await?;
        let Some(seen) = view.jobs.get(&self.about.namespace, &self.about.name) else {
            return Ok(Next::WhenTold);
        };
        if seen.object.metadata.uid.as_deref() != Some(&self.about.uid) {
            return Ok(Next::WhenTold);
        }
        let mut pods = view.pods.owned_by(&self.about.uid);
        limit_counted(&mut pods);
        let objects: Vec<_> = pods.iter().map(|pod| pod.object.clone()).collect();
        let plan = plan::reconcile(&seen.object, &objects, Timestamp::now());

        let stored: Value = serde_json::from_slice(&seen.entry.value).map_err(|error| {
            LookError::Damaged { key: seen.entry.key.to_string(), cause: error.to_string() }
        })?;
        let mut creations = Vec::new();
        let mut deletions = Vec::new();
        let mut report = None;
        let mut delete_job = false;
        for action in plan.actions {
            match action {
                Action::Create { index } => creations.push(self.pod(&stored, index)),
                Action::Delete(PodId { name, uid }) => deletions.push((name, uid)),
                Action::Report { status, counted } => report = Some((status, counted)),
                Action::DeleteJob => delete_job = true,
            }
        }
        // The count goes first: a pod that is counted is not needed any more.
        if let Some((status, counted)) = report {
            self.report(&seen, &pods, &status, &counted).await?;
            self.tell(&seen, &status);
        }
        owned::change_pods(&self.about, &seen, creations, deletions, &self.wrote_pods).await?;
        if delete_job {
            let options =
                DeleteOptions { uid: Some(self.about.uid.clone()), ..DeleteOptions::default() };
            self.about
                .objects()
                .delete(
                    served("batch", "jobs"),
                    &self.about.namespace,
                    &self.about.name,
                    &options,
                    &WriteOptions::default(),
                )
                .await?;
        }
        Ok(plan.look_again.map_or(Next::WhenTold, Next::At))
    }

    /// The status, and the finalizers of the pods that it counts: one transaction.
    async fn report(
        &self,
        job: &Seen<Job>,
        pods: &[Seen<Pod>],
        status: &JobStatus,
        counted: &[PodId],
    ) -> Result<(), LookError> {
        let mut writes = vec![replace(job, &["status"], status)?];
        for pod in pods {
            let is_counted = counted.iter().any(|id| {
                id.name == pod.entry.key.name && pod.object.metadata.uid.as_deref() == Some(&id.uid)
            });
            if is_counted {
                writes.push(owned::without_finalizer(pod, TRACKING)?);
            }
        }
        let revision = self.about.transact(writes).await?;
        self.wrote_self.at(revision);
        if !counted.is_empty() {
            self.wrote_pods.at(revision);
        }
        Ok(())
    }

    fn pod(&self, job: &Value, index: Option<u32>) -> Value {
        let owner = Owner { object: job, api_version: "batch/v1", kind: "Job" };
        let base = index.map_or_else(
            || self.about.name.clone(),
            |index| format!("{}-{index}", self.about.name),
        );
        let mut pod = owned::pod_from(&job["spec"]["template"], &owner, &base);
        let metadata = &mut pod["metadata"];
        match metadata["finalizers"].as_array_mut() {
            Some(list) => list.push(TRACKING.into()),
            None => metadata["finalizers"] = json!([TRACKING]),
        }
        if let Some(index) = index {
            let index = index.to_string();
            metadata["labels"][INDEX] = index.clone().into();
            metadata["annotations"][INDEX] = index.clone().into();
            for containers in ["containers", "initContainers"] {
                let list = pod["spec"].get_mut(containers).and_then(Value::as_array_mut);
                for container in list.into_iter().flatten() {
                    let variable = json!({"name": "JOB_COMPLETION_INDEX", "value": index});
                    match container["env"].as_array_mut() {
                        Some(env) => env.push(variable),
                        None => container["env"] = json!([variable]),
                    }
                }
            }
        }
        pod
    }

    fn tell(&self, job: &Seen<Job>, status: &JobStatus) {
        let was = job.object.status.as_ref().is_some_and(plan::is_finished);
        if was || !plan::is_finished(status) {
            return;
        }
        let failed = status.conditions.iter().flatten().find(|c| c.type_ == "Failed");
        match failed {
            Some(condition) => self.about.view.warning(
                job,
                condition.reason.as_deref().unwrap_or("Failed"),
                condition.message.as_deref().unwrap_or_default(),
            ),
            None => self.about.view.normal(job, "Completed", "Job completed"),
        }
    }
}

/// Leaves in `pods` at most [`COUNTED_AT_ONCE`] whose end is not counted yet.
fn limit_counted(pods: &mut Vec<Seen<Pod>>) {
    use super::pod_view::PodView as _;
    let mut uncounted = 0;
    pods.retain(|pod| {
        let tracked = pod.object.metadata.finalizers.iter().flatten().any(|f| f == TRACKING);
        if tracked && (pod.object.finished() || pod.object.terminating()) {
            uncounted += 1;
        }
        uncounted <= COUNTED_AT_ONCE
            || !(tracked && (pod.object.finished() || pod.object.terminating()))
    });
}

impl Look for JobLook {
    fn look(&self) -> BoxFuture<'_, Result<Next, LookError>> {
        self.look_once().boxed()
    }
}
