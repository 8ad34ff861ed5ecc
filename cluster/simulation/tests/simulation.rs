//! Simulations over a small trace that the tests write themselves: an application whose true step
//! time and gradient noise are known formulas.

#![allow(clippy::unwrap_used, clippy::cast_precision_loss)]

use impresario_auction::{POLICIES, named};
use impresario_simulation::{Application, Settings, plan, plot, simulate, traces, truth};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

const EPOCHS: u32 = 6;

/// A step: 10 ms and 2 ms a sample, and 5 ms more for each node that synchronises.
fn step(nodes: usize, replicas: u32, batch: u32) -> (f64, f64) {
    let sync = if replicas == 1 { 0.0 } else { 0.005 * nodes as f64 };
    (0.01 + 0.002 * f64::from(batch) + sync, sync)
}

fn write_trace(folder: &Path) {
    let application = folder.join("applications/toy");
    fs::create_dir_all(&application).unwrap();
    let mut placements = String::from("placement,local_bsz,step_time,sync_time\n");
    for placement in ["1", "2", "3", "4", "11", "22", "44"] {
        let replicas: u32 = placement.chars().map(|digit| digit.to_digit(10).unwrap()).sum();
        for batch in [16, 32, 64, 128] {
            let (step, sync) = step(placement.len(), replicas, batch);
            writeln!(placements, "{placement},{batch},{step},{sync}").unwrap();
        }
    }
    fs::write(application.join("placements.csv"), placements).unwrap();
    let mut scalability = String::from("num_nodes,num_replicas,local_bsz,step_time,sync_time\n");
    for nodes in [3u32, 4] {
        for replicas in [nodes, nodes * 4] {
            for batch in [16, 32, 64, 128] {
                let (step, sync) = step(nodes as usize, replicas, batch);
                writeln!(scalability, "{nodes},{replicas},{batch},{step},{sync}").unwrap();
            }
        }
    }
    fs::write(application.join("scalability.csv"), scalability).unwrap();
    for batch in [32u32, 128, 512] {
        let mut rows = String::from("progress,iteration,metric,grad_sqr,grad_var\n");
        for epoch in 1..=EPOCHS {
            let progress = 1_000 * epoch;
            let iteration = progress * 32 / batch;
            writeln!(rows, "{progress},{iteration},0.5,1.0,{}", 5 * epoch).unwrap();
        }
        fs::write(application.join(format!("validation-{batch}.csv")), rows).unwrap();
    }
    let mut workload = String::from("name,time,application,num_replicas,batch_size\n");
    for job in 0..12 {
        writeln!(workload, "toy-{job},{},toy,{},128", job * 45, 1 + job % 3).unwrap();
    }
    fs::write(folder.join("workload.csv"), workload).unwrap();
}

fn small() -> Settings {
    Settings { nodes: 4, gpus: 4, ..Settings::default() }
}

fn trace() -> (tempfile::TempDir, BTreeMap<String, Application>) {
    let folder = tempfile::tempdir().unwrap();
    write_trace(folder.path());
    let applications = truth::read_applications(folder.path()).unwrap();
    (folder, applications)
}

#[test]
fn every_policy_finishes_every_job_and_the_report_adds_up() {
    let (folder, applications) = trace();
    let workload =
        traces::read_workload(&folder.path().join("workload.csv"), &applications).unwrap();
    for name in POLICIES {
        let report = simulate(&applications, &workload, named(name).unwrap().as_ref(), &small());
        assert_eq!(report.jobs.len(), 12, "{name}");
        for job in report.jobs.values() {
            assert!(job.completed > job.submitted, "{name}");
            assert!(job.completed < 86_400.0, "{name}: a job never ends");
        }
        assert!(report.utilisation > 0.0 && report.utilisation <= 1.0, "{name}");
        assert!(report.percentile(0.5) <= report.percentile(0.99), "{name}");
        assert_eq!(report.json()["jobs"].as_object().unwrap().len(), 12);
        let drawn = plot::svg(&report, 16);
        assert!(drawn.contains("toy") && drawn.ends_with("</svg>\n"), "{name}");
    }
}

#[test]
fn a_job_alone_takes_what_the_tables_say_after_one_round_and_one_pause() {
    let (folder, applications) = trace();
    let path = folder.path().join("one.csv");
    fs::write(&path, "name,time,application,num_replicas,batch_size\na,10,toy,1,32\n").unwrap();
    let workload = traces::read_workload(&path, &applications).unwrap();
    let policy = named("fifo").unwrap();
    let report = simulate(&applications, &workload, policy.as_ref(), &small());
    // 6,000 steps of 32 samples on one GPU at 74 ms; the round ends at 60 s, the pause at 90 s.
    let expected = 90.0 + 6_000.0 * step(1, 1, 32).0;
    let completed = report.jobs["a"].completed;
    assert!((completed - expected).abs() <= f64::from(EPOCHS), "{completed} beside {expected}");
    assert_eq!(report.rescales(), 0);
    let halved = Settings { rescale_seconds: 15.0, ..small() };
    let sooner = simulate(&applications, &workload, policy.as_ref(), &halved);
    assert!((completed - sooner.jobs["a"].completed - 15.0).abs() <= f64::from(EPOCHS));
}

#[test]
fn choosing_sizes_beats_the_sizes_that_users_asked_for() {
    let (folder, applications) = trace();
    let workload =
        traces::read_workload(&folder.path().join("workload.csv"), &applications).unwrap();
    let mean = |name: &str| {
        simulate(&applications, &workload, named(name).unwrap().as_ref(), &small())
            .average_completion()
    };
    let (goodput, tiresias, fifo) = (mean("goodput"), mean("tiresias"), mean("fifo"));
    assert!(goodput < tiresias && goodput < fifo, "{goodput}, {tiresias}, {fifo}");
}

#[test]
fn sizes_that_were_not_measured_lie_between_those_that_were() {
    let (_folder, applications) = trace();
    let toy = &applications["toy"];
    let measured = toy.step_time(&[4, 4], 48).0;
    assert!((measured - step(2, 8, 48).0).abs() < 1e-9, "{measured}");
    let rotated = toy.step_time(&[2, 1], 32);
    assert_eq!(rotated, toy.step_time(&[1, 2], 32));
    let between = toy.step_time(&[4, 4, 2], 48).0;
    assert!((between - step(3, 10, 48).0).abs() < 1e-6, "{between}");
}

#[test]
fn a_malformed_trace_is_named_by_file_line_and_field() {
    let (folder, applications) = trace();
    let path = folder.path().join("bad.csv");
    for (rows, expected) in [
        ("name,time,application,num_replicas\n", "no column `batch_size`"),
        ("name,time,application,num_replicas,batch_size\na,x,toy,1,32\n", ":2: field `time`"),
        ("name,time,application,num_replicas,batch_size\na,NaN,toy,1,32\n", ":2: field `time`"),
        ("name,time,application,num_replicas,batch_size\na,1,toy,0,32\n", "field `num_replicas`"),
        ("name,time,application,num_replicas,batch_size\na,1,toy,1\n", "field `batch_size`"),
        ("name,time,application,num_replicas,batch_size\na,1,toy,1,9999\n", "field `batch_size`"),
        (
            "name,time,application,num_replicas,batch_size\n\na,1,no,1,32\n",
            ":3: field `application`",
        ),
        (
            "name,time,application,num_replicas,batch_size\na,1,toy,1,32\na,2,toy,1,32\n",
            ":3: field `name`",
        ),
        ("name,time,application,num_replicas,batch_size\n", "no submissions"),
    ] {
        fs::write(&path, rows).unwrap();
        let said = traces::read_workload(&path, &applications).unwrap_err().to_string();
        assert!(said.contains("bad.csv") && said.contains(expected), "{said}");
    }
    let placements = folder.path().join("applications/toy/placements.csv");
    let good = fs::read_to_string(&placements).unwrap();
    fs::write(&placements, format!("{good}4,16,-1,0\n")).unwrap();
    let said = truth::read_applications(folder.path()).unwrap_err().to_string();
    assert!(said.contains("placements.csv:30: field `step_time`"), "{said}");
}

const LINE: &str = r#"{"now":600,"nodes":[{"name":"n1","gpus":4},{"name":"n2","gpus":4}],"jobs":[
{"name":"a","application":"toy","submitted":0,"initial_batch":32,"max_batch":512,"min_local_batch":16,
"max_local_batch":128,"profile":[{"nodes":1,"replicas":1,"local_batch":32,"step_time":0.074,"sync_time":0}],
"gradient":{"sqr":1,"var":30},"epoch":1,"epochs":6,"progress":1500,"restarts":0,"attained_service":500,
"max_replicas":8,"allocation":["n1"]}]}"#;

#[test]
fn a_plan_answers_a_line_with_an_allocation_and_a_batch_within_limits() {
    for name in POLICIES {
        let answer = plan::answer(named(name).unwrap().as_ref(), 1, LINE).unwrap();
        assert!(!answer.contains('\n'));
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        let nodes = answer["allocations"]["a"].as_array().unwrap();
        assert!((1..=8).contains(&nodes.len()), "{name}: {answer}");
        assert!(nodes.iter().all(|node| *node == "n1" || *node == "n2"), "{answer}");
        let batch = &answer["batch"]["a"];
        let local = batch["local_batch"].as_u64().unwrap();
        let steps = batch["accumulation"].as_u64().unwrap() + 1;
        assert!((16..=128).contains(&local), "{answer}");
        assert!(local * steps * nodes.len() as u64 <= 512, "{answer}");
    }
}

#[test]
fn a_malformed_plan_line_is_named_by_line_and_field() {
    let policy = named("goodput").unwrap();
    for (from, to, expected) in [
        ("\"now\":600", "\"now\":\"x\"", "line 7: field `now`: a number is expected"),
        ("\"gpus\":4}]", "\"gpus\":-1}]", "line 7: field `nodes[1].gpus`"),
        ("\"n2\",", "\"n1\",", "line 7: field `nodes[1].name`"),
        ("0.074", "null", "line 7: field `jobs[0].profile[0].step_time`"),
        ("\"var\":30", "\"v\":30", "line 7: field `jobs[0].gradient.var`"),
        ("\"max_batch\":512", "\"max_batch\":5", "line 7: field `jobs[0].max_batch`"),
        ("[\"n1\"]", "[3]", "line 7: field `jobs[0].allocation[0]`"),
        ("{\"now\"", "\"now\"", "line 7: not JSON"),
    ] {
        let text = LINE.replacen(from, to, 1);
        assert_ne!(text, LINE, "{from}");
        let said = plan::answer(policy.as_ref(), 7, &text).unwrap_err().to_string();
        assert!(said.starts_with(expected), "{said}");
    }
}

/// The blocks of JSON in the guide: a line, and its answer.
#[test]
fn the_example_of_the_guide_is_answered_as_the_guide_says() {
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/guides/training.md");
    let guide = fs::read_to_string(guide).unwrap();
    let blocks: Vec<&str> =
        guide.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    let answer = plan::answer(named("goodput").unwrap().as_ref(), 1, blocks[0]).unwrap();
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let expected: serde_json::Value = serde_json::from_str(blocks[1]).unwrap();
    assert_eq!(answer, expected);
}
