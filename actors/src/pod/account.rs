//! The tokens of a pod's service account: asked of the authority, shown in the pod's projected volumes, and replaced
//! before they end.

use super::ask_authority::{NoAuthority, ask_authority};
use super::kit::Kit;
use impresario_client::protocol::authority::{AccountTokenError, IssueAccountToken};
use impresario_runtime::clock;
use k8s_openapi::api::core::v1;
use std::collections::BTreeMap;
use std::time::Duration;
use thiserror::Error;

/// How long a token is good for whose pod does not say.
const USUAL_SECONDS: i64 = 3600;
/// A token is replaced when so much of its life is over, as by the kubelet.
const USED: f64 = 0.8;
/// And after this at the latest.
const LATEST: Duration = Duration::from_hours(24);
/// Not before: of a clock that is far ahead every token has ended.
const SOONEST: Duration = Duration::from_mins(1);

/// Why a pod has no token.
#[derive(Debug, Error)]
pub enum AccountFailure {
    /// The authority said no.
    #[error(transparent)]
    Refused(#[from] AccountTokenError),
    /// No control member answered.
    #[error(transparent)]
    Unreachable(#[from] NoAuthority),
}

/// What the pod's volumes show.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    /// The tokens, by volume and path.
    pub(super) shown: BTreeMap<(String, String), String>,
    /// How long until they are to be replaced, if there are any.
    pub(super) replace_in: Option<Duration>,
}

/// The tokens that the pod's projected volumes ask for. One serves all that ask for the same.
pub(super) async fn tokens(kit: &Kit, pod: &v1::Pod) -> Result<Tokens, AccountFailure> {
    let mut tokens = Tokens::default();
    let mut asked: BTreeMap<(&str, i64), String> = BTreeMap::new();
    let meta = &pod.metadata;
    for (volume, source) in wanted(pod) {
        let audience = source.audience.as_deref().unwrap_or_default();
        let seconds = source.expiration_seconds.unwrap_or(USUAL_SECONDS);
        let token = match asked.get(&(audience, seconds)) {
            Some(token) => token.clone(),
            None => {
                let audiences = Some(audience.to_owned()).filter(|it| !it.is_empty());
                let request = IssueAccountToken {
                    node: kit.node_name().to_owned(),
                    namespace: meta.namespace.clone().unwrap_or_default(),
                    pod: meta.name.clone().unwrap_or_default(),
                    uid: meta.uid.clone().unwrap_or_default(),
                    audiences: audiences.into_iter().collect(),
                    seconds,
                };
                let issued = ask_authority(kit, &request).await??;
                let left = issued.expires_unix_seconds - clock::timestamp().as_second();
                let wait = replace_in(Duration::from_secs(left.try_into().unwrap_or(0)));
                tokens.replace_in =
                    Some(tokens.replace_in.map_or(wait, |earlier| earlier.min(wait)));
                asked.insert((audience, seconds), issued.token.clone());
                issued.token
            }
        };
        tokens.shown.insert((volume.to_owned(), source.path.clone()), token);
    }
    Ok(tokens)
}

/// Whether a volume shows tokens.
pub(super) fn shows_tokens(volume: &v1::Volume) -> bool {
    sources(volume).next().is_some()
}

fn sources(volume: &v1::Volume) -> impl Iterator<Item = &v1::ServiceAccountTokenProjection> {
    let projected = volume.projected.iter().flat_map(|it| it.sources.iter().flatten());
    projected.filter_map(|source| source.service_account_token.as_ref())
}

fn wanted(pod: &v1::Pod) -> impl Iterator<Item = (&str, &v1::ServiceAccountTokenProjection)> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    let volumes = volumes.into_iter().flatten();
    volumes.flat_map(|volume| sources(volume).map(|source| (volume.name.as_str(), source)))
}

/// How long a token that lasts so long is shown.
fn replace_in(life: Duration) -> Duration {
    life.mul_f64(USED).clamp(SOONEST, LATEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_replaced_when_four_fifths_of_it_are_over_or_a_day() {
        let hours = Duration::from_hours;
        for (life, expected) in [
            (Duration::from_secs(600), Duration::from_secs(480)),
            (Duration::from_secs(3607), Duration::from_millis(2_885_600)),
            (hours(30), hours(24)),
            (hours(9000), hours(24)),
            (Duration::ZERO, Duration::from_mins(1)),
        ] {
            assert_eq!(replace_in(life), expected, "{life:?}");
        }
    }
}
