//! Selection by labels.

use super::SelectorError;
use super::grammar::Parser;
use super::requirement::{Demand, Requirement};
use crate::field::{entries, list, text};
use serde_json::{Map, Value};
use std::fmt;

/// What an object must have at least to match, for those who look selectors up in an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelNeed<'s> {
    /// The label is one of these.
    In(&'s [String]),
    /// It is absent or none of these.
    NotIn(&'s [String]),
    /// It is there.
    Exists,
    /// It is not there.
    Absent,
}

/// A conjunction of requirements on labels; without any it matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl LabelSelector {
    /// Matches every object.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Matches no object.
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// Reads the query form.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut parser = Parser::new(text)?;
        let requirements = parser.requirements()?;
        Ok(Self { requirements, nothing: false })
    }

    /// Reads a `LabelSelector` object. Null matches nothing, an empty object everything.
    pub fn from_object(object: &Value) -> Result<Self, SelectorError> {
        if object.is_null() {
            return Ok(Self::nothing());
        }
        let mut requirements = Vec::new();
        for (key, value) in entries(object, "matchLabels") {
            let value = value.as_str().unwrap_or_default().to_owned();
            requirements.push(Requirement::new(key, Demand::In(vec![value]))?);
        }
        for expression in list(object, "matchExpressions") {
            let values: Vec<String> = list(expression, "values")
                .iter()
                .filter_map(|value| value.as_str().map(str::to_owned))
                .collect();
            let demand = match text(expression, "operator") {
                "In" => Demand::In(values),
                "NotIn" => Demand::NotIn(values),
                "Exists" => Demand::Exists,
                "DoesNotExist" => Demand::Absent,
                other => return Err(SelectorError::Operator(other.to_owned())),
            };
            requirements.push(Requirement::new(text(expression, "key"), demand)?);
        }
        Ok(Self { requirements, nothing: false })
    }

    /// Reads a plain map of labels; empty or absent it matches nothing, as controllers mean it.
    pub fn from_map(map: &Value) -> Self {
        let requirements: Vec<Requirement> = map
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| Requirement {
                key: key.clone(),
                demand: Demand::In(vec![value.as_str().unwrap_or_default().to_owned()]),
            })
            .collect();
        Self { nothing: requirements.is_empty(), requirements }
    }

    /// Whether every object matches.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// Whether no object matches.
    pub fn is_nothing(&self) -> bool {
        self.nothing
    }

    /// What each label must be at least. Of numbers that are compared it says only that they are there.
    pub fn needs(&self) -> impl Iterator<Item = (&str, LabelNeed<'_>)> {
        self.requirements.iter().map(|requirement| {
            let need = match &requirement.demand {
                Demand::In(values) => LabelNeed::In(values),
                Demand::NotIn(values) => LabelNeed::NotIn(values),
                Demand::Exists | Demand::GreaterThan(_) | Demand::LessThan(_) => LabelNeed::Exists,
                Demand::Absent => LabelNeed::Absent,
            };
            (requirement.key.as_str(), need)
        })
    }

    /// Whether an object with these labels matches.
    pub fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        !self.nothing
            && self.requirements.iter().all(|requirement| {
                let value = labels.and_then(|labels| labels.get(&requirement.key));
                requirement.matches(value.and_then(Value::as_str))
            })
    }

    /// Whether a whole object matches, by its `metadata.labels`.
    pub fn matches_object(&self, object: &Value) -> bool {
        self.matches(crate::field::map(object, "metadata.labels"))
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted: Vec<&Requirement> = self.requirements.iter().collect();
        sorted.sort_by(|a, b| a.key.cmp(&b.key));
        for (index, Requirement { key, demand }) in sorted.into_iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            match demand {
                Demand::In(values) if values.len() == 1 => write!(f, "{key}={}", values[0])?,
                Demand::NotIn(values) if values.len() == 1 => write!(f, "{key}!={}", values[0])?,
                Demand::In(values) => write!(f, "{key} in ({})", values.join(","))?,
                Demand::NotIn(values) => write!(f, "{key} notin ({})", values.join(","))?,
                Demand::Exists => f.write_str(key)?,
                Demand::Absent => write!(f, "!{key}")?,
                Demand::GreaterThan(bound) => write!(f, "{key}>{bound}")?,
                Demand::LessThan(bound) => write!(f, "{key}<{bound}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn matches(selector: &str, labels: Value) -> bool {
        LabelSelector::parse(selector).unwrap().matches(labels.as_object())
    }

    #[test]
    fn every_operator_selects_what_it_says() {
        let rows = [
            ("", json!({}), true),
            ("a=b", json!({"a": "b"}), true),
            ("a==b", json!({"a": "c"}), false),
            ("a!=b", json!({}), true),
            ("a!=b", json!({"a": "b"}), false),
            ("a in (b, c)", json!({"a": "c"}), true),
            ("a in (b,c)", json!({}), false),
            ("a notin (b)", json!({}), true),
            ("a notin (b)", json!({"a": "b"}), false),
            ("a", json!({"a": ""}), true),
            ("!a", json!({"a": ""}), false),
            ("!a , b=c", json!({"b": "c"}), true),
            ("a=", json!({"a": ""}), true),
            ("a>1", json!({"a": "2"}), true),
            ("a<1", json!({"a": "2"}), false),
            ("example.org/a=b,c", json!({"example.org/a": "b", "c": "d"}), true),
        ];
        for (selector, labels, expected) in rows {
            assert_eq!(matches(selector, labels.clone()), expected, "{selector} on {labels}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for text in
            ["a b", "=", ",", "a,", "a in", "a in b", "a in (b", "a=b c", "A B/c=d", "a=b!", "a>x"]
        {
            assert!(LabelSelector::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_would_be_looked_at_too_often_is_refused_and_what_is_doubled_counts_once() {
        let many =
            |count| (0..count).map(|number| format!("k{number}")).collect::<Vec<_>>().join(",");
        assert!(LabelSelector::parse(&many(256)).is_ok());
        assert_eq!(LabelSelector::parse(&many(257)), Err(SelectorError::TooMany(256)));
        let doubled = LabelSelector::parse(&vec!["a=b"; 10_000].join(",")).unwrap();
        assert_eq!(doubled, LabelSelector::parse("a=b").unwrap());
        // Values of an object come in any order.
        let expression = json!({"key": "a", "operator": "In", "values": ["z", "b", "y", "a"]});
        let selector =
            LabelSelector::from_object(&json!({"matchExpressions": [expression]})).unwrap();
        for (value, expected) in [("a", true), ("b", true), ("z", true), ("c", false)] {
            assert_eq!(selector.matches(json!({"a": value}).as_object()), expected, "{value}");
        }
    }

    #[test]
    fn a_selector_object_is_the_conjunction_of_all_it_says() {
        let selector = LabelSelector::from_object(&json!({
            "matchLabels": {"a": "b"},
            "matchExpressions": [
                {"key": "c", "operator": "In", "values": ["d", "e"]},
                {"key": "f", "operator": "DoesNotExist"},
            ],
        }))
        .unwrap();
        let object = |labels: Value| json!({"metadata": {"labels": labels}});
        assert!(selector.matches_object(&object(json!({"a": "b", "c": "e"}))));
        assert!(!selector.matches_object(&object(json!({"a": "b", "c": "e", "f": ""}))));
        assert!(!selector.matches_object(&object(json!({"a": "b"}))));
        assert!(!LabelSelector::from_object(&Value::Null).unwrap().matches(None));
        assert!(LabelSelector::from_object(&json!({})).unwrap().matches(None));
        assert!(!LabelSelector::from_map(&json!({})).matches(None));
    }

    proptest! {
        #[test]
        fn a_printed_selector_reads_back_as_itself(
            key in "[a-z][a-z0-9]{0,8}",
            values in prop::collection::btree_set("[a-z0-9]{1,5}", 1..4),
            operator in 0..6,
        ) {
            let values: Vec<String> = values.into_iter().collect();
            let set = values.join(",");
            let text = match operator {
                0 => format!("{key}={}", values[0]),
                1 => format!("{key}!={}", values[0]),
                2 => format!("{key} in ({set})"),
                3 => format!("{key} notin ({set})"),
                4 => key,
                _ => format!("!{key}"),
            };
            let selector = LabelSelector::parse(&text).unwrap();
            prop_assert_eq!(LabelSelector::parse(&selector.to_string()).unwrap(), selector);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,40}") {
            let _ = LabelSelector::parse(&text);
        }
    }
}
