//! What a policy sees: nodes, and jobs with what each has reported and its user has declared.

/// A node and its GPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// How many GPUs it has for training.
    pub gpus: u32,
}

/// No GPU computes a step in less, in seconds: who reports that has a broken clock, or lies.
const SHORTEST_STEP: f64 = 1e-6;

/// One configuration that a job has run in, and how long a step took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measurement {
    /// On how many nodes.
    pub nodes: u32,
    /// On how many GPUs.
    pub replicas: u32,
    /// Samples a GPU and micro-batch.
    pub local_batch: u32,
    /// Seconds a step, synchronisation included.
    pub step_time: f64,
    /// Seconds of it that were synchronisation.
    pub sync_time: f64,
}

impl Measurement {
    /// Whether the report can be true. What cannot is left out of every model.
    #[must_use]
    pub fn is_sane(&self) -> bool {
        let plausible = |seconds: f64| seconds.is_finite() && seconds < 1e7;
        plausible(self.step_time)
            && plausible(self.sync_time)
            && self.sync_time >= 0.0
            && self.step_time - self.sync_time >= SHORTEST_STEP
            && (1..=self.replicas).contains(&self.nodes)
            && (1..1 << 30).contains(&self.local_batch)
    }
}

/// Gradient statistics of the current epoch, for the initial batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gradient {
    /// Square norm of the gradient.
    pub sqr: f64,
    /// Its variance.
    pub var: f64,
}

impl Gradient {
    /// Whether the report can be true.
    #[must_use]
    pub fn is_sane(&self) -> bool {
        let plausible = |value: f64| (0.0..1e300).contains(&value);
        plausible(self.sqr) && plausible(self.var) && self.sqr + self.var > 0.0
    }
}

/// A training job: declared and reported.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Its name, the only one in the picture.
    pub name: String,
    /// What it trains.
    pub application: String,
    /// When it was submitted, seconds on the picture's clock.
    pub submitted: f64,
    /// The batch whose steps are the unit of progress.
    pub initial_batch: u32,
    /// The largest total batch that the user allows.
    pub max_batch: u32,
    /// The total batch, where the user does not let it be chosen.
    pub fixed_batch: Option<u32>,
    /// The smallest batch of one GPU and micro-batch.
    pub min_local_batch: u32,
    /// The largest that fits a GPU.
    pub max_local_batch: u32,
    /// What it has run in so far, one entry a configuration.
    pub profile: Vec<Measurement>,
    /// Gradient statistics, once it has any.
    pub gradient: Option<Gradient>,
    /// Epochs done.
    pub epoch: u32,
    /// Epochs that the user declared.
    pub epochs: u32,
    /// Steps of the initial batch that it is worth so far.
    pub progress: f64,
    /// How often its GPUs have been changed.
    pub restarts: u32,
    /// GPU-seconds that it has had.
    pub attained_service: f64,
    /// The most GPUs it may have. For a policy that does not choose sizes: what its user asked for.
    pub max_replicas: u32,
    /// The GPUs it has: an index into the picture's nodes for each.
    pub allocation: Vec<usize>,
}

impl Job {
    /// Whether all that it has reported can be true. One report that cannot says that the others mean
    /// nothing.
    #[must_use]
    pub fn is_plausible(&self) -> bool {
        let is_amount = |value: f64| value.is_finite() && value >= 0.0;
        is_amount(self.progress)
            && is_amount(self.attained_service)
            && self.epoch <= self.epochs
            && self.gradient.is_none_or(|gradient| gradient.is_sane())
            && self.profile.iter().all(Measurement::is_sane)
    }

    /// The most GPUs on which its smallest local batch does not pass its largest total batch.
    #[must_use]
    pub fn most_replicas(&self) -> u32 {
        let batch = self.fixed_batch.unwrap_or(self.max_batch);
        self.max_replicas.min((batch / self.min_local_batch.max(1)).max(1))
    }
}

/// A cluster at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Picture {
    /// Seconds on the clock that the jobs' times are told by.
    pub now: f64,
    /// What a change of a job's GPUs costs it, seconds without progress.
    pub rescale_seconds: f64,
    /// The nodes. Their order is the order in which ties fall.
    pub nodes: Vec<Node>,
    /// The jobs that have arrived and not finished, in order of arrival.
    pub jobs: Vec<Job>,
}

impl Picture {
    /// The most GPUs that a job may be given. One whose reports make no sense gets no more than its fair
    /// share: what it says of its worth takes nothing from the others.
    #[must_use]
    pub fn most_replicas(&self, job: &Job) -> u32 {
        let most = job.most_replicas();
        if job.is_plausible() { most } else { most.min(self.fair_share()) }
    }

    /// The GPUs of each job if all had as many, and one at least.
    #[must_use]
    pub fn fair_share(&self) -> u32 {
        (self.gpus() / (self.jobs.len() as u32).max(1)).max(1)
    }

    /// All GPUs.
    #[must_use]
    pub fn gpus(&self) -> u32 {
        self.nodes.iter().fold(0u32, |sum, node| sum.saturating_add(node.gpus))
    }
}
