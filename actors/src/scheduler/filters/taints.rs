//! The pod bears with the node's taints.

use super::super::fit::{Unfit, forbids};
use super::super::parties::{Node, Pending};
use super::rule::{Looks, Verdict};

pub(super) const FILTER: Looks =
    Looks::AtNode { passes: |pod, node| forbids(&pod.tolerations, &node.taints).is_none(), why };

fn why(pod: &Pending, node: &Node) -> Verdict {
    let taint = forbids(&pod.tolerations, &node.taints)?;
    let value = taint.value.as_deref().unwrap_or_default();
    Some(Unfit::Tainted(format!("{}: {value}", taint.key)))
}
