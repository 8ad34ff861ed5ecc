//! What is told of a parameter server whose folder cannot be mounted.

use super::checkpoints::{FOLDER, alone, reasons};
use super::*;

#[test]
fn a_job_whose_parameter_server_does_not_start_says_that_it_may_be_the_folder() {
    let began = clock::now();
    let mut state = alone(json!({ "resumeFrom": "/models/old" }), began);
    let server = Seen { running: false, ..pod(0, Member::ParameterServer, None) };
    state.pods_are(vec![server.clone(), pod(1, Member::Trainer, None)], began);
    state.reconcile(began);
    assert_eq!(state.checkpoint_problem(), None, "it may be about to");
    for seconds in [121, 122, 500] {
        state.reconcile(began + Duration::from_secs(seconds));
    }
    let why = state.checkpoint_problem().unwrap().to_owned();
    assert!(["pod-0", FOLDER, "/models/old", "FailedMount"].iter().all(|part| why.contains(part)));
    let told = reasons(&mut state).iter().filter(|said| **said == "CheckpointFailed").count();
    assert_eq!(told, 1);
    let now = began + Duration::from_secs(501);
    state.pods_are(vec![pod(0, Member::ParameterServer, None)], now);
    state.reconcile(now);
    assert_eq!(state.checkpoint_problem(), None);
}
