//! What each client was answered last, so that a repeated request is answered and not applied again.
//!
//! Refusals are remembered as well: a late copy of a refused request must not succeed after all. Memory is
//! bounded three times: by [`ANSWERS`] for each client, by [`ANSWERS_OF_ALL`], and by [`CLIENTS`]; an answer is
//! of fixed size, whatever was asked. What does not fit goes by age: the oldest answer, and the client that has
//! been silent longest. A request that the memory may once have known is never applied again: within a client
//! serials up to the last forgotten one are refused, and of clients that are not known those whose name is older
//! than the last client that was forgotten (see [`RequestId::client_named_at`]).

use crate::{
    error::TransactError,
    key::Revision,
    serials::ANSWERS,
    shard::Epoch,
    transaction::{Committed, RequestId, Transaction},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Clients remembered: all processes of 5,000 nodes and their control members, three times over.
pub(super) const CLIENTS: usize = 16_384;
/// Answers kept for all clients together: those of half a minute at 4,000 writes a second, within 16 MiB.
pub(super) const ANSWERS_OF_ALL: usize = 131_072;

/// What a transaction came to, without what can be read off the transaction itself: a retry brings that again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Outcome {
    /// Applied.
    Committed(Committed),
    /// The compare with this number did not hold.
    Conflict { compare: u32, found: Revision },
    /// The fence's shard is at this epoch.
    Fenced { current: Epoch },
    /// What it would have changed is too large to be told in one piece.
    TooLarge { size: u64 },
}

impl Outcome {
    /// The answer to the transaction, which was applied or refused with this outcome.
    pub(super) fn answer(self, transaction: &Transaction) -> Result<Committed, TransactError> {
        let refused = match self {
            Self::Committed(committed) => return Ok(committed),
            Self::Conflict { compare, found } => {
                transaction.compares.get(compare as usize).map(|compare| compare.missed(found))
            }
            Self::Fenced { current } => transaction.fence.map(|fence| TransactError::Fenced {
                shard: fence.shard,
                held: fence.epoch,
                current,
            }),
            Self::TooLarge { size } => Some(TransactError::TooLarge {
                key: transaction.subject(),
                size: size as usize,
                limit: super::ring::MAX_CHANGE_BYTES,
            }),
        };
        Err(refused.unwrap_or_else(|| TransactError::Refused {
            reason: "this request id was used for another transaction: number each one anew".into(),
        }))
    }
}

/// When something was heard, in requests of all clients.
type Heard = u64;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Memory {
    heard: Heard,
    /// Serials up to this one have been forgotten.
    forgotten: Option<u64>,
    answers: BTreeMap<u64, (Heard, Outcome)>,
}

/// The memory of all clients.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Clients {
    heard: Heard,
    /// Clients last heard up to here have been forgotten.
    horizon: Heard,
    memories: BTreeMap<u128, Memory>,
    /// Clients by when they were last heard.
    silent: BTreeMap<Heard, u128>,
    /// Answers by when they were given.
    oldest: BTreeMap<Heard, RequestId>,
}

/// The memory as a snapshot keeps it: both orders follow from it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Saved {
    heard: Heard,
    horizon: Heard,
    memories: BTreeMap<u128, Memory>,
}

/// What is known of a request.
pub(super) enum Recall {
    New,
    Answered(Outcome),
    /// It may have been applied and forgotten; so many requests have been heard by now.
    Forgotten {
        heard: Heard,
    },
}

impl Clients {
    pub(super) fn recall(&self, request: RequestId) -> Recall {
        let forgotten = Recall::Forgotten { heard: self.heard };
        let Some(memory) = self.memories.get(&request.client) else {
            return if request.named_at() < self.horizon { forgotten } else { Recall::New };
        };
        match memory.answers.get(&request.serial) {
            Some((_, outcome)) => Recall::Answered(*outcome),
            None if memory.forgotten.is_some_and(|limit| request.serial <= limit) => forgotten,
            None => Recall::New,
        }
    }

    pub(super) fn remember(&mut self, request: RequestId, outcome: Outcome) {
        self.heard += 1;
        let memory = self.memories.entry(request.client).or_default();
        self.silent.remove(&memory.heard);
        memory.heard = self.heard;
        self.silent.insert(self.heard, request.client);
        memory.answers.insert(request.serial, (self.heard, outcome));
        self.oldest.insert(self.heard, request);
        if memory.answers.len() > ANSWERS
            && let Some((serial, (heard, _))) = memory.answers.pop_first()
        {
            memory.forgotten = memory.forgotten.max(Some(serial));
            self.oldest.remove(&heard);
        }
        if self.oldest.len() > ANSWERS_OF_ALL
            && let Some((_, request)) = self.oldest.pop_first()
            && let Some(memory) = self.memories.get_mut(&request.client)
        {
            // Serials may have come out of order: what is before this one is given up with it.
            let kept = memory.answers.split_off(&(request.serial + 1));
            for (heard, _) in std::mem::replace(&mut memory.answers, kept).into_values() {
                self.oldest.remove(&heard);
            }
            memory.forgotten = memory.forgotten.max(Some(request.serial));
        }
        if self.memories.len() > CLIENTS
            && let Some((heard, client)) = self.silent.pop_first()
            && let Some(memory) = self.memories.remove(&client)
        {
            self.horizon = heard;
            for (heard, _) in memory.answers.into_values() {
                self.oldest.remove(&heard);
            }
        }
    }

    pub(super) fn saved(&self) -> Saved {
        let memories = self.memories.clone();
        Saved { heard: self.heard, horizon: self.horizon, memories }
    }

    pub(super) fn restore(saved: Saved) -> Self {
        let Saved { heard, horizon, memories } = saved;
        let (mut silent, mut oldest) = (BTreeMap::new(), BTreeMap::new());
        for (client, memory) in &memories {
            silent.insert(memory.heard, *client);
            for (serial, (heard, _)) in &memory.answers {
                oldest.insert(*heard, RequestId { client: *client, serial: *serial });
            }
        }
        Self { heard, horizon, memories, silent, oldest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DONE: Outcome = Outcome::Committed(Committed { revision: 1 });

    fn id(client: u128, serial: u64) -> RequestId {
        RequestId { client, serial }
    }

    #[test]
    fn the_answers_of_ten_thousand_clients_are_known_at_once() {
        let mut clients = Clients::default();
        for serial in 1..=10 {
            for client in 0..10_000 {
                clients.remember(id(client, serial), DONE);
            }
        }
        for client in 0..10_000 {
            assert!(matches!(clients.recall(id(client, 1)), Recall::Answered(DONE)));
        }
        assert!(clients.oldest.len() <= ANSWERS_OF_ALL);
    }

    #[test]
    fn nothing_is_new_again_once_it_was_known_however_many_clients_come() {
        let mut clients = Clients::default();
        let first = RequestId::client_named_at(0);
        clients.remember(id(first, 1), DONE);
        for _ in 0..CLIENTS {
            clients.remember(id(RequestId::client_named_at(clients.heard), 1), DONE);
        }
        assert!(clients.memories.len() <= CLIENTS && clients.silent.len() <= CLIENTS);
        let Recall::Forgotten { heard } = clients.recall(id(first, 1)) else {
            panic!("a forgotten request would be applied again");
        };
        let renamed = RequestId::client_named_at(heard);
        assert!(matches!(clients.recall(id(renamed, 1)), Recall::New), "a new name is taken");
        let restored = Clients::restore(clients.saved());
        assert_eq!(restored, clients);
        assert!(matches!(restored.recall(id(first, 1)), Recall::Forgotten { .. }));
    }

    #[test]
    fn all_answers_together_are_bounded_and_the_oldest_goes_first() {
        let mut clients = Clients::default();
        let per_client = ANSWERS_OF_ALL as u64 / 1024;
        for serial in 1..=per_client + 1 {
            for client in 0..1024 {
                clients.remember(id(client, serial), DONE);
            }
        }
        assert_eq!(clients.oldest.len(), ANSWERS_OF_ALL);
        assert!(matches!(clients.recall(id(7, 1)), Recall::Forgotten { .. }));
        assert!(matches!(clients.recall(id(7, 2)), Recall::Answered(_)));
        let answers: usize = clients.memories.values().map(|memory| memory.answers.len()).sum();
        assert_eq!(answers, clients.oldest.len(), "both count the same");
    }
}
