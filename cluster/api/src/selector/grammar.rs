//! The grammar of label selectors in queries.

use super::requirement::{Demand, Requirement};
use super::{MOST_REQUIREMENTS, SelectorError};

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

/// Reads tokens one after the other.
pub(super) struct Parser {
    tokens: Vec<Token>,
    next: usize,
}

impl Parser {
    /// Of the tokens of a text.
    pub(super) fn new(text: &str) -> Result<Self, SelectorError> {
        Ok(Self { tokens: tokens(text)?, next: 0 })
    }

    fn take(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.next).cloned();
        self.next += 1;
        token
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next)
    }

    pub(super) fn requirements(&mut self) -> Result<Vec<Requirement>, SelectorError> {
        let mut found = Vec::new();
        if self.tokens.is_empty() {
            return Ok(found);
        }
        loop {
            let requirement = self.requirement()?;
            if !found.contains(&requirement) {
                if found.len() == MOST_REQUIREMENTS {
                    return Err(SelectorError::TooMany(MOST_REQUIREMENTS));
                }
                found.push(requirement);
            }
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
