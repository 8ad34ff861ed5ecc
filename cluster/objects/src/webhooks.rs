//! Admission by programs of the users: mutating and validating webhooks.
//!
//! ```text
//! known    the configurations, followed by each member    (MutatingWebhookConfiguration, ValidatingWebhookConfiguration)
//!   └─> hook   whether a webhook is told of a write  (selectors, conditions in CEL; rules stand in `admission`)
//!         └─> target, places, caller, review   one question to it, over HTTPS, within its time and its share
//!               └─> chain   what a write passes: those that may change it in turn, then those that may refuse it, at once
//! ```
//!
//! Every write that comes through [`Objects`](crate::Objects) passes them, whoever writes. Not asked are they of their own
//! configurations, of bindings of pods to nodes, and of the status that a node writes of itself and its pods.

mod caller;
mod chain;
mod hook;
mod known;
mod places;
mod review;
mod target;

pub use known::Webhooks;
