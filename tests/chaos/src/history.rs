//! What clients did and what they were told, as material for the checks.
//!
//! Clients are sequential. An operation whose outcome a client does not know stays open: it may take
//! effect at any later time, or never, and its client goes on under a new number.

use serde::Serialize;
use std::time::Duration;

/// What a client asked a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Its value.
    Read {
        /// What was answered; nothing where the register did not exist.
        seen: Option<u64>,
    },
    /// To hold this value, whatever it held.
    Write {
        /// The value.
        value: u64,
    },
    /// To hold `value` if it holds `expected`.
    Swap {
        /// What it must hold; nothing means that it must not exist.
        expected: Option<u64>,
        /// The value.
        value: u64,
    },
}

/// What a client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done.
    Ok,
    /// A swap was not done, and will not be: the register held something else.
    Refused,
    /// It was not done, and will not be; that says nothing of the register.
    Failed,
    /// It may have been done, or may yet be.
    Unknown,
}

/// One operation on one register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Operation {
    /// Who asked.
    pub client: u32,
    /// Which register.
    pub register: u32,
    /// What was asked, and for reads what was answered.
    pub action: Action,
    /// What was told.
    pub outcome: Outcome,
    /// When it was asked, since the start of the run.
    #[serde(serialize_with = "seconds")]
    pub called: Duration,
    /// When it was answered; meaningless for an unknown outcome.
    #[serde(serialize_with = "seconds")]
    pub returned: Duration,
}

/// What a writer of the ledger was told of an entry that it wrote once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LedgerEntry {
    /// The number of the entry: its name and its value.
    pub number: u64,
    /// What was told. `Refused` says that the entry was there already, though nobody else writes it.
    pub outcome: Outcome,
}

/// Everything that clients did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct History {
    /// On the registers, in the order of the answers.
    pub registers: Vec<Operation>,
    /// In the ledger.
    pub ledger: Vec<LedgerEntry>,
    /// What the ledger held in the end: number and value.
    pub ledger_in_the_end: Vec<(u64, u64)>,
    /// Why registers or the ledger could not be read in the end, if they could not.
    pub unreadable: Option<String>,
}

impl History {
    /// How many operations had which outcome.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> usize {
        let registers = self.registers.iter().filter(|op| op.outcome == outcome).count();
        registers + self.ledger.iter().filter(|entry| entry.outcome == outcome).count()
    }
}

fn seconds<S: serde::Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(span.as_secs_f64())
}
