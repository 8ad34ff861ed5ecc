//! What every control actor can be asked: the actor of a replication controller, a job, a service,
//! a namespace, and those that there is one of.
//!
//! A control actor is called `RESOURCE/UID` and lives on the member that holds the shard of that
//! uid. [`Changed`] is a hint: losing or repeating it does no harm.

use impresario_runtime::{message, role};
use serde::{Deserialize, Serialize};

role! {
    /// The actor of an object that asks for something.
    pub ControlRole = "control" {
        asks: [Changed, Describe],
        streams: []
    }
}

/// The object, or something that it is about, may have changed: look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed;
message!(Changed => (), "control.Changed");

/// Asks what the actor is about and how its last look went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Describe;
message!(Describe => Description, "control.Describe");

/// A control actor in its own words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// What it is about: `replicationcontrollers default/web`.
    pub subject: String,
    /// The shard that it writes for.
    pub shard: u8,
    /// The epoch that it writes with.
    pub epoch: u64,
    /// How often it has looked.
    pub looks: u64,
    /// Why the last look failed, if it did.
    pub last_error: Option<String>,
}
