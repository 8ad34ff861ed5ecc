//! Machines for the tests: a cluster's authority, and nodes with directories that outlive their members.

use impresario_registry::raft::{Entry, log::Log};
use impresario_registry::{
    Beginning, Member, MemberConfig, TransactError, Transaction,
    disk::volume::{Machine, Room, Volume},
    member::{RaftTiming, StartError},
};
use impresario_registry::{Key, RegistryHandle, Revision};
use impresario_runtime::{
    ActorNode, ClusterAuthority, Credential, NodeConfig, NodeName, PeerRole, PermitAll,
};
use openraft::storage::{RaftLogReader, RaftLogStorage};
use std::{
    fs,
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;

/// What a test reads and writes as, from outside the group.
pub const HARNESS: &str = "harness";

/// For a busy machine; a passing test never spends it.
pub const LIMIT: Duration = Duration::from_mins(1);

/// Runs a test as the program runs: an actix system on a multi-threaded runtime.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(4).enable_all().build().expect("a runtime")
    };
    actix::System::with_tokio_rt(runtime).block_on(test)
}

/// A cluster that nodes can belong to.
pub struct Cluster {
    authority: ClusterAuthority,
    root: TempDir,
    volume: Arc<dyn Volume>,
    timing: RaftTiming,
}

impl Cluster {
    pub fn new() -> Self {
        Self::on(tempfile::tempdir().expect("a directory"), Arc::new(Machine))
    }

    /// A cluster whose members all keep their directories below `root`, on this disk.
    pub fn on(root: TempDir, volume: Arc<dyn Volume>) -> Self {
        let authority = ClusterAuthority::create("test").expect("an authority");
        let timing = RaftTiming { snapshot_every: 200, keep_behind: 20, ..RaftTiming::default() };
        Self { authority, root, volume, timing }
    }

    /// A cluster whose leader stays, though a machine that is busy keeps it silent for seconds.
    pub fn calm() -> Self {
        let mut cluster = Self::new();
        cluster.timing.election_least = Duration::from_secs(5);
        cluster.timing.election_most = Duration::from_secs(10);
        cluster
    }

    pub fn credential(&self, name: &str, role: PeerRole) -> Credential {
        self.authority.issue(name, role, &[], Duration::from_hours(1)).expect("a credential")
    }

    pub async fn node(&self, name: &str) -> ActorNode {
        self.node_as(name, PeerRole::Control).await
    }

    pub async fn node_as(&self, name: &str, role: PeerRole) -> ActorNode {
        let credential = self.credential(name, role);
        let gate = Arc::new(PermitAll);
        ActorNode::start(NodeConfig { gate, ..NodeConfig::new(credential) })
            .await
            .expect("an actor node")
    }

    pub fn directory(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn config(&self, node: &ActorNode, beginning: Beginning) -> MemberConfig {
        let directory = self.directory(node.name().as_str());
        let mut config = MemberConfig::new(directory, node.clone(), node.local_addr(), beginning);
        config.volume = self.volume.clone();
        config.harness = Some(HARNESS.to_owned());
        config.timing = self.timing;
        config
    }

    pub async fn start(
        &self,
        node: &ActorNode,
        beginning: Beginning,
    ) -> Result<Member, StartError> {
        Member::start(self.config(node, beginning)).await
    }
}

pub fn found() -> Beginning {
    Beginning::Found { peers: Vec::new() }
}

pub fn join(members: &[&ActorNode]) -> Beginning {
    Beginning::Join { members: members.iter().map(|node| node.name().clone()).collect() }
}

pub fn names(members: &[&ActorNode]) -> Vec<NodeName> {
    members.iter().map(|node| node.name().clone()).collect()
}

/// Looks every few milliseconds until something holds, and says what was seen last if it never does.
pub async fn until<T: std::fmt::Debug>(what: &str, mut look: impl AsyncFnMut() -> (bool, T)) -> T {
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        let (holds, seen) = look().await;
        if holds {
            return seen;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "{what} did not come about in {LIMIT:?}; last seen {seen:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn pod(name: impl std::fmt::Display) -> Key {
    Key::new("pods", "default", name.to_string())
}

/// Whether a write may be tried again: nobody took it, or nobody knows whether it is there.
fn is_open(error: &TransactError) -> bool {
    matches!(error, TransactError::Unavailable { .. } | TransactError::Unknown { .. })
}

fn value(name: impl std::fmt::Display) -> String {
    format!(r#"{{"metadata":{{"name":"{name}"}}}}"#)
}

/// Puts a pod and insists until it is acknowledged.
pub async fn put(registry: &RegistryHandle, name: impl std::fmt::Display) -> Revision {
    let written = until("an acknowledged write", async || {
        let put = Transaction::new().put(pod(&name), value(&name));
        let written = registry.transact(put).await;
        (!written.as_ref().is_err_and(is_open), written)
    });
    written.await.expect("an acknowledged write").revision
}

/// The same for a pod that is new, of which there is one revision however often it is tried.
pub async fn create(registry: &RegistryHandle, name: impl std::fmt::Display) -> Revision {
    let mut is_tried = false;
    let written = until("an acknowledged write", async || {
        let written = registry.transact(Transaction::create(pod(&name), value(&name))).await;
        let again = written.as_ref().is_err_and(is_open);
        let outcome = match written {
            // An earlier try of ours did it, of which we did not hear.
            Err(TransactError::Conflict { found, .. }) if is_tried => Ok(found),
            Ok(committed) => Ok(committed.revision),
            Err(error) => Err(error),
        };
        is_tried |= again;
        (!again, outcome)
    });
    written.await.expect("an acknowledged write")
}

/// How many pods a fresh list shows.
pub async fn pods(registry: &RegistryHandle) -> usize {
    use impresario_registry::{ListRequest, Selection};
    let page = until("a fresh list", async || {
        let page = registry.list(ListRequest::of(Selection::all("pods"))).await;
        (page.is_ok(), page)
    });
    page.await.expect("a fresh list").entries.len()
}

/// The files of a directory as they are now. Of one that is being appended to it is a prefix, as it
/// would be after a power cut.
pub fn image(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        // The member may remove or rename a file that was just listed.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            image(&entry.path(), &target);
        } else if let Err(error) = fs::copy(entry.path(), target) {
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
        }
    }
}

/// The entries that a member's directory holds, read from a copy: the member may be running.
pub async fn entries(directory: &Path) -> Vec<Entry> {
    // A copy that was made while the log was cut may miss a piece: another is whole.
    let deadline = tokio::time::Instant::now() + LIMIT;
    let (copy, (mut log, end)) = loop {
        let copy = tempfile::tempdir().unwrap();
        image(&directory.join("log"), copy.path());
        match Log::open(copy.path(), Room::new(Arc::new(Machine), copy.path())) {
            Ok(log) => break (copy, log),
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let found = log.get_log_reader().await.try_get_log_entries(0..u64::MAX).await.unwrap();
    drop(log);
    // The thread lets go of the copy before it is removed; its end is told by closing the channel.
    let _ = end.await;
    drop(copy);
    found
}
