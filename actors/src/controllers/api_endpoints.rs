//! Where the API is served: keeps the Endpoints and EndpointSlices of the service `default/kubernetes`, by
//! which pods find it, the addresses of the control members that can be reached.
//!
//! Each control member says in its Node where its API listens. Only members of the registry's group are
//! believed; those whose Node is not ready are left out, unless none is. On one machine that is an address
//! of its loopback network, which the rules of objects let nobody name as an endpoint: nodes connect pods
//! to it, and nobody else may have them connect to what listens there. So this is written past those rules.

use super::control::{Look, LookError, Next};
use super::engine::sources::Source;
use super::labels;
use super::mirror::Seen;
use super::owned::change;
use super::service::endpoints::NOT_MIRRORED;
use super::service::slices::SERVICE_LABEL;
use super::view::{CATCH_UP, View};
use super::wrote::Wrote;
use crate::node::object::{API_ADDRESS, is_ready};
use crate::scheduler::Members;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use impresario_registry_api::{Compare, Fence, Key, Operation, Transaction};
use impresario_runtime::{NodeName, clock};
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Node};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointPort as SlicePort, EndpointSlice,
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The singleton that says where the API is served.
pub const API_ENDPOINTS: &str = "api-endpoints";

/// The service of the API, in the namespace `default`.
const SERVICE: &str = "kubernetes";
/// Its namespace.
const NAMESPACE: &str = "default";
/// The name of its port.
const PORT: &str = "https";
const SLICES: &str = "discovery.k8s.io/endpointslices";
/// How long a change of the membership may go unnoticed that no Node told of: it has no watch.
const MEMBERSHIP: SignedDuration = SignedDuration::from_secs(30);

/// Keeps the endpoints of the API.
pub struct ApiEndpointsLook {
    view: View,
    fence: Fence,
    members: Members,
    wrote: Wrote,
    wrote_slices: Wrote,
}

impl ApiEndpointsLook {
    /// A look at the nodes of these members.
    #[must_use]
    pub fn new(view: View, fence: Fence, members: Members) -> Self {
        let (wrote, wrote_slices) = Default::default();
        Self { view, fence, members, wrote, wrote_slices }
    }

    /// The look, ready for a control actor.
    #[must_use]
    pub fn shared(self) -> Arc<dyn Look> {
        Arc::new(self)
    }

    async fn look_once(&self) -> Result<Next, LookError> {
        let view = &self.view;
        view.nodes.reached(1, CATCH_UP).await?;
        self.wrote.seen_by(&view.endpoints).await?;
        self.wrote_slices.seen_by(&view.endpoint_slices).await?;
        let nodes = view.nodes.picked(|node| serves(node).is_some());
        let nodes: Vec<_> = nodes.into_iter().map(|node| node.object).collect();
        let addresses = addresses(&nodes, &(self.members)());
        let now = clock::timestamp();
        let next = Next::At(now + MEMBERSHIP);
        // Nobody has said yet where it is served: what stands there is the best that is known.
        if addresses.is_empty() {
            return Ok(next);
        }
        let mut transaction = Transaction { fence: Some(self.fence), ..Transaction::default() };
        let subsets = subsets(&addresses);
        let seen = view.endpoints.get(NAMESPACE, SERVICE);
        let labels = seen.as_ref().and_then(|seen| seen.object.metadata.labels.as_ref());
        let is_marked =
            labels.and_then(|all| all.get(NOT_MIRRORED)).is_some_and(|set| set == "true");
        let is = seen.as_ref().and_then(|seen| seen.object.subsets.as_ref());
        if !is_marked || is != Some(&subsets) {
            let key = Key::new("endpoints", NAMESPACE, SERVICE);
            let kind = json!({"apiVersion": "v1", "kind": "Endpoints"});
            note(&mut transaction, seen.as_ref(), key, kind, now, |object| {
                object["metadata"]["labels"][NOT_MIRRORED] = "true".into();
                object["subsets"] = json!(subsets);
            })?;
        }
        let mut present: BTreeMap<String, Seen<EndpointSlice>> = view
            .endpoint_slices
            .picked_within(NAMESPACE, is_ours)
            .into_iter()
            .map(|seen| (seen.entry.key.name.clone(), seen))
            .collect();
        for (name, slice) in slices(&addresses) {
            // One of that name that somebody took the label of is this one all the same.
            let labelled = present.remove(&name);
            let is_labelled = labelled.is_some();
            let seen = labelled.or_else(|| view.endpoint_slices.get(NAMESPACE, &name));
            let said = seen.as_ref().map(|seen| {
                let is = &seen.object;
                (is.address_type.as_str(), &is.endpoints, &is.ports)
            });
            if is_labelled && said == Some((&slice.address_type, &slice.endpoints, &slice.ports)) {
                continue;
            }
            let key = Key::new(SLICES, NAMESPACE, &name);
            let kind = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice"});
            note(&mut transaction, seen.as_ref(), key, kind, now, |object| {
                object["metadata"]["labels"][SERVICE_LABEL] = SERVICE.into();
                object["addressType"] = slice.address_type.into();
                object["endpoints"] = json!(slice.endpoints);
                object["ports"] = json!(slice.ports);
            })?;
        }
        for seen in present.into_values() {
            let Key { ref name, .. } = seen.entry.key;
            let key = Key::new(SLICES, NAMESPACE, name);
            let revision = seen.entry.mod_revision;
            transaction.compares.push(Compare::Revision { key: key.clone(), revision });
            transaction.operations.push(Operation::Delete { key });
        }
        if !transaction.operations.is_empty() {
            let changed: BTreeSet<_> =
                transaction.compares.iter().map(|compare| compare.key().resource.clone()).collect();
            let revision = view.registry().transact(transaction).await?.revision;
            // A mirror moves with changes of its own resource.
            if changed.contains("endpoints") {
                self.wrote.at(revision);
            }
            if changed.contains(SLICES) {
                self.wrote_slices.at(revision);
            }
            tracing::info!(addresses = ?addresses, "the API is served here");
        }
        Ok(next)
    }
}

/// Adds a write to a transaction: of the object as it was `seen`, or of a new one.
fn note<K>(
    transaction: &mut Transaction,
    seen: Option<&Seen<K>>,
    key: Key,
    kind: Value,
    now: Timestamp,
    say: impl FnOnce(&mut Value),
) -> Result<(), LookError> {
    let (compare, operation) = if let Some(seen) = seen {
        change(seen, say)?
    } else {
        let mut object = kind;
        let second = Timestamp::from_second(now.as_second()).unwrap_or(now);
        object["metadata"] = json!({
            "name": key.name,
            "namespace": key.namespace,
            "uid": uuid::Uuid::new_v4().to_string(),
            "creationTimestamp": second.to_string(),
        });
        say(&mut object);
        let value = object.to_string().into_bytes().into();
        (Compare::Absent { key: key.clone() }, Operation::Put { key, value })
    };
    transaction.compares.push(compare);
    transaction.operations.push(operation);
    Ok(())
}

/// What wakes the singleton: nodes that serve elsewhere than before, or can be reached, or cannot, any more; and
/// whoever changes what is written here.
#[must_use]
pub fn sources(view: &View) -> Vec<Source> {
    vec![
        Source::of_one(API_ENDPOINTS, &view.nodes, |before, now| {
            before.and_then(serves) != now.and_then(serves)
        }),
        Source::of_one(API_ENDPOINTS, &view.endpoints, |before, now| {
            now.or(before).is_some_and(|endpoints| {
                let metadata = &endpoints.metadata;
                metadata.namespace.as_deref() == Some(NAMESPACE)
                    && metadata.name.as_deref() == Some(SERVICE)
            })
        }),
        Source::of_one(API_ENDPOINTS, &view.endpoint_slices, |before, now| {
            before.into_iter().chain(now).any(is_of_the_service)
        }),
    ]
}

fn is_of_the_service(slice: &EndpointSlice) -> bool {
    slice.metadata.namespace.as_deref() == Some(NAMESPACE)
        && labels::of(&slice.metadata).get(SERVICE_LABEL).is_some_and(|of| of == SERVICE)
}

/// Where a node says that it serves the API, and whether it is ready.
fn serves(node: &Node) -> Option<(SocketAddr, bool)> {
    let address = node.metadata.annotations.as_ref()?.get(API_ADDRESS)?.parse().ok()?;
    Some((address, is_ready(node)))
}

/// Where the API is served: by the nodes that are members, and of these by the ready ones, if any is.
fn addresses(nodes: &[Arc<Node>], members: &[NodeName]) -> BTreeSet<SocketAddr> {
    let is_member = |node: &&Arc<Node>| {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        members.iter().any(|member| member.as_str() == name)
    };
    let serving: Vec<_> = nodes.iter().filter(is_member).filter_map(|node| serves(node)).collect();
    let any_ready = serving.iter().any(|(_, is_ready)| *is_ready);
    let reached = serving.into_iter().filter(|(_, is_ready)| *is_ready || !any_ready);
    reached.map(|(address, _)| address).collect()
}

/// The addresses of each port.
fn by_port(addresses: &BTreeSet<SocketAddr>) -> BTreeMap<u16, Vec<IpAddr>> {
    let mut ports: BTreeMap<u16, Vec<IpAddr>> = BTreeMap::new();
    for address in addresses {
        ports.entry(address.port()).or_default().push(address.ip());
    }
    ports
}

fn subsets(addresses: &BTreeSet<SocketAddr>) -> Vec<EndpointSubset> {
    let of_port = |(port, ips): (u16, Vec<IpAddr>)| EndpointSubset {
        addresses: Some(
            ips.into_iter()
                .map(|ip| EndpointAddress { ip: ip.to_string(), ..EndpointAddress::default() })
                .collect(),
        ),
        not_ready_addresses: None,
        ports: Some(vec![EndpointPort {
            name: Some(PORT.into()),
            port: port.into(),
            protocol: Some("TCP".into()),
            app_protocol: None,
        }]),
    };
    by_port(addresses).into_iter().map(of_port).collect()
}

/// The slices by name: one for each port and family of addresses. The first has the name of the service.
fn slices(addresses: &BTreeSet<SocketAddr>) -> BTreeMap<String, EndpointSlice> {
    let mut parts: BTreeMap<(&str, u16), Vec<Endpoint>> = BTreeMap::new();
    for address in addresses {
        let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        parts.entry((family, address.port())).or_default().push(Endpoint {
            addresses: vec![address.ip().to_string()],
            conditions: Some(EndpointConditions {
                ready: Some(true),
                ..EndpointConditions::default()
            }),
            ..Endpoint::default()
        });
    }
    let named = parts.into_iter().enumerate().map(|(place, ((family, port), endpoints))| {
        let name = if place == 0 { SERVICE.to_owned() } else { format!("{SERVICE}-{place}") };
        let slice = EndpointSlice {
            address_type: family.into(),
            endpoints: Some(endpoints),
            ports: Some(vec![SlicePort {
                name: Some(PORT.into()),
                port: Some(port.into()),
                protocol: Some("TCP".into()),
                app_protocol: None,
            }]),
            ..EndpointSlice::default()
        };
        (name, slice)
    });
    named.collect()
}

/// Whether a slice of the namespace is one that this controller makes.
fn is_ours(slice: &EndpointSlice) -> bool {
    let labels = slice.metadata.labels.as_ref();
    let name = slice.metadata.name.as_deref().and_then(|name| name.strip_prefix(SERVICE));
    let is_named = name.is_some_and(|rest| {
        rest.is_empty() || rest.strip_prefix('-').is_some_and(|place| place.parse::<u8>().is_ok())
    });
    is_named && labels.and_then(|all| all.get(SERVICE_LABEL)).is_some_and(|of| of == SERVICE)
}

impl Look for ApiEndpointsLook {
    fn look(&self) -> BoxFuture<'_, Result<Next, LookError>> {
        self.look_once().boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use impresario_objects::Objects;
    use impresario_registry::MemoryRegistry;
    use impresario_registry_api::{Epoch, Registry as _, shard_of};
    use parking_lot::Mutex;

    const ACTOR: &str = super::API_ENDPOINTS;

    async fn node(registry: &MemoryRegistry, name: &str, api: &str, ready: &str) {
        let node = json!({"metadata": {"name": name, "annotations": {API_ADDRESS: api}},
            "status": {"conditions": [{"type": "Ready", "status": ready}]}});
        let put = Transaction::new().put(Key::new("nodes", "", name), node.to_string());
        registry.transact(put).await.unwrap();
    }

    #[tokio::test]
    async fn the_api_is_where_members_that_can_be_reached_say_that_they_serve_it() {
        let registry = MemoryRegistry::default();
        registry.assign_shards(&["test".to_owned()]);
        node(&registry, "m1", "10.0.0.1:6443", "True").await;
        node(&registry, "m2", "10.0.0.2:6443", "True").await;
        node(&registry, "stranger", "10.0.0.9:6443", "True").await;
        let members = Arc::new(Mutex::new(vec!["m1", "m2"]));
        let known = members.clone();
        let look = ApiEndpointsLook::new(
            View::start(Objects::new(Arc::new(registry.clone())), "test"),
            Fence { shard: shard_of(ACTOR), epoch: Epoch(1) },
            Arc::new(move || known.lock().iter().map(|name| NodeName::from(*name)).collect()),
        );
        let view = &look.view;
        let told = async || {
            view.nodes.reached(registry.revision(), CATCH_UP).await.ok();
            look.look_once().await.unwrap();
            look.wrote.seen_by(&view.endpoints).await.unwrap();
            look.wrote_slices.seen_by(&view.endpoint_slices).await.unwrap();
            let endpoints = view.endpoints.get(NAMESPACE, SERVICE).unwrap();
            let ips: Vec<String> = endpoints
                .object
                .subsets
                .iter()
                .flatten()
                .flat_map(|subset| {
                    subset.addresses.iter().flatten().map(|address| address.ip.clone())
                })
                .collect();
            let slices = view.endpoint_slices.within(NAMESPACE);
            let sliced: Vec<String> = slices
                .iter()
                .flat_map(|slice| {
                    slice.object.endpoints.iter().flatten().flat_map(|e| e.addresses.clone())
                })
                .collect();
            assert_eq!(ips, sliced);
            ips
        };
        assert_eq!(told().await, ["10.0.0.1", "10.0.0.2"]);
        let before = registry.revision();
        look.look_once().await.unwrap();
        assert_eq!(registry.revision(), before, "nothing is written again");
        *members.lock() = vec!["m1"];
        assert_eq!(told().await, ["10.0.0.1"]);
    }

    fn typed(name: &str, api: &str, ready: &str) -> Arc<Node> {
        let node = json!({"metadata": {"name": name, "annotations": {API_ADDRESS: api}},
            "status": {"conditions": [{"type": "Ready", "status": ready}]}});
        Arc::new(serde_json::from_value(node).unwrap())
    }

    #[test]
    fn who_is_lost_is_left_out_unless_all_are() {
        let members = [NodeName::from("m1"), NodeName::from("m2")];
        let of = |nodes: &[Arc<Node>]| -> Vec<String> {
            addresses(nodes, &members).iter().map(ToString::to_string).collect()
        };
        let lost = typed("m1", "10.0.0.1:6443", "Unknown");
        let ready = typed("m2", "10.0.0.2:6444", "True");
        assert_eq!(of(&[lost.clone(), ready]), ["10.0.0.2:6444"]);
        assert_eq!(of(&[lost]), ["10.0.0.1:6443"]);
        assert!(of(&[typed("m1", "nonsense", "True")]).is_empty());
    }

    #[test]
    fn members_of_one_machine_share_an_address_and_each_port_and_family_has_a_slice() {
        let addresses: BTreeSet<SocketAddr> =
            ["127.0.0.1:6443", "127.0.0.1:6443", "10.0.0.1:7443", "[fd00::1]:6443"]
                .map(|address| address.parse().unwrap())
                .into();
        let ports: Vec<_> = subsets(&addresses)
            .iter()
            .map(|subset| {
                (subset.ports.as_ref().unwrap()[0].port, subset.addresses.as_ref().unwrap().len())
            })
            .collect();
        assert_eq!(ports, [(6443, 2), (7443, 1)]);
        let names: Vec<_> = slices(&addresses).into_keys().collect();
        assert_eq!(names, ["kubernetes", "kubernetes-1", "kubernetes-2"]);
    }
}
