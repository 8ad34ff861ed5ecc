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

