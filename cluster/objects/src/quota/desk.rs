//! Creates of one namespace that need room in the same quotas, written many at a time.
//!
//! ```text
//! place ──> waiting of the namespace ──[take: one fence, no key twice, so many and so large at most]──> batch
//!                 ^                                                                                      │
//!                 │ next                             one transaction: all of them, and each quota once <─┘
//!                 └── applied: each is told its revision
//!                     a quota was written by another: read anew, the same batch again
//!                     an object is there already: its create is told so, the others again
//! ```
//!
//! Each would conflict with each other if they were written one by one at the same time, and wait for a disk one after
//! the other if they were not. A desk is there while somebody waits at it, is served by one task, and ends with it.
//! Who waits is told after a while that it was in vain. What is counted is exact without the desk, too: by the conditions
//! of the transaction, whichever member it comes from.

use super::book::Book;
use crate::pause::pause;
use impresario_api::policy::amounts::Amounts;
use impresario_api::policy::quota::counts;
use impresario_api::resource::{Resource, Row};
use impresario_api::status::Status;
use impresario_registry_api::{
    Compare, Consistency, Key, Operation, RegistryHandle, Remedy, Revision, TransactError,
    Transaction,
};
use impresario_runtime::tasks;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

/// Namespaces at whose desks somebody waits at once.
const MOST_DESKS: usize = 4096;
/// Creates that wait at one desk.
const MOST_WAITING: usize = 4096;
/// Creates of one transaction.
const MOST_TOGETHER: usize = 256;
/// Compares, and operations, of the creates of one transaction: the registry takes more, for the quotas.
const MOST_ITEMS: usize = 896;
/// Bytes of the creates of one transaction.
const MOST_BYTES: usize = 1024 * 1024;
/// Namespaces of which it is remembered what their quotas count.
const MOST_REMEMBERED: usize = 4096;
/// How long anybody waits.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it is waited at most for those that were just answered to come again.
const LONGEST_GATHERING: Duration = Duration::from_millis(5);
/// How often a batch is redone since somebody else was quicker.
const ATTEMPTS: usize = 20;

/// What is to be created.
pub(super) struct Order {
    /// Its kind.
    pub(super) resource: Row,
    /// The object.
    pub(super) object: Value,
    /// What it counts for.
    pub(super) usage: Amounts,
    /// Its name in refusals.
    pub(super) name: String,
    /// What creates it, quotas aside.
    pub(super) transaction: Transaction,
}

/// What became of a transaction; the outer error is a refusal.
pub(super) type Outcome = Result<Result<Revision, TransactError>, Status>;

struct Waiting {
    order: Order,
    ticket: u64,
    answer: oneshot::Sender<Outcome>,
}

#[derive(Default)]
struct Desk {
    id: u64,
    waiting: VecDeque<Waiting>,
    /// Told of each that comes.
    arrived: Arc<Notify>,
}

/// The desks of a process. Cheap to clone: clones are the same desks.
#[derive(Clone, Default)]
pub(crate) struct Desks(Arc<Open>);

#[derive(Default)]
struct Open {
    desks: Mutex<HashMap<String, Desk>>,
    tickets: AtomicU64,
    /// The names of what the quotas of a namespace bound, and at which revision of its mark.
    bounded: Mutex<HashMap<String, (Revision, BTreeSet<String>)>>,
}

impl Desks {
    /// Waits until it is created, or why it is not.
    pub(super) async fn place(
        &self,
        registry: &RegistryHandle,
        namespace: &str,
        order: Order,
    ) -> Outcome {
        let ticket = self.0.tickets.fetch_add(1, Ordering::Relaxed);
        let (answer, told) = oneshot::channel();
        let name = order.name.clone();
        let waiting = Waiting { order, ticket, answer };
        {
            let mut desks = self.0.desks.lock();
            let count = desks.len();
            match desks.get_mut(namespace) {
                Some(desk) if desk.waiting.len() >= MOST_WAITING => return Err(crowded(namespace)),
                Some(desk) => {
                    desk.waiting.push_back(waiting);
                    desk.arrived.notify_one();
                }
                None if count >= MOST_DESKS => return Err(crowded(namespace)),
                None => {
                    let arrived = Arc::<Notify>::default();
                    let service = Service {
                        desks: self.clone(),
                        namespace: namespace.to_owned(),
                        id: ticket,
                        arrived: arrived.clone(),
                    };
                    let desk = Desk { id: ticket, waiting: [waiting].into(), arrived };
                    desks.insert(namespace.to_owned(), desk);
                    // It ends with the last that waits; each of its steps ends by itself.
                    drop(tasks::spawn(service.run(registry.clone())));
                }
            }
        }
        let unknown = || {
            Status::timeout(format!(
                "no answer within {PATIENCE:?}: {name} may be created, read it before retrying"
            ))
        };
        match timeout(PATIENCE, told).await {
            Ok(Ok(outcome)) => outcome,
            Err(_) if self.give_up(namespace, ticket) => Err(Status::unavailable(
                format!("too many creates wait in namespace {namespace}: try again"),
                1,
            )),
            // It was taken, and nobody tells what came of it.
            Ok(Err(_)) | Err(_) => Err(unknown()),
        }
    }

    /// Whether who does not wait any longer was not taken yet: then nothing comes of it.
    fn give_up(&self, namespace: &str, ticket: u64) -> bool {
        let mut desks = self.0.desks.lock();
        let Some(desk) = desks.get_mut(namespace) else { return false };
        let before = desk.waiting.len();
        desk.waiting.retain(|waiting| waiting.ticket != ticket);
        desk.waiting.len() < before
    }

    /// Whether objects of a kind are counted in a namespace whose mark is at this revision, if that is known.
    pub(super) fn counts(
        &self,
        namespace: &str,
        marked: Revision,
        resource: &Resource,
    ) -> Option<bool> {
        let bounded = self.0.bounded.lock();
        let (at, names) = bounded.get(namespace)?;
        (*at == marked).then(|| names.iter().any(|name| counts(resource, name)))
    }

    /// Remembers what is bounded in a namespace, as long as its mark is at this revision.
    pub(super) fn remember(&self, namespace: &str, bounded: (Revision, BTreeSet<String>)) {
        let mut all = self.0.bounded.lock();
        if all.len() >= MOST_REMEMBERED && !all.contains_key(namespace) {
            // Which ones are known makes creates quicker and nothing else.
            all.clear();
        }
        all.insert(namespace.to_owned(), bounded);
    }

    /// How many desks are open.
    #[cfg(test)]
    pub(super) fn open(&self) -> usize {
        self.0.desks.lock().len()
    }
}

fn crowded(namespace: &str) -> Status {
    Status::too_many_requests(format!("too many creates wait in namespace {namespace}"), 1)
}

/// Who serves one desk.
struct Service {
    desks: Desks,
    namespace: String,
    id: u64,
    arrived: Arc<Notify>,
}

impl Drop for Service {
    /// Who waits is not left waiting, however the service ends.
    fn drop(&mut self) {
        let mut desks = self.desks.0.desks.lock();
        if desks.get(&self.namespace).is_some_and(|desk| desk.id == self.id) {
            desks.remove(&self.namespace);
        }
    }
}

impl Service {
    async fn run(self, registry: RegistryHandle) {
        let mut book = None;
        while let Some(batch) = self.take() {
            let (count, begun) = (batch.len(), Instant::now());
            settle(&registry, &self.namespace, batch, &mut book).await;
            self.gather(count, begun.elapsed()).await;
        }
    }

    /// Whoever was just answered may come again at once: waits a little until as many are there as were in the last batch.
    /// Else the first of them would go alone, all others would wait for it, and each would wait twice as long as need be.
    async fn gather(&self, last: usize, took: Duration) {
        let until = Instant::now() + (took / 4).min(LONGEST_GATHERING);
        let waiting = || {
            let desks = self.desks.0.desks.lock();
            desks.get(&self.namespace).map_or(0, |desk| desk.waiting.len())
        };
        while last > 1 && waiting() < last {
            if timeout_at(until, self.arrived.notified()).await.is_err() {
                return;
            }
        }
    }

    /// The next that are written together: the first that waits, and who can go with it. Nobody waits: the desk is closed.
    fn take(&self) -> Option<Vec<Waiting>> {
        let mut desks = self.desks.0.desks.lock();
        let desk = desks.get_mut(&self.namespace)?;
        // Who does not listen any more was not promised anything.
        desk.waiting.retain(|waiting| !waiting.answer.is_closed());
        let Some(first) = desk.waiting.front() else {
            desks.remove(&self.namespace);
            return None;
        };
        let fence = first.order.transaction.fence;
        let (mut batch, mut left) = (Vec::new(), VecDeque::new());
        let (mut keys, mut items, mut bytes) = (HashSet::<Key>::new(), 0, 0);
        for waiting in desk.waiting.drain(..) {
            let transaction = &waiting.order.transaction;
            let size = transaction.compares.len().max(transaction.operations.len());
            let weight = transaction.bytes();
            let written = || transaction.operations.iter().map(Operation::key);
            let fits = batch.is_empty()
                || (transaction.fence == fence
                    && batch.len() < MOST_TOGETHER
                    && items + size <= MOST_ITEMS
                    && bytes + weight <= MOST_BYTES
                    && !written().any(|key| keys.contains(key)));
            if fits {
                keys.extend(written().cloned());
                items += size;
                bytes += weight;
                batch.push(waiting);
            } else {
                left.push_back(waiting);
            }
        }
        desk.waiting = left;
        Some(batch)
    }
}

fn answer_all(batch: Vec<Waiting>, outcome: &Outcome) {
    for waiting in batch {
        // Who does not listen any more has given up.
        let _ = waiting.answer.send(outcome.clone());
    }
}

fn refuse_all(refused: Vec<(Waiting, String)>) {
    for (waiting, why) in refused {
        let Order { resource, name, .. } = &waiting.order;
        let status = Status::forbidden(resource, name, why);
        let _ = waiting.answer.send(Err(status));
    }
}

/// Those for which there was no room, to be tried again.
fn again(refused: Vec<(Waiting, String)>) -> Vec<Waiting> {
    refused.into_iter().map(|(waiting, _)| waiting).collect()
}

/// Writes a batch, redone as long as others are quicker.
async fn settle(
    registry: &RegistryHandle,
    namespace: &str,
    batch: Vec<Waiting>,
    known: &mut Option<Book>,
) {
    // What is too large together is written one by one.
    let mut batches = vec![batch];
    let (mut attempt, mut is_fresh) = (0, false);
    while let Some(batch) = batches.pop() {
        if batch.is_empty() {
            continue;
        }
        let book = match known.take() {
            Some(book) => book,
            None => {
                is_fresh = attempt > 0;
                let consistency =
                    if is_fresh { Consistency::Linearizable } else { Consistency::Local };
                match Book::read(registry, namespace, consistency).await {
                    Ok(book) => book,
                    Err(status) => {
                        answer_all(batch, &Err(status));
                        continue;
                    }
                }
            }
        };
        let mut charged = book.clone();
        let (admitted, refused) = charge_all(&mut charged, batch);
        if !refused.is_empty() && !is_fresh {
            // By what was read a while ago nobody is refused.
            batches.push(admitted.into_iter().chain(again(refused)).collect());
            attempt = attempt.max(1);
            continue;
        }
        if admitted.is_empty() {
            refuse_all(refused);
            *known = Some(book);
            continue;
        }
        let transaction = match together(&charged, &admitted) {
            Ok(transaction) => transaction,
            Err(status) => {
                answer_all(admitted, &Err(status));
                batches.push(again(refused));
                continue;
            }
        };
        match registry.transact(transaction).await {
            Ok(committed) => {
                charged.written(committed.revision);
                *known = Some(charged);
                is_fresh = false;
                answer_all(admitted, &Ok(Ok(committed.revision)));
                // Not before: of those that took the room, one may not be created after all.
                refuse_all(refused);
            }
            Err(TransactError::Conflict { key, expected, found }) => {
                let asks = |waiting: &Waiting| {
                    waiting.order.transaction.compares.iter().any(|compare| *compare.key() == key)
                };
                let (lost, mut others): (Vec<_>, Vec<_>) = admitted.into_iter().partition(asks);
                others.extend(again(refused));
                if !lost.is_empty() {
                    // Theirs alone: what is wrong with one keeps no other from being created.
                    let conflict = TransactError::Conflict { key, expected, found };
                    answer_all(lost, &Ok(Err(conflict)));
                    *known = Some(book);
                    batches.push(others);
                    continue;
                }
                attempt += 1;
                if attempt >= ATTEMPTS {
                    let why = "somebody else was quicker each time: try again";
                    answer_all(others, &Err(Status::unavailable(why, 1)));
                    continue;
                }
                if attempt > 1 {
                    pause(attempt).await;
                }
                batches.push(others);
            }
            Err(error) if error.remedy() == Remedy::GiveUp && admitted.len() > 1 => {
                *known = Some(book);
                batches.push(again(refused));
                batches.extend(admitted.into_iter().rev().map(|waiting| vec![waiting]));
            }
            // What may have been applied is read anew by the next.
            Err(error) => {
                answer_all(admitted, &Ok(Err(error)));
                batches.push(again(refused));
            }
        }
    }
}

/// Charges one after the other; those for which there is no room, and why.
fn charge_all(book: &mut Book, batch: Vec<Waiting>) -> (Vec<Waiting>, Vec<(Waiting, String)>) {
    let (mut admitted, mut refused) = (Vec::new(), Vec::new());
    for waiting in batch {
        let Order { resource, object, usage, .. } = &waiting.order;
        match book.charge(resource, object, usage, true) {
            Ok(()) => admitted.push(waiting),
            Err(why) => refused.push((waiting, why)),
        }
    }
    (admitted, refused)
}

/// One transaction of all, with each quota once.
fn together(book: &Book, batch: &[Waiting]) -> Result<Transaction, Status> {
    let mut all = Transaction { compares: book.compares(), ..Transaction::default() };
    let mut seen = HashMap::<&Key, Vec<&Compare>>::new();
    for waiting in batch {
        let transaction = &waiting.order.transaction;
        all.fence = transaction.fence;
        for compare in &transaction.compares {
            let same = seen.entry(compare.key()).or_default();
            if !same.contains(&compare) {
                same.push(compare);
                all.compares.push(compare.clone());
            }
        }
        all.operations.extend(transaction.operations.iter().cloned());
    }
    all.operations.extend(book.operations()?);
    Ok(all)
}

#[cfg(test)]
mod tests;
