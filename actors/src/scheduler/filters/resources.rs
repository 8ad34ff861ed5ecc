//! The node has what the pod asks for: every resource, the pod's overhead with it.

use super::super::fit::Unfit;
use super::super::parties::{Node, Pending};
use super::rule::{Looks, Verdict};

pub(super) const FILTER: Looks =
    Looks::AtNode { passes: |pod, node| node.free.covers(&pod.requests), why };

fn why(pod: &Pending, node: &Node) -> Verdict {
    let short = node.free.short_of(&pod.requests);
    let names = || short.iter().map(|name| (*name).to_owned()).collect();
    (!short.is_empty()).then(|| Unfit::Insufficient(names()))
}
