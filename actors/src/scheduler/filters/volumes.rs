//! The volumes of the pod's claims can be reached from the node, or be made there.

use super::super::fit::{Unfit, is_chosen};
use super::super::parties::{Node, Pending};
use super::rule::{Looks, Verdict};
use std::collections::BTreeMap;

pub(super) const FILTER: Looks =
    Looks::AtNode { passes: |pod, node| why(pod, node).is_none(), why };

fn why(pod: &Pending, node: &Node) -> Verdict {
    let volumes = pod.volumes.as_ref()?;
    let none = BTreeMap::new();
    let why = volumes.unfit(|terms| is_chosen(&none, Some(terms), &node.name, &node.labels))?;
    Some(Unfit::Volumes(why))
}
