//! Which UDP address a node listens on.
//!
//! Filled by whoever knows (a join answer, the Node objects); read when a connection is dialled. A change takes effect
//! with the next dial and cuts nothing.

use crate::name::NodeName;
use parking_lot::RwLock;
use std::{collections::HashMap, net::SocketAddr};
use tokio::sync::watch;

#[derive(Debug, Default)]
struct Known {
    nodes: HashMap<NodeName, SocketAddr>,
    /// How many nodes are at each address.
    addresses: HashMap<SocketAddr, usize>,
}

impl Known {
    fn set(&mut self, node: NodeName, address: Option<SocketAddr>) -> bool {
        let before = match address {
            Some(address) => self.nodes.insert(node, address),
            None => self.nodes.remove(&node),
        };
        if before == address {
            return false;
        }
        if let Some(count) = before.as_ref().and_then(|before| self.addresses.get_mut(before)) {
            *count -= 1;
            if *count == 0 {
                before.as_ref().map(|before| self.addresses.remove(before));
            }
        }
        if let Some(address) = address {
            *self.addresses.entry(address).or_default() += 1;
        }
        true
    }
}

/// The addresses of the nodes that this one may dial.
#[derive(Debug)]
pub struct AddressBook {
    known: RwLock<Known>,
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
        if self.known.write().set(node, Some(address)) {
            self.changes.send_modify(|serial| *serial += 1);
        }
    }

    /// Forgets a node.
    pub fn remove(&self, node: &NodeName) {
        if self.known.write().set(node.clone(), None) {
            self.changes.send_modify(|serial| *serial += 1);
        }
    }

    /// The address of a node.
    pub fn get(&self, node: &NodeName) -> Option<SocketAddr> {
        self.known.read().nodes.get(node).copied()
    }

    /// Whether a node is known to listen there.
    pub(crate) fn knows(&self, address: SocketAddr) -> bool {
        self.known.read().addresses.contains_key(&address)
    }

    /// All nodes and their addresses, by name.
    pub fn all(&self) -> Vec<(NodeName, SocketAddr)> {
        let mut all: Vec<_> = self
            .known
            .read()
            .nodes
            .iter()
            .map(|(node, address)| (node.clone(), *address))
            .collect();
        all.sort();
        all
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_known_as_long_as_a_node_is_there() {
        let (book, at) =
            (AddressBook::default(), |port: u16| SocketAddr::from(([127, 0, 0, 1], port)));
        book.set("a".into(), at(1));
        book.set("b".into(), at(1));
        book.set("b".into(), at(1));
        book.remove(&"a".into());
        assert!(book.knows(at(1)));
        book.set("b".into(), at(2));
        assert!(!book.knows(at(1)) && book.knows(at(2)));
        book.remove(&"b".into());
        book.remove(&"b".into());
        assert!(!book.knows(at(2)) && book.all().is_empty());
    }
}
