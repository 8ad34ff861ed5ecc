//! `imp explain`.

use super::target::{Target, parse_name};
use crate::structured::Structured;
use clap::Args;

/// `imp explain`.
#[derive(Debug, Clone, Args)]
pub struct Explain {
    /// The target.
    #[command(flatten)]
    pub target: Target,
    /// What is explained: where a pod may go.
    #[arg(value_parser = ["pod", "pods", "po"])]
    pub resource: String,
    /// The name.
    #[arg(value_parser = parse_name)]
    pub name: String,
    /// The scheduler that the pod names in spec.schedulerName.
    #[arg(long, value_name = "NAME", default_value = impresario_client::protocol::scheduler::DEFAULT_SCHEDULER)]
    pub scheduler: String,
    /// How to print.
    #[arg(short, long, value_enum)]
    pub output: Option<Structured>,
}
