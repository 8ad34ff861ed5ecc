//! An object with what is applied to it.
//!
//! Maps merge field by field, lists that are sets or have keys entry by entry; everything else is replaced. The entries
//! that were there keep their order, and among those that both have the order of what is applied counts.

use super::fields::Fields;
use super::step::Step;
use super::typed::{Form, Type};
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet, VecDeque};

/// Merges what is applied into an object.
pub fn merge(of: Type<'_>, live: &mut Value, applied: &Value) {
    // A null takes whatever form the other has.
    let form = of.form(if applied.is_null() { live } else { applied });
    match (form, &mut *live, applied) {
        (Form::Map, Value::Object(live), Value::Object(applied)) => {
            for (name, value) in applied {
                let (inside, _) = of.member(name).unwrap_or((Type::Free, false));
                match live.get_mut(name) {
                    Some(place) => merge(inside, place, value),
                    None => {
                        live.insert(name.clone(), value.clone());
                    }
                }
            }
        }
        (Form::Set | Form::Keyed, Value::Array(list), Value::Array(applied)) => {
            let merged = merge_lists(of, form, std::mem::take(list), applied);
            *list = merged;
        }
        // Nothing that is in it is taken away by that.
        (Form::Map, Value::Object(live), Value::Null) if !live.is_empty() => {}
        (Form::Set | Form::Keyed, Value::Array(live), Value::Null) if !live.is_empty() => {}
        (_, live, applied) => *live = applied.clone(),
    }
}

/// Takes entries of both lists in turn: one that only the live list has stays where it is, those of both come in the
/// order in which they are applied.
fn merge_lists(of: Type<'_>, form: Form, live: Vec<Value>, applied: &[Value]) -> Vec<Value> {
    let steps = |list: &[Value]| -> Vec<Step> {
        let step = |(at, entry)| of.step(form, entry).unwrap_or_else(|| Step::index(at));
        list.iter().enumerate().map(step).collect()
    };
    let (left, right) = (steps(&live), steps(applied));
    let theirs: HashSet<&Step> = right.iter().collect();
    let mut first: HashMap<&Step, usize> = HashMap::with_capacity(left.len());
    let mut doubled: HashSet<&Step> = HashSet::new();
    for (at, step) in left.iter().enumerate() {
        if first.insert(step, at).is_some() {
            doubled.insert(step);
        }
    }
    // One that is there more than once is not merged but replaced: nobody can say which is meant.
    let matching = |step: &Step| first.get(step).copied().filter(|_| !doubled.contains(step));
    let mut shared: VecDeque<&Step> =
        right.iter().filter(|step| first.contains_key(*step)).collect();
    let mut next = shared.pop_front();
    let mut taken: HashSet<&Step> = HashSet::new();
    let mut merged = Vec::with_capacity(live.len().max(applied.len()));
    let one = |step: &Step, entry: &Value| match matching(step) {
        Some(at) => {
            let mut was = live[at].clone();
            merge(of.entry(), &mut was, entry);
            was
        }
        None => entry.clone(),
    };
    let (mut l, mut r) = (0, 0);
    while l < left.len() || r < right.len() {
        if l < left.len() && r < right.len() {
            if left[l] == right[r] {
                taken.insert(&right[r]);
                merged.push(one(&right[r], &applied[r]));
                (l, r) = (l + 1, r + 1);
                next = shared.pop_front();
                continue;
            }
            if theirs.contains(&left[l]) && next.is_some_and(|next| *next != left[l]) {
                l += 1; // it comes later
                continue;
            }
        }
        if l < left.len() {
            if !theirs.contains(&left[l]) {
                merged.push(live[l].clone());
                l += 1;
                continue;
            }
            if taken.contains(&left[l]) || r >= right.len() {
                l += 1;
            }
        }
        if r < right.len() {
            taken.insert(&right[r]);
            merged.push(one(&right[r], &applied[r]));
            if next.is_some_and(|next| *next == right[r]) {
                next = shared.pop_front();
            }
            r += 1;
        }
    }
    merged
}

/// Takes these fields out of a value. What is left empty by that goes too, unless somebody owns it as it is (`kept`), or
/// it is a part that objects of its kind always have. Tells whether the value itself is to go.
pub fn remove(of: Type<'_>, value: &mut Value, fields: &Fields, kept: Option<&Fields>) -> bool {
    if fields.here {
        return true;
    }
    let form = of.form(value);
    match (form, &mut *value) {
        (Form::Map, Value::Object(map)) => {
            for (step, below) in &fields.below {
                let Some(name) = step.name() else { continue };
                let Some(member) = map.get_mut(name) else { continue };
                let (inside, _) = of.member(name).unwrap_or((Type::Free, false));
                let kept = kept.and_then(|kept| kept.at(step));
                if remove(inside, member, below, kept) {
                    if !below.here && of.absent(name).is_some_and(Value::is_object) {
                        *member = Value::Object(Map::new());
                    } else {
                        map.remove(name);
                    }
                }
            }
            map.is_empty() && !kept.is_some_and(|kept| kept.here)
        }
        (Form::Set | Form::Keyed, Value::Array(list)) => {
            let mut at = 0;
            list.retain_mut(|entry| {
                let step = of.step(form, entry).unwrap_or_else(|| Step::index(at));
                at += 1;
                let Some(below) = fields.at(&step) else { return true };
                let kept = kept.and_then(|kept| kept.at(&step));
                if form == Form::Keyed && !below.here {
                    // It stays, so its keys do.
                    let mut below = below.clone();
                    for key in of.key_names() {
                        below.below.remove(&Step::field(key));
                    }
                    remove(of.entry(), entry, &below, kept);
                    return true;
                }
                // An entry goes when it is taken out itself, and not because nothing is left in it.
                !below.here && (!remove(of.entry(), entry, below, kept) || entry.is_object())
            });
            list.is_empty() && !kept.is_some_and(|kept| kept.here)
        }
        _ => false,
    }
}
