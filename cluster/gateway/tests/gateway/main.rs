//! The gateway as its clients meet it: over HTTPS, with hyper and with kubectl.

mod access;
mod harness;
mod kubectl;
mod limits;
mod reading;
mod watching;
mod writing;
