//! One decision from a line of JSON: how another simulator or scheduler drives our policies.
//!
//! The fields of a line and of its answer are described in docs/guides/training.md.

use impresario_auction::goodput;
use impresario_auction::{Gradient, Job, Measurement, Model, Node, Picture, Policy};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A line that is not a picture of a cluster.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    /// It is not JSON.
    #[error("line {line}: not JSON: {why}")]
    Json {
        /// Counted from 1.
        line: usize,
        /// What the parser said.
        why: String,
    },
    /// A field is missing or not what it must be.
    #[error("line {line}: field `{field}`: {expected} is expected")]
    Field {
        /// Counted from 1.
        line: usize,
        /// Its path, such as `jobs[3].profile[0].step_time`.
        field: String,
        /// What should stand there.
        expected: &'static str,
    },
}

/// No line may name more jobs, nodes or measurements than this.
const MOST_ENTRIES: usize = 100_000;
/// Nor more GPUs in all: decisions take time and memory by GPU.
const MOST_GPUS: u64 = 1_000_000;

/// A value and where it stands.
struct At<'a> {
    line: usize,
    path: String,
    value: &'a Value,
}

impl<'a> At<'a> {
    fn wrong(&self, expected: &'static str) -> PlanError {
        let field = if self.path.is_empty() { ".".into() } else { self.path.clone() };
        PlanError::Field { line: self.line, field, expected }
    }

    fn object(&self) -> Result<&'a Map<String, Value>, PlanError> {
        self.value.as_object().ok_or_else(|| self.wrong("an object"))
    }

    fn maybe(&self, key: &str) -> Result<Option<At<'a>>, PlanError> {
        let value = self.object()?.get(key).filter(|value| !value.is_null());
        let path = if self.path.is_empty() { key.into() } else { format!("{}.{key}", self.path) };
        Ok(value.map(|value| At { line: self.line, path, value }))
    }

    fn get(&self, key: &str, expected: &'static str) -> Result<At<'a>, PlanError> {
        let path = if self.path.is_empty() { key.into() } else { format!("{}.{key}", self.path) };
        self.maybe(key)?.ok_or(PlanError::Field { line: self.line, field: path, expected })
    }

    fn list(&self, key: &str) -> Result<Vec<At<'a>>, PlanError> {
        let at = self.get(key, "a list")?;
        let values = at.value.as_array().ok_or_else(|| at.wrong("a list"))?;
        if values.len() > MOST_ENTRIES {
            return Err(at.wrong("a list of at most 100000"));
        }
        let entry =
            |(index, value)| At { line: self.line, path: format!("{}[{index}]", at.path), value };
        Ok(values.iter().enumerate().map(entry).collect())
    }

    fn text(&self, key: &str) -> Result<&'a str, PlanError> {
        let at = self.get(key, "a string")?;
        at.value.as_str().ok_or_else(|| at.wrong("a string"))
    }

    fn number(&self, key: &str) -> Result<f64, PlanError> {
        let at = self.get(key, "a number")?;
        at.value.as_f64().ok_or_else(|| at.wrong("a number"))
    }

    fn count(&self, key: &str) -> Result<u32, PlanError> {
        const EXPECTED: &str = "a whole number from 0 to 4294967295";
        let at = self.get(key, EXPECTED)?;
        at.value.as_u64().and_then(|n| u32::try_from(n).ok()).ok_or_else(|| at.wrong(EXPECTED))
    }

    fn batch(&self, key: &str) -> Result<u32, PlanError> {
        match self.count(key)? {
            0 => Err(self.get(key, "")?.wrong("a batch of at least 1")),
            batch => Ok(batch),
        }
    }
}

/// Reads one line; `line` is its number, counted from 1.
///
/// # Errors
/// [`PlanError`] names the line and the field.
pub fn parse(line: usize, text: &str) -> Result<Picture, PlanError> {
    let value: Value = serde_json::from_str(text)
        .map_err(|error| PlanError::Json { line, why: error.to_string() })?;
    let root = At { line, path: String::new(), value: &value };
    let mut nodes = Vec::new();
    let mut index = BTreeMap::new();
    let mut gpus = 0;
    for at in root.list("nodes")? {
        let node = Node { name: at.text("name")?.to_owned(), gpus: at.count("gpus")? };
        gpus += u64::from(node.gpus);
        if gpus > MOST_GPUS {
            return Err(at.get("gpus", "")?.wrong("at most 1000000 GPUs in all"));
        }
        if index.insert(node.name.clone(), nodes.len()).is_some() {
            return Err(at.get("name", "")?.wrong("a name that no other node has"));
        }
        nodes.push(node);
    }
    let mut names = BTreeSet::new();
    let mut jobs = Vec::new();
    for at in root.list("jobs")? {
        let job = parse_job(&at, &index)?;
        if !names.insert(job.name.clone()) {
            return Err(at.get("name", "")?.wrong("a name that no other job has"));
        }
        jobs.push(job);
    }
    jobs.sort_by(|a, b| a.submitted.total_cmp(&b.submitted).then_with(|| a.name.cmp(&b.name)));
    let rescale_seconds = match root.maybe("rescale_seconds")? {
        None => 30.0,
        Some(at) => match at.value.as_f64() {
            Some(seconds) if (0.0..=86_400.0).contains(&seconds) => seconds,
            _ => return Err(at.wrong("seconds from 0 to 86400")),
        },
    };
    Ok(Picture { now: root.number("now")?, rescale_seconds, nodes, jobs })
}

fn parse_job(at: &At<'_>, nodes: &BTreeMap<String, usize>) -> Result<Job, PlanError> {
    let mut profile = Vec::new();
    for at in at.list("profile")? {
        profile.push(Measurement {
            nodes: at.count("nodes")?,
            replicas: at.count("replicas")?,
            local_batch: at.count("local_batch")?,
            step_time: at.number("step_time")?,
            sync_time: at.number("sync_time")?,
        });
    }
    let gradient = match at.maybe("gradient")? {
        Some(at) => Some(Gradient { sqr: at.number("sqr")?, var: at.number("var")? }),
        None => None,
    };
    let mut allocation = Vec::new();
    let mut vanished = false;
    for at in at.list("allocation")? {
        let name = at.value.as_str().ok_or_else(|| at.wrong("a node's name"))?;
        match nodes.get(name) {
            Some(index) => allocation.push(*index),
            None => vanished = true,
        }
    }
    if vanished {
        // A node has gone: what is left is not what the job was given.
        allocation.clear();
    }
    let job = Job {
        name: at.text("name")?.to_owned(),
        application: at.text("application")?.to_owned(),
        submitted: at.number("submitted")?,
        initial_batch: at.batch("initial_batch")?,
        max_batch: at.batch("max_batch")?,
        fixed_batch: at.maybe("fixed_batch")?.map(|_| at.batch("fixed_batch")).transpose()?,
        min_local_batch: at.batch("min_local_batch")?,
        max_local_batch: at.batch("max_local_batch")?,
        profile,
        gradient,
        epoch: at.count("epoch")?,
        epochs: at.count("epochs")?,
        progress: at.number("progress")?,
        restarts: at.count("restarts")?,
        attained_service: at.number("attained_service")?,
        max_replicas: at.count("max_replicas")?,
        allocation,
    };
    let least = |key, value: u32, least: u32, expected| {
        if value < least { Err(at.get(key, "")?.wrong(expected)) } else { Ok(()) }
    };
    least("max_batch", job.max_batch, job.initial_batch, "at least initial_batch")?;
    least("max_local_batch", job.max_local_batch, job.min_local_batch, "at least min_local_batch")?;
    Ok(job)
}

/// The answer to one line, as one line.
///
/// # Errors
/// [`PlanError`] names the line and the field.
pub fn answer(policy: &dyn Policy, line: usize, text: &str) -> Result<String, PlanError> {
    let picture = parse(line, text)?;
    let models: Vec<Model> = picture.jobs.iter().map(Model::fit).collect();
    let decision = policy.decide(&picture, &models);
    let mut allocations = Map::new();
    let mut batches = Map::new();
    for ((job, model), allocation) in picture.jobs.iter().zip(&models).zip(&decision.allocations) {
        let names: Vec<&str> =
            allocation.iter().map(|node| picture.nodes[*node].name.as_str()).collect();
        if !allocation.is_empty() {
            let nodes = impresario_auction::placement::nodes_of(allocation);
            let replicas = allocation.len() as u32;
            let batch = goodput::choose(job, model.step_time.as_ref(), nodes, replicas);
            let value =
                json!({ "local_batch": batch.local_batch, "accumulation": batch.accumulation });
            batches.insert(job.name.clone(), value);
        }
        allocations.insert(job.name.clone(), json!(names));
    }
    Ok(json!({ "allocations": allocations, "batch": batches }).to_string())
}
