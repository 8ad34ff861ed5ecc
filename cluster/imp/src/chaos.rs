//! `imp chaos run`: the harness on a cluster of real processes, made for the run.

use crate::admin::{Admin, AdminError};
use crate::cli::{DataDir, Driver, Structured, Up};
use crate::down::{self, DownError};
use crate::layout::{ClusterDir, NodeDir};
use crate::up::{self, UpError};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use impresario_chaos::{Cluster, HarnessError, Plan, Promise, Report, Session};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// Nodes of the cluster; all are control members.
const NODES: u16 = 3;
/// The environment variable with which the harness's own test breaks a promise on purpose.
const SABOTAGE: &str = "IMPRESARIO_CHAOS_SABOTAGE";

/// Why there is no verdict.
#[derive(Debug, Error)]
pub enum ChaosError {
    /// The cluster did not start.
    #[error(transparent)]
    Up(#[from] UpError),
    /// There is no way in.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The harness could not work.
    #[error(transparent)]
    Harness(#[from] HarnessError),
    /// The cluster did not stop.
    #[error(transparent)]
    Down(#[from] DownError),
    /// The folder could not be made.
    #[error("cannot make a folder for the cluster: {0}")]
    Folder(std::io::Error),
    /// A promise that is to be broken does not exist.
    #[error("{SABOTAGE} names no promise: use one of {0}")]
    Sabotage(String),
}

/// Runs the harness; the report says whether every promise was kept.
pub async fn run(
    seed: u64,
    duration: Duration,
    output: Option<Structured>,
    keep: bool,
) -> Result<bool, ChaosError> {
    let sabotage = sabotage()?;
    let folder = std::env::temp_dir().join(format!("imp-chaos-{seed}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(ChaosError::Folder)?;
    let dir = DataDir { data_dir: Some(folder.clone()) };
    let args = Up {
        nodes: NODES,
        control: Some(NODES.to_string()),
        dir: dir.clone(),
        driver: Driver::Process,
        api_port: 0,
        address: std::net::Ipv4Addr::LOCALHOST.into(),
        detach: true,
        chaos: true,
    };
    let quiet = output.is_some();
    let outcome = drive(&args, seed, duration, sabotage, quiet).await;
    let passed = matches!(&outcome, Ok(report) if report.passed);
    down::down(&crate::cli::Down { dir, purge: passed && !keep }).await?;
    let report = outcome?;
    print(&report, output, &folder);
    Ok(passed)
}

fn sabotage() -> Result<Option<Promise>, ChaosError> {
    let Ok(name) = std::env::var(SABOTAGE) else { return Ok(None) };
    let promise = Promise::ALL.into_iter().find(|promise| promise.name() == name);
    match promise {
        Some(promise) => Ok(Some(promise)),
        None => Err(ChaosError::Sabotage(Promise::ALL.map(Promise::name).join(", "))),
    }
}

async fn drive(
    args: &Up,
    seed: u64,
    duration: Duration,
    sabotage: Option<Promise>,
    quiet: bool,
) -> Result<Report, ChaosError> {
    let running = up::up(args, true).await?;
    let admin = Admin::connect(&running.dir).await?;
    let cluster = Arc::new(Processes { dir: running.dir, nodes: running.nodes, admin });
    let plan = Plan { seed, duration, sabotage };
    let report = impresario_chaos::run(cluster, &plan, |fault| {
        if !quiet {
            println!(
                "{:6.1} s  {:?} {} for {:.1} s",
                fault.at_s, fault.kind, fault.target, fault.length_s
            );
        }
    })
    .await?;
    Ok(report)
}

fn print(report: &Report, output: Option<Structured>, folder: &std::path::Path) {
    if output == Some(Structured::Json) {
        match serde_json::to_string_pretty(report) {
            Ok(text) => println!("{text}"),
            Err(error) => eprintln!("the report cannot be printed: {error}"),
        }
        return;
    }
    for check in &report.checks {
        let word = if check.passed { "kept  " } else { "BROKEN" };
        println!("{word} {:<18} {}", check.name, check.detail);
    }
    if report.passed {
        println!("seed {}: all promises kept, {} faults", report.seed, report.faults.len());
        return;
    }
    println!("seed {}: run it again with --seed {}", report.seed, report.seed);
    println!("logs and data: {}", folder.display());
    let history = folder.join("history.json");
    match serde_json::to_vec(&report.history).map(|bytes| std::fs::write(&history, bytes)) {
        Ok(Ok(())) => println!("history: {}", history.display()),
        Ok(Err(error)) => println!("history could not be written: {error}"),
        Err(error) => println!("history could not be written: {error}"),
    }
}

/// The processes of a cluster folder.
struct Processes {
    dir: ClusterDir,
    nodes: Vec<String>,
    admin: Admin,
}

impl Processes {
    fn signal(&self, node: &str, signal: Signal) -> Result<(), HarnessError> {
        let dir: NodeDir = self.dir.node(node);
        let Some(pid) = dir.pid().filter(|_| dir.is_running()) else { return Ok(()) };
        kill(Pid::from_raw(pid), signal).map_err(|error| HarnessError::Cluster {
            what: format!("{signal} to {node}"),
            reason: error.to_string(),
        })
    }
}

impl Cluster for Processes {
    fn nodes(&self) -> Vec<String> {
        self.nodes.clone()
    }

    fn session(&self) -> Session {
        Session {
            node: self.admin.client.node().clone(),
            registry: self.admin.client.objects().registry().clone(),
        }
    }

    fn kill(&self, node: &str) -> Result<(), HarnessError> {
        self.signal(node, Signal::SIGKILL)
    }

    fn start(&self, node: &str) -> Result<(), HarnessError> {
        let dir = self.dir.node(node);
        if dir.is_running() {
            return Ok(());
        }
        up::start(&dir).map_err(|error| HarnessError::Cluster {
            what: format!("starting {node}"),
            reason: error.to_string(),
        })
    }

    fn pause(&self, node: &str) -> Result<(), HarnessError> {
        self.signal(node, Signal::SIGSTOP)
    }

    fn resume(&self, node: &str) -> Result<(), HarnessError> {
        self.signal(node, Signal::SIGCONT)
    }

    fn leader(&self) -> BoxFuture<'_, Option<String>> {
        self.admin.leader().boxed()
    }

    fn logs(&self) -> Vec<PathBuf> {
        self.nodes.iter().map(|node| self.dir.node(node).log()).collect()
    }
}
