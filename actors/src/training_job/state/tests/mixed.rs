//! That all shards are of one checkpoint, whatever happens while they are taken from it.

use super::checkpoints::{answered, checkpoint, come, looked, saving};
use super::*;
use impresario_client::protocol::training::{Applied, HeldShard, ServerReport};

/// Half of the shards of an order to take all.
fn half(state: &mut State, now: Instant) -> Action {
    let actions = state.reconcile(now);
    let [restore @ Action::Restore { shards, .. }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(shards.len(), state.ranges.len(), "all are to be taken");
    let arrived: Vec<(u32, u64)> =
        shards.iter().take(shards.len() / 2).map(|range| (range.shard, 5)).collect();
    state.moved(restore, &arrived);
    restore.clone()
}

fn held(state: &State, shards: usize, steps: u64) -> Vec<HeldShard> {
    let of = |range: &ShardRange| HeldShard {
        range: *range,
        version: steps,
        applied: Applied::all_below(steps),
        epoch: state.epoch,
        leaving: None,
    };
    state.ranges.iter().take(shards).map(of).collect()
}

#[test]
fn when_a_checkpoint_spoils_half_way_all_is_taken_from_the_one_before() {
    let now = clock::now();
    let mut state = saving(json!({ "intervalSteps": 4 }), now);
    answered(&mut state, now, |_| looked(Some(checkpoint(3, 5))));
    half(&mut state, now);
    let rest = state.reconcile(now);
    let [Action::Restore { shards, epoch: before, .. }] = &rest[..] else { panic!("{rest:?}") };
    assert!(shards.len() < state.ranges.len());
    state.has_no_copy(&rest[0], now);
    // Another server's answer to the same order comes late.
    state.moved(&rest[0], &[(7, 5)]);
    assert!(state.holders.iter().all(|holder| *holder == Holder::Nobody), "{:?}", state.holders);
    assert!(state.checkpoint_problem().is_some(), "people hear of it");
    let now = now + Duration::from_mins(2);
    answered(&mut state, now, |_| looked(Some(checkpoint(2, 3))));
    let actions = state.reconcile(now);
    let [Action::Restore { shards, path, epoch, .. }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!((path, shards.len()), (&checkpoint(2, 3).path, state.ranges.len()));
    assert!(epoch > before, "what came from the other is written over");
    assert_eq!(state.steps(), 3);
}

#[test]
fn what_a_server_has_does_not_count_while_all_is_taken_from_a_checkpoint() {
    let now = clock::now();
    let mut state = saving(json!({ "intervalSteps": 4 }), now);
    answered(&mut state, now, |_| looked(Some(checkpoint(3, 5))));
    half(&mut state, now);
    let missing = state.ranges.len() as u32 - 1;
    let report = ServerReport {
        activation: state.activation,
        pod_uid: "uid-0".into(),
        versions: vec![(missing, 9)],
        leaving: BTreeSet::new(),
    };
    state.report(&report, now).unwrap();
    assert_eq!(state.holders[missing as usize], Holder::Nobody);
    let old = held(&state, state.ranges.len(), 9);
    joins(&mut state, 0, Holds::Shards(old), now);
    assert_eq!(state.holders[missing as usize], Holder::Nobody);
    assert_eq!(state.steps(), 5);
}

#[test]
fn an_activation_that_finds_a_half_restored_job_takes_all_shards_from_a_checkpoint_again() {
    let now = clock::now();
    let mut before = saving(json!({ "resumeFrom": "/models/old" }), now);
    let mut found = checkpoint(9, 5);
    found.path = "/models/old/checkpoint-00000009-other".into();
    answered(&mut before, now, |_| looked(None));
    answered(&mut before, now, |_| looked(Some(found.clone())));
    half(&mut before, now);
    assert!(before.is_restored());
    let object = json!({ "status": { "phase": "Running", "step": 5, "restoring": true }});
    let brought = held(&before, before.ranges.len() / 2, 5);

    let mut state = super::checkpoints::alone(json!({ "resumeFrom": "/models/old" }), now);
    state.resume(&Earlier::read(&object));
    come(&mut state, now);
    joins(&mut state, 0, Holds::Shards(brought), now);
    assert!(provided(&state.reconcile(now)).is_empty(), "no initial values");
    answered(&mut state, now, |_| looked(None));
    answered(&mut state, now, |_| looked(Some(found.clone())));
    let later = now + Duration::from_secs(20);
    let actions = state.reconcile(later);
    let [restore @ Action::Restore { shards, path, .. }] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!((path, shards.len(), state.steps()), (&found.path, state.ranges.len(), 5));
    let arrived: Vec<(u32, u64)> = shards.iter().map(|range| (range.shard, 5)).collect();
    state.moved(restore, &arrived);
    assert!(!state.is_restored() && state.reconcile(later).is_empty());
}

#[test]
fn a_job_that_has_lost_a_part_looks_where_it_began_before_it_takes_initial_values() {
    let began = clock::now();
    let mut state = saving(json!({ "resumeFrom": "/models/old" }), began);
    let mut found = checkpoint(9, 5);
    found.path = "/models/old/checkpoint-00000009-other".into();
    answered(&mut state, began, |_| looked(None));
    answered(&mut state, began, |_| looked(Some(found.clone())));
    let actions = state.reconcile(began);
    let Action::Restore { shards, .. } = &actions[0] else { panic!("{actions:?}") };
    let all: Vec<(u32, u64)> = shards.iter().map(|range| (range.shard, 5)).collect();
    state.moved(&actions[0], &all);
    state.holders[3] = Holder::Nobody;
    let now = began + Duration::from_secs(30);
    for action in state.reconcile(now) {
        state.has_no_copy(&action, now);
    }
    let own = answered(&mut state, now, |_| looked(None));
    assert_eq!(own.len(), 1, "its own folder first");
    answered(&mut state, now, |_| looked(Some(found.clone())));
    let actions = state.reconcile(now);
    let [Action::Restore { shards, path, .. }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!((path, shards.len()), (&found.path, 1));
}
