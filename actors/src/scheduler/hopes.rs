//! Whom that fitted nowhere something may help that has come about: a look costs all nodes. No IO.

use super::changes::Changes;
use super::filters::passes_alone;
use super::fit::Why;
use super::parties::{Node, Pending};
use super::picture::Picture;
use impresario_client::protocol::resources::Resources;

/// What has come about, looked up once for all that wait.
pub(super) struct Hope<'a> {
    changes: &'a Changes,
    picture: &'a Picture,
    nodes: Vec<&'a Node>,
    /// More than this none of those nodes has.
    roof: Resources,
}

impl<'a> Hope<'a> {
    /// The hope that these changes give.
    pub(super) fn of(changes: &'a Changes, picture: &'a Picture) -> Self {
        let nodes: Vec<_> = changes.nodes.iter().filter_map(|name| picture.node(name)).collect();
        let mut roof = Resources::default();
        for node in &nodes {
            roof.raise_to(&node.free);
        }
        Self { changes, picture, nodes, roof }
    }

    /// Whether there is any for a pod that fits nowhere for these reasons.
    pub(super) fn is_for(&self, pod: &Pending, why: Option<&Why>) -> bool {
        let Some(why) = why.filter(|_| !self.changes.hopeful) else { return true };
        let has_room = || self.nodes.iter().any(|node| passes_alone(pod, node));
        if self.roof.covers(&pod.requests) && has_room() {
            return true;
        }
        if why.searched_victims() && self.changes.budgets {
            return true;
        }
        let is_stirred = || self.changes.stirred.iter().any(|other| self.concerns(pod, other));
        why.is_by_those_around() && (self.changes.has_stirred_many || is_stirred())
    }

    /// Whether what becomes of the other pod matters to this one.
    fn concerns(&self, pod: &Pending, other: &Pending) -> bool {
        let demands = &pod.demands;
        let its_namespace = self.picture.namespace(&other.namespace);
        let own_namespace = self.picture.namespace(&pod.namespace);
        demands.near.iter().chain(&demands.apart).any(|term| {
            term.is_about(&other.namespace, its_namespace) && term.selects(&other.labels)
        }) || other
            .demands
            .apart
            .iter()
            .any(|term| term.is_about(&pod.namespace, own_namespace) && term.selects(&pod.labels))
            || demands.spread.iter().any(|spread| {
                pod.namespace == other.namespace && spread.selector.selects(&other.labels)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::fit::Unfit;
    use crate::scheduler::fit::tests::why;
    use crate::scheduler::picture::tests::{apart, node, picture, pod};

    fn is_for(changes: &Changes, picture: &Picture, pod: &Pending, reason: Unfit) -> bool {
        Hope::of(changes, picture).is_for(pod, Some(&why([reason])))
    }

    #[test]
    fn room_is_hope_for_those_alone_who_could_have_it() {
        let (large, small) = (pod("large", 900), pod("small", 100));
        let mut tainted = node("tainted", 1000);
        tainted.taints =
            serde_json::from_value(serde_json::json!([{"key": "k", "effect": "NoSchedule"}]))
                .unwrap();
        let picture = picture([node("n", 500), tainted]);
        let short = || Unfit::Insufficient(vec!["cpu".into()]);
        for (node, large_hopes, small_hopes) in
            [("n", false, true), ("tainted", false, false), ("gone", false, false)]
        {
            let mut changes = Changes::default();
            changes.room_on(node.to_owned());
            assert_eq!(is_for(&changes, &picture, &large, short()), large_hopes, "{node}");
            assert_eq!(is_for(&changes, &picture, &small, short()), small_hopes, "{node}");
        }
        let hopeful = Changes { hopeful: true, ..Changes::default() };
        assert!(is_for(&hopeful, &picture, &large, short()));
    }

    #[test]
    fn pods_that_come_and_go_are_hope_for_those_whom_they_concern() {
        let picture = picture([]);
        let (web, db) = (apart("web", "web", "web"), apart("db", "db", "db"));
        let mut changes = Changes::default();
        changes.stir(&apart("other", "web", "nobody"));
        assert!(is_for(&changes, &picture, &web, Unfit::TooNear));
        assert!(!is_for(&changes, &picture, &web, Unfit::Selector));
        assert!(!is_for(&changes, &picture, &db, Unfit::TooNear));
        let mut changes = Changes::default();
        changes.stir(&apart("jealous", "nobody", "db"));
        assert!(is_for(&changes, &picture, &db, Unfit::Unwelcome));
        assert!(!is_for(&changes, &picture, &web, Unfit::Unwelcome));
    }
}
