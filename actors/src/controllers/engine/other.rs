//! Another kind that a controller looks at beside its object.

use super::super::any_mirror::AnyMirror;
use super::super::control::LookError;
use super::super::mirror::Seen;
use super::super::wrote::Wrote;
use super::mirrors::Mirrors;
use super::sources::Source;
use super::view::Part;
use futures_util::future::BoxFuture;
use std::sync::Arc;

/// What of a kind a controller of `K` is shown.
pub(super) trait Other<K>: Send + Sync {
    /// Waits until the mirror shows what was written.
    fn seen<'a>(&self, mirrors: &Mirrors, wrote: &'a Wrote)
    -> BoxFuture<'a, Result<(), LookError>>;
    /// Those that concern this object.
    fn part(&self, mirrors: &Mirrors, object: &Seen<K>) -> Part;
    /// What wakes the controllers of those that they concern.
    fn sources(&self, mirrors: &Mirrors) -> Vec<Source>;
    /// Their mirror, if they are of this resource and tell the controller what becomes of them.
    fn telling(&self, _: &Mirrors, _resource: &str) -> Option<Arc<dyn AnyMirror>> {
        None
    }
    /// Whether the controller may change them.
    fn is_written(&self) -> bool {
        true
    }
}
