//! What a job does about a folder that is away, hangs or is taken out of the object.

use super::checkpoints::{
    FOLDER, alone, answered, begins, checkpoint, come, good, looked, loses_all, reasons, saves,
    saving, trains,
};
use super::*;
use crate::training_job::state::{Errand, Outcome};
use impresario_client::protocol::training::{Evaluated, Looked, Progress};

#[test]
fn a_job_whose_folder_is_empty_all_at_once_waits_rather_than_begin_anew() {
    let began = clock::now();
    let mut state = alone(json!({ "intervalSteps": 4 }), began);
    let earlier = Earlier { steps: 5, checkpoint: Some(checkpoint(4, 4)), ..Earlier::default() };
    state.resume(&earlier);
    come(&mut state, began);
    assert!(answered(&mut state, began, |_| looked(None)).is_empty(), "it has begun long ago");
    let now = began + Duration::from_secs(30);
    loses_all(&mut state, now);
    state.reconcile(now);
    let empty = Looked { newest: None, refused: Vec::new(), last: 0 };
    assert_eq!(answered(&mut state, now, |_| Outcome::Looked(empty.clone())).len(), 1);
    state.reconcile(now);
    assert_eq!((state.steps(), state.checkpoint()), (5, Some(&checkpoint(4, 4))));
    assert!(state.checkpoint_problem().is_some_and(|why| why.contains(FOLDER)));
    assert!(!reasons(&mut state).contains(&"TrainingBeginsAnew"));
    // It is mounted.
    let now = now + Duration::from_mins(2);
    answered(&mut state, now, |_| looked(Some(checkpoint(4, 4))));
    state.reconcile(now);
    // The object says now that all is taken back.
    state.restoring_is_told(state.is_restored());
    let actions = state.reconcile(now);
    assert!(matches!(&actions[..], [Action::Restore { .. }]), "{actions:?}");
    assert_eq!(state.steps(), 4);
}

#[test]
fn a_job_whose_newest_checkpoint_is_there_and_spoiled_begins_anew() {
    let began = clock::now();
    let mut state = alone(json!({ "intervalSteps": 4 }), began);
    let earlier = Earlier { steps: 5, checkpoint: Some(checkpoint(4, 4)), ..Earlier::default() };
    state.resume(&earlier);
    come(&mut state, began);
    assert!(answered(&mut state, began, |_| looked(None)).is_empty(), "it has begun long ago");
    let now = began + Duration::from_secs(30);
    loses_all(&mut state, now);
    state.reconcile(now);
    let refused = vec![(checkpoint(4, 4).path, "it is not as it was written".into())];
    let spoiled = Looked { newest: None, refused, last: 4 };
    answered(&mut state, now, |_| Outcome::Looked(spoiled.clone()));
    state.reconcile(now);
    let said = reasons(&mut state);
    assert!(["CheckpointRefused", "TrainingBeginsAnew"].iter().all(|one| said.contains(one)));
}

#[test]
fn a_server_that_writes_nothing_of_what_it_is_asked_for_is_asked_ever_later_and_told_of() {
    let mut now = clock::now();
    let mut state = saving(json!({ "intervalSteps": 1 }), now);
    saves(&mut state, 0, now);
    begins(&mut state, now);
    trains(&mut state, 1, now);
    let mut asked = 0;
    for _ in 0..600 {
        // As the job's actor does: again at once, for as long as anything is due.
        loop {
            let errands = answered(&mut state, now, |_| Outcome::Saved(Vec::new())).len();
            asked += errands;
            assert!(asked < 100, "in ten minutes");
            if errands == 0 {
                break;
            }
        }
        now += Duration::from_secs(1);
    }
    assert!(asked >= 5, "it is tried again: {asked}");
    assert!(reasons(&mut state).contains(&"CheckpointFailed"));
    now += Duration::from_mins(2);
    let reply = good(&state, 1);
    assert!(!answered(&mut state, now, reply).is_empty(), "and goes on when it does");
}

#[test]
fn a_job_begins_without_the_checkpoint_that_it_waits_for_when_the_field_is_taken_out() {
    let began = clock::now();
    let mut state = saving(json!({ "resumeFrom": "/models/old" }), began);
    answered(&mut state, began, |_| looked(None));
    answered(&mut state, began, |_| looked(None));
    assert!(provided(&state.reconcile(began)).is_empty());
    let mut spec = state.spec().clone();
    spec.checkpoint.as_mut().unwrap().resume_from = None;
    state.respecified(spec);
    let now = began + Duration::from_mins(2);
    answered(&mut state, now, |_| looked(None));
    let begun = provided(&state.reconcile(now));
    assert!(matches!(begun[..], [(_, true)]), "{begun:?}");
    assert_eq!(state.checkpoint_problem(), None);
}

#[test]
fn a_folder_that_hangs_keeps_no_job_from_beginning_that_has_saved_nothing() {
    let mut now = clock::now();
    let mut state = saving(json!({ "intervalSteps": 1 }), now);
    for _ in 0..10 {
        answered(&mut state, now, |_| Outcome::Unreached("no answer in time".to_owned()));
        now += Duration::from_mins(15);
    }
    let begun = provided(&state.reconcile(now));
    assert!(matches!(begun[..], [(_, true)]), "{begun:?}");
    assert_eq!(state.checkpoint_problem(), Some("no answer in time"));
}

#[test]
fn another_server_is_asked_where_the_folder_of_one_hangs() {
    let mut now = clock::now();
    let mut state = alone(json!({ "intervalSteps": 1 }), now);
    let pods = [(0, Member::ParameterServer), (1, Member::Trainer), (2, Member::ParameterServer)];
    state.pods_are(pods.map(|(number, member)| pod(number, member, None)).into(), now);
    joins(&mut state, 0, Holds::Shards(Vec::new()), now);
    joins(&mut state, 2, Holds::Shards(Vec::new()), now);
    joins(&mut state, 1, model(), now);
    let mut asked = BTreeSet::new();
    for _ in 0..3 {
        let errands = answered(&mut state, now, |_| Outcome::Unreached("no answer".to_owned()));
        let [Errand::Look(at, _)] = &errands[..] else { panic!("{errands:?}") };
        asked.insert(at.path.to_string());
        now += Duration::from_mins(15);
    }
    assert_eq!(asked.len(), 2, "{asked:?}");
}

#[test]
fn nothing_is_evaluated_for_the_last_time_while_a_trainer_has_a_batch_in_hand() {
    let now = clock::now();
    let mut state = team(now);
    state.spec.stop.target_metric = Some(0.5);
    for action in state.reconcile(now) {
        arrives(&mut state, &action);
    }
    let batches =
        |state: &mut State, number: u32| match state.work(&ask(number), now).unwrap().order {
            Order::Train(batches) => batches,
            other => panic!("{other:?}"),
        };
    let (first, second) = (batches(&mut state, 1), batches(&mut state, 2));
    let done = |batches: Vec<impresario_client::protocol::training::Batch>| -> Vec<Progress> {
        let of = |batch: impresario_client::protocol::training::Batch| Progress {
            step: batch.step,
            samples: batch.length,
            loss: Some(0.5),
            seconds: 0.1,
            compute_seconds: 0.1,
            gradient_square: None,
        };
        batches.into_iter().map(of).collect()
    };
    let evaluated = |number| NextWork {
        evaluated: Some(Evaluated { version: 1, loss: Some(0.1), accuracy: 0.9 }),
        evaluation: Some(number),
        ..ask(1)
    };
    let order = state.work(&NextWork { done: done(first), ..ask(1) }, now).unwrap().order;
    let Order::Evaluate { number } = order else { panic!("{order:?}") };
    let order = state.work(&evaluated(number), now).unwrap().order;
    assert!(matches!(order, Order::Wait { .. }), "the other pushes a gradient still: {order:?}");
    assert!(!state.ended());
    let order = state.work(&NextWork { done: done(second), ..ask(2) }, now).unwrap().order;
    assert!(matches!(order, Order::Evaluate { .. }), "{order:?}");
}

#[test]
fn batches_of_a_trainer_that_hangs_are_done_by_another_before_the_last_evaluation() {
    let began = clock::now();
    let mut state = team(began);
    for action in state.reconcile(began) {
        arrives(&mut state, &action);
    }
    let order = state.work(&ask(2), began).unwrap().order;
    assert!(matches!(order, Order::Train(_)), "{order:?}");
    state.final_evaluation = true;
    let order = state.work(&ask(1), began).unwrap().order;
    assert!(matches!(order, Order::Wait { .. }), "{order:?}");
    let late = began + Duration::from_mins(10);
    let order = state.work(&ask(1), late).unwrap().order;
    assert!(matches!(order, Order::Train(_)), "{order:?}");
}
