//! Why an expression gives no value, and how much work it may do.

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

    /// Takes the work of copying or reading so many bytes.
    pub fn spend_bytes(&mut self, bytes: usize) -> Result<(), Fault> {
        self.spend(bytes / 10 + 1)
    }
}
