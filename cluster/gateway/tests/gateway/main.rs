//! The gateway as its clients meet it: over HTTPS, with hyper and with kubectl.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod access;
mod binding;
mod harness;
mod kubectl;
mod limits;
mod lines;
mod logged;
mod logs;
mod policies;
mod reading;
mod watching;
mod writing;
