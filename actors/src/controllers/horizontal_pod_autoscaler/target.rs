//! The scale of what is scaled: of every kind that is served and has one, by the same door through which users change it.

use super::super::control::LookError;
use super::super::owned;
use super::decide::Scale;
use impresario_api::admission::{apply_scale, scale_of};
use impresario_api::catalog;
use impresario_api::resource::Row;
use impresario_api::status::Status;
use impresario_objects::{Door, Objects, WriteOptions};
use impresario_registry_api::{Consistency, Revision};
use k8s_openapi::api::autoscaling::v2::CrossVersionObjectReference;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};

/// What is scaled, as it was seen.
pub(super) struct Target {
    row: Option<Row>,
    name: String,
    /// Null where nothing was seen.
    pub(super) uid: Value,
    /// The revision of what was seen; the greatest there is where nothing was.
    pub(super) revision: Revision,
    /// Its scale, or why it has none.
    pub(super) scale: Result<Scale, String>,
}

/// Reads a target. That there is none is no failure of the look.
pub(super) async fn read(
    objects: &Objects,
    namespace: &str,
    wanted: &CrossVersionObjectReference,
) -> Result<Target, LookError> {
    let name = wanted.name.clone();
    let none = |why: String| Target {
        row: None,
        name: name.clone(),
        uid: Value::Null,
        revision: Revision::MAX,
        scale: Err(why),
    };
    let version = wanted.api_version.as_deref().unwrap_or_default();
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let row = catalog::find_kind(group, version, &wanted.kind).filter(|row| row.namespaced);
    let Some(row) = row else {
        return Ok(none(format!("no matches for kind {:?} in group {group:?}", wanted.kind)));
    };
    let found = objects.find(&row, namespace, &wanted.name, Consistency::Local).await;
    let Some(stored) = found? else {
        let what = if row.group.is_empty() {
            row.plural.to_string()
        } else {
            format!("{}.{}", row.plural, row.group)
        };
        return Ok(none(format!("{what} {:?} not found", wanted.name)));
    };
    let Some(scale) = scale_of(&row, &stored.object) else {
        return Ok(none(format!("a {} has no scale", row.kind)));
    };
    let replicas = scale.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
    let selector = scale.pointer("/status/selector").and_then(Value::as_str).unwrap_or_default();
    let scale = Scale {
        replicas: i32::try_from(replicas).unwrap_or(i32::MAX),
        selector: selector.to_owned(),
    };
    let uid = stored.object.pointer("/metadata/uid").cloned().unwrap_or_default();
    Ok(Target { row: Some(row), name, uid, revision: stored.revision, scale: Ok(scale) })
}

impl Target {
    /// Asks for so many; the revision at which it is asked for. Nothing is done where it is not as it was seen any more.
    pub(super) async fn write(
        &self,
        objects: &Objects,
        namespace: &str,
        replicas: i32,
    ) -> Result<Option<Revision>, Status> {
        let row = self.row.as_ref().ok_or_else(Status::no_such_path)?;
        let scale = json!({"spec": {"replicas": replicas}});
        let is_other = AtomicBool::new(false);
        let change = |old: &Value| {
            // Another object that came under the name meanwhile was not meant, and what a user asked for meanwhile is not undone.
            let is_seen = owned::revision_of(old) == self.revision;
            if old.pointer("/metadata/uid") != Some(&self.uid) || !is_seen {
                is_other.store(true, Ordering::Relaxed);
                return Err(Status::modified(row, &self.name));
            }
            apply_scale(row, old, &scale)
        };
        let options = WriteOptions::default();
        let changed =
            objects.modify(row, Door::Scale, namespace, &self.name, &options, change).await;
        match changed {
            Err(_) if is_other.load(Ordering::Relaxed) => Ok(None),
            changed => changed.map(|changed| Some(owned::revision_of(&changed))),
        }
    }
}
