//! Which endpoints of a service get its traffic at one node (Kubernetes documentation, "Virtual IPs and Service
//! Proxies", "Traffic policies" and "Traffic to terminating endpoints").
//!
//! Those that are ready; where none is, those that still serve on their way out. Of the ready ones those that are
//! meant for this node or its zone, as far as all say whom they are meant for and some for here. A service whose traffic stays
//! on its node has there only the endpoints of that node.

use k8s_openapi::api::discovery::v1::Endpoint;

/// Where traffic begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Here {
    /// The node.
    pub node: String,
    /// Its zone, if it has one.
    pub zone: Option<String>,
}

/// Whether an endpoint takes traffic as usual. What nobody says is so (API reference, EndpointConditions v1).
#[must_use]
pub fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|all| all.ready) != Some(false)
}

/// Whether it still takes traffic on its way out.
fn is_leaving(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    let serves = conditions.and_then(|all| all.serving.or(all.ready)) != Some(false);
    serves && conditions.and_then(|all| all.terminating) == Some(true)
}

/// Those of a service's endpoints, each with what belongs to it, that get its traffic `here`; `stays` says that it
/// is not to leave the node.
#[must_use]
pub fn chosen<'a, N: Copy>(
    all: &[(&'a Endpoint, N)],
    here: &Here,
    stays: bool,
) -> Vec<(&'a Endpoint, N)> {
    let is_here = |endpoint: &Endpoint| endpoint.node_name.as_deref() == Some(&*here.node);
    let may = all.iter().filter(|(endpoint, _)| !stays || is_here(endpoint)).copied();
    let (ready, others): (Vec<_>, Vec<_>) = may.partition(|(endpoint, _)| is_ready(endpoint));
    if ready.is_empty() {
        return others.into_iter().filter(|(endpoint, _)| is_leaving(endpoint)).collect();
    }
    let to_node = meant_for(&ready, Some(&here.node), |endpoint| {
        let nodes = endpoint.hints.as_ref()?.for_nodes.as_deref()?;
        Some(nodes.iter().map(|node| node.name.as_str()).collect())
    });
    let to_zone = || {
        meant_for(&ready, here.zone.as_deref(), |endpoint| {
            let zones = endpoint.hints.as_ref()?.for_zones.as_deref()?;
            Some(zones.iter().map(|zone| zone.name.as_str()).collect())
        })
    };
    to_node.or_else(to_zone).unwrap_or(ready)
}

/// Those that are meant for this one, where each is meant for somebody and some for this one.
fn meant_for<'a, N: Copy>(
    all: &[(&'a Endpoint, N)],
    this: Option<&str>,
    whom: impl Fn(&'a Endpoint) -> Option<Vec<&'a str>>,
) -> Option<Vec<(&'a Endpoint, N)>> {
    let this = this?;
    let mut found = Vec::new();
    for (endpoint, with) in all {
        let whom = whom(endpoint).filter(|whom| !whom.is_empty())?;
        if whom.contains(&this) {
            found.push((*endpoint, *with));
        }
    }
    (!found.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::table::cells;
    use serde_json::{Value, json};

    /// `a:ready,on=n1,for=z/n`: an endpoint that says so of itself.
    fn endpoint(words: &str) -> Endpoint {
        let (name, words) = words.split_once(':').unwrap();
        let mut endpoint = json!({"addresses": [name], "conditions": {}});
        for word in words.split(',') {
            match word.split_once('=') {
                Some(("on", node)) => endpoint["nodeName"] = node.into(),
                Some(("for", whom)) => {
                    let (zone, node) = whom.split_once('/').unwrap_or((whom, ""));
                    let one = |name: &str| json!([{ "name": name }]);
                    endpoint["hints"] = json!({});
                    if !zone.is_empty() {
                        endpoint["hints"]["forZones"] = one(zone);
                    }
                    if !node.is_empty() {
                        endpoint["hints"]["forNodes"] = one(node);
                    }
                }
                _ => {
                    let said: &[(&str, bool)] = match word {
                        "ready" => &[("ready", true), ("serving", true), ("terminating", false)],
                        "unready" => &[("ready", false), ("serving", false)],
                        "leaving" => &[("ready", false), ("serving", true), ("terminating", true)],
                        "gone" => &[("ready", false), ("serving", false), ("terminating", true)],
                        _ => &[],
                    };
                    for (condition, holds) in said {
                        endpoint["conditions"][*condition] = Value::Bool(*holds);
                    }
                }
            }
        }
        serde_json::from_value(endpoint).unwrap()
    }

    #[test]
    fn traffic_goes_to_whom_it_is_meant_for_and_to_those_that_leave_only_where_there_is_nobody_else()
     {
        let table = "
            endpoints                                             | of here | stays: of here
            a:ready,on=n1 b:ready,on=n2 c:unready,on=n1           | a b     | a
            a:ready,on=n2 b:leaving,on=n1 c:gone,on=n1            | a       | b
            a:leaving,on=n1 b:gone,on=n1 c:unready,on=n1          | a       | a
            a:silent                                              | a       |
            a:ready,on=n1,for=z1 b:ready,on=n2,for=z2             | a       | a
            a:ready,on=n1,for=z1 b:ready,on=n2                    | a b     | a
            a:ready,on=n2,for=z2 b:ready,on=n3,for=z3             | a b     |
            a:ready,on=n2,for=z1 b:unready,on=n3                  | a       |
            a:ready,on=n1,for=z1/n1 b:ready,on=n2,for=z1/n2       | a       | a
            a:ready,on=n3,for=z1/n3 b:ready,on=n2,for=z2/n2       | a       |
            a:leaving,on=n2,for=z2 b:leaving,on=n1,for=z1         | a b     | b";
        let here = Here { node: "n1".into(), zone: Some("z1".into()) };
        for row in table.lines().skip(2) {
            let [words, wide, narrow] = cells(row);
            let all: Vec<Endpoint> = words.split_whitespace().map(endpoint).collect();
            let all: Vec<_> = all.iter().map(|one| (one, ())).collect();
            for (stays, expected) in [(false, wide), (true, narrow)] {
                let found = chosen(&all, &here, stays).into_iter();
                let found: Vec<&str> = found.map(|(one, ())| one.addresses[0].as_str()).collect();
                assert_eq!(found.join(" "), expected, "stays: {stays}, in row {row}");
            }
        }
        let nowhere = Here { node: "n9".into(), zone: None };
        let hinted = endpoint("a:ready,on=n1,for=z1/n1");
        assert_eq!(chosen(&[(&hinted, ())], &nowhere, false).len(), 1);
    }
}
