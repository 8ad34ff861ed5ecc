//! Labels, and the selectors that select by them (API conventions, "Label selectors").

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use std::collections::BTreeMap;

static NONE: BTreeMap<String, String> = BTreeMap::new();

/// The labels of an object; none where it has none.
#[must_use]
pub fn of(metadata: &ObjectMeta) -> &BTreeMap<String, String> {
    metadata.labels.as_ref().unwrap_or(&NONE)
}

/// Whether `labels` satisfy every requirement of a selector. An empty selector selects nothing: a
/// controller must never own a whole namespace by omission. A requirement with an operator that
/// nobody knows holds for nobody.
#[must_use]
pub fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let pairs = selector.match_labels.as_ref().unwrap_or(&NONE);
    let expressions = selector.match_expressions.as_deref().unwrap_or_default();
    if pairs.is_empty() && expressions.is_empty() {
        return false;
    }
    pairs.iter().all(|(key, value)| labels.get(key) == Some(value))
        && expressions.iter().all(|expression| {
            let value = labels.get(&expression.key);
            let listed = |value: &String| expression.values.iter().flatten().any(|v| v == value);
            match expression.operator.as_str() {
                "In" => value.is_some_and(listed),
                "NotIn" => !value.is_some_and(listed),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn every_requirement_of_a_selector_must_hold_and_an_empty_one_selects_nothing() {
        let selects = |selector: Value, labels: Value| {
            let labels = serde_json::from_value(labels).unwrap();
            selects(&serde_json::from_value(selector).unwrap(), &labels)
        };
        let one = |operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": "k", "operator": operator, "values": values}]});
        let (with, without) = (json!({"k": "a", "other": "x"}), json!({"other": "x"}));
        for (selector, holds_with, holds_without) in [
            (json!({}), false, false),
            (json!({"matchLabels": {}, "matchExpressions": []}), false, false),
            (json!({"matchLabels": {"k": "a"}}), true, false),
            (json!({"matchLabels": {"k": "a", "absent": "a"}}), false, false),
            (one("In", &["a", "b"]), true, false),
            (one("In", &["b"]), false, false),
            (one("NotIn", &["a"]), false, true),
            (one("Exists", &[]), true, false),
            (one("DoesNotExist", &[]), false, true),
            (one("Like", &["a"]), false, false),
        ] {
            assert_eq!(selects(selector.clone(), with.clone()), holds_with, "{selector}");
            assert_eq!(selects(selector.clone(), without.clone()), holds_without, "{selector}");
        }
    }
}
