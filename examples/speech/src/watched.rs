//! A training job as the demonstration sees it.

use serde_json::{Value, json};
use std::time::Instant;

/// A job as it was seen last.
pub struct Watched {
    /// Its name.
    pub name: &'static str,
    /// Its status.
    pub status: Value,
    pub(crate) submitted: Instant,
    pub(crate) finished: Option<Instant>,
    pub(crate) told: usize,
}

impl Watched {
    /// One that was just submitted.
    pub fn new(name: &'static str) -> Self {
        let submitted = Instant::now();
        Self { name, status: json!({}), submitted, finished: None, told: 0 }
    }

    /// A number of its status.
    pub fn count(&self, field: &str) -> u64 {
        self.status[field].as_u64().unwrap_or(0)
    }

    /// Its phase; one that has none yet is pending.
    pub fn phase(&self) -> &str {
        self.status["phase"].as_str().unwrap_or("Pending")
    }
}
