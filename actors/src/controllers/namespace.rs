//! Furnishes a `Namespace`, and empties it when it is deleted.
//!
//! A namespace that is there gets what every namespace has (as `Objects::furnish` does it for the first ones),
//! again if somebody takes it away or changes it. One that is being deleted loses its pods, then all other
//! objects, then its finalizer `kubernetes`, and with that it is gone; until then its conditions say what holds
//! it up (API reference, Namespace v1).

pub mod conditions;

#[cfg(test)]
mod tests;

use super::engine::contents::Content;
use super::engine::controller::Controller;
use super::engine::effects::Effects;
use super::engine::kind_name::KindName;
use super::engine::looks_at::LooksAt;
use super::engine::view::View;
use conditions::{Remains, conditions};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ServiceAccount};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The config map in each namespace by which pods know the cluster's authority.
pub const AUTHORITY_MAP: &str = "kube-root-ca.crt";
/// Its only key.
const AUTHORITY_KEY: &str = "ca.crt";
/// What goes before all else: nothing that pods use is taken from them while they end.
const FIRST: &[KindName] = &[KindName::of::<Pod>()];
/// The account of pods that name none.
const ACCOUNT: &str = "default";
/// How long until a namespace that still has objects is looked at again, at least and at most.
const EMPTYING: (SignedDuration, SignedDuration) =
    (SignedDuration::from_millis(500), SignedDuration::from_secs(5));
/// How long until it is looked at what became of objects that were asked to go: most are gone at once.
const ASKED: SignedDuration = SignedDuration::from_millis(20);

/// Decides for namespaces.
#[derive(Debug)]
pub enum Reconciler {}

impl Controller for Reconciler {
    type Object = Namespace;

    const SILENT_OF: &'static [KindName] =
        &[KindName::of::<ConfigMap>(), KindName::of::<ServiceAccount>()];

    fn looks_at() -> LooksAt<Namespace> {
        LooksAt::itself()
            .within::<ConfigMap>(AUTHORITY_MAP)
            .within::<ServiceAccount>(ACCOUNT)
            .emptied(|namespace| namespace.metadata.deletion_timestamp.is_some(), FIRST)
    }

    fn reconcile(view: &View<'_, Namespace>, now: Timestamp) -> Effects {
        let mut effects = Effects::default();
        if view.object.metadata.deletion_timestamp.is_none() {
            furnish(view, &mut effects);
        } else {
            empty(view, now, &mut effects);
        }
        effects
    }
}

/// Gives it what every namespace has.
fn furnish(view: &View<'_, Namespace>, effects: &mut Effects) {
    if view.of::<ServiceAccount>().is_empty() {
        effects.create::<ServiceAccount>(json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT},
        }));
    }
    let data = BTreeMap::from([(AUTHORITY_KEY.to_owned(), view.authority().to_owned())]);
    match view.of::<ConfigMap>().first() {
        None => effects.create::<ConfigMap>(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": AUTHORITY_MAP}, "data": data,
        })),
        Some(map) if map.data.as_ref() != Some(&data) || map.binary_data.is_some() => {
            let others = map.data.iter().flatten().map(|(key, _)| (key.clone(), Value::Null));
            let mut patch: BTreeMap<String, Value> = others.collect();
            patch.extend(data.into_iter().map(|(key, value)| (key, value.into())));
            effects.change(map.as_ref(), json!({"data": patch, "binaryData": null}), None);
        }
        Some(_) => {}
    }
}

/// Deletes what is in it, and says what is left. What cannot be deleted keeps nothing else from going.
fn empty(view: &View<'_, Namespace>, now: Timestamp, effects: &mut Effects) {
    let left = view.contents();
    if left.is_empty() {
        effects.let_go = true;
        return;
    }
    let stays: Vec<&Content> = left.iter().filter(|content| !content.goes).collect();
    for content in &stays {
        effects.empty(content);
    }
    if !stays.is_empty() && view.refused().is_empty() {
        effects.look_again(now + ASKED);
        return;
    }
    let mut remains = Remains::default();
    for content in left {
        let resource = format!("{}.{}", content.resource.plural, content.resource.group);
        remains.add(&resource, content.finalizers.iter().map(String::as_str));
    }
    let failures = view.refused().iter().map(|refused| {
        format!("{}.{}: {}", refused.resource.plural, refused.resource.group, refused.message)
    });
    remains.failures.extend(failures);
    let mut status = view.object.status.clone().unwrap_or_default();
    let old = status.conditions.as_deref().unwrap_or_default();
    if let Some(conditions) = conditions(old, &remains, now) {
        status.conditions = Some(conditions);
        effects.report(&status);
    }
    effects.look_again(next_try(view.object, now));
}

/// When a namespace that still has objects is looked at again: the longer it lasts, the later.
fn next_try(namespace: &Namespace, now: Timestamp) -> Timestamp {
    let since = namespace.metadata.deletion_timestamp.as_ref().map_or(now, |time| time.0);
    let lasted = now.duration_since(since) / 8;
    now + lasted.clamp(EMPTYING.0, EMPTYING.1)
}
