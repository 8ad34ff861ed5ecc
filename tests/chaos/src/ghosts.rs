//! Ghosts: activations that do not know that their shard has another owner, and go on writing (I6).
//!
//! For some shards there are an activation of each epoch that was ever heard of, and one of epoch 0, in
//! which no shard of a running cluster is. Each writes its epoch into the shard's entry by right of that
//! epoch. What the registry accepts, in the order of its revisions, may never fall.

use crate::cluster::{HarnessError, Session, end};
use futures_util::StreamExt as _;
use impresario_registry_api::{
    Entry, Epoch, Fence, Key, ListRequest, RegistryHandle, Revision, SHARDS, Selection, Shard,
    TransactError, Transaction, WatchEvent, WatchRequest,
};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// Every so many shards has ghosts.
const EVERY: u8 = 8;
/// The mean pause between two writes.
const PAUSE: Duration = Duration::from_millis(80);
/// How long the entries may take to be read when nobody writes any more.
const LAST_WORD: Duration = Duration::from_secs(60);
/// The resource of the entries.
pub(crate) const FENCED: &str = "chaos.impresario.dev/fenced";

/// What became of the ghosts' writes.
#[derive(Debug, Clone, Default)]
pub struct Haunted {
    /// The epochs that were accepted for each shard, by the revision at which they were.
    pub accepted: BTreeMap<u8, BTreeMap<Revision, u64>>,
    /// Writes that were refused because their epoch was over.
    pub refused: u64,
    /// Shards that were seen to change hands.
    pub moved: u64,
    /// Why the entries could not be read in the end, if that is so.
    pub unread: Option<String>,
}

impl Haunted {
    /// An entry that is there was accepted, whether its writer was told or not.
    fn accept(&mut self, entry: &Entry) {
        let shard = entry.key.name.strip_prefix('s').and_then(|number| number.parse().ok());
        let value: Option<serde_json::Value> = serde_json::from_slice(&entry.value).ok();
        let epoch = value.and_then(|value| value.get("epoch").and_then(serde_json::Value::as_u64));
        if let (Some(shard), Some(epoch)) = (shard, epoch) {
            self.accepted.entry(shard).or_default().insert(entry.mod_revision, epoch);
        }
    }
}

/// The ghosts. They write until told to stop.
pub struct Ghosts {
    task: JoinHandle<()>,
    /// Sees what was accepted although the answer was lost.
    reader: JoinHandle<()>,
    registry: RegistryHandle,
    stop: watch::Sender<bool>,
    seen: Arc<Mutex<Haunted>>,
}

impl Drop for Ghosts {
    fn drop(&mut self) {
        self.task.abort();
        self.reader.abort();
    }
}

impl Ghosts {
    /// Starts to write.
    #[must_use]
    pub fn start(session: &Session, seed: u64) -> Self {
        let (stop, stopping) = watch::channel(false);
        let seen = Arc::new(Mutex::new(Haunted::default()));
        let random = StdRng::seed_from_u64(seed.rotate_left(17));
        let task = tokio::spawn(haunt(session.roaming(), random, stopping, seen.clone()));
        let reader = tokio::spawn(read(session.roaming(), seen.clone()));
        Self { task, reader, registry: session.roaming(), stop, seen }
    }

    /// Ends, and tells what became of the writes.
    pub async fn finish(mut self) -> Result<Haunted, HarnessError> {
        let _ = self.stop.send(true); // it may have ended
        (&mut self.task).await.map_err(HarnessError::lost("writing as a ghost"))?;
        end(&mut self.reader, "reading what ghosts wrote").await?;
        let began = Instant::now();
        let unread = loop {
            match self.registry.list(ListRequest::of(Selection::all(FENCED))).await {
                Ok(page) => {
                    let mut seen = self.seen.lock().await;
                    page.entries.iter().for_each(|entry| seen.accept(entry));
                    break None;
                }
                Err(error) if began.elapsed() > LAST_WORD => break Some(error.to_string()),
                Err(_) => sleep(PAUSE).await,
            }
        };
        Ok(Haunted { unread, ..self.seen.lock().await.clone() })
    }
}

/// Watches the entries, so that a write whose answer was lost is seen as well: in a change of leader, when a
/// stale one might slip through, it often is.
async fn read(registry: RegistryHandle, seen: Arc<Mutex<Haunted>>) {
    loop {
        if let Ok(page) = registry.list(ListRequest::of(Selection::all(FENCED))).await {
            let after = page.revision;
            {
                let mut seen = seen.lock().await;
                page.entries.iter().for_each(|entry| seen.accept(entry));
            }
            let request = WatchRequest { select: Selection::all(FENCED), after, bookmarks: false };
            if let Ok(mut watch) = registry.watch(request).await {
                while let Some(Ok(batch)) = watch.next().await {
                    let mut seen = seen.lock().await;
                    for event in &batch.events {
                        if let WatchEvent::Put { entry, .. } = event {
                            seen.accept(entry);
                        }
                    }
                }
            }
        }
        sleep(PAUSE).await;
    }
}

async fn haunt(
    registry: RegistryHandle,
    mut random: StdRng,
    mut stopping: watch::Receiver<bool>,
    seen: Arc<Mutex<Haunted>>,
) {
    // Epoch 0 is over as soon as a shard has been given to anybody.
    let mut epochs: BTreeMap<u8, BTreeSet<u64>> = BTreeMap::new();
    while !*stopping.borrow() {
        let shard = random.random_range(0..SHARDS / EVERY) * EVERY;
        let known = epochs.entry(shard).or_insert_with(|| BTreeSet::from([0]));
        let which: usize = random.random_range(0..known.len());
        let epoch = known.iter().nth(which).copied().unwrap_or(0);
        let fence = Fence { shard: Shard(shard), epoch: Epoch(epoch) };
        let value = json!({ "epoch": epoch }).to_string().into_bytes();
        let write =
            Transaction::new().fenced(fence).put(Key::new(FENCED, "", format!("s{shard}")), value);
        let answer = registry.transact(write).await;
        let mut seen = seen.lock().await;
        match answer {
            Ok(committed) => {
                seen.accepted.entry(shard).or_default().insert(committed.revision, epoch);
            }
            Err(TransactError::Fenced { current, .. }) => {
                seen.refused += 1;
                if known.insert(current.0) && known.len() > 2 {
                    seen.moved += 1;
                }
            }
            // Nothing is known of it; who reads the entries sees what it did.
            Err(_) => {}
        }
        drop(seen);
        let pause = PAUSE.mul_f64(random.random_range(0.5..1.5));
        let _ = timeout(pause, stopping.wait_for(|stop| *stop)).await;
    }
}
