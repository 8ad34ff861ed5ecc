//! Turns for what is computed of long answers: a few of them at a time.
//!
//! Lists and watches read and write objects of megabytes, for as many clients as there are. Each does so in turn, and
//! only so many at once that a processor is left for everybody else: however many there are, a request that is small
//! is answered meanwhile. Turns go round among the users who wait for one, so that one who waits for thousands
//! holds up another by one; the system's own have every second one.

use crate::budget::Holder;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::sync::oneshot;

/// Most turns at a time, on a machine with many processors.
const MOST: usize = 4;

/// The turns of one gateway.
#[derive(Debug, Clone)]
pub struct AllTurns(Arc<Mutex<Queue>>);

/// The turns of one user.
#[derive(Debug, Clone)]
pub struct Turns {
    all: AllTurns,
    holder: Holder,
}

/// Those of one user who wait, in the order in which they came.
type Waiting = BTreeMap<u64, oneshot::Sender<()>>;

#[derive(Debug, Default)]
struct Queue {
    /// Turns that nobody has.
    free: usize,
    next: u64,
    system: Waiting,
    system_was_last: bool,
    /// The users in `others`, first the one who is next.
    order: VecDeque<Holder>,
    others: HashMap<Holder, Waiting>,
}

impl Queue {
    /// Who is next, and has been waiting longest of its user.
    fn pop(&mut self) -> Option<oneshot::Sender<()>> {
        if !self.system_was_last
            && let Some((_, first)) = self.system.pop_first()
        {
            self.system_was_last = true;
            return Some(first);
        }
        self.system_was_last = false;
        while let Some(holder) = self.order.pop_front() {
            let first = self.others.get_mut(&holder).and_then(Waiting::pop_first);
            if let Some((_, first)) = first {
                self.order.push_back(holder);
                return Some(first);
            }
            // All of its have gone away.
            self.others.remove(&holder);
        }
        self.system.pop_first().map(|(_, first)| first)
    }

    /// Gives what is free to those who wait.
    fn hand_out(&mut self) {
        while self.free > 0
            && let Some(next) = self.pop()
        {
            self.free -= usize::from(next.send(()).is_ok());
        }
    }

    fn wait(&mut self, holder: &Holder) -> (u64, oneshot::Receiver<()>) {
        let (tell, told) = oneshot::channel();
        let number = self.next;
        self.next += 1;
        if holder.is_system() {
            self.system.insert(number, tell);
        } else {
            let waiting = self.others.entry(holder.clone()).or_insert_with(|| {
                self.order.push_back(holder.clone());
                Waiting::new()
            });
            waiting.insert(number, tell);
        }
        self.hand_out();
        (number, told)
    }

    fn leave(&mut self, holder: &Holder, number: u64) {
        if holder.is_system() {
            self.system.remove(&number);
        } else if let Some(waiting) = self.others.get_mut(holder) {
            waiting.remove(&number);
        }
    }
}

impl AllTurns {
    /// Turns for half of the processors.
    pub fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, |count| count.get() / 2);
        Self::of(processors.clamp(1, MOST))
    }

    fn of(count: usize) -> Self {
        Self(Arc::new(Mutex::new(Queue { free: count, ..Queue::default() })))
    }

    /// The turns of this user.
    pub fn of_user(&self, holder: Holder) -> Turns {
        Turns { all: self.clone(), holder }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A turn; over when dropped.
#[derive(Debug)]
struct Turn(AllTurns);

impl Drop for Turn {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.free += 1;
        queue.hand_out();
    }
}

/// A turn that is waited for.
struct Coming {
    turns: Turns,
    number: u64,
    told: oneshot::Receiver<()>,
    /// Whether its turn has come.
    is_told: bool,
}

impl Coming {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Turn> {
        // Who waits is in the queue, which tells it before it forgets it.
        let _told = ready!(Pin::new(&mut self.told).poll(context));
        self.is_told = true;
        Poll::Ready(Turn(self.turns.all.clone()))
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        if self.is_told {
            return;
        }
        self.turns.all.queue().leave(&self.turns.holder, self.number);
        self.told.close();
        // It was its turn, and it has not taken it.
        if self.told.try_recv().is_ok() {
            drop(Turn(self.turns.all.clone()));
        }
    }
}

impl Turns {
    fn ask(&self) -> Coming {
        let (number, told) = self.all.queue().wait(&self.holder);
        Coming { turns: self.clone(), number, told, is_told: false }
    }

    /// A turn that is free now: where one is, nobody waits.
    fn free(&self) -> Option<Turn> {
        let mut queue = self.all.queue();
        queue.free = queue.free.checked_sub(1)?;
        Some(Turn(self.all.clone()))
    }

    /// Does work that computes only in turn. A turn ends wherever the work waits: nobody has one who waits for the
    /// registry or for a client, so that one comes after as many steps of others as there are users before it. Whoever
    /// cannot wait for that puts a deadline around all of it.
    pub async fn by_turns<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let mut coming: Option<Coming> = None;
        poll_fn(|context| {
            let free = if coming.is_none() { self.free() } else { None };
            let _turn = match free {
                Some(turn) => turn,
                None => ready!(coming.get_or_insert_with(|| self.ask()).poll(context)),
            };
            coming = None;
            work.as_mut().poll(context)
        })
        .await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn ann(turns: &AllTurns) -> Turns {
        turns.of_user(Holder::named("ann"))
    }

    /// The only turn, taken.
    fn taken(turns: &AllTurns) -> Turn {
        let mut coming = turns.of_user(Holder::named("zoe")).ask();
        poll_fn(|context| coming.poll(context)).now_or_never().unwrap()
    }

    #[tokio::test]
    async fn nothing_is_computed_while_others_have_all_turns() {
        let turns = AllTurns::of(1);
        let computed = AtomicBool::new(false);
        let other = taken(&turns);
        let own = ann(&turns);
        let mut work = Box::pin(own.by_turns(async { computed.store(true, Ordering::Relaxed) }));
        assert!(work.as_mut().now_or_never().is_none() && !computed.load(Ordering::Relaxed));
        drop(other);
        work.await;
        assert!(computed.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn who_waits_has_no_turn() {
        let turns = AllTurns::of(1);
        let own = ann(&turns);
        let (tell, told) = oneshot::channel();
        let mut waits = Box::pin(own.by_turns(told));
        assert!(waits.as_mut().now_or_never().is_none());
        own.by_turns(async { tell.send(7).unwrap() }).await;
        assert_eq!(waits.await, Ok(7));
        // Nor has who went away while waiting for one, nor who was told that it is its turn and went then.
        let other = taken(&turns);
        assert!(own.by_turns(async {}).now_or_never().is_none());
        let goes = own.ask();
        drop(other);
        drop(goes);
        assert!(own.by_turns(async {}).now_or_never().is_some());
        assert_eq!(turns.queue().free, 1);
    }

    #[tokio::test]
    async fn a_user_who_waits_for_thousands_of_turns_holds_up_another_by_one() {
        let turns = AllTurns::of(1);
        let first = taken(&turns);
        let eves = turns.of_user(Holder::named("eve"));
        let crowd: Vec<Coming> = (0..2_000).map(|_| eves.ask()).collect();
        let mut anns = ann(&turns).ask();
        let mut masters = turns.of_user(Holder::master("admin")).ask();
        let has = |coming: &mut Coming| poll_fn(|context| coming.poll(context)).now_or_never();
        drop(first);
        let system = has(&mut masters).expect("the system's own come first");
        assert!(has(&mut anns).is_none());
        drop(system);
        let mut crowd = crowd.into_iter();
        let mut eve = crowd.next().unwrap();
        drop(has(&mut eve).expect("eve came before ann"));
        drop(has(&mut anns).expect("then it is ann's turn"));
        // Those who go away leave nothing behind.
        drop((crowd, eve, anns, masters));
        drop(taken(&turns));
        let queue = turns.queue();
        assert_eq!((queue.free, queue.order.len()), (1, queue.others.len()));
        assert!(queue.others.values().all(BTreeMap::is_empty));
    }
}
