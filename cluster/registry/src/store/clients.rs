//! What each client was answered last, so that a repeated request is answered and not applied again.
//!
//! Refusals are remembered as well: a late copy of a refused request must not succeed after all. Memory is
//! bounded twice, by [`ANSWERS`] for each client and by [`CLIENTS`]; a request older than what its client's
//! memory reaches is never applied, and the client that has been silent longest is forgotten as a whole.

use crate::{
    error::TransactError,
    transaction::{Committed, RequestId},
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Answers kept for each client; a client numbers no request so far ahead of one that is not answered yet.
pub(crate) const ANSWERS: usize = 256;
/// Clients remembered.
const CLIENTS: usize = 1024;

type Outcome = Result<Committed, TransactError>;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Memory {
    /// When the client was last heard, in requests of all clients.
    heard: u64,
    /// Serials up to this one have been forgotten.
    forgotten: Option<u64>,
    answers: BTreeMap<u64, Outcome>,
}

/// The memory of all clients.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Clients {
    heard: u64,
    memories: BTreeMap<u128, Memory>,
    /// Clients by when they were last heard.
    order: BTreeSet<(u64, u128)>,
}

/// What is known of a request.
pub(super) enum Recall {
    New,
    Answered(Outcome),
    /// Too old to know.
    Forgotten,
}

impl Clients {
    pub(super) fn recall(&self, request: RequestId) -> Recall {
        let Some(memory) = self.memories.get(&request.client) else {
            return Recall::New;
        };
        match memory.answers.get(&request.serial) {
            Some(outcome) => Recall::Answered(outcome.clone()),
            None if memory.forgotten.is_some_and(|limit| request.serial <= limit) => {
                Recall::Forgotten
            }
            None => Recall::New,
        }
    }

    pub(super) fn remember(&mut self, request: RequestId, outcome: Outcome) {
        self.heard += 1;
        let memory = self.memories.entry(request.client).or_default();
        self.order.remove(&(memory.heard, request.client));
        memory.heard = self.heard;
        self.order.insert((self.heard, request.client));
        memory.answers.insert(request.serial, outcome);
        while memory.answers.len() > ANSWERS {
            if let Some((serial, _)) = memory.answers.pop_first() {
                memory.forgotten = memory.forgotten.max(Some(serial));
            }
        }
        while self.memories.len() > CLIENTS {
            let Some((_, client)) = self.order.pop_first() else { break };
            self.memories.remove(&client);
        }
    }
}
