//! The folder of one node, and the lock by which it is known to run.

use super::error::{LayoutError, at};
use super::files::{make_private_dir, read_json, refuse_foreign, replace, write_json};
use super::written::NodeFile;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a process may take to claim its folder; one that has not has ended.
pub const CLAIM_LIMIT: Duration = Duration::from_secs(5);

/// What a node keeps in its folder; the last of them says that it is one. Its log is written by
/// whoever started it.
pub const MADE_BY_NODE: &[&str] = &[
    JOINING,
    JOIN_REQUEST,
    "pods",
    "registry",
    "dns",
    "api.sock",
    "services.sock",
    "addresses.json",
    "gpus.json",
    REVOKED,
    "credential",
    "pid",
    "lock",
    "node.json",
];

/// Takes the room that a node's files will need, while it joins.
pub const JOINING: &str = "joining";
/// The certificates that are trusted no more.
const REVOKED: &str = "revoked.json";
/// The signing request with which a machine has asked to join, until it is answered.
const JOIN_REQUEST: &str = "joining.pem";

/// The folder of one node.
#[derive(Debug, Clone)]
pub struct NodeDir(PathBuf);

impl NodeDir {
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

    /// The file that says who the node is.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.0.join("node.json")
    }

    /// Certificate and key.
    #[must_use]
    pub fn credential(&self) -> PathBuf {
        self.0.join("credential")
    }

    /// The signing request of a machine that has asked to join and was not answered.
    #[must_use]
    pub fn join_request(&self) -> PathBuf {
        self.0.join(JOIN_REQUEST)
    }

    /// It has been answered.
    pub fn forget_join_request(&self) {
        if let Err(error) = fs::remove_file(self.join_request())
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(%error, "the request to join is left in the folder");
        }
    }

    /// What the node last heard of certificates that are trusted no more.
    #[must_use]
    pub fn revoked(&self) -> PathBuf {
        self.0.join(REVOKED)
    }

    /// What the registry of a control member keeps.
    #[must_use]
    pub fn registry(&self) -> PathBuf {
        self.0.join("registry")
    }

    /// The log of the process, which puts it aside as `log.1` beside it when it is full.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    /// One folder for each pod: volumes, credentials, and what its driver keeps.
    #[must_use]
    pub fn pods(&self) -> PathBuf {
        self.0.join("pods")
    }

    /// Where the node answers for the names of services, as `ADDRESS:PORT`.
    #[must_use]
    pub fn dns(&self) -> PathBuf {
        self.0.join("dns")
    }

    /// What no container of the node may see: its own folder, and that of the cluster with the authority, the
    /// credentials of this machine's user and the folders of all other nodes, where `imp up` has made it.
    #[must_use]
    pub fn private(&self) -> Vec<PathBuf> {
        let above = self.0.parent().and_then(Path::parent);
        let cluster = above.filter(|cluster| {
            cluster.join("cluster.json").exists() && self.0.starts_with(cluster.join("nodes"))
        });
        vec![cluster.unwrap_or(&self.0).to_owned()]
    }

    /// Whether this folder was set up.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.file().exists()
    }

    /// Refuses a folder in which somebody else keeps files under names that a node uses.
    pub fn refuse_foreign(&self) -> Result<(), LayoutError> {
        if self.exists() {
            return Ok(());
        }
        // A claim that came to nothing leaves two of these, a request that was not answered the third.
        let left = ["pid", "lock", JOIN_REQUEST];
        let names: Vec<&str> =
            MADE_BY_NODE.iter().copied().filter(|name| !left.contains(name)).collect();
        refuse_foreign(&self.0, &names)
    }

    /// Who the node is.
    pub fn load(&self) -> Result<NodeFile, LayoutError> {
        read_json(&self.file())
    }

    /// Writes who the node is.
    pub fn save(&self, node: &NodeFile) -> Result<(), LayoutError> {
        write_json(&self.file(), node)
    }

    /// The pid that was written last; it may be of a process that is gone.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        fs::read_to_string(self.0.join("pid")).ok()?.trim().parse().ok()
    }

    /// Forgets the pid of a process that is gone. Of one that runs it is kept.
    pub fn forget_process(&self) -> Result<(), LayoutError> {
        let path = self.0.join("lock");
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            // No process was ever there.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(at(&path)(error)),
        };
        // It was taken meanwhile: the number is of the one that has it, or will be.
        let Ok(_held) = self.lock(file) else { return Ok(()) };
        let pid = self.0.join("pid");
        match fs::remove_file(&pid) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(at(&pid)(error)),
            _ => Ok(()),
        }
    }

    /// Whether a process runs this node.
    #[must_use]
    pub fn is_running(&self) -> bool {
        let Ok(file) = OpenOptions::new().read(true).write(true).open(self.0.join("lock")) else {
            return false;
        };
        // Shared: two that look at a time do not take each other for the node.
        Flock::lock(file, FlockArg::LockSharedNonblock).is_err()
    }

    /// Takes the node for this process, and writes its pid. Held until dropped.
    pub fn claim(&self) -> Result<Flock<File>, LayoutError> {
        make_private_dir(&self.0)?;
        let path = self.0.join("lock");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(at(&path))?;
        let lock = self.lock(file)?;
        replace(&self.0.join("pid"), format!("{}\n", std::process::id()).as_bytes())?;
        Ok(lock)
    }

    /// Takes back what a claim has left in a folder that came to be no node's: a mistake in a command leaves
    /// nothing behind.
    pub fn leave(&self, claim: Flock<File>) {
        // What cannot be removed does no harm; the folder goes only if it is empty.
        let _ = fs::remove_file(self.0.join("pid")).and(fs::remove_file(self.0.join("lock")));
        let _ = fs::remove_dir(&self.0);
        drop(claim);
    }

    /// Tries for a moment: `is_running` of another process holds the lock while it looks.
    fn lock(&self, mut file: File) -> Result<Flock<File>, LayoutError> {
        for _ in 0..20 {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(lock),
                Err((back, _)) => file = back,
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(LayoutError::Running { path: self.0.clone() })
    }
}
