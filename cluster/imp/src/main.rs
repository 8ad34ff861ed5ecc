//! `imp`: a node of the cluster, and the command line of its users.
//!
//! Exit codes: 0 done; 1 refused or failed, with the reason on standard error; 2 wrong usage; 3 a
//! promise was broken (`imp chaos run`).

mod actors;
mod admin;
mod chaos;
mod cli;
mod demo;
mod down;
mod explain;
mod hollow;
mod interrupt;
mod kubeconfig;
mod layout;
mod member;
mod node;
mod node_log;
mod objects;
mod output;
mod purge;
mod rest;
mod status;
mod structured;
mod token;
mod training;
mod up;

use clap::{CommandFactory as _, Parser as _};
use cli::{Cli, Command};
use impresario_chaos::Plan;
use layout::NodeDir;
use node_log::NodeLog;
use output::say;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tracing_subscriber::EnvFilter;

/// A third of the time of a control member under load went to glibc's heap: many threads that free what others
/// took. `docs/decisions/0009-allocator.md` has the figures.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The exit code of a broken promise.
const BROKEN: u8 = 3;
/// Threads for everything that is no actor. Two keep an idle node small.
const THREADS: usize = 2;

fn main() -> ExitCode {
    // Another program in the same file: no runtime, no threads, and no look at the command line of users, which would
    // take a tenth of the time that it has to load.
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == node::drivers::SHIM) {
        return impresario_host::shim::main(words);
    }
    let cli = Cli::parse();
    if let Command::Completions { shell } = cli.command {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "imp", &mut script);
        let written = output::part(&mut std::io::stdout(), &script);
        return if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    log_to_stderr(match &cli.command {
        Command::Node(node) => Some(&node.data_dir),
        Command::HollowGroup(group) => Some(&group.data_dir),
        _ => None,
    });
    let system = actix::System::with_tokio_rt(|| {
        let built = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .enable_all()
            .build();
        match built {
            Ok(runtime) => runtime,
            Err(error) => {
                eprintln!("error: cannot start threads: {error}");
                std::process::exit(1);
            }
        }
    });
    match system.block_on(run(cli.command)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Logs to standard error; of a process that runs nodes in this folder more, and there within bounds.
fn log_to_stderr(folder: Option<&PathBuf>) {
    let usual = if folder.is_some() { "info" } else { "warn" };
    let filter =
        EnvFilter::try_from_env("IMPRESARIO_LOG").unwrap_or_else(|_| EnvFilter::new(usual));
    let log = folder.and_then(|folder| NodeLog::of(NodeDir::new(folder.clone()).log()));
    let format = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    match log {
        Some(log) => format.with_writer(Arc::new(log)).init(),
        None => format.with_writer(std::io::stderr).init(),
    }
}

async fn run(command: Command) -> Result<ExitCode, Box<dyn Error>> {
    match command {
        Command::Up(args) => bring_up(&args).await?,
        Command::Down(args) => down::down(&args).await?,
        Command::Status(args) => status::status(&args).await?,
        Command::Actors(args) => actors::print(&args).await?,
        Command::Explain(args) => explain::print(&args).await?,
        Command::Node(args) => node::run(&args).await?,
        Command::HollowGroup(args) => hollow::run(&args).await?,
        Command::Token { command: cli::Token::Create { dir, ttl, role, output } } => {
            token::create(&layout::ClusterDir::new(dir.path()), ttl, role, output).await?;
        }
        Command::Member { command: cli::Member::Add { dir, name } } => {
            member::add::add(&layout::ClusterDir::new(dir.path()), &name).await?;
        }
        Command::Member { command: cli::Member::Remove { dir, name, force } } => {
            member::remove(&layout::ClusterDir::new(dir.path()), &name, force).await?;
        }
        Command::Chaos { command: cli::Chaos::Run { seed, duration, heal, output, keep } } => {
            if !chaos::run(Plan { seed, duration, heal }, output, keep).await? {
                return Ok(ExitCode::from(BROKEN));
            }
        }
        Command::Demo { command: cli::Demo::Speech { data, patience, output } } => {
            demo::speech(data, patience, output).await?;
        }
        Command::Training { command } => training::run(&command).await?,
        Command::Guest { args } => impresario_speech::guest::run(args).await?,
        Command::Apply(args) => objects::apply(&args).await?,
        Command::Get(args) => objects::get(&args).await?,
        Command::Describe(args) => objects::describe(&args).await?,
        Command::Delete(args) => objects::delete(&args).await?,
        Command::Logs(args) => objects::logs(&args).await?,
        Command::Scale(args) => objects::scale(&args).await?,
        Command::Completions { .. } => {} // done in `main`
    }
    Ok(ExitCode::SUCCESS)
}

async fn bring_up(args: &cli::Up) -> Result<(), Box<dyn Error>> {
    let started = up::Started::default();
    let running = tokio::select! {
        running = up::up(args, false, &started) => running?,
        () = interrupt::asked_to_end() => {
            // What ran before goes on, and so does what another command starts.
            let what = started.undo().await?;
            return Err(format!("interrupted: {what}").into());
        }
    };
    say!("{} nodes are Ready, the API is at https://{}", running.nodes.len(), running.api);
    say!("  export KUBECONFIG={}", output::shell_word(&running.dir.kubeconfig()));
    say!("  kubectl get nodes");
    if running.hollow.gone > 0 {
        say!("{} nodes that only pretended are gone.", running.hollow.gone);
    }
    if running.hollow.there > 0 {
        say!(
            "{} nodes more only pretend: pods come to them that bear with their taint {}.",
            running.hollow.there,
            hollow::HOLLOW
        );
    }
    if !running.listen.is_loopback() {
        say!("Other machines reach it: it listens on {}.", running.listen);
    }
    let others = up::others(running.dir.path());
    if !others.is_empty() {
        let others: Vec<_> = others.iter().map(|folder| folder.display().to_string()).collect();
        eprintln!(
            "note: another cluster runs on this machine ({}), and each offers all of it: their pods together can be \
             promised more than there is",
            others.join(", ")
        );
    }
    if args.detach {
        say!("  imp down --data-dir {}", output::shell_word(running.dir.path()));
        return Ok(());
    }
    say!("Ctrl-C stops the cluster.");
    interrupt::asked_to_end().await;
    down::down(&cli::Down { dir: args.dir.clone(), purge: false }).await?;
    Ok(())
}
