//! After a fail-over servers come back first, trainers a moment later: until then nobody's shards are looked at, and
//! none of them goes.

use super::copies::{SECOND, at, carried_out, deleted, leaving, of, resumed, server};
use super::*;
use impresario_client::protocol::training::{HeldShard, ServerReport};
use impresario_runtime::clock;
use std::ops::Range;

/// Whether a server that says that it serves these is needed.
fn is_wanted(state: &mut State, number: u32, shards: Range<u32>, now: Instant) -> bool {
    let report = ServerReport {
        activation: 1,
        pod_uid: format!("uid-{number}"),
        versions: shards.map(|shard| (shard, 5)).collect(),
        leaving: BTreeSet::new(),
    };
    state.report(&report, now).unwrap().wanted
}

fn shards(shards: Range<u32>) -> Vec<HeldShard> {
    shards.map(of).collect()
}

/// Makes the moves that are due; all are handovers to this server.
fn handed_to(state: &mut State, number: u32, now: Instant) {
    let uid = format!("uid-{number}");
    loop {
        let moves = state.reconcile(now);
        if moves.is_empty() {
            return;
        }
        let is_its = |action: &Action| matches!(action, Action::Handover { to, .. } if *to == uid);
        assert!(moves.iter().all(is_its), "{moves:?}");
        carried_out(state, &moves);
    }
}

#[test]
fn a_shrink_that_a_fail_over_finds_under_way_takes_no_server_with_its_shards() {
    let now = clock::now();
    let mut state = resumed(&[0, 2], &[1], now);
    state.wanted.parameter_servers = 1;
    server(&mut state, 0, shards(0..3), now);
    server(&mut state, 2, shards(3..8), now);
    state.reconcile(now);
    assert_eq!(leaving(&state), [""; 0], "nothing could be handed on");
    assert!(is_wanted(&mut state, 0, 0..3, now) && is_wanted(&mut state, 2, 3..8, now));
    joins(&mut state, 1, model(), now + SECOND * 2);
    handed_to(&mut state, 2, now + SECOND * 2);
    assert_eq!(leaving(&state), ["uid-0"], "it had the fewer");
    assert!((0..8).all(|shard| at(&state, shard) == "uid-2"));
    assert!(!is_wanted(&mut state, 0, 0..0, now + SECOND * 3));
    let said = state.take_remarks();
    assert!(said.iter().all(|remark| !remark.warning), "nothing was lost: {said:?}");
}

#[test]
fn of_two_servers_that_come_back_the_one_without_shards_goes_before_any_trainer_is_there() {
    let now = clock::now();
    let mut state = resumed(&[0, 2], &[1], now);
    state.wanted.parameter_servers = 1;
    server(&mut state, 0, shards(0..8), now);
    server(&mut state, 2, Vec::new(), now);
    state.reconcile(now);
    assert_eq!(leaving(&state), ["uid-2"]);
    assert!(is_wanted(&mut state, 0, 0..8, now) && !is_wanted(&mut state, 2, 0..0, now));
}

#[test]
fn a_server_that_is_being_deleted_waits_with_its_shards_for_the_first_trainer_of_a_new_activation()
{
    let now = clock::now();
    let mut state = resumed(&[2], &[1], now);
    let others = [pod(1, Member::Trainer, None), pod(2, Member::ParameterServer, None)];
    state.pods_are([vec![deleted(0)], others.into()].concat(), now);
    server(&mut state, 0, shards(0..8), now);
    server(&mut state, 2, Vec::new(), now);
    assert_eq!(leaving(&state), ["uid-0"]);
    assert!(is_wanted(&mut state, 0, 0..8, now), "it may have all that there is");
    joins(&mut state, 1, model(), now + SECOND * 2);
    assert!(is_wanted(&mut state, 0, 0..8, now + SECOND * 2));
    handed_to(&mut state, 2, now + SECOND * 2);
    assert!((0..8).all(|shard| at(&state, shard) == "uid-2"));
    assert!(!is_wanted(&mut state, 0, 0..0, now + SECOND * 3));
}

#[test]
fn a_server_that_is_being_deleted_and_is_given_a_shard_late_does_not_go_with_it() {
    let now = clock::now();
    let mut state = resumed(&[2], &[1], now);
    state.pods_are([vec![deleted(0)], vec![pod(1, Member::Trainer, None)]].concat(), now);
    // An order of the activation before reaches it after it has joined with nothing.
    server(&mut state, 0, Vec::new(), now);
    assert!(is_wanted(&mut state, 0, 3..4, now));
    joins(&mut state, 1, model(), now);
    assert!(is_wanted(&mut state, 0, 3..4, now));
    assert_eq!(at(&state, 3), "uid-0");
}
