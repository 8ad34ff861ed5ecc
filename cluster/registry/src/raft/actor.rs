//! The actor behind [`RaftRole`](super::messages::RaftRole): hands what members say to openraft.
//!
//! It holds no state but the snapshot that is arriving. A snapshot is checked whole before openraft hears of it:
//! what a bad transfer brings is thrown away and asked for again.

use super::{
    Command, Entry, Raft,
    heard::Heard,
    machine::aside,
    messages::{Append, AskVote, Beat, Declined, Route, Seat, SnapshotChunk, Transfer},
    snapshot::{self, SnapshotFile},
};
use crate::{
    disk::{DiskError, volume::Room},
    life::{Life, goes_on},
};
use actix::{Actor, Context, Handler, Message, ResponseFuture};
use impresario_runtime::{clock, tasks};
use openraft::{EntryPayload, Snapshot, async_runtime::WatchReceiver, raft::SnapshotResponse};
use std::{
    fmt::Display,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::Mutex;

/// A raft member as an actor.
#[derive(Debug, Clone)]
pub struct RaftActor {
    raft: Raft,
    seat: Seat,
    /// The lives that this directory has had.
    lives: Arc<[Life]>,
    heard: Arc<Heard>,
    directory: PathBuf,
    room: Room,
    arriving: Arc<Mutex<Option<Arriving>>>,
}

#[derive(Debug)]
struct Arriving {
    transfer: u128,
    path: PathBuf,
    file: File,
    bytes: u64,
    /// How many there are to be.
    size: u64,
}

impl Drop for Arriving {
    fn drop(&mut self) {
        // Renamed away when it was installed; otherwise nobody wants it any more.
        let _ = fs::remove_file(&self.path);
    }
}

impl RaftActor {
    /// Serves a raft member that keeps its snapshots in `directory`.
    pub fn new(
        raft: Raft,
        (seat, lives): (Seat, &[Life]),
        heard: Arc<Heard>,
        directory: PathBuf,
        room: Room,
    ) -> Self {
        Self { raft, seat, lives: lives.into(), heard, directory, room, arriving: Arc::default() }
    }

    fn check(&self, Route { from, to }: Route) -> Result<(), Declined> {
        // A life that the sender does not know of yet is fine. One that it knows and this directory never had is a
        // copy's, or was forgotten with a restored one, which must not vote.
        let meant = to.member == self.seat.member && to.disk == self.seat.disk;
        if !meant || !goes_on(&self.lives, to.generation) {
            return Err(Declined::OtherSeat(self.seat));
        }
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        match metrics.membership_config.membership().get_node(&from.member) {
            Some(known)
                if known.disk != from.disk || from.generation.is_refuted_by(known.generation) =>
            {
                let generation = known.generation;
                Err(Declined::StaleSender(Seat { disk: known.disk, generation, ..from }))
            }
            Some(_) => self
                .heard
                .speaks(from.member, from.generation, clock::now())
                .map_err(|generation| Declined::StaleSender(Seat { generation, ..from })),
            // Of whom nothing is known nothing is remembered: it could be anybody's number.
            None => Ok(()),
        }
    }

    /// The leader goes on with entries: a snapshot that there was no room for is not wanted any more.
    fn caught_up(&self) {
        if self.room.set_wanted(0) {
            tracing::info!("this member goes on without the snapshot that there was no room for");
        }
    }

    async fn take(
        self,
        chunk: SnapshotChunk,
    ) -> Result<Option<SnapshotResponse<super::Types>>, Declined> {
        let mut arriving = self.arriving.lock().await;
        if chunk.offset == 0 && chunk.end.is_none() {
            // What came of an earlier transfer gives its room back first.
            *arriving = None;
            let fits = self.room.fits(chunk.size);
            if self.room.set_wanted(if fits { 0 } else { chunk.size }) {
                tracing::warn!(
                    bytes = chunk.size,
                    fits,
                    "a snapshot from the leader: whether there is room"
                );
            }
            if !fits {
                return Err(Declined::NoRoom(chunk.size));
            }
            let begun = Arriving::begin(chunk.transfer, aside(&self.directory), chunk.size);
            *arriving = Some(begun.map_err(unfit)?);
        }
        let mut current = arriving.take().filter(|known| known.transfer == chunk.transfer);
        let Some(mut known) = current.take().filter(|known| known.bytes == chunk.offset) else {
            return Err(Declined::Snapshot("a piece is missing before this one".to_owned()));
        };
        if known.bytes + chunk.bytes.len() as u64 > known.size {
            return Err(Declined::Snapshot("it is larger than was announced".to_owned()));
        }
        let Some((vote, meta)) = chunk.end else {
            let volume = self.room.volume().clone();
            let write = move || {
                volume
                    .write(&known.file, &chunk.bytes, known.bytes)
                    .map_err(DiskError::io("write", &known.path))?;
                known.bytes += chunk.bytes.len() as u64;
                Ok::<_, DiskError>(known)
            };
            *arriving = Some(tasks::spawn_blocking(write).await.map_err(unfit)?.map_err(unfit)?);
            return Ok(None);
        };
        let check = move || {
            known.file.sync_all().map_err(DiskError::io("sync", &known.path))?;
            let found = snapshot::load(&known.path)?.map(|(meta, _)| meta);
            let file = SnapshotFile::open(&known.path)?;
            Ok::<_, DiskError>((found, file, known))
        };
        let (found, snapshot, known) =
            tasks::spawn_blocking(check).await.map_err(unfit)?.map_err(unfit)?;
        if found.as_ref() != Some(&meta) {
            return Err(Declined::Snapshot("it is not the one that was announced".to_owned()));
        }
        let installed = self.raft.install_full_snapshot(vote, Snapshot { meta, snapshot }).await;
        drop(known);
        self.caught_up();
        installed.map(Some).map_err(stopped)
    }
}

impl Arriving {
    fn begin(transfer: u128, path: PathBuf, size: u64) -> Result<Self, DiskError> {
        let file = create(&path)?;
        Ok(Self { transfer, path, file, bytes: 0, size })
    }
}

fn create(path: &Path) -> Result<File, DiskError> {
    File::create_new(path).map_err(DiskError::io("create", path))
}

/// Refuses an entry that no leader of ours would have taken: the log could not hold it, or the state not tell of it.
fn possible(entry: &Entry) -> Result<(), Declined> {
    match &entry.payload {
        EntryPayload::Normal(Command::Transact(transaction)) if !transaction.is_bounded() => {
            Err(Declined::TooLarge(transaction.bytes()))
        }
        _ => Ok(()),
    }
}

fn stopped(error: impl Display) -> Declined {
    Declined::Stopped(error.to_string())
}

fn unfit(error: impl Display) -> Declined {
    Declined::Snapshot(error.to_string())
}

impl Actor for RaftActor {
    type Context = Context<Self>;
}

type Reply<M> = ResponseFuture<<M as Message>::Result>;

impl Handler<AskVote> for RaftActor {
    type Result = Reply<AskVote>;

    fn handle(
        &mut self,
        AskVote { route, pre, request }: AskVote,
        _: &mut Self::Context,
    ) -> Self::Result {
        let (fit, raft) = (self.check(route), self.raft.clone());
        Box::pin(async move {
            fit?;
            if pre { raft.pre_vote(request).await } else { raft.vote(request).await }
                .map_err(stopped)
        })
    }
}

impl Handler<Beat> for RaftActor {
    type Result = Reply<Beat>;

    fn handle(&mut self, Beat { route, request }: Beat, _: &mut Self::Context) -> Self::Result {
        let (fit, raft) = (self.check(route), self.raft.clone());
        Box::pin(async move {
            fit?;
            raft.append_entries(request).await.map_err(stopped)
        })
    }
}

impl Handler<Append> for RaftActor {
    type Result = Reply<Append>;

    fn handle(&mut self, Append { route, request }: Append, _: &mut Self::Context) -> Self::Result {
        let fit = self.check(route).and_then(|()| request.entries.iter().try_for_each(possible));
        let (raft, has_entries) = (self.raft.clone(), !request.entries.is_empty());
        // A heartbeat says nothing of that.
        let catches_up = has_entries.then(|| self.clone());
        Box::pin(async move {
            fit?;
            let answer = raft.append_entries(request).await.map_err(stopped)?;
            if let Some(actor) = catches_up.filter(|_| answer.is_success()) {
                actor.caught_up();
            }
            Ok(answer)
        })
    }
}

impl Handler<Transfer> for RaftActor {
    type Result = Reply<Transfer>;

    fn handle(
        &mut self,
        Transfer { route, request }: Transfer,
        _: &mut Self::Context,
    ) -> Self::Result {
        let (fit, raft) = (self.check(route), self.raft.clone());
        Box::pin(async move {
            fit?;
            raft.handle_transfer_leader(request).await.map_err(stopped)
        })
    }
}

impl Handler<SnapshotChunk> for RaftActor {
    type Result = Reply<SnapshotChunk>;

    fn handle(&mut self, chunk: SnapshotChunk, _: &mut Self::Context) -> Self::Result {
        let (fit, actor) = (self.check(chunk.route), self.clone());
        Box::pin(async move {
            fit?;
            actor.take(chunk).await
        })
    }
}
