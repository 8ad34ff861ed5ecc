//! That all shards are of one checkpoint, whatever happens while they are taken from it.

use super::checkpoints::{
    answered, begins, checkpoint, come, looked, loses_all, reasons, saves, saving, trains,
};
use super::*;
use crate::training_job::state::Errand;
use impresario_client::protocol::training::{Applied, HeldShard, Progress, ServerReport};

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

#[test]
fn no_shard_is_taken_before_the_object_says_that_all_are() {
    let now = clock::now();
    let mut state = saving(json!({ "intervalSteps": 4 }), now);
    answered(&mut state, now, |_| looked(Some(checkpoint(3, 5))));
    state.restoring_is_told(false);
    assert!(state.reconcile(now).is_empty(), "another activation would take a part for the whole");
    state.restoring_is_told(true);
    half(&mut state, now);
}

fn done(step: u64) -> Progress {
    Progress {
        step,
        samples: 8,
        loss: Some(1.0),
        seconds: 0.1,
        compute_seconds: 0.1,
        gradient_square: None,
    }
}

#[test]
fn what_a_trainer_has_done_of_what_was_lost_does_not_count_when_all_was_taken_back() {
    let began = clock::now();
    let mut state = saving(json!({ "intervalSteps": 4 }), began);
    saves(&mut state, 0, began);
    begins(&mut state, began);
    trains(&mut state, 4, began);
    saves(&mut state, 4, began);
    trains(&mut state, 6, began);
    let now = began + Duration::from_secs(30);
    loses_all(&mut state, now);
    answered(&mut state, now, |_| looked(Some(checkpoint(4, 4))));
    state.reconcile(now);
    // The object says now that all is taken back.
    state.restoring_is_told(state.is_restored());
    let actions = state.reconcile(now);
    let [restore @ Action::Restore { shards, .. }] = &actions[..] else { panic!("{actions:?}") };
    let arrived: Vec<(u32, u64)> = shards.iter().map(|range| (range.shard, 4)).collect();
    state.moved(restore, &arrived);
    joins(&mut state, 6, model(), now);
    // It was cut off, and brings what it did with the parameters of before.
    let asks = |state: &State| NextWork { activation: state.activation, ..ask(6) };
    // No evaluation is due.
    state.evaluated_at = Some(now + Duration::from_hours(1));
    let late = NextWork { done: vec![done(4), done(5)], ..asks(&state) };
    let order = state.work(&late, now).unwrap().order;
    assert_eq!(state.steps(), 4);
    let Order::Train(batches) = order else { panic!("{order:?}") };
    assert_eq!(batches[0].step, 4, "it is trained again");
    let done: Vec<Progress> = batches.iter().map(|batch| done(batch.step)).collect();
    let report = NextWork { done, ..asks(&state) };
    state.work(&report, now).unwrap();
    assert_eq!(state.steps(), 4 + batches.len() as u64);
}

#[test]
fn what_was_found_for_a_loss_that_mended_itself_is_not_used_for_the_next() {
    let began = clock::now();
    let mut state = saving(json!({ "intervalSteps": 4 }), began);
    saves(&mut state, 0, began);
    begins(&mut state, began);
    trains(&mut state, 4, began);
    saves(&mut state, 4, began);
    let loses = |state: &mut State, now| {
        state.holders[3] = Holder::Nobody;
        for action in state.reconcile(now) {
            state.has_no_copy(&action, now);
        }
    };
    let now = began + Duration::from_secs(30);
    loses(&mut state, now);
    state.holders[3] = Holder::At("uid-0".into());
    answered(&mut state, now, |_| looked(Some(checkpoint(4, 4))));
    state.reconcile(now);
    reasons(&mut state);
    let now = now + Duration::from_hours(5);
    loses(&mut state, now);
    let errands = answered(&mut state, now, |_| looked(Some(checkpoint(9, 4))));
    assert!(matches!(&errands[..], [Errand::Look(..)]), "it looks again: {errands:?}");
}

#[test]
fn how_old_a_checkpoint_is_does_not_begin_anew_with_another_activation() {
    let now = clock::now();
    let mut state = super::checkpoints::alone(json!({ "intervalSeconds": 600 }), now);
    let checkpoint_age = Duration::from_secs(599);
    let earlier = Earlier {
        steps: 5,
        checkpoint: Some(checkpoint(4, 4)),
        checkpoint_age,
        ..Earlier::default()
    };
    state.resume(&earlier);
    come(&mut state, now);
    assert!(state.errands(now).is_empty());
    let errands = state.errands(now + Duration::from_secs(2));
    assert!(matches!(&errands[..], [Errand::Look(..)]), "the folder is looked at: {errands:?}");
}
