//! The token of a pod's service account: made here, known to the cluster by its digest alone.

use super::ask_authority::{NoAuthority, ask_authority};
use super::kit::Kit;
use impresario_client::protocol::authority::{AccountTokenError, KeepAccountToken};
use impresario_client::tokens::hash_token;
use impresario_runtime::random;
use k8s_openapi::api::core::v1;
use std::collections::BTreeMap;
use thiserror::Error;

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

/// The tokens that the pod's projected volumes ask for, by their path in the volume. One token serves
/// all of them.
pub(super) async fn tokens(
    kit: &Kit,
    pod: &v1::Pod,
) -> Result<BTreeMap<String, String>, AccountFailure> {
    let paths = paths(pod);
    if paths.is_empty() {
        return Ok(BTreeMap::new());
    }
    // 32 bytes of the thread's cryptographically secure generator.
    let token = format!("{:032x}{:032x}", random::random::<u128>(), random::random::<u128>());
    let meta = &pod.metadata;
    let request = KeepAccountToken {
        node: kit.node_name().to_owned(),
        namespace: meta.namespace.clone().unwrap_or_default(),
        pod: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        hash: hash_token(&token),
    };
    ask_authority(kit, &request).await??;
    Ok(paths.into_iter().map(|path| (path, token.clone())).collect())
}

fn paths(pod: &v1::Pod) -> Vec<String> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    let projected = volumes.into_iter().flatten().filter_map(|volume| volume.projected.as_ref());
    let sources = projected.flat_map(|projected| projected.sources.iter().flatten());
    sources.filter_map(|source| Some(source.service_account_token.as_ref()?.path.clone())).collect()
}
