//! What a control actor is made for: an object, and the right to write for it.

use impresario_registry_api::Fence;
use impresario_runtime::ActorName;
use std::time::Instant;

/// An object, or a singleton of the cluster, that gets an actor here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activation {
    /// The name of its actor.
    pub actor: ActorName,
    /// The object's namespace; empty for one without and for singletons.
    pub namespace: String,
    /// The object's name, or the singleton's.
    pub name: String,
    /// The object's uid, or the singleton's name.
    pub uid: String,
    /// The right by which it writes.
    pub fence: Fence,
    /// Since when this member has it, as far as it was seen here: until then others may have written.
    pub since: Instant,
}
