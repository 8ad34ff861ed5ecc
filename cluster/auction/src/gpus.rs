//! The hall of a cluster of GPUs: one resource, workers that are GPUs, no parameter servers.

use crate::Model;
use crate::goodput::{self, Batch};
use crate::hall::{Bid, Hall, Size, Standing, Worth};
use crate::model::{self, Remaining};
use crate::picture::{Job, Picture};
use crate::step_time::StepTime;

/// Whole nodes that are looked at beyond one.
const MOST_NODES: usize = 63;

/// The hall of a picture. Jobs get any size where it is `elastic`, else what they asked for or nothing; they are
/// worth what they make of the best batch where that `chooses_batch`, else of their user's.
#[must_use]
pub fn hall<'a>(
    picture: &'a Picture,
    models: &'a [Model],
    elastic: bool,
    chooses_batch: bool,
) -> Hall<'a> {
    let node_gpus = picture.nodes.iter().map(|node| node.gpus).max().unwrap_or(0);
    let worth = |index: usize| -> Box<dyn Worth + 'a> {
        let job = &picture.jobs[index];
        let step_time = models.get(index).and_then(|model| model.step_time.as_ref());
        let remaining = model::remaining(job);
        Box::new(Believed { job, step_time, remaining, node_gpus, chooses_batch })
    };
    let known = |index: usize| Some(models.get(index)?.step_time.as_ref()?.most_replicas());
    hall_with(picture, elastic, worth, known)
}

/// The same, for a yardstick that knows more than the jobs have said.
#[must_use]
pub fn hall_with<'a>(
    picture: &Picture,
    elastic: bool,
    worth: impl Fn(usize) -> Box<dyn Worth + 'a>,
    known: impl Fn(usize) -> Option<u32>,
) -> Hall<'a> {
    let gpus = picture.gpus();
    let sizes = sizes(picture);
    let bid = |(index, job): (usize, &Job)| {
        let (min, max) = if elastic {
            let most = picture.most_replicas(job);
            (1.min(most), most)
        } else {
            (job.max_replicas, job.max_replicas)
        };
        let ladder = sizes.iter().filter(|size| (min..=max).contains(*size));
        Bid {
            standing: Standing::Waits,
            current: Size::of_workers(job.allocation.len() as u32),
            keeps: Size::of_workers(job.allocation.len() as u32),
            min: Size::of_workers(min),
            max: Size::of_workers(max),
            server: vec![0],
            worker: vec![1],
            submitted: job.submitted,
            attained_service: job.attained_service,
            rescale_seconds: picture.rescale_seconds,
            known: known(index),
            ladder: Some(ladder.copied().map(Size::of_workers).collect()),
            is_young: false,
            is_doubted: !job.is_plausible(),
            worth: worth(index),
        }
    };
    Hall {
        bids: picture.jobs.iter().enumerate().map(bid).collect(),
        capacity: vec![u128::from(gpus)],
        pieces: None,
        most_additions: gpus as usize,
    }
}

/// The sizes that are looked at: any within a node, then whole nodes.
fn sizes(picture: &Picture) -> Vec<u32> {
    let cluster = picture.gpus();
    let node = picture.nodes.iter().map(|node| node.gpus).max().unwrap_or(0);
    let whole = (2..).map(|nodes| nodes * node).take_while(|size| *size <= cluster);
    if node == 0 { Vec::new() } else { (1..=node).chain(whole.take(MOST_NODES)).collect() }
}

/// What a job's own models say.
struct Believed<'a> {
    job: &'a Job,
    step_time: Option<&'a StepTime>,
    remaining: Option<Remaining>,
    node_gpus: u32,
    chooses_batch: bool,
}

impl Worth for Believed<'_> {
    fn remaining(&self) -> Option<f64> {
        self.remaining.map(|left| left.steps)
    }

    fn uncertainty(&self, size: Size) -> f64 {
        let of_work = self.remaining.map_or(1.0, |left| left.uncertainty);
        let of_speed =
            self.step_time.map_or(1.0, |model| model.uncertainty(self.nodes(size), size.workers));
        of_work.hypot(of_speed)
    }

    fn rate(&self, size: Size) -> Option<f64> {
        let (job, model) = (self.job, self.step_time?);
        let nodes = self.nodes(size);
        if self.chooses_batch {
            return goodput::best(job, model, nodes, size.workers, 20).map(|(rate, _)| rate);
        }
        let total = job.fixed_batch.unwrap_or(job.initial_batch);
        let batch = Batch::within(job, f64::from(total), size.workers);
        Some(goodput::rate(job, model, nodes, size.workers, batch))
    }
}

impl Believed<'_> {
    /// The fewest nodes that hold so many, by the largest.
    fn nodes(&self, size: Size) -> u32 {
        size.workers.div_ceil(self.node_gpus.max(1)).max(1)
    }
}
