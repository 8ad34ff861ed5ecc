//! What a state decides about pods that fail and about the activation before it.

use super::*;
use crate::training_job::earlier::Earlier;
use impresario_client::protocol::training::{
    Holds, JoinRefused, JoinTraining, NextWork, OptimizerKind, Order, Scale, guest_node,
    parameter_server_actor, trainer_actor,
};
use impresario_runtime::{ActorPath, clock};
use serde_json::json;
use std::time::Duration;

mod barrier;
mod checkpoints;
mod copies;
mod endings;
mod folders;
mod forged;
mod gang;
mod hang;
mod late_trainer;
mod mixed;
mod silence;
mod unstarted;

fn pod(number: u32, member: Member, ended: Option<bool>) -> Seen {
    Seen {
        uid: format!("uid-{number}"),
        name: format!("pod-{number}"),
        member,
        bound: true,
        address: Some([127, 0, 0, 1].into()),
        running: true,
        deleting: false,
        ended,
    }
}

/// The epoch of the lease of the activations here.
const LEASE: u64 = 3;

fn state(now: Instant) -> State {
    let template = json!({ "spec": { "containers": [{ "name": "main", "image": "x" }] } });
    let spec = json!({ "spec": {
        "mode": "async",
        "parameterServer": { "min": 1, "max": 1, "template": template },
        "trainer": { "min": 1, "max": 2, "template": template },
        "stop": { "epochs": 1 },
    }});
    let granted = Some(Size { parameter_servers: 1, trainers: 1 });
    State::new("job", Spec::read(&spec).unwrap(), 1, LEASE, granted, now)
}

fn creations(state: &mut State, now: Instant) -> usize {
    let actions = state.reconcile(now);
    actions.iter().filter(|action| matches!(action, Action::CreatePod(_))).count()
}

#[test]
fn pods_that_fail_in_a_row_are_replaced_ever_later_and_end_the_job_at_last() {
    let began = clock::now();
    let (mut state, mut now) = (state(began), began);
    state.pods_are(Vec::new(), now);
    let mut pods = Vec::new();
    let mut waits = Vec::new();
    for number in 0..9 {
        pods.push(pod(number, Member::Trainer, Some(false)));
        state.pods_are(pods.clone(), now);
        let failed = now;
        while creations(&mut state, now) == 0 {
            now += Duration::from_millis(100);
            assert!(now - failed < Duration::from_mins(2), "it is replaced");
        }
        waits.push(now - failed);
    }
    assert!(waits[0].is_zero(), "the first one is replaced at once: {waits:?}");
    assert!(waits[4] >= Duration::from_secs(4) && waits[8] >= Duration::from_secs(30), "{waits:?}");
    assert!(!state.ended());
    pods.push(pod(9, Member::Trainer, Some(false)));
    state.pods_are(pods, now);
    assert_eq!(state.phase(), Phase::Failed);
}

#[test]
fn a_pod_that_was_made_and_went_before_anybody_saw_it_is_made_again() {
    let now = clock::now();
    let mut state = state(now);
    state.pods_are(Vec::new(), now);
    let asked = state.reconcile(now);
    let asked: Vec<Member> = asked
        .iter()
        .filter_map(|action| match action {
            Action::CreatePod(member) => Some(*member),
            _ => None,
        })
        .collect();
    assert_eq!(asked, [Member::ParameterServer, Member::Trainer]);
    for member in &asked {
        state.creation_begins(*member);
    }
    assert_eq!(creations(&mut state, now + Duration::from_mins(1)), 0, "the registry is slow");
    state.creation_ends(Member::ParameterServer, None, now);
    let again = state.reconcile(now);
    assert_eq!(again, [Action::CreatePod(Member::ParameterServer)], "that one was not made");
    state.creation_begins(Member::ParameterServer);
    state.creation_ends(Member::ParameterServer, Some("uid-0".into()), now);
    state.creation_ends(Member::Trainer, Some("uid-1".into()), now);
    state.pods_are(vec![pod(0, Member::ParameterServer, None)], now);
    assert_eq!(creations(&mut state, now + Duration::from_secs(9)), 0);
    // Somebody deleted it at once.
    let later = now + Duration::from_secs(11);
    assert_eq!(state.reconcile(later), [Action::CreatePod(Member::Trainer)]);
}

#[test]
fn what_failed_before_this_activation_looked_is_not_held_against_the_job() {
    let now = clock::now();
    let mut state = state(now);
    state.pods_are((0..30).map(|n| pod(n, Member::Trainer, Some(false))).collect(), now);
    assert!(!state.ended());
    assert!(state.take_remarks().is_empty());
    assert!(creations(&mut state, now) > 0);
}

#[test]
fn a_new_activation_takes_nothing_back_until_members_had_the_time_to_come() {
    let now = clock::now();
    let mut state = state(now);
    assert!(state.has_caught_up(now), "nobody was there before");
    state.resume(&Earlier { steps: 100, ..Earlier::default() });
    assert_eq!(state.phase(), Phase::Running);
    assert!(!state.has_caught_up(now + Duration::from_secs(1)));
    assert!(state.has_caught_up(now + Duration::from_secs(60)));
}

fn join(number: u32, holds: Holds) -> JoinTraining {
    let pod_uid = format!("uid-{number}");
    let actor = match holds.member() {
        Member::ParameterServer => parameter_server_actor(&pod_uid),
        Member::Trainer => trainer_actor(&pod_uid),
    };
    let path = ActorPath::new(guest_node(&pod_uid), actor);
    JoinTraining {
        place: Place { path, address: "127.0.0.1:7000".parse().unwrap() },
        pod_uid,
        holds,
    }
}

fn joins(state: &mut State, number: u32, holds: Holds, now: Instant) {
    state.join(join(number, holds), now).unwrap();
}

fn facts() -> ModelFacts {
    ModelFacts {
        blocks: vec![("w".into(), 8)],
        samples: 64,
        batch: 8,
        optimizer: OptimizerKind::Momentum { rate: 0.1, decay: 0.0, momentum: 0.0 },
        seed: 1,
    }
}

fn ask(number: u32) -> NextWork {
    NextWork {
        activation: 1,
        pod_uid: format!("uid-{number}"),
        done: Vec::new(),
        returned: Vec::new(),
        evaluated: None,
        evaluation: None,
        map_epoch: 0,
    }
}

fn model() -> Holds {
    Holds::Model(facts())
}

/// A move ends as it should.
fn arrives(state: &mut State, action: &Action) {
    let given: Vec<(u32, u64)> = match action {
        Action::Provide { shards, .. } => shards.iter().map(|one| (one.shard, 0)).collect(),
        _ => Vec::new(),
    };
    state.moved(action, &given);
}

fn provided(actions: &[Action]) -> Vec<(String, bool)> {
    let of = |action: &Action| match action {
        Action::Provide { from, begins, .. } => Some((from.path.node.to_string(), *begins)),
        _ => None,
    };
    actions.iter().filter_map(of).collect()
}

#[test]
fn a_job_whose_parameters_are_all_lost_says_so_and_begins_anew() {
    let began = clock::now();
    let mut state = state(began);
    state.resume(&Earlier { steps: 5, ..Earlier::default() });
    let pods = [(0, Member::ParameterServer), (1, Member::Trainer), (2, Member::Trainer)];
    state.pods_are(pods.map(|(number, member)| pod(number, member, None)).into(), began);
    joins(&mut state, 0, Holds::Shards(Vec::new()), began);
    joins(&mut state, 1, model(), began);
    joins(&mut state, 2, model(), began);
    let now = began + Duration::from_secs(9);
    // One trainer after the other is asked for its copy, and none may pass initial values off as one.
    for _ in 0..2 {
        assert_eq!(state.steps(), 5);
        let actions = state.reconcile(now);
        let asked = provided(&actions);
        assert!(asked.len() == 1 && !asked[0].1, "{asked:?}");
        for action in &actions {
            state.has_no_copy(action, now);
        }
    }
    assert_eq!(state.steps(), 0);
    assert!(state.take_remarks().iter().any(|remark| remark.reason == "TrainingBeginsAnew"));
    let asked = provided(&state.reconcile(now));
    assert!(asked.len() == 1 && asked[0].1, "{asked:?}");
}

#[test]
fn a_pod_that_somebody_asked_to_go_is_no_failure_of_the_job() {
    let now = clock::now();
    let mut state = state(now);
    state.pods_are(vec![pod(0, Member::Trainer, None)], now);
    let evicted = Seen { deleting: true, ..pod(0, Member::Trainer, Some(false)) };
    state.pods_are(vec![evicted], now);
    assert!(state.take_remarks().iter().all(|remark| remark.reason != "MemberFailed"));
}

/// A server and two trainers that have joined.
fn team(now: Instant) -> State {
    let mut state = state(now);
    state.wanted = Size { parameter_servers: 1, trainers: 2 };
    let pods = [(0, Member::ParameterServer), (1, Member::Trainer), (2, Member::Trainer)];
    state.pods_are(pods.map(|(number, member)| pod(number, member, None)).into(), now);
    joins(&mut state, 0, Holds::Shards(Vec::new()), now);
    joins(&mut state, 1, model(), now);
    joins(&mut state, 2, model(), now);
    state
}
