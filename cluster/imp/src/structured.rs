//! Output that programs read.

use clap::ValueEnum;

/// Forms of output that programs read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Structured {
    /// One JSON object.
    Json,
}
