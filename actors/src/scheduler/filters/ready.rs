//! The node was heard of lately, and takes pods.

use super::super::fit::{Unfit, goes_anyway};
use super::super::parties::{Node, Pending};
use super::rule::{Looks, Verdict};

pub(super) const FILTER: Looks =
    Looks::AtNode { passes: |pod, node| why(pod, node).is_none(), why };

fn why(pod: &Pending, node: &Node) -> Verdict {
    if node.unschedulable && !goes_anyway(&pod.tolerations) {
        return Some(Unfit::Unschedulable);
    }
    (!node.ready).then_some(Unfit::NotReady)
}
