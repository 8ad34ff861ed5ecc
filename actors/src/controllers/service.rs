//! Keeps the Endpoints of a `Service` the addresses of the pods that its selector selects, and its
//! EndpointSlices the same as its Endpoints, also where a user keeps those; says of its ports which of
//! them cannot be had.

pub mod endpoints;
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
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What a service says of its ports is written again after so long, at the earliest: one node that says now
/// this and now that does not have all services written each time.
const PORTS_AGAIN: SignedDuration = SignedDuration::from_secs(60);

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
            .everywhere::<Node, _>(|node| first_port(node).is_some(), first_port)
    }

    fn reconcile(view: &View<'_, Service>, now: Timestamp) -> Effects {
        let mut effects = Effects::default();
        if view.object.metadata.deletion_timestamp.is_some() {
            return effects;
        }
        let pods = view.of::<Pod>();
        let seen = view.of::<Endpoints>().first().map(AsRef::as_ref);
        let subsets = match endpoints::subsets(view.object, pods) {
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
        keep_slices(view, &subsets, pods, &mut effects);
        tell_ports(view, now, &mut effects);
        effects
    }
}

/// Which slices are kept for it.
fn its_slices(service: &Service) -> Option<LabelSelector> {
    let labels = [
        (slices::SERVICE_LABEL.to_owned(), service.metadata.name.clone()?),
        (slices::KEEPER_LABEL.to_owned(), slices::KEEPER.to_owned()),
    ];
    Some(LabelSelector { match_labels: Some(labels.into()), match_expressions: None })
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
    let Some(seen) = seen else {
        let mut labels = labels(view.stored);
        labels["endpoints.kubernetes.io/managed-by"] = "endpoint-controller".into();
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
    if is == subsets && was_cut == is_cut && is_owned {
        return;
    }
    let mut patch = json!({ "subsets": subsets });
    if !is_owned {
        patch["metadata"]["ownerReferences"] = json!([view.owner().reference()]);
    }
    if was_cut != is_cut {
        let said = is_cut.then_some(endpoints::TRUNCATED);
        patch["metadata"]["annotations"] = json!({ endpoints::OVER_CAPACITY: said });
    }
    effects.rewrite(seen, patch);
}

/// Makes the EndpointSlices say the same.
fn keep_slices(
    view: &View<'_, Service>,
    subsets: &[EndpointSubset],
    pods: &[Arc<Pod>],
    effects: &mut Effects,
) {
    let service = view.object.metadata.name.as_deref().unwrap_or_default();
    let name = |slice: &EndpointSlice| slice.metadata.name.clone().unwrap_or_default();
    let mut present: BTreeMap<String, &EndpointSlice> =
        view.of::<EndpointSlice>().iter().map(|slice| (name(slice), slice.as_ref())).collect();
    let by_uid: HashMap<&str, &Arc<Pod>> = pods.iter().map(|pod| (pod.uid(), pod)).collect();
    let behind = |address: &EndpointAddress| {
        let pod = by_uid.get(address.target_ref.as_ref()?.uid.as_deref()?)?;
        Some(slices::Behind { serving: pod.ready(), terminating: pod.terminating() })
    };
    let there: BTreeMap<String, &[Endpoint]> = present
        .iter()
        .filter_map(|(name, slice)| Some((name.clone(), slice.endpoints.as_deref()?)))
        .collect();
    for (name, slice) in
        slices::slices(service, subsets, behind, (&there, |name: &str| view.is_taken(name)))
    {
        match present.remove(&name) {
            Some(seen)
                if seen.endpoints.as_ref() == Some(&slice.endpoints)
                    && seen.ports.as_ref() == Some(&slice.ports)
                    && is_of(&seen.metadata, view.object) => {}
            // Those of a service that had the name before would go with it.
            Some(seen) => effects.rewrite(
                seen,
                json!({
                    "endpoints": slice.endpoints,
                    "ports": slice.ports,
                    "metadata": {"ownerReferences": [view.owner().reference()]},
                }),
            ),
            None => {
                let mut labels = labels(view.stored);
                labels[slices::SERVICE_LABEL] = service.into();
                labels[slices::KEEPER_LABEL] = slices::KEEPER.into();
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
            }
        }
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

/// The labels of a service, for what is made on its behalf.
fn labels(service: &Value) -> Value {
    let labels = &service["metadata"]["labels"];
    if labels.is_object() { labels.clone() } else { json!({}) }
}
