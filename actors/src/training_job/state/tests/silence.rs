//! Members that are not heard of: who hangs is replaced, and nobody is when it is this side that cannot hear.

use super::*;
use impresario_client::protocol::training::TrainerReport;
use impresario_runtime::clock;

const SECOND: Duration = Duration::from_secs(1);

/// Looks every second for so long; `heard` are heard of each time. Whose pods are deleted.
fn pass(state: &mut State, from: Instant, seconds: u32, heard: &[u32]) -> Vec<String> {
    let mut deleted = Vec::new();
    for second in 1..=seconds {
        let now = from + SECOND * second;
        for number in heard {
            state.joined.get_mut(&format!("uid-{number}")).unwrap().heard = now;
        }
        deleted.extend(state.reconcile(now).into_iter().filter_map(|action| match action {
            Action::DeletePod { uid, .. } => Some(uid),
            _ => None,
        }));
    }
    deleted.sort();
    deleted.dedup();
    deleted
}

#[test]
fn a_member_that_hangs_while_others_are_heard_of_is_replaced() {
    let now = clock::now();
    let mut state = team(now);
    assert!(pass(&mut state, now, 19, &[0, 1]).is_empty());
    assert_eq!(pass(&mut state, now + SECOND * 19, 5, &[0, 1]), ["uid-2"]);
    assert!(state.take_remarks().iter().any(|remark| remark.reason == "MemberSilent"));
}

#[test]
fn a_member_whose_connection_is_lost_while_its_pod_runs_on_is_replaced() {
    let now = clock::now();
    let mut state = team(now);
    state.lost("uid-2", now + SECOND);
    assert_eq!(pass(&mut state, now + SECOND, 25, &[0, 1]), ["uid-2"]);
}

#[test]
fn nobody_is_replaced_when_nobody_can_be_heard_for_minutes() {
    let now = clock::now();
    let mut state = team(now);
    for number in 0..3 {
        state.lost(&format!("uid-{number}"), now + SECOND * 10);
    }
    assert!(pass(&mut state, now + SECOND * 10, 300, &[]).is_empty());
}

#[test]
fn a_pause_of_this_process_is_nobodys_silence() {
    let now = clock::now();
    let mut state = team(now);
    assert!(pass(&mut state, now, 5, &[0, 1, 2]).is_empty());
    // It was stopped for two minutes; the first to speak after that must not be the only one left.
    let later = now + SECOND * 125;
    assert!(pass(&mut state, later, 10, &[0]).is_empty());
}

#[test]
fn a_pod_that_runs_and_never_joins_is_replaced_and_that_is_told() {
    let now = clock::now();
    let mut state = team(now);
    state.wanted = Size { parameter_servers: 3, trainers: 3 };
    let with = |mut more: Vec<Seen>| {
        let team = [(0, Member::ParameterServer), (1, Member::Trainer), (2, Member::Trainer)];
        more.extend(team.map(|(number, member)| pod(number, member, None)));
        more
    };
    // The image of one is still being fetched: that is its node's business.
    let fetched = Seen { running: false, ..pod(5, Member::ParameterServer, None) };
    let silent = [pod(3, Member::ParameterServer, None), pod(4, Member::Trainer, None), fetched];
    state.pods_are(with(silent.into()), now);
    assert!(pass(&mut state, now, 119, &[0, 1, 2]).is_empty());
    assert_eq!(pass(&mut state, now + SECOND * 119, 5, &[0, 1, 2]), ["uid-3"]);
    let remarks = state.take_remarks();
    let told =
        |remark: &Remark| remark.reason == "MemberSilent" && remark.message.contains("pod-3");
    assert!(remarks.iter().any(told), "{remarks:?}");
    // A trainer reads its data first, and is waited for longer.
    state.pods_are(with(vec![pod(4, Member::Trainer, None)]), now + SECOND * 124);
    assert!(pass(&mut state, now + SECOND * 124, 1_600, &[0, 1, 2]).is_empty());
    assert_eq!(pass(&mut state, now + SECOND * 1_724, 120, &[0, 1, 2]), ["uid-4"]);
}

#[test]
fn a_trainer_that_follows_one_that_did_not_join_in_time_is_given_twice_the_time() {
    let began = clock::now();
    let (mut state, mut now) = (state(began), began);
    let alone = |state: &mut State, numbers: &[u32], now: Instant| {
        let trainers = numbers.iter().map(|number| pod(*number, Member::Trainer, None));
        let server = std::iter::once(pod(0, Member::ParameterServer, None));
        state.pods_are(server.chain(trainers).collect(), now);
    };
    let mut passes = |state: &mut State, minutes: u32| {
        let deleted = pass(state, now, minutes * 60, &[0]);
        now += SECOND * (minutes * 60);
        (deleted, now)
    };
    alone(&mut state, &[], began);
    joins(&mut state, 0, Holds::Shards(Vec::new()), began);
    state.wanted.trainers = 2;
    // Two that began together count as one.
    alone(&mut state, &[1, 2], began);
    let (deleted, now) = passes(&mut state, 31);
    assert_eq!(deleted, ["uid-1", "uid-2"]);
    let remarks = state.take_remarks();
    let told = |remark: &&Remark| remark.message.contains("the next has 60 minutes");
    assert_eq!(remarks.iter().filter(told).count(), 2, "{remarks:?}");
    alone(&mut state, &[3, 4], now);
    let (deleted, now) = passes(&mut state, 59);
    assert!(deleted.is_empty(), "{deleted:?}");
    // One has read its data, and shows how long that takes; the other is waited for as before.
    joins(&mut state, 3, model(), now);
    let (deleted, now) = passes(&mut state, 2);
    assert!(deleted.contains(&"uid-4".to_owned()), "{deleted:?}");
    alone(&mut state, &[5], now);
    let (deleted, now) = passes(&mut state, 117);
    assert!(deleted.is_empty(), "{deleted:?}");
    // One is there at once: what hangs is found as soon as ever.
    joins(&mut state, 5, model(), now);
    alone(&mut state, &[6], now);
    joins(&mut state, 6, model(), now);
    alone(&mut state, &[7], now);
    assert_eq!(passes(&mut state, 31).0, ["uid-7"]);
}

#[test]
fn another_control_member_gives_a_trainer_the_time_that_was_found_to_be_needed() {
    let began = clock::now();
    let mut state = state(began);
    let join_within = [(Member::Trainer, SECOND * 3600)].into();
    state.resume(&Earlier { steps: 5, join_within, ..Earlier::default() });
    state.wanted = Size { parameter_servers: 1, trainers: 2 };
    let server = pod(0, Member::ParameterServer, None);
    let trainers = [1, 2].map(|number| pod(number, Member::Trainer, None));
    state.pods_are([vec![server], trainers.to_vec()].concat(), began);
    joins(&mut state, 0, Holds::Shards(Vec::new()), began);
    // One that had joined the activation before joins again: that it does so at once says nothing of its beginning.
    joins(&mut state, 1, model(), began);
    assert_eq!(state.longer_join(Member::Trainer), Some(SECOND * 3600));
    assert!(pass(&mut state, began, 3_500, &[0, 1]).is_empty());
    assert_eq!(pass(&mut state, began + SECOND * 3_500, 200, &[0, 1]), ["uid-2"]);
    assert_eq!(state.longer_join(Member::Trainer), Some(SECOND * 7200));
}

#[test]
fn what_a_status_says_of_the_time_to_join_is_held_to_the_bounds() {
    let mut state = state(clock::now());
    let join_within = [(Member::Trainer, Duration::MAX), (Member::ParameterServer, SECOND)].into();
    state.resume(&Earlier { join_within, ..Earlier::default() });
    assert_eq!(state.longer_join(Member::Trainer), Some(super::membership::LATEST));
    assert_eq!(state.longer_join(Member::ParameterServer), None, "that is less than at first");
}

#[test]
fn a_pod_that_joins_late_but_in_time_is_not_replaced() {
    let now = clock::now();
    let mut state = state(now);
    state.pods_are(vec![pod(0, Member::ParameterServer, None)], now);
    assert!(pass(&mut state, now, 100, &[]).is_empty());
    joins(&mut state, 0, Holds::Shards(Vec::new()), now + SECOND * 100);
    assert!(pass(&mut state, now + SECOND * 100, 1_000, &[0]).is_empty());
}

/// One trainer alone with its server, which says each second that it is at this; until its pod is deleted, or so many
/// seconds are over. At what time.
fn is_at(state: &mut State, (number, doing): (u32, Doing), from: Instant, seconds: u32) -> Instant {
    for second in 1..=seconds {
        let now = from + SECOND * second;
        let report = TrainerReport {
            activation: 1,
            pod_uid: format!("uid-{number}"),
            doing,
            milliseconds: u64::from(second) * 1_000,
        };
        state.alive(&report, now).unwrap();
        state.joined.get_mut("uid-0").unwrap().heard = now;
        let deleted = |action: &Action| matches!(action, Action::DeletePod { uid, .. } if *uid == report.pod_uid);
        if state.reconcile(now).iter().any(deleted) {
            return now;
        }
    }
    from + SECOND * seconds
}

#[test]
fn what_takes_a_trainer_very_long_comes_to_its_end_in_one_of_the_pods_that_follow_each_other() {
    const LONG: u32 = 40 * 60;
    // Nobody knows yet how long an evaluation takes, nor a batch.
    for doing in [Doing::Evaluating, Doing::Training(0)] {
        let began = clock::now();
        let (mut state, mut now) = (state(began), began);
        let mut pods = 0;
        loop {
            pods += 1;
            assert!(pods < 5, "{doing:?} is never done: {:?}", state.take_remarks());
            let there = [pod(0, Member::ParameterServer, None), pod(pods, Member::Trainer, None)];
            state.pods_are(there.into(), now);
            if pods == 1 {
                joins(&mut state, 0, Holds::Shards(Vec::new()), now);
            }
            joins(&mut state, pods, model(), now);
            for action in state.reconcile(now) {
                arrives(&mut state, &action);
            }
            let ended = is_at(&mut state, (pods, doing), now, LONG);
            if ended - now == SECOND * LONG {
                break;
            }
            now = ended + SECOND;
        }
        assert!(pods > 1, "one that hangs is replaced within minutes");
        let told = |remark: &Remark| remark.message.contains("for 60 minutes");
        assert!(state.take_remarks().iter().any(told));
    }
}
