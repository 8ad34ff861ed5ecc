//! One requirement of a label selector.

use super::SelectorError;
use crate::names;

/// What one requirement asks of the label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Demand {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
    GreaterThan(i64),
    LessThan(i64),
}

/// What is asked of one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Requirement {
    pub(super) key: String,
    pub(super) demand: Demand,
}

impl Requirement {
    pub(super) fn new(key: &str, mut demand: Demand) -> Result<Self, SelectorError> {
        if let Some(why) = names::qualified(key).into_iter().next() {
            return Err(SelectorError::Key { key: key.to_owned(), why });
        }
        if let Demand::In(values) | Demand::NotIn(values) = &mut demand {
            for (index, value) in values.iter().enumerate() {
                if let Some(why) = names::label_value(value).into_iter().next() {
                    let (key, value) = (key.to_owned(), value.clone());
                    return Err(SelectorError::Value { key, index, value, why });
                }
            }
            values.sort(); // [`Requirement::matches`] searches in them
        }
        Ok(Self { key: key.to_owned(), demand })
    }

    pub(super) fn matches(&self, value: Option<&str>) -> bool {
        let is_among = |values: &[String]| {
            value
                .is_some_and(|value| values.binary_search_by(|one| one.as_str().cmp(value)).is_ok())
        };
        match &self.demand {
            Demand::In(values) => is_among(values),
            Demand::NotIn(values) => !is_among(values),
            Demand::Exists => value.is_some(),
            Demand::Absent => value.is_none(),
            Demand::GreaterThan(bound) => {
                value.and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v > *bound)
            }
            Demand::LessThan(bound) => {
                value.and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v < *bound)
            }
        }
    }
}
