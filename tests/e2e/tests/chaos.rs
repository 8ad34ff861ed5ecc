//! `imp chaos run` itself: two minutes of faults of all kinds break no promise and leave nothing behind.
//! That each check can fail is seen in `mutants`.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a suite fails by panicking

use impresario_e2e::chaos::{ChaosRun, checks, left_over};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use tempfile::TempDir;

const PROMISES: [&str; 12] = [
    "no_lost_write",
    "linearizable",
    "watch_whole",
    "one_writer",
    "members_agree",
    "replicas_restored",
    "endpoints_exact",
    "job_exact",
    "bound_once",
    "not_overcommitted",
    "room_returned",
    "containers_kept",
];
const KINDS: [&str; 7] = ["blackout", "deafen", "delay", "isolate", "kill", "lose", "pause"];
/// Seeds and seconds; together their schedules have faults of every kind.
const BUDGET: [(u64, u64); 2] = [(3, 50), (4, 50)];
/// Where a busy machine left a kind out: some of what was due did not happen.
const SPARE: (u64, u64) = (6, 50);

fn kept(seed: u64, seconds: u64) -> Value {
    let folder = TempDir::new().unwrap();
    let run = ChaosRun::of(seed, seconds, None, true, folder.path());
    let report = run.report();
    assert_eq!(run.code, Some(0), "{report:#}\n{}", run.err);
    assert_eq!((&report["seed"], &report["passed"]), (&seed.into(), &true.into()));
    assert_eq!(checks(&report, true), PROMISES);
    for check in report["checks"].as_array().unwrap() {
        assert!(!check["detail"].as_str().unwrap().is_empty(), "{check}");
    }
    // What was done is what the schedule said, but for faults of a node that was broken already.
    let (faults, schedule) = (report["faults"].as_array(), report["schedule"].as_array());
    let (faults, schedule) = (faults.expect("faults"), schedule.expect("a schedule"));
    // On a busy machine not all that was due happens, but something of each sort does.
    for sort in [["blackout", "kill", "pause", ""], ["deafen", "delay", "isolate", "lose"]] {
        let is_of = |fault: &Value| sort.contains(&fault["kind"].as_str().unwrap());
        assert!(faults.iter().any(is_of), "none of {sort:?}: {report:#}");
    }
    for fault in faults {
        let target = fault["target"].as_str().unwrap();
        assert!(target.starts_with("node-") || target == "all", "{fault}");
        let is_due = |due: &Value| due["at_s"] == fault["at_s"] && due["kind"] == fault["kind"];
        assert!(schedule.iter().any(is_due), "{fault}");
    }
    assert!(report["figures"]["stale_writes"].as_u64() > Some(0), "{report:#}");
    assert_eq!(left_over(folder.path()), Vec::<String>::new());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "the folders are gone");
    report
}

#[test]
fn faults_of_all_kinds_break_no_promise_and_leave_nothing_behind() {
    let (mut kinds, mut untaken) = (BTreeSet::new(), Vec::new());
    for (seed, seconds) in BUDGET.into_iter().chain([SPARE]) {
        if (seed, seconds) == SPARE && kinds.len() == KINDS.len() {
            break;
        }
        let report = kept(seed, seconds);
        // Not those of the schedule: what was to happen is no fault yet.
        for fault in report["faults"].as_array().unwrap() {
            kinds.insert(fault["kind"].as_str().unwrap().to_owned());
        }
        untaken.extend(report["untaken"].as_array().unwrap().iter().cloned());
    }
    assert_eq!(kinds.iter().collect::<Vec<_>>(), KINDS, "not taken: {untaken:?}");
}
