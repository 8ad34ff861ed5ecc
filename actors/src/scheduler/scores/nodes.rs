//! Rather on nodes that the pod's preferred node affinity selects.

use super::super::fit::term_matches;
use super::super::scene::{Scene, Subject};
use super::wish::{Scale, Wish};

pub(super) const WISH: Wish = Wish {
    name: "NodeAffinity",
    weight: 2,
    scale: Scale::Share,
    applies: |_, subject| !subject.pod.demands.nodes.is_empty(),
    of: |scene, subject, node| Some(of(scene, subject, node)),
};

fn of(scene: &Scene<'_>, subject: &Subject<'_>, node: usize) -> i64 {
    let node = &scene.nodes[node];
    let terms = subject.pod.demands.nodes.iter();
    let holds = terms.filter(|(_, term)| term_matches(term, &node.name, &node.labels));
    holds.map(|(weight, _)| i64::from(*weight)).sum()
}
