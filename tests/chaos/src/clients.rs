//! Clients of the registry that work while it is broken, and write down what they were told.
//!
//! Some use the registry as every program does and go on at another member when one fails; the
//! others are bound to one member each, so that a member that is cut off or was paused is asked,
//! too, and may not answer with what is no longer true. Registers are read, written and swapped;
//! the ledger gets entries that are written once each.

use crate::cluster::{HarnessError, Session};
use crate::history::{Action, History, LedgerEntry, Operation, Outcome};
use impresario_registry_api::{
    Compare, Consistency, Key, ListRequest, Operation as Write, RegistryHandle, Remedy, Selection,
    TransactError, Transaction,
};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;

/// Clients that go where they are answered. Few, so that a history stays decidable.
const ROAMING: u32 = 5;
/// Registers that all share.
const REGISTERS: u32 = 4;
/// Those who write in the ledger.
const WRITERS: u32 = 2;
/// The mean pause of a client between two operations.
const PAUSE: Duration = Duration::from_millis(60);
/// The resource under which the registers are kept; nobody else looks there.
pub(crate) const REGISTER: &str = "chaos.impresario.dev/registers";
/// The resource of the ledger.
pub(crate) const LEDGER: &str = "chaos.impresario.dev/ledger";
/// The number under which every register is read in the end.
const LAST: u32 = u32::MAX;

/// A register as the registry stores it.
fn register_key(register: u32) -> Key {
    Key::new(REGISTER, "", format!("r{register}"))
}

/// An entry of the ledger as the registry stores it.
fn ledger_key(number: u64) -> Key {
    Key::new(LEDGER, "", format!("e{number}"))
}

/// A value as the registry stores it.
fn stored(value: u64) -> bytes::Bytes {
    json!({ "value": value }).to_string().into_bytes().into()
}

fn value(bytes: &[u8]) -> Option<u64> {
    serde_json::from_slice::<Value>(bytes).ok()?["value"].as_u64()
}

/// The clients. They work until told to stop.
pub struct Clients {
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
    shared: Arc<Shared>,
}

struct Shared {
    history: Mutex<History>,
    began: Instant,
    /// The next value: each is written once, so that a read names its write.
    values: AtomicU64,
    /// The next client number, for one that goes on after an unknown outcome.
    clients: AtomicU32,
}

impl Clients {
    /// Starts the clients.
    #[must_use]
    pub fn start(session: &Session, seed: u64) -> Self {
        let (stop, stopping) = watch::channel(false);
        let mut ways: Vec<RegistryHandle> = (0..ROAMING).map(|_| session.roaming()).collect();
        ways.extend(session.members.iter().map(|member| session.through(member)));
        let count = u32::try_from(ways.len()).unwrap_or(u32::MAX);
        let shared = Arc::new(Shared {
            history: Mutex::default(),
            began: Instant::now(),
            values: AtomicU64::new(1),
            clients: AtomicU32::new(count),
        });
        let random = |place: u32| StdRng::seed_from_u64(seed ^ (u64::from(place) << 32));
        let mut tasks = JoinSet::new();
        for (client, way) in (0..).zip(ways) {
            let random = random(client);
            tasks.spawn(use_registers(way, shared.clone(), client, random, stopping.clone()));
        }
        for writer in 0..WRITERS {
            let random = random(count + writer);
            tasks.spawn(use_ledger(session.roaming(), shared.clone(), random, stopping.clone()));
        }
        Self { tasks, stop, shared }
    }

    /// Tells the clients to stop after what they are at, and waits until they have.
    pub async fn stop(&mut self) -> Result<(), HarnessError> {
        let _ = self.stop.send(true); // they may have ended
        while let Some(ended) = self.tasks.join_next().await {
            ended.map_err(HarnessError::lost("using the registry"))?;
        }
        Ok(())
    }

    /// Reads every register and the ledger once more; to be called when the clients have stopped.
    pub async fn read_all(self, session: &Session) -> History {
        let mut history = std::mem::take(&mut *self.shared.history.lock().await);
        if let Err(reason) = self.read_into(&mut history, session).await {
            history.unreadable = Some(reason);
        }
        history
    }

    async fn read_into(&self, history: &mut History, session: &Session) -> Result<(), String> {
        for register in 0..REGISTERS {
            let called = self.shared.began.elapsed();
            let seen = read(&session.registry, register)
                .await
                .map_err(|error| format!("register {register}: {error}"))?;
            history.registers.push(Operation {
                client: LAST,
                register,
                action: Action::Read { seen },
                outcome: Outcome::Ok,
                called,
                returned: self.shared.began.elapsed(),
            });
        }
        let all = ListRequest::of(Selection::all(LEDGER));
        let page =
            session.registry.list(all).await.map_err(|error| format!("the ledger: {error}"))?;
        let entries = page.entries.iter().filter_map(|entry| {
            let number = entry.key.name.strip_prefix('e')?.parse().ok()?;
            Some((number, value(&entry.value)?))
        });
        history.ledger_in_the_end = entries.collect();
        Ok(())
    }
}

async fn pause(random: &mut StdRng, stopping: &mut watch::Receiver<bool>) {
    let pause = PAUSE.mul_f64(random.random_range(0.5..1.5));
    let _ = tokio::time::timeout(pause, stopping.wait_for(|stop| *stop)).await;
}

async fn use_ledger(
    registry: RegistryHandle,
    shared: Arc<Shared>,
    mut random: StdRng,
    mut stopping: watch::Receiver<bool>,
) {
    while !*stopping.borrow() {
        let number = shared.values.fetch_add(1, Ordering::Relaxed);
        let key = ledger_key(number);
        let compares = vec![Compare::Absent { key: key.clone() }];
        let outcome = write(&registry, key, number, compares).await;
        shared.history.lock().await.ledger.push(LedgerEntry { number, outcome });
        pause(&mut random, &mut stopping).await;
    }
}

async fn use_registers(
    registry: RegistryHandle,
    shared: Arc<Shared>,
    mut client: u32,
    mut random: StdRng,
    mut stopping: watch::Receiver<bool>,
) {
    let mut known = [None; REGISTERS as usize];
    while !*stopping.borrow() {
        let register = random.random_range(0..REGISTERS);
        let fresh = || shared.values.fetch_add(1, Ordering::Relaxed);
        let wish = match random.random_range(0..10) {
            0..=3 => Action::Read { seen: None },
            4..=6 => Action::Write { value: fresh() },
            _ => Action::Swap { expected: known[register as usize], value: fresh() },
        };
        let called = shared.began.elapsed();
        let (action, outcome) = perform(&registry, register, wish).await;
        let returned = shared.began.elapsed();
        known[register as usize] = match (action, outcome) {
            (Action::Read { seen }, Outcome::Ok) => seen,
            (Action::Write { value } | Action::Swap { value, .. }, Outcome::Ok) => Some(value),
            _ => known[register as usize],
        };
        let operation = Operation { client, register, action, outcome, called, returned };
        shared.history.lock().await.registers.push(operation);
        if outcome == Outcome::Unknown {
            client = shared.clients.fetch_add(1, Ordering::Relaxed);
        }
        pause(&mut random, &mut stopping).await;
    }
}

async fn read(
    registry: &RegistryHandle,
    register: u32,
) -> Result<Option<u64>, impresario_registry_api::ReadError> {
    let (entry, _) = registry.get(register_key(register), Consistency::Linearizable).await?;
    Ok(entry.and_then(|entry| value(&entry.value)))
}

async fn perform(registry: &RegistryHandle, register: u32, wish: Action) -> (Action, Outcome) {
    let key = register_key(register);
    match wish {
        Action::Read { .. } => match read(registry, register).await {
            Ok(seen) => (Action::Read { seen }, Outcome::Ok),
            Err(_) => (wish, Outcome::Failed),
        },
        Action::Write { value } => (wish, write(registry, key, value, Vec::new()).await),
        Action::Swap { expected, value: new } => {
            // The compare is on the revision of the value that is expected, as every controller does.
            let compare = match registry.get(key.clone(), Consistency::Linearizable).await {
                Err(_) => return (wish, Outcome::Failed), // nothing was asked to be written
                Ok((None, _)) if expected.is_none() => Compare::Absent { key: key.clone() },
                Ok((Some(entry), _)) if value(&entry.value) == expected => {
                    Compare::Revision { key: key.clone(), revision: entry.mod_revision }
                }
                // Seen to be something else: that was true when it was read.
                Ok(_) => return (wish, Outcome::Refused),
            };
            (wish, write(registry, key, new, vec![compare]).await)
        }
    }
}

async fn write(registry: &RegistryHandle, key: Key, value: u64, compares: Vec<Compare>) -> Outcome {
    let operations = vec![Write::Put { key, value: stored(value) }];
    let transaction = Transaction { compares, operations, ..Transaction::default() };
    match registry.transact(transaction).await {
        Ok(_) => Outcome::Ok,
        // Values are never written twice, so whatever has another revision holds another value.
        Err(TransactError::Conflict { .. }) => Outcome::Refused,
        Err(error) if error.remedy() == Remedy::Retry => Outcome::Failed,
        Err(_) => Outcome::Unknown,
    }
}
