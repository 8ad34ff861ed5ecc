//! When a job has failed early, and when it has succeeded early.

use crate::field::{Causes, Path, get, has, list, number, text};
use crate::names;
use serde_json::{Value, json};
use std::collections::HashSet;

/// Most rules of a policy, and most conditions of a rule.
const RULES_MAX: usize = 20;
/// The longest list of indexes.
const INDEXES_MAX: usize = 64 * 1024;
const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];

/// When a pod that failed ends the job, its index, or does not count.
pub(super) fn failure(spec: &Value, path: &Path, causes: &mut Causes) {
    let rules_path = path.child("podFailurePolicy").child("rules");
    let rules = list(spec, "podFailurePolicy.rules");
    if rules.len() > RULES_MAX {
        causes.too_many(&rules_path, rules.len(), RULES_MAX);
    }
    for (index, rule) in rules.iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let path = rules_path.index(index);
        let action = text(rule, "action");
        causes.one_of(&path.child("action"), action, ACTIONS);
        if action == "FailIndex" && !has(spec, "backoffLimitPerIndex") {
            causes.invalid(
                &path.child("action"),
                action,
                "requires the backoffLimitPerIndex to be set",
            );
        }
        let codes = get(rule, "onExitCodes");
        let conditions = list(rule, "onPodConditions");
        if codes.is_null() && conditions.is_empty() {
            causes.invalid(
                &path,
                "",
                "specifying one of OnExitCodes and OnPodConditions is required",
            );
        } else if !codes.is_null() && !conditions.is_empty() {
            causes.invalid(
                &path,
                "",
                "specifying both OnExitCodes and OnPodConditions is not supported",
            );
        }
        if !codes.is_null() {
            exit_codes(codes, spec, &path.child("onExitCodes"), causes);
        }
        if conditions.len() > RULES_MAX {
            causes.too_many(&path.child("onPodConditions"), conditions.len(), RULES_MAX);
        }
        for (index, condition) in conditions.iter().enumerate() {
            if causes.is_full() {
                break;
            }
            let path = path.child("onPodConditions").index(index);
            let kind = text(condition, "type");
            causes.invalid_all(&path.child("type"), kind, names::qualified(kind));
            causes.one_of(
                &path.child("status"),
                text(condition, "status"),
                &["False", "True", "Unknown"],
            );
        }
    }
}

fn exit_codes(codes: &Value, spec: &Value, path: &Path, causes: &mut Causes) {
    let operator = text(codes, "operator");
    causes.one_of(&path.child("operator"), operator, &["In", "NotIn"]);
    let name = text(codes, "containerName");
    let known = ["template.spec.containers", "template.spec.initContainers"]
        .iter()
        .any(|containers| list(spec, containers).iter().any(|c| text(c, "name") == name));
    if !name.is_empty() && !known {
        causes.invalid(
            &path.child("containerName"),
            name,
            "must be one of the container or initContainer names in the pod template",
        );
    }
    let values_path = path.child("values");
    let values: Vec<i64> = list(codes, "values").iter().filter_map(Value::as_i64).collect();
    if values.is_empty() {
        causes.invalid(&values_path, json!([]), "at least one value is required");
    } else if values.len() > 255 {
        causes.too_many(&values_path, values.len(), 255);
    }
    let mut seen = HashSet::new();
    for (index, value) in values.iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let path = values_path.index(index);
        if operator == "In" && *value == 0 {
            causes.invalid(&path, 0, "must not be 0 for the In operator");
        }
        if !seen.insert(*value) {
            causes.duplicate(&path, *value);
        }
    }
    if values.windows(2).any(|pair| pair[0] > pair[1]) {
        causes.invalid(&values_path, get(codes, "values").clone(), "must be ordered");
    }
}

/// When an indexed job has succeeded although some of its pods have not.
pub(super) fn success(spec: &Value, path: &Path, causes: &mut Causes) {
    let policy = get(spec, "successPolicy");
    if policy.is_null() {
        return;
    }
    let path = path.child("successPolicy");
    if text(spec, "completionMode") != "Indexed" {
        causes.invalid(&path, policy.clone(), "requires indexed completion mode");
        return;
    }
    let (rules, path) = (list(policy, "rules"), path.child("rules"));
    if rules.is_empty() {
        let why = "at least one rules must be specified when the successPolicy is specified";
        causes.required(&path, why);
    } else if rules.len() > RULES_MAX {
        causes.too_many(&path, rules.len(), RULES_MAX);
    }
    // Without completions, which is a cause of its own, no index is too large.
    let completions = number(spec, "completions").unwrap_or(i64::MAX);
    for (index, rule) in rules.iter().enumerate() {
        if causes.is_full() {
            break;
        }
        success_rule(rule, completions, &path.index(index), causes);
    }
}

fn success_rule(rule: &Value, completions: i64, path: &Path, causes: &mut Causes) {
    let (count, indexes) = (number(rule, "succeededCount"), get(rule, "succeededIndexes").as_str());
    if count.is_none() && indexes.is_none() {
        let why = "at least one of succeededCount or succeededIndexes must be specified";
        causes.required(path, why);
    }
    let mut named = None;
    if let Some(indexes) = indexes {
        let path = path.child("succeededIndexes");
        if indexes.len() > INDEXES_MAX {
            causes.too_long(&path, INDEXES_MAX);
        }
        match count_indexes(indexes, completions) {
            Ok(total) => named = Some(total),
            Err(why) => {
                let why = format!("error parsing succeededIndexes: {why}");
                causes.invalid(&path, indexes, &why);
                named = Some(0);
            }
        }
    }
    let Some(count) = count else { return };
    let path = path.child("succeededCount");
    causes.not_negative(&path, Some(count));
    if count > completions {
        let why = format!(
            "must be less than or equal to {completions} (the number of specified completions)"
        );
        causes.invalid(&path, count, &why);
    }
    if let Some(named) = named.filter(|named| count > *named) {
        let why = format!(
            "must be less than or equal to {named} (the number of indexes in the specified succeededIndexes field)"
        );
        causes.invalid(&path, count, &why);
    }
}

/// How many indexes a list as `1,3-5,7` has: ascending, each below `completions`.
fn count_indexes(indexes: &str, completions: i64) -> Result<i64, String> {
    let mut total = 0;
    let mut last: Option<i64> = None;
    for interval in indexes.split(',').filter(|_| !indexes.is_empty()) {
        let index = |text: &str| {
            let index = text.parse::<i32>().map(i64::from);
            index.map_err(|_| format!("cannot convert string to integer for index: {text:?}"))
        };
        let (first, end) = match interval.split_once('-') {
            Some((_, end)) if end.contains('-') => {
                return Err(format!(
                    "the fragment {interval:?} violates the requirement that an index interval can have at most two parts separated by '-'"
                ));
            }
            Some((first, end)) => (index(first)?, Some(index(end)?)),
            None => (index(interval)?, None),
        };
        if let Some(last) = last.filter(|last| first <= *last) {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        if let Some(end) = end.filter(|end| *end <= first) {
            return Err(format!("non-increasing order, previous: {first}, current: {end}"));
        }
        let end = end.unwrap_or(first);
        if end >= completions {
            return Err(format!("too large index: {end}"));
        }
        total += end - first + 1;
        last = Some(end);
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_indexes_ascends_and_stays_below_the_completions() {
        let rows = [
            ("", Some(0)),
            ("0", Some(1)),
            ("0,2-4,7", Some(5)),
            ("8", None),
            ("2-8", None),
            ("1,1", None),
            ("3-2", None),
            ("2-2", None),
            ("4-5,5", None),
            ("1-2-3", None),
            ("a", None),
            ("1,", None),
        ];
        for (indexes, total) in rows {
            assert_eq!(count_indexes(indexes, 8).ok(), total, "{indexes:?}");
        }
    }

    #[test]
    fn a_policy_of_success_fits_the_indexes_of_its_job() {
        let rules = "spec.successPolicy.rules";
        let rows = [
            (json!([{"succeededCount": 2}]), vec![]),
            (json!([{"succeededIndexes": "0-3", "succeededCount": 4}]), vec![]),
            (json!([]), vec![rules.to_owned()]),
            (json!([{}]), vec![format!("{rules}[0]")]),
            (json!([{"succeededCount": -1}]), vec![format!("{rules}[0].succeededCount")]),
            (json!([{"succeededCount": 9}]), vec![format!("{rules}[0].succeededCount")]),
            (
                json!([{"succeededCount": 1}, {"succeededIndexes": "0-3", "succeededCount": 5}]),
                vec![format!("{rules}[1].succeededCount")],
            ),
            (
                json!([{"succeededIndexes": "9", "succeededCount": 1}]),
                vec![format!("{rules}[0].succeededIndexes"), format!("{rules}[0].succeededCount")],
            ),
        ];
        for (given, expected) in rows {
            let spec = json!({
                "completionMode": "Indexed", "completions": 8, "successPolicy": {"rules": given},
            });
            let mut causes = Causes::default();
            success(&spec, &Path::new("spec"), &mut causes);
            let fields: Vec<String> = causes.into_vec().into_iter().map(|c| c.field).collect();
            assert_eq!(fields, expected, "{spec}");
        }
    }
}
