//! One call of the engine: its deadline, and what a refusal means.

use crate::container::{ContainerId, DriverError};
use bollard::errors::Error;
use std::time::Duration;
use tokio::time::timeout;

/// How long the engine may take for anything but waiting and pulling.
pub const CALL_LIMIT: Duration = Duration::from_mins(1);
/// How long an image may take to come.
pub const PULL_LIMIT: Duration = Duration::from_mins(15);

/// Gives a call its deadline, and its error a name.
pub async fn call<T>(
    what: &str,
    limit: Duration,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, Refused> {
    match timeout(limit, answer).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(Error::DockerResponseServerError { status_code, message })) => {
            Err(Refused { what: what.to_owned(), code: status_code, message })
        }
        Ok(Err(error)) => {
            Err(Refused { what: what.to_owned(), code: 0, message: error.to_string() })
        }
        Err(_) => {
            let message = format!("no answer within {limit:?}");
            Err(Refused { what: what.to_owned(), code: 0, message })
        }
    }
}

/// What the engine said; the code is zero when it said nothing.
#[derive(Debug)]
pub struct Refused {
    pub what: String,
    pub code: u16,
    pub message: String,
}

impl Refused {
    /// The error for whom this was asked about one container.
    pub fn about(self, id: &ContainerId) -> DriverError {
        match self.code {
            404 => DriverError::NoContainer { id: id.clone() },
            _ => self.into(),
        }
    }
}

impl From<Refused> for DriverError {
    fn from(refused: Refused) -> Self {
        Self::Engine { what: refused.what, cause: refused.message }
    }
}
