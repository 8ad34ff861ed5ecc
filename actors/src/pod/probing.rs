//! The probes of a pod's containers, from when one starts until it ends, and what they change.

use super::{
    PodActor,
    life::Life,
    probes::{self, Purpose, Verdict},
    question::Question,
};
use actix::prelude::*;
use futures_util::StreamExt as _;
use impresario_objects::events::Severity;
use std::{collections::BTreeMap, time::Duration};

impl PodActor {
    pub(super) fn watch_probes(&mut self, name: &str, ctx: &mut Context<Self>) {
        let Some(address) = self.address() else { return };
        let Some(spec) = self.container_spec(name).cloned() else { return };
        let of = [
            (Purpose::Startup, &spec.startup_probe),
            (Purpose::Readiness, &spec.readiness_probe),
            (Purpose::Liveness, &spec.liveness_probe),
        ];
        let Some(container) = self.life.container(name) else { return };
        let Life::Running { id, .. } = &container.life else { return };
        if container.is_greeting {
            return; // asked when its hook has passed
        }
        let (has_started, place) = (container.started, self.place(id));
        for (purpose, probe) in of {
            // The startup probe runs until the container has started, the other two after that.
            let Some(probe) =
                probe.as_ref().filter(|_| (purpose == Purpose::Startup) != has_started)
            else {
                continue;
            };
            let slot = (name.to_owned(), purpose);
            if self.probes.contains_key(&slot) {
                continue;
            }
            match Question::of_probe(probe, &spec, address) {
                Ok(question) => {
                    let name = name.to_owned();
                    let verdicts = probes::watch(probe, question, place.clone()).map(
                        move |(verdict, detail)| Probed {
                            container: name.clone(),
                            purpose,
                            verdict,
                            detail,
                        },
                    );
                    self.probes.insert(slot, ctx.add_stream(verdicts));
                }
                Err(kind) => {
                    let message = format!(
                        "{purpose:?} probe errored: {kind} probes cannot be run on this node"
                    );
                    self.tell(name, Severity::Warning, "ProbeError", &message);
                }
            }
        }
    }

    /// The grace period that a probe has of its own.
    fn probe_grace(&self, name: &str, purpose: Purpose) -> Option<Duration> {
        let spec = self.container_spec(name)?;
        let probe = match purpose {
            Purpose::Startup => &spec.startup_probe,
            Purpose::Liveness => &spec.liveness_probe,
            Purpose::Readiness => return None,
        };
        let seconds = probe.as_ref()?.termination_grace_period_seconds?;
        u64::try_from(seconds).ok().map(|seconds| Duration::from_secs(seconds.max(1)))
    }

    pub(super) fn unwatch_probes(&mut self, name: &str, ctx: &mut Context<Self>) {
        let (over, rest) =
            std::mem::take(&mut self.probes).into_iter().partition(|((of, _), _)| of == name);
        self.probes = rest;
        let over: BTreeMap<_, _> = over;
        for handle in over.into_values() {
            ctx.cancel_future(handle);
        }
    }
}

/// A probe changed its mind.
struct Probed {
    container: String,
    purpose: Purpose,
    verdict: Verdict,
    detail: String,
}

impl StreamHandler<Probed> for PodActor {
    fn handle(&mut self, probed: Probed, ctx: &mut Self::Context) {
        let Probed { container: name, purpose, verdict, detail } = probed;
        if verdict == Verdict::Fails {
            let message = format!("{purpose:?} probe failed: {detail}");
            self.tell(&name, Severity::Warning, "Unhealthy", &message);
        }
        let grace = self.probe_grace(&name, purpose);
        let Some(container) = self.life.container_mut(&name) else { return };
        if verdict == Verdict::Fails && purpose != Purpose::Readiness {
            container.given_up_grace = grace;
        }
        match (purpose, verdict) {
            (Purpose::Startup, Verdict::Passes) => container.started = true,
            (Purpose::Readiness, Verdict::Passes) => container.passes = true,
            (Purpose::Readiness, Verdict::Fails) => container.passes = false,
            (Purpose::Liveness, Verdict::Passes) => {}
            (Purpose::Startup, Verdict::Fails) => {
                container.given_up = Some("failed startup probe".to_owned());
            }
            (Purpose::Liveness, Verdict::Fails) => {
                container.given_up = Some("failed liveness probe".to_owned());
            }
        }
        if purpose == Purpose::Startup && verdict == Verdict::Passes {
            if let Some(handle) = self.probes.remove(&(name.clone(), Purpose::Startup)) {
                ctx.cancel_future(handle);
            }
            self.watch_probes(&name, ctx);
        }
        self.step(ctx);
    }

    /// One probe's stream ends with its container, not the actor.
    fn finished(&mut self, _: &mut Self::Context) {}
}
