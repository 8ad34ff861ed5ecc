//! Fetches the objects that a pod's volumes and variables are made from.

use super::environment::Sources;
use crate::change::{self, ChangeError};
use impresario_host::volumes;
use impresario_registry_api::{Consistency, Key, ListRequest, RegistryHandle, Selection};
use k8s_openapi::api::core::v1;
use std::collections::BTreeSet;

/// What the pod's volumes are made from. What does not exist is left out: whether that matters is decided where it is
/// used.
pub(super) async fn of_volumes(
    registry: &RegistryHandle,
    pod: &v1::Pod,
) -> Result<Sources, ChangeError> {
    let Some(spec) = &pod.spec else { return Ok(Sources::default()) };
    let needs = volumes::needs(spec.volumes.as_deref().unwrap_or_default());
    named(registry, pod, needs).await
}

/// What its containers' variables are made from, and the services that they may be told of.
pub(super) async fn of_variables(
    registry: &RegistryHandle,
    pod: &v1::Pod,
) -> Result<Sources, ChangeError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let Some(spec) = &pod.spec else { return Ok(Sources::default()) };
    let mut needs = volumes::Needs::default();
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        for from in container.env_from.iter().flatten() {
            needs.config_maps.extend(from.config_map_ref.iter().map(|wanted| wanted.name.clone()));
            needs.secrets.extend(from.secret_ref.iter().map(|wanted| wanted.name.clone()));
        }
        for source in
            container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref())
        {
            needs
                .config_maps
                .extend(source.config_map_key_ref.iter().map(|wanted| wanted.name.clone()));
            needs.secrets.extend(source.secret_key_ref.iter().map(|wanted| wanted.name.clone()));
        }
    }
    let mut sources = named(registry, pod, needs).await?;
    // Old by a moment is good enough: a variable never changes after the start anyway.
    let list = |select: Selection| ListRequest {
        select,
        after: None,
        limit: None,
        at: None,
        consistency: Consistency::Local,
    };
    let own = list(Selection::all("services").within(namespace));
    let mut entries = registry.list(own).await?.entries;
    if namespace != "default" {
        let api = list(Selection::all("services").within("default").named("kubernetes"));
        entries.extend(registry.list(api).await?.entries);
    }
    // One that cannot be read is told of by the mirror of the node's proxy.
    sources.services = entries.iter().filter_map(|entry| change::decode(entry).ok()).collect();
    Ok(sources)
}

/// The config maps and secrets of these names.
async fn named(
    registry: &RegistryHandle,
    pod: &v1::Pod,
    needs: volumes::Needs,
) -> Result<Sources, ChangeError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut sources = Sources::default();
    for name in needs.config_maps.into_iter().collect::<BTreeSet<_>>() {
        if let Some(map) = change::get(registry, Key::new("configmaps", namespace, &name)).await? {
            sources.config_maps.insert(name, map);
        }
    }
    for name in needs.secrets.into_iter().collect::<BTreeSet<_>>() {
        if let Some(secret) = change::get(registry, Key::new("secrets", namespace, &name)).await? {
            sources.secrets.insert(name, secret);
        }
    }
    Ok(sources)
}
