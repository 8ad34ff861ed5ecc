//! Paths into an object as columns name them: `.spec.replicas`,
//! `.status.conditions[?(@.type=="Ready")].status`.

use crate::json_equality::{compare, equal};
use serde_json::Value;
use std::cmp::Ordering;

/// The longest path, in bytes.
const MAX_PATH: usize = 4096;
/// How many values a path may come to.
const MAX_FOUND: usize = 1000;

/// A path.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonPath {
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    Where { fields: Vec<String>, test: Option<(Test, Value)> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Test {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Test {
    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

impl JsonPath {
    /// Reads a path, which begins with a dot; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !text.starts_with('.') && !text.starts_with('[') {
            return Err("must be a simple json path starting with .".to_owned());
        }
        if text.len() > MAX_PATH {
            return Err(format!("may have at most {MAX_PATH} bytes"));
        }
        let mut steps = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            rest = step(rest, &mut steps)?;
        }
        Ok(Self { steps })
    }

    /// The fields that the path goes through, where it goes through nothing but fields.
    pub fn fields(&self) -> Option<Vec<&str>> {
        self.steps
            .iter()
            .map(|step| match step {
                Step::Field(name) => Some(name.as_str()),
                _ => None,
            })
            .collect()
    }

    /// The same as a JSON pointer.
    pub fn pointer(&self) -> Option<String> {
        let escaped = |name: &str| name.replace('~', "~0").replace('/', "~1");
        let fields = self.fields()?;
        Some(fields.iter().flat_map(|field| ["/".to_owned(), escaped(field)]).collect())
    }

    /// What the path comes to.
    pub fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![value];
        for step in &self.steps {
            let mut next = Vec::new();
            for value in found {
                step.find(value, &mut next);
                next.truncate(MAX_FOUND);
            }
            found = next;
        }
        found
    }
}

impl Step {
    fn find<'a>(&self, value: &'a Value, found: &mut Vec<&'a Value>) {
        match (self, value) {
            (Self::Field(name), Value::Object(map)) => found.extend(map.get(name)),
            (Self::Index(at), Value::Array(list)) => {
                let at = if *at < 0 { list.len() as i64 + at } else { *at };
                found.extend(usize::try_from(at).ok().and_then(|at| list.get(at)));
            }
            (Self::All, Value::Array(list)) => found.extend(list),
            (Self::All, Value::Object(map)) => found.extend(map.values()),
            (Self::Where { fields, test }, Value::Array(list)) => {
                found.extend(list.iter().filter(|entry| holds(entry, fields, test.as_ref())));
            }
            _ => {}
        }
    }
}

fn holds(entry: &Value, fields: &[String], test: Option<&(Test, Value)>) -> bool {
    let value = fields.iter().try_fold(entry, |value, field| value.get(field));
    let Some(value) = value else { return false };
    match test {
        None => true,
        Some((Test::Equal, wanted)) => equal(value, wanted),
        Some((Test::NotEqual, wanted)) => !equal(value, wanted),
        Some((test, wanted)) => match (value, wanted) {
            (Value::Number(a), Value::Number(b)) => test.holds(compare(a, b)),
            (Value::String(a), Value::String(b)) => test.holds(a.cmp(b)),
            _ => false,
        },
    }
}

/// Reads one step, and gives what is left.
fn step<'t>(text: &'t str, steps: &mut Vec<Step>) -> Result<&'t str, String> {
    if let Some(rest) = text.strip_prefix('[') {
        let end = closing(rest).ok_or("unterminated array")?;
        steps.push(bracket(&rest[..end])?);
        return Ok(&rest[end + 1..]);
    }
    let rest = text.strip_prefix('.').unwrap_or(text);
    if rest.starts_with('.') {
        return Err("recursive descent (..) is not supported".to_owned());
    }
    if let Some(rest) = rest.strip_prefix('*') {
        steps.push(Step::All);
        return Ok(rest);
    }
    let (name, rest) = name(rest)?;
    if name.is_empty() && !(rest.starts_with('[') || (rest.is_empty() && steps.is_empty())) {
        return Err("a field without a name".to_owned());
    }
    if !name.is_empty() {
        steps.push(Step::Field(name));
    }
    Ok(rest)
}

/// A name up to the next step; a dot in it is written `\.`.
fn name(text: &str) -> Result<(String, &str), String> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.push(chars.next().ok_or("a backslash at the end")?.1),
            '.' | '[' => return Ok((name, &text[at..])),
            '{' | '}' | '(' | ')' | ']' | '$' | '@' | '\'' | '"' | '|' | ' ' => {
                return Err(format!("unrecognized character in action: {c:?}"));
            }
            c => name.push(c),
        }
    }
    Ok((name, ""))
}

/// Where the bracket that is open ends, quoted ones aside.
fn closing(text: &str) -> Option<usize> {
    let (mut quote, mut depth) = (None, 0);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn bracket(inner: &str) -> Result<Step, String> {
    let inner = inner.trim();
    if inner == "*" {
        return Ok(Step::All);
    }
    if let Some(text) = quoted(inner) {
        return Ok(Step::Field(text));
    }
    if let Some(filter) = inner.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) {
        return condition(filter);
    }
    inner.parse().map(Step::Index).map_err(|_| format!("invalid array index {inner}"))
}

fn condition(text: &str) -> Result<Step, String> {
    let tests = [
        ("==", Test::Equal),
        ("!=", Test::NotEqual),
        ("<=", Test::LessOrEqual),
        (">=", Test::GreaterOrEqual),
        ("<", Test::Less),
        (">", Test::Greater),
    ];
    let found = tests
        .into_iter()
        .filter_map(|(word, test)| text.find(word).map(|at| (at, word, test)))
        .min_by_key(|(at, word, _)| (*at, usize::MAX - word.len()));
    let (left, test) = match found {
        None => (text, None),
        Some((at, word, test)) => {
            let wanted = text[at + word.len()..].trim();
            let wanted = quoted(wanted)
                .map(Value::from)
                .or_else(|| serde_json::from_str(wanted).ok().filter(|v: &Value| !v.is_object()))
                .ok_or_else(|| format!("unrecognized value in a filter: {wanted}"))?;
            (&text[..at], Some((test, wanted)))
        }
    };
    let path = left.trim().strip_prefix('@').ok_or("a filter begins with @")?;
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        rest = step(rest, &mut steps)?;
    }
    let fields: Option<Vec<String>> = steps
        .into_iter()
        .map(|step| match step {
            Step::Field(name) => Some(name),
            _ => None,
        })
        .collect();
    Ok(Step::Where { fields: fields.ok_or("a filter names fields alone")?, test })
}

fn quoted(text: &str) -> Option<String> {
    ['\'', '"'].into_iter().find_map(|quote| {
        let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
        (!inner.contains(quote)).then(|| inner.to_owned())
    })
}
