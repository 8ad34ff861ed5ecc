//! Whatever a guest says that cannot be: a typed refusal that names the field, and a job that is as it was.

use super::*;
use crate::training_job::state::epochs::first_epoch;
use impresario_client::protocol::training::{
    CurrentMap, Doing, Evaluated, HeldShard, Progress, ReportError, ScaleError, ServerReport,
    StaleLease, TrainerReport,
};
use impresario_runtime::clock;

/// A server and two trainers, of which the second has a pod and has not joined.
fn team(now: Instant) -> State {
    let mut state = state(now);
    let pods = [(0, Member::ParameterServer), (1, Member::Trainer), (2, Member::Trainer)];
    state.pods_are(pods.map(|(number, member)| pod(number, member, None)).into(), now);
    joins(&mut state, 0, Holds::Shards(Vec::new()), now);
    joins(&mut state, 1, model(), now);
    for action in state.reconcile(now) {
        arrives(&mut state, &action);
    }
    assert!(matches!(state.work(&ask(1), now).unwrap().order, Order::Train(_)));
    state.take_remarks();
    state
}

/// What the state is, to the last field.
fn all(state: &State) -> String {
    format!("{state:?}")
}

fn held(spoil: fn(&mut HeldShard)) -> Holds {
    let range = ShardRange { shard: 0, start: 0, length: 1 };
    let applied = Applied::all_below(3);
    let epoch = first_epoch(LEASE) + 1;
    let mut shard = HeldShard { range, epoch, version: 3, applied, leaving: None };
    spoil(&mut shard);
    Holds::Shards(vec![shard])
}

fn other(spoil: fn(&mut ModelFacts)) -> Holds {
    let mut facts = facts();
    spoil(&mut facts);
    Holds::Model(facts)
}

fn scattered(end: u64) -> Applied {
    let mut applied = Applied::all_below(3);
    applied.insert(end);
    applied
}

#[test]
fn a_join_that_cannot_be_is_refused_and_changes_nothing() {
    let now = clock::now();
    let joins: Vec<(&str, JoinTraining)> = vec![
        ("holds", join(1, held(|_| {}))),
        ("holds", join(0, model())),
        ("place.path", {
            let mut foreign = join(2, model());
            foreign.place.path = ActorPath::new("control-1", "trainer/uid-2");
            foreign
        }),
        ("place.path", {
            let mut foreign = join(2, model());
            foreign.place.path = ActorPath::new(guest_node("uid-2"), "registry");
            foreign
        }),
        ("place.path", JoinTraining { place: join(0, held(|_| {})).place, ..join(2, model()) }),
        ("place.address", {
            let mut elsewhere = join(2, model());
            elsewhere.place.address = "169.254.169.254:80".parse().unwrap();
            elsewhere
        }),
        ("place.address", {
            let mut nowhere = join(2, model());
            nowhere.place.address.set_port(0);
            nowhere
        }),
        ("holds[0].range", join(0, held(|shard| shard.range.shard = u32::MAX))),
        ("holds[0].range", join(0, held(|shard| shard.range.shard = 8))),
        ("holds[0].range", join(0, held(|shard| shard.range.length = u64::MAX))),
        ("holds[0].range", join(0, held(|shard| shard.range.start = 1))),
        ("holds[0].epoch", join(0, held(|shard| shard.epoch = u64::MAX))),
        ("holds[0].epoch", join(0, held(|shard| shard.epoch = first_epoch(LEASE + 1)))),
        ("holds[0].applied", join(0, held(|shard| shard.applied = Applied::all_below(u64::MAX)))),
        ("holds[0].applied", join(0, held(|shard| shard.applied = scattered(u64::MAX)))),
        ("holds[0].applied", join(0, held(|shard| shard.applied = scattered(1 << 40)))),
        ("holds[0].version", join(0, held(|shard| shard.version = u64::MAX))),
        ("holds.blocks", join(2, other(|facts| facts.blocks.clear()))),
        ("holds.blocks", join(2, other(|facts| facts.blocks = vec![(String::new(), 1); 70_000]))),
        ("holds.blocks.name", join(2, other(|facts| facts.blocks[0].0 = "x".repeat(300)))),
        ("holds.blocks.length", join(2, other(|facts| facts.blocks[0].1 = 0))),
        ("holds.blocks.length", join(2, other(|facts| facts.blocks[0].1 = u64::MAX))),
        (
            "holds.blocks.length",
            join(2, other(|facts| facts.blocks = vec![("a".into(), u64::MAX), ("b".into(), 2)])),
        ),
        ("holds.samples", join(2, other(|facts| facts.samples = 0))),
        ("holds.samples", join(2, other(|facts| facts.samples = u64::MAX))),
        ("holds.batch", join(2, other(|facts| facts.batch = 0))),
        ("holds.batch", join(2, other(|facts| facts.batch = u64::MAX))),
        ("holds.optimizer", join(2, other(|facts| facts.optimizer = rule(f32::NAN, 0.0, 0.0)))),
        ("holds.optimizer", join(2, other(|facts| facts.optimizer = rule(-1.0, 0.0, 0.0)))),
        (
            "holds.optimizer",
            join(2, other(|facts| facts.optimizer = rule(1.0, f32::INFINITY, 0.0))),
        ),
        ("holds.optimizer", join(2, other(|facts| facts.optimizer = rule(1.0, 0.0, 1.0)))),
    ];
    for (expected, join) in joins {
        let mut state = team(now);
        let before = all(&state);
        match state.join(join.clone(), now) {
            Err(JoinRefused::Invalid { field, .. }) => assert_eq!(field, expected, "{join:?}"),
            answer => panic!("{expected}: {answer:?} to {join:?}"),
        }
        assert_eq!(all(&state), before, "{join:?}");
    }
    // A stranger, a pod whose address nobody knows yet, one that has ended, and another model.
    let mut state = team(now);
    let mut pods: Vec<Seen> = state.pods.values().cloned().collect();
    pods.push(Seen { address: None, ..pod(3, Member::Trainer, None) });
    pods.push(pod(4, Member::Trainer, Some(true)));
    state.pods_are(pods, now);
    let before = all(&state);
    assert_eq!(state.join(join(9, model()), now), Err(JoinRefused::NotYet));
    assert_eq!(state.join(join(3, model()), now), Err(JoinRefused::NotYet));
    let ended = JoinRefused::NotYours { pod_uid: "uid-4".into() };
    assert_eq!(state.join(join(4, model()), now), Err(ended));
    let larger = other(|facts| facts.blocks[0].1 = 9);
    assert_eq!(state.join(join(2, larger), now), Err(JoinRefused::OtherModel));
    assert_eq!(all(&state), before);
}

fn rule(rate: f32, decay: f32, momentum: f32) -> OptimizerKind {
    OptimizerKind::Momentum { rate, decay, momentum }
}

fn done(spoil: fn(&mut Progress)) -> NextWork {
    let mut progress = Progress {
        step: 0,
        samples: 8,
        loss: Some(0.5),
        seconds: 1.0,
        compute_seconds: 0.5,
        gradient_square: Some(1.0),
    };
    spoil(&mut progress);
    NextWork { done: vec![progress], ..ask(1) }
}

fn evaluated(version: u64, loss: f32, accuracy: f32) -> NextWork {
    NextWork { evaluated: Some(Evaluated { version, loss: Some(loss), accuracy }), ..ask(1) }
}

#[test]
fn a_report_that_cannot_be_is_refused_and_changes_nothing() {
    type Say = Box<dyn Fn(&mut State) -> Result<(), ReportError>>;
    let now = clock::now();
    let work = |asked: NextWork| -> Say {
        Box::new(move |state: &mut State| state.work(&asked, now).map(|_| ()))
    };
    let alive = |number: u32, activation: u64, doing: Doing, milliseconds: u64| -> Say {
        let pod_uid = format!("uid-{number}");
        let report = TrainerReport { activation, pod_uid, doing, milliseconds };
        Box::new(move |state: &mut State| state.alive(&report, now).map(|_| ()))
    };
    let server = |number: u32, activation: u64, versions: Vec<(u32, u64)>| -> Say {
        let report = ServerReport {
            activation,
            pod_uid: format!("uid-{number}"),
            versions,
            leaving: BTreeSet::new(),
        };
        Box::new(move |state: &mut State| state.report(&report, now).map(|_| ()))
    };
    let map = |activation: u64, pod_uid: &str| -> Say {
        let asked = CurrentMap { activation, pod_uid: pod_uid.to_owned() };
        Box::new(move |state: &mut State| state.map_for(&asked).map(|_| ()))
    };
    let table: Vec<(&str, Say)> = vec![
        ("", work(NextWork { activation: 2, ..done(|_| {}) })),
        ("", work(NextWork { pod_uid: "uid-9".into(), ..done(|_| {}) })),
        ("pod_uid", work(NextWork { pod_uid: "uid-0".into(), ..done(|_| {}) })),
        ("done", work(NextWork { returned: vec![0; 5_000], ..ask(1) })),
        ("done.step", work(done(|one| one.step = u64::MAX))),
        ("done.step", work(done(|one| one.step = 1 << 20))),
        ("done.samples", work(done(|one| one.samples = u64::MAX))),
        ("done.samples", work(done(|one| one.samples = 0))),
        ("done.loss", work(done(|one| one.loss = Some(f32::NAN)))),
        ("done.loss", work(done(|one| one.loss = Some(f32::NEG_INFINITY)))),
        ("done.seconds", work(done(|one| one.seconds = f32::NAN))),
        ("done.seconds", work(done(|one| one.seconds = -1.0))),
        ("done.seconds", work(done(|one| one.seconds = f32::MAX))),
        ("done.compute_seconds", work(done(|one| one.compute_seconds = f32::INFINITY))),
        ("done.gradient_square", work(done(|one| one.gradient_square = Some(-1.0)))),
        ("done.gradient_square", work(done(|one| one.gradient_square = Some(f32::NAN)))),
        ("returned", work(NextWork { returned: vec![0, u64::MAX], ..ask(1) })),
        ("evaluated.version", work(evaluated(u64::MAX, 0.1, 0.5))),
        ("evaluated.loss", work(evaluated(1, f32::INFINITY, 0.5))),
        ("evaluated.accuracy", work(evaluated(1, 0.1, f32::NAN))),
        ("evaluated.accuracy", work(evaluated(1, 0.1, -0.5))),
        ("evaluated.accuracy", work(evaluated(1, 0.1, 7.0))),
        ("map_epoch", work(NextWork { map_epoch: u64::MAX, ..ask(1) })),
        ("", alive(1, 2, Doing::Waiting, 0)),
        ("", alive(9, 1, Doing::Waiting, 0)),
        ("pod_uid", alive(0, 1, Doing::Waiting, 0)),
        ("doing", alive(1, 1, Doing::Training(u64::MAX), 0)),
        ("milliseconds", alive(1, 1, Doing::Evaluating, u64::MAX)),
        ("", server(0, 2, vec![])),
        ("", server(9, 1, vec![])),
        ("pod_uid", server(1, 1, vec![])),
        ("versions", server(0, 1, vec![(u32::MAX, 0)])),
        ("versions", server(0, 1, vec![(8, 0)])),
        ("versions", server(0, 1, vec![(0, 0), (0, 0)])),
        ("versions", server(0, 1, vec![(0, u64::MAX)])),
        ("", map(2, "uid-1")),
        ("", map(1, "uid-9")),
    ];
    for (number, (expected, say)) in table.into_iter().enumerate() {
        let mut state = team(now);
        let before = all(&state);
        match say(&mut state) {
            Err(ReportError::Unknown) => assert_eq!(expected, "", "row {number}"),
            Err(ReportError::Invalid { field, .. }) => assert_eq!(field, expected, "row {number}"),
            Ok(()) => panic!("row {number} is taken"),
        }
        assert_eq!(all(&state), before, "row {number}");
    }
    // And what can be is taken.
    assert!(team(now).work(&done(|_| {}), now).is_ok());
}

#[test]
fn an_order_of_the_auction_that_is_late_or_cannot_be_is_refused_and_changes_nothing() {
    let now = clock::now();
    let mut state = team(now);
    let size = |trainers| Size { parameter_servers: 1, trainers };
    let scale =
        |round, scheduler, lease, size| Scale { round, scheduler, lease, size, reason: "x".into() };
    state.scale(&scale(5, 7, LEASE, size(2)), now).unwrap();
    state.take_remarks();
    let before = all(&state);
    let stale = |given, current| ScaleError::OldLease(StaleLease { given, current });
    let table = [
        (scale(6, 7, LEASE - 1, size(1)), stale(LEASE - 1, LEASE)),
        (scale(6, 7, LEASE + 1, size(1)), ScaleError::InDoubt),
        (scale(6, 6, LEASE, size(1)), stale(6, 7)),
        (scale(4, 7, LEASE, size(1)), ScaleError::Stale { current: 5 }),
        (scale(6, 7, LEASE, size(u32::MAX)), ScaleError::OutOfRange),
        (scale(6, 7, LEASE, Size::default()), ScaleError::OutOfRange),
    ];
    for (scale, refusal) in table {
        assert_eq!(state.scale(&scale, now), Err(refusal), "{scale:?}");
        assert_eq!(all(&state), before, "{scale:?}");
    }
    // Another scheduler may count rounds from where it likes.
    state.scale(&scale(1, 8, LEASE, size(1)), now).unwrap();
}

/// Before a trainer has said what the model is, the job cannot know: it keeps what servers bring, in the size
/// that it has, and looks at it when it can.
#[test]
fn what_a_server_brings_before_the_model_is_known_sizes_nothing() {
    let now = clock::now();
    for (spoil, kept) in [
        ((|_| {}) as fn(&mut HeldShard), true),
        (|shard| shard.range.length = 7, false),
        (|shard| shard.range.shard = 60_000, false),
    ] {
        let mut state = state(now);
        state.resume(&Earlier { steps: 3, ..Earlier::default() });
        let pods = [(0, Member::ParameterServer), (1, Member::Trainer)];
        state.pods_are(pods.map(|(number, member)| pod(number, member, None)).into(), now);
        joins(&mut state, 0, held(spoil), now);
        assert!(state.ranges.is_empty() && state.holders.is_empty());
        joins(&mut state, 1, model(), now);
        assert_eq!(state.ranges.len(), 8);
        assert_eq!(state.joined.contains_key("uid-0"), kept);
        assert_eq!(state.holders[0] == Holder::At("uid-0".into()), kept);
    }
}

#[test]
fn a_new_activation_trains_again_what_one_of_the_shards_lacks() {
    let now = clock::now();
    let mut state = state(now);
    state.resume(&Earlier { steps: 3, ..Earlier::default() });
    let pods = [(0, Member::ParameterServer), (2, Member::ParameterServer), (1, Member::Trainer)];
    state.pods_are(pods.map(|(number, member)| pod(number, member, None)).into(), now);
    let shard = |shard: u32, applied: Applied| {
        let range = ShardRange { shard, start: u64::from(shard), length: 1 };
        let epoch = first_epoch(LEASE - 1) + 5;
        HeldShard { range, epoch, version: applied.count(), applied, leaving: None }
    };
    let some = |shards: std::ops::Range<u32>, applied: &Applied| {
        Holds::Shards(shards.map(|number| shard(number, applied.clone())).collect())
    };
    joins(&mut state, 0, some(0..4, &Applied::all_below(6)), now);
    joins(&mut state, 1, model(), now);
    // This one comes when the plan is made already; it lacks step 4.
    let mut lacks = Applied::all_below(4);
    lacks.insert(5);
    joins(&mut state, 2, some(4..8, &lacks), now);
    assert_eq!((state.steps(), state.samples()), (5, 40));
    assert_eq!(state.work(&ask(1), now).unwrap().order, Order::Evaluate { number: 1 });
    let Order::Train(batches) = state.work(&ask(1), now).unwrap().order else { panic!() };
    assert_eq!(batches[0].step, 4);
}

#[test]
fn batches_whose_grant_was_lost_on_its_way_are_given_out_again() {
    let now = clock::now();
    let mut state = team(now);
    let first = |state: &mut State| match state.work(&ask(1), now).unwrap().order {
        Order::Train(batches) => batches[0].step,
        order => panic!("{order:?}"),
    };
    assert_eq!(first(&mut state), 0, "the trainer has nothing in hand: it never heard of step 0");
}

#[test]
fn a_batch_may_take_as_long_as_it_takes_while_its_trainer_says_that_it_lives() {
    let now = clock::now();
    let mut state = team(now);
    let at = |seconds: u64| now + Duration::from_secs(seconds);
    let report = |seconds: u64| TrainerReport {
        activation: 1,
        pod_uid: "uid-1".into(),
        doing: Doing::Training(0),
        milliseconds: seconds * 1_000,
    };
    let server = ServerReport {
        activation: 1,
        pod_uid: "uid-0".into(),
        versions: Vec::new(),
        leaving: BTreeSet::new(),
    };
    // Five minutes of warm-up, then one that gets nowhere for far longer than anything took.
    for second in 1..=300 {
        assert_eq!(state.alive(&report(second), at(second)), Ok(true));
        state.report(&server, at(second)).unwrap();
        let deleted = |action: &Action| matches!(action, Action::DeletePod { uid, .. } if ["uid-0", "uid-1"].contains(&uid.as_str()));
        assert!(!state.reconcile(at(second)).iter().any(deleted), "after {second} s");
    }
    state.alive(&report(3_600), at(301)).unwrap();
    let hangs = Action::DeletePod { name: "pod-1".into(), uid: "uid-1".into() };
    assert!(state.reconcile(at(301)).contains(&hangs));
}
