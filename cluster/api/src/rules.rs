//! Defaults and rules that kinds share, and those of the kinds with many.

pub mod access;
pub mod addresses;
pub mod autoscaling;
pub mod declared;
pub mod devices;
pub mod expressions;
pub mod job;
pub mod metadata;
pub mod pod;
pub mod replicas;
pub mod resources;
pub mod rollout;
pub mod service;
pub mod storage;
pub mod template;
pub mod webhooks;

#[cfg(test)]
pub(crate) mod recorded_data;
