//! The chaos harness: drives a real cluster, breaks it by a seeded schedule, heals it, and checks
//! what was promised.
//!
//! ```text
//!   schedule(seed) ──> run ──> Cluster: kill -9, SIGSTOP, fault rules by message
//!                       │
//!   clients, workload ─> history ┐
//!   observer, watchers, ghosts ──┼──> Evidence ──> checks ──> Report
//!   after healing, effects ──────┘
//! ```

pub mod agreement;
pub mod checks;
pub mod clients;
pub mod cluster;
pub mod effects;
pub mod ghosts;
pub mod healed;
pub mod held;
pub mod history;
pub mod linear;
pub mod observer;
pub mod rival;
pub mod run;
pub mod schedule;
pub mod watching;
pub mod workload;

pub use checks::{Check, Promise};
pub use cluster::{Cluster, HarnessError, Session};
pub use run::{Happened, Plan, Report, run};
pub use schedule::{Fault, schedule};
