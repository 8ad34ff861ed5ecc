//! What rules nodes out for a pod: one file for each rule, and the list of them.
//!
//! A rule is asked twice: whether the node passes, for each node and pod and without an allocation, and then, where a pod
//! fits nowhere, in which words it does not.

mod affinity;
mod booked;
mod near;
mod ports;
mod ready;
mod resources;
mod rule;
mod spread;
mod taints;
mod volumes;

use super::fit::Unfit;
use super::parties::{Node, Pending};
use super::scene::{Scene, Subject};
pub use rule::{Looks, Verdict};

/// All rules, in the order in which they are told. A new one is a file in this folder and a line here.
pub const FILTERS: [Looks; 9] = [
    ready::FILTER,
    taints::FILTER,
    affinity::FILTER,
    ports::FILTER,
    resources::FILTER,
    booked::FILTER,
    volumes::FILTER,
    spread::FILTER,
    near::FILTER,
];

/// Whether the pod may go to the node. Those are asked first that cost least, which are the last.
#[must_use]
pub fn passes(scene: &Scene<'_>, subject: &Subject<'_>, node: usize) -> bool {
    FILTERS.iter().rev().all(|filter| match filter {
        Looks::AtNode { passes, .. } => passes(subject.pod, &scene.nodes[node]),
        Looks::Around { passes, .. } => passes(scene, subject, node),
    })
}

/// The first reason why the pod may not go to the node.
#[must_use]
pub fn why(scene: &Scene<'_>, subject: &Subject<'_>, node: usize) -> Verdict {
    FILTERS.iter().find_map(|filter| verdict(filter, scene, subject, node))
}

/// All reasons.
#[must_use]
pub fn all_reasons(scene: &Scene<'_>, subject: &Subject<'_>, node: usize) -> Vec<Unfit> {
    FILTERS.iter().filter_map(|filter| verdict(filter, scene, subject, node)).collect()
}

fn verdict(filter: &Looks, scene: &Scene<'_>, subject: &Subject<'_>, node: usize) -> Verdict {
    match filter {
        Looks::AtNode { why, .. } => why(subject.pod, &scene.nodes[node]),
        Looks::Around { why, .. } => why(scene, subject, node),
    }
}

/// Whether the node could be the pod's if nobody else were looked at.
#[must_use]
pub fn passes_alone(pod: &Pending, node: &Node) -> bool {
    FILTERS.iter().rev().all(|filter| match filter {
        Looks::AtNode { passes, .. } => passes(pod, node),
        Looks::Around { .. } => true,
    })
}
