//! Runs the pods of a `Job` to completion and counts each exactly once.
//!
//! [`plan`] decides; this module writes the count and the removal of the finalizers in one
//! transaction, creates and deletes pods, and comes back when a backoff or a deadline is over.

pub mod indexes;
pub mod plan;
mod template;

use super::control::{Look, LookError, Next};
use super::mirror::Seen;
use super::owned;
use super::view::{Assignment, replace, served};
use super::wrote::Wrote;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use impresario_objects::{DeleteOptions, WriteOptions};
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use plan::{Action, PodId, TRACKING};
use serde_json::Value;
use std::sync::Arc;

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
        self.wrote_self.seen_by(&view.jobs).await?;
        self.wrote_pods.seen_by(&view.pods).await?;
        let Some(seen) = view.jobs.get(&self.about.namespace, &self.about.name) else {
            return Ok(Next::WhenTold);
        };
        if seen.object.metadata.uid.as_deref() != Some(&self.about.uid) {
            return Ok(Next::WhenTold);
        }
        let pods = view.pods.controlled_by(&self.about.namespace, &self.about.uid);
        let objects: Vec<_> = pods.iter().map(|pod| pod.object.clone()).collect();
        let sizes: Vec<_> = pods.iter().map(|pod| pod.entry.value.len()).collect();
        let plan = plan::reconcile_sized(&seen.object, &objects, &sizes, Timestamp::now());

        let stored: Value = serde_json::from_slice(&seen.entry.value).map_err(|error| {
            LookError::Damaged { key: seen.entry.key.to_string(), cause: error.to_string() }
        })?;
        let mut creations = Vec::new();
        let mut ended = Vec::new();
        let mut report = None;
        let mut delete_job = false;
        for action in plan.actions {
            match action {
                Action::Create(place) => creations.push(template::pod(&stored, place)),
                Action::End(pod) => ended.extend(find(&pods, &pod)),
                Action::Report { status, counted } => report = Some((status, counted)),
                Action::DeleteJob => delete_job = true,
            }
        }
        // The count goes first: a pod that is counted is not needed any more.
        if let Some((status, counted)) = report {
            self.report(&seen, &pods, &status, &counted).await?;
            self.tell(&seen, &status);
        }
        let ended = self.end(&seen, ended).await;
        let made =
            owned::change_pods(&self.about, &seen, creations, Vec::new(), &self.wrote_pods).await;
        ended.and(made)?;
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
        for pod in counted.iter().filter_map(|id| find(pods, id)) {
            writes.push(owned::without_finalizer(pod, TRACKING)?);
        }
        let revision = self.about.transact(writes).await?;
        self.wrote_self.at(revision);
        if !counted.is_empty() {
            self.wrote_pods.at(revision);
        }
        Ok(())
    }

    /// Ends pods that are not needed, with an event for each. All are tried; then the first failure
    /// counts.
    async fn end(&self, job: &Seen<Job>, pods: Vec<&Seen<Pod>>) -> Result<(), LookError> {
        let each: Vec<BoxFuture<'_, _>> = pods
            .into_iter()
            .map(|pod| {
                async move {
                    let write = owned::end_uncounted(pod, TRACKING, Timestamp::now())?;
                    let revision = self.about.transact([write]).await?;
                    Ok::<_, LookError>((&pod.entry.key.name, revision))
                }
                .boxed()
            })
            .collect();
        let mut outcomes = futures_util::stream::iter(each).buffer_unordered(owned::CONCURRENT);
        let mut failed = None;
        while let Some(outcome) = outcomes.next().await {
            match outcome {
                Ok((name, revision)) => {
                    self.wrote_pods.at(revision);
                    let message = format!("Deleted pod: {name}");
                    self.about.view.normal(job, "SuccessfulDelete", &message);
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn tell(&self, job: &Seen<Job>, status: &JobStatus) {
        let is_suspended = |status: &JobStatus| {
            let mut all = status.conditions.iter().flatten();
            all.any(|condition| condition.type_ == "Suspended" && condition.status == "True")
        };
        let was_suspended = job.object.status.as_ref().is_some_and(is_suspended);
        match (was_suspended, is_suspended(status)) {
            (false, true) => self.about.view.normal(job, "Suspended", "Job suspended"),
            (true, false) => self.about.view.normal(job, "Resumed", "Job resumed"),
            _ => {}
        }
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

/// The pod that was seen with this name and uid.
fn find<'a>(pods: &'a [Seen<Pod>], id: &PodId) -> Option<&'a Seen<Pod>> {
    // In order of their names: they are of one namespace.
    let at = pods.binary_search_by(|pod| pod.entry.key.name.as_str().cmp(&id.name)).ok()?;
    Some(&pods[at]).filter(|pod| pod.object.metadata.uid.as_deref() == Some(&id.uid))
}

impl Look for JobLook {
    fn look(&self) -> BoxFuture<'_, Result<Next, LookError>> {
        self.look_once().boxed()
    }
}
