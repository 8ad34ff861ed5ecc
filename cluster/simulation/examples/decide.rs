//! How long one decision takes.
//! `cargo run --release -p impresario-simulation --example decide`

use impresario_auction::{Gradient, Job, Measurement, Model, Node, POLICIES, Picture, named};
use std::time::Instant;

/// A job that has run on one node and on several, and scales like its siblings do not.
fn job(number: u32) -> Job {
    let compute = 0.002 + 0.000_3 * f64::from(number % 17);
    let sync = 0.004 * f64::from(1 + number % 11);
    let measured = [(1, 1, 32), (1, 4, 32), (1, 4, 64), (2, 8, 48), (4, 16, 64)];
    let profile = measured.map(|(nodes, replicas, local_batch)| {
        let sync_time = if replicas == 1 { 0.0 } else { sync * (1.0 + f64::from(nodes)) };
        let step_time = 0.01 + compute * f64::from(local_batch) + sync_time;
        Measurement { nodes, replicas, local_batch, step_time, sync_time }
    });
    Job {
        name: format!("job-{number}"),
        application: format!("application-{}", number % 17),
        submitted: f64::from(number),
        initial_batch: 64,
        max_batch: 65_536,
        fixed_batch: None,
        min_local_batch: 8,
        max_local_batch: 128,
        profile: profile.to_vec(),
        gradient: Some(Gradient { sqr: 1.0, var: f64::from(10 + number % 500) }),
        epoch: 1 + number % 40,
        epochs: 50,
        progress: 1_000.0 * f64::from(2 + number % 40),
        restarts: 2,
        attained_service: 1_000.0,
        max_replicas: 256,
        allocation: Vec::new(),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for (nodes, jobs) in [(16, 160), (1_024, 2_000)] {
        let node = |number| Node { name: format!("node-{number}"), gpus: 4 };
        let mut picture = Picture {
            now: 1e4,
            rescale_seconds: 30.0,
            nodes: (0..nodes).map(node).collect(),
            jobs: (0..jobs).map(job).collect(),
        };
        let began = Instant::now();
        let models: Vec<Model> = picture.jobs.iter().map(Model::fit).collect();
        let fit = began.elapsed().as_secs_f64() * 1e3;
        println!("{} GPUs, {jobs} jobs: models fitted in {fit:.1} ms", nodes * 4);
        for name in POLICIES {
            let policy = named(name).ok_or("no such policy")?;
            let mut worst: f64 = 0.0;
            for _ in 0..10 {
                let began = Instant::now();
                let decision = policy.decide(&picture, &models);
                worst = worst.max(began.elapsed().as_secs_f64() * 1e3);
                for (job, allocation) in picture.jobs.iter_mut().zip(decision.allocations) {
                    job.allocation = allocation;
                    job.epoch = 1 + (job.epoch + 7) % 40;
                }
            }
            println!("  {name:10} {worst:8.2} ms, the longest of ten decisions");
        }
    }
    Ok(())
}
