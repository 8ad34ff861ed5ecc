//! When a job saves its parameters, and what it takes back.

use super::*;
use impresario_client::protocol::training::{
    Applied, Checkpoint, Committed, Evaluated, Looked, Progress, SavedShard,
};

pub(super) const FOLDER: &str = "/models/job";

/// A job that saves what it learns.
pub(super) fn alone(more: serde_json::Value, now: Instant) -> State {
    let template = json!({ "spec": { "containers": [{ "name": "main", "image": "x" }] } });
    let mut spec = json!({ "spec": {
        "mode": "async",
        "parameterServer": { "min": 1, "max": 1, "template": template },
        "trainer": { "min": 1, "max": 1, "template": template },
        "stop": { "epochs": 1 },
        "checkpoint": { "path": FOLDER, "keep": 2 },
    }});
    for (field, value) in more.as_object().unwrap() {
        spec["spec"]["checkpoint"][field] = value.clone();
    }
    let granted = Some(Size { parameter_servers: 1, trainers: 1 });
    State::new("job", Spec::read(&spec).unwrap(), 1, LEASE, granted, now)
}

/// Its server and its trainer come.
pub(super) fn come(state: &mut State, now: Instant) {
    let pods = [(0, Member::ParameterServer), (1, Member::Trainer)];
    state.pods_are(pods.map(|(number, member)| pod(number, member, None)).into(), now);
    joins(state, 0, Holds::Shards(Vec::new()), now);
    joins(state, 1, model(), now);
}

pub(super) fn saving(more: serde_json::Value, now: Instant) -> State {
    let mut state = alone(more, now);
    come(&mut state, now);
    state
}

pub(super) fn checkpoint(number: u64, step: u64) -> Checkpoint {
    Checkpoint {
        path: format!("{FOLDER}/checkpoint-{number:08}-job"),
        step,
        done: Applied::all_below(step),
        sha256: "0f".repeat(32),
        bytes: 100,
        unix_seconds: 1_767_225_600,
    }
}

pub(super) fn looked(newest: Option<Checkpoint>) -> Outcome {
    Outcome::Looked(Looked { newest, refused: Vec::new(), last: 3 })
}

/// Answers the orders that are due, and gives them.
pub(super) fn answered(
    state: &mut State,
    now: Instant,
    answer: impl Fn(&Errand) -> Outcome,
) -> Vec<Errand> {
    let errands = state.errands(now);
    assert!(errands.is_empty() || state.errands(now).is_empty(), "one after the other");
    let answers = errands.iter().map(|errand| (errand.clone(), answer(errand))).collect();
    state.errands_end(answers, now);
    // The actor writes it down.
    state.restoring_is_told(state.is_restored());
    errands
}

/// A server that does what it is told; its shards are at this step.
pub(super) fn good(state: &State, step: u64) -> impl Fn(&Errand) -> Outcome + use<> {
    let ranges = state.ranges.clone();
    move |errand| match errand {
        Errand::Look(..) => looked(None),
        Errand::Save(_, order) => {
            let saved = order.shards.iter().map(|shard| SavedShard {
                range: ranges[*shard as usize],
                version: step,
                applied: Applied::all_below(step),
                memory_steps: step,
                bytes: 9,
                sha256: "ab".repeat(32),
            });
            Outcome::Saved(saved.collect())
        }
        Errand::Commit(_, order) => Outcome::Committed(Committed {
            checkpoint: checkpoint(order.number, step),
            left_over: None,
        }),
    }
}

/// Orders until none is due.
pub(super) fn saves(state: &mut State, step: u64, now: Instant) -> Vec<&'static str> {
    let mut all = Vec::new();
    loop {
        let good = good(state, step);
        let errands = answered(state, now, good);
        if errands.is_empty() {
            return all;
        }
        all.extend(errands.iter().map(|errand| match errand {
            Errand::Look(..) => "look",
            Errand::Save(..) => "save",
            Errand::Commit(..) => "commit",
        }));
    }
}

/// The shards come to the server.
pub(super) fn begins(state: &mut State, now: Instant) {
    for action in state.reconcile(now) {
        arrives(state, &action);
    }
    assert!(!state.map().shards.is_empty());
}

/// The trainer asks for work, says that it has done it, and so on for so many steps.
pub(super) fn trains(state: &mut State, steps: u64, now: Instant) {
    while state.steps() < steps {
        let Order::Train(batches) = state.work(&ask(1), now).unwrap().order else { continue };
        let done = batches.into_iter().map(|batch| Progress {
            step: batch.step,
            samples: batch.length,
            loss: Some(0.5),
            seconds: 0.1,
            compute_seconds: 0.1,
            gradient_square: None,
        });
        // One at a time, so that it does not do more than is wanted.
        let done = done.take((steps - state.steps()) as usize).collect();
        state.work(&NextWork { done, ..ask(1) }, now).unwrap();
    }
}

pub(super) fn reasons(state: &mut State) -> Vec<&'static str> {
    state.take_remarks().iter().map(|remark| remark.reason).collect()
}

#[test]
fn nothing_is_trained_before_it_is_known_whether_there_is_a_checkpoint() {
    let now = clock::now();
    let mut state = saving(json!({ "intervalSteps": 2 }), now);
    assert!(provided(&state.reconcile(now)).is_empty());
    let errands = answered(&mut state, now, |_| looked(None));
    let [Errand::Look(_, order)] = &errands[..] else { panic!("{errands:?}") };
    assert_eq!((order.folder.as_str(), order.uid.as_deref()), (FOLDER, Some("job")));
    assert!(order.verify && order.lease == LEASE);
    assert_eq!(provided(&state.reconcile(now)).len(), 1, "there is none: initial values");
}

#[test]
fn a_job_goes_on_from_the_newest_checkpoint_whoever_its_members_are() {
    let now = clock::now();
    let mut state = saving(json!({ "intervalSteps": 2 }), now);
    answered(&mut state, now, |_| looked(Some(checkpoint(3, 5))));
    let actions = state.reconcile(now);
    let [restore @ Action::Restore { shards, path, to, .. }] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!((path.as_str(), to.as_str()), (checkpoint(3, 5).path.as_str(), "uid-0"));
    assert_eq!(shards.len(), state.ranges.len());
    let arrived: Vec<(u32, u64)> = shards.iter().map(|range| (range.shard, 5)).collect();
    state.moved(restore, &arrived);
    assert_eq!((state.steps(), state.checkpoint()), (5, Some(&checkpoint(3, 5))));
    let said = reasons(&mut state);
    assert!(said.contains(&"Resumed") && !said.contains(&"ParametersRestored"), "{said:?}");
    let first = state.work(&ask(1), now).unwrap().order;
    assert!(matches!(first, Order::Evaluate { .. }), "what was taken is measured: {first:?}");
    let Order::Train(batches) = state.work(&ask(1), now).unwrap().order else { panic!("no work") };
    assert_eq!(batches[0].step, 5);
}

#[test]
fn a_job_saves_by_steps_or_by_time_and_keeps_training_meanwhile() {
    let began = clock::now();
    let mut state = saving(json!({ "intervalSteps": 3, "intervalSeconds": 60 }), began);
    saves(&mut state, 0, began);
    begins(&mut state, began);
    trains(&mut state, 2, began);
    assert!(saves(&mut state, 2, began).is_empty(), "neither interval is over");
    trains(&mut state, 3, began);
    assert_eq!(saves(&mut state, 3, began), ["save", "commit"]);
    assert_eq!(state.checkpoint(), Some(&checkpoint(4, 3)), "after the third, which was there");
    trains(&mut state, 4, began);
    let later = began + Duration::from_secs(61);
    assert_eq!(saves(&mut state, 4, later), ["save", "commit"]);
    let idle = later + Duration::from_secs(61);
    assert!(saves(&mut state, 4, idle).is_empty(), "nothing is new");
    assert!(!reasons(&mut state).contains(&"CheckpointFailed"));
}

#[test]
fn a_shard_that_moves_meanwhile_is_saved_where_it_is_then() {
    let now = clock::now();
    let mut state = saving(json!({ "intervalSteps": 1 }), now);
    saves(&mut state, 0, now);
    begins(&mut state, now);
    trains(&mut state, 1, now);
    // The server says nothing of the first shard: it has just left.
    let reply = good(&state, 1);
    let first = answered(&mut state, now, |errand| match reply(errand) {
        Outcome::Saved(mut saved) => {
            saved.remove(0);
            Outcome::Saved(saved)
        }
        other => other,
    });
    assert!(matches!(first[..], [Errand::Save(..)]), "{first:?}");
    let rest = answered(&mut state, now, &reply);
    let [Errand::Save(_, order)] = &rest[..] else { panic!("{rest:?}") };
    assert_eq!(order.shards, [0]);
    let last = answered(&mut state, now, &reply);
    let [Errand::Commit(_, order)] = &last[..] else { panic!("{last:?}") };
    assert_eq!((order.saved.len(), order.keep), (state.ranges.len(), 2));
}

#[test]
fn a_folder_that_cannot_be_written_is_told_once_and_training_goes_on() {
    let mut now = clock::now();
    let mut state = saving(json!({ "intervalSteps": 1 }), now);
    let full = "/models: No space left on device";
    let refuse = |_: &Errand| Outcome::Failed(full.to_owned());
    assert_eq!(answered(&mut state, now, refuse).len(), 1);
    assert_eq!(state.checkpoint_problem(), Some(full));
    begins(&mut state, now);
    trains(&mut state, 4, now);
    let mut tries = 0;
    for _ in 0..600 {
        now += Duration::from_secs(1);
        tries += answered(&mut state, now, refuse).len();
    }
    assert!((5..40).contains(&tries), "ever later: {tries}");
    let failed = reasons(&mut state).iter().filter(|said| **said == "CheckpointFailed").count();
    assert_eq!(failed, 1);
    trains(&mut state, 5, now);
    now += Duration::from_mins(2);
    assert_eq!(saves(&mut state, 5, now), ["look", "save", "commit"]);
    assert_eq!(state.checkpoint_problem(), None);
}

/// The trainer evaluates for the last time.
fn evaluates(state: &mut State, now: Instant) {
    loop {
        if let Order::Evaluate { number } = state.work(&ask(1), now).unwrap().order {
            let evaluated = Evaluated { version: 8, loss: Some(0.1), accuracy: 0.5 };
            let asked = NextWork { evaluated: Some(evaluated), evaluation: Some(number), ..ask(1) };
            state.work(&asked, now).unwrap();
            return;
        }
    }
}

#[test]
fn a_job_has_not_succeeded_before_its_model_is_saved() {
    let now = clock::now();
    let mut state = saving(json!({}), now);
    saves(&mut state, 0, now);
    begins(&mut state, now);
    trains(&mut state, 8, now);
    evaluates(&mut state, now);
    while !state.is_finishing() {
        evaluates(&mut state, now);
    }
    assert_eq!(state.phase(), Phase::Running);
    assert_eq!(state.work(&ask(1), now).unwrap().order, Order::Wait { milliseconds: 50 });
    assert_eq!(saves(&mut state, 8, now), ["save", "commit"]);
    assert_eq!((state.phase(), state.model()), (Phase::Succeeded, Some(&checkpoint(4, 8))));
    assert_eq!(state.checkpoint(), state.model());
}

#[test]
fn a_job_whose_model_cannot_be_saved_fails_in_the_end_or_ends_when_it_need_not_be_saved() {
    let began = clock::now();
    let ends = |takes_it_out: bool| {
        let mut now = began;
        let mut state = saving(json!({}), now);
        saves(&mut state, 0, now);
        begins(&mut state, now);
        trains(&mut state, 8, now);
        while !state.is_finishing() {
            evaluates(&mut state, now);
        }
        for _ in 0..90 {
            now += Duration::from_mins(1);
            answered(&mut state, now, |_| Outcome::Failed("read-only".to_owned()));
            if takes_it_out {
                let mut spec = state.spec().clone();
                spec.checkpoint = None;
                state.respecified(spec);
            }
        }
        state.phase()
    };
    assert_eq!((ends(false), ends(true)), (Phase::Failed, Phase::Succeeded));
}

#[test]
fn a_job_that_is_to_begin_from_a_checkpoint_does_not_begin_without() {
    let began = clock::now();
    let mut state = saving(json!({ "resumeFrom": "/models/old" }), began);
    answered(&mut state, began, |_| looked(None));
    let other = answered(&mut state, began, |_| looked(None));
    let [Errand::Look(_, order)] = &other[..] else { panic!("{other:?}") };
    assert_eq!((order.folder.as_str(), &order.uid), ("/models/old", &None));
    assert!(provided(&state.reconcile(began)).is_empty());
    assert!(state.checkpoint_problem().unwrap().contains("/models/old"));
    let now = began + Duration::from_mins(2);
    let mut found = checkpoint(9, 2);
    found.path = "/models/old/checkpoint-00000009-other".into();
    answered(&mut state, now, |_| looked(Some(found.clone())));
    let actions = state.reconcile(now);
    assert!(matches!(&actions[..], [Action::Restore { path, .. }] if *path == found.path));
    assert_eq!(state.steps(), 2);
}

/// All members are replaced by others, which have nothing.
pub(super) fn loses_all(state: &mut State, now: Instant) {
    let pods = [(5, Member::ParameterServer), (6, Member::Trainer)];
    state.pods_are(pods.map(|(number, member)| pod(number, member, None)).into(), now);
    joins(state, 5, Holds::Shards(Vec::new()), now);
    joins(state, 6, model(), now);
    for action in state.reconcile(now) {
        assert!(matches!(action, Action::Provide { begins: false, .. }), "{action:?}");
        state.has_no_copy(&action, now);
    }
}

#[test]
fn a_job_that_has_lost_all_goes_on_from_its_newest_good_checkpoint_and_says_what_that_cost() {
    let began = clock::now();
    let mut state = saving(json!({ "intervalSteps": 4 }), began);
    saves(&mut state, 0, began);
    begins(&mut state, began);
    trains(&mut state, 4, began);
    saves(&mut state, 4, began);
    trains(&mut state, 7, began);
    reasons(&mut state);
    let now = began + Duration::from_secs(30);
    loses_all(&mut state, now);
    assert_eq!(state.steps(), 7, "nothing is given up before the folder was looked into");
    let refused = Looked {
        newest: Some(checkpoint(3, 2)),
        refused: vec![(checkpoint(4, 4).path, "it is not as it was written".into())],
        last: 4,
    };
    answered(&mut state, now, |_| Outcome::Looked(refused.clone()));
    state.reconcile(now);
    // The object says now that all is taken back.
    state.restoring_is_told(state.is_restored());
    let actions = state.reconcile(now);
    let [restore @ Action::Restore { shards, path, .. }] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!((path, state.steps()), (&checkpoint(3, 2).path, 2));
    let arrived: Vec<(u32, u64)> = shards.iter().map(|range| (range.shard, 2)).collect();
    state.moved(restore, &arrived);
    let remarks = state.take_remarks();
    let said = |reason: &str, part: &str| {
        remarks.iter().any(|one| one.reason == reason && one.message.contains(part))
    };
    assert!(said("CheckpointRefused", "not as it was written"), "{remarks:?}");
    assert!(said("ParametersRestored", "cost 5 steps"), "{remarks:?}");
    assert!(state.reconcile(now).is_empty(), "all is where it should be");
}

#[test]
fn a_job_that_has_lost_all_and_has_no_checkpoint_that_can_be_used_begins_anew() {
    let began = clock::now();
    let mut state = saving(json!({ "intervalSteps": 100 }), began);
    saves(&mut state, 0, began);
    begins(&mut state, began);
    trains(&mut state, 5, began);
    let now = began + Duration::from_secs(30);
    loses_all(&mut state, now);
    state.reconcile(now);
    answered(&mut state, now, |_| looked(None));
    state.reconcile(now);
    assert!(reasons(&mut state).contains(&"TrainingBeginsAnew"));
    assert_eq!(state.steps(), 0);
}

#[test]
fn a_checkpoint_that_cannot_be_read_is_told_and_one_that_spoils_is_replaced_by_the_one_before() {
    let now = clock::now();
    let mut state = saving(json!({ "intervalSteps": 4 }), now);
    answered(&mut state, now, |_| looked(Some(checkpoint(3, 5))));
    let actions = state.reconcile(now);
    state.move_failed(&actions[0], now);
    state.restore_failed(&actions[0], "/models: Input/output error", now);
    assert_eq!(state.checkpoint_problem(), Some("/models: Input/output error"));
    assert!(reasons(&mut state).contains(&"CheckpointFailed"));
    let now = now + Duration::from_mins(2);
    let again = state.reconcile(now);
    assert!(matches!(again[..], [Action::Restore { .. }]), "{again:?}");
    // It was good when it was looked at, and is not any more.
    state.has_no_copy(&again[0], now);
    assert!(
        state.reconcile(now).is_empty(),
        "nobody is asked for anything before another is found"
    );
    let now = now + Duration::from_mins(2);
    answered(&mut state, now, |_| looked(Some(checkpoint(2, 3))));
    let actions = state.reconcile(now);
    assert!(
        matches!(&actions[..], [Action::Restore { path, .. }] if *path == checkpoint(2, 3).path),
        "{actions:?}"
    );
    assert_eq!(state.steps(), 3);
}

#[test]
fn a_job_that_is_taken_over_goes_on_without_looking_back() {
    let now = clock::now();
    let mut state = alone(json!({ "intervalSteps": 4 }), now);
    let earlier = Earlier { steps: 5, checkpoint: Some(checkpoint(4, 4)), ..Earlier::default() };
    state.resume(&earlier);
    come(&mut state, now);
    assert_eq!(state.checkpoint(), Some(&checkpoint(4, 4)));
    assert!(answered(&mut state, now, |_| looked(None)).is_empty(), "nothing is due");
    assert_eq!(state.steps(), 5);
}
