//! The places that a label makes of the nodes: those with the same value are one.

use super::super::parties::Node;
use std::borrow::Cow;
use std::collections::HashMap;

/// The place of a node that has not the label.
const NOWHERE: u32 = u32::MAX;

/// The places of one label.
pub struct Topology {
    /// The label.
    pub key: String,
    places: Vec<u32>,
    /// How many places there are.
    pub count: usize,
}

impl Topology {
    /// Those of these nodes.
    pub fn of(key: &str, nodes: &[Cow<'_, Node>]) -> Self {
        let mut numbers: HashMap<&str, u32> = HashMap::new();
        let mut places = Vec::with_capacity(nodes.len());
        for node in nodes {
            let next = u32::try_from(numbers.len()).unwrap_or(NOWHERE);
            let value = node.labels.get(key);
            places.push(value.map_or(NOWHERE, |value| *numbers.entry(value).or_insert(next)));
        }
        let count = numbers.len();
        Self { key: key.to_owned(), places, count }
    }

    /// The place of a node, if it has the label.
    pub fn place(&self, node: usize) -> Option<usize> {
        let place = self.places[node];
        (place != NOWHERE).then_some(place as usize)
    }
}
