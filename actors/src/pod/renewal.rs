//! Replaces the tokens in a pod's volumes before they end. What could not be replaced is tried again; the old ones stay
//! meanwhile.

use super::account::{self, AccountFailure};
use super::filling::filling;
use super::kit::Kit;
use super::{PodActor, sources};
use crate::change::ChangeError;
use actix::prelude::*;
use impresario_host::volumes::{self, VolumeError};
use impresario_runtime::{Backoff, random, tasks};
use k8s_openapi::api::core::v1;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// Pauses after a failure: a token has a fifth of its life left then, two minutes at least.
const AGAIN: Backoff = Backoff { first: Duration::from_secs(2), most: Duration::from_mins(2) };
/// The part of a wait by which it is shorter at most, so that pods of one moment do not ask at one moment.
const SPREAD: f64 = 0.1;

/// Why the tokens of a pod were not replaced.
#[derive(Debug, Error)]
enum RenewalError {
    #[error(transparent)]
    Account(#[from] AccountFailure),
    #[error(transparent)]
    Objects(#[from] ChangeError),
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error("the task that makes the volumes was lost: {0}")]
    Lost(String),
}

impl PodActor {
    /// Replaces the tokens after about so long, if the pod has any.
    pub(super) fn renew_tokens_in(&mut self, wait: Option<Duration>, ctx: &mut Context<Self>) {
        if let Some(timer) = self.token_timer.take() {
            ctx.cancel_future(timer);
        }
        let Some(wait) = wait else { return };
        let wait = wait.mul_f64(1.0 - SPREAD * random::random::<f64>());
        self.token_timer = Some(ctx.run_later(wait, |pod, ctx| pod.renew_tokens(0, ctx)));
    }

    fn renew_tokens(&mut self, attempt: u32, ctx: &mut Context<Self>) {
        self.token_timer = None;
        let is_over = self.life.outcome().is_some() && !self.life.is_active();
        let Some(prepared) = self.prepared.as_ref().filter(|_| !is_over && !self.is_finishing)
        else {
            return;
        };
        let work = renewed(self.kit.clone(), self.object.clone(), prepared.address);
        self.token_timer = Some(ctx.spawn(work.into_actor(self).map(move |renewed, pod, ctx| {
            pod.token_timer = None;
            match renewed {
                Ok(wait) => pod.renew_tokens_in(wait, ctx),
                Err(error) => {
                    let message = format!("the tokens of the service account are old: {error}");
                    if attempt == 0 {
                        pod.kit.events.warning(pod.key(), &pod.uid, "FailedMount", &message);
                    }
                    tracing::warn!(pod = %pod.key(), %error, attempt, "tokens are not replaced, trying again");
                    let wait = AGAIN.wait(attempt, random::random());
                    let next = attempt.saturating_add(1);
                    pod.token_timer =
                        Some(ctx.run_later(wait, move |pod, ctx| pod.renew_tokens(next, ctx)));
                }
            }
        })));
    }
}

/// Puts new tokens in the place of the old ones, each volume at once; how long until that is to be done again.
async fn renewed(
    kit: Arc<Kit>,
    pod: v1::Pod,
    address: IpAddr,
) -> Result<Option<Duration>, RenewalError> {
    let tokens = account::tokens(&kit, &pod).await?;
    if kit.driver.is_hollow() {
        return Ok(tokens.replace_in);
    }
    let fetched = sources::of_volumes(&kit.registry, &pod).await?;
    let from = filling(&kit, &pod, address, fetched, &tokens);
    let folder = kit.pods_folder.join(pod.metadata.uid.as_deref().unwrap_or_default());
    let volumes = pod.spec.and_then(|spec| spec.volumes).unwrap_or_default();
    let placing = tasks::spawn_blocking(move || {
        for volume in volumes.iter().filter(|volume| account::shows_tokens(volume)) {
            volumes::place(&folder, volume, &from)?;
        }
        Ok::<_, VolumeError>(())
    });
    placing.await.map_err(|error| RenewalError::Lost(error.to_string()))??;
    Ok(tokens.replace_in)
}
