//! `imp training`: models that were trained, and the auction over traces in virtual time and as a filter for other
//! programs.

mod export;

use crate::cli::training::{Simulate, Training};
use crate::output::{self, say};
use export::ExportFailure;
use impresario_auction::{POLICIES, Policy, named};
use impresario_simulation::{
    Application, Report, Settings, Submission, TraceError, oracle::Oracle, plan, plot, simulate,
    traces, truth,
};
use std::collections::BTreeMap;
use std::io::{self, BufRead as _};
use thiserror::Error;

/// The yardstick that reads the tables.
const ORACLE: &str = "optimus+oracle";
/// A line of `imp training plan` is no longer than this.
const MOST_LINE: u64 = 64 << 20;

/// Why a simulation or a plan ended early.
#[derive(Debug, Error)]
pub enum TrainingError {
    /// There is no model, or it cannot be written.
    #[error(transparent)]
    Export(#[from] ExportFailure),
    /// A trace or workload is malformed.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// A line of a plan is malformed.
    #[error(transparent)]
    Plan(#[from] plan::PlanError),
    /// Nobody knows this policy.
    #[error("no policy `{0}`: there are {1}")]
    Policy(String, String),
    /// A file or stream failed.
    #[error("{what}: {source}")]
    Io {
        /// Which.
        what: String,
        /// Why.
        source: io::Error,
    },
}

/// Runs the command.
pub async fn run(command: &Training) -> Result<(), TrainingError> {
    match command {
        Training::Export(args) => Ok(export::export(args).await?),
        Training::Simulate(args) => run_simulation(args),
        Training::Plan { policy } => run_plan(policy),
    }
}

fn unknown(name: &str, with_oracle: bool) -> TrainingError {
    let mut there: Vec<&str> = POLICIES.to_vec();
    there.extend(with_oracle.then_some(ORACLE));
    TrainingError::Policy(name.to_owned(), there.join(", "))
}

fn run_plan(name: &str) -> Result<(), TrainingError> {
    let policy = named(name).ok_or_else(|| unknown(name, false))?;
    let failed = |what: &str| {
        let what = what.to_owned();
        move |source| TrainingError::Io { what, source }
    };
    let mut input = io::stdin().lock();
    let mut text = String::new();
    for number in 1.. {
        text.clear();
        let mut limited = io::Read::take(&mut input, MOST_LINE);
        let read = limited.read_line(&mut text).map_err(failed("standard input"))?;
        if read == 0 {
            break;
        }
        if read as u64 == MOST_LINE {
            let source = io::Error::other("longer than 64 MiB");
            return Err(TrainingError::Io { what: format!("line {number}"), source });
        }
        if !text.trim().is_empty() {
            let answer = plan::answer(policy.as_ref(), number, &text)?;
            output::text(&format!("{answer}\n")).map_err(failed("standard output"))?;
        }
    }
    Ok(())
}

fn simulated(
    name: &str,
    args: &Simulate,
    applications: &BTreeMap<String, Application>,
    workload: &[Submission],
) -> Result<Report, TrainingError> {
    let policy: Box<dyn Policy + '_> = if name == ORACLE {
        Box::new(Oracle { applications, gpus: args.gpus })
    } else {
        named(name).ok_or_else(|| unknown(name, true))?
    };
    let settings = Settings {
        nodes: args.nodes,
        gpus: args.gpus,
        load: args.load,
        rescale_seconds: args.rescale_seconds,
        ..Settings::default()
    };
    Ok(simulate(applications, workload, policy.as_ref(), &settings))
}

fn run_simulation(args: &Simulate) -> Result<(), TrainingError> {
    let applications = truth::read_applications(&args.trace)?;
    let workload = traces::read_workload(&args.workload, &applications)?;
    let one = [args.policy.clone()];
    let names = if args.compare.is_empty() { &one[..] } else { &args.compare };
    let mut reports = Vec::new();
    for name in names {
        reports.push(simulated(name, args, &applications, &workload)?);
    }
    if let (Some(path), Some(report)) = (&args.plot, reports.first()) {
        let drawn = plot::svg(report, args.nodes * args.gpus);
        std::fs::write(path, drawn)
            .map_err(|source| TrainingError::Io { what: path.display().to_string(), source })?;
    }
    if args.output.is_some() {
        let all: Vec<_> = reports.iter().map(Report::json).collect();
        match &all[..] {
            [only] if args.compare.is_empty() => say!("{only}"),
            all => say!("{}", serde_json::Value::from(all.to_vec())),
        }
        return Ok(());
    }
    say!(
        "{:<16} {:>9} {:>9} {:>9} {:>9} {:>9} {:>5}",
        "POLICY",
        "MEAN",
        "P50",
        "P99",
        "LAST",
        "RESCALES",
        "USED"
    );
    for report in &reports {
        say!(
            "{:<16} {:>8.0}s {:>8.0}s {:>8.0}s {:>8.0}s {:>9} {:>4.0}%",
            report.policy,
            report.average_completion(),
            report.percentile(0.5),
            report.percentile(0.99),
            report.makespan(),
            report.rescales(),
            report.utilisation * 100.0
        );
    }
    Ok(())
}
