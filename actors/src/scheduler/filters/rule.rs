//! What a rule is.

use super::super::fit::Unfit;
use super::super::parties::{Node, Pending};
use super::super::scene::{Scene, Subject};

/// Why a node does not pass; `None` where it does.
pub type Verdict = Option<Unfit>;

/// What a rule looks at.
#[derive(Clone, Copy)]
pub enum Looks {
    /// At the pod and the node alone.
    AtNode {
        /// Whether the node passes.
        passes: fn(&Pending, &Node) -> bool,
        /// Why it does not.
        why: fn(&Pending, &Node) -> Verdict,
    },
    /// At others too: pods around, rooms that are kept.
    Around {
        /// Whether the node with this index passes.
        passes: fn(&Scene<'_>, &Subject<'_>, usize) -> bool,
        /// Why it does not.
        why: fn(&Scene<'_>, &Subject<'_>, usize) -> Verdict,
    },
}
