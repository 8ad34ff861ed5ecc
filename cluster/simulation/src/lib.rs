//! The auction in virtual time, over traces of real training jobs, and as a filter that another
//! simulator or scheduler drives.
//!
//! What a job really does comes from measured tables ([`traces`], [`truth`]); what a policy sees
//! is only what the job would have reported ([`run`]).

#![warn(missing_docs)]
// Counts of GPUs, epochs and samples are far below 2^52.
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod interpolate;
pub mod oracle;
pub mod plan;
pub mod plot;
pub mod report;
pub mod run;
mod table;
pub mod traces;
pub mod truth;

pub use report::Report;
pub use run::{Settings, simulate};
pub use table::TraceError;
pub use traces::Submission;
pub use truth::Application;
