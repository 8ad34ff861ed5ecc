//! Which objects are meant: by labels, by fields.
//!
//! [`LabelSelector`] reads the query form (`a=b,c in (d,e),!f`), the object form with
//! `matchLabels` and `matchExpressions`, and the plain map of a service or a replication
//! controller. [`FieldSelector`] reads `metadata.name=x,status.phase!=Failed` and asks the
//! resource's own table which labels it knows.

use crate::field::{entries, list, text};
use crate::names;
use crate::resource::Resource;
use serde_json::{Map, Value};
use std::fmt;

/// Why a selector cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SelectorError {
    /// The text does not follow the grammar.
    #[error("unable to parse requirement: {0}")]
    Syntax(String),
    /// A key is no label key.
    #[error("key: Invalid value: {key:?}: {why}")]
    Key {
        /// The key as written.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// A value is no label value.
    #[error("values[{index}][{key}]: Invalid value: {value:?}: {why}")]
    Value {
        /// The key it belongs to.
        key: String,
        /// Which of the values.
        index: usize,
        /// The value as written.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// An operator that is not known.
    #[error("{0:?} is not a valid label selector operator")]
    Operator(String),
    /// The resource cannot be selected by this field.
    #[error("field label not supported: {0}")]
    Field(String),
}

/// What one requirement asks of the label.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Demand {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
    GreaterThan(i64),
    LessThan(i64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    demand: Demand,
}

impl Requirement {
    fn new(key: &str, demand: Demand) -> Result<Self, SelectorError> {
        if let Some(why) = names::qualified(key).into_iter().next() {
            return Err(SelectorError::Key { key: key.to_owned(), why });
        }
        if let Demand::In(values) | Demand::NotIn(values) = &demand {
            for (index, value) in values.iter().enumerate() {
                if let Some(why) = names::label_value(value).into_iter().next() {
                    let (key, value) = (key.to_owned(), value.clone());
                    return Err(SelectorError::Value { key, index, value, why });
                }
            }
        }
        Ok(Self { key: key.to_owned(), demand })
    }

    fn matches(&self, value: Option<&str>) -> bool {
        match &self.demand {
            Demand::In(values) => value.is_some_and(|value| values.iter().any(|v| v == value)),
            Demand::NotIn(values) => !value.is_some_and(|value| values.iter().any(|v| v == value)),
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
        let mut parser = Parser { tokens: tokens(text)?, next: 0 };
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

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Equal,
    NotEqual,
    Not,
    Open,
    Close,
    Comma,
    Greater,
    Less,
}

fn tokens(text: &str) -> Result<Vec<Token>, SelectorError> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, length) = match first {
            '=' if rest.starts_with("==") => (Token::Equal, 2),
            '=' => (Token::Equal, 1),
            '!' if rest.starts_with("!=") => (Token::NotEqual, 2),
            '!' => (Token::Not, 1),
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            ',' => (Token::Comma, 1),
            '>' => (Token::Greater, 1),
            '<' => (Token::Less, 1),
            _ => {
                let ends = |c: char| c.is_whitespace() || "=!(),<>".contains(c);
                let end = rest.find(ends).unwrap_or(rest.len());
                (Token::Word(rest[..end].to_owned()), end)
            }
        };
        found.push(token);
        rest = rest
            .get(length..)
            .ok_or_else(|| SelectorError::Syntax(format!("found {rest:?}")))?
            .trim_start();
    }
    Ok(found)
}

struct Parser {
    tokens: Vec<Token>,
    next: usize,
}

impl Parser {
    fn take(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.next).cloned();
        self.next += 1;
        token
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next)
    }

    fn requirements(&mut self) -> Result<Vec<Requirement>, SelectorError> {
        let mut found = Vec::new();
        if self.tokens.is_empty() {
            return Ok(found);
        }
        loop {
            found.push(self.requirement()?);
            match self.take() {
                None => return Ok(found),
                Some(Token::Comma) if self.peek().is_some() => {}
                Some(Token::Comma) => {
                    return Err(syntax(None, "identifier after ','"));
                }
                other => return Err(syntax(other.as_ref(), "',' or 'end of string'")),
            }
        }
    }

    fn word(&mut self) -> Result<String, SelectorError> {
        match self.take() {
            Some(Token::Word(word)) => Ok(word),
            other => Err(syntax(other.as_ref(), "identifier")),
        }
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        if self.peek() == Some(&Token::Not) {
            self.next += 1;
            let key = self.word()?;
            return Requirement::new(&key, Demand::Absent);
        }
        let key = self.word()?;
        let demand = match self.peek().cloned() {
            None | Some(Token::Comma) => Demand::Exists,
            Some(Token::Equal) => Demand::In(vec![self.value()?]),
            Some(Token::NotEqual) => Demand::NotIn(vec![self.value()?]),
            Some(Token::Greater) => Demand::GreaterThan(self.bound()?),
            Some(Token::Less) => Demand::LessThan(self.bound()?),
            Some(Token::Word(word)) if word == "in" => Demand::In(self.set()?),
            Some(Token::Word(word)) if word == "notin" => Demand::NotIn(self.set()?),
            other => {
                return Err(syntax(other.as_ref(), "in, notin, =, ==, !=, gt, lt"));
            }
        };
        Requirement::new(&key, demand)
    }

    /// The value after an operator; none is the empty one.
    fn value(&mut self) -> Result<String, SelectorError> {
        self.next += 1;
        match self.peek() {
            None | Some(Token::Comma) => Ok(String::new()),
            _ => self.word(),
        }
    }

    fn bound(&mut self) -> Result<i64, SelectorError> {
        let value = self.value()?;
        value
            .parse()
            .map_err(|_| SelectorError::Syntax(format!("found {value:?}, expected: an integer")))
    }

    fn set(&mut self) -> Result<Vec<String>, SelectorError> {
        self.next += 1;
        match self.take() {
            Some(Token::Open) => {}
            other => return Err(syntax(other.as_ref(), "'('")),
        }
        let mut values = Vec::new();
        loop {
            match self.take() {
                Some(Token::Word(word)) => {
                    values.push(word);
                    match self.take() {
                        Some(Token::Comma) => {
                            if self.peek() == Some(&Token::Close) {
                                values.push(String::new());
                            }
                        }
                        Some(Token::Close) => break,
                        other => return Err(syntax(other.as_ref(), "',' or ')'")),
                    }
                }
                Some(Token::Comma) => values.push(String::new()),
                Some(Token::Close) => break,
                other => return Err(syntax(other.as_ref(), "',', ')' or identifier")),
            }
        }
        if values.is_empty() {
            values.push(String::new());
        }
        values.sort();
        values.dedup();
        Ok(values)
    }
}

fn syntax(found: Option<&Token>, expected: &str) -> SelectorError {
    let found = match found {
        None => String::new(),
        Some(Token::Word(word)) => word.clone(),
        Some(Token::Equal) => "=".to_owned(),
        Some(Token::NotEqual) => "!=".to_owned(),
        Some(Token::Not) => "!".to_owned(),
        Some(Token::Open) => "(".to_owned(),
        Some(Token::Close) => ")".to_owned(),
        Some(Token::Comma) => ",".to_owned(),
        Some(Token::Greater) => ">".to_owned(),
        Some(Token::Less) => "<".to_owned(),
    };
    SelectorError::Syntax(format!("found '{found}', expected: {expected}"))
}

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
            terms.push(FieldTerm { label: label.to_owned(), value, equal: operator });
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
    use crate::resource::find;
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

    #[test]
    fn fields_select_pods_by_node_and_phase_and_unknown_ones_are_refused() {
        let pods = find("", "v1", "pods").unwrap();
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
        fn no_text_makes_the_parsers_panic(text in "\\PC{0,40}") {
            let _ = LabelSelector::parse(&text);
            let _ = FieldSelector::parse(&text);
        }
    }
}
