//! Which UDP address a node listens on.
//!
//! Filled by whoever knows (a join answer, the Node objects); read when a connection is dialled. A change takes effect
//! with the next dial and cuts nothing.

use crate::name::NodeName;
use parking_lot::RwLock;
use std::{collections::HashMap, net::SocketAddr};
use tokio::sync::watch;

/// The addresses of the nodes that this one may dial.
#[derive(Debug)]
pub struct AddressBook {
    known: RwLock<HashMap<NodeName, SocketAddr>>,
    changes: watch::Sender<u64>,
}

impl Default for AddressBook {
    fn default() -> Self {
        Self { known: RwLock::default(), changes: watch::Sender::new(0) }
    }
}

impl AddressBook {
    /// Sets the address of a node.
    pub fn set(&self, node: NodeName, address: SocketAddr) {
        if self.known.write().insert(node, address) != Some(address) {
            self.changes.send_modify(|serial| *serial += 1);
        }
    }

    /// Forgets a node.
    pub fn remove(&self, node: &NodeName) {
        if self.known.write().remove(node).is_some() {
            self.changes.send_modify(|serial| *serial += 1);
        }
    }

    /// The address of a node.
    pub fn get(&self, node: &NodeName) -> Option<SocketAddr> {
        self.known.read().get(node).copied()
    }

    /// Whether a node is known to listen there.
    pub(crate) fn knows(&self, address: SocketAddr) -> bool {
        self.known.read().values().any(|known| *known == address)
    }

    /// All nodes and their addresses, by name.
    pub fn all(&self) -> Vec<(NodeName, SocketAddr)> {
        let mut all: Vec<_> =
            self.known.read().iter().map(|(node, address)| (node.clone(), *address)).collect();
        all.sort();
        all
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
