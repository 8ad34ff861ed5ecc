//! The pods that are bound here: who is admitted, who is started, who is gone.

use super::{AGAIN, NodeActor, hosted::Hosted};
use crate::{
    change,
    follow::Followed,
    pod::{
        PodActor,
        kit::{Desired, Progress},
    },
    requests,
};
use actix::prelude::*;
use futures_util::stream;
use impresario_client::protocol::pod::{self as protocol, PodRole};
use impresario_host::{ContainerState, Found};
use impresario_registry_api::{Entry, WatchEvent};
use impresario_runtime::SpawnOptions;
use k8s_openapi::api::core::v1;
use std::{collections::HashSet, time::Duration};
use tokio::sync::watch;

/// How long what belongs to no pod has to end.
const ORPHAN_GRACE: Duration = Duration::from_secs(5);
/// After this long a Pod actor that was given up is tried anew.
const RESPAWN: Duration = Duration::from_secs(10);
const POD_MAILBOX: usize = 64;

/// What a Pod actor's progress channel says; `None` when there is no actor any more.
struct Progressed {
    uid: String,
    progress: Option<Progress>,
}

impl NodeActor {
    pub(super) fn pods_seen(&mut self, pods: Followed, ctx: &mut Context<Self>) {
        match pods {
            Followed::All(entries) => {
                let mut present = HashSet::new();
                let mut bound: Vec<_> = entries.into_iter().filter_map(readable).collect();
                // What runs already keeps its place; only then are newcomers let in.
                bound.sort_by_key(|(_, pod)| !self.runs(pod));
                for (entry, pod) in bound {
                    present.extend(pod.metadata.uid.clone());
                    self.pod_seen(entry, &pod, ctx);
                }
                for (uid, hosted) in &self.hosted {
                    if !present.contains(uid) {
                        hosted.desired.send_modify(|desired| desired.gone = true);
                    }
                }
                let left = self.left.take().unwrap_or_default();
                let is_there = |uid: &str| {
                    present.contains(uid) || self.hosted.contains_key(uid) || left.contains_key(uid)
                };
                if let Err(error) = self.kit.gpus.lock().retain(is_there) {
                    tracing::warn!(%error, "the GPUs of pods that are gone are not given back");
                }
                if let Err(error) = self.kit.addresses.lock().retain(is_there) {
                    tracing::warn!(%error, "the addresses of pods that are gone are not given back");
                }
                for (uid, found) in left {
                    if !present.contains(&uid) {
                        self.end_orphan(uid, found, ctx);
                    }
                }
                self.pods_known = true;
            }
            Followed::Changes(events) => {
                for event in events {
                    match event {
                        WatchEvent::Put { entry, .. } => {
                            if let Some((entry, pod)) = readable(entry) {
                                self.pod_seen(entry, &pod, ctx);
                            }
                        }
                        WatchEvent::Delete { previous, .. } => {
                            let uid = readable(previous).and_then(|(_, pod)| pod.metadata.uid);
                            if let Some(hosted) = uid.and_then(|uid| self.hosted.get(&uid)) {
                                hosted.desired.send_modify(|desired| desired.gone = true);
                            }
                        }
                    }
                }
            }
        }
        self.changed(ctx);
    }

    fn runs(&self, pod: &v1::Pod) -> bool {
        let found =
            self.left.as_ref().zip(pod.metadata.uid.as_ref()).and_then(|(left, uid)| left.get(uid));
        found
            .into_iter()
            .flatten()
            .any(|found| matches!(found.state, ContainerState::Running { .. }))
    }

    fn pod_seen(&mut self, entry: Entry, pod: &v1::Pod, ctx: &mut Context<Self>) {
        let Some(uid) = pod.metadata.uid.clone() else { return };
        if let Some(hosted) = self.hosted.get(&uid) {
            hosted.desired.send_modify(|desired| {
                if entry.mod_revision > desired.entry.mod_revision {
                    desired.entry = entry;
                }
            });
            return;
        }
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let is_over = matches!(phase, Some("Succeeded" | "Failed"));
        let mut refused = None;
        if let Some(spec) = pod.spec.as_ref().filter(|_| !is_over) {
            let resources = requests::of_pod(spec);
            if self.runs(pod) || self.hosted_before(pod) {
                self.reservations.keep(&uid, resources);
            } else if pod.metadata.deletion_timestamp.is_none()
                && let Err(short) = self.reservations.admit(&uid, resources)
            {
                let message = format!(
                    "Node didn't have enough resource: {}, requested: {}, used: {}, capacity: {}",
                    short.resource, short.requested, short.used, short.capacity
                );
                refused = Some((format!("OutOf{}", short.resource), message));
            }
        }
        let (desired, _) = watch::channel(Desired { entry, gone: false, refused });
        self.host(&uid, &desired, ctx);
        self.hosted.insert(uid, Hosted { desired });
    }

    /// Whether the pod was taken on by an earlier process: it had a place then, and keeps it.
    fn hosted_before(&self, pod: &v1::Pod) -> bool {
        !self.pods_known && pod.status.as_ref().is_some_and(|status| status.start_time.is_some())
    }

    /// Starts the pod's actor and follows its progress.
    fn host(&mut self, uid: &str, desired: &watch::Sender<Desired>, ctx: &mut Context<Self>) {
        let (progress, seen) = watch::channel(Progress::Active);
        let (kit, desired) = (self.kit.clone(), desired.subscribe());
        let options = SpawnOptions { mailbox: POD_MAILBOX, ..SpawnOptions::default() };
        let spawned =
            self.kit.node.spawn::<PodRole, _>(protocol::actor_name(uid), options, move |_| {
                PodActor::new(kit.clone(), desired.clone(), progress.clone())
            });
        if let Err(error) = spawned {
            // An actor of this node's earlier life still runs, and stops as its channel has closed.
            tracing::warn!(%uid, %error, "the pod's actor does not start, trying again");
        }
        let uid = uid.to_owned();
        ctx.add_stream(stream::unfold((Some(seen), uid), |(seen, uid)| async move {
            let mut seen = seen?;
            let progress = match seen.changed().await {
                Ok(()) => Some(*seen.borrow_and_update()),
                Err(_) => None,
            };
            let is_last = progress.is_none_or(|progress| progress == Progress::Finished);
            let rest = (!is_last).then_some(seen);
            Some((Progressed { uid: uid.clone(), progress }, (rest, uid)))
        }));
    }

    /// Ends containers whose pod is not bound here any more.
    fn end_orphan(&mut self, uid: String, found: Vec<Found>, ctx: &mut Context<Self>) {
        tracing::info!(%uid, containers = found.len(), "ending what an earlier process left of a pod that is gone");
        let kit = self.kit.clone();
        let orphan = uid.clone();
        let work = async move {
            for one in &found {
                if matches!(one.state, ContainerState::Running { .. }) {
                    kit.driver.stop(&one.id, ORPHAN_GRACE).await?;
                }
            }
            kit.remove_pod(&orphan).await?;
            if let Err(error) = kit.addresses.lock().take_back(&orphan) {
                tracing::warn!(uid = %orphan, %error, "the pod's address is not given back");
            }
            kit.take_back_gpus(&orphan);
            Ok::<_, impresario_host::container::DriverError>(())
        };
        ctx.spawn(work.into_actor(self).map(move |ended, _, ctx| {
            if let Err(error) = ended {
                tracing::warn!(%uid, %error, "cannot be ended, trying again");
                ctx.run_later(AGAIN, |node, ctx| node.end_orphan(uid, Vec::new(), ctx));
            }
        }));
    }
}

fn readable(entry: Entry) -> Option<(Entry, v1::Pod)> {
    match change::decode(&entry) {
        Ok(pod) => Some((entry, pod)),
        Err(error) => {
            tracing::warn!(%error, "pod skipped");
            None
        }
    }
}

impl StreamHandler<Progressed> for NodeActor {
    fn handle(&mut self, Progressed { uid, progress }: Progressed, ctx: &mut Self::Context) {
        match progress {
            Some(Progress::Active) => {}
            Some(Progress::Over) => {
                if self.reservations.forget(&uid) {
                    self.changed(ctx);
                }
            }
            Some(Progress::Finished) => {
                self.hosted.remove(&uid);
                if self.reservations.forget(&uid) {
                    self.changed(ctx);
                }
            }
            None => {
                // Its supervisor gave it up. The containers go on; someone must look after them.
                ctx.run_later(RESPAWN, move |node, ctx| {
                    if let Some(hosted) = node.hosted.remove(&uid) {
                        node.host(&uid, &hosted.desired, ctx);
                        node.hosted.insert(uid, hosted);
                    }
                });
            }
        }
    }

    /// The progress of one pod ends with that pod.
    fn finished(&mut self, _: &mut Self::Context) {}
}
