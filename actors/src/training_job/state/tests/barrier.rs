//! Jobs whose trainers compute each step together, and those whose trainers may not be far apart.

use super::*;
use impresario_client::protocol::training::{Batch, Held, Progress, TrainerReport};

/// A job in this mode with a server and so many trainers, which has its shards.
fn job(mode: serde_json::Value, trainers: u32, now: Instant) -> State {
    let template = json!({ "spec": { "containers": [{ "name": "main", "image": "x" }] } });
    let mut spec = json!({ "spec": {
        "parameterServer": { "min": 1, "max": 1, "template": template },
        "trainer": { "min": 1, "max": 8, "template": template },
        "stop": { "epochs": 100 },
    }});
    for (field, value) in mode.as_object().unwrap() {
        spec["spec"][field] = value.clone();
    }
    let granted = Some(Size { parameter_servers: 1, trainers });
    let mut state = State::new("job", Spec::read(&spec).unwrap(), 1, LEASE, granted, now);
    let mut pods = vec![pod(0, Member::ParameterServer, None)];
    pods.extend((1..=trainers).map(|number| pod(number, Member::Trainer, None)));
    state.pods_are(pods, now);
    joins(&mut state, 0, Holds::Shards(Vec::new()), now);
    (1..=trainers).for_each(|number| joins(&mut state, number, model(), now));
    for action in state.reconcile(now) {
        arrives(&mut state, &action);
    }
    // No evaluation is due.
    state.evaluated_at = Some(now + Duration::from_hours(1));
    state
}

fn progress(step: u64, samples: u64, loss: f32) -> Progress {
    let (seconds, compute_seconds, gradient_square) = (0.1, 0.1, None);
    Progress { step, samples, loss: Some(loss), seconds, compute_seconds, gradient_square }
}

fn asks(state: &mut State, number: u32, now: Instant) -> Order {
    state.work(&ask(number), now).unwrap().order
}

/// A trainer asks that has these parts of this step in hand.
fn holding(
    state: &mut State,
    number: u32,
    (step, parts): (u64, &[u32]),
    everywhere: bool,
    now: Instant,
) -> Order {
    let held = Held { step, parts: parts.to_vec(), everywhere };
    state.work_beside(&ask(number), Some(&held), now).unwrap().order
}

fn parts(order: &Order) -> (u64, Vec<u32>) {
    let Order::Parts { batch, parts, .. } = order else { panic!("{order:?}") };
    (batch.step, parts.clone())
}

fn waits(order: &Order) -> bool {
    matches!(order, Order::Wait { .. })
}

#[test]
fn all_parts_of_a_step_are_shared_out_and_the_next_begins_when_it_is_applied() {
    let now = clock::now();
    let mut state = job(json!({ "mode": "sync", "batchParts": 4 }), 2, now);
    assert_eq!(parts(&asks(&mut state, 1, now)), (0, vec![0, 1]));
    assert_eq!(parts(&asks(&mut state, 2, now)), (0, vec![2, 3]));
    assert!(waits(&holding(&mut state, 1, (0, &[0, 1]), true, now)), "for the other");
    assert_eq!(state.phase(), Phase::Running);
    let done = NextWork { done: vec![progress(0, 4, 1.0)], ..ask(2) };
    assert_eq!(parts(&state.work(&done, now).unwrap().order).0, 1);
    assert_eq!(state.steps(), 1);
    // The other tells of the same step, with its own losses.
    let done = NextWork { done: vec![progress(0, 4, 3.0)], ..ask(1) };
    assert_eq!(parts(&state.work(&done, now).unwrap().order), (1, vec![2, 3]));
    assert_eq!((state.steps(), state.book().loss()), (1, Some(2.0)), "the mean over all samples");
}

#[test]
fn who_comes_or_goes_amid_a_step_changes_what_others_do_and_not_what_the_step_is() {
    let now = clock::now();
    let mut state = job(json!({ "mode": "sync", "batchParts": 4 }), 3, now);
    assert_eq!(parts(&asks(&mut state, 1, now)), (0, vec![0, 1]));
    assert_eq!(parts(&asks(&mut state, 2, now)), (0, vec![2, 3]));
    assert!(waits(&asks(&mut state, 3, now)), "nothing is left of this step");
    state.lost("uid-2", now);
    assert_eq!(parts(&asks(&mut state, 3, now)), (0, vec![2, 3]), "in its place");
    // One that is to go holds what it has pushed until it is applied.
    state.joined.get_mut("uid-3").unwrap().leaving = true;
    assert!(waits(&holding(&mut state, 3, (0, &[2, 3]), true, now)));
    let done = NextWork { done: vec![progress(0, 4, 1.0)], ..ask(1) };
    assert_eq!(parts(&state.work(&done, now).unwrap().order), (1, vec![0, 1, 2, 3]));
    let done = NextWork { done: vec![progress(0, 4, 1.0)], ..ask(3) };
    assert_eq!(state.work(&done, now).unwrap().order, Order::Stop);
}

#[test]
fn a_backup_computes_what_the_slowest_has_not_finished_and_waits_for_nobody_else() {
    let now = clock::now();
    let mode = json!({ "mode": "sync", "batchParts": 4, "backupTrainers": 1 });
    let mut state = job(mode, 3, now);
    assert_eq!(parts(&asks(&mut state, 1, now)), (0, vec![0, 1]));
    assert_eq!(parts(&asks(&mut state, 2, now)), (0, vec![2, 3]));
    let order = holding(&mut state, 1, (0, &[0, 1]), true, now);
    assert!(waits(&order), "it has pushed its own, and holds them");
    assert_eq!(parts(&asks(&mut state, 3, now)), (0, vec![2, 3]), "those of the one that has not");
    // The backup was first.
    let done = NextWork { done: vec![progress(0, 4, 1.0)], ..ask(3) };
    assert_eq!(parts(&state.work(&done, now).unwrap().order).0, 1);
}

#[test]
fn without_backups_a_trainer_that_hangs_holds_up_a_step_for_a_while_only() {
    let now = clock::now();
    let mut state = job(json!({ "mode": "sync", "batchParts": 2 }), 2, now);
    assert_eq!(parts(&asks(&mut state, 1, now)), (0, vec![0]));
    assert_eq!(parts(&asks(&mut state, 2, now)), (0, vec![1]));
    let mut asks_after =
        |seconds| holding(&mut state, 1, (0, &[0]), true, now + Duration::from_secs(seconds));
    assert!(waits(&asks_after(9)));
    assert_eq!(parts(&asks_after(11)), (0, vec![1]));
}

#[test]
fn parts_whose_order_was_lost_on_its_way_are_given_again() {
    let now = clock::now();
    let mut state = job(json!({ "mode": "sync", "batchParts": 4 }), 2, now);
    for _ in 0..2 {
        assert_eq!(parts(&asks(&mut state, 1, now)), (0, vec![0, 1]), "it has none of them");
    }
    assert_eq!(parts(&asks(&mut state, 2, now)), (0, vec![2, 3]));
    assert!(waits(&holding(&mut state, 1, (0, &[0, 1]), true, now)));
    // So are those that it is given besides others.
    state.lost("uid-2", now);
    for _ in 0..2 {
        let order = holding(&mut state, 1, (0, &[0, 1]), true, now);
        assert_eq!(parts(&order), (0, vec![2, 3]));
    }
    // Who is to go and has never heard of them goes.
    joins(&mut state, 2, model(), now);
    state.joined.get_mut("uid-1").unwrap().leaving = true;
    assert_eq!(asks(&mut state, 1, now), Order::Stop);
    assert_eq!(parts(&asks(&mut state, 2, now)), (0, vec![0, 1, 2, 3]), "nobody has any");
}

#[test]
fn what_a_trainer_has_not_brought_everywhere_is_computed_by_another() {
    let now = clock::now();
    let mut state = job(json!({ "mode": "sync", "batchParts": 2 }), 2, now);
    asks(&mut state, 1, now);
    asks(&mut state, 2, now);
    // Each cannot reach one server, and goes on asking.
    let mut given = Vec::new();
    for seconds in 1..30 {
        let now = now + Duration::from_secs(seconds);
        for (number, own) in [(1, 0), (2, 1)] {
            let mut all = vec![own];
            all.extend(given.iter().filter(|(other, _)| *other == number).map(|(_, part)| *part));
            let order = holding(&mut state, number, (0, &all), false, now);
            if !waits(&order) {
                let (step, parts) = parts(&order);
                assert_eq!((step, parts.len()), (0, 1 + usize::from(parts.contains(&own))));
                given.extend(parts.iter().filter(|part| **part != own).map(|part| (number, *part)));
            }
        }
    }
    given.sort_unstable();
    assert_eq!(given, [(1, 1), (2, 0)], "each computes once what the other could not bring");
}

#[test]
fn a_report_that_does_not_count_ends_no_step() {
    let now = clock::now();
    let mut state = job(json!({ "mode": "sync", "batchParts": 2 }), 2, now);
    // As after a job was taken back.
    state.only_own = true;
    assert_eq!(parts(&asks(&mut state, 1, now)), (0, vec![0]));
    assert_eq!(parts(&asks(&mut state, 2, now)), (0, vec![1]));
    state.lost("uid-1", now);
    let order = holding(&mut state, 2, (0, &[1]), true, now);
    assert_eq!(parts(&order), (0, vec![0]));
    joins(&mut state, 1, model(), now);
    let done = || vec![progress(0, 4, 1.0)];
    state.work(&NextWork { done: done(), ..ask(1) }, now).unwrap();
    assert_eq!(state.steps(), 0);
    let own = NextWork { done: done(), ..ask(2) };
    assert_eq!(parts(&state.work(&own, now).unwrap().order).0, 1);
    assert_eq!((state.steps(), state.plan.as_ref().unwrap().settled()), (1, 1));
}

#[test]
fn parts_that_a_trainer_gives_back_are_done_by_the_next_that_asks() {
    let now = clock::now();
    let mut state = job(json!({ "mode": "sync", "batchParts": 2 }), 2, now);
    asks(&mut state, 1, now);
    asks(&mut state, 2, now);
    let returned = NextWork { returned: vec![0], ..ask(1) };
    assert_eq!(parts(&state.work(&returned, now).unwrap().order), (0, vec![0]));
}

#[test]
fn what_a_trainer_cannot_have_in_hand_is_refused_or_not_counted() {
    let now = clock::now();
    let mut state = job(json!({ "mode": "sync", "batchParts": 2 }), 2, now);
    asks(&mut state, 1, now);
    let many: Vec<u32> = (0..5_000).collect();
    for (step, parts) in [(u64::MAX, &[0][..]), (0, &many)] {
        let held = Held { step, parts: parts.to_vec(), everywhere: true };
        assert!(state.work_beside(&ask(2), Some(&held), now).is_err());
    }
    let order = holding(&mut state, 2, (0, &[7, u32::MAX]), true, now);
    assert_eq!(parts(&order), (0, vec![1]), "the step has no such parts");
}

fn batches(order: &Order) -> Vec<Batch> {
    let Order::Train(batches) = order else { panic!("{order:?}") };
    batches.clone()
}

#[test]
fn a_trainer_that_is_too_far_ahead_of_the_slowest_waits_and_is_not_taken_for_dead() {
    let began = clock::now();
    let mut state = job(json!({ "mode": "boundedStaleness", "maxStaleness": 3 }), 2, began);
    let slow = batches(&asks(&mut state, 1, began));
    let (mut now, mut ahead) = (began, 0);
    let mut done = Vec::new();
    let waited = loop {
        now += Duration::from_millis(100);
        let report = NextWork { done: std::mem::take(&mut done), ..ask(2) };
        let order = state.work(&report, now).unwrap().order;
        if waits(&order) {
            break order;
        }
        let given = batches(&order);
        ahead += given.len();
        done = given.iter().map(|one| progress(one.step, one.length, 1.0)).collect();
        assert!(ahead <= 4, "{ahead} while the other has done none");
    };
    assert!(waits(&waited) && ahead == 4, "{ahead}");
    // For as long as the other takes, both say that they live.
    for _ in 0..4 {
        now += Duration::from_secs(2);
        for (number, doing) in [(1, Doing::Training(slow[0].step)), (2, Doing::Waiting)] {
            let (activation, pod_uid, milliseconds) = (1, format!("uid-{number}"), 10);
            let report = TrainerReport { activation, pod_uid, doing, milliseconds };
            assert_eq!(state.alive(&report, now), Ok(true));
        }
        assert!(state.reconcile(now).is_empty());
        assert!(waits(&asks(&mut state, 2, now)));
    }
    let done = slow.iter().map(|one| progress(one.step, one.length, 1.0)).collect();
    state.work(&NextWork { done, ..ask(1) }, now).unwrap();
    assert!(!batches(&asks(&mut state, 2, now)).is_empty(), "on they go");
}

#[test]
fn one_that_comes_late_begins_with_the_slowest() {
    let now = clock::now();
    let mut state = job(json!({ "mode": "boundedStaleness", "maxStaleness": 0 }), 2, now);
    for _ in 0..5 {
        let given = batches(&asks(&mut state, 1, now));
        let done = given.iter().map(|one| progress(one.step, one.length, 1.0)).collect();
        let report = NextWork { done, ..ask(1) };
        state.work(&report, now).unwrap();
    }
    assert_eq!(batches(&asks(&mut state, 2, now)).len(), 1);
    assert!(!waits(&asks(&mut state, 1, now)), "nobody waits for what was before the other came");
}

#[test]
fn one_that_comes_while_the_other_evaluates_does_not_begin_at_the_beginning() {
    let now = clock::now();
    let mut state = job(json!({ "mode": "boundedStaleness", "maxStaleness": 0 }), 2, now);
    let mut report = ask(1);
    for _ in 0..5 {
        let given = batches(&state.work(&report, now).unwrap().order);
        report.done = given.iter().map(|one| progress(one.step, one.length, 1.0)).collect();
    }
    state.evaluated_at = None;
    let order = state.work(&report, now).unwrap().order;
    let Order::Evaluate { number } = order else { panic!("{order:?}") };
    assert_eq!(batches(&asks(&mut state, 2, now)).len(), 1);
    state.evaluated_at = Some(now + Duration::from_hours(1));
    let found = NextWork { evaluation: Some(number), ..ask(1) };
    assert!(!waits(&state.work(&found, now).unwrap().order), "it is not ahead by all that it did");
}
