//! What is left of a job when it has ended, is taken over, or is deleted.

use super::*;
use crate::training_job::status;
use impresario_runtime::clock;

fn work(state: &mut State, number: u32, now: Instant) -> Order {
    state.work(&ask(number), now).unwrap().order
}

#[test]
fn what_a_job_had_reached_stays_in_its_status_after_it_has_ended() {
    let now = clock::now();
    let job = json!({ "status": {
        "phase": "Succeeded", "parameterServers": 1, "trainers": 2, "round": 7, "step": 120,
        "samples": 960, "loss": 0.25, "accuracy": 0.97, "startTime": "2026-01-01T00:00:00Z",
        "completionTime": "2026-01-01T00:01:00Z",
        "scaleEvents": [{ "time": "2026-01-01T00:00:01Z", "parameterServers": 1, "trainers": 2,
            "reason": "there was room" }],
    }});
    let earlier = Earlier::read(&job);
    let mut state = state(now);
    state.resume(&earlier);
    state.pods_are(Vec::new(), now);
    assert!(state.reconcile(now + Duration::from_secs(60)).is_empty());
    let written = status::write(&state, &job, &earlier, now + Duration::from_secs(60));
    let mut expected = job["status"].clone();
    expected["parameterServers"] = json!(0);
    expected["trainers"] = json!(0);
    assert_eq!(written, expected);
}

#[test]
fn a_running_job_that_is_taken_over_goes_on_counting_where_it_was() {
    let now = clock::now();
    let job = json!({ "status": { "phase": "Running", "parameterServers": 1, "trainers": 1,
        "step": 5, "samples": 40, "loss": 0.5, "accuracy": 0.75 } });
    let earlier = Earlier::read(&job);
    let mut state = state(now);
    state.resume(&earlier);
    // Nobody has joined yet, and has not for long: what is known stays.
    let late = now + Duration::from_secs(60);
    let written = status::write(&state, &job, &earlier, late);
    let kept = ["step", "samples", "loss", "accuracy"].map(|field| &written[field]);
    assert_eq!(kept, [&json!(5), &json!(40), &json!(0.5), &json!(0.75)]);
    // The samples of later steps come on top.
    state.pods_are(vec![pod(1, Member::Trainer, None)], now);
    joins(&mut state, 1, model(), now);
    assert_eq!((state.steps(), state.samples()), (5, 40));
    state.plan.as_mut().unwrap().finish(5);
    assert_eq!((state.steps(), state.samples()), (6, 48));
}

#[test]
fn a_job_that_is_deleted_makes_no_pods_whatever_becomes_of_those_that_it_had() {
    let now = clock::now();
    let mut state = state(now);
    let pods = [(0, Member::ParameterServer), (1, Member::Trainer)];
    state.pods_are(pods.map(|(number, member)| pod(number, member, None)).into(), now);
    joins(&mut state, 1, model(), now);
    state.is_deleted();
    // The collector takes their owner from them: they are none of the job's any more.
    state.pods_are(Vec::new(), now);
    assert_eq!(creations(&mut state, now), 0);
    assert_eq!(creations(&mut state, now + Duration::from_mins(5)), 0);
    assert_eq!(state.bid("default", "job", 0, now), None);
    let late = join(9, Holds::Shards(Vec::new()));
    assert_eq!(state.join(late, now), Err(JoinRefused::Ended));
}

#[test]
fn members_of_a_deleted_job_are_told_to_stop() {
    let now = clock::now();
    let mut state = state(now);
    state.pods_are(vec![pod(1, Member::Trainer, None)], now);
    joins(&mut state, 1, model(), now);
    assert_ne!(work(&mut state, 1, now), Order::Stop);
    state.is_deleted();
    assert_eq!(work(&mut state, 1, now), Order::Stop);
}

#[test]
fn members_stay_until_the_object_says_that_the_job_has_ended_and_not_much_longer() {
    let now = clock::now();
    let mut state = state(now);
    let waiting = Seen { bound: false, ..pod(2, Member::Trainer, None) };
    state.pods_are(vec![pod(1, Member::Trainer, None), waiting], now);
    joins(&mut state, 1, model(), now);
    state.phase = Phase::Succeeded;
    assert!(matches!(work(&mut state, 1, now), Order::Wait { .. }), "the end is not on record");
    assert!(state.reconcile(now).is_empty());
    state.end_is_written(now);
    assert_eq!(work(&mut state, 1, now), Order::Stop);
    let deleted = |actions: Vec<Action>| -> Vec<String> {
        let name = |action| match action {
            Action::DeletePod { name, .. } => name,
            other => panic!("{other:?}"),
        };
        actions.into_iter().map(name).collect()
    };
    // What never ran goes at once, what does not stop a little later.
    assert_eq!(deleted(state.reconcile(now)), ["pod-2"]);
    let late = now + Duration::from_secs(40);
    state.looked = late;
    let all = deleted(state.reconcile(late));
    assert!(["pod-1", "pod-2"].iter().all(|name| all.iter().any(|one| one == name)), "{all:?}");
}

#[test]
fn each_change_of_size_has_a_reason_of_its_own_and_an_event() {
    let now = clock::now();
    let mut state = state(now);
    let pods = [(0, Member::ParameterServer), (1, Member::Trainer), (2, Member::Trainer)];
    state.pods_are(pods.map(|(number, member)| pod(number, member, None)).into(), now);
    joins(&mut state, 0, Holds::Shards(Vec::new()), now);
    joins(&mut state, 1, model(), now);
    let size = Size { parameter_servers: 1, trainers: 2 };
    let reason = "there is room".to_owned();
    state.scale(&Scale { round: 1, scheduler: 1, lease: LEASE, size, reason }, now).unwrap();
    joins(&mut state, 2, model(), now);
    state.lost("uid-2", now);
    joins(&mut state, 2, model(), now);
    let mut spec = state.spec().clone();
    spec.trainer.max = 1;
    state.respecified(spec);
    state.reconcile(now);
    let noted: Vec<(u32, &str)> =
        state.scale_events().iter().map(|one| (one.size.trainers, one.reason.as_str())).collect();
    let expected = [
        (1, FIRST_REASON),
        (2, "there is room"),
        (1, "a trainer was lost"),
        (2, "a trainer that was lost is replaced"),
        (1, "the job's minimum or maximum was changed"),
    ];
    assert_eq!(noted, expected);
    let remarks = state.take_remarks();
    for reason in [FIRST_REASON, "there is room", "is replaced", "maximum was changed"] {
        let told = |remark: &Remark| remark.reason == "Scaled" && remark.message.contains(reason);
        assert!(remarks.iter().any(told), "{reason}: {remarks:?}");
    }
}
