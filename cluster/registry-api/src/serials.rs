//! Numbers for requests, so that one that is sent again is known and applied once.

use crate::{
    error::TransactError,
    transaction::{RequestId, Transaction},
};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

/// Answers that a registry keeps for each client; a client numbers no request so far ahead of one that is not
/// answered yet.
pub const ANSWERS: usize = 256;

/// Names that a process uses at most. One that waits for an old answer stops the others for nobody.
const NAMES: usize = 16;

/// Numbers the requests of one process. No number is given that is so far ahead of an unanswered one that the state
/// machine could forget in between whether it applied that one: further requests go under another name, as a client of
/// its own. A client that was silent for so long that it has been forgotten takes a new name.
#[derive(Debug, Default)]
pub struct Serials {
    open: Mutex<Vec<Open>>,
    closed: Notify,
}

/// One name.
#[derive(Debug)]
struct Open {
    client: u128,
    last: u64,
    unanswered: BTreeSet<u64>,
}

impl Serials {
    /// Numbers a transaction that has no number; the place is given back when its answer is known. Waits its turn, up to
    /// the deadline, where all names wait for answers.
    pub async fn number(
        &self,
        transaction: &mut Transaction,
        deadline: Instant,
    ) -> Result<Option<Place<'_>>, TransactError> {
        if transaction.request.is_some() {
            return Ok(None);
        }
        loop {
            if let Some(request) = self.take() {
                transaction.request = Some(request);
                // One answer can make room for many.
                self.closed.notify_one();
                return Ok(Some(Place { serials: self, request }));
            }
            if timeout_at(deadline, self.closed.notified()).await.is_err() {
                let reason = "too many writes of this process wait for their answers".to_owned();
                return Err(TransactError::Unavailable { reason });
            }
        }
    }

    /// The next number of the first name that has one.
    fn take(&self) -> Option<RequestId> {
        let mut open = self.open.lock();
        if let Some(request) = open.iter_mut().find_map(Open::take) {
            return Some(request);
        }
        if open.len() == NAMES {
            return None;
        }
        open.push(Open::named_at(0));
        open.last_mut().and_then(Open::take)
    }

    /// Takes a new name in place of the one that was forgotten, unless that has been done meanwhile.
    fn rename(&self, forgotten: u128, heard: u64) {
        for open in self.open.lock().iter_mut().filter(|open| open.client == forgotten) {
            *open = Open::named_at(heard);
        }
        self.closed.notify_one();
    }
}

impl Open {
    fn named_at(heard: u64) -> Self {
        let client = RequestId::client_named_at(heard);
        Self { client, last: 0, unanswered: BTreeSet::new() }
    }

    fn take(&mut self) -> Option<RequestId> {
        let serial = self.last + 1;
        let oldest = self.unanswered.first().copied().unwrap_or(serial);
        if serial - oldest >= ANSWERS as u64 {
            return None;
        }
        self.last = serial;
        self.unanswered.insert(serial);
        Some(RequestId { client: self.client, serial })
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub struct Place<'s> {
    serials: &'s Serials,
    request: RequestId,
}

impl<'s> Place<'s> {
    /// Numbers the transaction anew after its number was forgotten, `heard` being what the registry said. Only
    /// for a transaction of which no attempt can have been applied.
    pub async fn anew(
        self,
        transaction: &mut Transaction,
        heard: u64,
        deadline: Instant,
    ) -> Result<Option<Place<'s>>, TransactError> {
        let serials = self.serials;
        serials.rename(self.request.client, heard);
        drop(self);
        transaction.request = None;
        serials.number(transaction, deadline).await
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        for open in &mut *self.serials.open.lock() {
            if open.client == self.request.client {
                open.unanswered.remove(&self.request.serial);
            }
        }
        self.serials.closed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    async fn number<'s>(serials: &'s Serials, transaction: &mut Transaction) -> Place<'s> {
        let deadline = Instant::now() + Duration::from_secs(20);
        serials.number(transaction, deadline).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn a_client_that_was_forgotten_takes_a_new_name_once_for_all_its_requests() {
        let serials = Serials::default();
        let (mut first, mut second) = (Transaction::new(), Transaction::new());
        let place = number(&serials, &mut first).await;
        let other = number(&serials, &mut second).await;
        let (old, deadline) = (first.request.unwrap(), Instant::now());
        let _place = place.anew(&mut first, 70, deadline).await.unwrap().unwrap();
        let _other = other.anew(&mut second, 71, deadline).await.unwrap().unwrap();
        let (first, second) = (first.request.unwrap(), second.request.unwrap());
        assert_ne!(first.client, old.client);
        assert_eq!((first.client, first.serial), (second.client, 1));
        assert_eq!((first.named_at(), second.serial), (70, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn one_slow_answer_keeps_no_other_request_waiting_and_no_request_waits_for_ever() {
        let serials = Serials::default();
        let slow = number(&serials, &mut Transaction::new()).await;
        for _ in 0..3 * ANSWERS {
            drop(number(&serials, &mut Transaction::new()).await);
        }
        let mut places = vec![slow];
        let limit = Duration::from_secs(1);
        while let Ok(place) = serials.number(&mut Transaction::new(), Instant::now() + limit).await
        {
            places.extend(place);
        }
        assert!(places.len() <= NAMES * ANSWERS, "{}", places.len());
        let waiting =
            (0..1000).map(|_| async { drop(number(&serials, &mut Transaction::new()).await) });
        let all = futures_util::future::join_all(waiting);
        tokio::join!(all, async { drop(places) });
    }

    #[tokio::test]
    async fn no_number_is_so_far_ahead_that_an_unanswered_one_could_be_forgotten() {
        let serials = Serials::default();
        let mut open = Vec::new();
        for _ in 0..2000 {
            let mut transaction = Transaction::new();
            open.push((number(&serials, &mut transaction).await, transaction.request.unwrap()));
        }
        for (_, request) in &open {
            let same = open.iter().filter(|(_, other)| other.client == request.client);
            assert!(
                same.clone()
                    .all(|(_, other)| other.serial.abs_diff(request.serial) < ANSWERS as u64)
            );
        }
    }
}
