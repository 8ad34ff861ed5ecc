//! Average completion times of policies on workloads of a trace, one line each.
//! `cargo run --release -p impresario-simulation --example validate -- DIR [POLICY…]`

use impresario_auction::{POLICIES, Policy, named};
use impresario_simulation::{Settings, oracle::Oracle, simulate, traces, truth};
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("usage: validate DIR [POLICY…]")?);
    let mut policies: Vec<String> = arguments.collect();
    if policies.is_empty() {
        policies = POLICIES.iter().map(ToString::to_string).collect();
        policies.push("optimus+oracle".into());
    }
    let load = std::env::var("LOAD").ok().and_then(|load| load.parse().ok()).unwrap_or(1.0);
    let applications = truth::read_applications(&folder)?;
    for name in policies {
        let mut mean = 0.0;
        print!("{name:15}");
        for number in 1..=4 {
            let path = folder.join(format!("workloads/workload-{number}.csv"));
            let workload = traces::read_workload(&path, &applications)?;
            let settings = Settings { load, ..Settings::default() };
            let policy: Box<dyn Policy> = match name.as_str() {
                "optimus+oracle" => Box::new(Oracle { applications: &applications, gpus: 4 }),
                other => named(other).ok_or("no such policy")?,
            };
            let report = simulate(&applications, &workload, policy.as_ref(), &settings);
            mean += report.average_completion() / 4.0;
            print!(
                " {:6.0} (p99 {:6.0}, end {:6.0}, {:4} moves, {:.2}, {:4.1} ms)",
                report.average_completion(),
                report.percentile(0.99),
                report.makespan(),
                report.rescales(),
                report.utilisation,
                report.decision_ms_p99
            );
        }
        println!("  mean {mean:6.0}");
    }
    Ok(())
}
