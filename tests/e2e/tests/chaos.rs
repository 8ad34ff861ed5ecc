//! `imp chaos run` itself: a short run keeps every promise; and each check fails, alone, when the
//! promise that it is about is broken on purpose.

#![expect(clippy::expect_used, reason = "what a test needs and does not get ends it")]

use impresario_e2e::imp;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

const PROMISES: [&str; 6] = [
    "no_lost_write",
    "linearizable",
    "replicas_restored",
    "job_exact",
    "bound_once",
    "not_overcommitted",
];

struct Run {
    code: Option<i32>,
    out: String,
    err: String,
}

fn chaos(seed: u64, seconds: u64, sabotage: Option<&str>, json: bool, folder: &Path) -> Run {
    let mut command = Command::new(imp());
    command
        .args(["chaos", "run", "--seed", &seed.to_string()])
        .args(["--duration", &format!("{seconds}s")])
        .env("TMPDIR", folder)
        .env_remove("IMPRESARIO_CHAOS_SABOTAGE")
        .stdin(Stdio::null());
    if json {
        command.args(["-o", "json"]);
    }
    if let Some(promise) = sabotage {
        command.env("IMPRESARIO_CHAOS_SABOTAGE", promise);
    }
    let output = command.output().expect("imp starts");
    Run {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Run {
    fn report(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", self.out, self.err))
    }
}

fn names(report: &Value, passed: bool) -> Vec<&str> {
    let checks = report["checks"].as_array().expect("checks");
    let which = checks.iter().filter(|check| check["passed"] == passed);
    which.map(|check| check["name"].as_str().expect("a name")).collect()
}

/// The programs that still run out of a folder.
fn left_over(folder: &Path) -> Vec<String> {
    let folder = folder.to_string_lossy().into_owned();
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    processes
        .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(&folder))
        .collect()
}

#[test]
fn a_short_run_keeps_every_promise_and_leaves_nothing_behind() {
    let folder = TempDir::new().unwrap();
    let run = chaos(3, 12, None, true, folder.path());
    let report = run.report();
    assert_eq!(run.code, Some(0), "{report:#}\n{}", run.err);
    assert_eq!(report["seed"], 3);
    assert_eq!(report["passed"], true);
    assert_eq!(names(&report, true), PROMISES);
    for check in report["checks"].as_array().unwrap() {
        assert!(!check["detail"].as_str().unwrap().is_empty(), "{check}");
    }
    let faults = report["faults"].as_array().unwrap();
    assert!(!faults.is_empty());
    for fault in faults {
        assert!(fault["at_s"].is_f64() && fault["kind"].is_string(), "{fault}");
        assert!(fault["target"].as_str().unwrap().starts_with("node-"), "{fault}");
    }
    // What was done is what the schedule said, but for faults of a node that was broken already.
    let schedule = report["schedule"].as_array().unwrap();
    assert!(faults.iter().all(|fault| {
        schedule.iter().any(|due| due["at_s"] == fault["at_s"] && due["kind"] == fault["kind"])
    }));
    assert_eq!(left_over(folder.path()), Vec::<String>::new());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the folder is gone");
}

#[test]
fn each_broken_promise_fails_its_own_check_and_no_other() {
    let folder = TempDir::new().unwrap();
    let mut schedules = Vec::new();
    for promise in PROMISES {
        let run = chaos(5, 4, Some(promise), true, folder.path());
        let report = run.report();
        assert_eq!(run.code, Some(3), "{promise}: {report:#}\n{}", run.err);
        assert_eq!(report["passed"], false, "{promise}");
        assert_eq!(names(&report, false), [promise], "{report:#}");
        let history = report["history"].as_str().expect("where the history is");
        let history: Value = serde_json::from_slice(&std::fs::read(history).unwrap()).unwrap();
        assert!(!history["registers"].as_array().unwrap().is_empty());
        for log in report["logs"].as_array().unwrap() {
            assert!(Path::new(log.as_str().unwrap()).exists(), "{log}");
        }
        schedules.push(report["schedule"].clone());
    }
    assert!(schedules.iter().all(|schedule| *schedule == schedules[0]), "one seed, one schedule");
    assert_eq!(left_over(folder.path()), Vec::<String>::new());
}

#[test]
fn a_failed_run_tells_a_person_the_seed_and_where_to_look() {
    let folder = TempDir::new().unwrap();
    let run = chaos(5, 4, Some("linearizable"), false, folder.path());
    assert_eq!(run.code, Some(3), "{}\n{}", run.out, run.err);
    for word in ["--seed 5", "BROKEN linearizable", "history: ", "log: ", "data: "] {
        assert!(run.out.contains(word), "{word:?} is missing in {}", run.out);
    }
}

#[test]
fn a_promise_that_does_not_exist_is_not_broken() {
    let folder = TempDir::new().unwrap();
    let run = chaos(5, 4, Some("world_peace"), true, folder.path());
    assert_eq!(run.code, Some(1));
    assert!(run.err.contains("no_lost_write"), "{}", run.err);
}
