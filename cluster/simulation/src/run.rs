//! The cluster in virtual time.

use crate::report::{JobReport, Report, percentile};
use crate::{Application, Submission};
use impresario_ambient::clock;
use impresario_auction::goodput::{self, gain};
use impresario_auction::{Batch, Job, Measurement, Model, Node, Picture, Policy};
use std::collections::BTreeMap;

/// How a simulation is run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Nodes.
    pub nodes: u32,
    /// GPUs of each.
    pub gpus: u32,
    /// Submissions come so many times as fast.
    pub load: f64,
    /// Seconds without progress when a job's GPUs change.
    pub rescale_seconds: f64,
    /// Seconds between decisions.
    pub round_seconds: f64,
    /// Virtual seconds after which the simulation ends whatever is left.
    pub most_seconds: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            nodes: 16,
            gpus: 4,
            load: 1.0,
            rescale_seconds: 30.0,
            round_seconds: 60.0,
            most_seconds: 60.0 * 86_400.0,
        }
    }
}

/// A job that runs.
struct Running<'a> {
    tables: &'a Application,
    job: Job,
    model: Model,
    placement: Vec<u32>,
    batch: Batch,
    pause: f64,
    placed: bool,
    completed: Option<f64>,
}

impl Running<'_> {
    fn new<'a>(
        submission: &Submission,
        tables: &'a Application,
        settings: &Settings,
        policy: &dyn Policy,
    ) -> Running<'a> {
        let (fixed_batch, max_replicas) = match tables.inelastic_batch {
            Some(batch) if policy.chooses_batch() => (Some(batch), 1),
            Some(_) if policy.is_elastic() => (Some(submission.batch), 1),
            None if policy.chooses_batch() => (None, tables.max_batch / tables.min_local_batch),
            _ if policy.is_elastic() => {
                (Some(submission.batch), submission.batch / tables.min_local_batch)
            }
            _ => (Some(submission.batch), submission.replicas),
        };
        Running {
            tables,
            job: Job {
                name: submission.name.clone(),
                application: tables.name.clone(),
                submitted: submission.time / settings.load,
                initial_batch: tables.initial_batch,
                max_batch: tables.max_batch,
                fixed_batch,
                min_local_batch: tables.min_local_batch,
                max_local_batch: tables.max_local_batch,
                profile: Vec::new(),
                gradient: None,
                epoch: 0,
                epochs: tables.epochs,
                progress: 0.0,
                restarts: 0,
                attained_service: 0.0,
                max_replicas: max_replicas.max(1),
                allocation: Vec::new(),
            },
            model: Model::default(),
            placement: Vec::new(),
            batch: Batch { local_batch: 1, accumulation: 0 },
            pause: 0.0,
            placed: false,
            completed: None,
        }
    }

    fn replicas(&self) -> u32 {
        self.placement.iter().sum()
    }

    fn choose_batch(&mut self) {
        let nodes = self.placement.len() as u32;
        let model = self.model.step_time.as_ref();
        self.batch = goodput::choose(&self.job, model, nodes, self.replicas());
    }

    fn report(&mut self, step: f64, sync: f64) {
        let seen = Measurement {
            nodes: self.placement.len() as u32,
            replicas: self.replicas(),
            local_batch: self.batch.local_batch,
            step_time: step,
            sync_time: sync,
        };
        let same = |other: &Measurement| {
            (other.nodes, other.replicas, other.local_batch)
                == (seen.nodes, seen.replicas, seen.local_batch)
        };
        if !self.job.profile.iter().any(same) {
            self.job.profile.push(seen);
            self.model = Model::fit(&self.job);
        }
    }

    /// Trains from `now` for some seconds.
    fn step(&mut self, now: f64, seconds: f64) {
        if self.placement.is_empty() || self.completed.is_some() {
            return;
        }
        let replicas = self.replicas();
        let paused = self.pause.min(seconds);
        self.pause -= paused;
        let mut at = now + paused;
        let mut left = seconds - paused;
        self.job.attained_service += paused * f64::from(replicas);
        while left > 0.0 && self.completed.is_none() {
            let total = self.batch.total(replicas);
            let scale = total / f64::from(self.tables.initial_batch);
            let (step, sync) = self.tables.step_time(&self.placement, self.batch.local_batch);
            let gradient = self.tables.gradient(total, self.job.epoch);
            self.job.gradient = Some(gradient);
            self.report(step, sync);
            let duration = step + (step - sync) * f64::from(self.batch.accumulation);
            let rate = gain(Some(gradient), scale) / duration;
            let end = self.tables.progress_at(self.job.epoch + 1);
            if self.job.progress + rate * left < end {
                self.job.progress += rate * left;
                self.job.attained_service += left * f64::from(replicas);
                left = 0.0;
            } else {
                let took = ((end - self.job.progress) / rate).round_ties_even().clamp(0.0, left);
                self.job.progress = end;
                self.job.epoch += 1;
                self.job.attained_service += took * f64::from(replicas);
                at += took;
                left -= took;
                if self.job.epoch >= self.tables.epochs {
                    self.completed = Some(at);
                }
            }
            self.choose_batch();
        }
    }

    fn move_to(&mut self, allocation: Vec<usize>, pause: f64) -> bool {
        if allocation == self.job.allocation {
            return false;
        }
        self.placement.clear();
        let mut before = None;
        for node in &allocation {
            match self.placement.last_mut() {
                Some(gpus) if before == Some(node) => *gpus += 1,
                _ => self.placement.push(1),
            }
            before = Some(node);
        }
        self.job.allocation.clone_from(&allocation);
        if !self.placement.is_empty() {
            self.choose_batch();
            self.pause = pause;
            self.job.restarts += u32::from(self.placed);
            self.placed = true;
        }
        true
    }
}

/// Runs a workload to its end under a policy. Jobs that are not done at `most_seconds` count as
/// completed then.
#[must_use]
pub fn simulate(
    applications: &BTreeMap<String, Application>,
    workload: &[Submission],
    policy: &dyn Policy,
    settings: &Settings,
) -> Report {
    let mut jobs: Vec<Running<'_>> = workload
        .iter()
        .filter_map(|line| {
            Some(Running::new(line, applications.get(&line.application)?, settings, policy))
        })
        .collect();
    let nodes: Vec<Node> = (0..settings.nodes)
        .map(|index| Node { name: format!("node-{index}"), gpus: settings.gpus })
        .collect();
    let mut now = 0.0;
    let mut durations = Vec::new();
    let mut history = Vec::new();
    while now < settings.most_seconds && jobs.iter().any(|job| job.completed.is_none()) {
        for job in &mut jobs {
            job.step(now, settings.round_seconds);
        }
        now += settings.round_seconds;
        let waiting = |job: &Running<'_>| job.completed.is_none() && job.job.submitted <= now;
        let live: Vec<usize> = (0..jobs.len()).filter(|index| waiting(&jobs[*index])).collect();
        for job in &mut jobs {
            if job.completed.is_some() && job.move_to(Vec::new(), 0.0) {
                history.push((now, job.job.name.clone(), 0));
            }
        }
        let picture = Picture {
            now,
            rescale_seconds: settings.rescale_seconds,
            nodes: nodes.clone(),
            jobs: live.iter().map(|index| jobs[*index].job.clone()).collect(),
        };
        let models: Vec<Model> = live.iter().map(|index| jobs[*index].model.clone()).collect();
        let began = clock::now();
        let decision = policy.decide(&picture, &models);
        durations.push(began.elapsed().as_secs_f64() * 1e3);
        for (index, allocation) in live.into_iter().zip(decision.allocations) {
            let gpus = allocation.len() as u32;
            if jobs[index].move_to(allocation, settings.rescale_seconds) {
                history.push((now, jobs[index].job.name.clone(), gpus));
            }
        }
    }
    durations.sort_by(f64::total_cmp);
    let held: f64 = jobs.iter().map(|job| job.job.attained_service).sum();
    let last = jobs.iter().filter_map(|job| job.completed).fold(0.0, f64::max).max(1.0);
    Report {
        policy: policy.name().to_owned(),
        utilisation: held / (last * f64::from(settings.nodes) * f64::from(settings.gpus)),
        decision_ms_p99: percentile(&durations, 0.99),
        jobs: jobs
            .into_iter()
            .map(|job| {
                let report = JobReport {
                    application: job.job.application,
                    submitted: job.job.submitted,
                    completed: job.completed.unwrap_or(now),
                    rescales: job.job.restarts,
                    gpu_seconds: job.job.attained_service,
                };
                (job.job.name, report)
            })
            .collect(),
        history,
    }
}
