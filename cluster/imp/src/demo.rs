//! `imp demo speech`: a cluster in a folder of its own, two training jobs on it, and nothing left
//! of either afterwards, whatever happens.

use crate::admin::{Admin, AdminError};
use crate::cli::{DataDir, Down, Up};
use crate::down::{DownFailed, down};
use crate::interrupt::asked_to_end;
use crate::layout::ClusterDir;
use crate::output::say;
use crate::structured::Structured;
use crate::up::{Started, UpError, up};
use impresario_runtime::clock;
use impresario_speech::demo::{self, DemoContext, DemoError, DemoSummary};
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use thiserror::Error;

/// Nodes of the demonstration's cluster; with three, all are control members.
const NODES: u16 = 3;
/// How long the client's connections have to close.
const GOODBYE: Duration = Duration::from_secs(1);

/// Why the demonstration did not come to its end.
#[derive(Debug, Error)]
pub enum DemoCommandError {
    /// The folder of recordings cannot be used.
    #[error("{path}: {source}: check that the folder exists and that you may read it")]
    Data {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The recordings cannot be used.
    #[error(transparent)]
    Recordings(#[from] impresario_speech::recording::RecordingError),
    /// This program cannot be found.
    #[error("cannot tell where this program is: {0}")]
    Program(io::Error),
    /// The cluster did not come up.
    #[error(transparent)]
    Up(#[from] UpError),
    /// There is no way into it.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The demonstration failed.
    #[error(transparent)]
    Demo(#[from] DemoError),
    /// The cluster was not removed.
    #[error(transparent)]
    Down(#[from] DownFailed),
    /// The summary cannot be printed.
    #[error("the summary cannot be written: {0}")]
    Print(#[from] serde_json::Error),
    /// Ctrl-C, or another signal that asks a program to end.
    #[error("interrupted; the cluster is removed")]
    Interrupted,
}

/// Runs the demonstration.
pub async fn speech(
    data: Option<PathBuf>,
    patience: u32,
    output: Option<Structured>,
) -> Result<(), DemoCommandError> {
    let since = clock::now();
    let data = data.map(|path| match path.canonicalize() {
        Ok(path) => Ok(path),
        Err(source) => Err(DemoCommandError::Data { path, source }),
    });
    let data = data.transpose()?;
    // Better now than in a pod's log.
    impresario_speech::guest::recordings(data.as_deref())?;
    let folder = std::env::temp_dir().join(format!("impresario-demo-{}", std::process::id()));
    let outcome = tokio::select! {
        outcome = show(&folder, data, output.is_none(), since, patience) => outcome,
        () = asked_to_end() => Err(DemoCommandError::Interrupted),
    };
    let dir = DataDir { data_dir: Some(folder) };
    let removed = down(&Down { dir, purge: true }).await;
    let summary = outcome?;
    removed?;
    match output {
        Some(Structured::Json) => say!("{}", serde_json::to_string_pretty(&summary)?),
        None => say!("{}", demo::story(&summary)),
    }
    Ok(())
}

async fn show(
    folder: &Path,
    data: Option<PathBuf>,
    human: bool,
    since: Instant,
    patience: u32,
) -> Result<DemoSummary, DemoCommandError> {
    let program = std::env::current_exe().map_err(DemoCommandError::Program)?;
    let dir = DataDir { data_dir: Some(folder.to_owned()) };
    let args = Up {
        nodes: Some(NODES),
        control: None,
        dir,
        driver: None,
        api_port: Some(0),
        listen: None,
        address: None,
        whole_machine: false,
        hollow: crate::cli::Hollow::default(),
        certificate_lifetime: None,
        detach: true,
        chaos: false,
    };
    let display = human && io::stderr().is_terminal();
    let running = up(&args, !display, &Started::default()).await?;
    let admin = Admin::connect(&ClusterDir::new(running.dir.path().to_owned())).await?;
    let context = DemoContext {
        client: admin.client.clone(),
        program,
        subcommand: "__guest".to_owned(),
        data,
        display,
        since,
        patience,
    };
    let outcome = demo::run(context).await;
    admin.client.close(GOODBYE).await;
    Ok(outcome?)
}
