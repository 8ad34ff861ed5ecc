//! What a controller takes for its own: what its selector selects and nobody else has.

use super::engine::effects::Effects;
use super::engine::view::View;
use super::labels::{self, selects};
use super::mirror::Mirrored;
use super::owners::controller;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::sync::Arc;

/// Adopts and releases objects of kind `T` by their labels; those that are its own then, in order of their names.
/// One that is being deleted adopts nobody, and lets go of nobody: who is let go of then would outlive it.
pub fn take_over<'a, K: Mirrored, T: Mirrored>(
    view: &View<'a, K>,
    selector: &LabelSelector,
    effects: &mut Effects,
) -> Vec<&'a T> {
    take_over_those(view, selector, |_| true, effects)
}

/// The same, of those alone for which this holds beside the selector.
pub fn take_over_those<'a, K: Mirrored, T: Mirrored>(
    view: &View<'a, K>,
    selector: &LabelSelector,
    is_meant: impl Fn(&T) -> bool,
    effects: &mut Effects,
) -> Vec<&'a T> {
    let metadata = view.object.metadata();
    let uid = metadata.uid.as_deref().unwrap_or_default();
    let mut owned = Vec::new();
    for object in view.of::<T>().iter().map(Arc::as_ref) {
        let other = object.metadata();
        let selected = selects(selector, labels::of(other)) && is_meant(object);
        let (leaves, goes) =
            (other.deletion_timestamp.is_some(), metadata.deletion_timestamp.is_some());
        match controller(other) {
            Some(owner) if owner.uid != uid => {}
            Some(_) if selected => owned.push(object),
            Some(_) if leaves || goes => {}
            Some(_) => effects.release(object),
            None if selected && !leaves && !goes => {
                effects.adopt(object);
                owned.push(object);
            }
            None => {}
        }
    }
    owned
}
