//! Whether a pod may go to a node at all, and in which words not. No IO.

use super::picture::{Node, Pending};
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
    /// Not enough of these resources.
    Insufficient(Vec<String>),
    /// A host port of the pod is taken.
    HostPort,
    /// A claim of the pod, and why.
    Volumes(String),
    /// The pod would fit, but the node does not answer.
    Silent,
}

/// Whether the pod may go to the node.
pub fn fits(pod: &Pending, node: &Node) -> Result<(), Unfit> {
    let as_taint = |key: &str| Taint {
        key: key.to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    if node.unschedulable
        && !tolerates(&pod.tolerations, &as_taint("node.kubernetes.io/unschedulable"))
    {
        return Err(Unfit::Unschedulable);
    }
    if !node.ready {
        return Err(Unfit::NotReady);
    }
    let forbids = |taint: &&Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
    if let Some(taint) =
        node.taints.iter().filter(forbids).find(|taint| !tolerates(&pod.tolerations, taint))
    {
        let value = taint.value.as_deref().unwrap_or_default();
        return Err(Unfit::Tainted(format!("{}: {value}", taint.key)));
    }
    if !is_chosen(&pod.selector, pod.affinity.as_deref(), &node.name, &node.labels) {
        return Err(Unfit::Selector);
    }
    if pod.host_ports.iter().any(|port| node.host_ports.contains(port)) {
        return Err(Unfit::HostPort);
    }
    if let Some(volumes) = &pod.volumes
        && let Some(why) = volumes
            .unfit(|terms| is_chosen(&BTreeMap::new(), Some(terms), &node.name, &node.labels))
    {
        return Err(Unfit::Volumes(why));
    }
    let short = node.free.short_of(&pod.requests);
    if short.is_empty() {
        return Ok(());
    }
    Err(Unfit::Insufficient(short.into_iter().map(str::to_owned).collect()))
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
fn term_matches(term: &NodeSelectorTerm, name: &str, labels: &BTreeMap<String, String>) -> bool {
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
}

impl Why {
    /// Counts one more node, and what it is ruled out by.
    pub fn count(&mut self, reason: Unfit) {
        self.nodes += 1;
        *self.counted.entry(reason).or_default() += 1;
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
        write!(f, "0/{} nodes are available: {}.", self.nodes, words.join(", "))
    }
}

fn in_words(reason: &Unfit) -> Vec<String> {
    match reason {
        Unfit::Unschedulable => vec!["node(s) were unschedulable".to_owned()],
        Unfit::NotReady => vec!["node(s) were not ready".to_owned()],
        Unfit::Tainted(taint) => vec![format!("node(s) had untolerated taint {{{taint}}}")],
        Unfit::Selector => vec!["node(s) didn't match Pod's node affinity/selector".to_owned()],
        Unfit::HostPort => {
            vec!["node(s) didn't have free ports for the requested pod ports".to_owned()]
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
    use crate::scheduler::picture::tests::{node, pod};
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
        let mut here = node("n1", 1000);
        here.labels.insert("zone".into(), "a".into());
        here.labels.insert("cores".into(), "8".into());
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
            (json!([{}]), false),
            (
                json!([{}, {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]),
                true,
            ),
        ];
        for (terms, expected) in table {
            let mut pod = pod("p", 1);
            pod.affinity = Some(serde_json::from_value(terms.clone()).unwrap());
            assert_eq!(fits(&pod, &here).is_ok(), expected, "{terms}");
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
