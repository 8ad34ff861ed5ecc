//! The folder of a group of hollow nodes, which share one process.

use super::files::{read_json, write_json};
use super::{ClusterDir, LayoutError, NodeDir, at};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// How the folders of groups are called, before their number.
const GROUP: &str = "group-";

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

    /// The number of the group: the one with the highest was made last.
    #[must_use]
    pub fn number(&self) -> usize {
        self.name().strip_prefix(GROUP).and_then(|number| number.parse().ok()).unwrap_or(0)
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

    /// Removes all that is known of the group, what says that it is one last.
    pub fn remove(&self) -> Result<(), LayoutError> {
        let folder = self.0.path();
        let gone = |path: &Path, outcome: io::Result<()>| match outcome {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(at(path)(error)),
            _ => Ok(()),
        };
        for path in [self.0.log(), folder.join("pid"), folder.join("lock"), self.file()] {
            gone(&path, fs::remove_file(&path))?;
        }
        gone(folder, fs::remove_dir_all(folder))
    }
}

impl ClusterDir {
    /// The folder of the group with this number.
    #[must_use]
    pub fn hollow_group(&self, number: usize) -> HollowDir {
        HollowDir::new(self.path().join("hollow").join(format!("{GROUP}{number}")))
    }

    /// The groups of hollow nodes that were set up here, in the order in which they were made.
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
        groups.sort_by_key(HollowDir::number);
        Ok(groups)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_stand_in_the_order_in_which_they_were_made_and_one_that_is_removed_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let cluster = ClusterDir::new(folder.path().to_owned());
        let size = HollowSize { cpu_milli: 1, memory_bytes: 1, pods: 1 };
        let address = IpAddr::from([127, 0, 0, 1]);
        let file = HollowFile {
            listen: address,
            address,
            size,
            chaos: false,
            authority: String::new(),
            nodes: Vec::new(),
        };
        for number in [10, 2, 1] {
            cluster.hollow_group(number).save(&file).unwrap();
        }
        let numbers =
            || cluster.hollow().unwrap().iter().map(HollowDir::number).collect::<Vec<_>>();
        assert_eq!(numbers(), [1, 2, 10]);
        let group = cluster.hollow_group(2);
        drop(group.process().claim().unwrap());
        group.remove().unwrap();
        group.remove().unwrap();
        assert_eq!(numbers(), [1, 10]);
        assert!(!group.process().path().exists());
    }
}
