//! What a controller makes of what it is told of an object of its own: it reads that in the store of this member.
//!
//! Nothing is asked of another member and nothing is waited for. What the store has not applied yet the watch brings as
//! soon as it has; what the watch has brought is no news. So a hint costs little, whatever it says, and is worth
//! something where the mirror is behind the store.

use super::super::any_mirror::AnyMirror;
use super::super::owners::controller;
use impresario_client::protocol::control::Told;
use impresario_registry_api::{Consistency, Entry, RegistryHandle};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use std::time::Duration;

/// How long the store of this member has: one that starts may have to find out first what it holds.
const LIMIT: Duration = Duration::from_secs(1);

/// What is to be known of an object before it is believed to be the one that was told of.
#[derive(Deserialize)]
struct Known {
    metadata: ObjectMeta,
    spec: Place,
}

#[derive(Deserialize)]
struct Place {
    #[serde(rename = "nodeName")]
    node_name: Option<String>,
}

/// Files the object that was told of in its mirror, if it is as was told and the mirror is behind. `owner` is the uid of
/// who was told. Whether anything was new.
pub(super) async fn look_into(
    told: &Told,
    owner: &str,
    mirror: &dyn AnyMirror,
    registry: &RegistryHandle,
) -> bool {
    if mirror.revision() >= told.revision {
        return false;
    }
    let read = registry.get(told.key.clone(), Consistency::Local);
    let Ok(Ok((Some(entry), _))) = tokio::time::timeout(LIMIT, read).await else { return false };
    is_so(told, owner, &entry) && mirror.file(&entry)
}

/// Whether the object is at least as new as was told, and who told of it may speak for it.
fn is_so(told: &Told, owner: &str, entry: &Entry) -> bool {
    if entry.mod_revision < told.revision {
        return false;
    }
    let Ok(Known { metadata, spec }) = serde_json::from_slice(&entry.value) else { return false };
    metadata.uid.as_ref() == Some(&told.uid)
        && controller(&metadata).is_some_and(|it| it.uid == owner)
        && spec.node_name.as_ref() == Some(&told.node)
}
