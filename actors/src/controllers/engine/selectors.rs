//! Whom a change of labels concerns.
//!
//! Each selector is filed under one of the labels that it asks for: the one under which the fewest are
//! filed already. Labels are looked up one by one, so that what a change costs grows with its labels and
//! with those that it concerns, and not with the selectors of the namespace. A selector that asks for no
//! label by its value is looked at for each change in its namespace.

use super::super::labels;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Says by which labels an object selects others, if it does.
pub type SelectorOf<K> = fn(&K) -> Option<LabelSelector>;

/// A label of a namespace; no label for selectors that ask for none.
type Place = (String, Option<(String, String)>);

/// Selectors of objects, by the uid of each.
#[derive(Debug, Default)]
pub struct Selectors {
    by_uid: HashMap<String, (Place, LabelSelector)>,
    filed: HashMap<Place, BTreeSet<String>>,
}

impl Selectors {
    /// The object of this uid selects by this in its namespace. It selected otherwise before, or not.
    pub fn put(&mut self, uid: &str, namespace: &str, selector: LabelSelector) {
        self.remove(uid);
        let place = |label| (namespace.to_owned(), label);
        let pairs = selector.match_labels.iter().flatten();
        let labels = pairs.map(|(key, value)| place(Some((key.clone(), value.clone()))));
        let place = labels
            .min_by_key(|place| self.filed.get(place).map_or(0, BTreeSet::len))
            .unwrap_or_else(|| place(None));
        self.filed.entry(place.clone()).or_default().insert(uid.to_owned());
        self.by_uid.insert(uid.to_owned(), (place, selector));
    }

    /// The object of this uid selects nothing any more.
    pub fn remove(&mut self, uid: &str) {
        let Some((place, _)) = self.by_uid.remove(uid) else { return };
        if let Some(filed) = self.filed.get_mut(&place) {
            filed.remove(uid);
            if filed.is_empty() {
                self.filed.remove(&place);
            }
        }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The uids of all.
    pub fn all(&self) -> impl Iterator<Item = &str> {
        self.by_uid.keys().map(String::as_str)
    }

    /// The uids of those that select these labels in this namespace.
    pub fn selecting<'a>(
        &'a self,
        namespace: &str,
        labels: &'a BTreeMap<String, String>,
    ) -> impl Iterator<Item = &'a str> {
        let pairs = labels.iter().map(|(key, value)| Some((key.clone(), value.clone())));
        let namespace = namespace.to_owned();
        let places = pairs.chain([None]).map(move |label| (namespace.clone(), label));
        let filed = places.filter_map(|place| self.filed.get(&place)).flatten();
        filed
            .filter(|uid| {
                let of = self.by_uid.get(*uid);
                of.is_some_and(|(_, selector)| labels::selects(selector, labels))
            })
            .map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
        proptest::collection::btree_map("[abc]", "[xy]", 0..4)
    }

    fn selector() -> impl Strategy<Value = LabelSelector> {
        let operator = prop_oneof!["In", "NotIn", "Exists", "DoesNotExist"];
        (labels(), proptest::option::of(("[abc]", operator, "[xy]"))).prop_map(|(pairs, more)| {
            let expressions: Vec<_> = more
                .into_iter()
                .map(|(key, operator, value)| {
                    json!({"key": key, "operator": operator, "values": [value]})
                })
                .collect();
            let selector = json!({"matchLabels": pairs, "matchExpressions": expressions});
            serde_json::from_value(selector).unwrap()
        })
    }

    proptest! {
        #[test]
        fn those_are_found_that_a_look_at_all_selectors_finds(
            steps in proptest::collection::vec(
                (0_u8..6, prop_oneof!["n", "m"], proptest::option::of(selector())), 0..30),
            labels in labels(),
        ) {
            let (mut index, mut all) = (Selectors::default(), BTreeMap::new());
            for (uid, namespace, selector) in steps {
                let uid = uid.to_string();
                match selector {
                    Some(selector) => {
                        index.put(&uid, &namespace, selector.clone());
                        all.insert(uid, (namespace, selector));
                    }
                    None => {
                        index.remove(&uid);
                        all.remove(&uid);
                    }
                }
            }
            let found: Vec<_> = index.selecting("n", &labels).map(str::to_owned).collect();
            let found_once: BTreeSet<_> = found.iter().cloned().collect();
            prop_assert_eq!(found.len(), found_once.len(), "nobody is found twice");
            let wanted: BTreeSet<_> = all
                .iter()
                .filter(|(_, (of, selector))| of == "n" && labels::selects(selector, &labels))
                .map(|(uid, _)| uid.clone())
                .collect();
            prop_assert_eq!(found_once, wanted);
            for uid in all.keys() {
                index.remove(uid);
            }
            prop_assert!(index.filed.is_empty() && index.by_uid.is_empty(), "nothing stays");
        }
    }

    #[test]
    fn a_selector_is_filed_where_the_fewest_are() {
        let mut index = Selectors::default();
        for number in 0..100 {
            let pairs = json!({"matchLabels": {"app": "web", "one": number.to_string()}});
            index.put(&number.to_string(), "ns", serde_json::from_value(pairs).unwrap());
        }
        let most = index.filed.values().map(BTreeSet::len).max();
        assert_eq!(most, Some(1), "no pod of `app: web` has to look at a hundred selectors");
    }
}
