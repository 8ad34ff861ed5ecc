//! The pod is meant for the node: by its node selector and its required node affinity.

use super::super::fit::{Unfit, is_chosen};
use super::super::parties::{Node, Pending};
use super::rule::Looks;

pub(super) const FILTER: Looks =
    Looks::AtNode { passes, why: |pod, node| (!passes(pod, node)).then_some(Unfit::Selector) };

fn passes(pod: &Pending, node: &Node) -> bool {
    is_chosen(&pod.selector, pod.affinity.as_deref(), &node.name, &node.labels)
}
