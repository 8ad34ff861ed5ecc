//! Keeps the Endpoints of a `Service` the addresses of the pods that its selector selects, and its
//! EndpointSlices the same as its Endpoints, also where a user keeps those, with whom they are meant for; says of its ports which of
//! them cannot be had.

pub mod endpoints;
mod nearness;
mod ports;
pub mod slices;

#[cfg(test)]
mod tests;

use super::engine::controller::Controller;
use super::engine::effects::{Effects, Event};
use super::engine::kind_name::KindName;
use super::engine::looks_at::LooksAt;
use super::engine::view::View;
use super::pod_view::PodView as _;
use crate::withheld_ports::{self, ALTERNATE_PORTS};
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, LabelSelectorRequirement, ObjectMeta,
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use nearness::Nearness;
use serde_json::{Value, json};
use slices::{About, Behind};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What a service says of its ports is written again after so long, at the earliest: one node that says now
/// this and now that does not have all services written each time.
const PORTS_AGAIN: SignedDuration = SignedDuration::from_secs(60);
/// The label of what is made for a service that has no address of its own.
const HEADLESS: &str = "service.kubernetes.io/headless";
/// The label of Endpoints that says who keeps them, and what it says.
const ENDPOINTS_KEEPER: (&str, &str) =
    ("endpoints.kubernetes.io/managed-by", "endpoint-controller");

/// Labels by their names.
type Labels = BTreeMap<String, String>;

/// Decides for services.
#[derive(Debug)]
pub enum Reconciler {}

impl Controller for Reconciler {
    type Object = Service;

    // Whatever becomes of what it says of its ports, its endpoints are written.
    const STATUS_FIRST: bool = false;
    const SILENT_OF: &'static [KindName] =
        &[KindName::of::<Endpoints>(), KindName::of::<EndpointSlice>()];

    fn looks_at() -> LooksAt<Service> {
        LooksAt::itself()
            .of_its_name::<Endpoints>()
            .kept::<EndpointSlice>(its_slices)
            .selected::<Pod>(endpoints::its_pods)
            // Zones wake nobody: a node usually has its own before it has pods, and another is read with the next look.
            .everywhere::<Node, _>(
                |node| first_port(node).is_some() || nearness::zone(node).is_some(),
                first_port,
            )
    }

    fn reconcile(view: &View<'_, Service>, now: Timestamp) -> Effects {
        let mut effects = Effects::default();
        if view.object.metadata.deletion_timestamp.is_some() {
            return effects;
        }
        let pods = view.of::<Pod>();
        let seen = view.of::<Endpoints>().first().map(AsRef::as_ref);
        let own = endpoints::subsets(view.object, pods);
        let is_own = own.is_some();
        let subsets = match own {
            Some(subsets) => {
                keep_endpoints(view, seen, &subsets, &mut effects);
                subsets
            }
            // Its endpoints are its user's business.
            None => match seen {
                Some(seen) if endpoints::is_mirrored(seen) => {
                    seen.subsets.clone().unwrap_or_default()
                }
                _ => Vec::new(),
            },
        };
        keep_slices(view, (&subsets, is_own), pods, &mut effects);
        tell_ports(view, now, &mut effects);
        effects
    }
}

/// Which slices are kept for it.
fn its_slices(service: &Service) -> Option<LabelSelector> {
    let of_it = [(slices::SERVICE_LABEL.to_owned(), service.metadata.name.clone()?)];
    let kept = LabelSelectorRequirement {
        key: slices::KEEPER_LABEL.into(),
        operator: "In".into(),
        values: Some([slices::KEEPER, slices::MIRRORER].map(str::to_owned).into()),
    };
    Some(LabelSelector { match_labels: Some(of_it.into()), match_expressions: Some(vec![kept]) })
}

/// Of a node that may not open all ports, the first that it may.
fn first_port(node: &Node) -> Option<u16> {
    Some(withheld_ports::first_port(node)).filter(|first| *first > 0)
}

/// Makes the Endpoints, which are `seen` now, say as much of this as they can hold.
fn keep_endpoints(
    view: &View<'_, Service>,
    seen: Option<&Endpoints>,
    subsets: &[EndpointSubset],
    effects: &mut Effects,
) {
    let (subsets, is_cut) = endpoints::cut(subsets);
    let labels = labels(view.object, &[ENDPOINTS_KEEPER]);
    let Some(seen) = seen else {
        let mut object = json!({
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {
                "name": view.object.metadata.name,
                "labels": labels,
                "ownerReferences": [view.owner().reference()],
            },
            "subsets": subsets,
        });
        if is_cut {
            object["metadata"]["annotations"] =
                json!({ endpoints::OVER_CAPACITY: endpoints::TRUNCATED });
        }
        return effects.create::<Endpoints>(object);
    };
    let is = seen.subsets.as_deref().unwrap_or_default();
    let annotations = seen.metadata.annotations.as_ref();
    let was_cut = annotations.is_some_and(|all| all.contains_key(endpoints::OVER_CAPACITY));
    let is_owned = is_of(&seen.metadata, view.object);
    let relabelled = relabelled(&seen.metadata, &labels);
    if is == subsets && was_cut == is_cut && is_owned && relabelled.is_none() {
        return;
    }
    let mut patch = json!({ "subsets": subsets });
    if let Some(labels) = relabelled {
        patch["metadata"]["labels"] = labels;
    }
    if !is_owned {
        patch["metadata"]["ownerReferences"] = json!([view.owner().reference()]);
    }
    if was_cut != is_cut {
        let said = is_cut.then_some(endpoints::TRUNCATED);
        patch["metadata"]["annotations"] = json!({ endpoints::OVER_CAPACITY: said });
    }
    effects.rewrite(seen, patch);
}

/// Makes the EndpointSlices say the same, of addresses that are its `own` or its user's.
fn keep_slices(
    view: &View<'_, Service>,
    (subsets, is_own): (&[EndpointSubset], bool),
    pods: &[Arc<Pod>],
    effects: &mut Effects,
) {
    let service = view.object.metadata.name.as_deref().unwrap_or_default();
    let name = |slice: &EndpointSlice| slice.metadata.name.clone().unwrap_or_default();
    let mut present: BTreeMap<String, &EndpointSlice> =
        view.of::<EndpointSlice>().iter().map(|slice| (name(slice), slice.as_ref())).collect();
    let by_uid: HashMap<&str, &Arc<Pod>> = pods.iter().map(|pod| (pod.uid(), pod)).collect();
    let nodes = view.of::<Node>().iter().map(AsRef::as_ref);
    let nearness = Nearness::of(view.object, nodes, subsets);
    let behind = |address: &EndpointAddress| {
        let pod = by_uid.get(address.target_ref.as_ref()?.uid.as_deref()?)?;
        Some(Behind { serving: pod.ready(), terminating: pod.terminating() })
    };
    let about = |address: &EndpointAddress| About {
        behind: behind(address),
        zone: nearness.zone(address),
        hints: nearness.hints(address),
    };
    let there: BTreeMap<String, &[Endpoint]> = present
        .iter()
        .filter_map(|(name, slice)| Some((name.clone(), slice.endpoints.as_deref()?)))
        .collect();
    let is_taken = |name: &str| view.is_taken(name);
    let mut wanted = slices::slices(service, subsets, about, (&there, is_taken));
    if wanted.is_empty() && is_own {
        wanted.extend(Some(slices::empty(service)).filter(|(name, _)| !is_taken(name)));
    }
    let keeper = if is_own { slices::KEEPER } else { slices::MIRRORER };
    let labels =
        labels(view.object, &[(slices::SERVICE_LABEL, service), (slices::KEEPER_LABEL, keeper)]);
    for (name, slice) in wanted {
        let Some(seen) = present.remove(&name) else {
            effects.create::<EndpointSlice>(json!({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": name,
                    "labels": labels,
                    "ownerReferences": [view.owner().reference()],
                },
                "addressType": slice.address_type,
                "endpoints": slice.endpoints,
                "ports": slice.ports,
            }));
            continue;
        };
        let relabelled = relabelled(&seen.metadata, &labels);
        if seen.endpoints.as_deref().unwrap_or_default() == slice.endpoints
            && seen.ports.as_deref().unwrap_or_default() == slice.ports
            && is_of(&seen.metadata, view.object)
            && relabelled.is_none()
        {
            continue;
        }
        // Those of a service that had the name before would go with it.
        let mut patch = json!({
            "endpoints": slice.endpoints,
            "ports": slice.ports,
            "metadata": {"ownerReferences": [view.owner().reference()]},
        });
        if let Some(labels) = relabelled {
            patch["metadata"]["labels"] = labels;
        }
        effects.rewrite(seen, patch);
    }
    let leaves = |slice: &EndpointSlice| slice.metadata.deletion_timestamp.is_some();
    for slice in present.into_values().filter(|slice| !leaves(slice)) {
        effects.delete(slice);
    }
}

/// Makes the service say which of its ports cannot be had, for as long as that is so.
fn tell_ports(view: &View<'_, Service>, now: Timestamp, effects: &mut Effects) {
    let nodes = view.of::<Node>().iter();
    let nodes = nodes.filter_map(|node| Some((node.metadata.name.clone()?, first_port(node)?)));
    let withheld = withheld_ports::withheld(view.object, &nodes.collect::<Vec<_>>());
    if ports::is_told(view.object, withheld.as_ref()) {
        return;
    }
    let again = view.reported().map(|at| at.checked_add(PORTS_AGAIN).unwrap_or(now));
    // One that is further away was counted by a clock that has been set back since.
    if let Some(again) =
        again.filter(|again| *again > now && again.duration_since(now) <= PORTS_AGAIN)
    {
        return effects.look_again(again);
    }
    effects.status = Some(Ok(ports::status(&view.stored["status"], withheld.as_ref(), now)));
    match withheld {
        Some(withheld) => {
            effects.annotate(ALTERNATE_PORTS, withheld.alternates);
            effects.say(Event::warning(ports::REASON, withheld.message));
        }
        None => effects.unannotate(ALTERNATE_PORTS),
    }
}

/// Whether an object was made for this service.
fn is_of(metadata: &ObjectMeta, service: &Service) -> bool {
    let uid = service.metadata.uid.as_deref();
    metadata.owner_references.iter().flatten().any(|owner| Some(owner.uid.as_str()) == uid)
}

/// The labels of what is made on behalf of a service: its own, and these.
fn labels(service: &Service, ours: &[(&str, &str)]) -> Labels {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    let address = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref());
    labels.remove(HEADLESS);
    let headless = (address == Some("None")).then_some((HEADLESS, ""));
    for (name, value) in ours.iter().copied().chain(headless) {
        labels.insert(name.to_owned(), value.to_owned());
    }
    labels
}

/// What makes the labels of an object these, if they are others.
fn relabelled(metadata: &ObjectMeta, labels: &Labels) -> Option<Value> {
    let none = Labels::new();
    let has = metadata.labels.as_ref().unwrap_or(&none);
    let gone = has.keys().filter(|name| !labels.contains_key(*name));
    let gone = gone.map(|name| (name.clone(), Value::Null));
    let set = labels.iter().filter(|(name, value)| has.get(*name) != Some(*value));
    let set = set.map(|(name, value)| (name.clone(), Value::from(value.as_str())));
    let patch: serde_json::Map<String, Value> = gone.chain(set).collect();
    (!patch.is_empty()).then_some(Value::Object(patch))
}
