//! What a control actor was told and has not looked into yet: little of each node, so that one that tells much takes
//! the place of nobody else.

use impresario_client::protocol::control::Told;
use impresario_registry_api::Key;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;

/// Of one node.
const OF_NODE: usize = 16;
/// In all: with what one may say, some hundreds of kilobytes.
const IN_ALL: usize = 256;

/// By node, and then one for each object: the last write that was told of.
#[derive(Debug, Default)]
pub(super) struct Heard {
    by_node: BTreeMap<String, BTreeMap<Key, Told>>,
    count: usize,
    /// Whose turn it was last.
    last: String,
    /// How many had no place.
    dropped: u64,
}

impl Heard {
    /// Keeps it, where there is a place for it. What is told of an object again takes the place that it has.
    pub(super) fn put(&mut self, told: Told) {
        let is_full = self.count >= IN_ALL;
        let of_node = self.by_node.get(&told.node).map_or(0, BTreeMap::len);
        let is_known = self.by_node.get(&told.node).is_some_and(|its| its.contains_key(&told.key));
        if !is_known && (is_full || of_node >= OF_NODE) {
            self.dropped += 1;
            tracing::debug!(node = told.node, key = %told.key, dropped = self.dropped,
                "nothing is kept of what a node tells: the watch brings it");
            return;
        }
        match self.by_node.entry(told.node.clone()).or_default().entry(told.key.clone()) {
            Entry::Vacant(place) => {
                self.count += 1;
                place.insert(told);
            }
            Entry::Occupied(mut place) if place.get().revision < told.revision => {
                place.insert(told);
            }
            Entry::Occupied(_) => {}
        }
    }

    /// One of the node whose turn it is.
    pub(super) fn next(&mut self) -> Option<Told> {
        let after = (Bound::Excluded(self.last.as_str()), Bound::Unbounded);
        let next =
            self.by_node.range::<str, _>(after).next().or_else(|| self.by_node.iter().next());
        let node = next.map(|(node, _)| node.clone())?;
        let its = self.by_node.get_mut(&node)?;
        let told = its.pop_first().map(|(_, told)| told);
        if its.is_empty() {
            self.by_node.remove(&node);
        }
        self.count -= usize::from(told.is_some());
        self.last = node;
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(node: &str, pod: usize, revision: u64) -> Told {
        let key = Key::new("pods", "ns", format!("p{pod:03}"));
        Told { node: node.into(), key, uid: "u".into(), revision }
    }

    fn all(heard: &mut Heard) -> Vec<(String, u64)> {
        std::iter::from_fn(|| heard.next()).map(|told| (told.node, told.revision)).collect()
    }

    #[test]
    fn a_node_that_tells_much_has_a_few_places_and_its_turn_among_the_others() {
        let mut heard = Heard::default();
        for pod in 0..10_000 {
            heard.put(told("loud", pod, 1));
        }
        heard.put(told("a", 0, 2));
        heard.put(told("z", 0, 3));
        assert_eq!((heard.count, heard.dropped), (OF_NODE + 2, 10_000 - OF_NODE as u64));
        let order: Vec<_> = all(&mut heard).into_iter().map(|(node, _)| node).collect();
        assert_eq!(order[..3], ["a", "loud", "z"]);
        assert!(order[3..].iter().all(|node| node == "loud") && order.len() == OF_NODE + 2);
        assert_eq!(heard.count, 0);
    }

    #[test]
    fn however_many_nodes_tell_there_is_an_end_to_what_is_kept() {
        let mut heard = Heard::default();
        for node in 0..10_000 {
            heard.put(told(&format!("n{node}"), 0, 1));
        }
        assert_eq!((heard.count, heard.by_node.len()), (IN_ALL, IN_ALL));
        assert_eq!(all(&mut heard).len(), IN_ALL);
        heard.put(told("late", 0, 7));
        assert_eq!(all(&mut heard), [("late".to_owned(), 7)], "there are places again");
    }

    #[test]
    fn of_one_object_the_last_write_is_kept() {
        let mut heard = Heard::default();
        for revision in [5, 9, 7] {
            heard.put(told("n", 0, revision));
        }
        assert_eq!(all(&mut heard), [("n".to_owned(), 9)]);
    }
}
