//! The pod's host ports are free on the node.

use super::super::fit::Unfit;
use super::super::parties::{Node, Pending};
use super::rule::Looks;

pub(super) const FILTER: Looks =
    Looks::AtNode { passes, why: |pod, node| (!passes(pod, node)).then_some(Unfit::HostPort) };

fn passes(pod: &Pending, node: &Node) -> bool {
    let is_free = |port| node.host_ports.iter().all(|taken| !taken.conflicts(port));
    pod.host_ports.iter().all(is_free)
}
