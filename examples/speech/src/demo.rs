//! The demonstration: two jobs on one cluster, and the story of what happened.
//!
//! The first job starts with one parameter server and one trainer and grows to what the cluster
//! has. When it has, a second arrives: the first shrinks, and grows back when the second is done.
//! The caller brings a running cluster; this module submits, watches, tells, and cleans up.

use crate::display::Display;
use crate::manifests::{Circumstances, FIRST, NAMESPACE, SECOND};
use crate::watched::Watched;
use impresario_api::catalog::find;
use impresario_api::quantity;
use impresario_api::resource::Row;
use impresario_api::status::Status;
use impresario_client::Client;
use impresario_client::objects::{DeleteOptions, Door, ListQuery, Patch, WriteOptions};
use serde::Serialize;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use thiserror::Error;

/// How often the jobs are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// The second job comes when the first has grown, or after this long.
const PATIENCE_FOR_GROWTH: Duration = Duration::from_secs(20);
/// And not before the first has worked this long at its full size.
const AT_FULL_SIZE: Duration = Duration::from_secs(6);
/// After this long the first job is asked to be done with the epoch in hand.
const ENOUGH: Duration = Duration::from_secs(70);
/// After this long something is wrong.
const LIMIT: Duration = Duration::from_secs(110);
/// How long pods have to be gone.
const CLEANUP: Duration = Duration::from_secs(10);

/// What the demonstration needs.
pub struct DemoContext {
    /// A connection to the cluster.
    pub client: Client,
    /// The program that runs in pods: this very binary.
    pub program: PathBuf,
    /// The hidden subcommand of it that runs guests.
    pub subcommand: String,
    /// A folder of recordings instead of those that ship with the example.
    pub data: Option<PathBuf>,
    /// Whether a live display is drawn on standard error.
    pub display: bool,
    /// When the demonstration began: seconds are counted from here.
    pub since: Instant,
    /// How many times longer than usual it may take.
    pub patience: u32,
}

/// A size that a job reached.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScaleEvent {
    /// When, in seconds from the start.
    pub at_s: f64,
    /// Which job.
    pub job: String,
    /// How many parameter servers.
    pub parameter_servers: u64,
    /// How many trainers.
    pub trainers: u64,
    /// Why.
    pub reason: String,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JobSummary {
    /// Its name.
    pub name: String,
    /// `Succeeded`, or where it was.
    pub phase: String,
    /// Steps done.
    pub steps: u64,
    /// Mean loss at the end.
    pub loss: Option<f64>,
    /// Part of the testing recordings that it recognises.
    pub accuracy: Option<f64>,
    /// When it was submitted, in seconds from the start.
    pub submitted_s: f64,
    /// When it was done, in seconds from the start.
    pub finished_s: Option<f64>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DemoSummary {
    /// Of the first job, on recordings that it never heard.
    pub accuracy: f64,
    /// Steps of the first job.
    pub steps: u64,
    /// From the start to the end of the last job.
    pub seconds: f64,
    /// All changes of size, in order.
    pub scale_events: Vec<ScaleEvent>,
    /// Both jobs.
    pub jobs: Vec<JobSummary>,
}

/// Why there is no summary.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DemoError {
    /// The cluster refused something.
    #[error("the cluster refused: {0}")]
    Refused(#[from] Status),
    /// This cluster does not know training jobs.
    #[error("the cluster serves no {plural}: start it with the same version of imp")]
    NotServed {
        /// The resource.
        plural: &'static str,
    },
    /// No node has room.
    #[error("no node is ready: look at `imp status` and the nodes' logs")]
    NoNode,
    /// A job failed.
    #[error(
        "training job {job} failed: look at `imp describe trainingjob {job}` and its pods' logs"
    )]
    JobFailed {
        /// Which.
        job: String,
    },
    /// It took too long.
    #[error("not done after {waited:?} ({last}): the machine may be too busy; try again")]
    TooSlow {
        /// How long it took.
        waited: Duration,
        /// Where the jobs were.
        last: String,
    },
}

fn resource(group: &str, plural: &'static str) -> Result<Row, DemoError> {
    find(group, "v1", plural).ok_or(DemoError::NotServed { plural })
}

/// Runs the demonstration on a cluster that is up.
pub async fn run(context: DemoContext) -> Result<DemoSummary, DemoError> {
    let mut stage = Stage::new(context)?;
    let outcome = stage.play().await;
    stage.display.close();
    let cleared = stage.clear().await;
    let summary = outcome?;
    cleared?;
    Ok(summary)
}

struct Stage {
    context: DemoContext,
    jobs: Row,
    display: Display,
    watched: Vec<Watched>,
    events: Vec<ScaleEvent>,
}

impl Stage {
    fn new(context: DemoContext) -> Result<Self, DemoError> {
        let jobs = resource("training.impresario.dev", "trainingjobs")?;
        let display = Display::new(context.display, context.since);
        Ok(Self { context, jobs, display, watched: Vec::new(), events: Vec::new() })
    }

    async fn play(&mut self) -> Result<DemoSummary, DemoError> {
        let circumstances = Circumstances {
            program: self.context.program.clone(),
            subcommand: self.context.subcommand.clone(),
            data: self.context.data.clone(),
            node_cpu_milli: self.smallest_node().await?,
        };
        self.submit(FIRST, circumstances.first()).await?;
        let (began, patience) = (Instant::now(), self.context.patience);
        let (mut full_since, mut hurried) = (None, false);
        loop {
            tokio::time::sleep(LOOK).await;
            self.look().await?;
            let first = &self.watched[0];
            let (running, grown) = (first.phase() == "Running", first.count("trainers") >= 3);
            if running && grown && full_since.is_none() {
                full_since = Some(Instant::now());
            }
            let late = began.elapsed() > PATIENCE_FOR_GROWTH * patience;
            let settled = full_since.is_some_and(|since: Instant| since.elapsed() > AT_FULL_SIZE);
            if self.watched.len() == 1 && running && (settled || late) {
                self.submit(SECOND, circumstances.second()).await?;
            }
            if self.watched.iter().any(|job| job.phase() == "Failed") {
                let failed = self.watched.iter().find(|job| job.phase() == "Failed");
                let job = failed.map_or(FIRST, |job| job.name).to_owned();
                return Err(DemoError::JobFailed { job });
            }
            if self.watched.len() == 2 && self.watched.iter().all(|job| job.finished.is_some()) {
                return Ok(self.summary());
            }
            if !hurried && self.context.since.elapsed() > ENOUGH * patience {
                hurried = true;
                self.hurry().await?;
            }
            if self.context.since.elapsed() > LIMIT * patience {
                let last =
                    self.watched.iter().map(|job| format!("{} is {}", job.name, job.phase()));
                let last = last.collect::<Vec<_>>().join(", ");
                return Err(DemoError::TooSlow { waited: LIMIT * patience, last });
            }
        }
    }

    async fn smallest_node(&self) -> Result<u64, DemoError> {
        let nodes = resource("", "nodes")?;
        let listed = self.context.client.objects().list(&nodes, &ListQuery::default()).await?;
        let cpu = |node: &Value| quantity::parse(&node["status"]["allocatable"]["cpu"]);
        let smallest = listed.items.iter().filter_map(cpu).map(quantity::Quantity::millis).min();
        smallest
            .and_then(|cpu| u64::try_from(cpu).ok())
            .filter(|cpu| *cpu > 0)
            .ok_or(DemoError::NoNode)
    }

    async fn submit(&mut self, name: &'static str, job: Value) -> Result<(), DemoError> {
        let objects = self.context.client.objects();
        objects.create(&self.jobs, NAMESPACE, job, &WriteOptions::default()).await?;
        self.display.say(&format!("training job {name} is submitted"));
        self.watched.push(Watched::new(name));
        Ok(())
    }

    async fn look(&mut self) -> Result<(), DemoError> {
        for job in &mut self.watched {
            let object =
                match self.context.client.objects().get(&self.jobs, NAMESPACE, job.name).await {
                    Ok(object) => object,
                    // A control member may be changing hands; the limit on the whole stands.
                    Err(status) if status.code() >= 500 => continue,
                    Err(status) => return Err(status.into()),
                };
            job.status = object["status"].clone();
            let events = job.status["scaleEvents"].as_array().cloned().unwrap_or_default();
            for event in events.iter().skip(job.told) {
                let event = ScaleEvent {
                    at_s: tenths(self.context.since.elapsed()),
                    job: job.name.to_owned(),
                    parameter_servers: event["parameterServers"].as_u64().unwrap_or(0),
                    trainers: event["trainers"].as_u64().unwrap_or(0),
                    reason: event["reason"].as_str().unwrap_or_default().to_owned(),
                };
                self.display.say(&in_words(&event));
                self.events.push(event);
            }
            job.told = events.len();
            if job.finished.is_none() && job.phase() == "Succeeded" {
                job.finished = Some(Instant::now());
                let accuracy = job.status["accuracy"].as_f64().unwrap_or(0.0) * 100.0;
                self.display.say(&format!("{} is done: it recognises {accuracy:.1} %", job.name));
            }
        }
        self.display.draw(&self.watched);
        Ok(())
    }

    /// The machine is slow: the first job ends with fewer epochs.
    async fn hurry(&mut self) -> Result<(), DemoError> {
        for job in self.watched.iter().filter(|job| job.finished.is_none()) {
            let patch = Patch::Merge(json!({ "spec": { "stop": { "epochs": 1 } } }));
            let options = WriteOptions::default();
            let objects = self.context.client.objects();
            objects.patch(&self.jobs, Door::Main, NAMESPACE, job.name, &patch, &options).await?;
            self.display.say(&format!("time is short: {} ends with the epoch in hand", job.name));
        }
        Ok(())
    }

    fn summary(&self) -> DemoSummary {
        let since = self.context.since;
        let at = |moment: Instant| tenths(moment.duration_since(since));
        let jobs: Vec<JobSummary> = self
            .watched
            .iter()
            .map(|job| JobSummary {
                name: job.name.to_owned(),
                phase: job.phase().to_owned(),
                steps: job.count("step"),
                loss: job.status["loss"].as_f64(),
                accuracy: job.status["accuracy"].as_f64(),
                submitted_s: at(job.submitted),
                finished_s: job.finished.map(at),
            })
            .collect();
        DemoSummary {
            accuracy: jobs.first().and_then(|job| job.accuracy).unwrap_or(0.0),
            steps: jobs.first().map_or(0, |job| job.steps),
            seconds: tenths(since.elapsed()),
            scale_events: self.events.clone(),
            jobs,
        }
    }

    /// Deletes both jobs and waits for their pods to go.
    async fn clear(&mut self) -> Result<(), DemoError> {
        let objects = self.context.client.objects();
        for job in &self.watched {
            let (options, write) = (DeleteOptions::default(), WriteOptions::default());
            match objects.delete(&self.jobs, NAMESPACE, job.name, &options, &write).await {
                Err(status) if status.code() != 404 => return Err(status.into()),
                _ => {}
            }
        }
        let (pods, query) = (resource("", "pods")?, ListQuery::default());
        let started = Instant::now();
        while started.elapsed() < CLEANUP {
            if objects.list(&pods, &query).await?.items.is_empty() {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}

/// An event as a sentence.
pub fn in_words(event: &ScaleEvent) -> String {
    let many =
        |count: u64, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    format!(
        "{} has {} and {}: {}",
        event.job,
        many(event.parameter_servers, "parameter server"),
        many(event.trainers, "trainer"),
        event.reason
    )
}

/// The closing words for people.
pub fn story(summary: &DemoSummary) -> String {
    use std::fmt::Write as _;
    let mut text = String::from("What happened\n");
    let mut lines: Vec<(f64, String)> =
        summary.scale_events.iter().map(|event| (event.at_s, in_words(event))).collect();
    for job in &summary.jobs {
        lines.push((job.submitted_s, format!("{} is submitted", job.name)));
        if let Some(finished) = job.finished_s {
            let accuracy = job.accuracy.unwrap_or(0.0) * 100.0;
            let words = format!("{} is done: {} steps, {accuracy:.1} % right", job.name, job.steps);
            lines.push((finished, words));
        }
    }
    lines.sort_by(|a, b| a.0.total_cmp(&b.0));
    for (at, words) in lines {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{at:7.1} s  {words}").is_ok();
    }
    let (accuracy, steps) = (summary.accuracy * 100.0, summary.steps);
    let _ = write!(
        text,
        "\nAfter {steps} steps and {:.0} s the first job recognises {accuracy:.1} % of digits said by \
         recordings that it never heard.",
        summary.seconds
    )
    .is_ok();
    text
}

fn tenths(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_story_is_told_in_the_order_of_time() {
        let summary = DemoSummary {
            accuracy: 0.97,
            steps: 10,
            seconds: 9.0,
            scale_events: vec![ScaleEvent {
                at_s: 3.0,
                job: "digits".into(),
                parameter_servers: 1,
                trainers: 2,
                reason: "there is room".into(),
            }],
            jobs: vec![JobSummary {
                name: "digits".into(),
                phase: "Succeeded".into(),
                steps: 10,
                loss: Some(0.1),
                accuracy: Some(0.97),
                submitted_s: 1.0,
                finished_s: Some(8.0),
            }],
        };
        let story = story(&summary);
        let at = |words: &str| story.find(words).unwrap_or_else(|| panic!("{words} in {story}"));
        assert!(at("is submitted") < at("1 parameter server and 2 trainers: there is room"));
        assert!(at("there is room") < at("97.0 % right"));
    }
}
