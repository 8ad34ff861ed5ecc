//! What the nodes are to a pod: why not, or how well it would do. The answer to `imp explain pod`. No IO.

use super::filters;
use super::fit::{Unfit, in_words};
use super::parties::Pending;
use super::plan::Moment;
use super::policy::Policy;
use super::scene::Scene;
use super::scores;
use impresario_client::protocol::scheduler::{BEST_EXAMINED, MOST_EXAMINED, ScoredNode, UnfitNode};
use std::cmp::Reverse;

/// The nodes as a pod sees them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) nodes: usize,
    pub(super) fitting: usize,
    pub(super) unfit: Vec<UnfitNode>,
    pub(super) best: Vec<ScoredNode>,
}

/// Looks at all nodes.
pub(super) fn look(pod: &Pending, moment: &Moment<'_>, policy: &dyn Policy) -> Seen {
    let picture = moment.picture;
    let mut scene = Scene::new(picture);
    for nomination in picture.nominations.by_priority() {
        let concerns = nomination.pod.uid != pod.uid && nomination.pod.priority >= pod.priority;
        let node = scene.index_of(&nomination.node);
        if let Some(node) = node.filter(|_| concerns && !picture.holds(&nomination.pod.uid)) {
            scene.book(&nomination.pod, node);
        }
    }
    let subject = scene.subject(pod);
    let (mut fitting, mut seen) =
        (Vec::new(), Seen { nodes: scene.nodes.len(), ..Seen::default() });
    for node in 0..scene.nodes.len() {
        let name = &scene.nodes[node].name;
        let mut reasons = filters::all_reasons(&scene, &subject, node);
        if (moment.away)(name).is_some() {
            reasons.push(Unfit::Silent);
        }
        if reasons.is_empty() {
            fitting.push(node);
        } else if seen.unfit.len() < MOST_EXAMINED {
            let reasons = reasons.iter().flat_map(in_words).collect();
            seen.unfit.push(UnfitNode { node: name.clone(), reasons });
        }
    }
    seen.fitting = fitting.len();
    let wished = scores::wished(&scene, &subject, &fitting);
    let mut scored: Vec<_> = fitting
        .iter()
        .enumerate()
        .map(|(at, node)| {
            let node = &*scene.nodes[*node];
            let own = (policy.name().to_owned(), policy.score(pod, node));
            let wishes = wished.iter().map(|(name, points)| ((*name).to_owned(), points[at]));
            let parts: Vec<_> = std::iter::once(own).chain(wishes).collect();
            let score = parts.iter().map(|(_, points)| points).sum();
            ScoredNode { node: node.name.clone(), score, parts }
        })
        .collect();
    // By name where they are alike: so they are in the picture.
    scored.sort_by_key(|node| Reverse(node.score));
    scored.truncate(BEST_EXAMINED);
    seen.best = scored;
    seen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::picture::tests::{demanding, node, picture};
    use crate::scheduler::plan::tests::moment;
    use crate::scheduler::policy::{Which, policy};
    use serde_json::json;

    #[test]
    fn all_reasons_of_a_node_are_told_and_the_scores_of_the_best_with_what_they_are_of() {
        let mut full = node("full", 0);
        full.labels.insert("zone".into(), "b".into());
        let (mut near, far) = (node("near", 1000), node("far", 1000));
        near.labels.insert("zone".into(), "a".into());
        let picture = picture([full, near, far]);
        let affinity = json!({"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["b"]}]}]},
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 1, "preference": {"matchExpressions": [{"key": "zone", "operator": "Exists"}]}}]}});
        let pod = demanding("p", "a", json!({"affinity": affinity}));
        let seen = look(&pod, &moment(&picture), &*policy(Which::LeastAllocated, 0));
        assert_eq!((seen.nodes, seen.fitting), (3, 2));
        let reasons = ["node(s) didn't match Pod's node affinity/selector", "Insufficient cpu"];
        assert_eq!(
            seen.unfit,
            [UnfitNode { node: "full".into(), reasons: reasons.map(str::to_owned).into() }]
        );
        let best: Vec<_> = seen.best.iter().map(|node| node.node.as_str()).collect();
        assert_eq!(best, ["near", "far"]);
        let parts: Vec<_> = seen.best[0].parts.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(parts, ["least-allocated", "NodeAffinity"]);
        assert_eq!(seen.best[0].score - seen.best[1].score, 2_000_000, "a hundred, twice");
    }
}
