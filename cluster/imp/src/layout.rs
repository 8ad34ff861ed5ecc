//! Where a cluster of this machine keeps its files, and what is written in them.
//!
//! ```text
//! DIR/making                   there until all of a new cluster is: says whose the folder is
//! DIR/cluster.json             what `imp up` was asked for the first time
//! DIR/kubeconfig               for kubectl
//! DIR/pki/                     the cluster's authority (0600)
//! DIR/admin/                   the credential of this user's commands
//! DIR/nodes/NAME/node.json     who the node is and whom it knows
//! DIR/nodes/NAME/credential/   certificate and key
//! DIR/nodes/NAME/revoked.json  certificates that are trusted no more, as the node last heard
//! DIR/nodes/NAME/{pid,log,lock}
//! DIR/nodes/NAME/api.sock      where a control member hands on the socket that the API listens on
//! DIR/nodes/NAME/{registry,pods}/
//! DIR/hollow/GROUP/hollow.json the nodes that one process pretends to be, with their certificates
//! DIR/hollow/GROUP/{pid,log,lock}
//! ```
//!
//! Whether a node runs is known by the lock on `DIR/nodes/NAME/lock`, which its process holds as
//! long as it lives: a pid in a file may be somebody else's by now.

mod error;
mod files;
mod hollow;
mod node;
mod written;

pub use error::LayoutError;
pub use files::{make_private_dir, replace};
pub use hollow::{HollowDir, HollowFile, HollowNode, HollowSize};
pub use node::{CLAIM_LIMIT, JOINING, MADE_BY_NODE, NodeDir};
pub use written::{ClusterFile, ControlFile, NodeFile, Peer, certificate_lifetime, loopback};

use error::at;
use files::{read_json, refuse_foreign, write_json};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a command waits for another one on the same cluster: a start and an end fit in.
const BUSY_LIMIT: Duration = Duration::from_secs(150);

/// What `imp up` puts into the folder of a cluster. The last of them say that it is one.
pub const MADE_BY_CLUSTER: &[&str] =
    &["kubeconfig", "pki", "admin", "nodes", "hollow", LOCK, "making", "cluster.json"];
/// What is locked where the file system cannot lock the folder itself.
const LOCK: &str = "cluster.lock";

/// The folder of a cluster.
#[derive(Debug, Clone)]
pub struct ClusterDir(PathBuf);

impl ClusterDir {
    /// The folder, which need not exist.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self(std::path::absolute(&path).unwrap_or(path))
    }

    /// The folder itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Lets this command alone change the cluster (by a lock on its folder, which leaves no trace) until the
    /// result is dropped. Waits for another one that does. `None`: there is no such folder.
    pub async fn lock(&self) -> Result<Option<Flock<File>>, LayoutError> {
        let mut file = match File::open(&self.0) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(at(&self.0)(error)),
        };
        let deadline = tokio::time::Instant::now() + BUSY_LIMIT;
        let mut is_folder = true;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(Some(lock)),
                Err((back, Errno::EWOULDBLOCK | Errno::EINTR)) => file = back,
                // NFS locks only what is open for writing, which a folder cannot be (flock(2)).
                Err((_, Errno::EBADF)) if is_folder => {
                    file = self.lock_file()?;
                    is_folder = false;
                    continue;
                }
                Err((_, errno)) => {
                    return Err(LayoutError::NoLock { path: self.0.clone(), source: errno.into() });
                }
            }
            if tokio::time::Instant::now() > deadline {
                return Err(LayoutError::Busy { path: self.0.clone() });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What is locked where a folder cannot be.
    fn lock_file(&self) -> Result<File, LayoutError> {
        let path = self.0.join(LOCK);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.open(&path).map_err(at(&path))
    }

    /// Whether `imp up` made this folder, or began to.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        ["cluster.json", "making"].iter().any(|name| self.0.join(name).exists())
    }

    /// Takes the folder for a new cluster: one that holds files of others under our names is refused.
    pub fn take(&self) -> Result<(), LayoutError> {
        if !self.is_ours() {
            refuse_foreign(&self.0, MADE_BY_CLUSTER)?;
        }
        make_private_dir(&self.0)?;
        replace(&self.0.join("making"), b"")
    }

    /// All of the new cluster is there.
    pub fn made(&self) -> Result<(), LayoutError> {
        let path = self.0.join("making");
        fs::remove_file(&path).map_err(at(&path))
    }

    /// The folder of the authority.
    #[must_use]
    pub fn pki(&self) -> PathBuf {
        self.0.join("pki")
    }

    /// The folder of the credential of this user's commands.
    #[must_use]
    pub fn admin(&self) -> PathBuf {
        self.0.join("admin")
    }

    /// The file for kubectl.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.0.join("kubeconfig")
    }

    /// What `imp up` was asked for.
    pub fn cluster(&self) -> Result<ClusterFile, LayoutError> {
        let path = self.0.join("cluster.json");
        if !path.exists() {
            return Err(LayoutError::NoCluster { path: self.0.clone() });
        }
        read_json(&path)
    }

    /// Writes what `imp up` was asked for.
    pub fn save_cluster(&self, cluster: &ClusterFile) -> Result<(), LayoutError> {
        write_json(&self.0.join("cluster.json"), cluster)
    }

    /// A node's folder.
    #[must_use]
    pub fn node(&self, name: &str) -> NodeDir {
        NodeDir::new(self.0.join("nodes").join(name))
    }

    /// The folders of all nodes that were set up here, by name.
    pub fn nodes(&self) -> Result<Vec<NodeDir>, LayoutError> {
        let folder = self.0.join("nodes");
        let mut nodes = Vec::new();
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(nodes),
            Err(error) => return Err(at(&folder)(error)),
        };
        for entry in entries {
            let node = NodeDir::new(entry.map_err(at(&folder))?.path());
            if node.exists() {
                nodes.push(node);
            }
        }
        nodes.sort_by(|a, b| a.path().cmp(b.path()));
        Ok(nodes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_running_while_somebody_holds_its_lock() {
        let folder = tempfile::tempdir().unwrap();
        let node = NodeDir::new(folder.path().join("node-1"));
        assert!(!node.is_running());
        let lock = node.claim().unwrap();
        assert!(node.is_running());
        assert_eq!(node.pid(), i32::try_from(std::process::id()).ok());
        assert!(matches!(node.claim(), Err(LayoutError::Running { .. })));
        drop(lock);
        assert!(!node.is_running());
        node.leave(node.claim().unwrap());
        assert!(!node.path().exists());
    }

    #[test]
    fn a_folder_without_a_cluster_says_how_to_start_one() {
        let folder = tempfile::tempdir().unwrap();
        let error = ClusterDir::new(folder.path().to_owned()).cluster().unwrap_err();
        assert!(error.to_string().contains("imp up"), "{error}");
    }
}
