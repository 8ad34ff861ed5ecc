//! Why an expression gives no value, and how much work it may do.

use super::value::Value;

/// Why there is no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The expression cannot be worked out for these values.
    #[error("{0}")]
    Failed(String),
    /// It takes more work than it may.
    #[error("operation cancelled: actual cost limit exceeded")]
    OverBudget,
}

/// A fault of the expression itself.
pub fn failed(what: impl Into<String>) -> Fault {
    Fault::Failed(what.into())
}

/// The longest text that a fault quotes, in bytes.
const MAX_QUOTED: usize = 256;

/// The beginning of a text, for a fault to quote: one fault may be made for each entry of a list.
pub fn beginning(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_QUOTED)]
}

/// The work that is left. One is about one look at a value, or ten bytes that are copied.
#[derive(Debug)]
pub struct Budget {
    left: u64,
}

impl Budget {
    /// So much work and no more.
    pub fn new(steps: u64) -> Self {
        Self { left: steps }
    }

    /// What is left.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Takes work, which must be done after and not before.
    pub fn spend(&mut self, steps: usize) -> Result<(), Fault> {
        let steps = steps as u64;
        if steps > self.left {
            self.left = 0;
            return Err(Fault::OverBudget);
        }
        self.left -= steps;
        Ok(())
    }

    /// Takes the work of walking a value so many times, without walking more than is left.
    pub fn spend_on(&mut self, value: &Value<'_>, times: usize) -> Result<(), Fault> {
        if times == 0 {
            return Ok(());
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let weight = value.weight(most).unwrap_or(usize::MAX);
        self.spend(weight.saturating_mul(times))
    }

    /// Takes the work of copying or reading so many bytes.
    pub fn spend_bytes(&mut self, bytes: usize) -> Result<(), Fault> {
        self.spend(bytes / 10 + 1)
    }
}
