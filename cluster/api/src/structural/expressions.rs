//! Whether the rules of a schema hold for an object, within a budget for all of them.
//!
//! A rule that looks at `oldSelf` is asked only about a change of a value that was there. Any other
//! is not asked about what is as it was: like all else that a schema says, it may be stricter than
//! what is there.

use super::findings::Findings;
use super::node::{Additional, ListType, Node, by_key, correlate};
use super::place::Place;
use super::rule::{Compiled, Rule};
use crate::cause::CauseReason;
use crate::cel::{Budget, Fault, Value as Cel};
use crate::formats::type_name;
use crate::json_equality::equal;
use serde_json::{Value, json};
use std::collections::HashMap;

/// The work of one rule for one value.
const STEPS_OF_RULE: u64 = 1_000_000;
/// The work of all rules for one object.
pub const STEPS_OF_OBJECT: u64 = 5_000_000;

/// Asks all rules about an object, unless it is wrong in ways that make rules fail for no reason of
/// theirs.
pub fn check(
    root: &Node,
    new: &Value,
    old: Option<&Value>,
    place: &Place<'_>,
    left: &mut u64,
    findings: &mut Findings,
) {
    if !root.has_rules {
        return;
    }
    if findings.is_blocked() {
        let why = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
        findings.invalid(&Place::Root(""), &Value::Null, why);
        return;
    }
    let mut rules = Rules { findings, left: *left, over: false };
    rules.node(root, new, old, place);
    *left = rules.left;
}

struct Rules<'f> {
    findings: &'f mut Findings,
    left: u64,
    /// Somebody has been told that the work is used up.
    over: bool,
}

impl Rules<'_> {
    fn node(&mut self, node: &Node, new: &Value, old: Option<&Value>, place: &Place<'_>) {
        if !node.has_rules || new.is_null() || !self.findings.goes_on(place) {
            return;
        }
        if !node.rules.is_empty() {
            let unchanged = old.is_some_and(|old| equal(new, old));
            for rule in &node.rules {
                if self.over {
                    return;
                }
                if let Some(compiled) = &rule.compiled {
                    let transition = compiled.reads_old && !rule.optional_old_self;
                    if (!transition && !unchanged) || (transition && old.is_some()) {
                        self.rule(rule, compiled, new, old, place);
                    }
                }
            }
        }
        match new {
            Value::Object(map) => {
                for (name, value) in map {
                    let old = old.and_then(|old| old.get(name));
                    match (node.properties.get(name), &node.additional) {
                        (Some(property), _) => {
                            self.node(property, value, old, &place.field(name));
                        }
                        (None, Additional::Of(additional)) => {
                            self.node(additional, value, old, &place.key(name));
                        }
                        _ => {}
                    }
                }
            }
            Value::Array(list) => {
                let Some(items) = node.items.as_ref().filter(|items| items.has_rules) else {
                    return;
                };
                let olds = match (node.list_type, old.and_then(Value::as_array)) {
                    (Some(ListType::Map), Some(old)) => by_key(&node.list_keys, old),
                    _ => HashMap::new(),
                };
                for (at, value) in list.iter().enumerate() {
                    let old = if olds.is_empty() {
                        None
                    } else {
                        correlate(&node.list_keys, value, &olds)
                    };
                    self.node(items, value, old, &place.index(at));
                }
            }
            _ => {}
        }
    }

    fn rule(
        &mut self,
        rule: &Rule,
        compiled: &Compiled,
        new: &Value,
        old: Option<&Value>,
        place: &Place<'_>,
    ) {
        let this = Cel::of(new, &compiled.kind);
        let was = old.filter(|old| !old.is_null()).map(|old| Cel::of(old, &compiled.kind));
        let was = match (rule.optional_old_self, was) {
            (true, was) => Cel::Optional(was.map(Box::new)),
            (false, was) => was.unwrap_or(Cel::Null),
        };
        let given = STEPS_OF_RULE.min(self.left);
        let mut budget = Budget::new(given);
        let result = compiled.rule.run(vec![this.clone(), was.clone()], &mut budget);
        let why = match result {
            Ok(Cel::Bool(true)) => None,
            Ok(Cel::Bool(false)) => {
                let made = compiled.message.as_ref().and_then(|message| {
                    match message.run(vec![this, was], &mut budget) {
                        Ok(Cel::Text(text)) => Some(text.trim().to_owned()),
                        _ => None,
                    }
                });
                let made = made.filter(|text| !text.is_empty() && !text.contains(['\n', '\r']));
                Some(made.unwrap_or_else(|| said(rule)))
            }
            Ok(_) => Some(format!("the rule gave no bool: {}", rule.expression)),
            Err(Fault::OverBudget) if given < STEPS_OF_RULE => {
                self.left = 0;
                self.over = true;
                let why = "validation failed due to running out of cost budget, no further validation rules will be run";
                self.findings.invalid(place, &json!(type_name(new)), why);
                return;
            }
            Err(fault) => {
                let what = if rule.message.is_empty() { &rule.expression } else { &rule.message };
                Some(format!("{fault} evaluating rule: {what}"))
            }
        };
        self.left -= given - budget.left();
        if let Some(why) = why {
            self.refuse(rule, new, place, &why);
        }
    }

    fn refuse(&mut self, rule: &Rule, new: &Value, place: &Place<'_>, why: &str) {
        let blamed = format!("{}{}", place.bare(), rule.field_path);
        let blamed = blamed.trim_start_matches('.').replace("['", "[").replace("']", "]");
        let place = Place::Root(&blamed);
        let value = json!(type_name(new));
        match rule.reason {
            CauseReason::Required => self.findings.required(&place, why),
            CauseReason::Forbidden => self.findings.forbidden(&place, why),
            CauseReason::Duplicate => self.findings.duplicate(&place, &value),
            _ => self.findings.invalid(&place, &value, why),
        }
    }
}

fn said(rule: &Rule) -> String {
    if rule.message.is_empty() {
        format!("failed rule: {}", rule.expression.trim())
    } else {
        rule.message.clone()
    }
}
