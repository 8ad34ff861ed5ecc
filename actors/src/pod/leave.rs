//! The end of a pod: every trace goes from the machine, and only then the object.

use super::{AGAIN, PodActor, kit::Progress, life};
use crate::change;
use actix::prelude::*;
use impresario_host::container::DriverError;
use impresario_runtime::clock;

impl PodActor {
    /// Removes every trace of the pod from the machine.
    pub(super) fn remove(&mut self, ctx: &mut Context<Self>) {
        self.life.sandbox = life::Sandbox::Removing;
        let (kit, uid) = (self.kit.clone(), self.uid.clone());
        let work = async move {
            kit.remove_pod(&uid).await?;
            if let Err(error) = kit.addresses.lock().take_back(&uid) {
                tracing::warn!(%uid, %error, "the pod's address is not given back");
            }
            kit.take_back_gpus(&uid);
            Ok::<_, DriverError>(())
        };
        ctx.spawn(work.into_actor(self).map(|removed, pod, ctx| match removed {
            Ok(()) => {
                pod.life.sandbox = life::Sandbox::Removed;
                pod.life.settled();
                pod.step(ctx);
            }
            Err(error) => {
                tracing::warn!(pod = %pod.key(), %error, "cannot be removed from the machine, trying again");
                ctx.run_later(AGAIN, |pod, ctx| {
                    pod.life.sandbox = life::Sandbox::Ready;
                    pod.step(ctx);
                });
            }
        }));
    }

    /// Lets the object go, and stops.
    pub(super) fn finish(&mut self, ctx: &mut Context<Self>) {
        self.is_finishing = true;
        if self.is_gone {
            return self.finished(ctx);
        }
        let last = self.life.clone();
        let facts = self.facts();
        let (registry, key, uid) =
            (self.kit.registry.clone(), self.key().clone(), self.uid.clone());
        let now = (clock::now(), clock::timestamp());
        let work = async move {
            let is_free = |pod: &serde_json::Value| {
                let finalizers =
                    pod.pointer("/metadata/finalizers").and_then(serde_json::Value::as_array);
                finalizers.is_none_or(Vec::is_empty)
            };
            if change::remove(&registry, &key, &uid, is_free).await? {
                return Ok(true);
            }
            // Held by a finalizer: whoever holds it must see how the pod ended.
            change::change(&registry, &key, Some(&uid), None, |pod| {
                facts.write(pod, &last, now);
                if pod["metadata"]["deletionGracePeriodSeconds"] != 0 {
                    pod["metadata"]["deletionGracePeriodSeconds"] = 0.into();
                }
            })
            .await?;
            change::remove(&registry, &key, &uid, is_free).await
        };
        ctx.spawn(work.into_actor(self).map(|removed, pod, ctx| match removed {
            // The next change of the object leads here again.
            Ok(false) => pod.is_finishing = false,
            Ok(true) | Err(change::ChangeError::Gone { .. }) => pod.finished(ctx),
            Err(error) => {
                tracing::warn!(pod = %pod.key(), %error, "the object cannot be let go, trying again");
                ctx.run_later(AGAIN, PodActor::finish);
            }
        }));
    }

    fn finished(&mut self, ctx: &mut Context<Self>) {
        self.progress.send_replace(Progress::Finished);
        ctx.stop();
    }
}
