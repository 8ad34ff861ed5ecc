//! Machines for the tests: a cluster's authority, and nodes with directories that outlive their members.

use impresario_registry::raft::{Entry, log::Log};
use impresario_registry::{
    Beginning, Member, MemberConfig, Transaction,
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
}

impl Cluster {
    pub fn new() -> Self {
        Self::on(tempfile::tempdir().expect("a directory"), Arc::new(Machine))
    }

    /// A cluster whose members all keep their directories below `root`, on this disk.
    pub fn on(root: TempDir, volume: Arc<dyn Volume>) -> Self {
        let authority = ClusterAuthority::create("test").expect("an authority");
        Self { authority, root, volume }
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
        config.timing =
            RaftTiming { snapshot_every: 200, keep_behind: 20, ..RaftTiming::default() };
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

/// Puts a pod and insists until it is acknowledged.
pub async fn put(registry: &RegistryHandle, name: impl std::fmt::Display) -> Revision {
    let value = format!(r#"{{"metadata":{{"name":"{name}"}}}}"#);
    let put = Transaction::new().put(pod(name), value);
    registry.transact(put).await.expect("an acknowledged write").revision
}

/// How many pods a fresh list shows.
pub async fn pods(registry: &RegistryHandle) -> usize {
    use impresario_registry::{ListRequest, Selection};
    let page = registry.list(ListRequest::of(Selection::all("pods"))).await;
    page.expect("a fresh list").entries.len()
}

/// The files of a directory as they are now. Of one that is being appended to it is a prefix, as it
/// would be after a power cut.
pub fn image(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            image(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The entries that a member's directory holds, read from a copy: the member may be running.
pub async fn entries(directory: &Path) -> Vec<Entry> {
    let copy = tempfile::tempdir().unwrap();
    image(&directory.join("log"), copy.path());
    let (mut log, end) = Log::open(copy.path(), Room::new(Arc::new(Machine), copy.path())).unwrap();
    let found = log.get_log_reader().await.try_get_log_entries(0..u64::MAX).await.unwrap();
    drop(log);
    // The thread lets go of the copy before it is removed; its end is told by closing the channel.
    let _ = end.await;
    found
}
