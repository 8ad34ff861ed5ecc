//! The words of `imp training`.

use super::target::{Target, parse_name};
use crate::structured::Structured;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `imp training`.
#[derive(Debug, Clone, Subcommand)]
pub enum Training {
    /// Write the model that a job has trained as one file (safetensors).
    Export(Export),
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

/// `imp training export`.
#[derive(Debug, Clone, Args)]
pub struct Export {
    /// The target.
    #[command(flatten)]
    pub target: Target,
    /// The job.
    #[arg(value_parser = parse_name)]
    pub job: String,
    /// The file that is written.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// The values after the last step instead of their running mean, which is what the job's accuracy is of.
    #[arg(long)]
    pub latest: bool,
    /// Where the checkpoint is on this machine, if not under the path that the job gives.
    #[arg(long, value_name = "DIR")]
    pub from: Option<PathBuf>,
}
