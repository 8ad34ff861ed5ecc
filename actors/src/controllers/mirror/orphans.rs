//! Which objects of a namespace nobody controls, found by their labels.
//!
//! A controller adopts what its selector selects and nobody controls. Those are few, so they are
//! filed under each pair of their labels: who looks for some reads the shortest of the lists that
//! its selector names, and no others.

use super::super::owners::controller;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use std::collections::{BTreeSet, HashMap};

/// The orphans of one resource.
#[derive(Debug, Default)]
pub(super) struct Orphans(HashMap<String, Filed>);

#[derive(Debug, Default)]
struct Filed {
    all: BTreeSet<String>,
    by_label: HashMap<(String, String), BTreeSet<String>>,
}

impl Orphans {
    /// Files an object, if it is in a namespace and nobody controls it.
    pub(super) fn put(&mut self, namespace: &str, name: &str, metadata: &ObjectMeta) {
        if namespace.is_empty() || controller(metadata).is_some() {
            return;
        }
        let filed = self.0.entry(namespace.to_owned()).or_default();
        filed.all.insert(name.to_owned());
        for (key, value) in metadata.labels.iter().flatten() {
            let pair = (key.clone(), value.clone());
            filed.by_label.entry(pair).or_default().insert(name.to_owned());
        }
    }

    /// Takes an object out again, as it was put.
    pub(super) fn take(&mut self, namespace: &str, name: &str, metadata: &ObjectMeta) {
        let Some(filed) = self.0.get_mut(namespace) else { return };
        filed.all.remove(name);
        for (key, value) in metadata.labels.iter().flatten() {
            let pair = (key.clone(), value.clone());
            if let Some(names) = filed.by_label.get_mut(&pair) {
                names.remove(name);
                if names.is_empty() {
                    filed.by_label.remove(&pair);
                }
            }
        }
        if filed.all.is_empty() {
            self.0.remove(namespace);
        }
    }

    /// Names of a namespace among which are all that the selector selects: the fewest that are known.
    pub(super) fn among(
        &self,
        namespace: &str,
        selector: &LabelSelector,
    ) -> impl Iterator<Item = &String> {
        let found = self.0.get(namespace).map(|filed| filed.among(selector));
        found.into_iter().flatten().flatten()
    }
}

impl Filed {
    fn among(&self, selector: &LabelSelector) -> Option<&BTreeSet<String>> {
        let pairs = selector.match_labels.iter().flatten();
        let lists = pairs.map(|(key, value)| self.by_label.get(&(key.clone(), value.clone())));
        // A pair that nobody has leaves nobody.
        lists.min_by_key(|list| list.map_or(0, BTreeSet::len)).unwrap_or(Some(&self.all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

    fn labelled(pairs: &[(&str, &str)]) -> ObjectMeta {
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        ObjectMeta { labels: Some(pairs.collect()), ..ObjectMeta::default() }
    }

    fn selector(pairs: &[(&str, &str)]) -> LabelSelector {
        LabelSelector { match_labels: labelled(pairs).labels, ..LabelSelector::default() }
    }

    #[test]
    fn who_looks_for_orphans_reads_the_shortest_list_that_its_selector_names() {
        let mut orphans = Orphans::default();
        for (name, tier) in [("a", "front"), ("b", "front"), ("c", "back")] {
            orphans.put("ns", name, &labelled(&[("app", "web"), ("tier", tier)]));
        }
        let found = |orphans: &Orphans, pairs: &[(&str, &str)]| {
            orphans.among("ns", &selector(pairs)).map(String::as_str).collect::<String>()
        };
        assert_eq!(found(&orphans, &[("app", "web")]), "abc");
        assert_eq!(found(&orphans, &[("app", "web"), ("tier", "back")]), "c");
        assert_eq!(found(&orphans, &[("app", "web"), ("tier", "side")]), "");
        assert_eq!(found(&orphans, &[]), "abc", "expressions alone name no list");
        assert_eq!(orphans.among("other", &selector(&[("app", "web")])).count(), 0);
    }

    #[test]
    fn what_has_a_controller_or_is_gone_is_not_filed() {
        let mut orphans = Orphans::default();
        let orphan = labelled(&[("app", "web")]);
        let owner = OwnerReference { controller: Some(true), ..OwnerReference::default() };
        let owned = ObjectMeta { owner_references: Some(vec![owner]), ..orphan.clone() };
        orphans.put("ns", "a", &owned);
        orphans.put("", "node", &orphan);
        assert!(orphans.0.is_empty());
        orphans.put("ns", "a", &orphan);
        orphans.take("ns", "a", &orphan);
        assert!(orphans.0.is_empty(), "nothing stays of what is gone");
    }
}
