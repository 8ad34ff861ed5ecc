//! Nodes that say they have less than their pods leave them, and for how long. No IO, no clock.
//!
//! Mostly that passes: a node that was started anew does not know its containers yet, a reservation was not given back, or
//! the last word was lost. Nobody is made to leave for a pod that may have room there. Where it goes on, something is there
//! that the registry does not know, and the node's word is taken.

use std::collections::BTreeMap;

/// After so many looks in a row it is no doubt any more.
const BELIEVED: u32 = 30;

/// By node, in how many looks in a row it was doubted.
#[derive(Debug, Default)]
pub struct Doubts(BTreeMap<String, u32>);

impl Doubts {
    /// These nodes are doubted now.
    pub fn are(&mut self, nodes: &[String]) {
        let before = std::mem::take(&mut self.0);
        let times = |name: &String| before.get(name).copied().unwrap_or(0).saturating_add(1);
        self.0 = nodes.iter().map(|name| (name.clone(), times(name))).collect();
    }

    /// Whether what the node says is to be believed although it is doubtful.
    #[must_use]
    pub fn is_believed(&self, node: &str) -> bool {
        self.0.get(node).is_some_and(|times| *times >= BELIEVED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_goes_on_saying_so_is_believed_and_one_that_does_not_is_doubted_anew() {
        let mut doubts = Doubts::default();
        let nodes = ["a".to_owned(), "b".to_owned()];
        for _ in 1..BELIEVED {
            doubts.are(&nodes);
        }
        assert!(!doubts.is_believed("a"));
        doubts.are(&nodes[..1]);
        assert!(doubts.is_believed("a") && !doubts.is_believed("b"));
        doubts.are(&nodes);
        assert!(doubts.is_believed("a") && !doubts.is_believed("b"));
    }
}
