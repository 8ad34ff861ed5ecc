//! The folder of a group of hollow nodes, which share one process.

use super::files::{read_json, write_json};
use super::{ClusterDir, LayoutError, NodeDir, at};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::PathBuf;

/// What each node of a group says that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HollowSize {
    /// Thousandths of a CPU.
    pub cpu_milli: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// How many pods it takes.
    pub pods: u64,
}

/// One node of a group.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HollowNode {
    /// Its name.
    pub name: String,
    /// Its number among the hollow nodes of the cluster, from 1.
    pub number: u32,
    /// Its certificate, as PEM.
    pub certificate: String,
    /// Its key, as PEM.
    pub key: String,
}

/// A group of hollow nodes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HollowFile {
    /// The address that they listen on, each at a port of its own.
    pub listen: IpAddr,
    /// The address at which others reach them.
    pub address: IpAddr,
    /// What each of them has.
    pub size: HollowSize,
    /// Whether faults may be injected.
    #[serde(default)]
    pub chaos: bool,
    /// The authority's certificate, as PEM.
    pub authority: String,
    /// The nodes.
    pub nodes: Vec<HollowNode>,
}

/// The folder of a group. Its process claims it as that of a node does.
#[derive(Debug, Clone)]
pub struct HollowDir(NodeDir);

impl HollowDir {
    /// The folder, which need not exist.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self(NodeDir::new(path))
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> &NodeDir {
        &self.0
    }

    /// The cluster that it belongs to.
    #[must_use]
    pub fn cluster(&self) -> ClusterDir {
        let above = self.0.path().parent().and_then(std::path::Path::parent);
        ClusterDir::new(above.unwrap_or(self.0.path()).to_owned())
    }

    /// The name of the group.
    #[must_use]
    pub fn name(&self) -> String {
        let name = self.0.path().file_name();
        name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("hollow.json")
    }

    /// Who the nodes are.
    pub fn load(&self) -> Result<HollowFile, LayoutError> {
        read_json(&self.file())
    }

    /// Writes who the nodes are, for this user alone.
    pub fn save(&self, file: &HollowFile) -> Result<(), LayoutError> {
        write_json(&self.file(), file)
    }
}

impl ClusterDir {
    /// The folder of the group with this number.
    #[must_use]
    pub fn hollow_group(&self, number: usize) -> HollowDir {
        HollowDir::new(self.path().join("hollow").join(format!("group-{number}")))
    }

    /// The groups of hollow nodes that were set up here, by name.
    pub fn hollow(&self) -> Result<Vec<HollowDir>, LayoutError> {
        let folder = self.path().join("hollow");
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(at(&folder)(error)),
        };
        let mut groups = Vec::new();
        for entry in entries {
            let group = HollowDir::new(entry.map_err(at(&folder))?.path());
            if group.file().exists() {
                groups.push(group);
            }
        }
        groups.sort_by_key(HollowDir::name);
        Ok(groups)
    }
}
