//! What lives under a name on this node: its doors, and word of its end.
//!
//! A cell outlives the restarts of its actor. It leaves the table in the moment in which its end is published, so a
//! watcher that is told can use the name again.

use crate::{
    door::Doors,
    gate::Gate,
    mailbox::Outside,
    name::ActorName,
    usage::{ActorPage, ActorUsage},
    watch::Reason,
};
use impresario_ambient::clock;
use parking_lot::{Mutex, RwLock};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};
use tokio::sync::{Notify, watch};

/// Ends that are remembered for watchers that could not be told at once.
const ENDS: usize = 4096;

/// The number of the next cell.
static LIVES: AtomicU64 = AtomicU64::new(1);

pub(crate) struct Cell {
    pub(crate) name: ActorName,
    /// The name of the role that it serves.
    role: &'static str,
    /// Tells it from others of its name, before and after it.
    pub(crate) life: u64,
    pub(crate) doors: Doors,
    /// Judges what comes from other nodes, after the gate.
    pub(crate) guard: Option<Arc<dyn Gate>>,
    end: watch::Sender<Option<Reason>>,
    pub(crate) orders: Orders,
    mailbox: Box<dyn Outside>,
    /// Whether a runner heeds the orders.
    supervised: bool,
    restarts: AtomicU64,
    /// When it was last started.
    since: Mutex<Instant>,
}

/// What a cell's runner is told to do.
#[derive(Default)]
pub(crate) struct Orders {
    pub(crate) stop: Notify,
    pub(crate) restart: Notify,
    pub(crate) fail: Notify,
}

impl Cell {
    pub(crate) fn new(
        name: ActorName,
        role: &'static str,
        doors: Doors,
        guard: Option<Arc<dyn Gate>>,
        supervised: bool,
        mailbox: impl Outside + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            name,
            role,
            life: LIVES.fetch_add(1, Ordering::Relaxed),
            doors,
            guard,
            end: watch::Sender::new(None),
            orders: Orders::default(),
            mailbox: Box::new(mailbox),
            supervised,
            restarts: AtomicU64::new(0),
            since: Mutex::new(clock::now()),
        })
    }

    /// Waits for the end of the actor.
    pub(crate) async fn ended(&self) -> Reason {
        let mut end = self.end.subscribe();
        match end.wait_for(Option::is_some).await {
            Ok(reason) => reason.unwrap_or(Reason::Stopped),
            Err(_) => Reason::Stopped,
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.end.borrow().is_some()
    }

    /// Whether its mailbox takes messages now.
    pub(crate) fn is_alive(&self) -> bool {
        self.mailbox.is_open()
    }

    /// Its runner starts it once more.
    pub(crate) fn starts_again(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
        *self.since.lock() = clock::now();
    }

    fn usage(&self) -> ActorUsage {
        ActorUsage {
            name: self.name.clone(),
            role: self.role,
            restarts: self.restarts.load(Ordering::Relaxed),
            up: self.since.lock().elapsed(),
            mailbox: self.mailbox.usage(self.doors.largest()),
        }
    }
}

/// The names of this node.
#[derive(Default)]
pub(crate) struct Cells(RwLock<Names>);

#[derive(Default)]
struct Names {
    cells: HashMap<ActorName, Arc<Cell>>,
    /// How the last of those that ended did, by life.
    ends: VecDeque<(u64, Reason)>,
}

impl Cells {
    pub(crate) fn get(&self, name: &ActorName) -> Option<Arc<Cell>> {
        self.0.read().cells.get(name).cloned()
    }

    /// Adds a cell; `false` when the name is taken.
    pub(crate) fn add(&self, cell: &Arc<Cell>) -> bool {
        let cells = &mut self.0.write().cells;
        if cells.contains_key(&cell.name) {
            return false;
        }
        cells.insert(cell.name.clone(), cell.clone());
        true
    }

    /// Takes the cell out and publishes its end; the first reason stands.
    pub(crate) fn end(&self, cell: &Arc<Cell>, reason: Reason) {
        let mut names = self.0.write();
        if names.cells.get(&cell.name).is_some_and(|held| Arc::ptr_eq(held, cell)) {
            names.cells.remove(&cell.name);
            names.ends.push_back((cell.life, reason));
            if names.ends.len() > ENDS {
                names.ends.pop_front();
            }
        }
        cell.end.send_if_modified(|end| {
            let first = end.is_none();
            end.get_or_insert(reason);
            first
        });
    }

    /// How a life that is not among the cells ended; `NoSuchActor` when that is long ago.
    pub(crate) fn end_of(&self, life: u64) -> Reason {
        let names = self.0.read();
        let end = names.ends.iter().rev().find(|(ended, _)| *ended == life);
        end.map_or(Reason::NoSuchActor, |(_, reason)| *reason)
    }

    /// Stops the actor of a cell; one that was only registered loses its name.
    pub(crate) fn stop(&self, cell: &Arc<Cell>) {
        if cell.supervised {
            cell.orders.stop.notify_one();
        } else {
            self.end(cell, Reason::Stopped);
        }
    }

    /// The first cells by name, `most` of them, after the one of this name.
    pub(crate) fn page(&self, after: Option<&ActorName>, most: usize) -> ActorPage {
        let names = self.0.read();
        let mut first: BTreeMap<&ActorName, &Arc<Cell>> = BTreeMap::new();
        let mut more = false;
        for (name, cell) in &names.cells {
            if after.is_some_and(|after| name <= after) {
                continue;
            }
            first.insert(name, cell);
            if first.len() > most {
                first.pop_last();
                more = true;
            }
        }
        let actors = first.into_values().map(|cell| cell.usage()).collect();
        ActorPage { actors, all: names.cells.len(), more }
    }

    pub(crate) fn all(&self) -> Vec<Arc<Cell>> {
        self.0.read().cells.values().cloned().collect()
    }
}
