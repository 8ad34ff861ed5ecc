//! What a simulation has to say.

use serde_json::{Value, json};
use std::collections::BTreeMap;

/// One job's fate.
#[derive(Clone, Debug, PartialEq)]
pub struct JobReport {
    /// What it trained.
    pub application: String,
    /// When it was submitted, s.
    pub submitted: f64,
    /// When it was done, s.
    pub completed: f64,
    /// How often its GPUs changed.
    pub rescales: u32,
    /// GPU-seconds that it had.
    pub gpu_seconds: f64,
}

/// A simulation's outcome.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The policy.
    pub policy: String,
    /// GPU-seconds held over GPU-seconds there until the last completion.
    pub utilisation: f64,
    /// 99th percentile of a decision's duration on this machine, ms.
    pub decision_ms_p99: f64,
    /// By name.
    pub jobs: BTreeMap<String, JobReport>,
    /// GPUs held by each job at each round that changed something: (time, job, GPUs).
    pub history: Vec<(f64, String, u32)>,
}

impl Report {
    /// Seconds from submission to completion, in ascending order.
    #[must_use]
    pub fn completions(&self) -> Vec<f64> {
        let mut all: Vec<f64> =
            self.jobs.values().map(|job| job.completed - job.submitted).collect();
        all.sort_by(f64::total_cmp);
        all
    }

    /// Mean seconds from submission to completion.
    #[must_use]
    pub fn average_completion(&self) -> f64 {
        let all = self.completions();
        all.iter().sum::<f64>() / all.len().max(1) as f64
    }

    /// The completion time that a share of jobs does not pass.
    #[must_use]
    pub fn percentile(&self, share: f64) -> f64 {
        percentile(&self.completions(), share)
    }

    /// The last completion.
    #[must_use]
    pub fn makespan(&self) -> f64 {
        self.jobs.values().map(|job| job.completed).fold(0.0, f64::max)
    }

    /// Changes of jobs' GPUs after they were first given any.
    #[must_use]
    pub fn rescales(&self) -> u64 {
        self.jobs.values().map(|job| u64::from(job.rescales)).sum()
    }

    /// The report as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        let jobs: serde_json::Map<String, Value> = self
            .jobs
            .iter()
            .map(|(name, job)| {
                let value = json!({
                    "application": job.application,
                    "submitted_s": job.submitted,
                    "completed_s": job.completed,
                    "completion_s": job.completed - job.submitted,
                    "rescales": job.rescales,
                    "gpu_s": job.gpu_seconds,
                });
                (name.clone(), value)
            })
            .collect();
        json!({
            "policy": self.policy,
            "average_completion_s": self.average_completion(),
            "p50_completion_s": self.percentile(0.5),
            "p99_completion_s": self.percentile(0.99),
            "makespan_s": self.makespan(),
            "rescales": self.rescales(),
            "decision_ms_p99": self.decision_ms_p99,
            "utilisation": self.utilisation,
            "jobs": jobs,
        })
    }
}

/// The value that a share of `sorted` does not pass (nearest rank); 0 where there is none.
#[must_use]
pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(0.0)
}
