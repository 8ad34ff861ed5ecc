//! The gateway as its clients meet it: over HTTPS, with hyper and with kubectl.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod access;
mod accounts;
mod applying;
mod binding;
mod certificates;
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
mod mirror;
mod policies;
mod reading;
mod roles;
mod spdy;
mod streams;
mod watching;
mod webhooks;
mod writing;
