//! Applies committed entries to the replica, and makes and takes snapshots of it.
//!
//! The state lives in memory. After a start it is what the last snapshot says, and openraft applies the committed
//! part of the log again: the same commands give the same state.

use super::{Answer, Command, LogId, SnapshotMeta, StoredMembership, Types, snapshot};
use crate::{
    disk::{DiskError, durable, volume::Room},
    replica::Replica,
    store::{Image, RingLimits, Store},
};
use futures_util::{Stream, TryStreamExt};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot,
    storage::{EntryResponder, RaftStateMachine},
    type_config::alias::SnapshotOf,
};
use snapshot::SnapshotFile;
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::Semaphore;

/// openraft's handle.
pub type Raft = openraft::Raft<Types, Machine>;

/// The state machine that openraft drives.
#[derive(Debug)]
pub struct Machine {
    replica: Replica,
    applied: Option<LogId>,
    membership: StoredMembership,
    /// About how many bytes of log have been applied since the last snapshot.
    since: u64,
    directory: Arc<PathBuf>,
    room: Room,
    work: Work,
}

impl Machine {
    /// The state that the directory's snapshot holds, or an empty one. A damaged snapshot is refused.
    pub fn open(directory: &Path, room: Room, limits: RingLimits) -> Result<Self, DiskError> {
        durable::create_directory(directory)?;
        remove_leftovers(directory)?;
        let saved = snapshot::load(&directory.join(CURRENT))?;
        let mut machine = Self {
            replica: Replica::new(Store::new(limits)),
            applied: None,
            membership: StoredMembership::default(),
            since: 0,
            directory: Arc::new(directory.to_owned()),
            room,
            work: Work::default(),
        };
        if let Some((meta, image)) = saved {
            machine.replica = Replica::new(Store::restore(image, limits));
            machine.stand_at(meta);
        }
        Ok(machine)
    }

    /// What is being done on the disk, for whoever must wait for its end.
    pub fn work(&self) -> Work {
        self.work.clone()
    }

    /// The state, for readers and watchers.
    pub fn replica(&self) -> Replica {
        self.replica.clone()
    }

    /// The last entry that was applied.
    pub fn applied(&self) -> Option<u64> {
        self.applied.map(|log_id| log_id.index)
    }

    /// The membership as of the last entry that was applied.
    pub fn membership(&self) -> StoredMembership {
        self.membership.clone()
    }

    /// The state between two entries, and what a snapshot of it would say of itself.
    pub fn capture(&self) -> (SnapshotMeta, Image) {
        let meta =
            SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() };
        (meta, self.replica.read(Store::image))
    }

    /// A snapshot is of everything, so it waits until half as much has been written as there is: then writing costs
    /// the same however much there is.
    fn is_due(&self, bytes: u64) -> bool {
        self.since >= bytes / 2 || !self.room.takes(bytes)
    }

    fn stand_at(&mut self, meta: SnapshotMeta) {
        self.since = 0;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership;
    }

    fn perform(&self, command: &Command) -> Answer {
        self.replica.write(|store| match command {
            Command::Transact(transaction) => Answer::Transacted(store.transact(transaction)),
            Command::MoveShards(moves) => {
                store.move_shards(moves);
                Answer::Done
            }
            Command::Admit { disk } => Answer::Admitted(store.admit(*disk)),
            Command::Retire { member } => {
                store.retire(*member);
                Answer::Done
            }
        })
    }
}

/// What an entry of the log takes beside a transaction.
const ENTRY_BYTES: u64 = 64;

/// How often the first snapshot of all is tried again where there is no room.
const AGAIN: Duration = Duration::from_secs(1);

/// The name of the one snapshot that counts.
const CURRENT: &str = "snapshot";

/// Files that a crash left half written.
fn remove_leftovers(directory: &Path) -> Result<(), DiskError> {
    for entry in std::fs::read_dir(directory).map_err(DiskError::io("list", directory))? {
        let path = entry.map_err(DiskError::io("list", directory))?.path();
        if path.extension().is_some_and(|extension| extension == "tmp") {
            std::fs::remove_file(&path).map_err(DiskError::io("remove", &path))?;
        }
    }
    Ok(())
}

/// A name for a file that is not whole yet.
pub fn aside(directory: &Path) -> PathBuf {
    directory.join(format!("{:032x}.tmp", rand::random::<u128>()))
}

/// How much work on the disk may run at a time; more of it waits.
const PLACES: u32 = 8;

/// Work on the disk that runs on threads of its own and goes on when its asker is gone.
#[derive(Debug, Clone)]
pub struct Work(Arc<Semaphore>);

impl Default for Work {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(PLACES as usize)))
    }
}

impl Work {
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, DiskError> + Send + 'static,
    ) -> Result<T, io::Error> {
        let stopped = |_| io::Error::other("this member has stopped");
        let place = self.0.clone().acquire_owned().await.map_err(stopped)?;
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(place);
            done
        });
        done.await.map_err(io::Error::other)?.map_err(io::Error::from)
    }

    /// Waits for what runs; nothing begins any more afterwards.
    pub async fn finish(&self) {
        // Fails only when it is finished already.
        let _all = self.0.acquire_many(PLACES).await;
        self.0.close();
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            self.since += ENTRY_BYTES;
            let answer = match entry.payload {
                EntryPayload::Blank => Answer::Done,
                EntryPayload::Normal(command) => {
                    if let Command::Transact(transaction) = &command {
                        self.since += transaction.bytes() as u64;
                    }
                    self.perform(&command)
                }
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership);
                    Answer::Done
                }
            };
            self.applied = Some(entry.log_id);
            if let Some(responder) = responder {
                responder.send(answer);
            }
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Self::SnapshotBuilder> {
        let bytes = self.replica.read(Store::bytes);
        if !force && !self.room.fits(bytes) {
            tracing::warn!(bytes, "a snapshot waits for room on the disk: the log is not cut");
            return None;
        }
        if !force && !self.is_due(bytes) {
            tracing::debug!(
                bytes,
                since = self.since,
                "too little was written for another snapshot"
            );
            return None;
        }
        Some(self.get_snapshot_builder().await)
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        // The image is taken here, between two entries: what is applied later is not in it.
        let (meta, image) = self.capture();
        self.since = 0;
        Builder {
            meta,
            image: Some(image),
            directory: self.directory.clone(),
            room: self.room.clone(),
            work: self.work.clone(),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotFile,
    ) -> Result<(), io::Error> {
        let (path, current) = (snapshot.path().to_owned(), self.directory.join(CURRENT));
        let limits = self.replica.read(Store::limits);
        let install = self.work.run(move || {
            let loaded = snapshot::load(&path)?;
            let missing = || DiskError::io("open", &path)(io::ErrorKind::NotFound.into());
            let loaded = loaded.ok_or_else(missing)?;
            if path != current {
                snapshot::put_in_place(&path, &current)?;
            }
            let (saved, image) = loaded;
            Ok((saved, Store::restore(image, limits)))
        });
        let (saved, store) = install.await?;
        if saved != *meta {
            let text = format!("a snapshot of {meta} was announced and one of {saved} came");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let old = self.replica.write(|current| std::mem::replace(current, store));
        // So many objects take long to let go of, and this is raft's thread.
        tokio::task::spawn_blocking(move || drop(old));
        self.stand_at(saved);
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<SnapshotOf<Types, SnapshotFile>>, io::Error> {
        let path = self.directory.join(CURRENT);
        let current = self.work.run(move || {
            if !path.exists() {
                return Ok(None);
            }
            let snapshot = SnapshotFile::open(&path)?;
            Ok(Some(Snapshot { meta: snapshot.head()?, snapshot }))
        });
        current.await
    }
}

/// Writes an image that was taken.
#[derive(Debug)]
pub struct Builder {
    meta: SnapshotMeta,
    image: Option<Image>,
    directory: Arc<PathBuf>,
    room: Room,
    work: Work,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<Types, SnapshotFile>, io::Error> {
        let image =
            self.image.take().ok_or_else(|| io::Error::other("a snapshot builder builds once"))?;
        let image = Arc::new(image);
        loop {
            let (meta, directory) = (self.meta.clone(), self.directory.clone());
            let (image, room) = (image.clone(), self.room.clone());
            let built = self.work.run(move || {
                let (aside, current) = (aside(&directory), directory.join(CURRENT));
                match snapshot::save(&**room.volume(), &aside, &meta, &image) {
                    Ok(()) => {
                        let snapshot = SnapshotFile::open(&aside)?;
                        snapshot::put_in_place(&aside, &current)?;
                        Ok(Some(Snapshot { meta, snapshot }))
                    }
                    // openraft keeps the newer of two: the one that is there stays, and a later one may fit.
                    Err(DiskError::Full { .. }) if current.exists() => {
                        let snapshot = SnapshotFile::open(&current)?;
                        Ok(Some(Snapshot { meta: snapshot.head()?, snapshot }))
                    }
                    Err(DiskError::Full { .. }) => Ok(None),
                    Err(error) => Err(error),
                }
            });
            match built.await? {
                Some(snapshot) => return Ok(snapshot),
                None => tokio::time::sleep(AGAIN).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Key, Transaction,
        raft::{Entry, log::Log},
    };
    use openraft::{
        StorageError,
        testing::log::{StoreBuilder, Suite},
    };

    struct OnDisk;

    impl StoreBuilder<Types, Log, Machine, tempfile::TempDir> for OnDisk {
        async fn build(&self) -> Result<(tempfile::TempDir, Log, Machine), StorageError<Types>> {
            let directory = tempfile::tempdir().unwrap();
            let volume = Arc::new(crate::disk::volume::Machine);
            let room = Room::new(volume, directory.path());
            let (log, _) = Log::open(&directory.path().join("log"), room.clone()).unwrap();
            let snapshots = directory.path().join("snapshots");
            let machine = Machine::open(&snapshots, room, RingLimits::default()).unwrap();
            Ok((directory, log, machine))
        }
    }

    #[tokio::test]
    async fn a_snapshot_waits_until_half_as_much_was_written_as_there_is() {
        let directory = tempfile::tempdir().unwrap();
        let room = Room::new(Arc::new(crate::disk::volume::Machine), directory.path());
        let mut machine = Machine::open(directory.path(), room, RingLimits::default()).unwrap();
        let mut index = 0;
        let mut put = async |machine: &mut Machine, name: usize| {
            let value = vec![b'x'; 1000];
            let key = Key::new("pods", "d", name.to_string());
            let command = Command::Transact(Transaction::new().put(key, value));
            index += 1;
            let id = openraft::testing::log_id::<Types>(1, 1, index);
            let entry = Entry { log_id: id, payload: EntryPayload::Normal(command) };
            let entries = futures_util::stream::iter([Ok((entry, None))]);
            machine.apply(entries).await.unwrap();
        };
        for name in 0..100 {
            put(&mut machine, name).await;
        }
        let mut first = machine.try_create_snapshot_builder(false).await.unwrap();
        first.build_snapshot().await.unwrap();
        for name in 0..45 {
            put(&mut machine, name).await;
            assert!(machine.try_create_snapshot_builder(false).await.is_none(), "after {name}");
        }
        assert!(machine.try_create_snapshot_builder(true).await.is_some(), "who must have one");
        for name in 0..60 {
            put(&mut machine, name).await;
        }
        assert!(machine.try_create_snapshot_builder(false).await.is_some());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_storage_does_what_openraft_expects_of_one() {
        Suite::test_all(OnDisk).await.unwrap();
    }
}
