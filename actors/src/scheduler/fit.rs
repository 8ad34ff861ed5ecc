//! What nodes and pods say of each other by names, labels and taints, and in which words a pod fits nowhere. No IO.

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Taint, Toleration};
use std::{collections::BTreeMap, fmt};

/// Why a pod may not go to a node, in the order in which it is looked at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unfit {
    /// The node takes no pods for now.
    Unschedulable,
    /// The node was not heard of lately.
    NotReady,
    /// A taint that the pod does not tolerate.
    Tainted(String),
    /// The node selector or the required node affinity says otherwise.
    Selector,
    /// A host port of the pod is taken.
    HostPort,
    /// Not enough of these resources.
    Insufficient(Vec<String>),
    /// The node has not a label by which the pod is spread.
    NoPlace,
    /// There would be too many like the pod in the node's place.
    Skewed,
    /// Those near which the pod must be are elsewhere.
    Far,
    /// One from whom the pod must be apart is there.
    TooNear,
    /// One who must be apart from the pod is there.
    Unwelcome,
    /// A claim of the pod, and why.
    Volumes(String),
    /// The pod would fit, but the node does not answer.
    Silent,
}

impl Unfit {
    /// Whether it may be otherwise when other pods have left the node.
    #[must_use]
    pub fn is_by_others(&self) -> bool {
        match self {
            Self::HostPort
            | Self::Insufficient(_)
            | Self::Skewed
            | Self::TooNear
            | Self::Unwelcome => true,
            Self::Unschedulable
            | Self::NotReady
            | Self::Tainted(_)
            | Self::Selector
            | Self::NoPlace
            | Self::Far
            | Self::Volumes(_)
            | Self::Silent => false,
        }
    }

    /// Whether it depends on who is around, on whatever node.
    #[must_use]
    pub fn is_by_those_around(&self) -> bool {
        matches!(self, Self::Skewed | Self::Far | Self::TooNear | Self::Unwelcome)
    }
}

/// The taint that a node has in effect while it takes no pods.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Whether a pod goes even to nodes that take no pods.
#[must_use]
pub fn goes_anyway(tolerations: &[Toleration]) -> bool {
    let taint = Taint {
        key: UNSCHEDULABLE.to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    tolerates(tolerations, &taint)
}

/// The first of the taints that keeps a pod away.
#[must_use]
pub fn forbids<'a>(tolerations: &[Toleration], taints: &'a [Taint]) -> Option<&'a Taint> {
    taints
        .iter()
        .filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"))
        .find(|taint| !tolerates(tolerations, taint))
}

/// Whether a pod with these labels for its node, and this required affinity to nodes, is meant for the node: by its
/// name and labels alone.
pub fn is_chosen(
    selector: &BTreeMap<String, String>,
    affinity: Option<&[NodeSelectorTerm]>,
    name: &str,
    labels: &BTreeMap<String, String>,
) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
        && affinity.is_none_or(|terms| terms.iter().any(|term| term_matches(term, name, labels)))
}

/// Whether one of the tolerations covers the taint.
pub fn tolerates(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|toleration| {
        let exists = toleration.operator.as_deref() == Some("Exists");
        let key = toleration.key.as_deref().unwrap_or_default();
        let effect = toleration.effect.as_deref().unwrap_or_default();
        let value = toleration.value.as_deref().unwrap_or_default();
        (effect.is_empty() || effect == taint.effect)
            && (key == taint.key || (key.is_empty() && exists))
            && (exists || value == taint.value.as_deref().unwrap_or_default())
    })
}

/// A term matches where all of its requirements do; an empty one matches nothing.
#[must_use]
pub fn term_matches(
    term: &NodeSelectorTerm,
    name: &str,
    labels: &BTreeMap<String, String>,
) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let of = |requirement: &NodeSelectorRequirement, found: Option<&str>| {
        let values = requirement.values.as_deref().unwrap_or_default();
        let compare = |holds: fn(i64, i64) -> bool| {
            let found = found.and_then(|value| value.parse::<i64>().ok());
            let bound = values.first().and_then(|value| value.parse::<i64>().ok());
            found.zip(bound).is_some_and(|(found, bound)| holds(found, bound))
        };
        match requirement.operator.as_str() {
            "In" => found.is_some_and(|found| values.iter().any(|value| value == found)),
            "NotIn" => found.is_none_or(|found| values.iter().all(|value| value != found)),
            "Exists" => found.is_some(),
            "DoesNotExist" => found.is_none(),
            "Gt" => compare(|found, bound| found > bound),
            "Lt" => compare(|found, bound| found < bound),
            _ => false,
        }
    };
    let label = |key: &str| labels.get(key).map(String::as_str);
    let field = |key: &str| (key == "metadata.name").then_some(name);
    expressions.iter().all(|requirement| of(requirement, label(&requirement.key)))
        && fields.iter().all(|requirement| of(requirement, field(&requirement.key)))
}

/// Why a pod has no node: how many nodes there are, and how many each reason rules out. In words:
/// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Why {
    nodes: usize,
    counted: BTreeMap<Unfit, usize>,
    /// What came of the search for pods that could leave for it.
    preemption: Option<NoVictims>,
}

/// Why no pods were made to leave for one that fits nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoVictims {
    /// Its own policy is that nobody leaves for it.
    Never,
    /// It waits on its node for those that are on their way out.
    Waits,
    /// A node on which it would fit says that it has less than its pods leave: that may pass.
    Unsure,
    /// So many nodes have nobody who could leave, and on so many others that would not help.
    Nobody {
        /// The former.
        without: usize,
        /// The latter.
        unhelpful: usize,
    },
}

impl fmt::Display for NoVictims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Nobody { without, unhelpful } = self else {
            return f.write_str(match self {
                Self::Never => "not eligible due to preemptionPolicy=Never.",
                Self::Unsure => {
                    "not eligible while a node says that it has less than its pods leave."
                }
                _ => "not eligible due to terminating pod on the nominated node.",
            });
        };
        let counted = [
            (without, "No preemption victims found for incoming pod"),
            (unhelpful, "Preemption is not helpful for scheduling"),
        ];
        let counted = counted.iter().filter(|(count, _)| **count > 0);
        let words: Vec<_> = counted.map(|(count, words)| format!("{count} {words}")).collect();
        write!(f, "0/{} nodes are available: {}.", without + unhelpful, words.join(", "))
    }
}

impl Why {
    /// Counts one more node, and what it is ruled out by.
    pub fn count(&mut self, reason: Unfit) {
        self.nodes += 1;
        *self.counted.entry(reason).or_default() += 1;
    }

    /// Says too why nobody was made to leave for the pod.
    pub fn without_victims(&mut self, why: NoVictims) {
        self.preemption = Some(why);
    }

    /// Whether pods that left a node, or a budget that lets more go, would help in ways of their own.
    #[must_use]
    pub fn searched_victims(&self) -> bool {
        matches!(self.preemption, Some(NoVictims::Nobody { .. } | NoVictims::Waits))
    }

    /// Whether on some node it depends on who is around.
    #[must_use]
    pub fn is_by_those_around(&self) -> bool {
        self.counted.keys().any(Unfit::is_by_those_around)
    }

    /// Whether it is for the same reasons, however many nodes each of them rules out.
    pub fn is_like(&self, other: &Self) -> bool {
        self.words().keys().eq(other.words().keys())
    }

    fn words(&self) -> BTreeMap<String, usize> {
        let mut counted: BTreeMap<String, usize> = BTreeMap::new();
        for (reason, count) in &self.counted {
            for word in in_words(reason) {
                *counted.entry(word).or_default() += count;
            }
        }
        counted
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        let counted = self.words().into_iter();
        let mut words: Vec<_> = counted.map(|(words, count)| format!("{count} {words}")).collect();
        words.sort();
        write!(f, "0/{} nodes are available: {}.", self.nodes, words.join(", "))?;
        self.preemption.iter().try_for_each(|why| write!(f, " preemption: {why}"))
    }
}

/// The reason in the words of Kubernetes, without a count.
#[must_use]
pub fn in_words(reason: &Unfit) -> Vec<String> {
    match reason {
        Unfit::Unschedulable => vec!["node(s) were unschedulable".to_owned()],
        Unfit::NotReady => vec!["node(s) were not ready".to_owned()],
        Unfit::Tainted(taint) => vec![format!("node(s) had untolerated taint {{{taint}}}")],
        Unfit::Selector => vec!["node(s) didn't match Pod's node affinity/selector".to_owned()],
        Unfit::HostPort => {
            vec!["node(s) didn't have free ports for the requested pod ports".to_owned()]
        }
        Unfit::NoPlace => vec![
            "node(s) didn't match pod topology spread constraints (missing required label)"
                .to_owned(),
        ],
        Unfit::Skewed => vec!["node(s) didn't match pod topology spread constraints".to_owned()],
        Unfit::Far => vec!["node(s) didn't match pod affinity rules".to_owned()],
        Unfit::TooNear => vec!["node(s) didn't match pod anti-affinity rules".to_owned()],
        Unfit::Unwelcome => {
            vec!["node(s) didn't satisfy existing pods anti-affinity rules".to_owned()]
        }
        Unfit::Volumes(why) => vec![why.clone()],
        Unfit::Silent => vec!["node(s) did not answer".to_owned()],
        Unfit::Insufficient(names) => names
            .iter()
            .map(|name| match name.as_str() {
                "pods" => "Too many pods".to_owned(),
                name => format!("Insufficient {name}"),
            })
            .collect(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tolerations_cover_taints_as_in_kubernetes() {
        let table = [
            (json!({"key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule"}), true),
            (json!({"key": "k", "value": "v"}), true),
            (json!({"key": "k", "operator": "Exists"}), true),
            (json!({"operator": "Exists"}), true),
            (json!({"key": "k", "value": "other"}), false),
            (json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}), false),
            (json!({}), false),
        ];
        let taint: Taint =
            serde_json::from_value(json!({"key": "k", "value": "v", "effect": "NoSchedule"}))
                .unwrap();
        for (toleration, expected) in table {
            let tolerations = [serde_json::from_value(toleration.clone()).unwrap()];
            assert_eq!(tolerates(&tolerations, &taint), expected, "{toleration}");
        }
    }

    #[test]
    fn required_affinity_takes_any_term_and_every_requirement() {
        let labels = [("zone", "a"), ("cores", "8")].map(|(key, value)| (key.into(), value.into()));
        let (labels, none) = (BTreeMap::from(labels), BTreeMap::new());
        let table = [
            (
                json!([{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]}]),
                true,
            ),
            (
                json!([{"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["a"]}]}]),
                false,
            ),
            (json!([{"matchExpressions": [{"key": "gpu", "operator": "DoesNotExist"}]}]), true),
            (
                json!([{"matchExpressions": [{"key": "cores", "operator": "Gt", "values": ["7"]}]}]),
                true,
            ),
            (
                json!([{"matchExpressions": [{"key": "cores", "operator": "Lt", "values": ["8"]}]}]),
                false,
            ),
            (
                json!([{"matchExpressions": [{"key": "zone", "operator": "Gt", "values": ["1"]}]}]),
                false,
            ),
            (
                json!([{"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["n1"]}]}]),
                false,
            ),
            (json!([{}]), false),
            (
                json!([{}, {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]),
                true,
            ),
        ];
        for (terms, expected) in table {
            let affinity: Vec<_> = serde_json::from_value(terms.clone()).unwrap();
            assert_eq!(is_chosen(&none, Some(&affinity), "n1", &labels), expected, "{terms}");
        }
    }

    /// Why nodes of which each is ruled out by one of these are none for the pod.
    pub(crate) fn why(reasons: impl IntoIterator<Item = Unfit>) -> Why {
        let mut why = Why::default();
        reasons.into_iter().for_each(|reason| why.count(reason));
        why
    }

    fn short(of: &[&str]) -> Unfit {
        Unfit::Insufficient(of.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn reasons_are_counted_in_the_words_of_kubernetes() {
        let said = |reasons: &[Unfit]| why(reasons.iter().cloned()).to_string();
        assert_eq!(
            said(&[Unfit::Selector, short(&["cpu"]), Unfit::Selector]),
            "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't match Pod's node affinity/selector."
        );
        assert_eq!(
            said(&[short(&["cpu"]), short(&["cpu", "pods"])]),
            "0/2 nodes are available: 1 Too many pods, 2 Insufficient cpu."
        );
        assert_eq!(
            said(&[Unfit::Tainted("k: v".into())]),
            "0/1 nodes are available: 1 node(s) had untolerated taint {k: v}."
        );
        assert_eq!(said(&[]), "no nodes available to schedule pods");
    }

    #[test]
    fn what_came_of_the_search_for_victims_is_said_behind_the_reasons() {
        let mut why = why([short(&["cpu"]), Unfit::Selector]);
        let nodes = "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match Pod's node affinity/selector.";
        for (came, words) in [
            (NoVictims::Never, "not eligible due to preemptionPolicy=Never."),
            (
                NoVictims::Nobody { without: 1, unhelpful: 1 },
                "0/2 nodes are available: 1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling.",
            ),
        ] {
            why.without_victims(came);
            assert_eq!(why.to_string(), format!("{nodes} preemption: {words}"));
        }
    }

    #[test]
    fn the_same_reasons_are_the_same_for_other_numbers_of_nodes() {
        let one = why([Unfit::Selector, short(&["cpu"]), short(&["memory"])]);
        let more = why([Unfit::Selector, Unfit::Selector, short(&["cpu", "memory"])]);
        assert!(one != more && one.is_like(&more));
        assert!(!one.is_like(&why([Unfit::Selector, short(&["cpu"])])));
        assert!(!one.is_like(&Why::default()));
        let tainted = |taint: &str| why([Unfit::Tainted(taint.into())]);
        assert!(!tainted("k: v").is_like(&tainted("k: w")));
    }
}
