//! `imp chaos run`: the harness on a cluster of real processes, made for the run.

use crate::admin::{Admin, AdminError};
use crate::cli::{DataDir, Up};
use crate::down::{self, DownFailed};
use crate::interrupt::asked_to_end;
use crate::layout::{ClusterDir, NodeDir};
use crate::node::gate::{ClusterGate, HARNESS};
use crate::output::say;
use crate::structured::Structured;
use crate::up::{self, UpError};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use impresario_chaos::{Cluster, HarnessError, Plan, Report, Session};
use impresario_registry::RemoteRegistry;
use impresario_runtime::pki::PkiError;
use impresario_runtime::{ActorNode, ClusterAuthority, NodeConfig, NodeName, PeerRole, StartError};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::time::Instant;

/// Nodes of the cluster; all are control members.
const NODES: u16 = 3;
/// How long the harness may be a control member; longer than any run.
const CREDENTIAL_LIFETIME: Duration = Duration::from_hours(24);
/// How long a process has to go, or to come.
const PROCESS_LIMIT: Duration = Duration::from_secs(60);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(10);
/// How long a member has to say who leads; the schedule waits for it.
const LEADER_LIMIT: Duration = Duration::from_millis(500);

/// Why there is no verdict.
#[derive(Debug, Error)]
pub enum ChaosError {
    /// The cluster did not start.
    #[error(transparent)]
    Up(#[from] UpError),
    /// There is no way in.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The harness could not be made a control member.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// Its actor node does not start.
    #[error(transparent)]
    Node(#[from] StartError),
    /// The harness could not work.
    #[error(transparent)]
    Harness(#[from] HarnessError),
    /// The cluster did not stop.
    #[error(transparent)]
    Down(#[from] DownFailed),
    /// The folder could not be made.
    #[error("cannot make a folder for the cluster: {0}")]
    Folder(std::io::Error),
    /// A fault that is to be built in does not exist.
    #[cfg(feature = "mutants")]
    #[error(transparent)]
    Mutant(#[from] impresario_runtime::mutants::Unknown),
    /// The user has had enough.
    #[error("interrupted: there is no verdict")]
    Interrupted,
    /// There is no verdict, and something to look at.
    #[error("{source}; seed {seed}, logs and data: {folder}")]
    Kept {
        /// What happened.
        source: Box<ChaosError>,
        /// The seed.
        seed: u64,
        /// Where it happened.
        folder: PathBuf,
    },
}

/// Runs the harness; the report says whether every promise was kept.
pub async fn run(plan: Plan, output: Option<Structured>, keep: bool) -> Result<bool, ChaosError> {
    let mutant = mutant()?;
    let seed = plan.seed;
    let folder = std::env::temp_dir().join(format!("imp-chaos-{seed}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(ChaosError::Folder)?;
    let dir = DataDir { data_dir: Some(folder.clone()) };
    let args = Up {
        nodes: Some(NODES),
        control: Some(NODES.to_string()),
        dir: dir.clone(),
        driver: None,
        api_port: Some(0),
        listen: None,
        address: None,
        whole_machine: false,
        hollow: crate::cli::Hollow::default(),
        certificate_lifetime: None,
        detach: true,
        chaos: true,
    };
    let scratch = make_scratch(&folder)?;
    let outcome = tokio::select! {
        outcome = drive(&args, &plan, &scratch, output.is_some()) => outcome,
        () = asked_to_end() => Err(ChaosError::Interrupted),
    };
    resume_all(&folder);
    let passed = matches!(&outcome, Ok(report) if report.passed);
    let purge = (passed || matches!(outcome, Err(ChaosError::Interrupted))) && !keep;
    let ended = down::down(&crate::cli::Down { dir, purge }).await;
    if purge && let Err(error) = std::fs::remove_dir_all(&scratch) {
        tracing::warn!(%error, folder = %scratch.display(), "the containers' files stay");
    }
    let report = match outcome {
        Ok(report) => report,
        Err(ChaosError::Interrupted) => return Err(ChaosError::Interrupted),
        Err(error) => {
            return Err(ChaosError::Kept { source: Box::new(error), seed, folder });
        }
    };
    ended?;
    print(&report, output, &folder, mutant);
    Ok(passed)
}

/// A folder in which containers may write, whoever they run as.
fn make_scratch(folder: &Path) -> Result<PathBuf, ChaosError> {
    let mut name = folder.as_os_str().to_owned();
    name.push("-effects");
    let scratch = PathBuf::from(name);
    std::fs::create_dir_all(&scratch).map_err(ChaosError::Folder)?;
    // As /tmp is: whoever writes there owns what it wrote.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
    std::fs::set_permissions(&scratch, open).map_err(ChaosError::Folder)?;
    for app in impresario_chaos::workload::APPS {
        let file = impresario_chaos::effects::file(&scratch, app);
        std::fs::write(&file, "").map_err(ChaosError::Folder)?;
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        std::fs::set_permissions(&file, open).map_err(ChaosError::Folder)?;
    }
    Ok(scratch)
}

/// A process that is stopped cannot be asked to end.
fn resume_all(folder: &Path) {
    for node in ClusterDir::new(folder.to_owned()).nodes().into_iter().flatten() {
        if let Some(pid) = node.pid().filter(|_| node.is_running()) {
            // It may have ended since; `down` says if it cannot be ended.
            let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
        }
    }
}

/// The fault that is built into this process and its nodes, if any: for the report.
#[cfg(feature = "mutants")]
fn mutant() -> Result<Option<&'static str>, ChaosError> {
    Ok(impresario_runtime::mutants::chosen()?.map(impresario_runtime::mutants::Mutant::name))
}

#[cfg(not(feature = "mutants"))]
#[expect(clippy::unnecessary_wraps, reason = "the other build can fail")]
fn mutant() -> Result<Option<&'static str>, ChaosError> {
    Ok(None)
}

async fn drive(args: &Up, plan: &Plan, scratch: &Path, quiet: bool) -> Result<Report, ChaosError> {
    let running = up::up(args, true, &up::Started::default()).await?;
    let admin = Admin::connect(&running.dir).await?;
    let member = as_member(&running.dir, &admin).await?;
    let cluster = Arc::new(Processes {
        scratch: scratch.to_owned(),
        dir: running.dir,
        nodes: running.nodes,
        admin,
        member,
    });
    let report = impresario_chaos::run(cluster, plan, |fault| {
        if !quiet {
            let leader = if fault.as_leader { " (leader)" } else { "" };
            say!(
                "{:6.1} s  {:?} {}{leader} for {:.1} s",
                fault.at_s,
                fault.kind,
                fault.target,
                fault.length_s
            );
        }
    })
    .await?;
    Ok(report)
}

fn print(report: &Report, output: Option<Structured>, folder: &Path, mutant: Option<&'static str>) {
    let history = folder.join("history.json");
    let written = (!report.passed).then(|| {
        serde_json::to_vec(&report.history)
            .map_err(std::io::Error::other)
            .and_then(|bytes| std::fs::write(&history, bytes))
    });
    if let Some(Err(error)) = &written {
        eprintln!("the history could not be written to {}: {error}", history.display());
    }
    if output == Some(Structured::Json) {
        match serde_json::to_value(report) {
            Ok(mut value) => {
                if let Some(mutant) = mutant {
                    value["mutant"] = mutant.into();
                }
                if let Some(Ok(())) = written {
                    value["history"] = history.display().to_string().into();
                    value["folder"] = folder.display().to_string().into();
                }
                say!("{value:#}");
            }
            Err(error) => eprintln!("the report cannot be printed: {error}"),
        }
        return;
    }
    for check in &report.checks {
        let word = if check.passed { "kept  " } else { "BROKEN" };
        say!("{word} {:<18} {}", check.name, check.detail);
    }
    for fault in &report.untaken {
        say!("NOTE   {} did not take its fault ({:?}) in time", fault.target, fault.kind);
    }
    if report.passed {
        say!(
            "seed {}: all promises kept, {} faults, {} operations ({} of unknown outcome), {} pods, \
             healed after {:.1} s",
            report.seed,
            report.faults.len(),
            report.figures.operations,
            report.figures.unknown,
            report.figures.pods,
            report.figures.healed_s,
        );
        return;
    }
    say!("seed {}: run it again with --seed {}", report.seed, report.seed);
    say!("history: {}", history.display());
    say!("data: {}", folder.display());
    for log in &report.logs {
        say!("log: {}", log.display());
    }
}

/// The processes of a cluster folder.
struct Processes {
    /// Not in the cluster's folder, which is none of the containers' business.
    scratch: PathBuf,
    dir: ClusterDir,
    nodes: Vec<String>,
    admin: Admin,
    /// What reads the registry itself, as only control members may: the harness judges what it keeps.
    member: ActorNode,
}

/// An actor node with a control member's certificate, made with the authority of the run's own cluster.
async fn as_member(dir: &ClusterDir, admin: &Admin) -> Result<ActorNode, ChaosError> {
    let authority = ClusterAuthority::load(&dir.pki())?;
    let credential = authority.issue(HARNESS, PeerRole::Control, &[], CREDENTIAL_LIFETIME)?;
    let config = NodeConfig {
        bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        gate: Arc::new(ClusterGate::default()),
        ..NodeConfig::new(credential)
    };
    let node = ActorNode::start(config).await?;
    for one in &admin.nodes {
        node.addresses().set(NodeName::from(one.name.as_str()), one.advertise);
    }
    Ok(node)
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

    /// Waits until the node's process runs, or until it is gone.
    async fn settled(&self, node: &str, runs: bool) -> Result<(), HarnessError> {
        let dir = self.dir.node(node);
        let deadline = Instant::now() + PROCESS_LIMIT;
        // Whoever is to be signalled has to be known: the lock is taken a moment before the pid is written.
        while dir.is_running() != runs || (runs && dir.pid().is_none()) {
            if Instant::now() > deadline {
                return Err(HarnessError::Cluster {
                    what: if runs { "starting" } else { "killing" }.to_owned() + " " + node,
                    reason: format!(
                        "not done after {PROCESS_LIMIT:?}; its log is {}",
                        dir.log().display()
                    ),
                });
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}

impl Cluster for Processes {
    fn nodes(&self) -> Vec<String> {
        self.nodes.clone()
    }

    fn session(&self) -> Session {
        Session {
            node: self.member.clone(),
            registry: Arc::new(RemoteRegistry::fixed(
                self.member.clone(),
                self.nodes.iter().map(|name| NodeName::from(name.as_str())).collect(),
            )),
            members: self.nodes.clone(),
        }
    }

    fn kill<'a>(&'a self, node: &'a str) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let pid = self.dir.node(node).pid();
            self.signal(node, Signal::SIGKILL)?;
            self.settled(node, false).await?;
            if let Some(pid) = pid {
                // Our child: without this it stays a zombie until we end. One that another node's process had
                // started is not, and the call fails.
                let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
            }
            Ok(())
        }
        .boxed()
    }

    fn start<'a>(&'a self, node: &'a str) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let dir = self.dir.node(node);
            if dir.is_running() {
                return Ok(());
            }
            let failed =
                |reason: String| HarnessError::Cluster { what: format!("starting {node}"), reason };
            dir.forget_process().map_err(|error| failed(error.to_string()))?;
            up::start(&dir).map_err(|error| failed(error.to_string()))?;
            self.settled(node, true).await
        }
        .boxed()
    }

    fn pause(&self, node: &str) -> Result<(), HarnessError> {
        self.signal(node, Signal::SIGSTOP)
    }

    fn resume(&self, node: &str) -> Result<(), HarnessError> {
        self.signal(node, Signal::SIGCONT)
    }

    fn leader(&self) -> BoxFuture<'_, Option<String>> {
        self.admin.leader_within(LEADER_LIMIT).boxed()
    }

    fn scratch(&self) -> PathBuf {
        self.scratch.clone()
    }

    fn logs(&self) -> Vec<PathBuf> {
        self.nodes.iter().map(|node| self.dir.node(node).log()).collect()
    }
}
