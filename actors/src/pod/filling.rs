//! What a pod's volumes are filled from.

use super::account::Tokens;
use super::environment;
use super::kit::Kit;
use crate::requests;
use impresario_host::volumes;
use k8s_openapi::api::core::v1;
use std::net::IpAddr;

/// What the volumes of a pod with this address show.
pub(super) fn filling(
    kit: &Kit,
    pod: &v1::Pod,
    address: IpAddr,
    fetched: environment::Sources,
    tokens: &Tokens,
) -> volumes::Sources {
    let mut shown = serde_json::to_value(pod).unwrap_or_default();
    shown["status"]["podIP"] = address.to_string().into();
    shown["status"]["podIPs"] = serde_json::json!([{ "ip": address.to_string() }]);
    shown["status"]["hostIP"] = kit.host.to_string().into();
    let context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let allocatable = requests::list(&kit.allocatable).into_iter();
    volumes::Sources {
        pod: shown,
        allocatable: allocatable.map(|(name, amount)| (name, amount.0)).collect(),
        config_maps: fetched.config_maps,
        secrets: fetched.secrets,
        tokens: tokens.shown.clone(),
        fs_group: context.and_then(|it| it.fs_group).and_then(|group| u32::try_from(group).ok()),
    }
}
