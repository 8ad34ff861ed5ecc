//! Budgets: how much of this node one peer may take up, by its role.
//!
//! An [`Account`] counts the bytes that are held for one peer: requests being put together, items and replies that it
//! has not taken yet, tells that wait for a mailbox. It draws on a [`Pool`] that all peers of its kind share. What one
//! may hold shrinks with what is left in the pool (the dynamic thresholds of Choudhury and Hahne, 1998), down to a floor
//! that each has for itself: many that never read take the pool up together, and the next one is still answered.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;

/// What one peer may take up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Bytes that are held for it at a time, as long as the pool of its kind has as much left.
    pub bytes: usize,
    /// Asks, tells and openings of streams that actors work on for it, whether or not it still waits for the answer.
    pub asks: usize,
    /// Streams, of large asks or of items, that it holds open.
    pub streams: u32,
    /// Death watches that it keeps.
    pub watches: usize,
    /// The longest deadline that it may choose; a longer one is cut to this.
    pub deadline: Duration,
}

/// Releases what a [`Hold`] holds.
pub(crate) trait Holds: Send + Sync {
    fn release(&self, bytes: usize);
}

/// Bytes that are held until this is dropped.
pub(crate) struct Hold {
    bytes: usize,
    on: Arc<dyn Holds>,
}

impl Hold {
    pub(crate) fn new(bytes: usize, on: Arc<dyn Holds>) -> Self {
        Self { bytes, on }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.on.release(self.bytes);
    }
}

/// What all peers of one kind hold together.
pub(crate) struct Pool {
    capacity: usize,
    /// What each may hold whatever the others do.
    floor: usize,
    held: AtomicUsize,
    room: Notify,
    waiting: AtomicUsize,
}

impl Pool {
    pub(crate) fn new(capacity: usize, floor: usize) -> Arc<Self> {
        Arc::new(Self {
            capacity,
            floor,
            held: AtomicUsize::new(0),
            room: Notify::new(),
            waiting: AtomicUsize::new(0),
        })
    }

    #[cfg(test)]
    fn held(&self) -> usize {
        self.held.load(Ordering::Acquire)
    }

    /// Tries `take` until it succeeds or `over` ends, each time that something was released.
    async fn when_room<T>(
        &self,
        mut take: impl FnMut() -> Option<T>,
        over: impl Future<Output = ()>,
    ) -> Option<T> {
        struct Waits<'a>(&'a AtomicUsize);
        impl Drop for Waits<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::AcqRel);
            }
        }
        tokio::pin!(over);
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let _waits = Waits(&self.waiting);
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            // From here on a release is not missed.
            room.as_mut().enable();
            if let Some(taken) = take() {
                return Some(taken);
            }
            tokio::select! {
                () = room => {}
                () = &mut over => return None,
            }
        }
    }

    fn released(&self) {
        if self.waiting.load(Ordering::Acquire) > 0 {
            self.room.notify_waiters();
        }
    }
}

/// Whether a peer that holds `own` bytes may hold `more`, with `held` of the pool taken by all.
fn fits(own: usize, more: usize, most: usize, held: usize, pool: &Pool) -> bool {
    own.checked_add(more).is_some_and(|sum| {
        sum <= most && (sum <= pool.floor || sum <= pool.capacity.saturating_sub(held))
    })
}

/// What one peer holds.
pub(crate) struct Account {
    pool: Arc<Pool>,
    most: usize,
    held: AtomicUsize,
}

impl Account {
    pub(crate) fn new(pool: &Arc<Pool>, most: usize) -> Arc<Self> {
        Arc::new(Self { pool: pool.clone(), most, held: AtomicUsize::new(0) })
    }

    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Acquire)
    }

    fn add(&self, bytes: usize) -> bool {
        let pool = self.pool.held.fetch_add(bytes, Ordering::AcqRel);
        let own = self.held.fetch_add(bytes, Ordering::AcqRel);
        if fits(own, bytes, self.most, pool, &self.pool) {
            return true;
        }
        self.subtract(bytes);
        false
    }

    fn subtract(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::AcqRel);
        self.pool.held.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// Holds so many bytes for the peer; `None` when that is over its budget.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Option<Hold> {
        self.add(bytes).then(|| Hold::new(bytes, self.clone()))
    }
}

impl Holds for Account {
    fn release(&self, bytes: usize) {
        self.subtract(bytes);
        self.pool.released();
    }
}

/// What one stream of items holds of its peer's account.
pub(crate) struct StreamAccount {
    account: Arc<Account>,
    held: AtomicUsize,
}

/// What a stream holds ahead of its reader, or one item if that is larger.
const STREAM_AHEAD_BYTES: usize = 256 << 10;

impl StreamAccount {
    pub(crate) fn new(account: &Arc<Account>) -> Arc<Self> {
        Arc::new(Self { account: account.clone(), held: AtomicUsize::new(0) })
    }

    /// What its peer may hold at most.
    pub(crate) fn most(&self) -> usize {
        self.account.most
    }

    /// Whether an item has a chance: it is worth encoding.
    pub(crate) fn has_room(&self) -> bool {
        self.held.load(Ordering::Acquire) < STREAM_AHEAD_BYTES
    }

    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Option<Hold> {
        let before = self.held.fetch_add(bytes, Ordering::AcqRel);
        let fits = before == 0 || before.saturating_add(bytes) <= STREAM_AHEAD_BYTES;
        if fits && self.account.add(bytes) {
            return Some(Hold::new(bytes, self.clone()));
        }
        self.held.fetch_sub(bytes, Ordering::AcqRel);
        None
    }

    /// Waits until `try_it` succeeds, looking again whenever something was released; `None` when `over` ends first.
    pub(crate) async fn when_room<T>(
        &self,
        try_it: impl FnMut() -> Option<T>,
        over: impl Future<Output = ()>,
    ) -> Option<T> {
        self.account.pool.when_room(try_it, over).await
    }
}

impl Holds for StreamAccount {
    fn release(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::AcqRel);
        self.account.release(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use impresario_ambient::tasks;
    use proptest::prelude::*;

    #[test]
    fn what_is_held_is_released_with_its_last_owner() {
        let pool = Pool::new(1000, 0);
        let account = Account::new(&pool, 400);
        let hold = account.take(300).unwrap();
        assert!(account.take(101).is_none(), "over its own budget");
        assert_eq!((account.held(), pool.held()), (300, 300));
        drop(hold);
        assert_eq!((account.held(), pool.held()), (0, 0));
        assert!(account.take(usize::MAX).is_none());
        assert_eq!((account.held(), pool.held()), (0, 0));
    }

    #[test]
    fn a_hundred_that_take_all_they_can_stay_within_the_pool_and_leave_room_for_the_next() {
        let pool = Pool::new(100 << 20, 64 << 10);
        let mut holds = Vec::new();
        for _ in 0..100 {
            let greedy = Account::new(&pool, 64 << 20);
            while let Some(hold) = greedy.take(16 << 10) {
                holds.push(hold);
            }
        }
        assert!(pool.held() <= (100 << 20) + 100 * (64 << 10), "{} held", pool.held());
        assert!(Account::new(&pool, 64 << 20).take(64 << 10).is_some());
    }

    #[test]
    fn a_stream_takes_one_item_of_any_size_and_then_little_ahead() {
        let account = Account::new(&Pool::new(10 << 20, 0), 10 << 20);
        let stream = StreamAccount::new(&account);
        let large = stream.take(2 << 20).unwrap();
        assert!(!stream.has_room());
        assert!(stream.take(1).is_none());
        drop(large);
        let one = stream.take(STREAM_AHEAD_BYTES - 1).unwrap();
        let other = stream.take(1).unwrap();
        assert!(stream.take(1).is_none());
        drop((one, other));
        assert_eq!(account.held(), 0);
    }

    #[tokio::test]
    async fn who_waits_for_room_gets_it_when_something_is_released() {
        let account = Account::new(&Pool::new(100, 0), 100);
        let stream = StreamAccount::new(&account);
        let hold = account.take(60).unwrap();
        let waiting = tasks::spawn({
            let stream = stream.clone();
            async move { stream.when_room(|| stream.take(50), std::future::pending()).await }
        });
        tokio::task::yield_now().await;
        drop(hold);
        assert!(waiting.await.unwrap().is_some());
    }

    proptest! {
        #[test]
        fn nobody_is_over_its_budget_nor_all_over_the_pool(
            takes in prop::collection::vec((0usize..5, 0usize..2000), 1..200),
        ) {
            let pool = Pool::new(3000, 50);
            let accounts: Vec<_> = (0..5).map(|_| Account::new(&pool, 1200)).collect();
            let mut holds = Vec::new();
            for (index, (who, bytes)) in takes.into_iter().enumerate() {
                if let Some(hold) = accounts[who].take(bytes) {
                    holds.push(hold);
                }
                prop_assert!(accounts[who].held() <= 1200);
                prop_assert!(pool.held() <= 3000 + 5 * 50);
                if index % 3 == 0 && !holds.is_empty() {
                    holds.remove(0);
                }
                prop_assert_eq!(pool.held(), accounts.iter().map(|one| one.held()).sum::<usize>());
            }
        }
    }
}
