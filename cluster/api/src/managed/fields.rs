//! Sets of paths into an object: `FieldsV1`, and what is done with it.
//!
//! A set is a tree. A place of it is in the set itself, or leads to places that are, or both: `{"f:a": {}}` has the
//! field `a`, `{"f:a": {"f:b": {}}}` has `a.b` alone, `{"f:a": {".": {}, "f:b": {}}}` has both. There is no place that
//! is neither, so that equal sets are equal trees. What is received has bounds.

use super::step::{Step, StepError};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use thiserror::Error;

/// The most places that a set which is received may have: more than the largest object has fields, so that whoever is
/// told a set can send it back.
pub const MOST_PLACES: usize = 300_000;
/// How deep it may go.
pub const DEEPEST: usize = 128;
/// The name of a place itself among what is below it.
const ITSELF: &str = ".";

/// Why a set of fields cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FieldsError {
    /// A step cannot be read.
    #[error(transparent)]
    Step(#[from] StepError),
    /// Something stands where an object should.
    #[error("a set of fields consists of objects alone, this has {0} in it")]
    NoObject(&'static str),
    /// It has too many places.
    #[error(
        "the set has more than {MOST_PLACES} fields: give back what is not meant to be owned one by one"
    )]
    TooMany,
    /// It is too deep.
    #[error("the set is deeper than {DEEPEST} steps: no object is")]
    TooDeep,
}

/// A set of paths, or what of one lies below a place.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Fields {
    /// Whether the place itself is in the set.
    pub(super) here: bool,
    pub(super) below: BTreeMap<Step, Fields>,
}

impl Fields {
    /// The place alone.
    pub(super) fn leaf() -> Self {
        Self { here: true, below: BTreeMap::new() }
    }

    /// Reads a set, within the bounds.
    pub fn parse(value: &Value) -> Result<Self, FieldsError> {
        let mut room = MOST_PLACES;
        read(value, 0, &mut room)
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        !self.here && self.below.is_empty()
    }

    /// How many paths are in it.
    pub fn len(&self) -> usize {
        usize::from(self.here) + self.below.values().map(Self::len).sum::<usize>()
    }

    /// What of it lies behind a step.
    pub fn at(&self, step: &Step) -> Option<&Self> {
        self.below.get(step)
    }

    /// Whether a path is in it.
    pub fn contains(&self, path: &[Step]) -> bool {
        match path {
            [] => self.here,
            [step, rest @ ..] => self.at(step).is_some_and(|below| below.contains(rest)),
        }
    }

    /// Puts a path in.
    pub fn insert(&mut self, path: impl IntoIterator<Item = Step>) {
        let mut place = self;
        for step in path {
            place = place.below.entry(step).or_default();
        }
        place.here = true;
    }

    /// Puts what lies behind a step in, if there is anything.
    pub(super) fn put(&mut self, step: Step, fields: Self) {
        if fields.is_empty() {
            return;
        }
        match self.below.entry(step) {
            Entry::Vacant(place) => {
                place.insert(fields);
            }
            Entry::Occupied(mut place) => place.get_mut().add(fields),
        }
    }

    /// What is in this or in the other.
    pub(super) fn add(&mut self, other: Self) {
        self.here |= other.here;
        for (step, fields) in other.below {
            self.put(step, fields);
        }
    }

    /// What is in one or the other.
    #[must_use]
    pub fn union(mut self, other: &Self) -> Self {
        self.add(other.clone());
        self
    }

    /// What is in this and not in the other.
    #[must_use]
    pub fn difference(mut self, other: &Self) -> Self {
        self.subtract(other);
        self
    }

    pub(super) fn subtract(&mut self, other: &Self) {
        self.here &= !other.here;
        // The smaller of the two is walked.
        if other.below.len() < self.below.len() {
            for (step, fields) in &other.below {
                if let Some(mine) = self.below.get_mut(step) {
                    mine.subtract(fields);
                    if mine.is_empty() {
                        self.below.remove(step);
                    }
                }
            }
        } else {
            self.below.retain(|step, mine| {
                if let Some(fields) = other.below.get(step) {
                    mine.subtract(fields);
                }
                !mine.is_empty()
            });
        }
    }

    /// Takes out what is in the other, and every place below which the other has anything.
    pub(super) fn leave(&mut self, other: &Self) {
        self.here = false;
        self.below.retain(|step, mine| {
            if let Some(fields) = other.below.get(step) {
                mine.leave(fields);
            }
            !mine.is_empty()
        });
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut both = Self { here: self.here && other.here, below: BTreeMap::new() };
        for (step, mine) in &self.below {
            if let Some(theirs) = other.below.get(step) {
                both.put(step.clone(), mine.intersection(theirs));
            }
        }
        both
    }

    /// What of this is touched where the places of the other change: with a place that changes as one, all below it.
    pub(super) fn touched(&self, changed: &Self) -> Self {
        if changed.here && changed.below.is_empty() {
            return self.clone();
        }
        let mut both = Self { here: self.here && changed.here, below: BTreeMap::new() };
        for (step, mine) in &self.below {
            if let Some(theirs) = changed.below.get(step) {
                both.put(step.clone(), mine.touched(theirs));
            }
        }
        both
    }

    /// Whether nothing is in both.
    pub fn is_disjoint(&self, other: &Self) -> bool {
        !(self.here && other.here)
            && self
                .below
                .iter()
                .all(|(step, mine)| other.at(step).is_none_or(|theirs| mine.is_disjoint(theirs)))
    }

    /// Calls back for every path in it: a place before what is below it.
    pub fn each(&self, tell: &mut dyn FnMut(&[&Step])) {
        fn walk<'f>(fields: &'f Fields, path: &mut Vec<&'f Step>, tell: &mut dyn FnMut(&[&Step])) {
            if fields.here {
                tell(path);
            }
            for (step, below) in &fields.below {
                path.push(step);
                walk(below, path, tell);
                path.pop();
            }
        }
        walk(self, &mut Vec::new(), tell);
    }

    /// Every path in it as people are told it: `.spec.ports[port=80].name`.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.each(&mut |path| paths.push(path.iter().map(ToString::to_string).collect()));
        paths
    }

    /// As `FieldsV1` has it.
    pub fn to_value(&self) -> Value {
        let mut map = Map::new();
        if self.here && !self.below.is_empty() {
            map.insert(ITSELF.to_owned(), Value::Object(Map::new()));
        }
        for (step, fields) in &self.below {
            map.insert(step.as_str().to_owned(), fields.to_value());
        }
        Value::Object(map)
    }
}

/// As `FieldsV1` has it.
impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let says_itself = self.here && !self.below.is_empty();
        let mut map =
            serializer.serialize_map(Some(self.below.len() + usize::from(says_itself)))?;
        if says_itself {
            map.serialize_entry(ITSELF, &Self::default())?;
        }
        for (step, fields) in &self.below {
            map.serialize_entry(step.as_str(), fields)?;
        }
        map.end()
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.to_value())
    }
}

impl FromIterator<Vec<Step>> for Fields {
    fn from_iter<I: IntoIterator<Item = Vec<Step>>>(paths: I) -> Self {
        let mut fields = Self::default();
        paths.into_iter().for_each(|path| fields.insert(path));
        fields
    }
}

/// Reads what stands at a place: an empty object is the place itself.
fn read(value: &Value, depth: usize, room: &mut usize) -> Result<Fields, FieldsError> {
    if depth > DEEPEST {
        return Err(FieldsError::TooDeep);
    }
    let map = match value {
        Value::Object(map) => map,
        Value::Null => return Err(FieldsError::NoObject("a null")),
        Value::Bool(_) => return Err(FieldsError::NoObject("a boolean")),
        Value::Number(_) => return Err(FieldsError::NoObject("a number")),
        Value::String(_) => return Err(FieldsError::NoObject("a string")),
        Value::Array(_) => return Err(FieldsError::NoObject("a list")),
    };
    let mut fields = Fields::default();
    for (name, below) in map {
        *room = room.checked_sub(1).ok_or(FieldsError::TooMany)?;
        if name == ITSELF {
            fields.here = true;
            continue;
        }
        // What a later version may know is not ours to keep.
        let Some(step) = Step::parse(name)? else { continue };
        let mut below = read(below, depth + 1, room)?;
        below.here |= below.below.is_empty();
        fields.put(step, below);
    }
    Ok(fields)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
