//! Watchers by what they ask for: resource, namespace, name, field, label.
//!
//! Each stands where the fewest changes come by: under its name, else under the string that a field must be, else under
//! one of the labels that it requires, else in its namespace, else with those who want all of a resource.

use super::slot::Slot;
use crate::{
    condition::{Condition, Demand, Interest},
    field::{self, Looked},
    key::Key,
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// Pointers that are looked up for all watchers of a resource. Who asks for further ones is told as if for none, and
/// looks for itself.
pub(super) const MOST_POINTERS: usize = 16;

/// A label that may have more values than this is taken for one that has to be there: who asks for thousands takes
/// one place.
const MOST_VALUES: usize = 16;

type Slots = BTreeMap<u64, Arc<Slot>>;

/// All watchers.
#[derive(Debug, Default)]
pub(super) struct Index {
    kinds: HashMap<String, Kind>,
    last: u64,
}

/// Those of one resource.
#[derive(Debug, Default)]
pub(super) struct Kind {
    /// Of all namespaces.
    everywhere: Scope,
    namespaces: HashMap<String, Scope>,
    slots: BTreeMap<u64, Placed>,
    /// How many watchers ask for each pointer.
    pointers: BTreeMap<Arc<str>, usize>,
    /// How many ask for labels.
    labels: usize,
    wants: Option<Arc<Wants>>,
}

/// A watcher, and what was counted of it.
#[derive(Debug)]
struct Placed {
    slot: Arc<Slot>,
    places: Vec<Place>,
    pointers: Vec<Arc<str>>,
    labels: bool,
}

/// Where a watcher stands in its scope.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    All,
    Name(String),
    /// A pointer and what must be there.
    Field(Arc<str>, String),
    /// A label and its value, or any.
    Label(String, Option<String>),
}

/// Those of one namespace, or of all.
#[derive(Debug, Default)]
struct Scope {
    all: Slots,
    names: HashMap<String, Slots>,
    fields: HashMap<Arc<str>, HashMap<String, Slots>>,
    labels: HashMap<String, Labelled>,
}

/// Those who require a label.
#[derive(Debug, Default)]
struct Labelled {
    /// Of whatever value.
    any: Slots,
    values: HashMap<String, Slots>,
}

/// What is looked up in a value.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wants {
    pointers: Vec<Arc<str>>,
    labels: bool,
}

impl Wants {
    /// What one watcher needs.
    pub(super) fn of(interest: &Interest) -> Self {
        let pointers = pointers(interest).map(Arc::from).collect();
        Self { pointers, labels: asks_for_labels(interest) }
    }

    pub(super) fn look(&self, value: &[u8]) -> Looked {
        field::look(value, &self.pointers, self.labels)
    }
}

fn pointers(interest: &Interest) -> impl Iterator<Item = &str> {
    interest.conditions.iter().filter_map(|condition| match condition {
        Condition::Field { pointer, .. } => Some(pointer.as_str()),
        Condition::Label { .. } => None,
    })
}

fn asks_for_labels(interest: &Interest) -> bool {
    interest.conditions.iter().any(|condition| matches!(condition, Condition::Label { .. }))
}

impl Index {
    pub(super) fn kind(&self, resource: &str) -> Option<&Kind> {
        self.kinds.get(resource)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Slot> {
        self.kinds.values().flat_map(|kind| kind.slots.values()).map(|placed| &*placed.slot)
    }

    /// Takes a watcher in; the number takes it out again.
    pub(super) fn insert(&mut self, slot: &Arc<Slot>) -> u64 {
        self.last += 1;
        let resource = slot.interest.select.resource.clone();
        self.kinds.entry(resource).or_default().insert(self.last, slot);
        self.last
    }

    /// How many places are taken.
    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        let placed = self.kinds.values().flat_map(|kind| kind.slots.values());
        placed.map(|placed| placed.places.len()).sum()
    }

    pub(super) fn remove(&mut self, id: u64, resource: &str) {
        let Some(kind) = self.kinds.get_mut(resource) else { return };
        kind.remove(id);
        if kind.slots.is_empty() {
            self.kinds.remove(resource);
        }
    }
}

impl Kind {
    /// What is looked up in changes of this resource; `None` where nobody asks for what is inside.
    pub(super) fn wants(&self) -> Option<Arc<Wants>> {
        self.wants.clone()
    }

    fn insert(&mut self, id: u64, slot: &Arc<Slot>) {
        let interest = &slot.interest;
        let mut known = Vec::new();
        for pointer in pointers(interest) {
            if !self.pointers.contains_key(pointer) && self.pointers.len() < MOST_POINTERS {
                self.pointers.insert(pointer.into(), 0);
            }
            if let Some((pointer, _)) = self.pointers.get_key_value(pointer) {
                known.push(pointer.clone());
            }
        }
        for pointer in &known {
            self.pointers.entry(pointer.clone()).and_modify(|count| *count += 1);
        }
        let labels = asks_for_labels(interest);
        self.labels += usize::from(labels);
        self.renew_wants();
        let scope = match &interest.select.namespace {
            None => &mut self.everywhere,
            Some(namespace) => self.namespaces.entry(namespace.clone()).or_default(),
        };
        let places = scope.places(interest, &known);
        for place in &places {
            scope.insert(place, id, slot);
        }
        self.slots.insert(id, Placed { slot: slot.clone(), places, pointers: known, labels });
    }

    fn remove(&mut self, id: u64) {
        let Some(placed) = self.slots.remove(&id) else { return };
        for pointer in &placed.pointers {
            let count = self.pointers.get_mut(pointer).map_or(0, |count| {
                *count -= 1;
                *count
            });
            if count == 0 {
                self.pointers.remove(pointer);
            }
        }
        self.labels -= usize::from(placed.labels);
        self.renew_wants();
        let namespace = &placed.slot.interest.select.namespace;
        let scope = match namespace {
            None => Some(&mut self.everywhere),
            Some(namespace) => self.namespaces.get_mut(namespace),
        };
        let Some(scope) = scope else { return };
        for place in &placed.places {
            scope.remove(place, id);
        }
        if let Some(namespace) = namespace
            && scope.is_empty()
        {
            self.namespaces.remove(namespace);
        }
    }

    fn renew_wants(&mut self) {
        let wants =
            Wants { pointers: self.pointers.keys().cloned().collect(), labels: self.labels > 0 };
        if self.wants.as_deref() != Some(&wants) {
            self.wants = Some(Arc::new(wants)).filter(|wants| **wants != Wants::default());
        }
    }

    /// Calls for those who may be concerned by a change of this key, some more than once: who does not want the key or
    /// the values is among them.
    pub(super) fn concerned(&self, key: &Key, sides: [&Looked; 2], mut call: impl FnMut(&Slot)) {
        let scopes = [Some(&self.everywhere), self.namespaces.get(&key.namespace)];
        for scope in scopes.into_iter().flatten() {
            let mut call_all = |slots: &Slots| slots.values().for_each(|slot| call(slot));
            call_all(&scope.all);
            if let Some(slots) = scope.names.get(&key.name) {
                call_all(slots);
            }
            scope.by_value(sides, &mut call_all);
        }
    }
}

impl Scope {
    /// Where this watcher stands: where the fewest others do, among the places that all it wants comes by.
    fn places(&self, interest: &Interest, known: &[Arc<str>]) -> Vec<Place> {
        if let Some(name) = &interest.select.name {
            return vec![Place::Name(name.clone())];
        }
        let choices = interest.conditions.iter().filter_map(|condition| match condition {
            Condition::Field { pointer, absent, value, equal: true } if value != absent => {
                let pointer = known.iter().find(|known| ***known == **pointer)?;
                Some((false, vec![Place::Field(pointer.clone(), value.clone())]))
            }
            Condition::Label { key, demand: Demand::In(values) } if values.len() <= MOST_VALUES => {
                let places =
                    values.iter().map(|value| Place::Label(key.clone(), Some(value.clone())));
                Some((false, places.collect()))
            }
            Condition::Label { key, demand: Demand::In(_) | Demand::Exists } => {
                Some((true, vec![Place::Label(key.clone(), None)]))
            }
            Condition::Field { .. } | Condition::Label { .. } => None,
        });
        let best = choices.min_by_key(|(any, places)| {
            let others = places.iter().map(|place| self.slots(place).map_or(0, Slots::len));
            (*any, places.len(), others.sum::<usize>())
        });
        best.map_or_else(|| vec![Place::All], |(_, places)| places)
    }

    fn slots(&self, place: &Place) -> Option<&Slots> {
        match place {
            Place::All => Some(&self.all),
            Place::Name(name) => self.names.get(name),
            Place::Field(pointer, value) => self.fields.get(pointer)?.get(value),
            Place::Label(key, Some(value)) => self.labels.get(key)?.values.get(value),
            Place::Label(key, None) => self.labels.get(key).map(|labelled| &labelled.any),
        }
    }

    fn insert(&mut self, place: &Place, id: u64, slot: &Arc<Slot>) {
        let slots = match place {
            Place::All => &mut self.all,
            Place::Name(name) => self.names.entry(name.clone()).or_default(),
            Place::Field(pointer, value) => {
                let values = self.fields.entry(pointer.clone()).or_default();
                values.entry(value.clone()).or_default()
            }
            Place::Label(key, value) => {
                let labelled = self.labels.entry(key.clone()).or_default();
                match value {
                    Some(value) => labelled.values.entry(value.clone()).or_default(),
                    None => &mut labelled.any,
                }
            }
        };
        slots.insert(id, slot.clone());
    }

    fn remove(&mut self, place: &Place, id: u64) {
        match place {
            Place::All => drop(self.all.remove(&id)),
            Place::Name(name) => remove(&mut self.names, name, id),
            Place::Field(pointer, value) => {
                let Some(values) = self.fields.get_mut(pointer) else { return };
                remove(values, value, id);
                if values.is_empty() {
                    self.fields.remove(pointer);
                }
            }
            Place::Label(key, value) => {
                let Some(labelled) = self.labels.get_mut(key) else { return };
                match value {
                    Some(value) => remove(&mut labelled.values, value, id),
                    None => drop(labelled.any.remove(&id)),
                }
                if labelled.any.is_empty() && labelled.values.is_empty() {
                    self.labels.remove(key);
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.all.is_empty()
            && self.names.is_empty()
            && self.fields.is_empty()
            && self.labels.is_empty()
    }

    /// Those who stand under what a value is or was.
    fn by_value(&self, [before, after]: [&Looked; 2], mut call: impl FnMut(&Slots)) {
        for (pointer, values) in &self.fields {
            let (was, is) = (before.field(pointer).flatten(), after.field(pointer).flatten());
            for value in [is, was.filter(|_| was != is)].into_iter().flatten() {
                if let Some(slots) = values.get(value) {
                    call(slots);
                }
            }
        }
        if self.labels.is_empty() {
            return;
        }
        for (looked, other) in [(after, None), (before, after.labels())] {
            for (key, value) in looked.labels().into_iter().flatten() {
                let twin = other.and_then(|other| other.get(key));
                let Some(labelled) = self.labels.get(key) else { continue };
                if twin.is_none() {
                    call(&labelled.any);
                }
                if twin != Some(value)
                    && let Some(slots) = labelled.values.get(value)
                {
                    call(slots);
                }
            }
        }
    }
}

fn remove(places: &mut HashMap<String, Slots>, place: &str, id: u64) {
    if let Some(slots) = places.get_mut(place) {
        slots.remove(&id);
        if slots.is_empty() {
            places.remove(place);
        }
    }
}
