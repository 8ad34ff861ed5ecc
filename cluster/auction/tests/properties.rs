//! What holds of every policy, whatever jobs report.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use impresario_auction::{
    Gradient, Job, Measurement, Model, Node, POLICIES, Picture, StepTime, goodput, model, named,
};
use proptest::prelude::*;

fn any_number() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
        Just(0.0),
        Just(-1.0),
        Just(f64::MIN_POSITIVE),
        Just(f64::MAX),
        1e-9..1e9f64,
        1e-3..1e2f64,
    ]
}

fn any_count() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), Just(1), Just(u32::MAX), 1..10_000u32, 1..8u32]
}

prop_compose! {
    fn any_measurement()(nodes in any_count(), replicas in any_count(), local_batch in any_count(),
                         step_time in any_number(), sync_time in any_number()) -> Measurement {
        Measurement { nodes, replicas, local_batch, step_time, sync_time }
    }
}

prop_compose! {
    fn any_job()(
        submitted in any_number(), batches in (any_count(), any_count(), any_count(), any_count()),
        fixed_batch in proptest::option::of(any_count()),
        profile in proptest::collection::vec(any_measurement(), 0..6),
        gradient in proptest::option::of((any_number(), any_number())),
        epochs in (any_count(), any_count()), progress in any_number(), attained_service in any_number(),
        max_replicas in any_count(), allocation in proptest::collection::vec(0..9usize, 0..6),
        application in 0..3u8,
    ) -> Job {
        Job {
            name: String::new(), application: format!("app-{application}"), submitted,
            initial_batch: batches.0, max_batch: batches.1, fixed_batch,
            min_local_batch: batches.2, max_local_batch: batches.3, profile,
            gradient: gradient.map(|(sqr, var)| Gradient { sqr, var }),
            epoch: epochs.0, epochs: epochs.1, progress, restarts: 0, attained_service,
            max_replicas, allocation,
        }
    }
}

prop_compose! {
    fn any_picture()(nodes in proptest::collection::vec(0..9u32, 0..8),
                     jobs in proptest::collection::vec(any_job(), 0..12)) -> Picture {
        let nodes = nodes.into_iter().enumerate();
        let nodes = nodes.map(|(n, gpus)| Node { name: format!("n{n}"), gpus }).collect();
        let jobs = jobs.into_iter().enumerate();
        let jobs = jobs.map(|(n, job)| Job { name: format!("j{n}"), ..job }).collect();
        Picture { now: 1e4, rescale_seconds: 30.0, nodes, jobs }
    }
}

proptest! {
    #[test]
    fn no_policy_gives_more_gpus_than_a_node_has(picture in any_picture()) {
        let alone: Vec<Model> = picture.jobs.iter().map(Model::fit).collect();
        for name in POLICIES {
            for models in [&alone, &Vec::new()] {
                let decision = named(name).unwrap().decide(&picture, models);
                prop_assert_eq!(decision.allocations.len(), picture.jobs.len());
                let mut free: Vec<u32> = picture.nodes.iter().map(|node| node.gpus).collect();
                for node in decision.allocations.iter().flatten() {
                    prop_assert!(free[*node] > 0, "{} gives node {} twice", name, node);
                    free[*node] -= 1;
                }
            }
        }
    }

    #[test]
    fn a_job_whose_reports_make_no_sense_gets_no_more_than_its_fair_share(
        bad in any_job(), honest in 1..6usize, nodes in 1..6usize,
    ) {
        let bad = Job {
            initial_batch: 32, max_batch: 1 << 20, min_local_batch: 1, max_local_batch: 64,
            fixed_batch: None, max_replicas: 64, allocation: Vec::new(), ..bad
        };
        prop_assume!(!bad.is_plausible());
        let scales = vec![measured(1, 1, 32), measured(1, 4, 32), measured(2, 8, 32)];
        let mut jobs: Vec<Job> = (0..honest)
            .map(|n| Job { profile: scales.clone(), ..plain(&format!("j{n}")) })
            .collect();
        jobs.push(bad);
        let picture = cluster(nodes, jobs);
        let models: Vec<Model> = picture.jobs.iter().map(Model::fit).collect();
        for name in ["goodput", "optimus", "drf"] {
            let decision = named(name).unwrap().decide(&picture, &models);
            let has = decision.allocations[honest].len() as u32;
            prop_assert!(has <= picture.fair_share(), "{}: {} of {:?}", name, has, decision);
        }
    }

    #[test]
    fn the_same_picture_gets_the_same_decision(picture in any_picture()) {
        let models: Vec<Model> = picture.jobs.iter().map(Model::fit).collect();
        for name in POLICIES {
            let policy = named(name).unwrap();
            prop_assert_eq!(policy.decide(&picture, &models), policy.decide(&picture, &models));
        }
    }

    #[test]
    fn no_prediction_is_negative_infinite_or_nan(job in any_job(), nodes in 1..20u32, more in 0..60u32) {
        let replicas = nodes + more;
        if let Some(step_time) = StepTime::fit(&job.profile) {
            let seconds = step_time.seconds(nodes, replicas, 17.0, 2);
            prop_assert!(seconds.is_finite() && seconds > 0.0, "{}", seconds);
            let uncertainty = step_time.uncertainty(nodes, replicas);
            prop_assert!(uncertainty.is_finite() && uncertainty > 0.0);
            if let Some((rate, batch)) = goodput::best(&job, &step_time, nodes, replicas, 20) {
                prop_assert!(rate.is_finite() && rate >= 0.0, "{} with {:?}", rate, batch);
                prop_assert!(batch.local_batch >= 1);
            }
        }
        if let Some(left) = model::remaining(&job) {
            prop_assert!(left.steps.is_finite() && left.steps > 0.0);
        }
    }
}

fn plain(name: &str) -> Job {
    Job {
        name: name.into(),
        application: name.into(),
        submitted: 0.0,
        initial_batch: 32,
        max_batch: 1024,
        fixed_batch: None,
        min_local_batch: 8,
        max_local_batch: 64,
        profile: Vec::new(),
        gradient: Some(Gradient { sqr: 1.0, var: 50.0 }),
        epoch: 3,
        epochs: 30,
        progress: 3_000.0,
        restarts: 0,
        attained_service: 600.0,
        max_replicas: 64,
        allocation: Vec::new(),
    }
}

fn cluster(nodes: usize, jobs: Vec<Job>) -> Picture {
    let nodes = (0..nodes).map(|n| Node { name: format!("n{n}"), gpus: 4 }).collect();
    Picture { now: 1e4, rescale_seconds: 30.0, nodes, jobs }
}

fn measured(nodes: u32, replicas: u32, local_batch: u32) -> Measurement {
    let sync_time = if replicas == 1 { 0.0 } else { 0.01 + 0.002 * f64::from(nodes) };
    let step_time = 0.02 + 0.004 * f64::from(local_batch) + sync_time;
    Measurement { nodes, replicas, local_batch, step_time, sync_time }
}

#[test]
fn a_job_that_reports_nonsense_still_gets_gpus_beside_one_that_scales() {
    let honest = Job {
        profile: vec![measured(1, 1, 32), measured(1, 4, 32), measured(2, 8, 32)],
        ..plain("a")
    };
    let nonsense = Job {
        profile: vec![Measurement { step_time: f64::NAN, sync_time: -3.0, ..measured(1, 1, 32) }],
        progress: f64::NAN,
        gradient: Some(Gradient { sqr: -1.0, var: f64::INFINITY }),
        ..plain("b")
    };
    let picture = cluster(2, vec![honest, nonsense]);
    let models: Vec<Model> = picture.jobs.iter().map(Model::fit).collect();
    for name in ["goodput", "optimus", "drf"] {
        let decision = named(name).unwrap().decide(&picture, &models);
        assert!(!decision.allocations[1].is_empty(), "{name}: {decision:?}");
        assert!(!decision.allocations[0].is_empty(), "{name}: {decision:?}");
    }
}

#[test]
fn the_fit_meets_what_was_measured_and_assumes_perfect_scaling_beyond() {
    let profile: Vec<Measurement> = [(1, 1, 8), (1, 1, 32), (1, 4, 16), (2, 8, 32), (4, 16, 64)]
        .map(|(nodes, replicas, batch)| measured(nodes, replicas, batch))
        .to_vec();
    let model = StepTime::fit(&profile).unwrap();
    for seen in &profile {
        let predicted = model.seconds(seen.nodes, seen.replicas, f64::from(seen.local_batch), 0);
        let off = (predicted / seen.step_time).ln().abs();
        assert!(off < 0.1, "{seen:?}: {predicted}");
    }
    let alone = StepTime::fit(&profile[..2]).unwrap();
    let one = alone.seconds(1, 1, 32.0, 0);
    assert!((alone.seconds(4, 16, 32.0, 0) - one).abs() < 1e-9 * one);
    assert!(alone.uncertainty(4, 16) > alone.uncertainty(1, 1));
}

#[test]
fn tiresias_puts_jobs_that_had_much_behind_those_that_had_little() {
    let old = Job { attained_service: 60_000.0, max_replicas: 4, ..plain("old") };
    let new = Job { submitted: 50.0, attained_service: 0.0, max_replicas: 4, ..plain("new") };
    let decide = |name: &str| {
        let picture = cluster(1, vec![old.clone(), new.clone()]);
        let decision = named(name).unwrap().decide(&picture, &[]);
        decision.allocations.iter().map(Vec::len).collect::<Vec<_>>()
    };
    assert_eq!(decide("tiresias"), [0, 4]);
    assert_eq!(decide("fifo"), [4, 0]);
    assert_eq!(decide("drf"), [2, 2]);
}

#[test]
fn a_job_that_claims_steps_of_no_time_takes_nothing_from_the_others() {
    let scales = vec![measured(1, 1, 32), measured(1, 4, 32), measured(2, 8, 32)];
    let honest = |name: &str| Job { profile: scales.clone(), ..plain(name) };
    let fast =
        |replicas| Measurement { step_time: 1e-8, sync_time: 0.0, ..measured(1, replicas, 32) };
    let liar = Job { profile: vec![fast(1), fast(4)], ..plain("liar") };
    let picture = cluster(3, vec![honest("a"), honest("b"), liar]);
    let models: Vec<Model> = picture.jobs.iter().map(Model::fit).collect();
    for name in ["goodput", "optimus", "drf"] {
        let sizes: Vec<usize> = named(name)
            .unwrap()
            .decide(&picture, &models)
            .allocations
            .iter()
            .map(Vec::len)
            .collect();
        assert!((1..=4).contains(&sizes[2]) && sizes[0] + sizes[1] >= 8, "{name}: {sizes:?}");
    }
}

#[test]
fn jobs_within_a_node_are_placed_on_one_and_those_that_stand_well_stay() {
    let mut jobs: Vec<Job> = (0..6).map(|n| plain(&format!("j{n}"))).collect();
    for job in &mut jobs {
        job.profile = vec![measured(1, 1, 32), measured(1, 2, 32)];
        job.max_replicas = 2;
    }
    let mut picture = cluster(3, jobs);
    let models: Vec<Model> = picture.jobs.iter().map(Model::fit).collect();
    let first = named("goodput").unwrap().decide(&picture, &models);
    for allocation in &first.allocations {
        assert_eq!(allocation.len(), 2, "{first:?}");
        assert_eq!(allocation[0], allocation[1], "{first:?}");
    }
    for (job, allocation) in picture.jobs.iter_mut().zip(&first.allocations) {
        job.allocation.clone_from(allocation);
    }
    assert_eq!(named("goodput").unwrap().decide(&picture, &models), first);
}
