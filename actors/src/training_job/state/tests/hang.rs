//! Trainers that live and get no further, and reports that come late or twice: nothing waits for them, and
//! nothing counts that was not done.

use super::*;
use impresario_client::protocol::training::{Evaluated, Progress, ReportError};

const SECOND: Duration = Duration::from_secs(1);

/// A server and two trainers of a job of eight steps, whose shards are where they should be.
fn placed_team(now: Instant) -> State {
    let mut state = team(now);
    for action in state.reconcile(now) {
        arrives(&mut state, &action);
    }
    state
}

fn done(number: u32, steps: &[u64]) -> NextWork {
    let progress = |step: &u64| Progress {
        step: *step,
        samples: 8,
        loss: Some(0.5),
        seconds: 0.2,
        compute_seconds: 0.1,
        gradient_square: None,
    };
    NextWork { done: steps.iter().map(progress).collect(), ..ask(number) }
}

fn found(number: u32, evaluation: u64, accuracy: f32) -> NextWork {
    let evaluated = Some(Evaluated { version: 1, loss: None, accuracy });
    NextWork { evaluated, evaluation: Some(evaluation), ..ask(number) }
}

fn train(order: Order) -> Vec<u64> {
    match order {
        Order::Train(batches) => batches.into_iter().map(|batch| batch.step).collect(),
        other => panic!("{other:?}"),
    }
}

/// The first trainer is given batches and says no more of them; the other does all others. What the first was
/// given, and what the other was told last.
fn one_hangs(state: &mut State, now: Instant) -> (Vec<u64>, Order) {
    let hung = train(state.work(&ask(1), now).unwrap().order);
    let mut next = state.work(&ask(2), now).unwrap().order;
    loop {
        next = match next {
            Order::Train(batches) => {
                let steps: Vec<u64> = batches.iter().map(|batch| batch.step).collect();
                assert!(steps.iter().all(|step| !hung.contains(step)), "they may still be done");
                state.work(&done(2, &steps), now).unwrap().order
            }
            Order::Evaluate { number } => state.work(&found(2, number, 0.5), now).unwrap().order,
            waits => return (hung, waits),
        };
    }
}

#[test]
fn the_last_batch_of_a_trainer_that_hangs_is_done_by_another_and_counts_once() {
    let now = Instant::now();
    let mut state = placed_team(now);
    let (hung, waits) = one_hangs(&mut state, now);
    assert!(matches!(waits, Order::Wait { .. }));
    assert_eq!(state.steps() + hung.len() as u64, 8);
    let order = |state: &mut State, at| state.work(&ask(2), at).unwrap().order;
    // In between it is asked for evaluations.
    let mut at_work = |at: Instant| match order(&mut state, at) {
        Order::Evaluate { number } => state.work(&found(2, number, 0.5), at).unwrap().order,
        other => other,
    };
    assert!(matches!(at_work(now + SECOND * 9), Order::Wait { .. }), "it may be slow");
    let later = now + SECOND * 11;
    assert_eq!(train(at_work(later)), hung);
    state.work(&done(2, &hung), later).unwrap();
    assert_eq!(state.steps(), 8);
    // The first wakes up.
    state.work(&done(1, &hung), later).unwrap();
    assert_eq!((state.steps(), state.samples()), (8, 64));
}

#[test]
fn what_an_earlier_evaluation_found_is_not_what_the_job_has_reached() {
    let now = Instant::now();
    let mut state = placed_team(now);
    let steps = train(state.work(&ask(1), now).unwrap().order);
    let Order::Evaluate { number: early } = state.work(&done(1, &steps), now).unwrap().order else {
        panic!("the first step is there to be evaluated")
    };
    let mut left: Vec<u64> = (0..8).filter(|step| !steps.contains(step)).collect();
    let rest = state.work(&ask(2), now).unwrap().order;
    left.retain(|step| !train(rest.clone()).contains(step));
    state.work(&done(2, &train(rest)), now).unwrap();
    state.work(&done(2, &left), now).unwrap();
    // The answer to this report is lost, and it comes again.
    let report = found(1, early, 0.25);
    let Order::Evaluate { number: last } = state.work(&report, now).unwrap().order else {
        panic!("all is trained: what was reached is to be seen")
    };
    assert_ne!(early, last);
    let Order::Evaluate { number: again } = state.work(&report, now).unwrap().order else {
        panic!("it has not been evaluated")
    };
    assert_eq!(state.phase(), Phase::Running);
    state.work(&found(1, again, 0.75), now).unwrap();
    assert_eq!(state.phase(), Phase::Succeeded);
    assert!(state.book().evaluation().unwrap().accuracy > 0.7);
}

#[test]
fn a_trainer_that_hangs_while_it_evaluates_does_not_keep_the_job_from_its_end() {
    let now = Instant::now();
    let mut state = placed_team(now);
    let steps = train(state.work(&ask(1), now).unwrap().order);
    let Order::Evaluate { number } = state.work(&done(1, &steps), now).unwrap().order else {
        panic!("the first step is there to be evaluated")
    };
    // It is known now how long one takes.
    state.work(&found(1, number, 0.25), now + SECOND).unwrap();
    let left: Vec<u64> = (0..8).filter(|step| !steps.contains(step)).collect();
    let order = state.work(&done(1, &left), now + SECOND * 2).unwrap().order;
    assert!(matches!(order, Order::Evaluate { .. }), "{order:?}");
    state.joined.get_mut("uid-1").unwrap().doing = Doing::Evaluating;
    let asks = |state: &mut State, seconds| state.work(&ask(2), now + SECOND * seconds).unwrap();
    assert!(matches!(asks(&mut state, 30).order, Order::Wait { .. }));
    assert!(matches!(asks(&mut state, 70).order, Order::Evaluate { .. }));
}

#[test]
fn what_was_trained_before_all_was_lost_is_not_reported_into_what_is_begun_anew() {
    let now = Instant::now();
    let mut state = placed_team(now);
    let steps = train(state.work(&ask(1), now).unwrap().order);
    state.work(&done(1, &steps), now).unwrap();
    let lost = pod(0, Member::ParameterServer, Some(false));
    let trainers = [1, 2].map(|number| pod(number, Member::Trainer, None));
    let other = pod(3, Member::ParameterServer, None);
    state.pods_are([vec![lost, other], trainers.into()].concat(), now);
    joins(&mut state, 3, Holds::Shards(Vec::new()), now);
    for _ in 0..2 {
        for action in state.reconcile(now) {
            state.has_no_copy(&action, now);
        }
    }
    assert_eq!(state.steps(), 0);
    let late = state.work(&done(1, &[7]), now);
    assert_eq!(late, Err(ReportError::Unknown));
    let welcome = state.join(join(1, model()), now).unwrap();
    assert_ne!(welcome.activation, 1);
    let again = NextWork { activation: welcome.activation, ..ask(1) };
    assert!(state.work(&again, now).is_ok() && state.steps() == 0);
}

#[test]
fn an_evaluation_that_takes_longer_than_anybody_is_given_at_first_ends_the_job_all_the_same() {
    const MINUTE: Duration = Duration::from_mins(1);
    const LONG: u32 = 40;
    let began = Instant::now();
    let mut state = placed_team(began);
    // The evaluation that each trainer is at, and since when.
    let mut at: [Option<(u64, u32)>; 2] = [None, None];
    for minute in 0..1_000 {
        let now = began + MINUTE * minute;
        for (number, at) in [1, 2].into_iter().zip(&mut at) {
            let mut report = match *at {
                Some((_, since)) if minute - since < LONG => continue,
                Some((evaluation, _)) => found(number, evaluation, 0.9),
                None => ask(number),
            };
            *at = loop {
                match state.work(&report, now).unwrap().order {
                    Order::Train(batches) => {
                        let steps: Vec<u64> = batches.iter().map(|batch| batch.step).collect();
                        report = done(number, &steps);
                    }
                    Order::Evaluate { number } => break Some((number, minute)),
                    _ => break None,
                }
            };
            if at.is_some() {
                let joined = state.joined.get_mut(&format!("uid-{number}")).unwrap();
                joined.doing = Doing::Evaluating;
            }
        }
        if state.phase() == Phase::Succeeded {
            return;
        }
    }
    panic!("{:?}", state.evaluating);
}
