//! Who gets what, as plain functions of what was seen: no clock, no files, no messages.
//!
//! A [`Hall`] holds bids and what there is to divide. A [`Policy`] clears it: a [`Size`] for each job. The live
//! scheduler fills a hall with pods and what nodes have free, the simulator and `imp training` one
//! with the GPUs of a [`Picture`], and both call the same policies.
//!
//! What a job is worth in a size that it has not run in comes from its models. In a [`Picture`] those
//! are a [`Model`] (how long a step takes, how much a larger batch is worth, how much work
//! remains), and what is cleared is placed too: a [`Decision`] names a node for each GPU of each job. On a
//! cluster they are [`speed`] and [`loss_curve`], and the pods that follow from a size are placed as all pods are.

#![warn(missing_docs)]
// Counts of GPUs, epochs and samples are far below 2^52.
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod climb;
mod decision;
pub mod drf;
pub mod fifo;
pub mod goodput;
pub mod gpus;
mod greedy;
pub mod hall;
pub mod loss_curve;
pub mod market;
pub mod model;
mod nnls;
pub mod optimus;
mod packing;
pub mod picture;
pub mod placement;
mod policies;
mod policy;
pub mod speed;
pub mod step_time;
mod strides;
pub mod tiresias;
mod trades;

pub use decision::Decision;
pub use goodput::Batch;
pub use hall::{Hall, Size};
pub use model::Model;
pub use picture::{Gradient, Job, Measurement, Node, Picture};
pub use policies::{POLICIES, named};
pub use policy::Policy;
pub use step_time::StepTime;
