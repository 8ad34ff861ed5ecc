//! Whole minimums or nothing: what a job does with what the auction grants.

use super::*;
use crate::auction;
use crate::training_job::status;
use impresario_auction::named;
use impresario_client::protocol::resources::Resources;
use impresario_runtime::clock;

const SERVER_MILLI: u64 = 200;
const TRAINER_MILLI: u64 = 500;

/// A job that has just been created, with these fewest.
fn fresh(job: &str, servers: u32, trainers: u32, now: Instant) -> State {
    let role = |min: u32, milli: u64| {
        json!({ "min": min, "max": min,
            "resources": { "requests": { "cpu": format!("{milli}m") } },
            "template": { "spec": { "containers": [{ "name": "main", "image": "x" }] } } })
    };
    let spec = json!({ "spec": {
        "mode": "async",
        "parameterServer": role(servers, SERVER_MILLI),
        "trainer": role(trainers, TRAINER_MILLI),
        "stop": { "epochs": 1 },
    }});
    let mut state = State::new(job, Spec::read(&spec).unwrap(), 1, LEASE, None, now);
    state.pods_are(Vec::new(), now);
    state
}

#[test]
fn a_job_makes_no_pod_before_the_auction_has_granted_its_whole_minimum() {
    let now = clock::now();
    let mut state = fresh("a", 1, 50, now);
    let later = now + Duration::from_mins(10);
    assert_eq!(creations(&mut state, later), 0);
    let missing = "cpu 1000m of 25200m".to_owned();
    let scale = |size, reason: &str| Scale {
        round: 1,
        scheduler: 1,
        lease: LEASE,
        size,
        reason: reason.to_owned(),
    };
    state.scale(&scale(Size::default(), &missing), now).unwrap();
    state.scale(&scale(Size::default(), &missing), now).unwrap();
    assert_eq!(creations(&mut state, later), 0);
    let told: Vec<Remark> = state.take_remarks();
    assert_eq!(told.len(), 1, "said once, not in each round: {told:?}");
    assert!(told[0].reason == "Waiting" && told[0].message.contains(&missing));
    let written = status::write(&state, &json!({}), &Earlier::default(), now);
    let condition = &written["conditions"][0];
    assert_eq!((&condition["type"], &condition["status"]), (&json!("Admitted"), &json!("False")));
    assert!(condition["message"].as_str().unwrap().contains(&missing));
    assert_eq!(written["phase"], "Pending");
    // A half is no grant.
    let half = Size { parameter_servers: 1, trainers: 2 };
    assert!(state.scale(&scale(half, "half"), now).is_err());
    let whole = Size { parameter_servers: 1, trainers: 50 };
    state.scale(&scale(whole, "there is room"), now).unwrap();
    assert_eq!(creations(&mut state, later), 51);
    let written = status::write(&state, &json!({}), &Earlier::default(), now);
    assert_eq!(written["conditions"][0]["status"], "True");
    assert!(Earlier::read(&json!({ "status": written })).admitted);
}

#[test]
fn a_job_that_waits_is_not_written_for_each_amount_that_changes() {
    let start = clock::now();
    let mut state = fresh("a", 1, 50, start);
    let mut round = 0;
    let mut hears = |state: &mut State, reason: &str, after: u64| {
        round += 1;
        let (size, reason) = (Size::default(), reason.to_owned());
        let now = start + Duration::from_secs(after);
        let scale = Scale { round, scheduler: 1, lease: LEASE, size, reason };
        state.scale(&scale, now).unwrap();
        let written = status::write(state, &json!({}), &Earlier::default(), start);
        (state.take_remarks().len(), [written["round"].clone(), written["conditions"].clone()])
    };
    let (said, first) = hears(&mut state, "cpu 1000m of 25200m", 0);
    assert_eq!(said, 1);
    for after in 1..60 {
        let (said, written) =
            hears(&mut state, &format!("cpu {}m of 25200m", 1_000 + after), after);
        assert_eq!((said, &written), (0, &first), "after {after} s");
    }
    // Once a minute, and at once where something else is missing.
    let (said, written) = hears(&mut state, "cpu 900m of 25200m", 60);
    assert!(said == 1 && written != first);
    assert_eq!(hears(&mut state, "cpu 900m of 25200m, memory 1 of 2", 61).0, 1);
    // What was granted and is taken back is told, whatever was said before.
    let size = Size { parameter_servers: 1, trainers: 50 };
    let grant = Scale { round: 1_000, scheduler: 1, lease: LEASE, size, reason: String::new() };
    state.scale(&grant, start).unwrap();
    state.take_remarks();
    let (size, reason) = (Size::default(), "cpu 900m of 25200m, memory 1 of 2".to_owned());
    state.scale(&Scale { round: 1_001, size, reason, ..grant }, start).unwrap();
    assert_eq!(state.take_remarks().len(), 1);
}

#[test]
fn a_job_does_not_begin_with_less_than_its_minimum() {
    let now = clock::now();
    let mut state = fresh("a", 1, 2, now);
    let size = Size { parameter_servers: 1, trainers: 2 };
    let reason = String::new();
    state.scale(&Scale { round: 1, scheduler: 1, lease: LEASE, size, reason }, now).unwrap();
    let pods = [(0, Member::ParameterServer), (1, Member::Trainer), (2, Member::Trainer)];
    state.pods_are(pods.map(|(number, member)| pod(number, member, None)).into(), now);
    joins(&mut state, 0, Holds::Shards(Vec::new()), now);
    joins(&mut state, 1, model(), now);
    for action in state.reconcile(now) {
        arrives(&mut state, &action);
    }
    assert!(matches!(state.work(&ask(1), now).unwrap().order, Order::Wait { .. }));
    joins(&mut state, 2, model(), now);
    assert!(matches!(state.work(&ask(1), now).unwrap().order, Order::Train(_)));
}

/// Jobs, one node, and a scheduler that gives each pod that is made a place while there is any, one at a time
/// and in turn: the worst that can happen to two jobs that want the same.
struct Town {
    policy: &'static str,
    now: Instant,
    milli: u64,
    jobs: Vec<(State, Vec<Seen>)>,
    round: u64,
    made: u32,
}

fn milli(member: Member) -> u64 {
    match member {
        Member::ParameterServer => SERVER_MILLI,
        Member::Trainer => TRAINER_MILLI,
    }
}

impl Town {
    fn free(&self) -> u64 {
        let pods = self.jobs.iter().flat_map(|(_, pods)| pods);
        self.milli.saturating_sub(pods.filter(|pod| pod.bound).map(|pod| milli(pod.member)).sum())
    }

    /// Holds a round and lets each job act on it; then one pod of each job is bound.
    fn pass(&mut self) {
        self.now += Duration::from_secs(2);
        self.round += 1;
        let free = [Resources { cpu_milli: self.free(), pods: 1_000, ..Resources::default() }];
        let bids: Vec<_> =
            self.jobs.iter().filter_map(|(job, _)| job.bid("ns", &job.job, 0, self.now)).collect();
        let policy = named(self.policy).unwrap();
        for outcome in auction::round(policy.as_ref(), self.round, &bids, &free) {
            let job = self.jobs.iter_mut().find(|(job, _)| job.job == outcome.job).unwrap();
            job.0.scale(&outcome.scale, self.now).unwrap();
        }
        for (job, pods) in &mut self.jobs {
            for action in job.reconcile(self.now) {
                match action {
                    Action::CreatePod(member) => {
                        self.made += 1;
                        pods.push(Seen { bound: false, ..pod(self.made, member, None) });
                    }
                    Action::DeletePod { uid, .. } => pods.retain(|pod| pod.uid != uid),
                    _ => {}
                }
            }
            job.pods_are(pods.clone(), self.now);
        }
        for turn in 0..self.jobs.len() {
            let free = self.free();
            let (job, pods) = &mut self.jobs[turn];
            let waiting = pods.iter_mut().find(|pod| !pod.bound && milli(pod.member) <= free);
            if let Some(pod) = waiting {
                pod.bound = true;
            }
            job.pods_are(pods.clone(), self.now);
        }
    }

    /// How many pods of a job are bound.
    fn bound(&self, job: usize) -> usize {
        self.jobs[job].1.iter().filter(|pod| pod.bound).count()
    }
}

#[test]
fn two_jobs_never_hold_a_half_each() {
    for policy in impresario_auction::POLICIES {
        let now = clock::now();
        // Room for one of the two and a half.
        let jobs = ["a", "b"].map(|name| (fresh(name, 1, 4, now), Vec::new())).into();
        let mut town = Town { policy, now, milli: 3_300, jobs, round: 0, made: 0 };
        for _ in 0..40 {
            town.pass();
            assert!(town.bound(0) == 0 || town.bound(1) == 0, "{policy}: both hold pods");
        }
        assert_eq!((town.bound(0), town.bound(1)), (5, 0), "{policy}");
        assert!(town.jobs[1].0.waits_for().unwrap().contains("cpu"), "{policy}");
        // The first is gone: the second gets all that it needs.
        town.jobs.remove(0);
        for _ in 0..10 {
            town.pass();
        }
        assert_eq!(town.bound(0), 5, "{policy}");
    }
}

#[test]
fn a_grant_whose_room_is_taken_by_others_is_given_back() {
    let now = clock::now();
    let jobs = vec![(fresh("a", 1, 4, now), Vec::new())];
    let mut town = Town { policy: "optimus", now, milli: 2_200, jobs, round: 0, made: 0 };
    town.pass();
    town.pass();
    assert!(town.bound(0) > 0);
    // A pod of somebody else takes what was to be the job's.
    town.milli = 1_000;
    for _ in 0..8 {
        town.pass();
    }
    assert_eq!(town.jobs[0].1.len(), 0, "it holds nothing while it waits");
    assert!(town.jobs[0].0.waits_for().is_some());
    town.milli = 2_200;
    for _ in 0..10 {
        town.pass();
    }
    assert_eq!(town.bound(0), 5);
}
