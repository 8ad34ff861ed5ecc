//! Machines for the tests: a cluster's authority, and nodes with directories that outlive their members.

use impresario_registry::{
    Beginning, Member, MemberConfig, Transaction,
    member::{RaftTiming, StartError},
};
use impresario_registry::{Key, RegistryHandle, Revision};
use impresario_runtime::{ActorNode, ClusterAuthority, Credential, NodeConfig, NodeName, PeerRole};
use std::{future::Future, path::PathBuf, time::Duration};
use tempfile::TempDir;

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
}

impl Cluster {
    pub fn new() -> Self {
        let authority = ClusterAuthority::create("test").expect("an authority");
        Self { authority, root: tempfile::tempdir().expect("a directory") }
    }

    pub fn credential(&self, name: &str, role: PeerRole) -> Credential {
        self.authority.issue(name, role, &[], Duration::from_hours(1)).expect("a credential")
    }

    pub async fn node(&self, name: &str) -> ActorNode {
        self.node_as(name, PeerRole::Control).await
    }

    pub async fn node_as(&self, name: &str, role: PeerRole) -> ActorNode {
        ActorNode::start(NodeConfig::new(self.credential(name, role))).await.expect("an actor node")
    }

    pub fn directory(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn config(&self, node: &ActorNode, beginning: Beginning) -> MemberConfig {
        let directory = self.directory(node.name().as_str());
        let mut config = MemberConfig::new(directory, node.clone(), node.local_addr(), beginning);
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
