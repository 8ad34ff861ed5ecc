//! Numbers for requests, so that one that is sent again is known and applied once.

use crate::transaction::{RequestId, Transaction};
use parking_lot::Mutex;
use std::{collections::BTreeSet, pin::pin};
use tokio::sync::Notify;

/// Answers that a registry keeps for each client; a client numbers no request so far ahead of one that is not
/// answered yet.
pub const ANSWERS: usize = 256;

/// Numbers the requests of one client. No number is given that is so far ahead of an unanswered one that the state
/// machine could forget in between whether it applied that one. A client that was silent for so long that it has
/// been forgotten takes a new name.
#[derive(Debug)]
pub struct Serials {
    open: Mutex<Open>,
    closed: Notify,
}

#[derive(Debug)]
struct Open {
    client: u128,
    last: u64,
    unanswered: BTreeSet<u64>,
}

impl Default for Serials {
    fn default() -> Self {
        Self { open: Mutex::new(Open::named_at(0)), closed: Notify::new() }
    }
}

impl Serials {
    /// Numbers a transaction that has no number; the place is given back when its answer is known.
    pub async fn number(&self, transaction: &mut Transaction) -> Option<Place<'_>> {
        if transaction.request.is_some() {
            return None;
        }
        loop {
            let mut closed = pin!(self.closed.notified());
            closed.as_mut().enable();
            if let Some(request) = self.open.lock().take() {
                transaction.request = Some(request);
                return Some(Place { serials: self, request });
            }
            closed.await;
        }
    }

    /// Takes a new name in place of the one that was forgotten, unless that has been done meanwhile.
    fn rename(&self, forgotten: u128, heard: u64) {
        let mut open = self.open.lock();
        if open.client == forgotten {
            *open = Open::named_at(heard);
        }
        drop(open);
        self.closed.notify_waiters();
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

impl Place<'_> {
    /// Numbers the transaction anew after its number was forgotten, `heard` being what the registry said. Only
    /// for a transaction of which no attempt can have been applied.
    pub async fn anew(self, transaction: &mut Transaction, heard: u64) -> Option<Self> {
        let serials = self.serials;
        serials.rename(self.request.client, heard);
        drop(self);
        transaction.request = None;
        serials.number(transaction).await
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut open = self.serials.open.lock();
        if open.client == self.request.client {
            open.unanswered.remove(&self.request.serial);
        }
        drop(open);
        self.serials.closed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn a_client_that_was_forgotten_takes_a_new_name_once_for_all_its_requests() {
        let serials = Serials::default();
        let (mut first, mut second) = (Transaction::new(), Transaction::new());
        let place = serials.number(&mut first).now_or_never().unwrap().unwrap();
        let other = serials.number(&mut second).now_or_never().unwrap().unwrap();
        let old = first.request.unwrap();
        let _place = place.anew(&mut first, 70).now_or_never().unwrap().unwrap();
        let _other = other.anew(&mut second, 71).now_or_never().unwrap().unwrap();
        let (first, second) = (first.request.unwrap(), second.request.unwrap());
        assert_ne!(first.client, old.client);
        assert_eq!((first.client, first.serial), (second.client, 1));
        assert_eq!((first.named_at(), second.serial), (70, 2));
    }
}
