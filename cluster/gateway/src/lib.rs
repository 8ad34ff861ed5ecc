//! The REST gateway: the Kubernetes API over an Impresario registry.
//!
//! [`Server`] takes connections, [`Gateway`] answers requests. Routes, verbs and documents are read
//! off the table of resources in `impresario-api`; objects are read and written by
//! `impresario_objects`, which control actors and the SDK use too. What this crate knows by
//! itself is HTTP: who asks ([`authenticate`]), whether they may ([`authorize`]), and in which form
//! they want the answer.

mod account_tokens;
mod aim;
mod answer;
mod brief;
mod budget;
mod busy;
mod call;
mod discovery;
mod gateway;
mod impersonate;
mod invalid;
mod limits;
mod listed;
mod negotiate;
mod oidc;
mod options;
mod query;
mod readiness;
mod request;
mod revocation;
mod server;
mod shape;
mod streams;
mod takeover;
mod tls;
mod trust;
mod turns;
mod verbs;
mod work;

pub mod authenticate;
pub mod authorize;
pub mod logs;
pub mod sessions;
pub mod usage;

pub use discovery::GIT_VERSION;
pub use gateway::Gateway;
pub use limits::Limits;
pub use request::Action;
pub use revocation::{Revocations, fingerprint};
pub use server::{ListenError, Server, SharedListener, Sharer};
pub use tls::{Fingerprint, Tls, TlsError, TlsSettings};
