//! What a controller wants done.

use super::super::mirror::Mirrored;
use super::super::owners::controller;
use super::contents::Content;
use super::kind_name::KindName;
use impresario_objects::events::Severity;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// One object as it was seen: another one of that name is not meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its kind.
    pub kind: KindName,
    /// Its name, in the namespace of the controller's object.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The uid of its controller, if it had one.
    pub controller: Option<String>,
}

impl Named {
    fn of<T: Mirrored>(object: &T) -> Self {
        let metadata = object.metadata();
        Self {
            kind: KindName::of::<T>(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            controller: controller(metadata).map(|it| it.uid.clone()),
        }
    }
}

/// An object that is to be created. It is written out when its turn comes: a look may want hundreds that are
/// large.
#[derive(Clone)]
pub struct Draft(Arc<dyn Fn() -> Value + Send + Sync>);

impl Draft {
    /// What this writes.
    pub fn new(write: impl Fn() -> Value + Send + Sync + 'static) -> Self {
        Self(Arc::new(write))
    }

    /// The object, written out.
    #[must_use]
    pub fn write(&self) -> Value {
        (self.0)()
    }
}

impl PartialEq for Draft {
    /// Whether it is the same one: what is alike is not.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Draft {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Draft").finish_non_exhaustive()
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
    /// Create one from a draft.
    CreateFrom(KindName, Draft),
    /// Delete one.
    Delete(Named),
    /// Create one in the place of another, which is deleted once that is done and not before; then this is said.
    Replace(Named, Draft, Option<Event>),
    /// Delete one and take this finalizer off it, in one write.
    End(Named, &'static str),
    /// Change one.
    Change(Change),
    /// Merge this (RFC 7386) into one as it was seen.
    Rewrite(Named, Value),
}

/// A change of another object.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Which.
    pub named: Named,
    /// Its generation as it was seen: where it asks for something else by now, nothing is changed. `None` where
    /// that makes no difference.
    pub generation: Option<i64>,
    /// What is merged into it (RFC 7386).
    pub patch: Value,
    /// What is said of the controller's object once it is done.
    pub told: Option<Event>,
}

/// Another object that comes into being in one transaction with what the status says of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Begun {
    /// Its kind.
    pub kind: KindName,
    /// What it is.
    pub object: Value,
    /// The whole status from then on; an error where it cannot be written down.
    pub status: Result<Value, String>,
}

/// Something that is said about the controller's object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Whether it is as it should be.
    pub severity: Severity,
    /// One word.
    pub reason: String,
    /// For people.
    pub message: String,
}

impl Event {
    /// Something is as it should be.
    #[must_use]
    pub fn normal(reason: &str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Normal, reason: reason.into(), message: message.into() }
    }

    /// Something that somebody should look at.
    #[must_use]
    pub fn warning(reason: &str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::normal(reason, message) }
    }
}

/// Why fewer things are done than the object asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortfall {
    /// One word.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// What is to be done. Of other objects all is tried, whatever fails of it.
///
/// Whether the status is written before or after that is the controller's to say; its events go with it.
#[derive(Debug, Default, PartialEq)]
pub struct Effects {
    /// What is done to other objects.
    pub actions: Vec<Effect>,
    /// The new status, if there is one; an error where it cannot be written down.
    pub status: Option<Result<Value, String>>,
    /// Others that the status counts for good: in the transaction that writes it, they lose this finalizer.
    pub counted: Vec<(Named, &'static str)>,
    /// Annotations that the object itself gets with its status, or loses, where that is not so yet.
    pub annotations: BTreeMap<String, Option<String>>,
    /// What is merged into the object itself (RFC 7386) in the write of its status, past the rules for what users write.
    pub itself: Option<Value>,
    /// The finalizer that the object itself, which is being deleted, loses once all else is done.
    pub unheld: Option<&'static str>,
    /// What is created last, with another status.
    pub begun: Option<Begun>,
    /// What is said when the status is written.
    pub events: Vec<Event>,
    /// What is deleted of what is in the namespace that the object is.
    pub emptied: Vec<Content>,
    /// Whether the object itself, which is being deleted, is let go: nothing is in the namespace that it is.
    pub let_go: bool,
    /// Whether the object itself is deleted, once all else is done.
    pub delete_itself: bool,
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

    /// Deletes something in the namespace that the object is.
    pub fn empty(&mut self, content: &Content) {
        self.emptied.push(content.clone());
    }

    /// Creates an object of kind `T` where the controller looks at those: in the namespace of its object, or in
    /// the one that this is.
    pub fn create<T: Mirrored>(&mut self, object: Value) {
        self.actions.push(Effect::Create(KindName::of::<T>(), object));
    }

    /// Creates one more object of kind `T` from a draft, which others may be created from too.
    pub fn create_from<T: Mirrored>(&mut self, draft: &Draft) {
        self.actions.push(Effect::CreateFrom(KindName::of::<T>(), draft.clone()));
    }

    /// Creates an object of kind `T` in the transaction that writes this status: whatever fails, neither is there without the
    /// other. That comes after all else, and in a look that has no other status to write.
    pub fn begin<T: Mirrored>(&mut self, object: Value, status: &impl Serialize) {
        let status = serde_json::to_value(status).map_err(|error| error.to_string());
        self.begun = Some(Begun { kind: KindName::of::<T>(), object, status });
    }

    /// Deletes one that the view shows.
    pub fn delete<T: Mirrored>(&mut self, object: &T) {
        self.actions.push(Effect::Delete(Named::of(object)));
    }

    /// Creates one from a draft in the place of one that the view shows. That is deleted once the other is there:
    /// what cannot be replaced stays, with what it says of itself. Then this is said.
    pub fn replace<T: Mirrored>(&mut self, object: &T, draft: &Draft, told: Option<Event>) {
        self.actions.push(Effect::Replace(Named::of(object), draft.clone(), told));
    }

    /// Deletes one that the view shows and takes off the finalizer by which it would have been counted: no
    /// moment can be seen in which it ends by itself and is not.
    pub fn end<T: Mirrored>(&mut self, object: &T, finalizer: &'static str) {
        self.actions.push(Effect::End(Named::of(object), finalizer));
    }

    /// Takes a finalizer off one that the view shows, in the transaction that writes the status: it is
    /// counted there, exactly once. The controller counts no more at once than a transaction takes.
    pub fn count<T: Mirrored>(&mut self, object: &T, finalizer: &'static str) {
        self.counted.push((Named::of(object), finalizer));
    }

    /// Merges a patch into one that the view shows, if it still asks for the same, and then says this.
    pub fn change<T: Mirrored>(&mut self, object: &T, patch: Value, told: Option<Event>) {
        let (named, generation) = (Named::of(object), object.metadata().generation);
        self.actions.push(Effect::Change(Change { named, generation, patch, told }));
    }

    /// Merges a patch into one that the view shows, if it is as it was seen. Written as it is, past the rules
    /// for what users write.
    pub fn rewrite<T: Mirrored>(&mut self, object: &T, patch: Value) {
        self.actions.push(Effect::Rewrite(Named::of(object), patch));
    }

    /// Gives one that the view shows these annotations, whatever it asks for by then.
    pub fn mark<T: Mirrored>(&mut self, object: &T, annotations: &BTreeMap<String, String>) {
        let patch = json!({"metadata": {"annotations": annotations}});
        let named = Named::of(object);
        self.actions.push(Effect::Change(Change { named, generation: None, patch, told: None }));
    }

    /// Says something of the object.
    pub fn say(&mut self, event: Event) {
        self.events.push(event);
    }

    /// The object itself gets this annotation, in the write of its status.
    pub fn annotate(&mut self, key: &str, value: impl Into<String>) {
        self.annotations.insert(key.into(), Some(value.into()));
    }

    /// The object itself loses this annotation, in the write of its status.
    pub fn unannotate(&mut self, key: &str) {
        self.annotations.insert(key.into(), None);
    }

    /// Merges this (RFC 7386) into the object itself, in the write of its status.
    pub fn rewrite_itself(&mut self, patch: Value) {
        self.itself = Some(patch);
    }

    /// Takes this finalizer off the object itself, which is being deleted, in a look that writes nothing else of it.
    pub fn unhold(&mut self, finalizer: &'static str) {
        self.unheld = Some(finalizer);
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
