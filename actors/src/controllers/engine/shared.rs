//! What the controllers of a member share.

use super::mirrors::Mirrors;
use impresario_objects::Objects;
use impresario_objects::events::Recorder;
use impresario_runtime::clock;
use k8s_openapi::jiff::Timestamp;
use std::sync::Arc;

/// The time of day.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Cheap to clone.
#[derive(Clone)]
pub struct Shared {
    /// Reads and writes by the rules of the API.
    pub objects: Objects,
    /// Writes events.
    pub events: Recorder,
    /// What is, in memory.
    pub mirrors: Mirrors,
    /// What time it is for those that decide.
    pub clock: Clock,
    /// The certificates of the cluster's authority, in PEM.
    pub authority: Arc<str>,
}

impl Shared {
    /// Begins to follow what these objects are, by the time of day.
    #[must_use]
    pub fn start(objects: Objects, component: &str) -> Self {
        Self {
            events: Recorder::start(objects.clone(), component, ""),
            mirrors: Mirrors::over(objects.registry().clone()),
            clock: Arc::new(clock::timestamp),
            authority: Arc::default(),
            objects,
        }
    }
}
