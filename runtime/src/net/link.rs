//! One connection in use: its writers, its readers, its bulk streams.

mod tasks;

pub(crate) use tasks::start;

use super::{handshake::code, terms::Terms, urgent::Urgent};
use crate::pki::PeerIdentity;
use quinn::{Connection, ConnectionError};
use std::{sync::Arc, time::SystemTime};
use tokio::sync::mpsc;

/// A connection to a peer whose identity is known.
pub(crate) struct Link {
    pub(crate) connection: Connection,
    pub(crate) identity: PeerIdentity,
    /// When its certificate runs out.
    pub(crate) until: SystemTime,
    pub(crate) incarnation: u64,
    pub(crate) generation: u64,
    /// Whether we dialled.
    pub(crate) dialled: bool,
    /// What the peer may have of us.
    pub(crate) terms: Arc<Terms>,
    pub(crate) urgent: Urgent,
}

impl Link {
    /// Loses the connection, as a fault rule wants it.
    pub(crate) fn break_off(&self) {
        self.connection.close(code::FAULT, b"lost by a fault rule");
    }
}

/// Kept by every task of a link for as long as it runs: a task that is aborted may still run on another thread.
#[derive(Clone)]
pub(crate) struct Runs {
    _runs: mpsc::Sender<Runs>,
}

/// Why a connection ended, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The peer stops.
    Goodbye,
    /// It may come back.
    Broken(String),
}

impl From<ConnectionError> for Ended {
    fn from(error: ConnectionError) -> Self {
        match &error {
            ConnectionError::ApplicationClosed(close) if close.error_code == code::GOODBYE => {
                Self::Goodbye
            }
            _ => Self::Broken(error.to_string()),
        }
    }
}
