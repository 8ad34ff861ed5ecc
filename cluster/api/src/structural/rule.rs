//! A rule of `x-kubernetes-validations`: what is written, and what it was compiled to.

use super::findings::Findings;
use super::place::Place;
use crate::cause::CauseReason;
use crate::cel::{Program, Type};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The keyword of a schema under which rules stand.
pub const KEYWORD: &str = "x-kubernetes-validations";
/// How many rules one node may have.
const MAX_RULES: usize = 100;
const REASONS: [(&str, CauseReason); 4] = [
    ("FieldValueDuplicate", CauseReason::Duplicate),
    ("FieldValueForbidden", CauseReason::Forbidden),
    ("FieldValueInvalid", CauseReason::Invalid),
    ("FieldValueRequired", CauseReason::Required),
];

/// A rule as it is written.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The expression that must be true.
    pub expression: String,
    /// What is said when it is not; empty for the rule itself.
    pub message: String,
    /// An expression for the same.
    pub message_expression: Option<String>,
    /// What kind of wrong it is.
    pub reason: CauseReason,
    /// Which field below is to blame; empty for the place of the rule.
    pub field_path: String,
    /// Whether the old value is an optional, so that the rule holds for new objects too.
    pub optional_old_self: bool,
    /// What it was compiled to.
    pub compiled: Option<Arc<Compiled>>,
}

/// What a rule was compiled to.
#[derive(Debug)]
pub struct Compiled {
    /// What the value is.
    pub kind: Type,
    /// The rule.
    pub rule: Program,
    /// What is said when it does not hold.
    pub message: Option<Program>,
    /// Whether it looks at what the value was.
    pub reads_old: bool,
}

/// Reads the rules of a node.
pub fn read(value: &Value, place: &Place<'_>, findings: &mut Findings) -> Vec<Rule> {
    let place = place.field(KEYWORD);
    match value {
        Value::Null => Vec::new(),
        Value::Array(list) if list.len() > MAX_RULES => {
            findings.too_many(&place, list.len(), MAX_RULES as u64);
            Vec::new()
        }
        Value::Array(list) => list
            .iter()
            .enumerate()
            .filter_map(|(at, rule)| one(rule, &place.index(at), findings))
            .collect(),
        other => {
            findings.type_invalid(&place, other, "must be a list");
            Vec::new()
        }
    }
}

fn one(value: &Value, place: &Place<'_>, findings: &mut Findings) -> Option<Rule> {
    let Value::Object(map) = value else {
        findings.type_invalid(place, value, "must be an object");
        return None;
    };
    let rule = text(map, "rule", place, findings);
    if rule.trim().is_empty() {
        findings.required(&place.field("rule"), "rule is not specified");
        return None;
    }
    let given = text(map, "message", place, findings);
    let message = given.trim().to_owned();
    if !given.is_empty() && message.is_empty() {
        let why = "message must be non-empty if specified";
        findings.invalid(&place.field("message"), &json!(given), why);
    } else if message.contains(['\n', '\r']) {
        let why = "message must not contain line breaks";
        findings.invalid(&place.field("message"), &json!(given), why);
    } else if message.is_empty() && rule.trim().contains(['\n', '\r']) {
        let why = "message must be specified if rule contains line breaks";
        findings.required(&place.field("message"), why);
    }
    let given = text(map, "messageExpression", place, findings);
    if !given.is_empty() && given.trim().is_empty() {
        let why = "messageExpression must be non-empty if specified";
        findings.required(&place.field("messageExpression"), why);
    }
    let message_expression = Some(given).filter(|text| !text.trim().is_empty());
    let word = text(map, "reason", place, findings);
    let known = REASONS.iter().find(|(name, _)| *name == word);
    if !word.is_empty() && known.is_none() {
        let names = REASONS.map(|(name, _)| json!(name));
        findings.not_supported(&place.field("reason"), &json!(word), &names);
    }
    let optional_old_self = match map.get("optionalOldSelf") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(flag)) => *flag,
        Some(other) => {
            findings.type_invalid(&place.field("optionalOldSelf"), other, "must be a boolean");
            false
        }
    };
    Some(Rule {
        expression: rule,
        message,
        message_expression,
        reason: known.map_or(CauseReason::Invalid, |(_, reason)| *reason),
        field_path: text(map, "fieldPath", place, findings),
        optional_old_self,
        compiled: None,
    })
}

fn text(
    map: &Map<String, Value>,
    keyword: &str,
    place: &Place<'_>,
    findings: &mut Findings,
) -> String {
    match map.get(keyword) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => {
            findings.type_invalid(&place.field(keyword), other, "must be a string");
            String::new()
        }
    }
}
