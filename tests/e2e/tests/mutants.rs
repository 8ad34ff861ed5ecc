//! Each check of the harness is seen to fail: the product is run with one of its faults built in
//! (`runtime/src/mutants.rs`), and within three seeds the promise that the fault breaks is said to be broken.
//!
//! Needs a build that has the faults: `cargo build --workspace --bins --features imp/mutants`, and this suite
//! with `--features imp/mutants,impresario-e2e/mutants`. All of it takes a quarter of an hour
//! (`tests/run mutants`); the tests whose names begin with `quick` are part of every `tests/run`.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a suite fails by panicking

use impresario_e2e::chaos::{ChaosRun, checks, left_over};
use serde_json::Value;
use std::path::Path;
use tempfile::TempDir;

/// How long faults go on: long enough for one that hits all nodes.
const SECONDS: u64 = 25;

/// How long the cluster has to heal, which with some faults it never does: most verdicts are of what was seen before.
const HEAL: u64 = 20;
/// And for the checks that are of how it stands in the end: nodes that were dark have to come up again first.
const HEAL_WHOLLY: (&[&str], u64) = (&["endpoints_exact", "no_lost_write"], 180);

/// What a check must say of a fault: its name, and words of its detail, so that it is the check that is meant
/// for the fault which finds it, and for the reason that is meant.
type Verdict = (&'static str, &'static str);

fn says(report: &Value, (promise, words): Verdict) -> bool {
    let checks = report["checks"].as_array().expect("checks");
    checks.iter().any(|check| {
        let detail = check["detail"].as_str().expect("a detail");
        check["name"] == promise && check["passed"] == false && detail.contains(words)
    })
}

/// Runs with a fault until all of the verdicts are given, with three seeds at most.
fn caught(mutant: &str, seeds: [u64; 3], verdicts: &[Verdict]) {
    let mut seen = Vec::new();
    let is_of_the_end = verdicts.iter().any(|(promise, _)| HEAL_WHOLLY.0.contains(promise));
    let heal = if is_of_the_end { HEAL_WHOLLY.1 } else { HEAL };
    for seed in seeds {
        let folder = TempDir::new().unwrap();
        let run = ChaosRun::of(seed, SECONDS, Some((mutant, heal)), true, folder.path());
        let report = run.report();
        assert_eq!(report["mutant"], mutant, "build with `--features imp/mutants`: {}", run.err);
        assert_eq!(left_over(folder.path()), Vec::<String>::new());
        let broken: Vec<String> = checks(&report, false).into_iter().map(str::to_owned).collect();
        eprintln!("{mutant}, seed {seed}: {broken:?}");
        if verdicts.iter().all(|verdict| says(&report, *verdict)) {
            assert_eq!(run.code, Some(3), "{report:#}");
            tells_where_to_look(&report);
            return;
        }
        seen.push(report["checks"].clone());
    }
    panic!("{verdicts:?} were not given with {mutant} in {seeds:?}: {seen:#?}");
}

/// A failed run keeps its history and its logs.
fn tells_where_to_look(report: &Value) {
    let history = report["history"].as_str().expect("where the history is");
    let history: Value = serde_json::from_slice(&std::fs::read(history).unwrap()).unwrap();
    assert!(!history["registers"].as_array().unwrap().is_empty());
    for log in report["logs"].as_array().unwrap() {
        assert!(Path::new(log.as_str().unwrap()).exists(), "{log}");
    }
}

macro_rules! mutants {
    ($($test:ident: $mutant:literal, $seeds:expr => [$($verdict:expr),+];)+) => {
        $(
            #[test]
            fn $test() {
                caught($mutant, $seeds, &[$($verdict),+]);
            }
        )+

        const TESTED: &[&str] = &[$($mutant),+];
        const VERDICTS: &[Verdict] = &[$($($verdict),+),+];
    };
}

const ANY: [u64; 3] = [1, 2, 3];
/// Seeds with a blackout: what was acknowledged is lost when all nodes lose what they had not synced.
const DARK: [u64; 3] = [46, 23, 58];

mutants! {
    writes_acknowledged_before_the_sync: "AcknowledgeEarly", DARK
        => [("no_lost_write", "was acknowledged, but")];
    reads_of_what_is_not_true_any_more: "StaleReads", ANY => [("linearizable", "explains the answers")];
    members_that_come_apart: "ReplicasDiverge", ANY => [("members_agree", "differ in")];
    quick_a_watch_that_skips: "WatchSkips", ANY => [("watch_whole", "a change is missing")];
    a_watch_that_tells_twice: "WatchDoubles", ANY => [("watch_whole", "was told after")];
    quick_a_bind_without_compare: "BindUnchecked", ANY => [("bound_once", "was bound to")];
    quick_a_reservation_that_is_not_returned: "ReservationKept", ANY
        => [("room_returned", "is free, but beside its pods")];
    a_node_that_gives_more_than_it_has: "Overcommit", ANY => [("not_overcommitted", "thousandths of")];
    quick_a_finalizer_that_is_forgotten: "FinalizerForgotten", ANY
        => [("job_exact", "more pods succeeded than were to")];
    containers_that_do_not_outlive_their_keeper: "ContainersRestarted", ANY
        => [("containers_kept", "began anew")];
    a_command_that_is_run_again: "RunAgain", ANY => [("job_exact", " times; ")];
    a_pod_that_is_left_out_of_its_service: "EndpointLost", ANY => [("endpoints_exact", "Endpoints say")];
}

#[test]
fn quick_every_fault_that_can_be_built_in_has_a_test() {
    let folder = TempDir::new().unwrap();
    let run = ChaosRun::of(1, 1, Some(("Nonsense", HEAL)), true, folder.path());
    assert_eq!(run.code, Some(1), "build with `--features imp/mutants`: {}", run.out);
    let all = run.err.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    let mut all: Vec<&str> = all.expect("a list").0.split(", ").collect();
    let mut tested = [TESTED, &[UNFENCED]].concat();
    all.sort_unstable();
    tested.sort_unstable();
    assert_eq!(tested, all);
}

#[test]
fn quick_no_verdict_is_one_that_slowness_could_give() {
    // Any failure of a check contains no words at all: that of a cluster that had not settled, too.
    for (promise, words) in VERDICTS {
        assert!(words.len() > 4, "{promise}: {words:?}");
    }
}

/// The fault that is seen as a person sees it.
const UNFENCED: &str = "FenceUnchecked";

#[test]
fn quick_a_fence_that_is_not_checked_tells_a_person_so_and_the_seed_and_where_to_look() {
    // A cluster that has not settled within the time of the faults shows nothing of the one built in.
    let mut seen = Vec::new();
    for seed in [5, 6, 7] {
        let folder = TempDir::new().unwrap();
        let run = ChaosRun::of(seed, 15, Some((UNFENCED, HEAL)), false, folder.path());
        let is_meant =
            |line: &str| line.starts_with("BROKEN one_writer") && line.contains("was accepted at");
        if run.code == Some(3) && run.out.lines().any(is_meant) {
            assert_eq!(left_over(folder.path()), Vec::<String>::new());
            let again = format!("--seed {seed}");
            for word in [again.as_str(), "history: ", "log: ", "data: "] {
                assert!(run.out.contains(word), "{word:?} is missing in {}", run.out);
            }
            return;
        }
        seen.push(run);
    }
    panic!("no run has failed: {seen:#?}");
}
