//! What users do with a cluster of three nodes, and what they see. All tests share one cluster and
//! have a namespace each, so that they can run at the same time.
//!
//! `commands` is the table of kubectl's commands, with each version of it; the rest is about what
//! pods, controllers and services do, and needs one.

#![allow(clippy::unwrap_used)] // what is shared by tests fails as tests do

mod access;
mod applying;
mod autoscaling;
mod bad_input;
mod commands;
mod controllers;
mod credentials;
mod cronjobs;
mod daemonsets;
mod definitions;
mod deployments;
mod jobs;
mod kinds;
mod manifests;
mod owners;
mod pods;
mod policies;
mod probes;
mod services;
mod statefulsets;
mod streams;
mod training;
mod verbs;
mod volumes;
