//! What a controller says of itself.

use super::super::mirror::Mirrored;
use super::effects::Effects;
use super::kind_name::KindName;
use super::looks_at::LooksAt;
use super::view::View;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

/// A controller: one actor for each object of its kind, on the member that holds the object's shard.
pub trait Controller: 'static {
    /// The kind of the objects that it is about.
    type Object: Mirrored + Serialize;

    /// The type of the condition that says why what it wants is not done, where its status has such.
    const FAILURE: Option<&'static str> = None;

    /// Whether the status is written before anything is done, which then waits for it: nothing is done that the
    /// status does not know of. Else it is written afterwards, whatever failed.
    const STATUS_FIRST: bool = Self::FAILURE.is_none();

    /// The kinds of which it is not said of the object, in events, what was created and deleted for it. What is
    /// refused is said of all.
    const SILENT_OF: &'static [KindName] = &[];

    /// What it is shown beside its object. It is woken when any of this changes.
    fn looks_at() -> LooksAt<Self::Object>;

    /// What must be done next. A plain function of what was seen and the time: called again with the
    /// same, it says the same; called when all is done, it says nothing.
    fn reconcile(view: &View<'_, Self::Object>, now: Timestamp) -> Effects;
}
