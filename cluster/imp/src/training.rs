//! `imp training`: the auction over traces in virtual time, and as a filter for other programs.

use crate::output::{self, say};
use crate::structured::Structured;
use clap::{Args, Subcommand};
use impresario_auction::{POLICIES, Policy, named};
use impresario_simulation::{
    Application, Report, Settings, Submission, TraceError, oracle::Oracle, plan, plot, simulate,
    traces, truth,
};
use std::collections::BTreeMap;
use std::io::{self, BufRead as _};
use std::path::PathBuf;
use thiserror::Error;

/// The yardstick that reads the tables.
const ORACLE: &str = "optimus+oracle";
/// A line of `imp training plan` is no longer than this.
const MOST_LINE: u64 = 64 << 20;

/// `imp training`.
#[derive(Debug, Clone, Subcommand)]
pub enum Training {
    /// Run a workload of measured jobs under a policy in virtual time.
    Simulate(Simulate),
    /// Read the state of a cluster as a line of JSON, print a policy's allocation as a line.
    Plan {
        /// The policy: goodput, optimus, tiresias, drf or fifo.
        #[arg(long, value_name = "P", default_value = "goodput")]
        policy: String,
    },
}

/// `imp training simulate`.
#[derive(Debug, Clone, Args)]
pub struct Simulate {
    /// The folder of measured traces (applications/NAME/placements.csv and so on).
    #[arg(long, value_name = "DIR")]
    pub trace: PathBuf,
    /// The submissions: name, time, application, `num_replicas`, `batch_size`.
    #[arg(long, value_name = "FILE")]
    pub workload: PathBuf,
    /// The policy: goodput, optimus, optimus+oracle, tiresias, drf or fifo.
    #[arg(long, value_name = "P", default_value = "goodput")]
    pub policy: String,
    /// Policies to print a table of, beside each other.
    #[arg(long, value_name = "P1,P2", value_delimiter = ',', conflicts_with = "policy")]
    pub compare: Vec<String>,
    /// How many nodes.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096), allow_negative_numbers = true)]
    pub nodes: u32,
    /// GPUs of each node.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64), allow_negative_numbers = true)]
    pub gpus: u32,
    /// Submissions come so many times as fast.
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = parse_load, allow_negative_numbers = true)]
    pub load: f64,
    /// Seconds without progress when a job's GPUs change.
    #[arg(long, value_name = "S", default_value_t = 30.0, value_parser = parse_seconds, allow_negative_numbers = true)]
    pub rescale_seconds: f64,
    /// How to print.
    #[arg(short, long, value_enum)]
    pub output: Option<Structured>,
    /// Draw the GPUs held over time (of the first policy).
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
}

fn parse_load(text: &str) -> Result<f64, String> {
    let load: Option<f64> = text.parse().ok();
    load.filter(|load| (0.01..=100.0).contains(load)).ok_or("from 0.01 to 100".to_owned())
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds: Option<f64> = text.parse().ok();
    seconds.filter(|s| (0.0..=86_400.0).contains(s)).ok_or("from 0 to 86400".to_owned())
}

/// Why a simulation or a plan ended early.
#[derive(Debug, Error)]
pub enum TrainingError {
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
pub fn run(command: &Training) -> Result<(), TrainingError> {
    match command {
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
