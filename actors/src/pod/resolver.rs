//! What a pod's `/etc/resolv.conf` says, so that services are found by name. No IO.
//!
//! ```text
//! ClusterFirst   the cluster's server, then the machine's, which answer for everything else
//! Default        the machine's own file: none is made
//! None           `dnsConfig` alone
//! ```

use k8s_openapi::api::core::v1::PodSpec;
use std::fmt::Write as _;
use std::net::IpAddr;

/// The cluster's domain.
const DOMAIN: &str = "cluster.local";
/// What resolvers read at most.
const SERVERS: usize = 3;

/// The file for a pod of `namespace`, given the server of its node and the file of the machine.
/// `None` where the pod sees the machine's own.
#[must_use]
pub fn resolv_conf(
    spec: &PodSpec,
    namespace: &str,
    server: IpAddr,
    machine: &str,
) -> Option<String> {
    let host_network = spec.host_network == Some(true);
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let config = spec.dns_config.as_ref();
    let (mut servers, mut search, mut options) = (Vec::new(), Vec::new(), Vec::new());
    let is_clusters = match policy {
        "None" => false,
        "ClusterFirstWithHostNet" => true,
        "ClusterFirst" if !host_network => true,
        _ if config.is_none() => return None,
        _ => false,
    };
    if is_clusters {
        servers.push(server.to_string());
        search.extend([
            format!("{namespace}.svc.{DOMAIN}"),
            format!("svc.{DOMAIN}"),
            DOMAIN.to_owned(),
        ]);
        options.push("ndots:5".to_owned());
    }
    if policy != "None" {
        for line in machine.lines() {
            let mut words = line.split_whitespace().map(str::to_owned);
            match words.next().as_deref() {
                Some("nameserver") => servers.extend(words.next()),
                Some("search" | "domain") => search.extend(words),
                Some("options") => options.extend(words.filter(|word| !word.starts_with("ndots:"))),
                _ => {}
            }
        }
    }
    if let Some(config) = config {
        servers.extend(config.nameservers.iter().flatten().cloned());
        search.extend(config.searches.iter().flatten().cloned());
        for option in config.options.iter().flatten() {
            let name = option.name.as_deref().unwrap_or_default();
            options.retain(|other| other.split(':').next() != Some(name));
            options.push(match option.value.as_deref() {
                Some(value) => format!("{name}:{value}"),
                None => name.to_owned(),
            });
        }
    }
    let mut text = String::new();
    // Writing to a String cannot fail.
    for server in servers.iter().take(SERVERS) {
        let _ = writeln!(text, "nameserver {server}");
    }
    for (word, values) in [("search", search), ("options", options)] {
        if !values.is_empty() {
            let _ = writeln!(text, "{word} {}", values.join(" "));
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const MACHINE: &str =
        "# made by hand\nnameserver 9.9.9.9\nsearch example.org\noptions ndots:1 rotate\n";

    fn file(spec: Value) -> Option<String> {
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        resolv_conf(&spec, "shop", "127.128.1.254".parse().unwrap(), MACHINE)
    }

    #[test]
    fn the_cluster_comes_first_and_the_machine_answers_for_the_rest() {
        let expected = "nameserver 127.128.1.254\nnameserver 9.9.9.9\n\
                        search shop.svc.cluster.local svc.cluster.local cluster.local example.org\n\
                        options ndots:5 rotate\n";
        assert_eq!(file(json!({"containers": []})).as_deref(), Some(expected));
    }

    #[test]
    fn a_pod_may_keep_to_the_machine_or_to_itself() {
        assert_eq!(file(json!({"containers": [], "dnsPolicy": "Default"})), None);
        assert_eq!(file(json!({"containers": [], "hostNetwork": true})), None);
        let own = json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {
            "nameservers": ["1.1.1.1"], "options": [{"name": "ndots", "value": "2"}]}});
        assert_eq!(file(own).as_deref(), Some("nameserver 1.1.1.1\noptions ndots:2\n"));
    }
}
