//! `imp training simulate` and `imp training plan` as a user or another program runs them: what they print, what
//! they end with, and what they say of input that they cannot use.

#![allow(clippy::unwrap_used)]

use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const EPOCHS: u32 = 6;
const HEADER: &str = "name,time,application,num_replicas,batch_size\n";

/// Seconds of a step on so many GPUs of so many nodes, and those of it that are synchronisation.
fn step(nodes: u32, gpus: u32, batch: u32) -> (f64, f64) {
    let sync = if gpus == 1 { 0.0 } else { 0.005 * f64::from(nodes) };
    (0.01 + 0.002 * f64::from(batch) + sync, sync)
}

/// A trace of one application, and a workload of four jobs.
fn trace() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let application = folder.path().join("applications/toy");
    fs::create_dir_all(&application).unwrap();
    let mut placements = String::from("placement,local_bsz,step_time,sync_time\n");
    let mut sizes = String::from("num_nodes,num_replicas,local_bsz,step_time,sync_time\n");
    for batch in [16, 64, 128] {
        for placement in ["1", "2", "4", "11", "44"] {
            let gpus = placement.chars().map(|digit| digit.to_digit(10).unwrap()).sum();
            let (step, sync) = step(placement.len() as u32, gpus, batch);
            writeln!(placements, "{placement},{batch},{step},{sync}").unwrap();
        }
        for (nodes, gpus) in [(3, 3), (4, 16)] {
            let (step, sync) = step(nodes, gpus, batch);
            writeln!(sizes, "{nodes},{gpus},{batch},{step},{sync}").unwrap();
        }
    }
    fs::write(application.join("placements.csv"), placements).unwrap();
    fs::write(application.join("scalability.csv"), sizes).unwrap();
    for batch in [32, 512] {
        let mut rows = String::from("progress,iteration,metric,grad_sqr,grad_var\n");
        for epoch in 1..=EPOCHS {
            let progress = 1_000 * epoch;
            writeln!(rows, "{progress},{},0.5,1.0,{}", progress * 32 / batch, 5 * epoch).unwrap();
        }
        fs::write(application.join(format!("validation-{batch}.csv")), rows).unwrap();
    }
    let mut jobs = HEADER.to_owned();
    for job in 0..4 {
        writeln!(jobs, "j{job},{},toy,1,64", 10 + 45 * job).unwrap();
    }
    fs::write(folder.path().join("workload.csv"), jobs).unwrap();
    fs::write(folder.path().join("one.csv"), format!("{HEADER}alone,10,toy,1,32\n")).unwrap();
    folder
}

fn imp(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_imp"));
    command.arg("training").args(arguments).stdin(Stdio::null());
    command
}

/// Simulates a workload of the trace on four nodes of four GPUs.
fn simulate(folder: &Path, workload: &str, more: &[&str]) -> Output {
    let path = |name: &str| folder.join(name).display().to_string();
    let mut command = imp(&["simulate", "--trace", &path(""), "--workload", &path(workload)]);
    command.args(["--nodes", "4"]).args(more).output().unwrap()
}

/// What a command that ended well has printed; it has nothing to complain of.
fn printed(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{:?}: {said}", output.status);
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What a command has said that ended with this code and printed nothing.
fn refused(output: &Output, code: i32) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    said
}

#[test]
fn a_table_has_a_line_for_each_policy_that_is_compared() {
    let folder = trace();
    let compared = ["goodput", "optimus", "tiresias", "drf", "fifo", "optimus+oracle"];
    let table =
        printed(&simulate(folder.path(), "workload.csv", &["--compare", &compared.join(",")]));
    let rows: Vec<Vec<&str>> =
        table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["POLICY", "MEAN", "P50", "P99", "LAST", "RESCALES", "USED"]);
    assert_eq!(rows[1..].iter().map(|row| row[0]).collect::<Vec<_>>(), compared);
    for row in &rows[1..] {
        assert_eq!(row.len(), 7, "{table}");
        let seconds =
            |column: usize| -> f64 { row[column].strip_suffix('s').unwrap().parse().unwrap() };
        assert!(
            0.0 < seconds(2) && seconds(2) <= seconds(3) && seconds(3) <= seconds(4),
            "{table}"
        );
        let used: u32 = row[6].strip_suffix('%').unwrap().parse().unwrap();
        assert!((1..=100).contains(&used), "{table}");
    }
    // Without a name it is the default alone.
    let alone = printed(&simulate(folder.path(), "workload.csv", &[]));
    assert_eq!(alone.lines().nth(1), table.lines().nth(1));
    assert_eq!(alone.lines().count(), 2);
}

#[test]
fn the_figures_are_there_as_json_and_are_those_of_the_tables() {
    let folder = trace();
    let json = |more: &[&str]| -> Value {
        let all = [&["-o", "json"], more].concat();
        serde_json::from_str(&printed(&simulate(folder.path(), "one.csv", &all))).unwrap()
    };
    let report = json(&["--policy", "fifo"]);
    // 6,000 steps of 32 samples on one GPU; the job came at 10 s, and is placed at the end of the first
    // minute with a pause of 30 s.
    let expected = 60.0 + 30.0 - 10.0 + 6_000.0 * step(1, 1, 32).0;
    let mean = report["average_completion_s"].as_f64().unwrap();
    assert!((mean - expected).abs() <= f64::from(EPOCHS), "{mean} beside {expected}");
    assert_eq!(report["p50_completion_s"], report["average_completion_s"]);
    assert_eq!(report["p99_completion_s"], report["average_completion_s"]);
    assert!((report["makespan_s"].as_f64().unwrap() - mean - 10.0).abs() < 1e-6);
    assert_eq!(report["rescales"], 0);
    assert!(report["decision_ms_p99"].as_f64().unwrap() >= 0.0);
    let used = report["utilisation"].as_f64().unwrap();
    assert!(used > 0.0 && used < 1.0 / 16.0, "one GPU of sixteen: {used}");
    assert!(report["jobs"]["alone"].is_object(), "{report}");
    // What a pause costs is what the option says.
    let free = json(&["--policy", "fifo", "--rescale-seconds", "0"]);
    let saved = mean - free["average_completion_s"].as_f64().unwrap();
    assert!((saved - 30.0).abs() <= f64::from(EPOCHS), "{saved}");
    let both = json(&["--compare", "fifo,drf"]);
    assert_eq!(both.as_array().unwrap().len(), 2);
    assert_eq!(both[0]["average_completion_s"], report["average_completion_s"]);
}

#[test]
fn a_plot_is_written_where_it_can_be_and_else_the_file_is_named() {
    let folder = trace();
    let path = folder.path().join("gpus.svg").display().to_string();
    printed(&simulate(folder.path(), "workload.csv", &["--plot", &path]));
    let drawn = fs::read_to_string(&path).unwrap();
    assert!(drawn.starts_with("<svg") && drawn.contains("toy"), "{drawn}");
    let nowhere = folder.path().join("nowhere/gpus.svg").display().to_string();
    let said = refused(&simulate(folder.path(), "workload.csv", &["--plot", &nowhere]), 1);
    assert!(said.starts_with("error: ") && said.contains(&nowhere), "{said}");
}

#[test]
fn what_cannot_be_simulated_is_named_and_nothing_is_printed() {
    let folder = trace();
    let bad = format!("{HEADER}a,1,toy,1,64\nb,soon,toy,1,64\n");
    fs::write(folder.path().join("bad.csv"), bad).unwrap();
    let said = refused(&simulate(folder.path(), "bad.csv", &[]), 1);
    assert!(said.contains("bad.csv:3: field `time`"), "{said}");
    let said = refused(&simulate(folder.path(), "none.csv", &[]), 1);
    assert!(said.starts_with("error: ") && said.contains("none.csv"), "{said}");
    let said = refused(&simulate(folder.path(), "workload.csv", &["--policy", "best"]), 1);
    assert!(said.contains("`best`") && said.contains("goodput, optimus"), "{said}");
    for (arguments, expected) in [
        (&["--nodes", "0"][..], "--nodes"),
        (&["--gpus", "65"], "--gpus"),
        (&["--load", "NaN"], "from 0.01 to 100"),
        (&["--rescale-seconds", "-1"], "from 0 to 86400"),
        (&["--gpus", "-1"], "1..=64"),
        (&["--policy", "fifo", "--compare", "drf"], "--compare"),
        (&["-o", "xml"], "json"),
    ] {
        let said = refused(&simulate(folder.path(), "workload.csv", arguments), 2);
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
    fs::remove_dir_all(folder.path().join("applications")).unwrap();
    let said = refused(&simulate(folder.path(), "workload.csv", &[]), 1);
    assert!(said.contains("applications"), "{said}");
}

const LINE: &str = r#"{"now":600,"nodes":[{"name":"n1","gpus":4},{"name":"n2","gpus":4}],"jobs":[{"name":"a","application":"toy","submitted":0,"initial_batch":32,"max_batch":512,"min_local_batch":16,"max_local_batch":128,"profile":[{"nodes":1,"replicas":1,"local_batch":32,"step_time":0.074,"sync_time":0}],"gradient":{"sqr":1,"var":30},"epoch":1,"epochs":6,"progress":1500,"restarts":0,"attained_service":500,"max_replicas":8,"allocation":["n1"]}]}"#;

/// Gives these bytes to `imp training plan`.
fn plan(arguments: &[&str], input: &[u8]) -> Output {
    let mut command = imp(&[&["plan"], arguments].concat());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It ends at the first line that it cannot use: the rest may find nobody who reads it.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

#[test]
fn each_line_of_a_plan_is_answered_by_a_line_until_the_input_ends() {
    let empty = r#"{"now":0,"nodes":[],"jobs":[]}"#;
    for policy in ["goodput", "optimus", "tiresias", "drf", "fifo"] {
        let input = format!("{LINE}\n\n{empty}\n{LINE}");
        let answers = printed(&plan(&["--policy", policy], input.as_bytes()));
        let answers: Vec<Value> =
            answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(answers.len(), 3, "{policy}: {answers:?}");
        assert_eq!(answers[0], answers[2], "{policy}");
        assert_eq!(answers[1], serde_json::json!({"allocations": {}, "batch": {}}));
        let nodes = answers[0]["allocations"]["a"].as_array().unwrap();
        assert!((1..=8).contains(&nodes.len()), "{policy}: {answers:?}");
        assert!(nodes.iter().all(|node| node == "n1" || node == "n2"), "{policy}: {answers:?}");
        let local = answers[0]["batch"]["a"]["local_batch"].as_u64().unwrap();
        assert!((16..=128).contains(&local), "{policy}: {answers:?}");
    }
    assert_eq!(printed(&plan(&[], b"")), "");
}

#[test]
fn a_plan_ends_at_the_first_line_that_it_cannot_use_and_names_line_and_field() {
    let wrong = |from: &str, to: &str| LINE.replacen(from, to, 1).into_bytes();
    for (line, expected) in [
        (wrong("0.074", "\"slow\""), "line 2: field `jobs[0].profile[0].step_time`"),
        (wrong("\"n2\",", "\"n1\","), "line 2: field `nodes[1].name`"),
        (wrong("{\"now\"", "now"), "line 2: not JSON"),
        (b"\xff\xfe".to_vec(), "standard input"),
    ] {
        let input = [LINE.as_bytes(), b"\n", &line, b"\n", LINE.as_bytes(), b"\n"].concat();
        let output = plan(&[], &input);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.starts_with("error: ") && said.contains(expected), "{said}");
        // What came before it has been answered.
        assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 1, "{said}");
    }
    let said = refused(&plan(&["--policy", "optimus+oracle"], LINE.as_bytes()), 1);
    assert!(said.contains("no policy `optimus+oracle`"), "{said}");
}
