//! Who is where: the pods on nodes by what others select them by, and what they demand of others. No IO.
//!
//! Pods of one template differ in nothing here, so that counting costs what there are templates and nodes, not pods.

use super::demands::{Labels, Term};
use super::parties::Pending;
use std::collections::HashMap;
use std::sync::Arc;

/// How many of them are on each node.
pub type PerNode = HashMap<String, i32>;

/// What a pod on a node demands of those that come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stance {
    /// Nobody whom the term selects may come.
    Apart,
    /// It had to be near those whom the term selects.
    Near,
    /// It would rather be near them, or far from them.
    Prefers(i32),
}

/// What all pods with the same demand are counted under.
pub type Standing = (Stance, Arc<Term>);

/// What is the same for pods of one template: their labels, and whether they are on their way out.
pub type Group = (Labels, bool);

/// The pods on nodes.
#[derive(Debug, Default)]
pub struct Crowd {
    groups: HashMap<String, HashMap<Group, PerNode>>,
    standing: HashMap<Standing, PerNode>,
}

/// What a pod demands of those that come.
pub fn stances(pod: &Pending) -> impl Iterator<Item = Standing> {
    let demands = &pod.demands;
    let apart = demands.apart.iter().map(|term| (Stance::Apart, term.clone()));
    let near = demands.near.iter().map(|term| (Stance::Near, term.clone()));
    let prefers =
        demands.prefers.iter().map(|(weight, term)| (Stance::Prefers(*weight), term.clone()));
    apart.chain(near).chain(prefers)
}

impl Crowd {
    /// A pod has come to a node.
    pub fn add(&mut self, pod: &Pending, node: &str) {
        self.shift(pod, node, 1);
    }

    /// A pod has left a node.
    pub fn remove(&mut self, pod: &Pending, node: &str) {
        self.shift(pod, node, -1);
    }

    fn shift(&mut self, pod: &Pending, node: &str, by: i32) {
        let groups = self.groups.entry(pod.namespace.clone()).or_default();
        let group = (pod.labels.clone(), pod.going);
        count(groups, group, node, by);
        if groups.is_empty() {
            self.groups.remove(&pod.namespace);
        }
        for stance in stances(pod) {
            count(&mut self.standing, stance, node, by);
        }
    }

    /// The pods of a namespace.
    pub fn of_namespace(&self, namespace: &str) -> impl Iterator<Item = (&Group, &PerNode)> {
        self.groups.get(namespace).into_iter().flatten()
    }

    /// The namespaces that have pods on nodes.
    pub fn namespaces(&self) -> impl Iterator<Item = &str> {
        self.groups.keys().map(String::as_str)
    }

    /// All that pods on nodes demand of those that come.
    pub fn standing(&self) -> impl Iterator<Item = &Standing> {
        self.standing.keys()
    }

    /// The nodes whose pods demand it.
    pub fn demanded(&self, standing: &Standing) -> impl Iterator<Item = (&String, &i32)> {
        self.standing.get(standing).into_iter().flatten()
    }
}

fn count<K: std::hash::Hash + Eq>(all: &mut HashMap<K, PerNode>, key: K, node: &str, by: i32) {
    let Some(nodes) = all.get_mut(&key) else {
        all.insert(key, [(node.to_owned(), by)].into());
        return;
    };
    match nodes.get_mut(node) {
        Some(count) if *count + by == 0 => {
            nodes.remove(node);
            if nodes.is_empty() {
                all.remove(&key);
            }
        }
        Some(count) => *count += by,
        None => {
            nodes.insert(node.to_owned(), by);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn who_has_come_and_gone_leaves_nothing_behind(
            pods in proptest::collection::vec((0..3_u8, 0..3_u8, 0..3_u8, any::<bool>()), 0..20)
        ) {
            let mut crowd = Crowd::default();
            let pods: Vec<_> = pods
                .into_iter()
                .map(|(namespace, app, node, going)| {
                    let labels = [("app".to_owned(), app.to_string())].into();
                    let namespace = namespace.to_string();
                    (Pending { namespace, labels, going, ..Pending::default() }, node.to_string())
                })
                .collect();
            for (pod, node) in &pods {
                crowd.add(pod, node);
            }
            for namespace in ["0", "1", "2"] {
                let counted: i32 =
                    crowd.of_namespace(namespace).flat_map(|(_, nodes)| nodes.values()).sum();
                let there = pods.iter().filter(|(pod, _)| pod.namespace == namespace).count();
                prop_assert_eq!(usize::try_from(counted).unwrap(), there);
            }
            for (pod, node) in &pods {
                crowd.remove(pod, node);
            }
            prop_assert_eq!(crowd.namespaces().count(), 0);
        }
    }
}
