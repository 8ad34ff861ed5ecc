//! Keeps the Endpoints of a `Service` the addresses of the pods that its selector selects, and its
//! EndpointSlices the same as its Endpoints, also where a user keeps those; says of its ports which of
//! them cannot be had.

pub mod endpoints;
mod ports;
pub mod slices;

use super::control::{Look, LookError, Next};
use super::mirror::Seen;
use super::owned::{Owner, change, revision_of};
use super::pod_view::PodView as _;
use super::view::{Assignment, CATCH_UP, served};
use super::wrote::Wrote;
use crate::withheld_ports;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use impresario_objects::WriteOptions;
use impresario_registry_api::{Compare, Operation, Revision};
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a service says of its ports is written again after so long, at the earliest.
const PORTS_AGAIN: Duration = Duration::from_secs(60);

/// The controller of one service.
pub struct ServiceLook {
    about: Assignment,
    wrote: Wrote,
    wrote_slices: Wrote,
    wrote_service: Wrote,
    /// When it was said last which ports cannot be had.
    told_ports: Mutex<Option<Instant>>,
}

impl ServiceLook {
    /// A look at this service.
    #[must_use]
    pub fn new(about: Assignment) -> Self {
        let (wrote, wrote_slices, wrote_service) = Default::default();
        Self { about, wrote, wrote_slices, wrote_service, told_ports: Mutex::new(None) }
    }

    /// The look, ready for a control actor.
    #[must_use]
    pub fn shared(self) -> Arc<dyn Look> {
        Arc::new(self)
    }

    async fn look_once(&self) -> Result<Next, LookError> {
        let view = &self.about.view;
        view.pods.reached(1, CATCH_UP).await?;
        view.nodes.reached(1, CATCH_UP).await?;
        self.wrote_service.seen_by(&view.services).await?;
        self.wrote.seen_by(&view.endpoints).await?;
        let Some(service) = view.services.get(&self.about.namespace, &self.about.name) else {
            return Ok(Next::WhenTold);
        };
        let metadata = &service.object.metadata;
        if metadata.uid.as_deref() != Some(&self.about.uid) || metadata.deletion_timestamp.is_some()
        {
            return Ok(Next::WhenTold);
        }
        let selected = |pod: &Pod| endpoints::selects_pod(&service.object, pod);
        let pods = view.pods.picked_within(&self.about.namespace, selected);
        let pods: Vec<_> = pods.into_iter().map(|pod| pod.object).collect();
        let seen = view.endpoints.get(&self.about.namespace, &self.about.name);
        let is = seen.as_ref().and_then(|seen| seen.object.subsets.as_deref()).unwrap_or_default();
        let mut written = Ok(());
        let subsets = match endpoints::subsets(&service.object, &pods) {
            Some(subsets) => {
                written = self.keep_endpoints(&service, seen.as_ref(), &subsets).await;
                subsets
            }
            // Its endpoints are its user's business.
            None => match &seen {
                Some(seen) if endpoints::is_mirrored(&seen.object) => is.to_vec(),
                _ => Vec::new(),
            },
        };
        // Whatever became of the one, the others are written.
        let written = self.keep_slices(&service, &subsets, &pods).await.and(written);
        let told = self.tell_ports(&service).await;
        written.and(told)
    }

    /// Makes the Endpoints, which are `seen` now, say as much of this as they can hold.
    async fn keep_endpoints(
        &self,
        service: &Seen<Service>,
        seen: Option<&Seen<Endpoints>>,
        subsets: &[EndpointSubset],
    ) -> Result<(), LookError> {
        let (subsets, is_cut) = endpoints::cut(subsets);
        if let Some(seen) = seen {
            let is = seen.object.subsets.as_deref().unwrap_or_default();
            let annotations = seen.object.metadata.annotations.as_ref();
            let was_cut = annotations.is_some_and(|all| all.contains_key(endpoints::OVER_CAPACITY));
            let is_owned = is_of(&seen.object.metadata, &self.about.uid);
            if is == subsets && was_cut == is_cut && is_owned {
                return Ok(());
            }
            let stored = stored(service)?;
            let written = change(seen, |object| {
                object["subsets"] = json!(subsets);
                if !is_owned {
                    object["metadata"]["ownerReferences"] = json!([owner(&stored).reference()]);
                }
                if is_cut {
                    let annotations = &mut object["metadata"]["annotations"];
                    annotations[endpoints::OVER_CAPACITY] = endpoints::TRUNCATED.into();
                } else if let Some(all) = object["metadata"]["annotations"].as_object_mut() {
                    all.remove(endpoints::OVER_CAPACITY);
                }
            })?;
            self.wrote.at(self.about.transact([written]).await?);
            return Ok(());
        }
        let stored = stored(service)?;
        let mut labels = labels(&stored);
        labels["endpoints.kubernetes.io/managed-by"] = "endpoint-controller".into();
        let mut object = json!({
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {
                "name": self.about.name,
                "labels": labels,
                "ownerReferences": [owner(&stored).reference()],
            },
            "subsets": subsets,
        });
        if is_cut {
            object["metadata"]["annotations"] =
                json!({ endpoints::OVER_CAPACITY: endpoints::TRUNCATED });
        }
        self.wrote.at(self.create("", "endpoints", object).await?);
        Ok(())
    }

    /// Makes the EndpointSlices say the same.
    async fn keep_slices(
        &self,
        service: &Seen<Service>,
        subsets: &[EndpointSubset],
        pods: &[Arc<Pod>],
    ) -> Result<(), LookError> {
        let mirror = &self.about.view.endpoint_slices;
        self.wrote_slices.seen_by(mirror).await?;
        let mut present: BTreeMap<String, Seen<EndpointSlice>> = mirror
            .picked_within(&self.about.namespace, |slice| is_slice_of(slice, &self.about.name))
            .into_iter()
            .map(|seen| (seen.entry.key.name.clone(), seen))
            .collect();
        let by_uid: HashMap<&str, &Arc<Pod>> = pods.iter().map(|pod| (pod.uid(), pod)).collect();
        let behind = |address: &EndpointAddress| {
            let pod = by_uid.get(address.target_ref.as_ref()?.uid.as_deref()?)?;
            Some(slices::Behind { serving: pod.ready(), terminating: pod.terminating() })
        };
        let there: BTreeMap<String, &[Endpoint]> = present
            .iter()
            .filter_map(|(name, seen)| Some((name.clone(), seen.object.endpoints.as_deref()?)))
            .collect();
        let wanted = slices::slices(&self.about.name, subsets, behind, &there);
        for (name, slice) in wanted {
            let revision = match present.remove(&name) {
                Some(seen)
                    if seen.object.endpoints.as_ref() == Some(&slice.endpoints)
                        && seen.object.ports.as_ref() == Some(&slice.ports)
                        && is_of(&seen.object.metadata, &self.about.uid) =>
                {
                    continue;
                }
                Some(seen) => {
                    // Those of a service that had the name before would go with it.
                    let stored = stored(service)?;
                    let written = change(&seen, |object| {
                        object["endpoints"] = json!(slice.endpoints);
                        object["ports"] = json!(slice.ports);
                        object["metadata"]["ownerReferences"] = json!([owner(&stored).reference()]);
                    })?;
                    self.about.transact([written]).await?
                }
                None => {
                    let stored = stored(service)?;
                    let mut labels = labels(&stored);
                    labels[slices::SERVICE_LABEL] = self.about.name.clone().into();
                    labels[slices::KEEPER_LABEL] = slices::KEEPER.into();
                    let object = json!({
                        "apiVersion": "discovery.k8s.io/v1",
                        "kind": "EndpointSlice",
                        "metadata": {
                            "name": name,
                            "labels": labels,
                            "ownerReferences": [owner(&stored).reference()],
                        },
                        "addressType": slice.address_type,
                        "endpoints": slice.endpoints,
                        "ports": slice.ports,
                    });
                    self.create("discovery.k8s.io", "endpointslices", object).await?
                }
            };
            self.wrote_slices.at(revision);
        }
        for seen in present.into_values() {
            let key = seen.entry.key;
            let unchanged =
                Compare::Revision { key: key.clone(), revision: seen.entry.mod_revision };
            let revision = self.about.transact([(unchanged, Operation::Delete { key })]).await?;
            self.wrote_slices.at(revision);
        }
        Ok(())
    }

    /// Makes the service say which of its ports cannot be had, for as long as that is so; when to look at
    /// that again. One node that says now this and now that does not have all services written each time.
    async fn tell_ports(&self, service: &Seen<Service>) -> Result<Next, LookError> {
        let nodes = self.about.view.nodes.picked(|node| withheld_ports::first_port(node) > 0);
        let nodes: Vec<_> = nodes
            .iter()
            .map(|seen| (seen.entry.key.name.clone(), withheld_ports::first_port(&seen.object)))
            .collect();
        let withheld = withheld_ports::withheld(&service.object, &nodes);
        if ports::is_told(&service.object, withheld.as_ref()) {
            return Ok(Next::WhenTold);
        }
        let now = Timestamp::now();
        let since = self.told_ports.lock().map(|at| at.elapsed());
        if let Some(left) = since.and_then(|since| PORTS_AGAIN.checked_sub(since)) {
            return Ok(Next::At(now + left));
        }
        let written = change(service, |object| ports::tell(object, withheld.as_ref(), now))?;
        self.wrote_service.at(self.about.transact([written]).await?);
        *self.told_ports.lock() = Some(Instant::now());
        if let Some(withheld) = withheld {
            self.about.view.warning(service, ports::REASON, &withheld.message);
        }
        Ok(Next::WhenTold)
    }

    async fn create(
        &self,
        group: &'static str,
        plural: &'static str,
        object: Value,
    ) -> Result<Revision, LookError> {
        let objects = self.about.objects();
        let options = WriteOptions::default();
        let resource = served(group, plural);
        let made = objects.create(resource, &self.about.namespace, object, &options).await?;
        Ok(revision_of(&made))
    }
}

/// Whether an object was made for the service of this uid.
fn is_of(metadata: &ObjectMeta, uid: &str) -> bool {
    metadata.owner_references.iter().flatten().any(|owner| owner.uid == uid)
}

fn is_slice_of(slice: &EndpointSlice, service: &str) -> bool {
    let label = |name: &str| slice.metadata.labels.as_ref()?.get(name).map(String::as_str);
    label(slices::SERVICE_LABEL) == Some(service)
        && label(slices::KEEPER_LABEL) == Some(slices::KEEPER)
}

fn stored(service: &Seen<Service>) -> Result<Value, LookError> {
    serde_json::from_slice(&service.entry.value).map_err(|error| LookError::Damaged {
        key: service.entry.key.to_string(),
        cause: error.to_string(),
    })
}

fn owner(service: &Value) -> Owner<'_> {
    Owner { object: service, api_version: "v1", kind: "Service" }
}

/// The labels of a service, for what is made on its behalf.
fn labels(service: &Value) -> Value {
    let labels = &service["metadata"]["labels"];
    if labels.is_object() { labels.clone() } else { json!({}) }
}

impl Look for ServiceLook {
    fn look(&self) -> BoxFuture<'_, Result<Next, LookError>> {
        self.look_once().boxed()
    }
}
