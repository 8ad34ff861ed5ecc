//! What a round decides: of every policy that it never promises what is not there, and what `optimus` does.

use super::words::taken;
use super::*;
use impresario_auction::{POLICIES, named};
use impresario_client::protocol::training::SpeedModel;
use proptest::prelude::*;

fn cpu(milli: u64) -> Resources {
    Resources { cpu_milli: milli, pods: 1, ..Resources::default() }
}

/// A round by Optimus's rule.
fn held(number: u64, bids: &[Bid], free: &[Resources]) -> Vec<Outcome> {
    round(named("optimus").unwrap().as_ref(), number, bids, free)
}

fn node(milli: u64) -> Resources {
    Resources { cpu_milli: milli, pods: 100, ..Resources::default() }
}

fn bid(name: &str, remaining: f64, current: (u32, u32)) -> Bid {
    Bid {
        job: name.to_owned(),
        namespace: "default".to_owned(),
        name: name.to_owned(),
        created_unix_seconds: 0,
        remaining_steps: remaining,
        remaining_uncertainty: 0.0,
        done_steps: 500,
        speed: SpeedModel::Asynchronous { a: [0.1, 0.02, 0.001, 0.001] },
        speed_uncertainty: 0.0,
        measured_trainers: 6,
        current: Size { parameter_servers: current.0, trainers: current.1 },
        wanted: Size { parameter_servers: current.0, trainers: current.1 },
        min: Size { parameter_servers: 1, trainers: 1 },
        max: Size { parameter_servers: 3, trainers: 6 },
        parameter_server: cpu(200),
        trainer: cpu(500),
        rescale_seconds: 0.5,
        rescale_uncertainty: 0.0,
        lease: 0,
        incomplete_seconds: 0,
    }
}

/// A job that has not begun.
fn fresh(name: &str, min: (u32, u32)) -> Bid {
    let min = Size { parameter_servers: min.0, trainers: min.1 };
    Bid { done_steps: 0, min, max: min, ..bid(name, 1_000.0, (0, 0)) }
}

#[test]
fn of_two_jobs_of_which_one_fits_one_gets_its_whole_minimum_and_the_other_nothing() {
    // Each takes 200 + 2 · 500; a half of each would fit.
    let (mut a, mut b) = (fresh("a", (1, 2)), fresh("b", (1, 2)));
    b.created_unix_seconds = 5;
    let outcomes = held(1, &[b.clone(), a.clone()], &[node(1_400)]);
    assert_eq!(size_of(&outcomes, "a", (0, 0)), (1, 2));
    assert_eq!(size_of(&outcomes, "b", (9, 9)), (0, 0));
    let told = outcomes.iter().find(|one| one.job == "b").unwrap();
    assert!(told.scale.reason.contains("cpu 200m of 1200m"), "{}", told.scale.reason);
    // While the pods of the first are on their way nobody, however early it came, gets in between.
    a.wanted = a.min;
    a.current = Size { parameter_servers: 1, trainers: 1 };
    b.created_unix_seconds = -5;
    let outcomes = held(2, &[a.clone(), b.clone()], &[node(700)]);
    assert_eq!(size_of(&outcomes, "a", (1, 2)), (1, 2));
    assert_eq!(size_of(&outcomes, "b", (9, 9)), (0, 0));
    // Somebody else took the room: after a while the first gives back what it has of it.
    assert_eq!(size_of(&held(3, &[a.clone(), b.clone()], &[node(100)]), "a", (1, 2)), (1, 2));
    a.incomplete_seconds = 10;
    let outcomes = held(4, &[a, b], &[node(100)]);
    assert_eq!(size_of(&outcomes, "a", (9, 9)), (0, 0));
    assert_eq!(size_of(&outcomes, "b", (9, 9)), (0, 0), "what is held is not free yet");
}

#[test]
fn a_job_whose_minimum_is_gone_stops_nobody_else() {
    // Its trainer was on a node that is no more, and was larger than any that is left.
    let large = Resources { cpu_milli: 9_000, pods: 1, ..Resources::default() };
    let stranded = Bid { trainer: large, ..bid("a", 1_000.0, (1, 0)) };
    let runs = bid("b", 5_000.0, (1, 2));
    let mut waits = fresh("c", (1, 1));
    waits.created_unix_seconds = 5;
    for free in [vec![node(1_700)], vec![node(12_000)]] {
        let fits = free[0].cpu_milli > 9_000;
        let outcomes = held(1, &[stranded.clone(), runs.clone(), waits.clone()], &free);
        assert!(size_of(&outcomes, "b", (1, 2)).1 >= 2, "{outcomes:?}");
        assert_eq!(size_of(&outcomes, "c", (0, 0)), (1, 1), "{outcomes:?}");
        // It waits for its room, and is told nothing before there is some.
        assert_eq!(size_of(&outcomes, "a", (1, 0)).1, u32::from(fits), "{outcomes:?}");
    }
}

#[test]
fn a_minimum_that_no_cluster_has_is_told_and_costs_no_more_than_any_other() {
    let outcomes = held(1, &[fresh("a", (1, u32::MAX))], &[node(4_000)]);
    assert_eq!(outcomes.len(), 1);
    assert_eq!(outcomes[0].scale.size, Size::default());
    assert!(outcomes[0].scale.reason.contains("4294967295 trainers"));
    // Enough in all, and no node with room for one.
    let outcomes = held(1, &[fresh("a", (1, 1))], &[node(400), node(400)]);
    assert!(outcomes[0].scale.reason.contains("no nodes have room"), "{outcomes:?}");
}

fn size_of(outcomes: &[Outcome], job: &str, current: (u32, u32)) -> (u32, u32) {
    let found = outcomes.iter().find(|one| one.job == job).map(|one| one.scale.size);
    found.map_or(current, |size| (size.parameter_servers, size.trainers))
}

#[test]
fn a_job_alone_grows_to_what_the_cluster_has() {
    let outcomes = held(1, &[bid("a", 5_000.0, (1, 1))], &[node(1_000), node(1_000), node(300)]);
    let (servers, trainers) = size_of(&outcomes, "a", (1, 1));
    assert!(trainers >= 4 && servers >= 2, "{servers},{trainers}");
    assert!(outcomes[0].scale.reason.contains("instead of"));
}

#[test]
fn the_first_gives_to_the_second_and_gets_it_back() {
    let full = bid("a", 5_000.0, (2, 4));
    let outcomes = held(1, &[full.clone(), bid("b", 3_000.0, (0, 0))], &[]);
    let (a, b) = (size_of(&outcomes, "a", (2, 4)), size_of(&outcomes, "b", (0, 0)));
    assert!(b.1 >= 1 && a.1 < 4, "{a:?} {b:?}");
    assert!(outcomes.iter().any(|one| one.scale.reason.contains("default/b")));
    let outcomes = held(2, &[bid("a", 5_000.0, a)], &[node(u64::from(4 - a.1) * 500 + 200)]);
    assert_eq!(size_of(&outcomes, "a", a).1, 4);
}

#[test]
fn a_change_that_costs_more_than_it_saves_is_not_made() {
    let mut costly = bid("a", 5.0, (1, 1));
    costly.rescale_seconds = 10.0;
    assert_eq!(held(1, &[costly], &[node(4_000)]), []);
}

#[test]
fn a_job_that_is_unsure_does_not_grow_for_a_gain_that_may_be_none() {
    // Sure of itself, it grows: some seconds are saved, and a change costs one.
    let mut sure = bid("a", 60.0, (1, 1));
    sure.rescale_seconds = 1.0;
    let outcomes = held(1, std::slice::from_ref(&sure), &[node(4_000)]);
    assert!(size_of(&outcomes, "a", (1, 1)).1 > 1, "{outcomes:?}");
    let of_work = Bid { remaining_uncertainty: 8.0, ..sure.clone() };
    let of_speed = Bid { speed_uncertainty: 8.0, ..sure.clone() };
    let of_cost = Bid { rescale_uncertainty: 6.0, ..sure };
    for unsure in [of_work, of_speed, of_cost] {
        assert_eq!(held(1, &[unsure], &[node(4_000)]), []);
    }
}

#[test]
fn a_prediction_is_told_with_how_far_it_may_be_off() {
    let told = |bid: Bid| held(1, &[bid], &[node(4_000)])[0].scale.reason.clone();
    assert!(!told(bid("a", 5_000.0, (1, 1))).contains('±'));
    let unsure = Bid { remaining_uncertainty: 0.3, ..bid("a", 5_000.0, (1, 1)) };
    assert!(told(unsure).ends_with("± 30 %"));
    // Beyond what was measured it is less sure.
    let few = Bid { measured_trainers: 1, ..bid("a", 5_000.0, (1, 1)) };
    assert!(told(few).contains('±'));
}

/// The policies that choose sizes.
const ELASTIC: [&str; 3] = ["goodput", "optimus", "drf"];

/// A job with one parameter server that is twice as fast with twice the trainers, of one CPU each.
fn tireless(name: &str, trainers: u32, max: u32) -> Bid {
    Bid {
        max: Size { parameter_servers: 1, trainers: max },
        speed: SpeedModel::Asynchronous { a: [0.1, 0.0, 0.0, 0.0] },
        trainer: cpu(1_000),
        ..bid(name, 5e6, (1, trainers))
    }
}

/// What jobs have after so many rounds, each of which they follow, on nodes of two CPUs with so many pods to come.
fn grown(policy: &str, mut bids: Vec<Bid>, rounds: u64, pods: usize) -> Vec<u32> {
    let policy = named(policy).unwrap();
    for number in 0..rounds {
        let has = bids.iter().map(|bid| bid.current.trainers as usize).sum::<usize>();
        let left = pods.saturating_sub(has);
        let free =
            vec![node(2_000); left / 2].into_iter().chain((left % 2 > 0).then(|| node(1_000)));
        let outcomes = round(policy.as_ref(), number, &bids, &free.collect::<Vec<_>>());
        for Outcome { job, scale } in outcomes {
            let bid = bids.iter_mut().find(|bid| bid.job == job).unwrap();
            (bid.current, bid.wanted) = (scale.size, scale.size);
        }
    }
    bids.iter().map(|bid| bid.current.trainers).collect()
}

#[test]
fn a_job_grows_to_whatever_it_may_have_and_all_jobs_that_want_one_more_get_it() {
    for policy in ELASTIC {
        let alone = grown(policy, vec![tireless("a", 1, 500)], 3, 1_000);
        assert_eq!(alone, [500], "{policy}");
        let most = grown(policy, vec![tireless("a", 1, 5_000)], 3, 1_000);
        assert_eq!(most, [1_000], "{policy}");
        let many = (0..200).map(|job| tireless(&format!("job-{job}"), 1, 2)).collect();
        let many = grown(policy, many, 3, 1_000);
        assert!(many.iter().all(|trainers| *trainers == 2), "{policy}: {many:?}");
    }
}

#[test]
fn jobs_that_share_a_large_cluster_come_to_rest_with_all_of_it() {
    for policy in ELASTIC {
        let bids = vec![tireless("a", 1, 900), tireless("b", 300, 900), tireless("c", 20, 900)];
        let (after, later) =
            (grown(policy, bids.clone(), 12, 1_000), grown(policy, bids, 13, 1_000));
        assert_eq!(after.iter().sum::<u32>(), 1_000, "{policy}: {after:?}");
        assert_eq!(after, later, "{policy}");
    }
}

/// Two jobs that have all of a cluster of twenty trainers, and their sizes after each of fifty rounds in which what
/// they have measured is off by up to three per cent, now this way and now that.
fn noisy(policy: &str, trainers: [u32; 2]) -> Vec<Vec<u32>> {
    let policy = named(policy).unwrap();
    let mut bids = [tireless("a", trainers[0], 20), tireless("b", trainers[1], 20)];
    let mut random = 1u64;
    let mut noise = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        0.97 + 0.06 * (random >> 40) as f64 / f64::from(1u32 << 24)
    };
    let mut sizes = Vec::new();
    for number in 0..50 {
        for bid in &mut bids {
            let a = [0.1, 0.0, 0.006, 0.002].map(|each| each * noise());
            bid.speed = SpeedModel::Asynchronous { a };
            bid.remaining_steps = 1e6 * noise();
        }
        let has: u32 = bids.iter().map(|bid| bid.current.trainers).sum();
        let free = vec![node(1_000); (20 - has) as usize];
        for Outcome { job, scale } in round(policy.as_ref(), number, &bids, &free) {
            let bid = bids.iter_mut().find(|bid| bid.job == job).unwrap();
            (bid.current, bid.wanted) = (scale.size, scale.size);
        }
        sizes.push(bids.iter().map(|bid| bid.current.trainers).collect());
    }
    sizes
}

#[test]
fn a_member_that_is_on_its_way_out_is_not_called_back() {
    // It gave up two trainers and a server for the minimum of another; the server has not left yet.
    let leaves = Bid {
        speed: SpeedModel::Asynchronous { a: [0.1, 0.0, 0.001, 0.001] },
        wanted: Size { parameter_servers: 1, trainers: 1 },
        ..bid("a", 5_000.0, (2, 1))
    };
    let comes = Bid { wanted: Size { parameter_servers: 1, trainers: 2 }, ..fresh("b", (1, 2)) };
    for policy in ["goodput", "optimus"] {
        let named = named(policy).unwrap();
        let bids = [leaves.clone(), comes.clone()];
        let outcomes = round(named.as_ref(), 2, &bids, &[node(1_200)]);
        assert_eq!(size_of(&outcomes, "a", (1, 1)), (1, 1), "{policy}: {outcomes:?}");
        assert_eq!(size_of(&outcomes, "b", (1, 2)), (1, 2), "{policy}: {outcomes:?}");
    }
}

#[test]
fn what_varies_in_what_jobs_measure_does_not_swap_their_trainers() {
    for policy in ["goodput", "optimus"] {
        let sizes = noisy(policy, [10, 10]);
        let changes = sizes.windows(2).filter(|two| two[0] != two[1]).count();
        assert!(changes <= 1, "{policy}: {sizes:?}");
        // What is surely better is done all the same.
        let sizes = noisy(policy, [19, 1]);
        let last = sizes.last().unwrap();
        assert!(last.iter().all(|trainers| *trainers >= 6), "{policy}: {sizes:?}");
        let changes = sizes.windows(2).filter(|two| two[0] != two[1]).count();
        assert!(changes <= 4, "{policy}: {sizes:?}");
    }
}

#[test]
fn a_pod_that_fits_on_no_node_is_not_promised() {
    let outcomes = held(1, &[bid("a", 5_000.0, (1, 1))], &[node(300), node(300), node(300)]);
    assert_eq!(size_of(&outcomes, "a", (1, 1)).1, 1);
}

prop_compose! {
    fn any_bid()(
        number in 0u32..1_000,
        remaining in 0.0f64..10_000.0,
        done in 0u64..300,
        a in prop::array::uniform4(0.0f64..0.2),
        current in (0u32..4, 0u32..6),
        cost in 0.0f64..5.0,
        milli in (50u64..400, 50u64..900),
        created in 0i64..3,
    ) -> Bid {
        let current = if current.0.min(current.1) == 0 { (0, 0) } else { current };
        Bid {
            created_unix_seconds: created,
            done_steps: done,
            speed: SpeedModel::Asynchronous { a },
            parameter_server: cpu(milli.0),
            trainer: cpu(milli.1),
            rescale_seconds: cost,
            ..bid(&format!("job-{number}"), remaining, current)
        }
    }
}

proptest! {
    #[test]
    fn a_round_never_promises_more_than_there_is(
        bids in prop::collection::vec(any_bid(), 0..6),
        free in prop::collection::vec(0u64..3_000, 0..4),
    ) {
        let free: Vec<Resources> = free.into_iter().map(node).collect();
        let mut bids = bids;
        bids.sort_by(|a, b| a.job.cmp(&b.job));
        bids.dedup_by(|a, b| a.job == b.job);
        for name in POLICIES {
            let policy = named(name).unwrap();
            let outcomes = round(policy.as_ref(), 7, &bids, &free);
            let (mut all, mut capacity) = (Resources::default(), Resources::default());
            for node in &free {
                capacity.add(node);
            }
            for bid in &bids {
                capacity.add(&taken(bid, bid.current));
                let found = outcomes.iter().find(|one| one.job == bid.job);
                let size = found.map_or(bid.current, |one| one.scale.size);
                all.add(&taken(bid, size));
                if found.is_some() {
                    let nothing = size == Size::default() && !runs(bid);
                    prop_assert!(nothing || is_within(size, bid), "{}: {:?}", name, size);
                }
            }
            prop_assert!(capacity.covers(&all), "{}: {:?} of {:?}", name, all, capacity);
            let mut reversed = bids.clone();
            reversed.reverse();
            prop_assert_eq!(round(policy.as_ref(), 7, &reversed, &free), outcomes);
        }
    }
}

#[test]
fn a_job_whose_bid_makes_no_sense_gets_no_more_than_a_fair_share_and_is_told_so() {
    type Spoil = fn(&mut Bid);
    let spoils: [Spoil; 11] = [
        |bid| bid.remaining_steps = f64::NAN,
        |bid| bid.remaining_steps = f64::INFINITY,
        |bid| bid.remaining_steps = -1.0,
        |bid| bid.remaining_steps = 1e300,
        |bid| bid.speed = SpeedModel::Asynchronous { a: [f64::NAN, 0.0, 0.0, 0.0] },
        |bid| bid.speed = SpeedModel::Asynchronous { a: [-1.0, 0.0, 0.0, 0.0] },
        |bid| bid.speed = SpeedModel::Asynchronous { a: [1e-12, 0.0, 0.0, 0.0] },
        |bid| bid.rescale_seconds = f64::NEG_INFINITY,
        |bid| bid.remaining_uncertainty = f64::NAN,
        |bid| bid.speed_uncertainty = -0.5,
        |bid| bid.rescale_uncertainty = f64::INFINITY,
    ];
    let free = [node(2_000), node(2_000)];
    for spoil in spoils {
        let (mut bad, good) = (bid("bad", 5_000.0, (1, 1)), bid("good", 5_000.0, (1, 1)));
        spoil(&mut bad);
        for name in ["goodput", "optimus", "drf"] {
            let policy = named(name).unwrap();
            let outcomes = round(policy.as_ref(), 1, &[bad.clone(), good.clone()], &free);
            let has = |job| size_of(&outcomes, job, (1, 1));
            let (servers, trainers) = has("bad");
            // The cluster is what is free and what both hold: 5,400.
            let share = 200 * servers + 500 * trainers;
            assert!(share <= 2_700, "{name}: {servers}, {trainers}: {outcomes:?}");
            assert!(has("good").1 >= 4, "{name}: {outcomes:?}");
            let told = outcomes.iter().find(|one| one.job == "bad");
            let is_told = told.is_none_or(|one| one.scale.reason.contains("fair share"));
            assert!(is_told, "{name}: {told:?}");
        }
    }
}

#[test]
fn policies_that_choose_no_sizes_give_the_maximum_or_leave_a_job_with_its_minimum() {
    let fixed = |name: &str, at| Bid { created_unix_seconds: at, ..bid(name, 500.0, (1, 1)) };
    // The first wants 3 · 200 + 6 · 500; the second has what is left beside it.
    let bids = [fixed("late", 2), fixed("early", 1)];
    for name in ["fifo", "tiresias"] {
        let policy = named(name).unwrap();
        let outcomes = round(policy.as_ref(), 1, &bids, &[node(3_000), node(1_000)]);
        assert_eq!(size_of(&outcomes, "early", (1, 1)), (3, 6), "{name}: {outcomes:?}");
        assert_eq!(size_of(&outcomes, "late", (1, 1)), (1, 1), "{name}: {outcomes:?}");
    }
    // Who waits with a minimum that does not fit is passed over by tiresias and not by fifo.
    let (mut large, mut small) = (fresh("large", (1, 6)), fresh("small", (1, 1)));
    (large.created_unix_seconds, small.created_unix_seconds) = (1, 2);
    let bids = [large, small, bid("runs", 500.0, (3, 6))];
    let small = |name| {
        let policy = named(name).unwrap();
        size_of(&round(policy.as_ref(), 1, &bids, &[node(300)]), "small", (9, 9))
    };
    assert_eq!(small("tiresias"), (1, 1));
    assert_eq!(small("fifo"), (0, 0));
}

#[test]
fn a_market_gives_a_job_that_ends_soon_what_one_that_is_long_would_make_as_much_of() {
    let policy = named("goodput").unwrap();
    let bids = [bid("long", 500_000.0, (1, 1)), bid("short", 500.0, (1, 1))];
    let outcomes = round(policy.as_ref(), 1, &bids, &[node(1_500)]);
    let (long, short) = (size_of(&outcomes, "long", (1, 1)), size_of(&outcomes, "short", (1, 1)));
    assert!(short.1 > long.1, "{outcomes:?}");
    // Alone it grows as far as that makes it faster.
    let outcomes = round(policy.as_ref(), 2, &bids[..1], &[node(4_000)]);
    let (servers, trainers) = size_of(&outcomes, "long", (1, 1));
    assert!(servers >= 2 && trainers >= 4, "{outcomes:?}");
}
