//! What every control actor can be asked: the actor of a replication controller, a job, a service,
//! a namespace, and those that there is one of.
//!
//! A control actor is called `RESOURCE/UID` and lives on the member that holds the shard of that
//! uid. [`Changed`] and [`Told`] are hints: losing, repeating, delaying or inventing one does no harm.
//!
//! [`Scale`] and [`Suspend`] change the actor's object, through the one door to objects and by its rules: what a
//! credential may not do to the object itself it may not have its actor do. Each says who sends it, as the messages of
//! [`objects`](crate::objects::protocol) do.

use crate::objects::protocol::{Refusal, Sender};
use impresario_registry_api::{Key, Revision};
use impresario_runtime::{Lane, message, role};
use serde::{Deserialize, Serialize};
use std::any::Any;

role! {
    /// The actor of an object that asks for something.
    pub ControlRole = "control" {
        asks: [Changed, Told, Describe, Scale, Suspend],
        streams: []
    }
}

/// The object, or something that it is about, may have changed: look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed;
message!(Changed => (), "control.Changed");

/// One of those that the actor's object controls says that it was written: a Pod tells its owner.
///
/// Nothing of it is believed: whoever is told reads that object in its own store, and holds what is there against this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The node that says so, on which the object must be: the receiver's gate holds it against the certificate.
    pub node: String,
    /// The object that was written.
    pub key: Key,
    /// Its uid.
    pub uid: String,
    /// The revision of that write, or of a later one.
    pub revision: Revision,
}
message!(Told => (), "control.Told", Lane::Work, TOLD_BYTES);

/// The most bytes of a [`Told`]: four names, of which none may have more than 253 letters.
pub const TOLD_BYTES: usize = 2 << 10;

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

/// Asks for so many copies: of pods where the object has a scale, of trainers where it is a training job of a fixed
/// size. Asking again changes nothing more.
///
/// The answer is the revision at which the object says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scale {
    /// Who asks.
    pub sender: Sender,
    /// How many.
    pub replicas: u32,
}
message!(Scale => Result<Revision, Refusal>, "control.Scale");

/// Asks the object of the actor to pause, or to go on: its pods end, and are made anew afterwards. Asking again changes
/// nothing more.
///
/// The answer is the revision at which the object says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspend {
    /// Who asks.
    pub sender: Sender,
    /// Whether it is to pause.
    pub suspend: bool,
}
message!(Suspend => Result<Revision, Refusal>, "control.Suspend");

/// Who a message says that it is from, if it is one of these that say so: the receiver's gate holds it against the
/// certificate.
pub fn sender(message: &dyn Any) -> Option<&Sender> {
    let scale = message.downcast_ref().map(|Scale { sender, .. }| sender);
    scale.or_else(|| message.downcast_ref().map(|Suspend { sender, .. }| sender))
}
