//! What a pod demands of the pods around it: terms of affinity, and how it is spread. Read once from its object, so that
//! whoever compares and counts them later needs no parsing.

use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

/// The labels of an object.
pub type Labels = BTreeMap<String, String>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    /// One that nobody knows: it holds for nobody.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Requirement {
    key: String,
    operator: Operator,
    values: BTreeSet<String>,
}

/// A selector of labels, of which all requirements must hold: one without any selects everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Selector(BTreeSet<Requirement>);

impl Selector {
    /// A selector as it is written.
    #[must_use]
    pub fn of(written: &LabelSelector) -> Self {
        let pairs = written.match_labels.iter().flatten().map(|(key, value)| Requirement {
            key: key.clone(),
            operator: Operator::In,
            values: [value.clone()].into(),
        });
        let expressions = written.match_expressions.iter().flatten().map(|one| Requirement {
            key: one.key.clone(),
            operator: match one.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                _ => Operator::Unknown,
            },
            values: one.values.iter().flatten().cloned().collect(),
        });
        Self(pairs.chain(expressions).collect())
    }

    /// The same, for those only whose labels of these keys are (or are not) as in `labels`.
    fn beside(mut self, keys: Option<&Vec<String>>, labels: &Labels, alike: bool) -> Self {
        for key in keys.into_iter().flatten() {
            if let Some(value) = labels.get(key) {
                let operator = if alike { Operator::In } else { Operator::NotIn };
                let values = [value.clone()].into();
                self.0.insert(Requirement { key: key.clone(), operator, values });
            }
        }
        self
    }

    /// Whether it selects an object with these labels.
    #[must_use]
    pub fn selects(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| {
            let found = labels.get(&requirement.key);
            let is_listed = found.is_some_and(|value| requirement.values.contains(value));
            match requirement.operator {
                Operator::In => is_listed,
                Operator::NotIn => !is_listed,
                Operator::Exists => found.is_some(),
                Operator::DoesNotExist => found.is_none(),
                Operator::Unknown => false,
            }
        })
    }
}

/// Pods, and what part of the cluster is one place to whoever wants to be near them or far from them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Term {
    namespaces: BTreeSet<String>,
    /// By its labels, which may change.
    namespace_selector: Option<Selector>,
    /// Without one nobody is selected.
    selector: Option<Selector>,
    /// Nodes that have the same value of this label are one place.
    pub topology: String,
}

impl Term {
    fn of(written: &v1::PodAffinityTerm, namespace: &str, labels: &Labels) -> Arc<Self> {
        let mut namespaces: BTreeSet<String> =
            written.namespaces.iter().flatten().cloned().collect();
        if namespaces.is_empty() && written.namespace_selector.is_none() {
            namespaces.insert(namespace.to_owned());
        }
        let selector =
            written.label_selector.as_ref().map(|selector| {
                Selector::of(selector)
                    .beside(written.match_label_keys.as_ref(), labels, true)
                    .beside(written.mismatch_label_keys.as_ref(), labels, false)
            });
        Arc::new(Self {
            namespaces,
            namespace_selector: written.namespace_selector.as_ref().map(Selector::of),
            selector,
            topology: written.topology_key.clone(),
        })
    }

    /// Whether it is about pods of this namespace.
    #[must_use]
    pub fn is_about(&self, namespace: &str, its_labels: &Labels) -> bool {
        self.namespaces.contains(namespace)
            || self.namespace_selector.as_ref().is_some_and(|all| all.selects(its_labels))
    }

    /// Whether it selects pods with these labels, in a namespace that it is about.
    #[must_use]
    pub fn selects(&self, labels: &Labels) -> bool {
        self.selector.as_ref().is_some_and(|selector| selector.selects(labels))
    }
}

/// How evenly pods are to lie over places.
#[derive(Debug, Clone, PartialEq)]
pub struct Spread {
    /// By so many more pods than in the emptiest place there may be in any.
    pub max_skew: i32,
    /// Nodes that have the same value of this label are one place.
    pub topology: String,
    /// Whether the pod rather waits than to be placed otherwise.
    pub is_required: bool,
    /// With fewer places than this the emptiest counts as empty.
    pub min_domains: usize,
    /// Which pods of the namespace are counted.
    pub selector: Selector,
    /// Whether nodes count that the pod's selector and affinity rule out.
    pub any_affinity: bool,
    /// Whether nodes count whose taints the pod does not tolerate; unlike for affinity that is so unless it says otherwise.
    pub any_taints: bool,
}

impl Spread {
    fn of(written: &v1::TopologySpreadConstraint, labels: &Labels) -> Option<Self> {
        // Nothing is selected without a selector: there is nothing to be spread.
        let selector = Selector::of(written.label_selector.as_ref()?);
        let is_required = written.when_unsatisfiable != "ScheduleAnyway";
        Some(Self {
            max_skew: written.max_skew.max(1),
            topology: written.topology_key.clone(),
            is_required,
            min_domains: written.min_domains.and_then(|n| usize::try_from(n).ok()).unwrap_or(1),
            selector: selector.beside(written.match_label_keys.as_ref(), labels, true),
            any_affinity: written.node_affinity_policy.as_deref() == Some("Ignore"),
            any_taints: written.node_taints_policy.as_deref() != Some("Honor"),
        })
    }
}

/// What a pod demands, and what it would rather have.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Demands {
    /// It must be near pods that all of these select.
    pub near: Vec<Arc<Term>>,
    /// It must not be where one of these selects a pod.
    pub apart: Vec<Arc<Term>>,
    /// It would rather be near them, the more the larger the number, or far where that is negative.
    pub prefers: Vec<(i32, Arc<Term>)>,
    /// How it is spread.
    pub spread: Vec<Spread>,
    /// It would rather be on nodes like these.
    pub nodes: Vec<(i32, v1::NodeSelectorTerm)>,
    /// The images of its containers.
    pub images: Vec<String>,
}

static NONE: LazyLock<Arc<Demands>> = LazyLock::new(Arc::default);

impl Demands {
    /// Those of a pod in this namespace with these labels. `with_images` where it still looks for a node.
    #[must_use]
    pub fn of(spec: &v1::PodSpec, namespace: &str, labels: &Labels, waits: bool) -> Arc<Self> {
        let mut demands = Self::default();
        let affinity = spec.affinity.as_ref();
        let required = |terms: Option<&Vec<v1::PodAffinityTerm>>| -> Vec<_> {
            terms.into_iter().flatten().map(|term| Term::of(term, namespace, labels)).collect()
        };
        let preferred = |terms: Option<&Vec<v1::WeightedPodAffinityTerm>>, sign: i32| -> Vec<_> {
            let terms = terms.into_iter().flatten();
            let weighed = terms.map(|term| {
                (term.weight * sign, Term::of(&term.pod_affinity_term, namespace, labels))
            });
            weighed.collect()
        };
        if let Some(near) = affinity.and_then(|affinity| affinity.pod_affinity.as_ref()) {
            let (must, may) = (
                &near.required_during_scheduling_ignored_during_execution,
                &near.preferred_during_scheduling_ignored_during_execution,
            );
            demands.near = required(must.as_ref());
            demands.prefers = preferred(may.as_ref(), 1);
        }
        if let Some(apart) = affinity.and_then(|affinity| affinity.pod_anti_affinity.as_ref()) {
            let (must, may) = (
                &apart.required_during_scheduling_ignored_during_execution,
                &apart.preferred_during_scheduling_ignored_during_execution,
            );
            demands.apart = required(must.as_ref());
            demands.prefers.extend(preferred(may.as_ref(), -1));
        }
        if waits {
            let constraints = spec.topology_spread_constraints.iter().flatten();
            demands.spread = constraints.filter_map(|one| Spread::of(one, labels)).collect();
            let nodes = affinity.and_then(|affinity| affinity.node_affinity.as_ref());
            let nodes = nodes.and_then(|nodes| {
                nodes.preferred_during_scheduling_ignored_during_execution.as_ref()
            });
            let weighed = nodes.into_iter().flatten();
            demands.nodes = weighed.map(|term| (term.weight, term.preference.clone())).collect();
            let containers = spec.containers.iter();
            demands.images = containers.filter_map(|one| one.image.clone()).collect();
        }
        if demands == Self::default() { NONE.clone() } else { Arc::new(demands) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn labels(written: Value) -> Labels {
        serde_json::from_value(written).unwrap()
    }

    fn term(written: Value) -> Arc<Term> {
        let own = labels(json!({"app": "web", "hash": "1"}));
        Term::of(&serde_json::from_value(written).unwrap(), "ns", &own)
    }

    #[test]
    fn a_selector_without_requirements_selects_everything_and_none_selects_nothing() {
        let web = labels(json!({"app": "web"}));
        assert!(term(json!({"topologyKey": "z", "labelSelector": {}})).selects(&web));
        assert!(!term(json!({"topologyKey": "z"})).selects(&web));
    }

    #[test]
    fn a_term_is_about_its_own_namespace_unless_it_says_which() {
        let blue = labels(json!({"team": "blue"}));
        let (none, all) = (Labels::new(), json!({}));
        for (says, own, named, selected) in [
            (json!({}), true, false, false),
            (json!({"namespaces": ["named"]}), false, true, false),
            (json!({"namespaceSelector": {"matchLabels": {"team": "blue"}}}), false, false, true),
            (
                json!({"namespaces": ["named"], "namespaceSelector": {"matchLabels": {"team": "blue"}}}),
                false,
                true,
                true,
            ),
            (json!({"namespaceSelector": all}), true, true, true),
        ] {
            let mut written = json!({"topologyKey": "z"});
            written.as_object_mut().unwrap().extend(says.as_object().unwrap().clone());
            let term = term(written);
            let about = (
                term.is_about("ns", &none),
                term.is_about("named", &none),
                term.is_about("other", &blue),
            );
            assert_eq!(about, (own, named, selected), "{says}");
        }
    }

    #[test]
    fn keys_of_labels_select_the_pods_that_have_what_the_pod_has_or_those_that_have_not() {
        let of = |keys: &str| {
            term(
                json!({"topologyKey": "z", "labelSelector": {"matchLabels": {"app": "web"}}, keys: ["hash", "absent"]}),
            )
        };
        let (same, other) = (
            labels(json!({"app": "web", "hash": "1"})),
            labels(json!({"app": "web", "hash": "2"})),
        );
        let alike = of("matchLabelKeys");
        assert_eq!((alike.selects(&same), alike.selects(&other)), (true, false));
        let unlike = of("mismatchLabelKeys");
        assert_eq!((unlike.selects(&same), unlike.selects(&other)), (false, true));
    }

    #[test]
    fn operators_of_selectors_hold_as_in_kubernetes() {
        for (operator, values, with, without) in [
            ("In", json!(["a"]), true, false),
            ("In", json!(["b"]), false, false),
            ("NotIn", json!(["a"]), false, true),
            ("Exists", json!(null), true, false),
            ("DoesNotExist", json!(null), false, true),
            ("Like", json!(["a"]), false, false),
        ] {
            let written =
                json!({"matchExpressions": [{"key": "k", "operator": operator, "values": values}]});
            let selector = Selector::of(&serde_json::from_value(written).unwrap());
            let (has, has_not) = (labels(json!({"k": "a"})), Labels::new());
            assert_eq!(
                (selector.selects(&has), selector.selects(&has_not)),
                (with, without),
                "{operator}"
            );
        }
    }
}
