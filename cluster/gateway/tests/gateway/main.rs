//! The gateway as its clients meet it: over HTTPS, with hyper and with kubectl.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod access;
mod applying;
mod binding;
mod evicting;
mod expressions;
mod harness;
mod hook_server;
mod kinds;
mod kubectl;
mod limits;
mod lines;
mod logged;
mod logs;
mod metrics;
mod policies;
mod reading;
mod roles;
mod watching;
mod webhooks;
mod writing;
