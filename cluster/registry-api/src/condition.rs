//! What a watch can be asked for beyond a [`Selection`]: strings at JSON pointers and labels.
//!
//! Conditions are judged by what was [looked up](crate::field::Looked) in a document, so that one look serves
//! everybody who asks about it. They are not sent to other members: who watches from afar filters for itself.

use crate::{
    field::{self, Looked},
    key::Key,
    query::Selection,
};
use std::collections::BTreeSet;

/// What must be true of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// A scalar at a JSON pointer.
    Field {
        /// Where it is.
        pointer: String,
        /// What a missing field or `null` counts as.
        absent: String,
        /// What it is compared with.
        value: String,
        /// Whether it must be equal, or must not.
        equal: bool,
    },
    /// A label.
    Label {
        /// Which one.
        key: String,
        /// What it must be.
        demand: Demand,
    },
}

/// What is asked of a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Demand {
    /// It is one of these; of none, nothing matches.
    In(BTreeSet<String>),
    /// It is absent or none of these.
    NotIn(BTreeSet<String>),
    /// It is there.
    Exists,
    /// It is not there.
    Absent,
}

impl Demand {
    fn accepts(&self, label: Option<&str>) -> bool {
        match self {
            Self::In(values) => label.is_some_and(|label| values.contains(label)),
            Self::NotIn(values) => label.is_none_or(|label| !values.contains(label)),
            Self::Exists => label.is_some(),
            Self::Absent => label.is_none(),
        }
    }
}

/// Everything that a watch asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interest {
    /// By key; its field is among the conditions.
    pub select: Selection,
    /// By value: all of them must hold.
    pub conditions: Vec<Condition>,
}

impl Interest {
    /// What is selected and meets these conditions.
    pub fn new(select: Selection, mut conditions: Vec<Condition>) -> Self {
        if let Some((pointer, value)) = &select.field {
            let (pointer, value) = (pointer.clone(), value.clone());
            let field = Condition::Field { pointer, absent: String::new(), value, equal: true };
            if !conditions.contains(&field) {
                conditions.push(field);
            }
        }
        Self { select, conditions }
    }

    /// Whether the key, value aside, is meant.
    pub fn covers(&self, key: &Key) -> bool {
        self.select.covers(key)
    }

    /// Whether a value, key aside, is meant, by what was looked up in it. What was not is looked up now.
    pub fn accepts(&self, value: &[u8], looked: &Looked) -> bool {
        self.conditions.iter().all(|condition| match condition {
            Condition::Field { pointer, absent, value: wanted, equal } => {
                let equals = |found: Option<&str>| found.unwrap_or(absent) == wanted;
                let is_equal = match looked.field(pointer) {
                    Some(found) => equals(found),
                    None => equals(field::string_at(value, pointer).as_deref()),
                };
                is_equal == *equal
            }
            Condition::Label { key, demand } => match looked.labels() {
                Some(labels) => demand.accepts(labels.get(key).map(String::as_str)),
                None => {
                    let looked = field::look(value, &[], true);
                    let labels = looked.labels();
                    demand.accepts(labels.and_then(|labels| labels.get(key)).map(String::as_str))
                }
            },
        })
    }
}
