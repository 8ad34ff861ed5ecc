//! Selection by fields.

use super::{MOST_REQUIREMENTS, SelectorError};
use crate::resource::Resource;
use serde_json::Value;

/// A conjunction of comparisons of fields; without any it matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<FieldTerm>,
}

/// One comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldTerm {
    /// The field's label, as `spec.nodeName`.
    pub label: String,
    /// What it is compared with.
    pub value: String,
    /// Whether it must be equal, or must not.
    pub equal: bool,
}

impl FieldSelector {
    /// Reads the query form; `\` escapes `,`, `=` and itself.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut terms = Vec::new();
        for term in split_unescaped(text, ',') {
            if term.is_empty() {
                continue;
            }
            let bad = || {
                SelectorError::Syntax(format!(
                    "invalid selector: {text:?}; can't understand {term:?}"
                ))
            };
            let (label, operator, value) = operator_of(&term).ok_or_else(bad)?;
            let value = unescape(value).ok_or_else(bad)?;
            let term = FieldTerm { label: label.to_owned(), value, equal: operator };
            if !terms.contains(&term) {
                if terms.len() == MOST_REQUIREMENTS {
                    return Err(SelectorError::TooMany(MOST_REQUIREMENTS));
                }
                terms.push(term);
            }
        }
        Ok(Self { terms })
    }

    /// Refuses fields that the resource cannot be selected by.
    pub fn check(&self, resource: &Resource) -> Result<(), SelectorError> {
        match self.terms.iter().find(|term| resource.field(&term.label).is_none()) {
            Some(term) => Err(SelectorError::Field(term.label.clone())),
            None => Ok(()),
        }
    }

    /// The comparisons, for those who can look one of them up in an index.
    pub fn terms(&self) -> &[FieldTerm] {
        &self.terms
    }

    /// The one name that is asked for, when there is one.
    pub fn name(&self) -> Option<&str> {
        self.terms
            .iter()
            .find(|term| term.equal && term.label == "metadata.name")
            .map(|term| term.value.as_str())
    }

    /// Whether every object matches.
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether an object matches; a field that the resource does not know matches nothing.
    pub fn matches(&self, resource: &Resource, object: &Value) -> bool {
        self.terms.iter().all(|term| {
            resource
                .field(&term.label)
                .is_some_and(|field| (field.value(object) == term.value) == term.equal)
        })
    }
}

/// Splits at a character that no `\` precedes; escapes are left in.
fn split_unescaped(text: &str, at: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        if c == at && !escaped {
            parts.push(String::new());
            continue;
        }
        escaped = c == '\\' && !escaped;
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts
}

/// Label, whether it asks for equality, and the value, still escaped.
fn operator_of(term: &str) -> Option<(&str, bool, &str)> {
    let at = term.find('=')?;
    let (label, rest) = (&term[..at], &term[at + 1..]);
    match label.strip_suffix('!') {
        Some(label) => Some((label, false, rest)),
        None => Some((label, true, rest.strip_prefix('=').unwrap_or(rest))),
    }
}

fn unescape(value: &str) -> Option<String> {
    let mut plain = String::new();
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next()? {
                c @ ('\\' | ',' | '=') => plain.push(c),
                _ => return None,
            },
            ',' | '=' => return None,
            c => plain.push(c),
        }
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::find;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn fields_select_pods_by_node_and_phase_and_unknown_ones_are_refused() {
        let pods = &find("", "v1", "pods").unwrap();
        let pod = json!({
            "metadata": {"name": "x", "namespace": "d"},
            "spec": {"nodeName": "n1"},
            "status": {"phase": "Running"},
        });
        let rows = [
            ("spec.nodeName=n1,status.phase!=Failed", true),
            ("spec.nodeName==n2", false),
            ("metadata.name=x", true),
            ("metadata.namespace!=d", false),
            ("spec.hostNetwork=false", true),
            ("status.nominatedNodeName=", true),
        ];
        for (text, expected) in rows {
            let selector = FieldSelector::parse(text).unwrap();
            selector.check(pods).unwrap();
            assert_eq!(selector.matches(pods, &pod), expected, "{text}");
        }
        let unknown = FieldSelector::parse("spec.nope=1").unwrap();
        assert_eq!(unknown.check(pods), Err(SelectorError::Field("spec.nope".to_owned())));
        assert_eq!(FieldSelector::parse(r"a=b\,c").unwrap().terms()[0].value, "b,c");
        assert!(FieldSelector::parse("a").is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,40}") {
            let _ = FieldSelector::parse(&text);
        }
    }
}
