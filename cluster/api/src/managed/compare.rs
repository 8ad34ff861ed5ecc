//! What a write changed, as who writes owns it: what is new or other, and what is gone.

use super::fields::Fields;
use super::step::Step;
use super::typed::{Form, Type};
use crate::json_equality::equal;
use serde_json::{Map, Value};
use std::collections::HashMap;

/// What is not the same in two states of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// What is new, or has another value.
    pub changed: Fields,
    /// What is not there any more.
    pub removed: Fields,
}

impl Comparison {
    /// Whether both are the same.
    pub fn is_same(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }

    pub(super) fn put(&mut self, step: Step, below: Self) {
        self.changed.put(step.clone(), below.changed);
        self.removed.put(step, below.removed);
    }
}

/// What is not the same in two values of a type, of which either may not be there.
pub fn compare(of: Type<'_>, old: Option<&Value>, new: Option<&Value>) -> Comparison {
    let mut found = Comparison::default();
    // A null takes whatever form the other has.
    let Some(shown) = new.filter(|new| !new.is_null()).or(old).or(new) else { return found };
    let form = of.form(shown);
    let forms_differ = old.is_some_and(|old| !old.is_null() && of.form(old) != form);
    let is_leaf = form == Form::Leaf || forms_differ || (is_empty(old) && is_empty(new));
    match (old, new) {
        (None, _) => found.changed.here = true,
        (_, None) => found.removed.here = true,
        (Some(old), Some(new)) if is_leaf => found.changed.here = !equal(old, new),
        _ => {}
    }
    if is_leaf {
        return found;
    }
    match form {
        Form::Map => {
            let nothing = Map::new();
            let olds = old.and_then(Value::as_object).unwrap_or(&nothing);
            let news = new.and_then(Value::as_object).unwrap_or(&nothing);
            for (name, value) in news {
                let (inside, _) = of.member(name).unwrap_or((Type::Free, false));
                let was = olds.get(name).or_else(|| old.and_then(|_| of.absent(name)));
                found.put(Step::field(name), compare(inside, was, Some(value)));
            }
            for (name, value) in olds.iter().filter(|(name, _)| !news.contains_key(*name)) {
                let (inside, _) = of.member(name).unwrap_or((Type::Free, false));
                let is = new.and_then(|_| of.absent(name));
                found.put(Step::field(name), compare(inside, Some(value), is));
            }
        }
        _ => entries(of, form, old, new, &mut found),
    }
    found
}

fn is_empty(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::Object(map)) => map.is_empty(),
        Some(_) => false,
    }
}

/// Entries by their step; those of a step that is there more than once are compared as one.
fn entries(
    of: Type<'_>,
    form: Form,
    old: Option<&Value>,
    new: Option<&Value>,
    found: &mut Comparison,
) {
    let (olds, news) = (by_step(of, form, old), by_step(of, form, new));
    for (step, values) in &news {
        let below = match (olds.get(step).map(Vec::as_slice), values.as_slice()) {
            (None, [one]) => compare(of.entry(), None, Some(one)),
            (Some([was]), [one]) => compare(of.entry(), Some(was), Some(one)),
            (was, values) => {
                let is_same = was.is_some_and(|was| {
                    was.len() == values.len() && was.iter().zip(values).all(|(a, b)| equal(a, b))
                });
                let changed = if is_same { Fields::default() } else { Fields::leaf() };
                Comparison { changed, removed: Fields::default() }
            }
        };
        found.put(step.clone(), below);
    }
    for (step, values) in olds.iter().filter(|(step, _)| !news.contains_key(*step)) {
        let mut below = Comparison::default();
        for value in values {
            let gone = compare(of.entry(), Some(value), None);
            below.removed.add(gone.removed);
        }
        found.put(step.clone(), below);
    }
}

fn by_step<'v>(of: Type<'_>, form: Form, list: Option<&'v Value>) -> HashMap<Step, Vec<&'v Value>> {
    let list = list.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut steps: HashMap<Step, Vec<&Value>> = HashMap::with_capacity(list.len());
    for (index, entry) in list.iter().enumerate() {
        let step = of.step(form, entry).unwrap_or_else(|| Step::index(index));
        steps.entry(step).or_default().push(entry);
    }
    steps
}
