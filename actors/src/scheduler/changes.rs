//! What a pass of the scheduler begins with.

use super::parties::Pending;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

/// Of so many nodes, and of so many pods, it is known which they are.
const MANY: usize = 256;

/// What has come about since the last pass that pods may be waiting for.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Something that may help any of those that fitted nowhere.
    pub(super) hopeful: bool,
    /// A node that was busy has answered, or is silent now.
    pub(super) answered: bool,
    /// A node that was silent was heard.
    pub(super) heard: bool,
    /// More may be made to leave for others.
    pub(super) budgets: bool,
    /// Nodes that have more room, or are otherwise than before.
    pub(super) nodes: BTreeSet<String>,
    /// Pods that have come to nodes, changed there, or left.
    pub(super) stirred: Vec<Arc<Pending>>,
    /// Whether there were more of those.
    pub(super) has_stirred_many: bool,
}

impl Changes {
    /// A node has more room, or is otherwise than before.
    pub(super) fn room_on(&mut self, node: String) {
        if self.nodes.len() < MANY {
            self.nodes.insert(node);
        } else {
            self.hopeful = true;
        }
    }

    /// A pod has come to a node, changed, or left.
    pub(super) fn stir(&mut self, pod: &Pending) {
        if self.stirred.len() < MANY {
            self.stirred.push(Arc::new(pod.clone()));
        } else {
            self.has_stirred_many = true;
        }
    }

    /// Whether there is hope for some of those that fitted nowhere.
    pub(super) fn is_hope(&self) -> bool {
        let by_pods = self.has_stirred_many || !self.stirred.is_empty();
        self.hopeful || self.budgets || by_pods || !self.nodes.is_empty()
    }

    /// Whether nothing has come about.
    pub(super) fn is_nothing(&self) -> bool {
        !(self.answered || self.heard || self.is_hope())
    }
}

/// A node that did not answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Silence {
    /// Until when it is left alone.
    pub(super) until: Instant,
    /// How often in a row it did not answer.
    pub(super) times: u32,
}
