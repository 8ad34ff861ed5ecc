//! Elastic training: what parameter servers, trainers and the training job have in common.
//!
//! [`model`] is what a program brings; [`optimizer`] turns gradients into new parameters.

pub mod checkpoint;
pub mod data_plan;
pub mod export;
pub mod gathering;
pub mod guest;
pub mod in_hand;
pub mod link;
pub mod model;
pub mod optimizer;
pub mod partition;
pub mod shard_client;
pub mod shards;
