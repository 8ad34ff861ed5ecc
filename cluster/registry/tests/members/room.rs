//! A disk that is full, and has room again later: three members on one disk of 64 MiB.

use crate::guard::seat;
use crate::harness::*;
use crate::three::Group;
use impresario_registry::disk::volume::{Machine, Space, Volume};
use impresario_registry::raft::messages::{Declined, RAFT_ACTOR, RaftRole, Route, SnapshotChunk};
use impresario_registry::{
    Consistency, Heartbeat, Key, ListRequest, RegistryHandle, Selection, TransactError, Transaction,
};
use impresario_runtime::ActorPath;
use openraft::entry::RaftEntry;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const SIZE: u64 = 64 << 20;
const VALUE_BYTES: usize = 256 << 10;
/// What others have on the disk from the beginning.
const TAKEN: u64 = 16 << 20;

/// A disk of [`SIZE`] bytes as a layer over the machine's files; part of it can be taken by others.
#[derive(Debug)]
struct Small {
    root: PathBuf,
    taken: AtomicU64,
    /// Overwriting takes as much room as writing, as on btrfs and ZFS.
    copies: bool,
}

fn used(directory: &Path) -> u64 {
    // What is removed meanwhile takes nothing any more.
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let size = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => used(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    size.sum()
}

/// On a slow disk nobody may hear in time what became of it: until it is gone.
async fn delete(registry: &RegistryHandle, key: Key) {
    let ended = until("a deletion", async || {
        let ended = registry.transact(Transaction::new().delete(key.clone())).await;
        (ended.is_ok(), ended)
    });
    ended.await.unwrap();
}

impl Small {
    fn below(root: &Path) -> Arc<Self> {
        Arc::new(Self::new(root))
    }

    fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), taken: AtomicU64::new(0), copies: false }
    }

    fn available(&self) -> u64 {
        SIZE.saturating_sub(used(&self.root) + self.taken.load(Ordering::SeqCst))
    }
}

impl Volume for Small {
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let grows = (offset + bytes.len() as u64).saturating_sub(file.metadata()?.len());
        let more = if self.copies { bytes.len() as u64 } else { grows };
        let missing = more.saturating_sub(self.available()).min(bytes.len() as u64);
        // As a disk does it: what fits is written.
        Machine.write(file, &bytes[..bytes.len() - missing as usize], offset)?;
        if missing == 0 { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        Machine.sync(file)
    }

    fn space(&self, _: &Path) -> io::Result<Space> {
        Ok(Space { total: SIZE, available: self.available() })
    }
}

fn object(n: usize) -> Key {
    Key::new("configmaps", "d", format!("{n:05}"))
}

/// Fills the disk with writes, then to the last byte with `take`, and frees it with `free`.
async fn fill_and_free(mut group: Group, take: impl Fn(), free: impl Fn()) {
    let leader = group.leader().await;
    let registry = group.handle(leader);
    let mut acknowledged = BTreeMap::new();
    let write = async |n: usize| {
        let put = Transaction::new().put(object(n), vec![b'a' + (n % 26) as u8; VALUE_BYTES]);
        registry.transact(put).await
    };
    let deadline = Instant::now() + 4 * LIMIT;
    let refused = loop {
        let n = acknowledged.len();
        match write(n).await {
            Ok(committed) => acknowledged.insert(object(n), committed.revision),
            // A slow disk: the same object again.
            Err(TransactError::Unknown { .. } | TransactError::Unavailable { .. })
                if Instant::now() < deadline =>
            {
                continue;
            }
            Err(refused) => break refused,
        };
        assert!(n < 1000, "the disk never fills");
    };
    assert!(matches!(refused, TransactError::NoSpace { .. }), "{refused}");
    assert!(refused.to_string().contains("free some space"), "{refused}");
    let filled = acknowledged.len();

    take();
    // Reads, fresh ones too, deletions and heartbeats go on; writes are refused at once.
    for n in 0..20 {
        let (entry, _) = registry.get(object(n), Consistency::Linearizable).await.unwrap();
        assert_eq!(entry.unwrap().mod_revision, acknowledged[&object(n)]);
        delete(&registry, object(n)).await;
        acknowledged.remove(&object(n));
        let refused = write(filled).await.unwrap_err();
        assert!(matches!(refused, TransactError::NoSpace { .. }), "{refused}");
    }
    let beat = Heartbeat { node: "n".to_owned(), incarnation: 1, ready: true };
    group.members[&leader].heartbeat(beat).await.unwrap();
    let voters = group.members[&leader].status().voters.len();
    assert_eq!(voters, 3);

    free();
    let freed = Instant::now();
    let resumed = until("a write", async || {
        let written = write(filled).await;
        (written.is_ok(), written)
    });
    acknowledged.insert(object(filled), resumed.await.unwrap().revision);
    println!("{filled} objects filled the disk; writes resumed after {:?}", freed.elapsed());

    for round in 0..2 {
        let all = ListRequest::of(Selection::all("configmaps"));
        for index in 0..3 {
            let page = group.handle(index).list(all.clone()).await.unwrap();
            let found: BTreeMap<_, _> =
                page.entries.into_iter().map(|entry| (entry.key, entry.mod_revision)).collect();
            assert_eq!(found, acknowledged, "member {index}, round {round}");
        }
        if round == 0 {
            for index in 0..3 {
                group.stop(index).await;
            }
            for index in 0..3 {
                group.start(index).await.unwrap();
            }
            group.whole().await;
        }
    }
    group.end().await;
}

#[test]
fn a_full_disk_refuses_writes_keeps_what_was_acknowledged_and_goes_on_when_there_is_room() {
    run(async {
        let root = tempfile::tempdir().unwrap();
        let small = Small::below(root.path());
        small.taken.store(TAKEN, Ordering::SeqCst);
        let group = Group::of(Cluster::on(root, small.clone())).await;
        fill_and_free(
            group,
            || small.taken.store(SIZE, Ordering::SeqCst),
            || small.taken.store(0, Ordering::SeqCst),
        )
        .await;
    });
}

#[test]
fn a_full_disk_that_copies_on_write_stops_no_member() {
    run(async {
        let root = tempfile::tempdir().unwrap();
        let small = Arc::new(Small { copies: true, ..Small::new(root.path()) });
        let cluster = Cluster::on(root, small.clone());
        let node = cluster.node("n1").await;
        let member = cluster.start(&node, found()).await.unwrap();
        let registry = member.handle();
        put(&registry, "a").await;
        put(&registry, "b").await;
        // All is taken at once, so that what comes next meets the full disk in the log and not at the door.
        small.taken.store(SIZE, Ordering::SeqCst);
        let removed = registry.transact(Transaction::new().delete(pod("a"))).await;
        small.taken.store(0, Ordering::SeqCst);
        until("a write", async || {
            let written = registry.transact(Transaction::new().put(pod("c"), "{}")).await;
            (written.is_ok(), (written, member.status().failure))
        })
        .await
        .0
        .unwrap();
        let names = if removed.is_ok() { 2 } else { 3 };
        assert!((2..=names).contains(&pods(&registry).await), "{removed:?}");
        member.stop().await;
        let member = cluster.start(&node, found()).await.unwrap();
        assert!((2..=names).contains(&pods(&member.handle()).await));
        member.stop().await;
        node.stop(Duration::from_secs(5)).await;
    });
}

/// A disk on which one member has little room, and that remembers whether a snapshot was written there.
#[derive(Debug)]
struct Narrow {
    member: &'static str,
    left: AtomicU64,
    written: AtomicBool,
}

impl Volume for Narrow {
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let path = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        let text = path.to_string_lossy();
        if text.contains(&format!("/{}/", self.member)) && text.ends_with(".tmp") {
            self.written.store(true, Ordering::SeqCst);
        }
        Machine.write(file, bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        Machine.sync(file)
    }

    fn space(&self, directory: &Path) -> io::Result<Space> {
        let narrow = directory.ends_with(self.member);
        let available = if narrow { self.left.load(Ordering::SeqCst) } else { 1 << 40 };
        Ok(Space { total: 1 << 40, available })
    }
}

#[test]
fn a_snapshot_for_which_there_is_no_room_is_not_begun_and_comes_when_there_is() {
    run(async {
        let root = tempfile::tempdir().unwrap();
        let (left, written) = (AtomicU64::new(1 << 40), AtomicBool::new(false));
        let narrow = Arc::new(Narrow { member: "n2", left, written });
        let mut group = Group::of(Cluster::on(root, narrow.clone())).await;
        let before = group.members[&2].status().applied;
        group.stop(2).await;
        let leader = group.leader().await;
        let registry = group.handle(leader);
        for n in 0..20 {
            let value = vec![b'x'; VALUE_BYTES];
            registry.transact(Transaction::new().put(object(n), value)).await.unwrap();
        }
        futures_util::future::join_all((0..600).map(|n| put(&registry, n))).await;
        for index in [0, 1] {
            let directory = group.cluster.directory(group.nodes[index].name().as_str());
            until("a log that begins behind what the other has", async || {
                let first = entries(&directory).await.first().map(|entry| entry.log_id().index);
                (first.is_some_and(|first| first > before + 1), first)
            })
            .await;
        }
        narrow.left.store(3 << 20, Ordering::SeqCst);
        narrow.written.store(false, Ordering::SeqCst);
        group.start(2).await.unwrap();
        until("word at the leader that one member has no room", async || {
            let without = group.members[&leader].without_room();
            (without.contains("n2"), without)
        })
        .await;
        assert!(!narrow.written.load(Ordering::SeqCst), "not a byte of it");
        narrow.left.store(1 << 40, Ordering::SeqCst);
        group.agree_on(600).await;
        assert!(narrow.written.load(Ordering::SeqCst));
        until("room everywhere", async || {
            let without = group.members[&group.leader().await].without_room();
            (without.is_empty(), without)
        })
        .await;
        group.end().await;
    });
}

#[test]
fn a_member_that_goes_on_by_entries_has_room_again_though_a_snapshot_did_not_fit() {
    run(async {
        let group = Group::calm().await;
        let (leader, follower) = (group.leader().await, group.follower().await);
        let to = group.nodes[follower].name().clone();
        let raft = group.nodes[leader].actor::<RaftRole>(ActorPath::new(to.clone(), RAFT_ACTOR));
        let route = Route { from: seat(&group, leader), to: seat(&group, follower) };
        until("word at the leader that one member has no room", async || {
            // Again each time: what the leader itself writes meanwhile is an entry, too.
            let (transfer, size, offset) = (1, 1 << 60, 0);
            let chunk = SnapshotChunk {
                route,
                transfer,
                size,
                offset,
                bytes: Vec::new().into(),
                end: None,
            };
            let answer = raft.ask(chunk, LIMIT).await;
            let without = group.members[&leader].without_room();
            let declined = matches!(answer, Ok(Err(Declined::NoRoom(_))));
            (declined && without.contains(to.as_str()), (answer, without))
        })
        .await
        .0
        .unwrap()
        .unwrap_err();
        put(&group.handle(leader), "x").await;
        until("room everywhere", async || {
            let without = group.members[&leader].without_room();
            (without.is_empty(), without)
        })
        .await;
        group.end().await;
    });
}

/// A tmpfs that is unmounted when the test ends.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_tmpfs_of_64_mib_loses_nothing_and_takes_writes_again_once_it_is_freed() {
    let root = tempfile::tempdir().unwrap();
    let size = format!("size={SIZE}");
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(root.path());
    let mounted = mount.status().is_ok_and(|status| status.success());
    if !mounted {
        let why = "a tmpfs cannot be mounted here, which takes root";
        assert!(std::env::var("CI").as_deref() != Ok("true"), "left out with CI=true: {why}");
        println!("left out: {why}");
        return;
    }
    let mounted = Mounted(root.path().to_owned());
    let filler = mounted.0.join("filler");
    fs::write(&filler, vec![1; TAKEN as usize]).unwrap();
    run(async {
        let group = Group::of(Cluster::on(root, Arc::new(Machine))).await;
        let take = || {
            let mut file = File::options().append(true).open(&filler).unwrap();
            let piece = vec![1; 1 << 20];
            for size in [1 << 20, 4096, 1] {
                while io::Write::write_all(&mut file, &piece[..size]).is_ok() {}
            }
        };
        fill_and_free(group, take, || fs::remove_file(&filler).unwrap()).await;
    });
    drop(mounted);
}

#[test]
fn a_registry_that_filled_its_own_disk_takes_writes_again_once_objects_are_deleted() {
    run(async {
        let root = tempfile::tempdir().unwrap();
        let small = Small::below(root.path());
        let cluster = Cluster::on(root, small.clone());
        let node = cluster.node("n1").await;
        let member = cluster.start(&node, found()).await.unwrap();
        let registry = member.handle();
        let write = async |n: usize| {
            registry.transact(Transaction::new().put(object(n), vec![b'x'; VALUE_BYTES])).await
        };
        let deadline = Instant::now() + 4 * LIMIT;
        let mut written = 0;
        let refused = loop {
            match write(written).await {
                Ok(_) => written += 1,
                // A slow disk: the same object again.
                Err(TransactError::Unknown { .. } | TransactError::Unavailable { .. })
                    if Instant::now() < deadline => {}
                Err(refused) => break refused,
            }
        };
        assert!(matches!(refused, TransactError::NoSpace { .. }), "{refused}");
        for n in 0..written / 2 {
            delete(&registry, object(n)).await;
        }
        until("a write", async || {
            let again = write(0).await;
            (again.is_ok(), (again, small.available()))
        })
        .await
        .0
        .unwrap();
        member.stop().await;
        node.stop(Duration::from_secs(5)).await;
    });
}

#[test]
fn a_member_starts_on_a_full_disk() {
    run(async {
        let root = tempfile::tempdir().unwrap();
        let small = Small::below(root.path());
        let cluster = Cluster::on(root, small.clone());
        let node = cluster.node("n1").await;
        let member = cluster.start(&node, found()).await.unwrap();
        put(&member.handle(), "a").await;
        member.stop().await;
        small.taken.store(SIZE, Ordering::SeqCst);
        let member = cluster.start(&node, found()).await.unwrap();
        let registry = member.handle();
        assert_eq!(pods(&registry).await, 1);
        registry.transact(Transaction::new().delete(pod("a"))).await.unwrap();
        let refused = registry.transact(Transaction::create(pod("b"), "{}")).await.unwrap_err();
        assert!(matches!(refused, TransactError::NoSpace { .. }), "{refused}");
        small.taken.store(0, Ordering::SeqCst);
        until("a write", async || {
            let written = registry.transact(Transaction::create(pod("b"), "{}")).await;
            (written.is_ok(), written)
        })
        .await
        .unwrap();
        member.stop().await;
        node.stop(Duration::from_secs(5)).await;
    });
}
