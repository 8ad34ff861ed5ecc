//! Which taints a node has by what is known of it: by its conditions, by whether it is heard, and by whether
//! it is cordoned (Kubernetes documentation, "Taints and Tolerations", "Taint based evictions" and "Taint nodes by
//! condition"). Taints that others set are left as they are.

use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

/// The taint of a node that is lost.
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// The taint of a node that says that it is not ready.
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// The taint by which an operator certifies that a node is off, and that nothing runs there any more.
pub const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions that forbid new pods where they hold.
const BY_CONDITION: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];
const NO_SCHEDULE: &str = "NoSchedule";
const NO_EXECUTE: &str = "NoExecute";

/// What the leader knows of a node by its heartbeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It was heard of late.
    Heard,
    /// It was not, and has time yet: this leader is new, or the node is still to start.
    Unknown,
    /// It has been silent for too long.
    Lost,
}

/// What a node says of a condition.
#[must_use]
pub fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a str> {
    let conditions = node.status.as_ref()?.conditions.as_deref()?;
    let said = conditions.iter().find(|condition| condition.type_ == kind)?;
    Some(said.status.as_str())
}

/// The taints of a node.
#[must_use]
pub fn of(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

/// Whether a taint says that its node is in trouble, by which pods leave it after a while.
#[must_use]
pub fn is_trouble(taint: &Taint) -> bool {
    taint.key == UNREACHABLE || taint.key == NOT_READY
}

/// Whether pods leave because of it.
#[must_use]
pub fn evicts(taint: &Taint) -> bool {
    taint.effect == NO_EXECUTE
}

/// Since when pods are to leave this node because it is in trouble, if they are.
#[must_use]
pub fn troubled_since(node: &Node) -> Option<Timestamp> {
    let trouble = of(node).iter().filter(|taint| is_trouble(taint) && evicts(taint));
    trouble.filter_map(|taint| taint.time_added.as_ref()).map(|time| time.0).max()
}

/// Whether pods are to leave a node of this standing because it is in trouble, as far as it alone is concerned.
#[must_use]
pub fn is_in_trouble(node: &Node, standing: Standing) -> bool {
    match standing {
        Standing::Lost => true,
        Standing::Heard => condition(node, "Ready") == Some("False"),
        Standing::Unknown => false,
    }
}

/// All taints that a node should have. `drives_out` says whether its pods may be driven out where it is in trouble:
/// that goes at a pace. What stays keeps the time at which it was added.
#[must_use]
pub fn wanted(node: &Node, standing: Standing, drives_out: bool, now: Timestamp) -> Vec<Taint> {
    let mut wants: Vec<(&str, &str)> = Vec::new();
    let trouble = match standing {
        _ if !is_in_trouble(node, standing) => None,
        Standing::Lost => Some(UNREACHABLE),
        Standing::Heard | Standing::Unknown => Some(NOT_READY),
    };
    if let Some(trouble) = trouble {
        wants.push((trouble, NO_SCHEDULE));
        wants.extend(drives_out.then_some((trouble, NO_EXECUTE)));
    }
    let holds = |(kind, _): &(&str, &str)| condition(node, kind) == Some("True");
    wants.extend(BY_CONDITION.into_iter().filter(holds).map(|(_, key)| (key, NO_SCHEDULE)));
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        wants.push((UNSCHEDULABLE, NO_SCHEDULE));
    }
    // One of which nothing is known yet stays as it is, and one that is heard and has said nothing yet is not ready.
    let stays = |taint: &Taint| match standing {
        Standing::Unknown => is_trouble(taint),
        Standing::Heard if condition(node, "Ready").is_none() => {
            taint.key == NOT_READY && taint.effect == NO_SCHEDULE
        }
        Standing::Heard | Standing::Lost => false,
    };
    let is_wanted = |taint: &Taint| wants.contains(&(taint.key.as_str(), taint.effect.as_str()));
    let mut all: Vec<Taint> = of(node)
        .iter()
        .filter(|taint| !is_ours(taint) || is_wanted(taint) || stays(taint))
        .cloned()
        .collect();
    let at = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
    for (key, effect) in wants {
        if !all.iter().any(|taint| taint.key == key && taint.effect == effect) {
            all.push(Taint {
                key: key.into(),
                effect: effect.into(),
                value: None,
                time_added: Some(at.clone()),
            });
        }
    }
    // By this time pods go, whoever leads then.
    for taint in all.iter_mut().filter(|taint| evicts(taint)) {
        taint.time_added.get_or_insert_with(|| at.clone());
    }
    all
}

/// Whether a taint is set and taken off here.
fn is_ours(taint: &Taint) -> bool {
    match taint.effect.as_str() {
        NO_SCHEDULE => {
            is_trouble(taint)
                || taint.key == UNSCHEDULABLE
                || BY_CONDITION.iter().any(|(_, key)| taint.key == *key)
        }
        NO_EXECUTE => is_trouble(taint),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::table::cells;
    use super::*;
    use serde_json::{Value, json};

    const KEY: &str = "node.kubernetes.io/";

    /// `Ready=True,cordoned` and `unreachable:NoExecute@5 mine:NoSchedule`, of which those after the first are
    /// without `node.kubernetes.io/`.
    fn node(says: &str, taints: &str) -> Node {
        let says: Vec<&str> = says.split(',').filter(|word| !word.is_empty()).collect();
        let conditions = says.iter().filter_map(|word| word.split_once('='));
        let conditions: Vec<Value> =
            conditions.map(|(kind, status)| json!({ "type": kind, "status": status })).collect();
        let taints: Vec<Value> = taints
            .split_whitespace()
            .map(|words| {
                let (words, at) = words.split_once('@').map_or((words, None), |(w, at)| {
                    (w, Some(Timestamp::from_second(at.parse().unwrap()).unwrap().to_string()))
                });
                let (key, effect) = words.split_once(':').unwrap();
                let key = if key == "mine" { key.to_owned() } else { format!("{KEY}{key}") };
                json!({ "key": key, "effect": effect, "timeAdded": at })
            })
            .collect();
        let node = json!({
            "metadata": {"name": "n"},
            "spec": {"taints": taints, "unschedulable": says.contains(&"cordoned")},
            "status": {"conditions": conditions},
        });
        serde_json::from_value(node).unwrap()
    }

    fn in_words(taints: &[Taint]) -> String {
        let word = |taint: &Taint| {
            let key = taint.key.strip_prefix(KEY).unwrap_or(&taint.key);
            let at = taint.time_added.as_ref().map(|at| format!("@{}", at.0.as_second()));
            format!("{key}:{}{}", taint.effect, at.unwrap_or_default())
        };
        taints.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_node_has_the_taints_of_what_is_known_of_it() {
        let table = "
            standing | says                          | drives out | has                              | wanted
            heard    | Ready=True                    | yes        |                                  |
            heard    | Ready=True,cordoned           | yes        |                                  | unschedulable:NoSchedule@9
            heard    | Ready=True                    | yes        | unschedulable:NoSchedule@1       |
            heard    | Ready=True,MemoryPressure=True,DiskPressure=True | yes |                      | memory-pressure:NoSchedule@9 disk-pressure:NoSchedule@9
            heard    | Ready=True,PIDPressure=True,NetworkUnavailable=True | yes |                   | pid-pressure:NoSchedule@9 network-unavailable:NoSchedule@9
            heard    | Ready=True,MemoryPressure=Unknown | yes    | memory-pressure:NoSchedule@1     |
            heard    | Ready=False                   | yes        |                                  | not-ready:NoSchedule@9 not-ready:NoExecute@9
            heard    | Ready=False                   | no         | unreachable:NoExecute@1          | not-ready:NoSchedule@9
            heard    | Ready=Unknown                 | yes        | unreachable:NoSchedule@1 unreachable:NoExecute@1 |
            heard    |                               | yes        | not-ready:NoSchedule unreachable:NoExecute@1 | not-ready:NoSchedule
            heard    | Ready=True                    | yes        | not-ready:NoSchedule             |
            lost     | Ready=True                    | yes        |                                  | unreachable:NoSchedule@9 unreachable:NoExecute@9
            lost     | Ready=Unknown                 | yes        | unreachable:NoSchedule@1         | unreachable:NoSchedule@1 unreachable:NoExecute@9
            lost     | Ready=Unknown                 | yes        | unreachable:NoSchedule@1 unreachable:NoExecute@2 | unreachable:NoSchedule@1 unreachable:NoExecute@2
            lost     | Ready=Unknown                 | no         | not-ready:NoExecute@1            | unreachable:NoSchedule@9
            unknown  | Ready=Unknown                 | yes        | unreachable:NoExecute@1          | unreachable:NoExecute@1
            unknown  | Ready=True,cordoned           | yes        |                                  | unschedulable:NoSchedule@9
            heard    | Ready=True                    | yes        | mine:NoExecute mine:NoSchedule   | mine:NoExecute@9 mine:NoSchedule
            heard    | Ready=True                    | yes        | mine:NoExecute@3 unreachable:PreferNoSchedule | mine:NoExecute@3 unreachable:PreferNoSchedule";
        let now = Timestamp::from_millisecond(9_400).unwrap();
        for row in table.lines().skip(2) {
            let [standing, says, drives_out, has, expected] = cells(row);
            let standing = match standing {
                "heard" => Standing::Heard,
                "lost" => Standing::Lost,
                _ => Standing::Unknown,
            };
            let mut node = node(says, has);
            let wants = wanted(&node, standing, drives_out == "yes", now);
            assert_eq!(in_words(&wants), expected, "in row {row}");
            // And then no others, however late it is.
            node.spec.as_mut().unwrap().taints = Some(wants.clone());
            let later = Timestamp::from_second(99).unwrap();
            assert_eq!(wanted(&node, standing, drives_out == "yes", later), wants, "in row {row}");
        }
    }
}
