//! The gateway as its clients meet it: over HTTPS, with hyper and with kubectl.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod access;
mod binding;
mod harness;
mod kinds;
mod kubectl;
mod limits;
mod lines;
mod logged;
mod logs;
mod reading;
mod watching;
mod writing;
