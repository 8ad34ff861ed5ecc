//! Who gets which GPUs, as plain functions of a picture of the cluster: no clock, no files, no
//! messages. The simulator and `imp training` call them; the live scheduler still has
//! a rule of its own (`actors/src/auction`), so that simulated figures are not yet those of a cluster.
//!
//! A [`Picture`] holds nodes, and jobs with what each has reported. A [`Model`] is what a job
//! believes about itself: how long a step takes in a configuration it has not run in, how much a
//! larger batch is worth, how much work remains. A [`Policy`] turns picture and models into a
//! [`Decision`]: one node for each GPU of each job.

#![warn(missing_docs)]
// Counts of GPUs, epochs and samples are far below 2^52.
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

pub mod drf;
pub mod fifo;
pub mod goodput;
pub mod greedy;
pub mod market;
pub mod model;
pub mod optimus;
pub mod picture;
pub mod placement;
mod policies;
mod policy;
pub mod step_time;
pub mod tiresias;

pub use goodput::Batch;
pub use model::Model;
pub use picture::{Gradient, Job, Measurement, Node, Picture};
pub use policies::{POLICIES, named};
pub use policy::{Decision, Policy};
pub use step_time::StepTime;
