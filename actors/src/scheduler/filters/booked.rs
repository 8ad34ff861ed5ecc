//! What a node has free is not kept for a pod for which others leave it.

use super::super::fit::Unfit;
use super::super::scene::{Scene, Subject};
use super::rule::{Looks, Verdict};

pub(super) const FILTER: Looks = Looks::Around { passes, why };

fn passes(scene: &Scene<'_>, subject: &Subject<'_>, node: usize) -> bool {
    scene.booked(node).is_empty() || why(scene, subject, node).is_none()
}

fn why(scene: &Scene<'_>, subject: &Subject<'_>, node: usize) -> Verdict {
    let pod = subject.pod;
    let kept = scene.booked(node).iter().flat_map(|other| &other.host_ports);
    let mut kept = kept.filter(|kept| pod.host_ports.iter().any(|port| port.conflicts(kept)));
    if kept.next().is_some() {
        return Some(Unfit::HostPort);
    }
    let free = scene.beside_booked(node)?;
    let short = free.short_of(&pod.requests);
    let names = || short.iter().map(|name| (*name).to_owned()).collect();
    // What is short even without them was told already.
    let is_enough = scene.nodes[node].free.covers(&pod.requests);
    (is_enough && !short.is_empty()).then(|| Unfit::Insufficient(names()))
}
