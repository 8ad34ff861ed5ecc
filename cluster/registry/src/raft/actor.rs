//! The actor behind [`RaftRole`](super::messages::RaftRole): hands what members say to openraft.
//!
//! It holds no state but the snapshot that is arriving. A snapshot is checked whole before openraft hears of it:
//! what a bad transfer brings is thrown away and asked for again.

use super::{
    MemberId, Raft,
    machine::aside,
    messages::{Append, AskVote, Beat, Declined, Seat, SnapshotChunk, Transfer},
    snapshot::{self, SnapshotFile},
};
use crate::disk::DiskError;
use actix::{Actor, Context, Handler, Message, ResponseFuture};
use openraft::{Snapshot, raft::SnapshotResponse};
use std::{
    fmt::Display,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::Mutex;

/// A raft member as an actor.
#[derive(Debug, Clone)]
pub struct RaftActor {
    raft: Raft,
    seat: Seat,
    directory: PathBuf,
    arriving: Arc<Mutex<Option<Arriving>>>,
}

#[derive(Debug)]
struct Arriving {
    transfer: u128,
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Drop for Arriving {
    fn drop(&mut self) {
        // Renamed away when it was installed; otherwise nobody wants it any more.
        let _ = fs::remove_file(&self.path);
    }
}

impl RaftActor {
    /// Serves a raft member that keeps its snapshots in `directory`.
    pub fn new(raft: Raft, member: MemberId, disk: u128, directory: PathBuf) -> Self {
        Self { raft, seat: Seat { member, disk }, directory, arriving: Arc::default() }
    }

    fn check(&self, to: Seat) -> Result<(), Declined> {
        if to == self.seat { Ok(()) } else { Err(Declined::OtherSeat(self.seat)) }
    }

    async fn take(
        self,
        chunk: SnapshotChunk,
    ) -> Result<Option<SnapshotResponse<super::Types>>, Declined> {
        let mut arriving = self.arriving.lock().await;
        if chunk.offset == 0 && chunk.end.is_none() {
            *arriving =
                Some(Arriving::begin(chunk.transfer, aside(&self.directory)).map_err(unfit)?);
        }
        let mut current = arriving.take().filter(|known| known.transfer == chunk.transfer);
        let Some(mut known) = current.take().filter(|known| known.bytes == chunk.offset) else {
            return Err(Declined::Snapshot("a piece is missing before this one".to_owned()));
        };
        let Some((vote, meta)) = chunk.end else {
            let write = move || {
                known.file.write_all(&chunk.bytes).map_err(DiskError::io("write", &known.path))?;
                known.bytes += chunk.bytes.len() as u64;
                Ok::<_, DiskError>(known)
            };
            *arriving =
                Some(tokio::task::spawn_blocking(write).await.map_err(unfit)?.map_err(unfit)?);
            return Ok(None);
        };
        let check = move || {
            known.file.sync_all().map_err(DiskError::io("sync", &known.path))?;
            let found = snapshot::load(&known.path)?.map(|(meta, _)| meta);
            let file = SnapshotFile::open(&known.path)?;
            Ok::<_, DiskError>((found, file, known))
        };
        let (found, snapshot, known) =
            tokio::task::spawn_blocking(check).await.map_err(unfit)?.map_err(unfit)?;
        if found.as_ref() != Some(&meta) {
            return Err(Declined::Snapshot("it is not the one that was announced".to_owned()));
        }
        let installed = self.raft.install_full_snapshot(vote, Snapshot { meta, snapshot }).await;
        drop(known);
        installed.map(Some).map_err(stopped)
    }
}

impl Arriving {
    fn begin(transfer: u128, path: PathBuf) -> Result<Self, DiskError> {
        let file = create(&path)?;
        Ok(Self { transfer, path, file, bytes: 0 })
    }
}

fn create(path: &Path) -> Result<File, DiskError> {
    File::create_new(path).map_err(DiskError::io("create", path))
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
        AskVote { to, pre, request }: AskVote,
        _: &mut Self::Context,
    ) -> Self::Result {
        let (fit, raft) = (self.check(to), self.raft.clone());
        Box::pin(async move {
            fit?;
            if pre { raft.pre_vote(request).await } else { raft.vote(request).await }
                .map_err(stopped)
        })
    }
}

impl Handler<Beat> for RaftActor {
    type Result = Reply<Beat>;

    fn handle(&mut self, Beat { to, request }: Beat, _: &mut Self::Context) -> Self::Result {
        let (fit, raft) = (self.check(to), self.raft.clone());
        Box::pin(async move {
            fit?;
            raft.append_entries(request).await.map_err(stopped)
        })
    }
}

impl Handler<Append> for RaftActor {
    type Result = Reply<Append>;

    fn handle(&mut self, Append { to, request }: Append, _: &mut Self::Context) -> Self::Result {
        let (fit, raft) = (self.check(to), self.raft.clone());
        Box::pin(async move {
            fit?;
            raft.append_entries(request).await.map_err(stopped)
        })
    }
}

impl Handler<Transfer> for RaftActor {
    type Result = Reply<Transfer>;

    fn handle(
        &mut self,
        Transfer { to, request }: Transfer,
        _: &mut Self::Context,
    ) -> Self::Result {
        let (fit, raft) = (self.check(to), self.raft.clone());
        Box::pin(async move {
            fit?;
            raft.handle_transfer_leader(request).await.map_err(stopped)
        })
    }
}

impl Handler<SnapshotChunk> for RaftActor {
    type Result = Reply<SnapshotChunk>;

    fn handle(&mut self, chunk: SnapshotChunk, _: &mut Self::Context) -> Self::Result {
        let (fit, actor) = (self.check(chunk.to), self.clone());
        Box::pin(async move {
            fit?;
            actor.take(chunk).await
        })
    }
}
