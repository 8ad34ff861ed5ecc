//! The control actors: one per object that asks for something, on the member that holds its shard.
//!
//! ```text
//! activation   which actors live here          mirror     what is, in memory
//! control      the actor: looks when told      engine     what every controller has in common
//! replication_controller, replica_set, deployment, daemon_set, stateful_set, job, cron_job
//!              one file each: what it looks at, and a function that decides
//! service, namespace, disruption_budget
//!              three more: what stands behind it, what is in it, how many of it may be missing
//! persistent_volume_claim, persistent_volume
//!              the two sides of a binding: which volume a claim has, and whose a volume is
//! horizontal_pod_autoscaler
//!              looks by itself: at a target of whatever kind, and at what nodes tell of its pods
//! garbage_collector, node_lifecycle
//!              not on the engine yet, one look each: `plan` decides without IO, the look does what it says
//! ```

pub mod activation;
pub mod any_mirror;
pub mod api_endpoints;
pub mod certificate_signer;
pub mod control;
pub mod cron_job;
pub mod daemon_set;
pub mod definitions;
pub mod deployment;
pub mod disruption_budget;
pub mod engine;
pub mod ephemeral_claims;
pub mod event_expiry;
mod failed;
pub mod family;
pub mod garbage_collector;
mod heard;
mod held;
pub mod horizontal_pod_autoscaler;
pub mod itself;
pub mod job;
pub mod labels;
pub mod mirror;
pub mod namespace;
pub mod node_lifecycle;
pub mod owned;
pub mod owners;
pub mod panics;
mod part;
pub mod partial;
pub mod persistent_volume;
pub mod persistent_volume_claim;
pub mod pod_view;
pub mod quotas;
pub mod replica_set;
pub mod replicas;
pub mod replication_controller;
mod retries;
mod revisions;
pub mod roles;
pub mod service;
pub mod stateful_set;
pub mod template_hash;
pub mod view;
mod wrote;

#[cfg(test)]
mod late;
#[cfg(test)]
pub(crate) mod table;
#[cfg(test)]
mod told_tests;

pub use api_endpoints::API_ENDPOINTS;
pub use garbage_collector::GARBAGE_COLLECTOR;

use crate::scheduler::Members;
use activation::{Activation, Kind, Start, Subjects};
use control::{Control, Look};
use engine::controller::Controller;
use engine::kind_name::KindName;
use engine::shared::Shared;
use engine::sources::Source;
use engine::worker::Worker;
use impresario_api::resource::Row;
use impresario_client::protocol::control::ControlRole;
use impresario_runtime::SpawnOptions;
use itself::Itself;
use std::sync::Arc;

/// The singleton that notices lost nodes.
pub const NODE_LIFECYCLE: &str = "node-lifecycle";

/// The singleton that deletes events that are over.
pub const EVENT_EXPIRY: &str = "event-expiry";

/// The kinds of control actors that every cluster has. `members` names the control members.
#[must_use]
pub fn kinds(
    view: &view::View,
    silence: Arc<dyn node_lifecycle::Silence>,
    members: Members,
    authority_pem: &str,
) -> Vec<Kind> {
    use api_endpoints::ApiEndpointsLook;
    use event_expiry::EventExpiryLook;
    use garbage_collector::GarbageCollectorLook;
    use node_lifecycle::NodeLifecycleLook;

    let shared = Shared { authority: authority_pem.into(), ..view.shared() };
    let one = |name, start, sources| Kind::One { name, start, sources };
    let mut kinds = vec![
        controlled::<replication_controller::Reconciler>(&shared),
        controlled::<replica_set::Reconciler>(&shared),
        controlled::<deployment::Reconciler>(&shared),
        controlled::<daemon_set::Reconciler>(&shared),
        controlled::<stateful_set::Reconciler>(&shared),
        controlled::<job::Reconciler>(&shared),
        controlled::<cron_job::Reconciler>(&shared),
        controlled::<disruption_budget::Reconciler>(&shared),
        controlled::<service::Reconciler>(&shared),
        controlled::<namespace::Reconciler>(&shared),
        controlled::<persistent_volume_claim::Reconciler>(&shared),
        controlled::<persistent_volume::Reconciler>(&shared),
    ];
    // Over the mirrors of all these: it starts none that somebody else needs more of.
    let graph = garbage_collector::Graph::over(&view.mirrors);
    kinds.extend([
        one(
            GARBAGE_COLLECTOR,
            {
                let (view, graph) = (view.clone(), graph.clone());
                looking(move |a| {
                    let events = view.events.clone();
                    GarbageCollectorLook::new(&view.objects, graph.clone(), a.fence, events)
                        .shared()
                })
            },
            {
                let graph = graph.clone();
                vec![Source::signals(GARBAGE_COLLECTOR, move || graph.litter())]
            },
        ),
        one(
            API_ENDPOINTS,
            {
                let view = view.clone();
                looking(move |a| {
                    ApiEndpointsLook::new(view.clone(), a.fence, members.clone()).shared()
                })
            },
            api_endpoints::sources(view),
        ),
        one(
            ephemeral_claims::EPHEMERAL_CLAIMS,
            {
                let view = view.clone();
                looking(move |a| {
                    ephemeral_claims::EphemeralClaimsLook::new(view.clone(), a.fence).shared()
                })
            },
            ephemeral_claims::sources(view),
        ),
        one(
            EVENT_EXPIRY,
            {
                let registry = view.objects.registry().clone();
                looking(move |a| EventExpiryLook::new(registry.clone(), a.fence).shared())
            },
            Vec::new(),
        ),
        one(
            NODE_LIFECYCLE,
            {
                let view = view.clone();
                looking(move |a| {
                    NodeLifecycleLook::new(view.clone(), a.fence, silence.clone()).shared()
                })
            },
            Vec::new(),
        ),
    ]);
    kinds
}

/// The kind of the actors of a controller. They are called as one of its objects is.
#[must_use]
pub fn controlled<C: Controller>(shared: &Shared) -> Kind {
    let worked = shared.clone();
    Kind::Each {
        objects: Subjects::of(&shared.mirrors.of::<C::Object>()),
        prefix: KindName::of::<C::Object>().one(),
        start: changeable(KindName::of::<C::Object>().served().ok(), move |activation| {
            Worker::<C>::new(worked.clone(), activation).shared()
        }),
        sources: C::looks_at().sources(&shared.mirrors),
    }
}

/// Starts a [`Control`] actor around the look that `make` makes of an activation.
pub fn looking(make: impl Fn(&Activation) -> Arc<dyn Look> + Send + Sync + 'static) -> Start {
    changeable(None, make)
}

/// The same, of an object of this resource that others may change through the actor.
fn changeable(
    resource: Option<Row>,
    make: impl Fn(&Activation) -> Arc<dyn Look> + Send + Sync + 'static,
) -> Start {
    Arc::new(move |node, activation| {
        let itself = resource.as_ref().map(|resource| Itself {
            node: node.clone(),
            resource: Row::clone(resource),
            namespace: activation.namespace.clone(),
            name: activation.name.clone(),
            uid: activation.uid.clone(),
            fence: activation.fence,
        });
        let look = make(activation);
        let subject = format!("{} {}/{}", activation.actor, activation.namespace, activation.name);
        let fence = activation.fence;
        node.spawn::<ControlRole, _>(
            activation.actor.clone(),
            SpawnOptions::default(),
            move |_| Control::new(subject.clone(), fence, look.clone()).of(itself.clone()),
        )?;
        Ok(())
    })
}

#[cfg(test)]
mod tests;
