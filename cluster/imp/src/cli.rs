//! The command line: names and flags are a contract that scripts and other tools use.

mod explain;
mod hollow;
pub mod target;
pub mod training;

pub use explain::Explain;
pub use hollow::{HOLLOW_MOST, Hollow, HollowGroup};
pub use target::{DataDir, Target, parse_name};

use crate::structured::Structured;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// A cluster in which everything is an actor.
#[derive(Debug, Parser)]
#[command(name = "imp", version, arg_required_else_help = true, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands of `imp`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a cluster on this machine, one process a node; start again what is not running.
    Up(Up),
    /// Stop the cluster and its pods.
    Down(Down),
    /// Show nodes, control members, the leader and the revision.
    Status(Status),
    /// List the actors that live on nodes, with what waits for them and how often they were started again.
    Actors(Actors),
    /// Run one node.
    Node(Node),
    /// Make tokens with which machines join.
    Token {
        /// What to do with tokens.
        #[command(subcommand)]
        command: Token,
    },
    /// Change who keeps the registry.
    Member {
        /// What to do with control members.
        #[command(subcommand)]
        command: Member,
    },
    /// Break a cluster on purpose and check what it promised.
    Chaos {
        /// What to do.
        #[command(subcommand)]
        command: Chaos,
    },
    /// Create or change objects from manifests.
    Apply(Apply),
    /// Show objects.
    Get(Get),
    /// Show one object in full, with its events.
    Describe(Named),
    /// Say of each node why a pod that waits may not go there, and how well it would do on the best.
    Explain(Explain),
    /// Delete objects.
    Delete(Delete),
    /// Print the logs of a pod.
    Logs(Logs),
    /// Set the number of replicas.
    Scale(Scale),
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Take a trained model out of the cluster; simulate schedulers of training jobs, and plan by them.
    Training {
        /// What to do.
        #[command(subcommand)]
        command: training::Training,
    },
    /// Show what the cluster does: elastic training on real speech.
    Demo {
        /// What to show.
        #[command(subcommand)]
        command: Demo,
    },
    /// Runs a parameter server or trainer inside a pod (internal).
    #[command(name = "__guest", hide = true, disable_help_flag = true)]
    Guest {
        /// Passed on as they are.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<std::ffi::OsString>,
    },
    /// Runs a group of hollow nodes (internal).
    #[command(name = "__hollow", hide = true)]
    HollowGroup(HollowGroup),
}

/// How containers run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// As child processes.
    Process,
    /// In the Docker engine of the machine.
    Docker,
}

/// `imp up`.
#[derive(Debug, Clone, Args)]
pub struct Up {
    /// How many nodes [default: 3, or as many as the cluster has]. More than there are makes more; the
    /// machine is then divided anew.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub nodes: Option<u16>,
    /// How many of them are control members: 1 or 3 [default: 3, or 1 with fewer than 3 nodes].
    #[arg(long, value_name = "N", value_parser = ["1", "3"])]
    pub control: Option<String>,
    /// The folder.
    #[command(flatten)]
    pub dir: DataDir,
    /// How containers run [default: process].
    #[arg(long, value_enum)]
    pub driver: Option<Driver>,
    /// The port of the API; 0 takes a free one [default: 6443].
    #[arg(long, value_name = "PORT")]
    pub api_port: Option<u16>,
    /// Let other machines in: the API and the nodes listen on this address of the machine, or with
    /// 0.0.0.0 on all. Said when the cluster is made [default: 127.0.0.1, this machine alone].
    #[arg(long, value_name = "IP")]
    pub listen: Option<IpAddr>,
    /// The address at which others reach this machine, where it is not the one to listen on
    /// [default: that of --listen, or with 0.0.0.0 the one of the machine's default route].
    #[arg(long, value_name = "IP", requires = "listen")]
    pub address: Option<IpAddr>,
    /// Let each node offer all that the machine has. Else its CPUs, memory and GPUs are divided
    /// between the nodes of this cluster that run on it. A GPU is in at most one pod either way. Another cluster on the
    /// machine offers all of it, too; `imp up` says so.
    #[arg(long)]
    pub whole_machine: bool,
    /// Nodes that only pretend.
    #[command(flatten)]
    pub hollow: Hollow,
    /// How long certificates of nodes are good for [default: 30 days]. They are renewed when two thirds
    /// of that are over.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub certificate_lifetime: Option<std::time::Duration>,
    /// Return when all nodes are Ready, leave the cluster running.
    #[arg(long)]
    pub detach: bool,
    /// Accept messages that inject faults (for the chaos harness).
    #[arg(long, hide = true)]
    pub chaos: bool,
}

/// `imp down`.
#[derive(Debug, Clone, Args)]
pub struct Down {
    /// The folder.
    #[command(flatten)]
    pub dir: DataDir,
    /// Remove all that the cluster knew, and its folder if nothing else is in it.
    #[arg(long)]
    pub purge: bool,
}

/// `imp status`.
#[derive(Debug, Clone, Args)]
pub struct Status {
    /// The folder.
    #[command(flatten)]
    pub dir: DataDir,
    /// How to print.
    #[arg(short, long, value_enum)]
    pub output: Option<Structured>,
}

/// `imp actors`.
#[derive(Debug, Clone, Args)]
pub struct Actors {
    /// The node; all of them without.
    #[arg(value_parser = parse_name)]
    pub node: Option<String>,
    /// The folder.
    #[command(flatten)]
    pub dir: DataDir,
    /// How to print.
    #[arg(short, long, value_enum)]
    pub output: Option<Structured>,
}

/// `imp node`.
#[derive(Debug, Clone, Args)]
pub struct Node {
    /// The folder of this node: its identity, its pods, and the registry of a control member.
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Join the cluster through a member's address (printed by `imp token create`).
    #[arg(long, value_name = "ADDRESS", requires = "token")]
    pub join: Option<String>,
    /// The token to join with.
    #[arg(long, value_name = "TOKEN", env = "IMPRESARIO_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// The name of the node [default: the host name].
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// The UDP address to listen on [default: a free port of the address that faces the cluster].
    #[arg(long, value_name = "IP:PORT")]
    pub bind: Option<SocketAddr>,
    /// The address at which others reach this node [default: the one that the cluster sees].
    #[arg(long, value_name = "IP")]
    pub address: Option<IpAddr>,
    /// How containers run [default: process].
    #[arg(long, value_enum)]
    pub driver: Option<Driver>,
    /// Join a cluster that runs on this very machine, and offer all of the machine once more: its other nodes offer it
    /// already.
    #[arg(long)]
    pub whole_machine: bool,
}

/// `imp member`.
#[derive(Debug, Clone, Subcommand)]
pub enum Member {
    /// Make a node of this machine a control member too. Its pods go on meanwhile.
    Add {
        /// The folder.
        #[command(flatten)]
        dir: DataDir,
        /// The node.
        name: String,
    },
    /// Take a control member out for good, for example one whose disk is damaged. A majority of the
    /// members must be well.
    Remove {
        /// The folder.
        #[command(flatten)]
        dir: DataDir,
        /// The member's node.
        name: String,
        /// Also when those that are left do not answer, though the registry may then take no writes any more.
        #[arg(long)]
        force: bool,
    },
}

/// `imp token`.
#[derive(Debug, Clone, Subcommand)]
pub enum Token {
    /// Make a token: it lets one machine join, once, until it expires.
    Create {
        /// The folder.
        #[command(flatten)]
        dir: DataDir,
        /// How long it is good for, such as 30m or 24h (24h at most).
        #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_duration)]
        ttl: std::time::Duration,
        /// What the holder becomes.
        #[arg(long, value_enum, default_value_t = TokenRole::Node)]
        role: TokenRole,
        /// How to print.
        #[arg(short, long, value_enum)]
        output: Option<Structured>,
    },
}

/// What a token makes of its holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TokenRole {
    /// A machine that runs pods.
    Node,
    /// A program that uses the SDK.
    Client,
}

/// `imp demo`.
#[derive(Debug, Clone, Subcommand)]
pub enum Demo {
    /// Two jobs learn spoken digits on a cluster that is started for them and removed afterwards.
    Speech {
        /// A folder of recordings named {digit}_{speaker}_{take}.wav, instead of those that ship.
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// How many times longer than usual it may take: for a build that is not optimized.
        #[arg(long, hide = true, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
        patience: u32,
        /// How to print.
        #[arg(short, long, value_enum)]
        output: Option<Structured>,
    },
}

/// `imp chaos`.
#[derive(Debug, Clone, Subcommand)]
pub enum Chaos {
    /// Start a cluster, break it by a seeded schedule, heal it, check it.
    Run {
        /// The seed: the same seed gives the same schedule.
        #[arg(long, value_name = "S")]
        seed: u64,
        /// How long faults go on, such as 60s.
        #[arg(long, value_name = "D", default_value = "60s", value_parser = parse_duration)]
        duration: std::time::Duration,
        /// How long the cluster has to heal after the last fault.
        #[arg(long, value_name = "D", default_value = "180s", value_parser = parse_duration)]
        heal: std::time::Duration,
        /// How to print.
        #[arg(short, long, value_enum)]
        output: Option<Structured>,
        /// Keep the cluster's folder even if everything passed.
        #[arg(long)]
        keep: bool,
    },
}

/// `imp apply`.
#[derive(Debug, Clone, Args)]
pub struct Apply {
    /// The target.
    #[command(flatten)]
    pub target: Target,
    /// A manifest in YAML or JSON; `-` is standard input.
    #[arg(short, long, value_name = "FILE", required = true)]
    pub filename: Vec<PathBuf>,
}

/// `imp get`.
#[derive(Debug, Clone, Args)]
pub struct Get {
    /// The target.
    #[command(flatten)]
    pub target: Target,
    /// A resource, such as pods or rc.
    pub resource: String,
    /// A name; all without.
    #[arg(value_parser = parse_name)]
    pub name: Option<String>,
    /// In all namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Only objects with these labels.
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// How to print.
    #[arg(short, long, value_enum)]
    pub output: Option<Output>,
}

/// Forms of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// A table with more columns.
    Wide,
    /// `resource/name`, a line each.
    Name,
}

/// An object by resource and name.
#[derive(Debug, Clone, Args)]
pub struct Named {
    /// The target.
    #[command(flatten)]
    pub target: Target,
    /// A resource, such as pods or rc.
    pub resource: String,
    /// The name.
    #[arg(value_parser = parse_name)]
    pub name: String,
}

/// `imp delete`.
#[derive(Debug, Clone, Args)]
pub struct Delete {
    /// The target.
    #[command(flatten)]
    pub target: Target,
    /// A resource, such as pods or rc.
    #[arg(required_unless_present = "filename")]
    pub resource: Option<String>,
    /// The names.
    #[arg(required_unless_present = "filename", value_parser = parse_name)]
    pub names: Vec<String>,
    /// Delete what this manifest names.
    #[arg(short, long, value_name = "FILE", conflicts_with = "resource")]
    pub filename: Vec<PathBuf>,
}

/// `imp logs`.
#[derive(Debug, Clone, Args)]
pub struct Logs {
    /// The target.
    #[command(flatten)]
    pub target: Target,
    /// The pod.
    #[arg(value_parser = parse_name)]
    pub pod: String,
    /// The container, where there are several.
    #[arg(short, long)]
    pub container: Option<String>,
    /// Go on as the pod writes.
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last lines.
    #[arg(long, value_name = "N")]
    pub tail: Option<u64>,
}

/// `imp scale`.
#[derive(Debug, Clone, Args)]
pub struct Scale {
    /// The target.
    #[command(flatten)]
    pub target: Target,
    /// A resource, such as rc.
    pub resource: String,
    /// The name.
    #[arg(value_parser = parse_name)]
    pub name: String,
    /// How many.
    #[arg(long, value_parser = clap::value_parser!(i32).range(0..))]
    pub replicas: i32,
}

/// A duration as people write it: `90s`, `5m`, `24h`, `500ms`.
pub fn parse_duration(text: &str) -> Result<std::time::Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 =
        number.parse().map_err(|_| format!("'{text}' is not a duration such as 90s or 24h"))?;
    let millis = match unit {
        "ms" => 1,
        "s" | "" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(format!("'{unit}' is not a unit: use ms, s, m or h")),
    };
    number
        .checked_mul(millis)
        .map(std::time::Duration::from_millis)
        .ok_or_else(|| format!("'{text}' is too long"))
}
