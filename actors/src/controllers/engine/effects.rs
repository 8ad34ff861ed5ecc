//! What a controller wants done.

use super::super::mirror::Mirrored;
use super::kind_name::KindName;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

/// One object as it was seen: another one of that name is not meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its kind.
    pub kind: KindName,
    /// Its name, in the namespace of the controller's object.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

impl Named {
    fn of<T: Mirrored>(object: &T) -> Self {
        let metadata = object.metadata();
        Self {
            kind: KindName::of::<T>(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
        }
    }
}

/// One thing that is to be done to another object.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Make an orphan the object's own.
    Adopt(Named),
    /// Take the object off the owners of another.
    Release(Named),
    /// Create one in the object's namespace.
    Create(KindName, Value),
    /// Delete one.
    Delete(Named),
}

/// Why fewer things are done than the object asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortfall {
    /// One word.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// What is to be done, in this order: owners change, others are created and deleted, the status is
/// written. What fails keeps nothing else from being tried.
#[derive(Debug, Default, PartialEq)]
pub struct Effects {
    /// What is done to other objects.
    pub actions: Vec<Effect>,
    /// The new status, if there is one; an error where it cannot be written down.
    pub status: Option<Result<Value, String>>,
    /// Why it is not all that the object asks for. Stands in the condition of failures.
    pub shortfall: Option<Shortfall>,
    /// When to look again although nothing changed.
    pub look_again: Option<Timestamp>,
}

impl Effects {
    /// Makes an orphan that the view shows the object's own.
    pub fn adopt<T: Mirrored>(&mut self, orphan: &T) {
        self.actions.push(Effect::Adopt(Named::of(orphan)));
    }

    /// Takes the object off the owners of one that the view shows.
    pub fn release<T: Mirrored>(&mut self, owned: &T) {
        self.actions.push(Effect::Release(Named::of(owned)));
    }

    /// Creates an object of kind `T` in the namespace of the controller's.
    pub fn create<T: Mirrored>(&mut self, object: Value) {
        self.actions.push(Effect::Create(KindName::of::<T>(), object));
    }

    /// Deletes one that the view shows.
    pub fn delete<T: Mirrored>(&mut self, object: &T) {
        self.actions.push(Effect::Delete(Named::of(object)));
    }

    /// The object's status is this. It is written where it is not yet. Conditions of which the engine
    /// takes care are not looked at.
    pub fn report(&mut self, status: &impl Serialize) {
        self.status = Some(serde_json::to_value(status).map_err(|error| error.to_string()));
    }

    /// Says why less is done than the object asks for.
    pub fn fall_short(&mut self, reason: &str, message: impl Into<String>) {
        self.shortfall = Some(Shortfall { reason: reason.into(), message: message.into() });
    }

    /// Looks again at this time, or earlier where another call says so.
    pub fn look_again(&mut self, at: Timestamp) {
        self.look_again = Some(self.look_again.map_or(at, |known| known.min(at)));
    }
}
