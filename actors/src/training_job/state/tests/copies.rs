//! Where the shards are when messages and members are lost: the freshest copy counts, and nothing waits
//! for ever.

use super::super::epochs::first_epoch;
use super::*;
use impresario_client::protocol::training::{
    Applied, Elsewhere, HeldShard, Progress, ServerReport, ShardRange, TrainerReport,
};
use impresario_runtime::clock;

pub(super) const SECOND: Duration = Duration::from_secs(1);

/// A job of these servers and trainers, which has done five steps and whose shards nobody has yet.
pub(super) fn resumed(servers: &[u32], trainers: &[u32], now: Instant) -> State {
    let mut state = state(now);
    state.wanted =
        Size { parameter_servers: servers.len() as u32, trainers: trainers.len() as u32 };
    state.resume(&Earlier { steps: 5, ..Earlier::default() });
    let server = servers.iter().map(|number| pod(*number, Member::ParameterServer, None));
    let trainer = trainers.iter().map(|number| pod(*number, Member::Trainer, None));
    state.pods_are(server.chain(trainer).collect(), now);
    state
}

pub(super) fn of(number: u32) -> HeldShard {
    let range = ShardRange { shard: number, start: u64::from(number), length: 1 };
    let applied = Applied::all_below(5);
    HeldShard { range, epoch: first_epoch(LEASE - 1) + 5, version: 5, applied, leaving: None }
}

pub(super) fn server(state: &mut State, number: u32, shards: Vec<HeldShard>, now: Instant) {
    joins(state, number, Holds::Shards(shards), now);
}

fn report(state: &mut State, number: u32, shards: &[u32], now: Instant) {
    let versions = shards.iter().map(|shard| (*shard, 5)).collect();
    let report = ServerReport {
        activation: 1,
        pod_uid: format!("uid-{number}"),
        versions,
        leaving: BTreeSet::new(),
    };
    state.report(&report, now).unwrap();
}

pub(super) fn at(state: &State, shard: usize) -> &str {
    match &state.holders[shard] {
        Holder::At(pod) => pod,
        other => panic!("{other:?}"),
    }
}

#[test]
fn shards_are_restored_from_the_trainer_that_pulled_last() {
    let began = clock::now();
    let now = began + SECOND * 20;
    let done = |step: u64, seconds: f32| NextWork {
        done: vec![Progress {
            step,
            samples: 8,
            loss: None,
            seconds,
            compute_seconds: 0.0,
            gradient_square: None,
        }],
        ..ask(0)
    };
    let trains = |number: u32, milliseconds: u64| TrainerReport {
        activation: 1,
        pod_uid: format!("uid-{number}"),
        doing: Doing::Training(6),
        milliseconds,
    };
    // Whoever it is: of two that report batches, and of one that is at a long one.
    for (ages, freshest) in [([9, 3, 7], 2), ([2, 3, 7], 1), ([9, 8, 7], 3)] {
        let mut state = resumed(&[0], &[1, 2, 3], began);
        for number in 1..=3 {
            joins(&mut state, number, model(), now);
        }
        for (number, step) in [(1, 5), (2, 6)] {
            let work = NextWork {
                pod_uid: format!("uid-{number}"),
                ..done(step, ages[number as usize - 1] as f32)
            };
            state.work(&work, now).unwrap();
        }
        state.alive(&trains(3, ages[2] * 1_000), now).unwrap();
        server(&mut state, 0, Vec::new(), now);
        let from = guest_node(&format!("uid-{freshest}")).to_string();
        assert_eq!(provided(&state.reconcile(now)), [(from, false)], "{ages:?}");
    }
}

#[test]
fn what_the_optimizer_forgets_is_said() {
    let now = clock::now() + SECOND * 20;
    for (momentum, is_said) in [(0.0, false), (0.9, true)] {
        let mut state = resumed(&[0], &[1], now);
        let optimizer = OptimizerKind::Momentum { rate: 0.1, decay: 0.0, momentum };
        joins(&mut state, 1, Holds::Model(ModelFacts { optimizer, ..facts() }), now);
        server(&mut state, 0, Vec::new(), now);
        for action in state.reconcile(now) {
            arrives(&mut state, &action);
        }
        let remarks = state.take_remarks();
        let restored = remarks.iter().find(|remark| remark.reason == "ParametersRestored").unwrap();
        assert_eq!(restored.message.contains("begins anew"), is_said, "{restored:?}");
    }
}

#[test]
fn a_shard_of_which_its_server_says_nothing_is_looked_for_elsewhere_and_then_restored() {
    let now = clock::now();
    let mut state = resumed(&[0, 2], &[1], now);
    server(&mut state, 0, (0..4).map(of).collect(), now);
    server(&mut state, 2, (4..8).map(of).collect(), now);
    joins(&mut state, 1, model(), now);
    assert_eq!((at(&state, 3), at(&state, 4)), ("uid-0", "uid-2"));
    // Shard 3 went to the other server by an order that nobody here knows; shard 2 is nowhere.
    for half in 0..6 {
        let now = now + SECOND * half / 2;
        report(&mut state, 0, &[0, 1], now);
        report(&mut state, 2, &[3, 4, 5, 6, 7], now);
        assert_eq!((at(&state, 2), at(&state, 3)), ("uid-0", "uid-0"), "it may be on its way");
    }
    let later = now + SECOND * 4;
    report(&mut state, 0, &[0, 1], later);
    assert_eq!((at(&state, 3), &state.holders[2]), ("uid-2", &Holder::Nobody));
    let restored = state.reconcile(later + SECOND * 10);
    let shards = restored.iter().find_map(|action| match action {
        Action::Provide { shards, .. } => Some(shards.iter().map(|one| one.shard).collect()),
        _ => None,
    });
    assert_eq!(shards, Some(vec![2]), "{restored:?}");
}

#[test]
fn a_handover_whose_answer_was_lost_with_its_receiver_keeps_no_other_move_from_being_made() {
    let now = clock::now();
    let mut state = resumed(&[0, 2], &[1], now);
    server(&mut state, 0, (0..8).map(of).collect(), now);
    server(&mut state, 2, Vec::new(), now);
    joins(&mut state, 1, model(), now);
    let moves = state.reconcile(now);
    let gone = moves.iter().find(|action| matches!(action, Action::Handover { .. })).unwrap();
    state.move_starts(gone);
    // It arrived, the answer did not, and the receiver is gone.
    state.lost("uid-2", now);
    state.looked = now + SECOND * 11;
    let kept = state.reconcile(now + SECOND * 11);
    let [keep @ Action::Keep { shard, .. }] = &kept[..] else { panic!("{kept:?}") };
    state.was_not_there(keep);
    assert_eq!(state.holders[*shard as usize], Holder::Nobody);
    let restored = state.reconcile(now + SECOND * 11);
    assert_eq!(provided(&restored).len(), 1, "{restored:?}");
}

#[test]
fn a_new_activation_finds_a_shard_that_was_moving_at_one_server_alone_whoever_comes_first() {
    let now = clock::now();
    let leaving = |to: u32| HeldShard { leaving: Some(join(to, model()).place), ..of(0) };
    for first in [0, 2] {
        let mut state = resumed(&[0, 2], &[1], now);
        joins(&mut state, 1, model(), now);
        for number in [first, 2 - first] {
            let shard = if number == 0 { leaving(2) } else { of(0) };
            server(&mut state, number, vec![shard], now);
        }
        assert_eq!(at(&state, 0), "uid-2", "it has arrived there");
    }
    // It has not arrived: the move goes on, with the order of then.
    let mut state = resumed(&[0, 2], &[1], now);
    joins(&mut state, 1, model(), now);
    server(&mut state, 0, vec![leaving(2)], now);
    server(&mut state, 2, Vec::new(), now);
    let actions = state.reconcile(now + SECOND * 11);
    let again = |action: &Action| matches!(action, Action::Handover { to, epoch, .. } if to == "uid-2" && *epoch == of(0).epoch);
    assert!(actions.len() == 1 && again(&actions[0]), "{actions:?}");
    // Nor will it: the receiver is not there any more.
    let mut state = resumed(&[0], &[1], now);
    joins(&mut state, 1, model(), now);
    server(&mut state, 0, vec![leaving(2)], now);
    let actions = state.reconcile(now + SECOND * 11);
    assert!(matches!(actions[..], [Action::Keep { .. }]), "{actions:?}");
}

#[test]
fn what_was_learned_is_not_given_up_while_a_trainer_may_come_back_with_it() {
    let began = clock::now();
    let now = began + SECOND * 30;
    let mut state = resumed(&[0], &[1, 2], began);
    joins(&mut state, 2, model(), now);
    state.lost("uid-2", now);
    joins(&mut state, 1, model(), now);
    server(&mut state, 0, Vec::new(), now);
    for action in state.reconcile(now) {
        state.has_no_copy(&action, now);
    }
    assert_eq!(state.steps(), 5, "the other one's pod lives: it may have a copy");
    let later = now + SECOND * 5;
    joins(&mut state, 2, model(), later);
    let from = guest_node("uid-2").to_string();
    assert_eq!(provided(&state.reconcile(later)), [(from, false)]);
}

/// Does these moves as if all went well.
pub(super) fn carried_out(state: &mut State, moves: &[Action]) {
    for action in moves {
        state.move_starts(action);
        arrives(state, action);
    }
}

pub(super) fn deleted(number: u32) -> Seen {
    Seen { deleting: true, ..pod(number, Member::ParameterServer, None) }
}

#[test]
fn a_server_whose_pod_is_deleted_hands_its_shards_on_gets_none_and_is_then_let_go() {
    let now = clock::now();
    let mut state = resumed(&[0], &[1], now);
    server(&mut state, 0, (0..8).map(of).collect(), now);
    joins(&mut state, 1, model(), now);
    state.pods_are(vec![deleted(0), pod(1, Member::Trainer, None)], now);
    // Nobody can take them yet: it serves them until then.
    assert_eq!(state.reconcile(now), [Action::CreatePod(Member::ParameterServer)]);
    assert_eq!(state.map().places.len(), 8);
    let said = state.take_remarks();
    assert!(said.iter().any(|remark| remark.reason == "MemberLeaving"), "{said:?}");
    let other = pod(2, Member::ParameterServer, None);
    state.pods_are(vec![deleted(0), pod(1, Member::Trainer, None), other], now);
    server(&mut state, 2, Vec::new(), now);
    let told = |state: &mut State, shards: std::ops::Range<u32>| {
        let versions = shards.map(|shard| (shard, 5)).collect();
        let report = ServerReport {
            activation: 1,
            pod_uid: "uid-0".into(),
            versions,
            leaving: BTreeSet::new(),
        };
        state.report(&report, now).unwrap().wanted
    };
    assert!(told(&mut state, 0..8));
    loop {
        let moves = state.reconcile(now);
        let [Action::Handover { .. }, ..] = &moves[..] else { break };
        carried_out(&mut state, &moves);
    }
    assert!((0..8).all(|shard| at(&state, shard) == "uid-2"));
    assert!(!told(&mut state, 0..0), "it has nothing any more");
    let said = state.take_remarks();
    assert!(said.iter().all(|remark| !remark.warning), "nothing was lost: {said:?}");
}

#[test]
fn a_server_that_is_being_deleted_comes_back_to_a_new_activation_and_hands_on_what_it_has() {
    let now = clock::now();
    let mut state = resumed(&[2], &[1], now);
    let others = [pod(1, Member::Trainer, None), pod(2, Member::ParameterServer, None)];
    state.pods_are([vec![deleted(0)], others.into()].concat(), now);
    joins(&mut state, 1, model(), now);
    server(&mut state, 2, Vec::new(), now);
    assert!(provided(&state.reconcile(now)).is_empty(), "it may be on its way with them");
    server(&mut state, 0, (0..8).map(of).collect(), now);
    let moves = state.reconcile(now);
    let to_other = |action: &Action| matches!(action, Action::Handover { to, .. } if to == "uid-2");
    assert!(!moves.is_empty() && moves.iter().all(to_other), "{moves:?}");
}

/// Two servers with half of the shards each, of which the first is not heard of any more.
fn half_unheard(began: Instant, now: Instant) -> State {
    let mut state = resumed(&[0, 2], &[1], began);
    server(&mut state, 0, (0..4).map(of).collect(), now);
    server(&mut state, 2, (4..8).map(of).collect(), now);
    joins(&mut state, 1, model(), now);
    state.lost("uid-0", now);
    state
}

#[test]
fn the_shards_of_a_server_that_is_not_heard_of_are_left_to_it_for_a_moment() {
    let began = clock::now();
    let now = began + SECOND * 60;
    let mut state = half_unheard(began, now);
    state.looked = now;
    assert!(provided(&state.reconcile(now + SECOND * 2)).is_empty());
    // It was only the connection.
    server(&mut state, 0, (0..4).map(of).collect(), now + SECOND * 3);
    assert!(state.reconcile(now + SECOND * 3).is_empty());
    assert_eq!(at(&state, 0), "uid-0");
    // Its process is gone: nothing is waited for.
    state.lost("uid-0", now + SECOND * 4);
    let failed = pod(0, Member::ParameterServer, Some(false));
    let others = [pod(1, Member::Trainer, None), pod(2, Member::ParameterServer, None)];
    state.pods_are([vec![failed], others.into()].concat(), now + SECOND * 4);
    assert_eq!(provided(&state.reconcile(now + SECOND * 4)).len(), 1);
}

#[test]
fn a_server_that_comes_back_after_it_was_replaced_is_told_where_its_shards_are_now() {
    let began = clock::now();
    let now = began + SECOND * 60;
    let mut state = half_unheard(began, now);
    state.looked = now + SECOND * 6;
    let restored = state.reconcile(now + SECOND * 6);
    assert_eq!(provided(&restored).len(), 1, "{restored:?}");
    carried_out(&mut state, &restored);
    let epoch = state.map().epoch;
    server(&mut state, 0, (0..4).map(of).collect(), now + SECOND * 7);
    assert_eq!(at(&state, 0), "uid-2", "what was restored since counts");
    let versions = vec![(0, 9_000), (3, 5)];
    let report =
        ServerReport { activation: 1, pod_uid: "uid-0".into(), versions, leaving: BTreeSet::new() };
    let order = state.report(&report, now + SECOND * 7).unwrap();
    let to = join(2, Holds::Shards(Vec::new())).place;
    let elsewhere = [0, 3].map(|shard| Elsewhere { shard, epoch, to: to.clone() });
    assert_eq!(order.elsewhere, elsewhere);
    assert!(order.wanted && state.versions[0] < 9_000, "what it has counts for nothing");
}

pub(super) fn leaving(state: &State) -> Vec<&str> {
    state.joined.iter().filter(|one| one.1.leaving).map(|one| one.0.as_str()).collect()
}

#[test]
fn a_new_activation_deletes_no_server_that_is_on_its_way_to_it() {
    let now = clock::now();
    // The job was shrinking to one server when its control member died.
    let mut state = resumed(&[0, 2], &[1], now);
    state.wanted.parameter_servers = 1;
    joins(&mut state, 1, model(), now);
    let deletes = |actions: &[Action]| {
        actions.iter().any(|action| matches!(action, Action::DeletePod { .. }))
    };
    let actions = state.reconcile(now);
    assert!(!deletes(&actions), "{actions:?}");
    server(&mut state, 0, (0..5).map(of).collect(), now);
    let actions = state.reconcile(now + SECOND);
    assert!(!deletes(&actions), "{actions:?}");
    server(&mut state, 2, (5..8).map(of).collect(), now);
    state.reconcile(now + SECOND);
    // The one of the two that has less leaves, and what it has is handed on.
    assert_eq!(leaving(&state), ["uid-2"]);
    let moves = state.reconcile(now + SECOND);
    assert!(matches!(moves[..], [Action::Handover { .. }, ..]), "{moves:?}");
    // One that never comes is not waited for.
    let mut state = resumed(&[0, 2], &[1], now);
    state.wanted.parameter_servers = 1;
    server(&mut state, 0, (0..8).map(of).collect(), now);
    assert!(deletes(&state.reconcile(now + SECOND * 11)));
}

#[test]
fn shards_that_arrived_before_an_order_failed_are_not_provided_again_and_another_trainer_is_asked_in_time()
 {
    let began = clock::now();
    let mut now = began + SECOND * 20;
    let mut state = resumed(&[0], &[1, 2], began);
    joins(&mut state, 1, model(), now);
    joins(&mut state, 2, model(), now);
    state.joined.get_mut("uid-1").unwrap().pulled = Some(now);
    server(&mut state, 0, Vec::new(), now);
    let order = state.reconcile(now);
    let [all @ Action::Provide { shards, .. }] = &order[..] else { panic!("{order:?}") };
    assert_eq!(shards.len(), 8);
    state.moved(all, &[(0, 5), (1, 5)]);
    let mut asked = Vec::new();
    for _ in 0..3 {
        let order = state.reconcile(now);
        let [rest @ Action::Provide { from, shards, .. }] = &order[..] else { panic!("{order:?}") };
        assert!(shards.len() == 6 && shards[0].shard == 2, "{shards:?}");
        asked.push(from.path.node.to_string());
        state.move_failed(rest, now);
        assert!(state.reconcile(now).is_empty(), "it may have arrived after all");
        now += SECOND;
    }
    let [first, second] = ["uid-1", "uid-2"].map(|uid| guest_node(uid).to_string());
    assert_eq!(asked, [first.clone(), first, second]);
}

#[test]
fn what_a_server_kept_of_a_shard_that_it_had_handed_on_is_served_again_when_all_else_is_lost() {
    let began = clock::now();
    let now = began + SECOND * 20;
    let mut state = resumed(&[0, 2], &[1], began);
    let moved = HeldShard { epoch: of(0).epoch + 1, ..of(0) };
    server(&mut state, 2, vec![moved], now);
    server(&mut state, 0, (1..8).map(of).collect(), now);
    joins(&mut state, 1, model(), now);
    let says = |state: &mut State| {
        let versions = (0..8).map(|shard| (shard, 4)).collect();
        let leaving = BTreeSet::from([0]);
        let report = ServerReport { activation: 1, pod_uid: "uid-0".into(), versions, leaving };
        state.report(&report, now).unwrap()
    };
    assert_eq!(says(&mut state).elsewhere.len(), 1, "it arrived there");
    state.lost("uid-2", now);
    state.pods_are(
        [(0, Member::ParameterServer), (1, Member::Trainer)].map(|(n, m)| pod(n, m, None)).into(),
        now,
    );
    says(&mut state);
    assert_eq!(state.holders[0], Holder::Nobody, "it takes no gradient there");
    let asked = state.reconcile(now);
    let provide = asked.iter().find(|action| matches!(action, Action::Provide { .. }));
    state.has_no_copy(provide.unwrap(), now);
    let mut kept = state.reconcile(now);
    kept.retain(|action| !matches!(action, Action::CreatePod(_)));
    assert!(matches!(kept[..], [Action::Keep { shard: 0, .. }]), "{kept:?}");
    arrives(&mut state, &kept[0]);
    assert_eq!((at(&state, 0), state.steps()), ("uid-0", 5));
    let said = state.take_remarks();
    assert!(said.iter().any(|remark| remark.reason == "ParametersRestored"), "{said:?}");
}
